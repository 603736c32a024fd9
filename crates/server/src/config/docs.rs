//! What users read about settings, made from the list of settings: `anomaly config print`, `docs/configuration.md`,
//! `.env.example`.

use std::fmt::Write as _;

use super::file::{ROUTE_KEYS, RULE_KEYS};
use super::setting::{Group, Setting, Unset};
use super::settings::SETTINGS;

/// Width of comments.
const WIDTH: usize = 110;

/// Every setting with its default and what it does, as `anomaly.toml`. Reading it back gives the defaults.
pub fn as_toml() -> String {
    let mut out = String::from(
        "# Settings of anomaly, each with its default. As ./anomaly.toml, or named with --config, this file is read;\n\
         # the environment (the same names in upper case) wins over it.\n",
    );
    for group in Group::ALL {
        let _ = write!(out, "\n# {}\n", group.title());
        for setting in in_group(group) {
            out.push('\n');
            comment(&mut out, setting.doc);
            match &setting.unset {
                Unset::Value(_) => {
                    let _ = writeln!(out, "{} = {}", setting.key(), literal(&setting.default_text().unwrap_or_default()));
                }
                Unset::Words(words) => {
                    let _ = writeln!(out, "# {} = \"\" # default: {}", setting.key(), plain(words));
                }
            }
        }
    }
    out.push_str("\n# Rules for some series. The first that matches wins; what a rule does not set is as above.\n#\n# [[rules]]\n");
    for key in RULE_KEYS {
        let assignment = format!("{} = {}", key.name, key.example);
        let _ = writeln!(out, "# {assignment:<28} # {}", plain(key.doc));
    }
    out.push_str("\n# Routes: who hears of what. The first that matches wins; where none does, every channel is told.\n#\n# [[routes]]\n");
    for key in ROUTE_KEYS {
        let assignment = format!("{} = {}", key.name, key.example);
        let _ = writeln!(out, "# {assignment:<35} # {}", plain(key.doc));
    }
    out
}

/// `.env.example`: every name.
pub fn as_dotenv() -> String {
    let mut out = String::from(
        "# Settings of anomaly, each with its default: copy this file to .env and change what you need.\n\
         # The environment wins over .env, .env over anomaly.toml. Empty is not set. NAME_FILE=path reads a value from a file.\n\
         # More words on each: docs/configuration.md.\n",
    );
    for group in Group::ALL {
        let _ = write!(out, "\n# {}\n", group.title());
        for setting in in_group(group) {
            comment(&mut out, setting.doc);
            // What needs a server is commented out.
            let mark = if matches!(group, Group::Redis | Group::Kafka) { "# " } else { "" };
            match &setting.unset {
                Unset::Value(_) => {
                    let _ = writeln!(out, "{mark}{}={}", setting.name, setting.default_text().unwrap_or_default());
                }
                Unset::Words(words) => {
                    // On a line of its own: Docker takes a comment behind an empty value for the value.
                    let _ = writeln!(out, "# Default: {}.\n{mark}{}=", plain(words), setting.name);
                }
            }
        }
    }
    out
}

/// `docs/configuration.md`.
pub fn as_markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    for group in Group::ALL {
        let _ = write!(out, "\n## {}\n\n| name | default | |\n|---|---|---|\n", group.title());
        for setting in in_group(group) {
            let default = match &setting.unset {
                Unset::Value(_) => format!("`{}`", setting.default_text().unwrap_or_default()),
                Unset::Words(words) => (*words).to_owned(),
            };
            let _ = writeln!(out, "| `{}` | {default} | {} |", setting.name, cell(setting.doc));
        }
    }
    out.push_str(RULES);
    for key in RULE_KEYS {
        let _ = writeln!(out, "| `{}` | {} | `{}` | {} |", key.name, cell(key.kind), cell(key.example), cell(key.doc));
    }
    out.push_str(ROUTES);
    for key in ROUTE_KEYS {
        let _ = writeln!(out, "| `{}` | {} | `{}` | {} |", key.name, cell(key.kind), cell(key.example), cell(key.doc));
    }
    out
}

const INTRODUCTION: &str = "\
# Configuration

Nothing has to be configured. What is, comes from, first wins:

1. flags of the command (`anomaly all --port 9000`),
2. the environment (`PORT=9000`),
3. `.env` in the working directory (`.env.example` has every name; a comment may follow a value),
4. `anomaly.toml` in the working directory, or the file that `--config` names: the same names in lower case (`port = 9000`).

An empty value is not set. `NAME_FILE=/run/secrets/name` reads the value of `NAME` from a file. Seconds are decimal numbers and may
carry a unit (`300`, `0.5`, `5m`, `1h`, `7d`), sizes are bytes or carry one (`2GiB`, `500MB`). Unknown keys in `anomaly.toml` are errors.

`anomaly config check` reports every fault with its place and prints what is set and where; `anomaly config print` prints an
`anomaly.toml` with all defaults. This page is made from the same list.
";

const RULES: &str = "
## Rules

In `anomaly.toml`, rules choose detector and parameters for some series. The first rule that matches wins; what it does not set is as
for all others.

```toml
[[rules]]
metric = \"cpu*\"
labels = { dc = \"eu*\" }
threshold = 4.0
direction = \"high\"

[[rules]]
metric = \"latency_ms\"
detector = \"percentile\"
min_count = 200
window_seconds = 3600.0
```

| key | value | example | |
|---|---|---|---|
";

const ROUTES: &str = "
## Routes

In `anomaly.toml`, routes choose who hears of which incidents. The first route that matches wins; where none does, every channel that
is configured is told.

```toml
[[routes]]
labels = { team = \"db\" }
severity = \"critical\"
channels = [\"pagerduty\", \"slack\"]

[[routes]]
metric = \"test_*\"
channels = []
```

| key | value | example | |
|---|---|---|---|
";

fn in_group(group: Group) -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(move |setting| setting.group == group)
}

/// A text as a TOML value: numbers and booleans as they are, all else in quotes.
fn literal(text: &str) -> String {
    let bare = text.parse::<f64>().is_ok_and(f64::is_finite) || ["true", "false"].contains(&text);
    if bare { text.to_owned() } else { toml::Value::from(text).to_string() }
}

/// Markdown without its marks, for comments.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// Markdown that may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Appends a text as `#` lines of at most [`WIDTH`] characters.
fn comment(out: &mut String, text: &str) {
    let mut length = 0;
    for word in plain(text).split(' ') {
        let n = word.chars().count() + 1;
        if length == 0 || length + n > WIDTH {
            out.push_str(if length == 0 { "#" } else { "\n#" });
            length = 1;
        }
        out.push(' ');
        out.push_str(word);
        length += n;
    }
    out.push('\n');
}
