//! `anomaly all`: the stages started in order, and stopped in order.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use anomaly_engine::frame::Position;
use anomaly_engine::{DecodeError, Engine, ScanCursor, SeriesHash, Totals};
use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{self, Signal, SignalKind};
use tokio::sync::{Notify, oneshot, watch};
use tracing::{error, info, warn};

use crate::app::App;
use crate::backlog::Backlog;
use crate::checkpoint::{self, Checkpoints};
use crate::checkpoint_files::{self, CheckpointError};
use crate::commit::{self, Carried, Committer, ToCommit};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::desk::Desk;
use crate::disk::Disk;
use crate::engine_thread::{self, EngineFeed, EngineHandle, EngineStage};
use crate::fatal::Fatal;
use crate::kafka::Ingest;
use crate::live::Live;
use crate::log::admission::{Admission, Memory};
use crate::log::handle::{self, LogHints};
use crate::log::sqlite::{Durability, EventLog};
use crate::log::writer::{self, Housekeeping, REJECTED, Writer};
use crate::log::{FrameReader, Log};
use crate::notify::{self, Alerts};
use crate::room::DiskWatch;
use crate::share::Share;
use crate::sharing::Sharing;
use crate::stats::{self, Component, Stats};
use crate::store::ledger::Ledger;
use crate::store::sqlite::Store;
use crate::upload::Uploads;
use crate::{api, clock, logging, points, serve, tick};

/// How long a stop may take; what is not done by then is done again at the next start.
const DRAIN: Duration = Duration::from_secs(9);
/// How often what is too old is deleted.
const RETENTION_PAUSE: Duration = Duration::from_secs(3600);

/// Stages that an API is served with.
pub trait Running {
    /// The handles of the API.
    fn app(&self) -> &App;

    /// Finishes what was accepted, and ends.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

/// Runs everything in one process until Ctrl-C, SIGTERM, or a fault that would break a promise.
///
/// # Errors
/// What keeps it from starting: a port or a data directory in use, files of a newer version.
pub async fn all(config: Config) -> anyhow::Result<ExitCode> {
    beside(config, until_signal(), |_, _| std::future::pending::<anyhow::Result<()>>()).await
}

/// Returns when Ctrl-C or SIGTERM has come. They are listened for from the first poll on: until then a signal ends the process at once.
pub async fn until_signal() {
    match Signals::listen() {
        Ok(signals) => signals.received().await,
        Err(fault) => {
            warn!("Ctrl-C and SIGTERM cannot be listened for: {fault}");
            std::future::pending::<()>().await;
        }
    }
}

/// As [`all`] until `stop`, with a companion in the same process: it is made from the handles and the address that is served,
/// and ends with the rest. When it ends by itself, so does the rest.
///
/// # Errors
/// As [`all`].
pub async fn beside<F>(
    config: Config,
    stop: impl Future<Output = ()>,
    companion: impl FnOnce(App, SocketAddr) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    serve(config, Stages::start, stop, companion).await
}

/// Starts stages, and serves their API until `stop`, with a companion as in [`beside`].
///
/// # Errors
/// What keeps them from starting.
pub async fn serve<S, F>(
    mut config: Config,
    start: impl AsyncFnOnce(Config, Fatal) -> anyhow::Result<S>,
    stop: impl Future<Output = ()>,
    companion: impl FnOnce(App, SocketAddr) -> F,
) -> anyhow::Result<ExitCode>
where
    S: Running,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let listener = listen(&config).await?;
    let address = listener.local_addr()?;
    // Port 0 took a free one, and alerts link to it.
    config.port = address.port();
    let (fatal, mut failed) = Fatal::new();
    let stages = tokio::select! {
        stages = start(config, fatal) => stages?,
        // A stage that fails while it recovers is waited for by the others.
        reason = failed.recv() => anyhow::bail!(reason.unwrap_or_else(|| "a stage ended while it started".into())),
    };
    let app = stages.app().clone();
    logging::started(&app.config, address);
    let router = api::router(app.clone());
    let (close, closed) = oneshot::channel::<()>();
    let server = tokio::spawn(serve::serve(listener, router, serve::Limits::default(), async move {
        let _ = closed.await;
    }));
    let mut companion = tokio::spawn(companion(app, address));
    let reason = tokio::select! {
        () = stop => None,
        reason = failed.recv() => reason,
        ended = &mut companion => match ended {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(error) => Some(error.to_string()),
        },
    };
    if let Some(reason) = &reason {
        error!("stopping: {reason}");
    } else {
        info!("stopping: finishing what was accepted");
    }
    drop(close);
    let drained = tokio::time::timeout(DRAIN, async {
        // Its handles go before the stages wait for the last of them.
        if !companion.is_finished() {
            companion.abort();
            let _ = companion.await;
        }
        let _ = server.await;
        stages.stop().await;
    });
    if drained.await.is_err() {
        warn!("not everything was finished within {} s; the next start goes on from the log", DRAIN.as_secs());
    }
    if reason.is_some() {
        return Ok(ExitCode::FAILURE);
    }
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    let (host, port) = (config.host, config.port);
    TcpListener::bind((host, port)).await.with_context(|| {
        let told = format!("cannot listen on {}", SocketAddr::new(host, port));
        if port == 0 { told } else { format!("{told} (--port takes another port, --port 0 any free one)") }
    })
}

