//! What a setting is, and how its value is shown.

use super::notify::HIDDEN;
use super::settings::SETTINGS;
use super::{Config, redis};
use crate::notify::guard::HttpUrl;

/// One setting: how it is named, explained, read and written.
#[derive(Debug)]
pub struct Setting {
    /// As in the environment; in `anomaly.toml` it is the same in lower case.
    pub name: &'static str,
    /// Under which heading it is explained.
    pub group: Group,
    /// What it does, for users; Markdown, without a line break.
    pub doc: &'static str,
    /// What holds where it is not set.
    pub unset: Unset,
    /// Puts a text into the configuration, or says what is wrong with it.
    pub read: fn(&mut Config, &str) -> Result<(), String>,
}

/// What holds where a setting is not set.
#[derive(Debug)]
pub enum Unset {
    /// A value, written as it is read.
    Value(fn(&Config) -> String),
    /// What no value could say, in words.
    Words(&'static str),
}

/// Headings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Detection,
    Events,
    Storage,
    Serving,
    Redis,
    Kafka,
    Alerting,
    Limits,
    Logging,
}

impl Group {
    /// All, in the order in which they are explained.
    pub const ALL: [Self; 9] = [
        Self::Detection,
        Self::Events,
        Self::Storage,
        Self::Serving,
        Self::Redis,
        Self::Kafka,
        Self::Alerting,
        Self::Limits,
        Self::Logging,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Detection => "Detection",
            Self::Events => "Events and time",
            Self::Storage => "Storage",
            Self::Serving => "Serving",
            Self::Redis => "Redis",
            Self::Kafka => "Kafka",
            Self::Alerting => "Alerting",
            Self::Limits => "Limits",
            Self::Logging => "Logging",
        }
    }
}

impl Setting {
    /// The setting of this name, in whatever case.
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name.eq_ignore_ascii_case(name))
    }

    /// The setting to which the engine's own path belongs: `threshold` is `ANOMALY_THRESHOLD`.
    pub(super) fn of_engine(path: &str) -> Option<&'static Self> {
        Self::named(path).or_else(|| Self::named(&format!("anomaly_{path}")))
    }

    /// The key in `anomaly.toml`.
    pub fn key(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    /// A value as it may be shown: nothing of a secret, of an address that may hold one no more than its host.
    pub fn shown(&self, text: &str) -> String {
        match self.name {
            "SMTP_PASSWORD" | "KAFKA_SASL_PASSWORD" | "WEBHOOK_SECRET" | "PAGERDUTY_ROUTING_KEY" => HIDDEN.to_owned(),
            "WEBHOOK_URL" | "SLACK_WEBHOOK_URL" | "PAGERDUTY_URL" | "ALERTMANAGER_URL" => {
                HttpUrl::parse(text).map_or_else(|_| HIDDEN.to_owned(), |url| url.to_string())
            }
            "REDIS_URL" => redis::target(text).map_or_else(|_| HIDDEN.to_owned(), |target| target.to_string()),
            "SMTP_CA" => format!("({} bytes)", text.len()),
            _ => text.to_owned(),
        }
    }

    /// The value that holds where it is not set, as text; `None` where only words can say it.
    pub fn default_text(&self) -> Option<String> {
        match self.unset {
            Unset::Value(write) => Some(write(&Config::default())),
            Unset::Words(_) => None,
        }
    }
}
