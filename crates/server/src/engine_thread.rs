//! The thread that owns the engine: applies durable frames in order, hands their outputs on, answers questions between.

use std::fmt;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anomaly_engine::frame::{Frame, Position};
use anomaly_engine::{
    DecodeError, Engine, EngineConfig, Outputs, ScanCursor, SeriesHash, SeriesInfo, SeriesKey, Timestamp, write_explained,
};
use tokio::sync::{oneshot, watch};

use crate::checkpoint::Checkpoints;
use crate::commit::{Judged, ToCommit};
use crate::directory::Directory;
use crate::fatal::Fatal;
use crate::feed::{Feed, SealedBytes, Work};
use crate::log::FrameReader;
use crate::log::admission::Memory;
use crate::points::Point;
use crate::redis::RedisError;
use crate::results::{EventResult, results_of};
use crate::share::Share;
use crate::stats::{Component, Stats};

/// How many bytes of the log are read at once while catching up.
const READ_BYTES: usize = 4 << 20;
/// Rows from which outputs are handed on: more at a time takes memory that is cold, and fills what waits for the committer.
const JUDGED_ROWS: usize = 2048;
/// How many series one question looks at before frames go on.
const SCAN_PLACES: u32 = 20_000;

/// What may be asked of the engine.
pub struct Question(Box<dyn FnOnce(&mut EngineStage) + Send>);

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

/// Frames and questions on their way to the engine.
pub type EngineFeed = Feed<Question>;

/// Asks the engine, here or by what its owner shows, and tells how far it has come. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    source: Source,
    /// The last frame whose outputs are committed.
    reached: watch::Receiver<u64>,
    config: Arc<Mutex<Arc<EngineConfig>>>,
}

/// Where an answer comes from.
#[derive(Clone, Debug)]
enum Source {
    Engine(Arc<EngineFeed>),
    /// The engine is in another process.
    Shown(Directory),
}

impl EngineHandle {
    /// A handle to the engine behind a feed.
    pub fn new(feed: Arc<EngineFeed>, reached: watch::Receiver<u64>, config: EngineConfig) -> Self {
        Self { source: Source::Engine(feed), reached, config: Arc::new(Mutex::new(Arc::new(config))) }
    }

    /// A handle to what the owner of the engine shows.
    pub fn elsewhere(directory: Directory, reached: watch::Receiver<u64>, config: EngineConfig) -> Self {
        Self { source: Source::Shown(directory), reached, config: Arc::new(Mutex::new(Arc::new(config))) }
    }