/// All stages of one process, recovered and running.
#[derive(Debug)]
pub struct Stages {
    /// The handles.
    pub app: App,
    /// How many frames of the log the start has replayed: none behind a clean stop.
    pub replayed: u64,
    writer: JoinHandle<()>,
    engine: JoinHandle<EngineStage>,
    committer: JoinHandle<()>,
    checkpoints: Option<JoinHandle<()>>,
    points: JoinHandle<()>,
    retention: tokio::task::JoinHandle<()>,
    ticks: tokio::task::JoinHandle<()>,
    alerting: Vec<tokio::task::JoinHandle<()>>,
    kafka: Ingest,
}

impl Stages {
    /// Opens the data directory, recovers what it holds, and starts every stage.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn start(config: Config, fatal: Fatal) -> anyhow::Result<Self> {
        let in_memory = config.durability == Durability::Memory;
        let dir = Arc::new(if in_memory { DataDir::memory() } else { DataDir::open(&config.data_dir)?.at_most(config.disk_max_bytes) });
        let stats = Arc::new(Stats::new(config.queue_capacity));
        let disk = Disk::open(&dir).context("the disk cannot be asked")?;
        let mut log = EventLog::open(&dir, config.durability)?;
        let store = Store::open(&dir, config.durability)?;
        let (points, points_thread) = points::start(&dir, config.points_max_bytes);
        let disk = Arc::new(DiskWatch::new(disk, points.clone(), Arc::clone(&stats)));
        let store_reader = store.reader();
        let end = log.next_frame() - 1;
        let stored = store.position().frame;
        let (engine, damaged) = recover(&dir, &config)?;
        let lost_store = lost_outputs(&engine, stored);
        let lost = [log.opened().lost.clone(), lost_frames(&engine, end, stored), lost_store].into_iter().flatten();
        let lost = lost.chain(damaged).collect::<Vec<_>>();
        for what in &lost {
            error!("{what}");
        }
        let reader = log.reader()?;
        // Numbers behind the last frame may be used, by frames that are lost.
        let last = reader.last()?.unwrap_or(0);
        // Numbers up to P and to the checkpoint are used, even where the log has lost the frames.
        log.skip_to(stored.max(engine.applied()).max(engine.recovering()) + 1)?;
        let recovered_config = engine.config().clone();
        let replayed = last.saturating_sub(engine.applied());
        info!(series = engine.series_len(), "replaying frames {} to {last} of the log", engine.applied() + 1);

