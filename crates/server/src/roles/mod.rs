//! Roles that meet on Redis: [`api`] takes events and answers, [`ingest`] reads Kafka, [`processor`] detects, one at a time, others
//! standing by.
//!
//! ```text
//! api, ingest, …  ─► {anomaly}:log ─► processor (holds the lease) ─► {anomaly}:journal ─► every api's and processor's own store
//! ```
//! The stages are those of `anomaly all`; what differs is where log and store are (`log/stream.rs`, `store/journal.rs`).

mod anomaly_topic;
pub mod api;
mod formats;
pub mod ingest;
mod judging;
mod leader;
mod member;
mod monitor;
mod ownership;
mod partition;
pub mod processor;
mod raw_events;
mod scale_out;
mod shared_log;
mod status;
mod tail;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing::{info, warn};

use self::formats::Formats;
use crate::config::{Backend, Config};
use crate::redis::{Link, RedisError, RedisPlace, ServerState, keys};
use crate::stats::Stats;

/// How long a start waits for a Redis that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(500);
/// What keeps something from going on is told again so often.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Where Redis is.
///
/// # Errors
/// `REDIS_URL` is not set.
fn place(config: &Config, role: &str) -> anyhow::Result<RedisPlace> {
    let target = config.redis.target.clone();
    let target = target.with_context(|| {
        format!(
            "anomaly {role} keeps log and store on Redis: set REDIS_URL, such as redis://127.0.0.1:6379/0 (anomaly all needs no server)"
        )
    })?;
    anyhow::ensure!(
        config.backend == Backend::Kafka || !target.is_cluster(),
        "REDIS_URL names a cluster, and the log cannot be divided over it: set BACKEND=kafka, or name one Redis or its sentinels"
    );
    Ok(RedisPlace { target: Arc::new(target), wait_replicas: config.redis.wait_replicas, tag: keys::TAG.into() })
}

/// Connects, waiting for a server that is about to start, and looks whether it keeps what is promised.
///
/// # Errors
/// It cannot be reached, or must not be used as it is set up.
fn connect(place: &RedisPlace, stopping: &AtomicBool) -> anyhow::Result<Link> {
    let reach = || place.connect().and_then(|mut link| ServerState::read(&mut link).map(|state| (link, state)));
    let (link, state) = patiently(stopping, reach)?;
    let faults = state.faults(place.wait_replicas);
    let refusals: Vec<_> = faults.iter().filter(|fault| fault.is_refusal()).map(ToString::to_string).collect();
    anyhow::ensure!(refusals.is_empty(), "redis at {} would not keep what is acknowledged: {}", link.at(), refusals.join("; "));
    Ok(link)
}

/// Tries at a start until Redis has done it, for a while, as long as waiting may help.
///
/// # Errors
/// The last attempt's.
fn patiently<T>(stopping: &AtomicBool, mut attempt: impl FnMut() -> Result<T, RedisError>) -> Result<T, RedisError> {
    let (began, mut told) = (Instant::now(), false);
    loop {
        let fault = match attempt() {
            Ok(done) => {
                if told {
                    info!("redis answers");
                }
                return Ok(done);
            }
            Err(fault) => fault,
        };
        if !fault.may_heal() || began.elapsed() >= PATIENCE || stopping.load(Ordering::Relaxed) {
            return Err(fault);
        }
        if !std::mem::replace(&mut told, true) {
            warn!("waiting up to {} s: {fault}", PATIENCE.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}

/// An API and a processor in one process, on Redis, until Ctrl-C or SIGTERM.
///
/// # Errors
/// What keeps either from starting or going on.
pub async fn all(config: Config) -> anyhow::Result<ExitCode> {
    let place = place(&config, "all with BACKEND=redis")?;
    let stats = Arc::new(Stats::new(config.queue_capacity));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = processor::work(config.clone(), place, stats, async {
        let _ = stopped.await;
    });
    let mut working = tokio::spawn(working);
    let served = tokio::select! {
        served = api::run(config) => served,
        worked = &mut working => return worked?.map(|()| ExitCode::SUCCESS),
    };
    drop(stop);
    working.await??;
    served
}

/// What a processor has, whatever it owns.
#[derive(Clone, Debug)]
struct Processor {
    config: Arc<Config>,
    place: RedisPlace,
    stats: Arc<Stats>,
    formats: Formats,
}

/// What keeps something from going on, and when that was told: the same is told again after a minute.
#[derive(Debug, Default)]
struct Told(Option<(String, Instant)>);

impl Told {
    /// Whether to tell it now.
    fn is_due(&mut self, why: &str) -> bool {
        let is_due = self.0.as_ref().is_none_or(|(before, at)| before != why || at.elapsed() >= TELL_AGAIN);
        if is_due {
            self.0 = Some((why.to_owned(), Instant::now()));
        }
        is_due
    }
}

/// Tasks that end with whoever has them.
#[derive(Debug, Default)]
struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Tasks {
    /// Ends them: each holds the committer.
    async fn end(mut self) {
        for task in std::mem::take(&mut self.0) {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("a thread that asked redis ended")
}
