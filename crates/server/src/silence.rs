//! Silences: for a while, nobody hears of the incidents that match.

use std::sync::{LazyLock, Mutex, PoisonError};

use anomaly_engine::Timestamp;
use hashbrown::HashMap;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::store::NewSilence;
use crate::store::handling::Word;

/// The most matchers of a silence.
const MAX_MATCHERS: usize = 32;
/// The longest value of a matcher, in bytes.
const MAX_VALUE: usize = 1024;
/// The most memory that a compiled pattern may take, in bytes.
const PATTERN_BYTES: usize = 256 << 10;
/// The most silences that may be known and not over.
pub const MOST_SILENCES: usize = 1000;
/// Lists of matchers that stay compiled: those of all silences.
const COMPILED: usize = 2 * MOST_SILENCES;

/// For whom and how long nothing is sent. Half open: `from` ≤ now < `to`.
#[derive(Clone, Debug)]
pub struct Silence {
    pub id: String,
    /// All must match.
    pub matchers: Vec<Matcher>,
    pub from: Timestamp,
    pub to: Timestamp,
    pub by: Option<String>,
    pub comment: Option<String>,
}

/// What a label, the metric or the severity must be.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// What was asked for.
    pub spec: MatcherSpec,
    /// Of `=~` and `!~`: the whole value must match.
    pattern: Option<Regex>,
}

/// A matcher as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatcherSpec {
    /// A label's name, or `series` (its whole name), `metric`, or `severity`.
    pub name: String,
    pub op: Op,
    pub value: String,
}

/// How a matcher compares. A label that a series does not have is the empty text, as in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "=~")]
    Matches,
    #[serde(rename = "!~")]
    NotMatches,
}

/// What is matched.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The series' name.
    pub series: &'a str,
    pub metric: &'a str,
    pub labels: &'a [(String, String)],
    pub critical: bool,
}

impl<'a> Subject<'a> {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&'a str> {
        self.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A silence that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SilenceError {
    #[error("matchers: at least one is needed, else everything would be silenced")]
    NoMatcher,
    #[error("matchers: at most {MAX_MATCHERS} are taken, got {0}")]
    TooMany(usize),
    #[error("matchers[{0}].name: must be a label's name, series, metric or severity, got \"\"")]
    NoName(usize),
    #[error("matchers[{0}].value: at most {MAX_VALUE} bytes are taken, got {1}")]
    TooLong(usize, usize),
    #[error("matchers[{0}].value: {1:?} is no regular expression: {2}")]
    BadPattern(usize, String, String),
    #[error("matchers: they match a series that nobody has heard of yet; name what is to be silent, with = or =~")]
    MatchesAll,
}

/// Compiles matchers.
///
/// # Errors
/// None, too many, or one that cannot be used: a silence must not silence what was not meant.
pub fn compile(specs: Vec<MatcherSpec>) -> Result<Vec<Matcher>, SilenceError> {
    if specs.is_empty() {
        return Err(SilenceError::NoMatcher);
    }
    if specs.len() > MAX_MATCHERS {
        return Err(SilenceError::TooMany(specs.len()));
    }
    let matchers = specs.into_iter().enumerate().map(|(i, spec)| Matcher::new(i, spec)).collect::<Result<Vec<_>, _>>()?;
    // A series of which nobody has heard must not be silent, whatever its severity.
    let stranger = Subject { series: "\u{1}", metric: "\u{1}", labels: &[], critical: false };
    if [false, true].iter().all(|&critical| matchers.iter().all(|matcher| matcher.matches(Subject { critical, ..stranger }))) {
        return Err(SilenceError::MatchesAll);
    }
    Ok(matchers)
}

/// Matchers from the text in which they are stored; `None` where this version does not take them. Compiling costs more than all else
/// that a silence does, and is asked for with each message and page: so what was compiled is remembered.
pub fn stored(text: &str) -> Option<Vec<Matcher>> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Option<Vec<Matcher>>>>> = LazyLock::new(Mutex::default);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(matchers) = known().get(text) {
        return matchers.clone();
    }
    let matchers = serde_json::from_str(text).ok().and_then(|specs| compile(specs).ok());
    let mut known = known();
    if known.len() >= COMPILED {
        known.clear();
    }
    known.insert(text.to_owned(), matchers.clone());
    matchers
}

impl Matcher {
    fn new(i: usize, spec: MatcherSpec) -> Result<Self, SilenceError> {
        if spec.name.is_empty() {
            return Err(SilenceError::NoName(i));
        }
        if spec.value.len() > MAX_VALUE {
            return Err(SilenceError::TooLong(i, spec.value.len()));
        }
        let pattern = match spec.op {
            Op::Equal | Op::NotEqual => None,
            Op::Matches | Op::NotMatches => {
                let bad = |error: regex::Error| SilenceError::BadPattern(i, spec.value.clone(), error.to_string().replace('\n', " "));
                // Alone first, so that the text cannot get out of the group around it.
                let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build();
                build(&spec.value).map_err(bad)?;
                let whole = format!("^(?:{})$", spec.value);
                Some(build(&whole).map_err(bad)?)
            }
        };
        Ok(Self { spec, pattern })
    }

    fn matches(&self, subject: Subject<'_>) -> bool {
        // A label of that name wins, since it is what the series shows; but `series` is the whole of it.
        let label = if self.spec.name == "series" { None } else { subject.label(&self.spec.name) };
        let value = label.unwrap_or(match self.spec.name.as_str() {
            "series" => subject.series,
            "metric" => subject.metric,
            "severity" => crate::store::severity(subject.critical),
            _ => "",
        });
        let found = match &self.pattern {
            Some(pattern) => pattern.is_match(value),
            None => value == self.spec.value,
        };
        found == matches!(self.spec.op, Op::Equal | Op::Matches)
    }
}