        for name in ["log", "engine", "store", "points"] {
            stats.component(name, Component::Ok);
        }
        if !lost.is_empty() {
            stats.component("log", Component::Degraded(lost.join("; ")));
        }
        let memory = Memory::new(config.memory_max_bytes);
        let backlog = Arc::new(Backlog::new(config.queue_capacity, Arc::clone(&stats)));
        let feed = Arc::new(EngineFeed::new(last));
        let (reached, reached_reader) = watch::channel(engine.applied());
        let live = Live::new(store.reader().extent()?);
        let (news, decided) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (log_handle, requests) = handle::channel();
        let committer = Committer {
            store: Ledger::Embedded(Box::new(store)),
            live: live.clone(),
            points: points.clone(),
            sharing: Sharing::none(),
            backlog: Arc::clone(&backlog),
            stats: Arc::clone(&stats),
            reached,
            judged_elsewhere: false,
            disk: Arc::clone(&disk),
            log: log_handle.hints(),
            counted: end,
            carried: Carried::default(),
            news: Arc::clone(&news),
            decided: Arc::clone(&decided),
            fatal: fatal.clone(),
        };
        let (commits, committer) = commit::start(committer)?;
        let (checkpoint, checkpoints) = if in_memory {
            (Checkpoints::none(), None)
        } else {
            let place = checkpoint::Place::Dir(Arc::clone(&dir), log_handle.hints());
            let (checkpoint, thread) = Checkpoints::start(place, checkpoint::newest_format(), commits.clone())?;
            (checkpoint, Some(thread))
        };
        let (open_incidents, open_incidents_reader) = watch::channel(engine.open_incidents());
        let stage = EngineStage {
            engine,
            reader: FrameReader::Sqlite(reader),
            feed: Arc::clone(&feed),
            commits: commits.clone(),
            stored,
            memory: Arc::clone(&memory),
            stats: Arc::clone(&stats),
            open_incidents,
            checkpoint,
            // Nothing is accepted before the configuration is in the log.
            is_new: false,
            tell_open: Some((last, Share::WHOLE)),
            wants_results: false,
            fatal: fatal.clone(),
        };
        let engine_thread = engine_thread::start(stage)?;
        let engine = EngineHandle::new(Arc::clone(&feed), reached_reader, recovered_config.clone());
        engine.reached(Position { frame: last, row: u32::MAX }).await;
        let (known, totals) = recovered(&engine).await.context("the log could not be replayed")?;
        let rejected = log.counter(REJECTED)?;
        stats.restore(stats::Totals {
            events: totals.events,
            rejected,
            late: totals.late,
            duplicates: totals.duplicates,
            redelivered: totals.redelivered,
        });
        stats.set_series(known.len() as u64);

        let admission = Admission::new(known, last, config.max_series, memory);
        let writer = Writer {
            log: Log::Sqlite(Box::new(log)),
            admission,
            feed: Some(feed),
            backlog,
            disk,
            stats: Arc::clone(&stats),
            rejected,
            fatal: fatal.clone(),
            housekeeping: Housekeeping::default(),
        };
        let writer = writer::start(writer, requests)?;
        if recovered_config != config.engine || last == 0 {
            let at = log_handle.configure(config.engine.to_text()).await?;
            engine.reached(at).await;
            engine.set_config(config.engine.clone());
        }
        let retention = tokio::spawn(retain(commits.clone(), log_handle.hints(), config.anomaly_retention_days));
        let ticks = tokio::spawn(tick::tick(open_incidents_reader, log_handle.hints()));
        let desk = Desk::new(commits);
        let config = Arc::new(config);
        let alerts = Alerts {
            store: store_reader.clone(),
            desk: desk.clone(),
            points: points.clone(),
            news,
            decided: Arc::clone(&decided),
            fatal,
            stats: Arc::clone(&stats),
        };
        let alerting = notify::start(&config, alerts).await?;
        let uploads = Uploads::start(Arc::clone(&config), &dir, log_handle.clone(), store_reader.clone(), Arc::clone(&stats))?;
        uploads.resume().await?;
        let kafka = Ingest::start(&config, log_handle.clone(), Arc::clone(&stats))?;
        let app = App { config, log: log_handle, store: store_reader, points, desk, engine, live, uploads, stats, freshness: None };
        Ok(Self {
            app,
            replayed,
            writer,
            engine: engine_thread,
            committer,
            checkpoints,
            points: points_thread,
            retention,
            ticks,
            alerting,
            kafka,
        })
    }
}

impl Running for Stages {
    fn app(&self) -> &App {
        &self.app
    }

