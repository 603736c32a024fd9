//! The configuration: every setting with its unit and default, from flags, environment, `.env` and `anomaly.toml`.
//!
//! [`settings::SETTINGS`] is the one list: a setting's name, its words, how it is read and how it is written. Parsing,
//! `anomaly config print`, `docs/configuration.md` and `.env.example` are all made from it.

pub mod docs;
mod dotenv;
mod file;
pub mod kafka;
mod load;
mod machine;
pub mod notify;
pub mod redis;
pub mod setting;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod value;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anomaly_engine::{EngineConfig, NANOS};
use jiff::tz::TimeZone;

pub use crate::log::sqlite::Durability;
pub use kafka::KafkaConfig;
pub use load::{Fault, Faults, Flag, Loaded, Lookup, Origin, Sources};
pub use notify::NotifyConfig;
pub use redis::RedisConfig;

/// All settings of one process. Passed in, never global.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What decides results: windows, detectors, thresholds, rules. A record in the log.
    pub engine: EngineConfig,
    /// Address to listen on (default 127.0.0.1).
    pub host: IpAddr,
    /// TCP port to listen on; 0 takes a free one (default 8000).
    pub port: u16,
    /// Prefix of every route, such as `/anomaly`, without a slash at the end (default none).
    pub base_path: String,
    /// Origins of other sites whose pages may use the API, or `*` (default none).
    pub cors_allowed_origins: Vec<String>,
    /// Whether an address other than loopback may be served without authentication (default no).
    pub allow_unauthenticated: bool,
    /// What this process is for: `development` (default), `production`, or a name of your own.
    pub environment: String,
    /// Which log lines are written: a filter of tracing-subscriber, such as `info` (default).
    pub log_level: String,
    /// How log lines are written (default: JSON in production, text elsewhere).
    pub log_format: Option<LogFormat>,
    /// Where log, store, points, checkpoints and spooled files are (default `./data`).
    pub data_dir: PathBuf,
    /// Where log and store of `anomaly all` are; those of the single roles are on Redis.
    pub backend: Backend,
    /// Port on which a role without an API tells how it is (default none).
    pub status_port: Option<u16>,
    /// When an event counts as durable (default fsync).
    pub durability: Durability,
    /// Events that may wait between the log's end and P (default 1,000,000).
    pub queue_capacity: u64,
    /// Bytes that the state of series may take (default half of the machine or cgroup).
    pub memory_max_bytes: u64,
    /// Zone of times without an offset in files (default UTC).
    pub timezone: TimeZone,
    /// Series that may be known at once (default 1,000,000).
    pub max_series: u64,
    /// Bytes of recent points kept for drawing (default 2 GiB).
    pub points_max_bytes: u64,
    /// Bytes that all of the data directory may take (default: the disk).
    pub disk_max_bytes: Option<u64>,
    /// Days that an anomaly is kept, from its detection (default 90).
    pub anomaly_retention_days: f64,
    /// How far ahead of arrival an event's time may be, in nanoseconds (default 60 s).
    pub max_future: i64,
    /// Sizes beyond which a request is refused.
    pub limits: Limits,
    /// Where Redis is, and what is kept there.
    pub redis: RedisConfig,
    /// What is read from Kafka.
    pub kafka: KafkaConfig,
    /// Who is told of incidents, and how.
    pub notify: NotifyConfig,
    /// Parts that series are divided into, each owned by one thread (default: one a core, at most 8). Not a setting:
    /// results do not depend on it.
    pub shards: usize,
}

/// Sizes beyond which a request is refused with 413, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One event (default 64 KiB).
    pub max_event_bytes: usize,
    /// A batch as it is sent (default 16 MiB).
    pub max_batch_bytes: usize,
    /// A batch unpacked (default 64 MiB).
    pub max_batch_unpacked_bytes: usize,
    /// A file, packed and unpacked (default 2 GiB).
    pub max_file_bytes: u64,
}

/// Where log and store are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// SQLite in the data directory.
    Embedded,
    /// Redis, for several processes.
    Redis,
    /// The log is a topic of Kafka, whose partitions several processors share; the store is on Redis.
    Kafka,
}

