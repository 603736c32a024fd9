//! Reads `anomaly.toml`: settings as top-level keys, `[[rules]]` and `[[routes]]`. Every fault is told, not only the first.

use anomaly_engine::{Rule, Severity};
use serde::Deserialize;
use toml::{Table, Value};

use super::load::Fault;
use super::notify::Route;
use super::setting::Setting;
use super::settings::SETTINGS;
use super::value;
use crate::notify::channel::Channel;

/// One key of a rule or of a route.
#[derive(Debug)]
pub(super) struct RuleKey {
    /// Its name.
    pub(super) name: &'static str,
    /// What its value must be, as in "must be …".
    pub(super) kind: &'static str,
    /// An example, in TOML.
    pub(super) example: &'static str,
    /// What it does, for users; Markdown.
    pub(super) doc: &'static str,
}

/// The keys of a rule, in the order in which they are explained.
pub(super) const RULE_KEYS: &[RuleKey] = &[
    key("metric", "text", "\"cpu*\"", "The metric; `*` stands for any text. Absent: every metric."),
    key("labels", "a table of texts", "{ dc = \"eu*\" }", "Labels that the series must have; `*` stands for any text."),
    key("detector", "\"zscore\" or \"percentile\"", "\"percentile\"", "As `ANOMALY_DETECTOR`."),
    key("threshold", "a number", "4.0", "As `ANOMALY_THRESHOLD`."),
    key("min_count", "a whole number", "20", "As `ANOMALY_MIN_COUNT`."),
    key("window_seconds", "a number of seconds", "3600.0", "As `WINDOW_SECONDS`."),
    key(
        "window",
        "\"exact\" or \"panes\"",
        "\"exact\"",
        "`exact` keeps every sample (default); `panes` bounds the memory of a series, its edge is quantised to 1/60 of the window.",
    ),
    key("direction", "\"both\", \"high\" or \"low\"", "\"high\"", "Which deviations count (default `both`)."),
    key("min_deviation", "a number", "5.0", "The smallest deviation from the expected value that fires, in the metric's unit (default 0)."),
    key("min_stddev", "a number", "0.5", "The smallest standard deviation by which `zscore` divides, in the metric's unit (default 0)."),
    key("rel_floor", "a number", "0.01", "In a constant window `zscore` divides by this share of the mean (default 0.001)."),
    key("critical_factor", "a number", "1.5", "From how many times the threshold an anomaly is critical (default 2)."),
    key("low", "a number", "0.5", "Lower percentile of `percentile` (default 1)."),
    key("high", "a number", "99.5", "Upper percentile of `percentile` (default 99)."),
];

/// The keys of a route, in the order in which they are explained.
pub(super) const ROUTE_KEYS: &[RuleKey] = &[
    key("metric", "text", "\"cpu*\"", "The metric; `*` stands for any text. Absent: every metric."),
    key("labels", "a table of texts", "{ team = \"db*\" }", "Labels that the series must have; `*` stands for any text."),
    key("severity", "\"warning\" or \"critical\"", "\"critical\"", "The severity. Absent: both."),
    key(
        "channels",
        "a list of email, webhook, slack, pagerduty, alertmanager",
        "[\"email\", \"pagerduty\"]",
        "Over which channels it is told. `[]`: nobody is told.",
    ),
];

const fn key(name: &'static str, kind: &'static str, example: &'static str, doc: &'static str) -> RuleKey {
    RuleKey { name, kind, example, doc }
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Keys and their values as text, as the environment would give them.
    pub(super) values: Vec<(String, String)>,
    /// The rules, without the keys that are at fault.
    pub(super) rules: Vec<Rule>,
    /// The routes, without the keys that are at fault.
    pub(super) routes: Vec<Route>,
    /// What is wrong, the paths without the file's name.
    pub(super) faults: Vec<Fault>,
}

/// Reads the text of a file.
pub(super) fn parse(text: &str) -> File {
    let mut file = File::default();
    let table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            file.faults.push(Fault::new(format!("line {line}"), error.message()));
            return file;
        }
    };
    for (key, value) in table {
        if key == "rules" {
            file.read_rules(value);
        } else if key == "routes" {
            file.read_routes(value);
        } else if !is_known(&key) {
            file.faults.push(Fault::new(&key, unknown(&key, known_keys())));
        } else if let Some(text) = as_text(&value) {
            file.values.push((key, text));
        } else {
            file.faults.push(Fault::new(&key, format!("must be one value, got {value}")));
        }
    }
    file
}

