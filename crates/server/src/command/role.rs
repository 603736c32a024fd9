//! `anomaly all`, `api`, `processor`, `ingest`: everything in one process, or one role of several.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{Backend, Flag, Sources};
use crate::{logging, roles, run};

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    All,
    /// Takes events and answers.
    Api,
    /// Detects, and tells people.
    Processor,
    /// Reads Kafka.
    Ingest,
}

/// Serves until Ctrl-C or SIGTERM.
///
/// # Errors
/// A configuration with faults; whatever keeps it from starting or going on.
pub fn run(role: Role, flags: Vec<Flag>, config_file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let loaded = Sources::of_process(flags, config_file, true)?.load()?;
    logging::init(&loaded.config);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if role == Role::All && loaded.config.backend == Backend::Embedded && loaded.config.kafka.anomaly_topic.is_some() {
        tracing::warn!("KAFKA_ANOMALY_TOPIC is set, but nothing is written to it: it needs BACKEND=redis or kafka");
    }
    let runtime = super::runtime()?;
    let config = loaded.config;
    let code = runtime.block_on(async {
        match (role, config.backend) {
            (Role::All, Backend::Embedded) => run::all(config).await,
            (Role::All, Backend::Redis) => roles::all(config).await,
            (Role::All, Backend::Kafka) => anyhow::bail!("BACKEND=kafka is for several processes: start anomaly api and anomaly processor"),
            (Role::Api, _) => roles::api::run(config).await,
            (Role::Processor, _) => roles::processor::run(config).await,
            (Role::Ingest, _) => roles::ingest::run(config).await,
        }
    });
    // A thread that waits for a server must not hold up the end.
    runtime.shutdown_background();
    code
}
