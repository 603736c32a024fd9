//! The stages of whoever owns a log on Redis, or one partition of a log on Kafka.
//!
//! ```text
//! feed ─► engine ─► committer ─► journal
//!           │           └──────► what others are shown
//!           └─► checkpoints
//! ticks, configurations ─► writer ─► log
//! ```

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use anomaly_engine::Engine;
use anomaly_engine::frame::{Position, base_of};
use tokio::sync::{Notify, watch};
use tracing::warn;

use super::{Processor, Tasks};
use crate::backlog::Backlog;
use crate::checkpoint::{self, Checkpoints, OnRedis};
use crate::commit::{self, Carried, Committer, ToCommit};
use crate::config::Config;
use crate::config::redis::Results;
use crate::data_dir::DataDir;
use crate::disk::Disk;
use crate::engine_thread::{self, EngineFeed, EngineHandle, EngineStage};
use crate::fatal::Fatal;
use crate::live::Live;
use crate::log::admission::{Admission, Memory};
use crate::log::handle::{self, LogHandle};
use crate::log::writer::{self, Housekeeping, Writer};
use crate::log::{AppendError, FrameReader, Log};
use crate::points::PointsHandle;
use crate::room::DiskWatch;
use crate::run;
use crate::sharing::{Sharing, ShownBy};
use crate::store::ledger::Ledger;
use crate::tick;

/// Before it is tried again to record the configuration.
const RECORD_AGAIN: Duration = Duration::from_secs(1);

/// What was taken over, and where it goes on.
pub(super) struct ToJudge {
    pub(super) engine: Engine,
    /// It was not restored: there is no checkpoint.
    pub(super) is_new: bool,
    /// What proves whose it is, and what it is for: whoever shows something says so.
    pub(super) owner: ShownBy,
    /// Frames behind the engine: as they come, and those that came before.
    pub(super) feed: Arc<EngineFeed>,
    pub(super) reader: FrameReader,
    /// The last frame that the log had.
    pub(super) last: u64,
    pub(super) log: Log,
    pub(super) journal: Ledger,
    pub(super) checkpoint: OnRedis,
    pub(super) points: PointsHandle,
    pub(super) backlog: Arc<Backlog>,
}

/// The stages, running.
#[derive(Debug)]
pub(super) struct Judging {
    pub(super) engine: EngineHandle,
    pub(super) feed: Arc<EngineFeed>,
    /// The last frame whose outputs are in the journal.
    pub(super) reached: watch::Receiver<u64>,
    /// The account of the engine's state.
    pub(super) memory: Arc<Memory>,
    pub(super) log: LogHandle,
    pub(super) commits: SyncSender<ToCommit>,
    /// Told when incidents may have changed, and when there may be something to send.
    pub(super) news: Arc<Notify>,
    pub(super) decided: Arc<Notify>,
    sharing: Sharing,
    /// The last frame that was there when it began, and whether none was.
    last: u64,
    was_empty: bool,
    threads: Threads,
    /// What else runs while they do.
    pub(super) tasks: Tasks,
    closing: Closing,
}

