//! Where Redis is, and what is kept there.

use std::time::Duration;

use super::value;
use crate::redis::RedisTarget;

/// Everything about Redis.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisConfig {
    /// Where it is (default none).
    pub target: Option<RedisTarget>,
    /// Replicas that must have an event before it is acknowledged; with 0 the server's own disk must (default).
    pub wait_replicas: u32,
    /// Whose results are kept as hashes (default those of anomalies).
    pub results: Results,
    /// For how long (default a day).
    pub result_ttl: Duration,
    /// The Pub/Sub channel of anomalies (default `anomalies`).
    pub alerts_channel: String,
    /// How long to wait before an empty queue is looked at again (default 0.1 s).
    pub sleep_on_empty: Duration,
}

/// Whose results are kept as hashes `event:<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Results {
    /// Of events that fired.
    Anomalies,
    /// Of every event that has an id.
    All,
}

impl Results {
    /// The words of `REDIS_RESULTS`.
    pub const WORDS: [(&str, Self); 2] = [("anomalies", Self::Anomalies), ("all", Self::All)];

    /// As it is configured.
    pub fn as_str(self) -> &'static str {
        Self::WORDS[usize::from(self == Self::All)].0
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            target: None,
            wait_replicas: 0,
            results: Results::Anomalies,
            result_ttl: Duration::from_secs(86_400),
            alerts_channel: "anomalies".into(),
            sleep_on_empty: Duration::from_millis(100),
        }
    }
}

/// Reads `REDIS_URL`.
pub(super) fn target(text: &str) -> Result<RedisTarget, String> {
    RedisTarget::parse(text).map_err(|fault| fault.to_string().trim_start_matches("REDIS_URL: ").to_owned())
}

/// Reads a duration of a tenth of a millisecond or more.
pub(super) fn pause(text: &str) -> Result<Duration, String> {
    value::positive_seconds(text).map(|seconds| Duration::from_secs_f64(seconds).max(Duration::from_micros(100)))
}

/// Reads the name of a channel.
pub(super) fn channel(text: &str) -> Result<String, String> {
    let fine = !text.is_empty() && !text.contains(|c: char| c.is_control() || c.is_whitespace());
    if fine { Ok(text.to_owned()) } else { Err(format!("must be a name without spaces, got {text:?}")) }
}
