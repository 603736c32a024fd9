//! `anomaly processor`: detects, writes what it finds, and tells people. One holds the lease and works; others stand by.
//!
//! Whoever takes the lease begins from what is replicated: the checkpoint, the journal to its end, the log behind P. Whatever goes
//! wrong afterwards (a lost connection, a `WAIT` that counted too few, a lease that ran out) ends the ownership, and all state of it is
//! dropped, since nobody knows what of it others have. Then it competes for the lease again.
//!
//! With the log on Kafka all processors work, each on its partitions (`member.rs`), and whoever holds the lease leads
//! (`leader.rs`).

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use anomaly_engine::Engine;
use tracing::info;

use super::formats::Formats;
use super::judging::{Judging, ToJudge};
use super::monitor::Watch;
use super::ownership::{Owned, own, take_journal};
use super::tail;
use super::worker::Worker;
use super::{Processor, anomaly_topic, blocking, connect, place, raw_events, scale_out, status};
use crate::backlog::Backlog;
use crate::checkpoint::{self, OnRedis};
use crate::config::{Backend, Config};
use crate::desk::Desk;
use crate::engine_thread::{self, EngineFeed};
use crate::fatal::Fatal;
use crate::log::stream::RedisLog;
use crate::log::stream_reader::RedisReader;
use crate::log::{FrameReader, Log};
use crate::notify::channel::{Channels, PubSub};
use crate::notify::{self, Alerts};
use crate::points;
use crate::redis::chunks::Kind;
use crate::redis::{Fence, Link, RedisPlace};
use crate::run;
use crate::share::Share;
use crate::sharing::ShownBy;
use crate::stats::{Component, Stats};
use crate::store::journal::{Journal, Progress};
use crate::store::ledger::Ledger;
use crate::store::snapshot::Snapshots;

/// Works or stands by until Ctrl-C or SIGTERM.
///
/// # Errors
/// What keeps it from starting: no `REDIS_URL`, a Redis that must not be used as it is set up, a channel of alerts that cannot be used.
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let place = place(&config, "processor")?;
    let stats = Arc::new(Stats::new(config.queue_capacity));
    status::start(&config, Arc::clone(&stats)).await?;
    work(config, place, stats, run::until_signal()).await?;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Works or stands by until `stop`.
///
/// # Errors
/// As [`run`].
pub(super) async fn work(mut config: Config, place: RedisPlace, stats: Arc<Stats>, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.kafka.anomaly_topic.is_none() || config.kafka.broker.is_some(),
        "KAFKA_ANOMALY_TOPIC is set: set KAFKA_BROKER as well, such as localhost:9092"
    );
    let channel = format!("{}:incidents", config.redis.alerts_channel);
    config.notify.pubsub = Some(PubSub { place: place.clone(), channel });
    let mut stop = std::pin::pin!(stop);
    // A Redis that cannot be used as it is set up is told at once, and not by a processor that seems to stand by.
    {
        let (place, stopping) = (place.clone(), Arc::new(AtomicBool::new(false)));
        let checked = blocking(move || connect(&place, &stopping).map(drop));
        tokio::select! { checked = checked => checked??, () = &mut stop => return Ok(()) }
    }
    // So is a channel that cannot be used: else it would be found out by whoever takes over.
    drop(Channels::new(&config.notify)?);
    let formats = Formats::start(place.clone()).await?;
    let backend = config.backend;
    let processor = Processor { config: Arc::new(config), place: place.clone(), stats: Arc::clone(&stats), formats };
    if backend == Backend::Kafka {
        return scale_out::share(processor, stop).await;
    }
    let standing = |active| stats.set_standing(if active { "active" } else { "standby" });
    let start = |link, token, fatal| Stages::start(processor.clone(), link, token, fatal);
    own(&place, &stats, stop, standing, start).await
}

/// The stages of the active processor.
#[derive(Debug)]
struct Stages {
    judging: Judging,
    tail: Worker,
    points: Option<JoinHandle<()>>,
    raw_events: Worker,
    anomaly_topic: Option<Worker>,
    formats: Formats,
}

/// What was taken over.
struct TakenOver {
    journal: Journal,
    snapshots: Snapshots,
    engine: Engine,
    /// There was no checkpoint.
    is_new: bool,
    reader: RedisReader,
    progress: Arc<Progress>,
    checkpoint: Link,
    tail: Link,
    /// The first frame of the log, if there is any, and the last.
    first: Option<u64>,
    last: u64,
}

/// Takes over what there is, on connections to one server: the one that gave the lease.
fn take_over(config: &Config, place: &RedisPlace, link: Link, token: &str) -> anyhow::Result<TakenOver> {
    let at = link.at().to_owned();
    let (mut checkpoint, tail) = (place.connect()?, place.connect()?);
    let progress = Arc::new(Progress::default());
    let mut reader = RedisReader::new(place.clone()).telling(Arc::clone(&progress));
    for other in [checkpoint.at(), tail.at(), &reader.at()?] {
        anyhow::ensure!(other == at, "there are two primaries, {at} and {other}");
    }
    let (journal, snapshots) = take_journal(config, place, link, token, Arc::clone(&progress))?;
    let stored = journal.position().frame;
    progress.appended(stored, reader.appended_upto(stored)?);
    let restored = checkpoint::newest(&mut checkpoint, &Kind::Checkpoint, config.shards)?;
    let is_new = restored.is_none();
    let engine = restored.unwrap_or_else(|| Engine::new(config.engine.clone(), config.shards));
    let (last, first) = (reader.last()?, reader.first()?);
    Ok(TakenOver { journal, snapshots, engine, is_new, reader, progress, checkpoint, tail, first, last })
}