    /// Writes a checkpoint too, and ends the threads in the order of the path.
    async fn stop(self) {
        let Self { app, replayed: _, writer, engine, committer, checkpoints, points, retention, ticks, alerting, kafka } = self;
        kafka.stop().await;
        retention.abort();
        ticks.abort();
        // What is just being sent is sent again at the next start, under its id. They are waited for: each holds the committer.
        for task in alerting {
            task.abort();
            let _ = task.await;
        }
        app.uploads.stop().await;
        drop(app);
        let finish = move || {
            let _ = writer.join();
            if let Ok(mut stage) = engine.join() {
                stage.checkpoint.write_now(&stage.engine);
            }
            if let Some(checkpoints) = checkpoints {
                let _ = checkpoints.join();
            }
            let _ = committer.join();
            let _ = points.join();
        };
        let _ = tokio::task::spawn_blocking(finish).await;
    }
}

/// The engine of the newest checkpoint, or a new one; and what was found damaged.
fn recover(dir: &DataDir, config: &Config) -> anyhow::Result<(Engine, Vec<String>)> {
    let (mut engine, damaged) = match checkpoint_files::load_newest(dir)? {
        None => (Engine::new(config.engine.clone(), config.shards), Vec::new()),
        Some(mut loaded) => {
            let damaged = std::mem::take(&mut loaded.damaged);
            let chunks = loaded.chunks().map(|chunk| chunk.map_err(RecoveryError::from));
            let engine = Engine::restore::<RecoveryError>(chunks, config.shards)
                .context("the checkpoint cannot be read; a newer version of anomaly may have written it")?;
            (engine, damaged)
        }
    };
    engine.keep_points(true);
    Ok((engine, damaged))
}

/// Why a checkpoint cannot be restored.
#[derive(Debug, thiserror::Error)]
enum RecoveryError {
    #[error(transparent)]
    Files(#[from] CheckpointError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// What the log should still have and has not: it ends before what was committed or checkpointed.
fn lost_frames(engine: &Engine, end: u64, stored: u64) -> Option<String> {
    let known = stored.max(engine.applied()).max(engine.recovering());
    (end < known).then(|| {
        format!("the log ends with frame {end}, but frame {known} was committed: frames {} to {known} are missing; anomalies found in them are kept", end + 1)
    })
}

/// What the store should still have and has not: P has passed each checkpoint before it was finished.
fn lost_outputs(engine: &Engine, stored: u64) -> Option<String> {
    let checkpointed = engine.applied().max(engine.recovering());
    (stored < checkpointed).then(|| {
        format!(
            "anomaly.db ends with frame {stored}, but the checkpoint stands at frame {checkpointed}: anomalies found in frames {} to \
             {checkpointed} may be missing",
            stored + 1
        )
    })
}

/// The hashes of all series, and what was counted, as the recovery left them.
async fn recovered(engine: &EngineHandle) -> Option<(Vec<SeriesHash>, Totals)> {
    engine.ask(|stage| (known_series(&stage.engine), stage.engine.totals())).await
}

/// All series that the engine holds.
pub(crate) fn known_series(engine: &Engine) -> Vec<SeriesHash> {
    let mut known = Vec::with_capacity(engine.series_len());
    let mut cursor = Some(ScanCursor::default());
    while let Some(from) = cursor {
        cursor = engine.scan(from, u32::MAX, |key, _| known.push(key.hash()));
    }
    known
}

/// Deletes from time to time what is older than `days`.
pub(crate) async fn retain(commits: SyncSender<ToCommit>, log: LogHints, days: f64) {
    let age = (days * 86_400.0 * 1e9) as i64;
    loop {
        // A committer that is busy is asked again the next time.
        let _ = commits.try_send(ToCommit::Retain(clock::now().plus(-age)));
        log.prune();
        tokio::time::sleep(RETENTION_PAUSE).await;
    }
}

/// Ctrl-C and SIGTERM, noted from [`Signals::listen`] on.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes them from the system, which would end the process at once.
    ///
    /// # Errors
    /// The system does not give them.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: unix::signal(SignalKind::interrupt())?, terminate: unix::signal(SignalKind::terminate())? })
    }

    /// Returns when one has come.
    pub async fn received(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