impl Backend {
    /// The words of `BACKEND`.
    pub const WORDS: [(&str, Self); 3] = [("embedded", Self::Embedded), ("redis", Self::Redis), ("kafka", Self::Kafka)];
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// As it is configured.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            engine: EngineConfig::default(),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8000,
            base_path: String::new(),
            cors_allowed_origins: Vec::new(),
            allow_unauthenticated: false,
            environment: "development".into(),
            log_level: "info".into(),
            log_format: None,
            data_dir: "./data".into(),
            backend: Backend::Embedded,
            status_port: None,
            durability: Durability::Fsync,
            queue_capacity: 1_000_000,
            memory_max_bytes: machine::half_of_memory(),
            timezone: TimeZone::UTC,
            max_series: 1_000_000,
            points_max_bytes: 2 << 30,
            disk_max_bytes: None,
            anomaly_retention_days: 90.0,
            max_future: 60 * NANOS,
            limits: Limits {
                max_event_bytes: 64 << 10,
                max_batch_bytes: 16 << 20,
                max_batch_unpacked_bytes: 64 << 20,
                max_file_bytes: 2 << 30,
            },
            redis: RedisConfig::default(),
            kafka: KafkaConfig::default(),
            notify: NotifyConfig::default(),
            shards: std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8)),
        }
    }
}

impl Config {
    /// How log lines are written: as set, else JSON in production and text elsewhere.
    pub fn log_format(&self) -> LogFormat {
        let production = self.environment.eq_ignore_ascii_case("production");
        self.log_format.unwrap_or(if production { LogFormat::Json } else { LogFormat::Text })
    }

    /// Where people reach the dashboard, without a slash at the end: `PUBLIC_URL`, else where this process listens.
    pub fn public_url(&self) -> String {
        if let Some(url) = &self.notify.public_url {
            return url.clone();
        }
        self.own_url()
    }

    /// Where this process listens, without a slash at the end.
    pub fn own_url(&self) -> String {
        // Nobody can go to the address that stands for all of them.
        let host = match self.host {
            host if host.is_unspecified() => "localhost".to_owned(),
            IpAddr::V6(host) => format!("[{host}]"),
            IpAddr::V4(host) => host.to_string(),
        };
        format!("http://{host}:{}{}", self.port, self.base_path)
    }

    /// Faults between settings that are each right in themselves, by the name of the setting at fault.
    fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let lateness = self.engine.lateness();
        if self.max_future > lateness {
            let (future, lateness) = (value::show_seconds(self.max_future), value::show_seconds(lateness));
            faults.push((
                "MAX_FUTURE_SECONDS",
                format!(
                    "{future} is more than ALLOWED_LATENESS_SECONDS ({lateness}), so one clock that is fast would make the other \
                     events of its series late: set it to {lateness} or less"
                ),
            ));
        }
        let Limits { max_batch_bytes, max_batch_unpacked_bytes, max_event_bytes, .. } = self.limits;
        let larger = [
            ("MAX_BATCH_UNPACKED_BYTES", max_batch_unpacked_bytes, "MAX_BATCH_BYTES", max_batch_bytes),
            ("MAX_BATCH_BYTES", max_batch_bytes, "MAX_EVENT_BYTES", max_event_bytes),
        ];
        for (name, bytes, other, least) in larger {
            if bytes < least {
                let (bytes, least) = (value::show_bytes(bytes as u64), value::show_bytes(least as u64));
                faults.push((name, format!("{bytes} is less than {other} ({least}): set it to {least} or more")));
            }
        }
        faults
    }

    /// Faults that matter only to a process that listens.
    fn serving_faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = self.notify.faults();
        faults.extend(self.kafka.faults());
        if self.host.is_loopback() || self.allow_unauthenticated {
            return faults;
        }
        let message = format!(
            "{} can be reached from other machines, and this version has no authentication: anybody there could read, send and \
             delete. Keep HOST=127.0.0.1 (behind a proxy that authenticates, say), or set ALLOW_UNAUTHENTICATED=true if the network \
             is trusted",
            self.host
        );
        faults.push(("HOST", message));
        faults
    }
}
