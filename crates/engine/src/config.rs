//! The part of the configuration that decides results: it is a record in the log.

use std::collections::BTreeMap;

use anomaly_detect::{DetectorKind, DetectorParams, Direction, Params, WindowKind, WindowShape};
use serde::{Deserialize, Serialize};

use crate::glob::Glob;
use crate::series_key::SeriesKey;
use crate::timestamp::NANOS;

/// All settings that change what the engine answers. Seconds are decimal numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Length of the window before each event, in seconds of event time (default 300).
    pub window_seconds: f64,
    /// Standard deviations from which `zscore` fires (default 3).
    pub threshold: f64,
    /// Samples that the window must hold before an event is judged (default 5).
    pub min_count: u32,
    /// The detector of series that no rule names (default `zscore`).
    pub detector: DetectorKind,
    /// How far behind the newest event of its series an event may be and still be judged, in seconds (default 60).
    pub allowed_lateness_seconds: f64,
    /// How long an event's id is remembered, in seconds of event time (default 3600).
    pub dedup_horizon_seconds: f64,
    /// How many ids are remembered for a series (default 10,000).
    pub dedup_max_ids: u32,
    /// After how long without an arrival a series is forgotten, in seconds of time of arrival (default 7 days).
    pub series_idle_seconds: f64,
    /// The newest samples that an exact window keeps for a series (default 100,000).
    pub window_max_samples: u32,
    /// Rules for some series; the first that matches wins.
    pub rules: Vec<Rule>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            window_seconds: 300.0,
            threshold: 3.0,
            min_count: 5,
            detector: DetectorKind::Zscore,
            allowed_lateness_seconds: 60.0,
            dedup_horizon_seconds: 3600.0,
            dedup_max_ids: 10_000,
            series_idle_seconds: 7.0 * 86_400.0,
            window_max_samples: 100_000,
            rules: Vec::new(),
        }
    }
}

/// Detector and parameters for the series that match; what is not set is as for all others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// The metric; `*` stands for any text (default `*`: every metric).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Labels that the series must have; `*` stands for any text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `zscore` or `percentile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detector: Option<DetectorKind>,
    /// Standard deviations from which `zscore` fires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Samples that the window must hold before an event is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_count: Option<u32>,
    /// Length of the window, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<f64>,
    /// `exact` (every sample) or `panes` (bounded memory).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowKind>,
    /// Which deviations count: `both`, `high` or `low`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The smallest deviation from the expected value that may fire, in the metric's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_deviation: Option<f64>,
    /// The smallest standard deviation by which `zscore` divides, in the metric's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_stddev: Option<f64>,
    /// In a constant window `zscore` divides by this share of the mean (default 0.001).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rel_floor: Option<f64>,
    /// How many times the threshold an anomaly is critical (default 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical_factor: Option<f64>,
    /// The lower percentile of `percentile`, 0–50 (default 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// The upper percentile of `percentile`, 50–100 (default 99).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// A fault in the configuration, with its path: `rules[2].threshold: must be positive, got -1`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ConfigFault {
    /// Where it stands.
    pub path: String,
    /// What is wrong, with the value.
    pub message: String,
}

/// What holds for every series, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) lateness: i64,
    pub(crate) dedup_horizon: i64,
    pub(crate) dedup_max_ids: u32,
    pub(crate) idle: i64,
}

/// What applies to one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Detector and parameters.
    pub params: Params,
    /// The window that is kept.
    pub shape: WindowShape,
    /// Its length in seconds, as it is shown.
    pub window_seconds: f64,
}

