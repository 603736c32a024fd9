//! `anomaly all`: everything in one process.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{Flag, Sources};
use crate::{logging, run};

/// Serves until Ctrl-C or SIGTERM; the exit code is what [`run::all`] came to.
///
/// # Errors
/// A configuration with faults; whatever keeps the server from starting or going on.
pub fn run(flags: Vec<Flag>, config_file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let loaded = Sources::of_process(flags, config_file, true)?.load()?;
    logging::init(&loaded.config);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = super::runtime()?;
    runtime.block_on(run::all(loaded.config))
}
