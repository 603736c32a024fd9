//! `anomaly replay`: an incident from its capsule, judged anew.

use std::fs;
use std::io::{self, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;

use anomaly_detect::text;
use anyhow::Context as _;
use serde_json::Value;

use super::terminal::harmless;
use crate::capsule::{self, Replay};

/// Judges the samples of a capsule and says whether the verdict is the one that was recorded. Exit code 0 where it is, else 1.
///
/// # Errors
/// A file that cannot be read, or is no capsule.
pub fn run(path: &Path, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).context("standard input cannot be read")?;
        bytes
    } else {
        fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?
    };
    let capsule = capsule::read(&bytes).with_context(|| path.display().to_string())?;
    let replay = capsule.replay().with_context(|| path.display().to_string())?;
    let version = env!("CARGO_PKG_VERSION");
    let series = harmless(&capsule.series);
    writeln!(out, "{series}: {} samples, recorded by anomaly {}, judged by anomaly {version}", replay.samples, harmless(&capsule.version))?;
    for (recorded, differences) in &replay.anomalies {
        let (at, value) = (&recorded["timestamp"], recorded["value"].as_f64().map_or_else(String::new, text::number));
        let severity = recorded["severity"].as_str().unwrap_or("anomaly");
        let verdict = if differences.is_empty() { "the same" } else { "differs" };
        writeln!(out, "  {at}  {value}  {}: {verdict}", harmless(severity))?;
        for (name, was, is) in differences {
            writeln!(out, "    {}: recorded {}, now {}", harmless(name), shown(was), shown(is))?;
        }
    }
    writeln!(out, "{}", verdict(&replay))?;
    Ok(if replay.is_same() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn verdict(replay: &Replay) -> String {
    let n = replay.anomalies.len();
    let same = replay.anomalies.iter().filter(|(_, differences)| differences.is_empty()).count();
    match (n, same) {
        (0, _) => "the capsule holds no anomaly to compare with".into(),
        (1, 1) => "the verdict is the same".into(),
        (n, same) if n == same => format!("all {n} verdicts are the same"),
        (n, same) => format!(
            "{} of {n} verdicts differ: samples may have been dropped before the capsule was written (POINTS_MAX_BYTES), or the \
             configuration changed since",
            n - same
        ),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => harmless(text),
        other => harmless(&other.to_string()),
    }
}
