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
use anomaly_engine::frame::Position;
use tokio::sync::{Notify, watch};
use tracing::info;

use super::formats::Formats;
use super::ownership::{Owned, own};
use super::tail::{self, Watch};
use super::worker::Worker;
use super::{Tasks, anomaly_topic, blocking, connect, place, raw_events, scale_out, status};
use crate::backlog::Backlog;
use crate::checkpoint::{self, Checkpoints};
use crate::commit::{self, Carried, Committer};
use crate::config::redis::Results;
use crate::config::{Backend, Config};
use crate::data_dir::DataDir;
use crate::desk::Desk;
use crate::disk::Disk;
use crate::engine_thread::{self, EngineFeed, EngineHandle, EngineStage};
use crate::fatal::Fatal;
use crate::live::Live;
use crate::log::admission::{Admission, Memory};
use crate::log::handle::{self, LogHandle};
use crate::log::stream::RedisLog;
use crate::log::stream_reader::RedisReader;
use crate::log::writer::{self, Housekeeping, Writer};
use crate::log::{FrameReader, Log};
use crate::notify::channel::PubSub;
use crate::notify::{self, Alerts};
use crate::points;
use crate::redis::chunks::Kind;
use crate::redis::{Fence, Link, RedisPlace};
use crate::room::DiskWatch;
use crate::run;
use crate::share::Share;
use crate::sharing::{Sharing, ShownBy};
use crate::stats::{Component, Stats};
use crate::store::journal::{Journal, Owner, Progress, Publisher};
use crate::store::ledger::Ledger;
use crate::store::snapshot::{Snapshots, open_view};
use crate::tick;

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
    let formats = Formats::start(place.clone()).await?;
    if config.backend == Backend::Kafka {
        return scale_out::share(config, place, formats, stats, stop).await;
    }
    let standing = |active| stats.set_standing(if active { "active" } else { "standby" });
    let start = |link, token, fatal| Stages::start(config.clone(), place.clone(), formats.clone(), Arc::clone(&stats), link, token, fatal);
    own(&place, &stats, stop, standing, start).await
}

/// The stages of the active processor.
#[derive(Debug)]
struct Stages {
    /// Locked while the view in it is used.
    _dir: DataDir,
    log: LogHandle,
    tail: Worker,
    writer: JoinHandle<()>,
    engine: JoinHandle<EngineStage>,
    committer: JoinHandle<()>,
    checkpoints: JoinHandle<()>,
    sharing: (Sharing, JoinHandle<()>),
    points: Option<JoinHandle<()>>,
    raw_events: Worker,
    anomaly_topic: Option<Worker>,
    tasks: Tasks,
    formats: Formats,
}

/// What was taken over.
struct TakenOver {
    dir: DataDir,
    journal: Journal,
    engine: Engine,
    reader: RedisReader,
    progress: Arc<Progress>,
    checkpoint: Link,
    tail: Link,
    /// The last frame of the log.
    last: u64,
}

/// Takes over what there is, on connections to one server: the one that gave the lease.
fn take_over(config: &Config, place: &RedisPlace, mut link: Link, token: &str) -> anyhow::Result<TakenOver> {
    let at = link.at().to_owned();
    let (mut checkpoint, tail) = (place.connect()?, place.connect()?);
    let progress = Arc::new(Progress::default());
    let mut reader = RedisReader::new(place.clone()).telling(Arc::clone(&progress));
    for other in [checkpoint.at(), tail.at(), &reader.at()?] {
        anyhow::ensure!(other == at, "there are two primaries, {at} and {other}");
    }
    let dir = DataDir::open_first(&config.data_dir, "processor")?;
    let view = open_view(&dir, &mut link)?;
    let publisher = Publisher { channel: config.redis.alerts_channel.clone(), ttl_seconds: config.redis.result_ttl.as_secs().max(1) };
    let owner = Owner { link, token: token.to_owned(), progress: Arc::clone(&progress), publisher, published: 0, noted: 0, results: None };
    let mut journal = Journal::owner(view, owner);
    journal.take_over()?;
    journal.publish_the_rest()?;
    let stored = journal.position().frame;
    progress.appended(stored, reader.appended_upto(stored)?);
    let engine = checkpoint::newest(&mut checkpoint, &Kind::Checkpoint, config.shards)?;
    let engine = engine.unwrap_or_else(|| Engine::new(config.engine.clone(), config.shards));
    let last = reader.last()?;
    Ok(TakenOver { dir, journal, engine, reader, progress, checkpoint, tail, last })
}

