//! `anomaly ingest`: reads Kafka, and appends to the log on Redis. Members of a group share the partitions.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tracing::{info, warn};

use super::monitor::Watch;
use super::shared_log::SharedLog;
use super::tail;
use super::{blocking, connect, place, status};
use crate::backlog::Backlog;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::disk::Disk;
use crate::fatal::Fatal;
use crate::ids::new_id;
use crate::kafka::Ingest;
use crate::log::admission::{Admission, Memory};
use crate::log::handle;
use crate::log::writer::{self, Housekeeping, Writer};
use crate::points::PointsHandle;
use crate::room::DiskWatch;
use crate::run;
use crate::stats::{Component, Stats};

/// How long a stop may take.
const DRAIN: Duration = Duration::from_secs(9);

/// Reads until Ctrl-C, SIGTERM, or a fault that would break a promise.
///
/// # Errors
/// What keeps it from starting: no `REDIS_URL`, no `KAFKA_BROKER`, a Redis that cannot be used.
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let place = place(&config, "ingest")?;
    anyhow::ensure!(
        config.kafka.broker.is_some(),
        "anomaly ingest reads events from Kafka: set KAFKA_BROKER, such as localhost:9092 (events over HTTP are taken by anomaly api)"
    );
    let stats = Arc::new(Stats::new(config.queue_capacity));
    status::start(&config, Arc::clone(&stats)).await?;
    stats.component("redis", Component::Recovering("not reached yet".into()));
    {
        let place = place.clone();
        blocking(move || connect(&place, &AtomicBool::new(false)).map(drop)).await??;
    }
    let (fatal, mut failed) = Fatal::new();
    let backlog = Arc::new(Backlog::new(config.queue_capacity, Arc::clone(&stats)));
    let memory = Memory::new(config.memory_max_bytes);
    let disk = Arc::new(DiskWatch::new(Disk::open(&DataDir::memory())?, PointsHandle::none(), Arc::clone(&stats)));
    let SharedLog { log: shared, kafka } = SharedLog::open(&config, &place, new_id()).await?;
    let (log, requests) = handle::channel();
    let writer = Writer {
        log: shared,
        admission: Admission::shared(config.max_series, Arc::clone(&memory)),
        feed: None,
        backlog: Arc::clone(&backlog),
        disk,
        stats: Arc::clone(&stats),
        rejected: 0,
        fatal,
        housekeeping: Housekeeping::default(),
    };
    let writer = writer::start(writer, requests)?;
    stats.component("log", Component::Ok);
    let watch = Watch { kafka, ..Watch::new(&place, &backlog, memory, &stats, log.hints()) };
    let tail = tail::without_engine(place, watch, None, PointsHandle::none())?;
    let ingest = Ingest::start(&config, log, Arc::clone(&stats))?;
    info!(version = env!("CARGO_PKG_VERSION"), "anomaly ingest is ready");
    let reason = tokio::select! {
        () = run::until_signal() => None,
        reason = failed.recv() => reason,
    };
    match &reason {
        Some(reason) => tracing::error!("stopping: {reason}"),
        None => info!("stopping: finishing what was read"),
    }
    let drained = tokio::time::timeout(DRAIN, async {
        ingest.stop().await;
        let finish = move || {
            let _ = writer.join();
            tail.stop();
        };
        let _ = tokio::task::spawn_blocking(finish).await;
    });
    if drained.await.is_err() {
        warn!("not everything was finished within {} s; Kafka delivers it again", DRAIN.as_secs());
    }
    if reason.is_some() {
        return Ok(ExitCode::FAILURE);
    }
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}