/// However the stages end, also half-way through their start: an engine whose feed is closed ends when that is worked off, and all behind
/// it.
#[derive(Debug)]
struct Closing(Arc<EngineFeed>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[derive(Debug)]
struct Threads {
    writer: JoinHandle<()>,
    engine: JoinHandle<EngineStage>,
    checkpoints: JoinHandle<()>,
    committer: JoinHandle<()>,
    sharing: JoinHandle<()>,
}

impl Judging {
    /// Starts them.
    ///
    /// # Errors
    /// The system gives no thread, or no file for what is kept in memory.
    pub(super) fn start(processor: &Processor, taken: ToJudge, fatal: &Fatal) -> anyhow::Result<Self> {
        let Processor { config, place, stats, formats } = processor;
        let ToJudge { engine, is_new, owner, feed, reader, last, log, journal, checkpoint, points, backlog } = taken;
        let (share, closing) = (owner.share, Closing(Arc::clone(&feed)));
        let memory = Memory::new(config.memory_max_bytes);
        let disk = Arc::new(DiskWatch::new(Disk::open(&DataDir::memory())?, points.clone(), Arc::clone(stats)));
        let (reached, reached_reader) = watch::channel(engine.applied());
        let (news, decided) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (log_handle, requests) = handle::channel();
        let handle = EngineHandle::new(Arc::clone(&feed), reached_reader.clone(), engine.config().clone());
        let (sharing, sharing_thread) = Sharing::start(place.clone(), owner, handle.clone(), config.redis.result_ttl)?;
        let stored = journal.position().frame;
        let committer = Committer {
            store: journal,
            live: Live::unheard(),
            points,
            sharing: sharing.clone(),
            backlog: Arc::clone(&backlog),
            stats: Arc::clone(stats),
            reached,
            judged_elsewhere: false,
            disk: Arc::clone(&disk),
            log: log_handle.hints(),
            counted: last,
            carried: Carried::default(),
            news: Arc::clone(&news),
            decided: Arc::clone(&decided),
            fatal: fatal.clone(),
        };
        let (commits, committer) = commit::start(committer)?;
        let (checkpoint, checkpoints) =
            Checkpoints::start(checkpoint::Place::Redis(Box::new(checkpoint)), formats.agreed(), commits.clone())?;
        let (open_incidents, open_incidents_reader) = watch::channel(engine.open_incidents());
        let stage = EngineStage {
            engine,
            reader,
            feed: Arc::clone(&feed),
            commits: commits.clone(),
            stored,
            memory: Arc::clone(&memory),
            stats: Arc::clone(stats),
            open_incidents,
            checkpoint,
            is_new,
            tell_open: Some((last, share)),
            wants_results: config.redis.results == Results::All,
            fatal: fatal.clone(),
        };
        let engine = engine_thread::start(stage)?;
        let writer = Writer {
            log,
            admission: Admission::shared(config.max_series, Arc::clone(&memory)),
            feed: None,
            backlog,
            disk,
            rejected: stats.rejected_here(),
            stats: Arc::clone(stats),
            fatal: fatal.clone(),
            housekeeping: Housekeeping::default(),
        };
        let writer = writer::start(writer, requests)?;
        let ticks = {
            let (engine, log) = (handle.clone(), log_handle.hints());
            async move {
                // Events that have waited for this processor come before the time of today.
                engine.reached(Position { frame: last, row: u32::MAX }).await;
                tick::tick(open_incidents_reader, log).await;
            }
        };
        let tasks = Tasks(vec![tokio::spawn(ticks), tokio::spawn(formats.clone().wake(handle.clone()))]);
        let threads = Threads { writer, engine, checkpoints, committer, sharing: sharing_thread };
        Ok(Self {
            engine: handle,
            feed,
            reached: reached_reader,
            memory,
            log: log_handle,
            commits,
            news,
            decided,
            sharing,
            last,
            was_empty: last == base_of(share.partition),
            threads,
            tasks,
            closing,
        })
    }

    /// Waits until all is judged that was there. Then shows all series, since the owner before may have judged what it told nobody of, and
    /// says which configuration is in force.
    ///
    /// # Errors
    /// The engine has ended, or the log takes no configuration.
    pub(super) fn catch_up(&self, config: &Arc<Config>) -> impl Future<Output = Result<(), AppendError>> + Send + 'static {
        let (engine, log, sharing, config) = (self.engine.clone(), self.log.clone(), self.sharing.clone(), Arc::clone(config));
        let Self { last, was_empty, .. } = *self;
        async move {
            engine.reached(Position { frame: last, row: u32::MAX }).await;
            let asked = engine.ask(|stage| (stage.engine.config().clone(), run::known_series(&stage.engine))).await;
            let (recorded, known) = asked.ok_or(AppendError::Closing)?;
            sharing.changed(known.into_iter());
            if recorded != config.engine || was_empty {
                let mut told = false;
                while let Err(fault) = log.configure(config.engine.to_text()).await {
                    if !fault.is_temporary() {
                        return Err(fault);
                    }
                    if !std::mem::replace(&mut told, true) {
                        warn!("the settings that are in force could not be recorded, it is tried again: {fault}");
                    }
                    tokio::time::sleep(RECORD_AGAIN).await;
                }
            }
            Ok(())
        }
    }

    /// Ends the tasks: what they would do now is the next owner's.
    pub(super) async fn end_tasks(&mut self) {
        std::mem::take(&mut self.tasks).end().await;
    }

    /// Ends the threads in the order of the path, and waits for them. What was read is judged and written, and a checkpoint too, where that
    /// is still ours to do. `end_source` ends who fills the feed, once the writer has written its last frame.
    pub(super) fn finish(self, is_ours: bool, end_source: impl FnOnce()) {
        let Self { log, commits, sharing, threads, closing, .. } = self;
        // Each thread ends when nobody can send it anything any more.
        drop((log, commits));
        let _ = threads.writer.join();
        end_source();
        drop(closing);
        sharing.end(is_ours);
        if let Ok(mut stage) = threads.engine.join()
            && is_ours
        {
            stage.checkpoint.write_now(&stage.engine);
        }
        let _ = threads.checkpoints.join();
        let _ = threads.committer.join();
        let _ = threads.sharing.join();
    }
}