impl Silence {
    /// As it is stored.
    pub fn to_stored(&self) -> NewSilence {
        let Self { id, matchers, from, to, by, comment } = self;
        let word = Word { by: by.clone(), comment: comment.clone() };
        NewSilence { id: id.clone(), matchers: matchers.iter().map(|matcher| matcher.spec.clone()).collect(), from: *from, to: *to, word }
    }

    /// Whether it holds at `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.to
    }

    /// Whether it silences a subject, whenever that is.
    pub fn matches(&self, subject: Subject<'_>) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(subject))
    }
}

/// The silence that holds for a subject at `now` the longest.
pub fn silencing<'s>(silences: &'s [Silence], subject: Subject<'_>, now: Timestamp) -> Option<&'s Silence> {
    silences.iter().filter(|silence| silence.is_active(now) && silence.matches(subject)).max_by_key(|silence| silence.to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, op: Op, value: &str) -> MatcherSpec {
        MatcherSpec { name: name.into(), op, value: value.into() }
    }

    fn silence(specs: Vec<MatcherSpec>) -> Silence {
        let (from, to) = (Timestamp::from_seconds(10), Timestamp::from_seconds(20));
        Silence { id: "s".into(), matchers: compile(specs).unwrap(), from, to, by: None, comment: None }
    }

    #[test]
    fn all_matchers_must_hold_and_patterns_match_the_whole_value() {
        let labels = [("dc".to_owned(), "eu-west".to_owned()), ("host".to_owned(), "a".to_owned())];
        let series = r#"cpu_user{dc="eu-west",host="a"}"#;
        let subject = Subject { series, metric: "cpu_user", labels: &labels, critical: true };
        for (specs, holds) in [
            (vec![spec("metric", Op::Equal, "cpu_user")], true),
            (vec![spec("series", Op::Equal, series)], true),
            (vec![spec("series", Op::Equal, "cpu_user")], false),
            (vec![spec("metric", Op::Equal, "cpu")], false),
            (vec![spec("metric", Op::Matches, "cpu_.*"), spec("dc", Op::NotMatches, "us|eu")], true),
            (vec![spec("metric", Op::Matches, "cpu")], false),
            (vec![spec("metric", Op::Matches, "cpu.*")], true),
            (vec![spec("dc", Op::Matches, "us|eu-.*")], true),
            (vec![spec("dc", Op::Equal, "eu-west"), spec("host", Op::NotEqual, "a")], false),
            (vec![spec("severity", Op::Equal, "critical")], true),
            (vec![spec("severity", Op::Equal, "warning")], false),
            (vec![spec("rack", Op::Equal, ""), spec("host", Op::Equal, "a")], true),
            (vec![spec("host", Op::Equal, "a"), spec("rack", Op::NotEqual, "")], false),
        ] {
            assert_eq!(silence(specs.clone()).matches(subject), holds, "{specs:?}");
        }
    }

    #[test]
    fn a_silence_that_would_silence_everything_or_cannot_be_read_is_refused() {
        assert_eq!(compile(vec![]).unwrap_err(), SilenceError::NoMatcher);
        for vague in [
            spec("metric", Op::Matches, ".*"),
            spec("metric", Op::NotEqual, ""),
            spec("metric", Op::NotMatches, ""),
            spec("metric", Op::NotEqual, "cpu"),
            spec("dc", Op::NotEqual, "eu"),
            spec("dc", Op::Equal, ""),
            spec("severity", Op::Matches, "warning|critical"),
        ] {
            assert_eq!(compile(vec![vague.clone()]).unwrap_err(), SilenceError::MatchesAll, "{vague:?}");
        }
        assert_eq!(compile(vec![spec("", Op::Equal, "x")]).unwrap_err(), SilenceError::NoName(0));
        assert!(matches!(compile(vec![spec("a", Op::Matches, "(")]).unwrap_err(), SilenceError::BadPattern(0, ..)));
        assert!(matches!(compile(vec![spec("a", Op::Matches, "a)|(b")]).unwrap_err(), SilenceError::BadPattern(0, ..)));
        assert!(matches!(compile(vec![spec("a", Op::Matches, "(x{1000}){1000}")]).unwrap_err(), SilenceError::BadPattern(0, ..)));
        assert_eq!(compile(vec![spec("a", Op::Equal, &"x".repeat(1025))]).unwrap_err(), SilenceError::TooLong(0, 1025));
        assert_eq!(compile(vec![spec("a", Op::Equal, "x"); 33]).unwrap_err(), SilenceError::TooMany(33));
        assert!(compile(vec![spec("severity", Op::Equal, "warning")]).is_ok(), "whatever comes, but only as a warning");
    }

    #[test]
    fn it_holds_from_its_start_until_before_its_end() {
        let silence = silence(vec![spec("metric", Op::Equal, "m")]);
        let active = |s| silence.is_active(Timestamp::from_seconds(s));
        assert_eq!([9, 10, 19, 20].map(active), [false, true, true, false]);
        let subject = Subject { series: "m", metric: "m", labels: &[], critical: false };
        let longer = Silence { id: "l".into(), to: Timestamp::from_seconds(30), ..silence.clone() };
        let both = [silence, longer];
        assert_eq!(silencing(&both, subject, Timestamp::from_seconds(15)).map(|s| s.id.as_str()), Some("l"));
        assert!(silencing(&both, subject, Timestamp::from_seconds(31)).is_none());
    }
}