impl Stages {
    async fn start(
        config: Config,
        place: RedisPlace,
        formats: Formats,
        stats: Arc<Stats>,
        link: Link,
        token: String,
        fatal: Fatal,
    ) -> anyhow::Result<Self> {
        let taken = {
            let (config, place, token) = (config.clone(), place.clone(), token.clone());
            blocking(move || take_over(&config, &place, link, &token))
        };
        let TakenOver { dir, journal, mut engine, mut reader, progress, checkpoint, tail, last } = taken.await??;
        engine.keep_points(true);
        let fence = Fence::of_lease(token.clone());
        let stored = journal.position().frame;
        let lowest = engine.applied().max(engine.recovering());
        let first = {
            let first = blocking(move || (reader.first(), reader));
            let (first, back) = first.await?;
            reader = back;
            first?
        };
        for name in ["log", "engine", "store"] {
            stats.component(name, Component::Ok);
        }
        // Where the log begins behind what the engine has, frames are gone that nobody trimmed.
        if let Some(lost) = lost_frames(engine.applied(), first, last, stored.max(lowest)) {
            tracing::error!("{lost}");
            stats.component("log", Component::Degraded(lost));
        }
        info!(series = engine.series_len(), "replaying frames {} to {last} of the log", engine.applied() + 1);
        let store = journal.reader();
        let (points, points_thread) = points::start_for_alerts(&config);
        let disk = Arc::new(DiskWatch::new(Disk::open(&DataDir::memory())?, points.clone(), Arc::clone(&stats)));
        let memory = Memory::new(config.memory_max_bytes);
        let backlog = Arc::new(Backlog::new(config.queue_capacity, Arc::clone(&stats)));
        let feed = Arc::new(EngineFeed::new(last));
        let (reached, reached_reader) = watch::channel(engine.applied());
        let (news, decided) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (log, requests) = handle::channel();
        let recovered_config = engine.config().clone();
        let reached_here = reached_reader.clone();
        let handle = EngineHandle::new(Arc::clone(&feed), reached_reader, recovered_config.clone());
        let shown_by = ShownBy { fence: fence.clone(), share: Share::WHOLE, ends: None };
        let (sharing, sharing_thread) = Sharing::start(place.clone(), shown_by, handle.clone(), config.redis.result_ttl)?;
        let shown = sharing.clone();
        let committer = Committer {
            store: Ledger::Shared(Box::new(journal)),
            live: Live::new(store.extent()?),
            points: points.clone(),
            sharing,
            backlog: Arc::clone(&backlog),
            stats: Arc::clone(&stats),
            reached,
            judged_elsewhere: false,
            disk: Arc::clone(&disk),
            log: log.hints(),
            counted: last,
            carried: Carried::default(),
            news: Arc::clone(&news),
            decided: Arc::clone(&decided),
            fatal: fatal.clone(),
        };
        let (commits, committer) = commit::start(committer)?;
        let on_redis = checkpoint::OnRedis {
            link: checkpoint,
            place: place.clone(),
            fence: fence.clone(),
            kind: Kind::Checkpoint,
            snapshots: Some(Snapshots::new(store.clone(), &dir)),
        };
        let (checkpoint, checkpoints) =
            Checkpoints::start(checkpoint::Place::Redis(Box::new(on_redis)), formats.agreed(), commits.clone())?;
        let (open_incidents, open_incidents_reader) = watch::channel(engine.open_incidents());
        let stage = EngineStage {
            engine,
            reader: FrameReader::Redis(Box::new(reader)),
            feed: Arc::clone(&feed),
            commits: commits.clone(),
            stored,
            memory: Arc::clone(&memory),
            stats: Arc::clone(&stats),
            open_incidents,
            checkpoint,
            tell_open: Some((last, Share::WHOLE)),
            wants_results: config.redis.results == Results::All,
            fatal: fatal.clone(),
        };
        let engine = engine_thread::start(stage)?;
        let writer = Writer {
            log: Log::Redis(Box::new(RedisLog::of_owner(place.clone(), fence))),
            admission: Admission::shared(config.max_series, Arc::clone(&memory)),
            feed: None,
            backlog: Arc::clone(&backlog),
            disk,
            stats: Arc::clone(&stats),
            rejected: stats.rejected_here(),
            fatal: fatal.clone(),
            housekeeping: Housekeeping::default(),
        };
        let writer = writer::start(writer, requests)?;
        let watch = Watch {
            commits: Some(commits.clone()),
            hurry: Some(engine_thread::hurry(&feed)),
            ..Watch::new(&place, &backlog, memory, &stats, log.hints())
        };
        let tail = tail::of_processor(tail, watch, feed, progress, last, reached_here, fatal.clone())?;
        handle.reached(Position { frame: last, row: u32::MAX }).await;
        // The owner before may have judged what it told nobody of.
        let known = handle.ask(|stage| run::known_series(&stage.engine)).await.unwrap_or_default();
        shown.changed(known.into_iter());
        if recovered_config != config.engine || last == 0 {
            let at = log.configure(config.engine.to_text()).await?;
            handle.reached(at).await;
            handle.set_config(config.engine.clone());
        }
        let mut tasks = Tasks(vec![
            tokio::spawn(run::retain(commits.clone(), log.hints(), config.anomaly_retention_days)),
            tokio::spawn(tick::tick(open_incidents_reader, log.hints())),
            tokio::spawn(formats.clone().wake(handle)),
        ]);
        let config = Arc::new(config);
        let anomaly_topic =
            anomaly_topic::start(&config, place.clone(), Fence::of_lease(token.clone()), store.clone(), Arc::clone(&stats))?;
        let raw_events = raw_events::start(&place, token, Arc::clone(&config), log.clone(), backlog, Arc::clone(&stats), fatal.clone())?;
        let alerts = Alerts { store, desk: Desk::new(commits), points, news, decided, fatal, stats };
        tasks.0.extend(notify::start(&config, alerts).await?);
        Ok(Self {
            _dir: dir,
            log,
            tail,
            writer,
            engine,
            committer,
            checkpoints,
            sharing: (shown, sharing_thread),
            points: points_thread,
            raw_events,
            anomaly_topic,
            tasks,
            formats,
        })
    }
}

impl Owned for Stages {
    const ROLE: &'static str = "active: this processor detects, others stand by";

    /// Finishes what was accepted, writes a checkpoint, and ends the threads in the order of the path.
    async fn stop(self, is_ours: bool) {
        let Self {
            _dir,
            log,
            tail,
            writer,
            engine,
            committer,
            checkpoints,
            sharing: (shown, sharing),
            points,
            raw_events,
            anomaly_topic,
            tasks,
            formats,
        } = self;
        tasks.end().await;
        if is_ours {
            // Whoever stands by may have come just now, and may not read what is newest.
            formats.tell().await;
        }
        let finish = move || {
            raw_events.stop();
            // Told, and not waited for: Kafka may be away, and the next owner goes on.
            drop(anomaly_topic);
            drop(log);
            let _ = writer.join();
            tail.stop();
            shown.end(is_ours);
            if let Ok(mut stage) = engine.join()
                && is_ours
            {
                stage.checkpoint.write_now(&stage.engine);
            }
            let _ = checkpoints.join();
            let _ = committer.join();
            let _ = sharing.join();
            let _ = points.map(JoinHandle::join);
        };
        let _ = tokio::task::spawn_blocking(finish).await;
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
