//! Log lines on standard error: text for people, JSON for programs.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Config, Durability, LogFormat};

/// Levels by name, Python's names among them.
const LEVELS: [(&str, &str); 8] = [
    ("ERROR", "error"),
    ("WARN", "warn"),
    ("INFO", "info"),
    ("DEBUG", "debug"),
    ("TRACE", "trace"),
    ("OFF", "off"),
    ("WARNING", "warn"),
    ("CRITICAL", "error"),
];

/// Reads `LOG_LEVEL`: a level for all, and levels by module: `info,anomaly_server::log=debug`.
///
/// # Errors
/// What is wrong, with the part at fault.
pub fn filter(text: &str) -> Result<String, String> {
    let level = |name: &str| LEVELS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.trim())).map(|(_, level)| *level);
    let directive = |part: &str| match part.split_once('=') {
        Some((module, name)) if !module.trim().is_empty() => level(name).map(|level| format!("{}={level}", module.trim())),
        Some(_) => None,
        None => level(part).map(str::to_owned),
    };
    let read = |part: &str| {
        directive(part).ok_or_else(|| {
            format!("must be ERROR, WARN, INFO, DEBUG or TRACE, also by module (info,anomaly_server::log=debug), got {part:?}")
        })
    };
    Ok(text.split(',').map(read).collect::<Result<Vec<_>, _>>()?.join(","))
}

/// Writes log lines from here on, as the configuration says. In a process that already logs, this changes nothing.
pub fn init(config: &Config) {
    // It warns of lines that have no area, which charts are full of.
    let targets = config.log_level.parse::<Targets>().unwrap_or_default().with_target("tiny_skia", LevelFilter::ERROR);
    let registry = tracing_subscriber::registry().with(targets);
    // A second subscriber is refused: tests start several servers in one process.
    let _ = match config.log_format() {
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_timer(Clock).with_writer(io::stderr);
            registry.with(layer).try_init()
        }
        LogFormat::Text => {
            let layer = tracing_subscriber::fmt::layer().with_target(false).with_timer(Clock).with_ansi(colour(io::stderr().is_terminal()));
            registry.with(layer.with_writer(io::stderr)).try_init()
        }
    };
}

/// Whether to write colours: on a terminal, unless `NO_COLOR` is set to anything (no-color.org) or the terminal is dumb.
pub fn colour(terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Logs the one line that says what was started and where.
pub fn started(config: &Config, address: SocketAddr) {
    let url = format!("http://{address}{}", config.base_path);
    let durability = config.durability.as_str();
    let window_seconds = config.engine.window_seconds;
    let threshold = config.engine.threshold;
    let version = env!("CARGO_PKG_VERSION");
    if config.durability == Durability::Memory {
        tracing::warn!("DURABILITY=memory: nothing is written to disk, all is gone at exit");
        tracing::info!(%url, %durability, window_seconds, threshold, %version, "anomaly is ready");
    } else {
        tracing::info!(%url, data_dir = %config.data_dir.display(), %durability, window_seconds, threshold, %version, "anomaly is ready");
    }
}

/// The time of a line: RFC 3339 in UTC, to the millisecond.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{:.3}", jiff::Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn levels_are_read_in_any_case_and_by_pythons_names() {
        for (text, expected) in [
            ("INFO", "info"),
            ("WARNING", "warn"),
            ("critical", "error"),
            ("info,anomaly_server::log=DEBUG", "info,anomaly_server::log=debug"),
            ("Info, hyper = off", "info,hyper=off"),
        ] {
            assert_eq!(filter(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_level_is_told() {
        for text in ["LOUD", "info,x=loud", "=info", "info,"] {
            assert!(filter(text).unwrap_err().contains("must be ERROR, WARN, INFO, DEBUG or TRACE"), "{text}");
        }
    }
}