impl File {
    /// The tables under a heading, with their numbers.
    fn tables(&mut self, name: &str, value: Value) -> Vec<(usize, Table)> {
        let Value::Array(values) = value else {
            self.faults.push(Fault::new(name, format!("must be tables, each under [[{name}]], got {value}")));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (i, value) in values.into_iter().enumerate() {
            match value {
                Value::Table(table) => tables.push((i, table)),
                other => self.faults.push(Fault::new(format!("{name}[{i}]"), format!("must be a table under [[{name}]], got {other}"))),
            }
        }
        tables
    }

    fn read_routes(&mut self, value: Value) {
        for (i, table) in self.tables("routes", value) {
            let mut route = Route::default();
            if !table.contains_key("channels") {
                let message = "a route needs channels: channels = [\"email\"], or [] if nobody is to be told";
                self.faults.push(Fault::new(format!("routes[{i}].channels"), message));
            }
            for (key, value) in table {
                if let Err(message) = set_in_route(&mut route, &key, value) {
                    self.faults.push(Fault::new(format!("routes[{i}].{key}"), message));
                }
            }
            self.routes.push(route);
        }
    }

    fn read_rules(&mut self, value: Value) {
        for (i, table) in self.tables("rules", value) {
            let faults = &mut self.faults;
            let sound = table.into_iter().filter(|(key, value)| match rule_fault(key, value) {
                Some(message) => {
                    faults.push(Fault::new(format!("rules[{i}].{key}"), message));
                    false
                }
                None => true,
            });
            let sound: Table = sound.collect();
            // Each key was read by itself, so all together are.
            self.rules.push(Rule::deserialize(sound).unwrap_or_default());
        }
    }
}

fn rule_fault(key: &str, value: &Value) -> Option<String> {
    let Some(known) = RULE_KEYS.iter().find(|known| known.name == key) else {
        let aliased = key.strip_prefix("anomaly_").filter(|rest| RULE_KEYS.iter().any(|known| known.name == *rest));
        let names = RULE_KEYS.iter().map(|known| known.name.to_owned());
        return Some(aliased.map_or_else(|| unknown(key, names), |name| format!("unknown key, did you mean {name}?")));
    };
    let alone = Table::from_iter([(key.to_owned(), value.clone())]);
    Rule::deserialize(alone).err().map(|_| format!("must be {}, got {value}", known.kind))
}

fn set_in_route(route: &mut Route, key: &str, value: Value) -> Result<(), String> {
    let Some(known) = ROUTE_KEYS.iter().find(|known| known.name == key) else {
        return Err(unknown_among(key, ROUTE_KEYS.iter().map(|known| known.name.to_owned())));
    };
    let wrong = |value: &dyn std::fmt::Display| format!("must be {}, got {value}", known.kind);
    match (key, value) {
        ("metric", Value::String(text)) => route.metric = Some(text),
        ("severity", Value::String(text)) => {
            let words = [Severity::Warning, Severity::Critical].map(|severity| (severity.as_str(), severity));
            route.severity = Some(value::word(&text, &words).map_err(|_| wrong(&Value::String(text)))?);
        }
        ("labels", Value::Table(labels)) => {
            for (name, value) in labels {
                let Value::String(pattern) = value else { return Err(wrong(&value)) };
                route.labels.insert(name, pattern);
            }
        }
        ("channels", Value::Array(names)) => {
            for name in names {
                let channel = name.as_str().and_then(Channel::named);
                let all = || Channel::ALL.map(Channel::name);
                let channel = channel.ok_or_else(|| format!("must be a list of {}, got {name}", value::either(&all())))?;
                if !route.channels.contains(&channel) {
                    route.channels.push(channel);
                }
            }
        }
        (_, value) => return Err(wrong(&value)),
    }
    Ok(())
}

/// A value as the environment would give it: an array is its elements between commas.
fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        Value::Array(values) => {
            let texts = values.iter().map(|value| value.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().map(|texts| texts.join(","))
        }
        Value::Table(_) | Value::Datetime(_) => None,
    }
}

/// Whether a top-level key names a setting, or the file that holds its value.
fn is_known(key: &str) -> bool {
    let is_name = |name: &str| name == name.to_ascii_lowercase() && Setting::named(name).is_some();
    is_name(key) || key.strip_suffix("_file").is_some_and(is_name)
}

fn known_keys() -> impl Iterator<Item = String> {
    SETTINGS.iter().map(|setting| setting.name).map(str::to_ascii_lowercase).chain(["rules", "routes"].map(str::to_owned))
}

/// The message for a key that nobody knows, with the nearest name that somebody does.
fn unknown(key: &str, names: impl Iterator<Item = String>) -> String {
    if let Some(setting) = Setting::of_engine(key) {
        return format!("unknown key, did you mean {}?", setting.key());
    }
    unknown_among(key, names)
}

/// The same for a key that is no setting's.
fn unknown_among(key: &str, names: impl Iterator<Item = String>) -> String {
    let lower = key.to_ascii_lowercase();
    let nearest = names.map(|name| (distance(&lower, &name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= 1 + name.len() / 4 => format!("unknown key, did you mean {name}?"),
        _ => "unknown key: `anomaly config print` lists those that are known".to_owned(),
    }
}

/// How many letters must be put in, taken out or replaced to make `b` of `a` (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_counted_in_letters() {
        for (a, b, expected) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "ac", 1), ("", "ab", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn every_field_of_a_rule_is_a_known_key_with_an_example_that_is_read() {
        let text: String = RULE_KEYS.iter().map(|key| format!("{} = {}\n", key.name, key.example)).collect();
        let file = parse(&format!("[[rules]]\n{text}"));
        assert_eq!(file.faults, []);
        let written = Value::try_from(&file.rules[0]).unwrap();
        let mut fields: Vec<_> = written.as_table().unwrap().keys().map(String::as_str).collect();
        let mut known: Vec<_> = RULE_KEYS.iter().map(|key| key.name).collect();
        fields.sort_unstable();
        known.sort_unstable();
        assert_eq!(fields, known);
    }
}