    /// Asks something between two batches; `None` when the engine has stopped, or is not here.
    pub async fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&mut EngineStage) -> T + Send + 'static) -> Option<T> {
        self.send(ask)?.await.ok()
    }

    /// As [`EngineHandle::ask`], for threads.
    pub fn ask_and_wait<T: Send + 'static>(&self, ask: impl FnOnce(&mut EngineStage) -> T + Send + 'static) -> Option<T> {
        self.send(ask)?.blocking_recv().ok()
    }

    fn send<T: Send + 'static>(&self, ask: impl FnOnce(&mut EngineStage) -> T + Send + 'static) -> Option<oneshot::Receiver<T>> {
        let Source::Engine(feed) = &self.source else { return None };
        let (reply, answer) = oneshot::channel();
        feed.ask(Question(Box::new(move |stage| drop(reply.send(ask(stage)))))).ok()?;
        Some(answer)
    }

    /// The series that hold all words of `query`, in any order, by name, from behind `after` on; and behind which name there are more.
    ///
    /// # Errors
    /// The engine is in another process, and Redis is away.
    pub async fn series(&self, query: &str, after: Option<String>, limit: usize) -> Result<(Vec<SeriesInfo>, Option<String>), RedisError> {
        let words: Arc<Vec<String>> = Arc::new(query.split_whitespace().map(str::to_lowercase).collect());
        if let Source::Shown(directory) = &self.source {
            let directory = directory.clone();
            return blocking(move || directory.series(&words, after.as_ref(), limit)).await;
        }
        let mut first = FirstByName { after, limit: limit + 1, found: Vec::new() };
        let mut cursor = Some(ScanCursor::default());
        while let Some(from) = cursor {
            let words = Arc::clone(&words);
            let step = self.ask(move |stage| {
                let next = stage.engine.scan(from, SCAN_PLACES, |key, info| first.look(key, &words, info));
                (next, first)
            });
            let Some((next, found)) = step.await else { return Ok((Vec::new(), None)) };
            (cursor, first) = (next, found);
        }
        let more = first.found.len() > limit;
        first.found.truncate(limit);
        let next = first.found.last().filter(|_| more).map(|last| last.name.clone());
        Ok((first.found, next))
    }

    /// What is known of a series.
    ///
    /// # Errors
    /// As [`EngineHandle::series`].
    pub async fn one(&self, series: SeriesHash) -> Result<Option<SeriesInfo>, RedisError> {
        if let Source::Shown(directory) = &self.source {
            let directory = directory.clone();
            return blocking(move || directory.one(series)).await;
        }
        Ok(self.ask(move |stage| stage.engine.series(series)).await.flatten())
    }

    /// Returns when all rows up to a position are judged and committed, or the engine has stopped.
    pub async fn reached(&self, position: Position) {
        if let Source::Shown(directory) = &self.source
            && directory.share_of(position).is_some()
        {
            let directory = directory.clone();
            return blocking(move || directory.wait_for(position)).await;
        }
        let mut reached = self.reached.clone();
        // An error means that the committer has stopped: nobody will reach anything any more.
        let _ = reached.wait_for(|frame| *frame >= position.frame).await;
    }

    /// Returns when others know as well that a series is no more, so that its place is free, and who asks again is told that there is
    /// none. Not for ever: it may come again.
    pub async fn gone(&self, series: SeriesHash) {
        if let Source::Shown(directory) = &self.source {
            let directory = directory.clone();
            blocking(move || directory.wait_until_gone(series)).await;
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<EngineConfig> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another configuration is in force.
    pub fn set_config(&self, config: EngineConfig) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// What can be said of a retained point, fired or not, as JSON.
    pub fn explain(&self, key: &SeriesKey, point: &Point) -> String {
        let settings = self.config().settings_of(key);
        let mut out = String::new();
        write_explained(&mut out, key, &settings, &point.to_engine(key.hash()));
        out
    }
}

/// Asks Redis outside the threads that serve sockets.
async fn blocking<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(ask).await {
        Ok(answer) => answer,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

/// The first `limit` series by name behind `after`, while places are looked at in any order.
struct FirstByName {
    after: Option<String>,
    limit: usize,
    found: Vec<SeriesInfo>,
}

impl FirstByName {
    fn look(&mut self, key: &SeriesKey, words: &[String], info: &dyn Fn() -> SeriesInfo) {
        let name = key.name();
        if self.after.as_ref().is_some_and(|after| name <= *after) {
            return;
        }
        let full = self.found.len() >= self.limit;
        if full && self.found.last().is_some_and(|last| name >= last.name) {
            return;
        }
        if !words.is_empty() {
            let lower = name.to_lowercase();
            if !words.iter().all(|word| lower.contains(word)) {
                return;
            }
        }
        let at = self.found.partition_point(|known| known.name < name);
        self.found.insert(at, info());
        self.found.truncate(self.limit);
    }
}

/// The engine and what it needs to run.
#[derive(Debug)]
pub struct EngineStage {
    /// The engine itself.
    pub engine: Engine,
    /// Reads what the feed does not hold.
    pub reader: FrameReader,
    /// Frames and questions.
    pub feed: Arc<EngineFeed>,
    /// Where outputs go.
    pub commits: SyncSender<ToCommit>,
    /// The frame up to which outputs are in the store: those of a replay are dropped.
    pub stored: u64,
    /// The account of state.
    pub memory: Arc<Memory>,
    /// Told of frames that are damaged.
    pub stats: Arc<Stats>,
    /// Incidents that are open, told where their number changes.
    pub open_incidents: watch::Sender<usize>,
    /// The checkpoint that is being written.
    pub checkpoint: Checkpoints,
    /// There is no checkpoint yet, and events may have come before any configuration was recorded: it is tried to write one first, so that
    /// whoever judges them again does it by this configuration.
    pub is_new: bool,
    /// The last frame that was there when it began, and what the engine is for: when that is replayed it is told, once, which incidents
    /// are open.
    pub tell_open: Option<(u64, Share)>,
    /// Whether the results of all events that have an id are wanted.
    pub wants_results: bool,
    /// Where the end of the process is called for.
    pub fatal: Fatal,
}

/// Starts the engine's thread. It ends when the feed is closed and worked off, and gives the stage back.
///
/// # Errors
/// The system gives no thread.
pub fn start(stage: EngineStage) -> std::io::Result<JoinHandle<EngineStage>> {
    std::thread::Builder::new().name("engine".into()).spawn(move || stage.run())
}

/// Asks for a checkpoint before it is due.
pub fn hurry(feed: &Arc<EngineFeed>) -> Arc<dyn Fn() + Send + Sync> {
    let feed = Arc::clone(feed);
    Arc::new(move || drop(feed.ask(Question(Box::new(|stage| stage.checkpoint.hurry(stage.engine.state_bytes()))))))
}

/// However the engine's thread ends, nobody waits for an answer of it.
struct Ended(Arc<EngineFeed>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What the frames since the last time brought forth.
#[derive(Debug, Default)]
struct Found {
    outputs: Outputs,
    arrivals: Vec<(u64, Timestamp)>,
    results: Vec<EventResult>,
}

impl EngineStage {
    fn run(mut self) -> Self {
        let _guard = self.fatal.guard("engine");
        let _ended = Ended(Arc::clone(&self.feed));
        if self.is_new {
            self.checkpoint.write_whole(&self.engine);
        }
        if self.is_to_tell()
            && let Err(fault) = self.hand_on(Found::default())
        {
            self.fatal.call(fault);
            return self;
        }
        loop {
            let busy = self.checkpoint.is_writing();
            let mut idle = false;
            let outcome = match self.feed.next(self.engine.applied(), !busy) {
                Work::Questions(questions) => {
                    questions.into_iter().for_each(|question| (question.0)(&mut self));
                    Ok(())
                }
                Work::Frames(frames) => self.apply(&frames),
                Work::ReadLog => self.read_log(),
                Work::Idle => {
                    idle = true;
                    Ok(())
                }
                Work::Closed => return self,
            };
            if let Err(fault) = outcome {
                self.fatal.call(fault);
                return self;
            }
            self.checkpoint.step(&self.engine, idle);
        }
    }

    fn read_log(&mut self) -> Result<(), String> {
        let from = self.engine.applied() + 1;
        let frames = self.reader.read(from, READ_BYTES).map_err(|fault| format!("the log cannot be read: {fault}"))?;
        if frames.first().is_none_or(|(number, _)| *number > from)
            && let Some(next) = self.reader.next_kept(from).map_err(|fault| format!("the log cannot be read: {fault}"))?
        {
            self.miss(from, next);
        }
        if frames.is_empty() && self.engine.applied() < from {
            return Err(format!("the log has no frame from {from} on, though it was told to"));
        }
        let frames: Vec<SealedBytes> = frames.into_iter().map(|(number, bytes)| (number, bytes.into())).collect();
        self.apply(&frames)
    }

    fn apply(&mut self, frames: &[SealedBytes]) -> Result<(), String> {
        let mut found = Found::default();
        for (number, bytes) in frames {
            let frame = match Frame::open(*number, bytes) {
                Ok(frame) => frame,
                Err(fault) if Frame::is_damaged(*number, bytes) => {
                    self.lose(*number, bytes.len(), &fault);
                    continue;
                }
                // Whole, but of a newer version: going on would give up what is not lost.
                Err(fault) => return Err(format!("frame {number} of the log: {fault}")),
            };
            let Found { outputs, arrivals, results } = &mut found;
            let (rows, points) = (outputs.rows, outputs.points.len());
            self.engine.apply(&frame, outputs).map_err(|fault| format!("frame {number} of the log: {fault}"))?;
            if outputs.rows > rows {
                arrivals.push((*number, frame.arrival));
            }
            if *number <= self.stored {
                outputs.clear();
                arrivals.clear();
            } else if self.wants_results {
                results.extend(results_of(&frame, &outputs.points[points..]));
            }
            self.checkpoint.logged(bytes.len());
            if outputs.rows >= JUDGED_ROWS as u64 || self.is_to_tell() {
                self.hand_on(std::mem::take(&mut found))?;
                found.outputs.points.reserve(JUDGED_ROWS + JUDGED_ROWS / 4);
            }
        }
        self.hand_on(found)
    }

    /// Whether it is time to tell which incidents are open.
    fn is_to_tell(&self) -> bool {
        self.tell_open.is_some_and(|(last, _)| self.engine.applied() >= last)
    }

    /// Hands on what frames brought forth, and tells how the engine stands behind them.
    fn hand_on(&mut self, found: Found) -> Result<(), String> {
        let Found { outputs, arrivals, results } = found;
        self.memory.set_used(self.engine.state_bytes() as u64);
        let open = self.engine.open_incidents();
        self.open_incidents.send_if_modified(|told| std::mem::replace(told, open) != open);
        let open = if self.is_to_tell() { self.tell_open.take() } else { None };
        let open = open.map(|(_, share)| (share, self.engine.open_incident_ids()));
        let judged = Judged {
            frame: self.engine.applied(),
            arrivals,
            outputs,
            open,
            results,
            n_series: self.engine.series_len(),
            totals: self.engine.totals(),
            state_bytes: self.memory.used(),
            memory_limit: self.memory.limit(),
        };
        self.commits.send(ToCommit::Judged(Box::new(judged))).map_err(|_| "the committer has stopped".to_owned())
    }

    /// Frames are gone from a shared log before they were judged, which is told, and what follows is judged.
    fn miss(&mut self, from: u64, next: u64) {
        let lost = format!("frames {from} to {} of the log are gone before they were judged, their events are lost", next - 1);
        tracing::error!("{lost}");
        self.stats.component("log", Component::Degraded(lost));
        self.engine.skip(next - 1);
    }

    /// A frame is damaged on disk: its rows are lost, which is told, and what follows is judged.
    fn lose(&mut self, number: u64, bytes: usize, fault: &DecodeError) {
        let lost = format!("frame {number} of the log ({bytes} bytes) is damaged, its events are lost: {fault}");
        tracing::error!("{lost}");
        self.stats.component("log", Component::Degraded(lost));
        self.engine.skip(number);
    }
}