impl EngineConfig {
    /// Every fault, with its path; empty when the configuration can be used.
    pub fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut seconds = |name: &str, value: f64, positive: bool| {
            let limit = (i64::MAX / NANOS) as f64;
            if !(value.is_finite() && value <= limit && (value > 0.0 || !positive && value == 0.0)) {
                let need = if positive { "must be a positive number of seconds" } else { "must be a number of seconds from 0" };
                faults.push(ConfigFault { path: name.into(), message: format!("{need}, got {value}") });
            }
        };
        seconds("window_seconds", self.window_seconds, true);
        seconds("allowed_lateness_seconds", self.allowed_lateness_seconds, false);
        seconds("dedup_horizon_seconds", self.dedup_horizon_seconds, false);
        seconds("series_idle_seconds", self.series_idle_seconds, true);
        if self.window_max_samples < 2 {
            let message = format!("must be at least 2, got {}", self.window_max_samples);
            faults.push(ConfigFault { path: "window_max_samples".into(), message });
        }
        if !faults.is_empty() {
            return faults;
        }
        if let Err(fault) = self.settings(None).check() {
            faults.push(fault);
        }
        for (i, rule) in self.rules.iter().enumerate() {
            if let Some(bad) = rule.window_seconds.filter(|s| !(s.is_finite() && *s > 0.0 && *s <= (i64::MAX / NANOS) as f64)) {
                let message = format!("must be a positive number of seconds, got {bad}");
                faults.push(ConfigFault { path: format!("rules[{i}].window_seconds"), message });
            } else if let Err(fault) = self.settings(Some(rule)).check() {
                faults.push(ConfigFault { path: format!("rules[{i}].{}", fault.path), ..fault });
            }
        }
        faults
    }

    /// The canonical text of this configuration, as the log records it.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the canonical text.
    ///
    /// # Errors
    /// Text that is no configuration of this version.
    pub fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Allowed lateness in nanoseconds.
    pub fn lateness(&self) -> i64 {
        nanos(self.allowed_lateness_seconds)
    }

    /// What applies to a series: the first rule that matches, over the defaults.
    pub fn settings_of(&self, key: &SeriesKey) -> Settings {
        self.settings(self.rule_of(key).checked_sub(1).map(|i| &self.rules[i]))
    }

    /// What decides for a series, in words: `rules[N]`, or `default` where no rule matches.
    pub fn rule_name(&self, key: &SeriesKey) -> String {
        self.rule_of(key).checked_sub(1).map_or_else(|| "default".to_owned(), |i| format!("rules[{i}]"))
    }

    /// Which rule decides for a series, from 1; 0 where none does. The index into [`EngineConfig::table`].
    pub(crate) fn rule_of(&self, key: &SeriesKey) -> usize {
        if self.rules.is_empty() {
            return 0;
        }
        let labels = key.labels();
        self.rules.iter().position(|rule| rule.matches(key.metric(), &labels)).map_or(0, |i| i + 1)
    }

    /// The settings without a rule, then those of each rule.
    pub(crate) fn table(&self) -> Vec<Settings> {
        std::iter::once(self.settings(None)).chain(self.rules.iter().map(|rule| self.settings(Some(rule)))).collect()
    }

    /// The limits that hold for every series, in nanoseconds.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            lateness: self.lateness(),
            dedup_horizon: nanos(self.dedup_horizon_seconds),
            dedup_max_ids: self.dedup_max_ids,
            idle: nanos(self.series_idle_seconds),
        }
    }

    fn settings(&self, rule: Option<&Rule>) -> Settings {
        let absent = Rule::default();
        let rule = rule.unwrap_or(&absent);
        let detector = match rule.detector.unwrap_or(self.detector) {
            DetectorKind::Zscore => DetectorParams::Zscore {
                threshold: rule.threshold.unwrap_or(self.threshold),
                rel_floor: rule.rel_floor.unwrap_or(1e-3),
                min_stddev: rule.min_stddev.unwrap_or(0.0),
            },
            DetectorKind::Percentile => DetectorParams::Percentile { low: rule.low.unwrap_or(1.0), high: rule.high.unwrap_or(99.0) },
        };
        let window_seconds = rule.window_seconds.unwrap_or(self.window_seconds);
        Settings {
            params: Params {
                detector,
                min_count: rule.min_count.unwrap_or(self.min_count),
                direction: rule.direction.unwrap_or(Direction::Both),
                min_deviation: rule.min_deviation.unwrap_or(0.0),
                critical_factor: rule.critical_factor.unwrap_or(2.0),
            },
            shape: WindowShape {
                kind: rule.window.unwrap_or(WindowKind::Exact),
                span: nanos(window_seconds),
                lateness: self.lateness(),
                max_samples: self.window_max_samples,
            },
            window_seconds,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), ConfigFault> {
        self.params.validate().map_err(|fault| {
            // The text begins with the parameter's name.
            let text = fault.to_string();
            let (name, message) = text.split_once(' ').unwrap_or(("", &text));
            ConfigFault { path: name.into(), message: message.into() }
        })?;
        if self.params.supports(self.shape.kind) {
            return Ok(());
        }
        let message = format!("{} needs every sample, window = \"panes\" keeps none", self.params.kind().as_str());
        Err(ConfigFault { path: "window".into(), message })
    }
}

impl Rule {
    fn matches(&self, metric: &str, labels: &[(&str, &str)]) -> bool {
        self.metric.as_ref().is_none_or(|pattern| Glob::new(pattern).matches(metric))
            && self
                .labels
                .iter()
                .all(|(name, pattern)| labels.iter().any(|(label, value)| label == name && Glob::new(pattern).matches(value)))
    }
}

/// Seconds as nanoseconds, rounded to the nearest.
fn nanos(seconds: f64) -> i64 {
    (seconds * NANOS as f64).round() as i64
}