impl Stages {
    async fn start(processor: Processor, link: Link, token: String, fatal: Fatal) -> anyhow::Result<Self> {
        let Processor { config, place, stats, formats } = processor.clone();
        let taken = {
            let (config, place, token) = (Arc::clone(&config), place.clone(), token.clone());
            blocking(move || take_over(&config, &place, link, &token))
        };
        let TakenOver { journal, snapshots, mut engine, is_new, reader, progress, checkpoint, tail, first, last } = taken.await??;
        engine.keep_points(true);
        let fence = Fence::of_lease(token.clone());
        let known = journal.position().frame.max(engine.applied()).max(engine.recovering());
        for name in ["log", "engine", "store"] {
            stats.component(name, Component::Ok);
        }
        // Where the log begins behind what the engine has, frames are gone that nobody trimmed.
        if let Some(lost) = lost_frames(engine.applied(), first, last, known) {
            tracing::error!("{lost}");
            stats.component("log", Component::Degraded(lost));
        }
        info!(series = engine.series_len(), "replaying frames {} to {last} of the log", engine.applied() + 1);
        let store = journal.reader();
        let (points, points_thread) = points::start_for_alerts(&config);
        let backlog = Arc::new(Backlog::new(config.queue_capacity, Arc::clone(&stats)));
        let taken = ToJudge {
            engine,
            is_new,
            owner: ShownBy { fence: fence.clone(), share: Share::WHOLE, ends: None },
            feed: Arc::new(EngineFeed::new(last)),
            reader: FrameReader::Redis(Box::new(reader)),
            last,
            log: Log::Redis(Box::new(RedisLog::of_owner(place.clone(), fence.clone()))),
            journal: Ledger::Shared(Box::new(journal)),
            checkpoint: OnRedis {
                link: checkpoint,
                place: place.clone(),
                fence: fence.clone(),
                kind: Kind::Checkpoint,
                snapshots: Some(snapshots),
            },
            points: points.clone(),
            backlog: Arc::clone(&backlog),
        };
        let mut judging = Judging::start(&processor, taken, &fatal)?;
        let (log, commits) = (judging.log.clone(), judging.commits.clone());
        let watch = Watch {
            hurry: Some(engine_thread::hurry(&judging.feed)),
            ..Watch::new(&place, &backlog, Arc::clone(&judging.memory), &stats, log.hints())
        };
        let tail = tail::of_processor(tail, watch, &judging, progress, last, fatal.clone())?;
        judging.catch_up(&config).await?;
        let anomaly_topic = anomaly_topic::start(&config, place.clone(), fence, store.clone(), Arc::clone(&stats))?;
        let raw_events = raw_events::start(&place, token, Arc::clone(&config), log.clone(), backlog, Arc::clone(&stats), fatal.clone())?;
        judging.tasks.0.push(tokio::spawn(run::retain(commits.clone(), log.hints(), config.anomaly_retention_days)));
        let (news, decided) = (Arc::clone(&judging.news), Arc::clone(&judging.decided));
        let alerts = Alerts { store, desk: Desk::new(commits), points, news, decided, fatal, stats };
        judging.tasks.0.extend(notify::start(&config, alerts).await?);
        Ok(Self { judging, tail, points: points_thread, raw_events, anomaly_topic, formats })
    }
}

impl Owned for Stages {
    const ROLE: &'static str = "active: this processor detects, others stand by";

    /// Finishes what was accepted, writes a checkpoint, and ends the threads in the order of the path.
    async fn stop(self, is_ours: bool) {
        let Self { mut judging, tail, points, raw_events, anomaly_topic, formats } = self;
        judging.end_tasks().await;
        if is_ours {
            // Whoever stands by may have come just now, and may not read what is newest.
            formats.tell().await;
        }
        let finish = move || {
            raw_events.stop();
            // Told, and not waited for: Kafka may be away, and the next owner goes on.
            drop(anomaly_topic);
            judging.finish(is_ours, || tail.stop());
            points.map(JoinHandle::join)
        };
        let _ = blocking(finish).await;
    }
}

/// What the log should still have and has not.
fn lost_frames(applied: u64, first: Option<u64>, last: u64, known: u64) -> Option<String> {
    if last < known {
        return Some(format!("the log ends with frame {last}, but frame {known} was committed: it has lost what is between"));
    }
    let first = first.unwrap_or(last + 1);
    (first > applied + 1).then(|| format!("frames {} to {} of the log are gone before they were judged", applied + 1, first - 1))
}
