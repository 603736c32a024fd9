//! Checkpoints beside the work: the engine's thread cuts chunks between frames, a thread of its own writes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anomaly_engine::frame::base_of;
use anomaly_engine::{CheckpointCursor, CheckpointFormat, DecodeError, Engine};
use anyhow::Context as _;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::checkpoint_files::{CheckpointError, CheckpointWriter};
use crate::commit::ToCommit;
use crate::data_dir::DataDir;
use crate::log::handle::LogHints;
use crate::redis::chunks::{self, ChunkWriter, ChunksError, Kind, Manifest};
use crate::redis::{Fence, Link, RedisPlace};
use crate::store::snapshot::Snapshots;

/// Size of a chunk: what the engine's thread serialises between two batches of frames.
const CHUNK_BYTES: usize = 1 << 20;
/// A checkpoint is due when the log has grown by so many times the state's size since the last, and by this at least.
const LOG_TO_STATE: usize = 4;
const MIN_LOG_BYTES: usize = 32 << 20;
/// Where room is short one is written before it is due: when the log has grown by this and a part of the state, but not more
/// often than that,
const HURRY_LOG_BYTES: usize = 1 << 20;
const HURRY_PAUSE: Duration = Duration::from_secs(10);
/// and at least this often.
const HURRY_LONGEST: Duration = Duration::from_secs(300);
/// Before one is tried again that must be readable for others.
const OLDER_PAUSE: Duration = Duration::from_secs(2);
/// Where the log is deleted by time.
const OLD: Duration = Duration::from_secs(3600);

/// Decides when a checkpoint is due and cuts it into chunks. Owned by the engine's thread.
#[derive(Debug)]
pub struct Checkpoints {
    /// `None` where nothing is kept on disk.
    files: Option<SyncSender<ToFile>>,
    /// What is to be written: whoever may take over reads it.
    format: watch::Receiver<CheckpointFormat>,
    last: Arc<Last>,
    logged: usize,
    cursor: Option<CheckpointCursor>,
    /// A chunk for which the writing thread had no room yet.
    held: Option<ToFile>,
    /// When one was begun last.
    begun: Option<Instant>,
    hurried: bool,
}

/// What became of the last one.
#[derive(Debug)]
struct Last {
    /// The number of the format that it was written in; before there is one, of what it may have been.
    format: AtomicU8,
    /// It was not written, so that what was counted of the log for it counts still.
    failed: AtomicBool,
}

/// What the writing thread is sent.
#[derive(Debug)]
enum ToFile {
    Begin(CheckpointFormat),
    Chunk(Vec<u8>),
    /// All chunks are there: no recovery from it needs the log up to frame `lowest`.
    Finish {
        lowest: u64,
        /// Room is short: the store is copied too.
        hurried: bool,
        done: Option<SyncSender<()>>,
    },
    Abandon,
}

impl Checkpoints {
    /// No checkpoints: `DURABILITY=memory`.
    pub fn none() -> Self {
        Self::to(None, newest_format())
    }

    fn to(files: Option<SyncSender<ToFile>>, format: watch::Receiver<CheckpointFormat>) -> Self {
        let last = Arc::new(Last { format: AtomicU8::new(CheckpointFormat::NEWEST.number()), failed: AtomicBool::new(false) });
        Self { files, format, last, logged: 0, cursor: None, held: None, begun: None, hurried: false }
    }

    /// Checkpoints at a place. Returns the writing thread too, which ends when this is dropped.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        place: Place,
        format: watch::Receiver<CheckpointFormat>,
        commits: SyncSender<ToCommit>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(2);
        let checkpoints = Self::to(Some(sender), format);
        let files = Files { place, commits, writer: None, last: Arc::clone(&checkpoints.last) };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || files.run(&receiver))?;
        Ok((checkpoints, thread))
    }

    /// The log has grown.
    pub fn logged(&mut self, bytes: usize) {
        self.logged += bytes;
    }

    /// Room is short where log and checkpoints are: one is written now, if the log has grown by something worth it, or none was written
    /// for long.
    pub fn hurry(&mut self, state_bytes: usize) {
        let is_old = self.begun.is_none_or(|at| at.elapsed() >= HURRY_PAUSE);
        self.hurried |=
            is_old && (self.logged >= HURRY_LOG_BYTES.max(state_bytes / 4) || self.begun.is_none_or(|at| at.elapsed() >= HURRY_LONGEST));
    }

    /// Writes one where the last is older than an hour and the log has grown since, or it failed.
    pub fn in_time(&mut self) {
        let since = *self.begun.get_or_insert_with(Instant::now);
        self.hurried |= self.is_behind() && since.elapsed() >= OLD;
    }

    /// Whether the log holds what no checkpoint does.
    fn is_behind(&self) -> bool {
        self.logged > 0 || self.last.failed.load(Ordering::Relaxed)
    }

    /// Whether there may be one that somebody who may take over does not read.
    fn is_too_new(&self) -> bool {
        self.last.format.load(Ordering::Relaxed) > self.format.borrow().number()
    }

    /// Whether the next is due at once, since the last is too new; or again, since it failed.
    fn is_to_be_older(&self) -> bool {
        self.is_too_new() && self.begun.is_none_or(|at| at.elapsed() >= OLDER_PAUSE)
    }

    /// Whether a checkpoint is being written, so that the engine's thread must not sleep.
    pub fn is_writing(&self) -> bool {
        self.cursor.is_some() || self.held.is_some()
    }

    /// Cuts the next chunk, or begins a checkpoint where one is due; called between two batches of frames. It never waits
    /// for the disk while frames go on: a chunk that finds no room is offered again the next time.
    pub fn step(&mut self, engine: &Engine, idle: bool) {
        let Some(files) = self.files.clone() else { return };
        if let Some(held) = self.held.take() {
            if idle {
                drop(files.send(held));
            } else if let Err(TrySendError::Full(held)) = files.try_send(held) {
                self.held = Some(held);
            }
            return;
        }
        if self.cursor.is_none() {
            let is_due = self.hurried || self.is_to_be_older() || self.logged >= MIN_LOG_BYTES.max(LOG_TO_STATE * engine.state_bytes());
            if engine.recovering() > 0 || !is_due {
                return;
            }
            self.begin(engine);
            return;
        }
        self.held = self.cut(engine, None);
    }

    /// Writes a whole checkpoint now, where the log has grown since the last, or that failed or is too new: at the end, when no frame will
    /// come.
    pub fn write_now(&mut self, engine: &Engine) {
        let is_written = !self.is_behind() && !self.is_writing() && !self.is_too_new();
        if !is_written && engine.recovering() == 0 {
            self.write_whole(engine);
        }
    }

    /// Writes a whole one, and waits for it.
    pub fn write_whole(&mut self, engine: &Engine) {
        let Some(files) = self.files.clone() else { return };
        self.cursor = None;
        self.held = None;
        drop(files.send(ToFile::Abandon));
        self.begin(engine);
        if let Some(begin) = self.held.take() {
            drop(files.send(begin));
        }
        let (done, finished) = sync_channel(1);
        let mut done = Some(done);
        while self.cursor.is_some() {
            if let Some(message) = self.cut(engine, done.clone()) {
                drop(files.send(message));
            }
        }
        done.take();
        // An error means that the writing thread gave up, and has said why.
        let _ = finished.recv();
    }

    fn begin(&mut self, engine: &Engine) {
        let format = *self.format.borrow();
        self.cursor = Some(engine.begin_checkpoint(format));
        self.held = Some(ToFile::Begin(format));
        self.logged = 0;
        self.begun = Some(Instant::now());
    }

    fn cut(&mut self, engine: &Engine, done: Option<SyncSender<()>>) -> Option<ToFile> {
        let cursor = self.cursor.as_mut()?;
        let mut chunk = Vec::new();
        match engine.next_chunk(cursor, CHUNK_BYTES, &mut chunk) {
            Ok(Some(())) => Some(ToFile::Chunk(chunk)),
            Ok(None) => {
                let lowest = cursor.lowest();
                self.cursor = None;
                let hurried = std::mem::take(&mut self.hurried);
                Some(ToFile::Finish { lowest, hurried, done })
            }
            Err(_) => {
                self.cursor = None;
                Some(ToFile::Abandon)
            }
        }
    }
}

/// Where checkpoints are kept.
#[derive(Debug)]
pub enum Place {
    /// In a data directory; the log's writer is told what it needs no more.
    Dir(Arc<DataDir>, LogHints),
    /// On Redis. Where one owner has all, it keeps a copy of the store beside them, so that neither log nor journal grows without end.
    Redis(Box<OnRedis>),
}

/// What the owner writes to Redis with.
#[derive(Debug)]
pub struct OnRedis {
    pub link: Link,
    /// Where another is made when that one is lost: what is written is fenced.
    pub place: RedisPlace,
    pub fence: Fence,
    /// What is written.
    pub kind: Kind,
    /// Where the store is copied too.
    pub snapshots: Option<Snapshots>,
}

/// What the writing thread owns.
#[derive(Debug)]
struct Files {
    place: Place,
    commits: SyncSender<ToCommit>,
    writer: Option<Writer>,
    last: Arc<Last>,
}

/// A checkpoint that is being written.
#[derive(Debug)]
enum Writer {
    File(CheckpointWriter),
    Chunks(ChunkWriter),
}

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    File(#[from] CheckpointError),
    #[error(transparent)]
    Chunks(#[from] ChunksError),
}

/// Where nobody else takes over, the newest format is written.
pub fn newest_format() -> watch::Receiver<CheckpointFormat> {
    watch::channel(CheckpointFormat::NEWEST).1
}

/// The engine of the newest checkpoint on Redis, if there is one.
///
/// # Errors
/// Redis is away, or it cannot be read, [`NewerFormat`] among other reasons.
pub fn newest(link: &mut Link, kind: &Kind, shards: usize) -> anyhow::Result<Option<Engine>> {
    let Some(manifest) = readable(link, kind)? else { return Ok(None) };
    let chunks = chunks::chunks(link, manifest).map(|chunk| chunk.map_err(RestoreError::from));
    let engine = Engine::restore::<RestoreError>(chunks, shards);
    Ok(Some(engine.context("the checkpoint cannot be read")?))
}

/// The manifest of the newest checkpoint on Redis, where there is one, and this build reads its format.
///
/// # Errors
/// Redis is away, or it cannot be read, [`NewerFormat`] among other reasons.
pub fn readable(link: &mut Link, kind: &Kind) -> anyhow::Result<Option<Manifest>> {
    let manifest = chunks::newest(link, kind)?;
    let found = manifest.as_ref().map_or(0, |manifest| manifest.format);
    anyhow::ensure!(found <= CheckpointFormat::NEWEST.number(), NewerFormat { found });
    Ok(manifest)
}

/// A checkpoint that a newer version has written when nobody said that they do not read it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "its checkpoint has format {found}, and this version reads up to {}: a newer processor that is at work writes one that both read within \
     seconds; if none is, start one again, or run only newer ones",
    CheckpointFormat::NEWEST.number()
)]
pub struct NewerFormat {
    found: u8,
}

/// Why a checkpoint cannot be restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error(transparent)]
    Chunks(#[from] ChunksError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Files {
    fn run(mut self, receiver: &Receiver<ToFile>) {
        while let Ok(message) = receiver.recv() {
            if let Err(fault) = self.take(message) {
                warn!("a checkpoint could not be written; the log is kept, and the next one tries again: {fault}");
                self.writer = None;
                self.last.failed.store(true, Ordering::Relaxed);
            }
        }
    }

    fn take(&mut self, message: ToFile) -> Result<(), WriteError> {
        match message {
            ToFile::Begin(format) => {
                self.writer = Some(match &mut self.place {
                    Place::Dir(dir, _) => Writer::File(CheckpointWriter::begin(dir)?),
                    Place::Redis(redis) => {
                        if redis.link.is_dead() {
                            redis.link = redis.place.connect().map_err(ChunksError::from)?;
                        }
                        let writer = ChunkWriter::begin(&mut redis.link, redis.kind.clone(), &redis.fence)?;
                        Writer::Chunks(writer.in_format(format.number()))
                    }
                });
            }
            ToFile::Chunk(chunk) => match (&mut self.writer, &mut self.place) {
                (Some(Writer::File(writer)), _) => writer.chunk(&chunk)?,
                (Some(Writer::Chunks(writer)), Place::Redis(redis)) => writer.chunk(&mut redis.link, &chunk)?,
                _ => {}
            },
            ToFile::Abandon => self.writer = None,
            ToFile::Finish { lowest, hurried, done } => {
                let Some(writer) = self.writer.take() else { return Ok(()) };
                // P must have passed every chunk: what the chunks have seen is in the store, durable.
                let (reply, flushed) = sync_channel(1);
                if self.commits.send(ToCommit::Flush(reply)).is_err() || flushed.recv().is_err() {
                    return Ok(());
                }
                match (writer, &mut self.place) {
                    (Writer::File(writer), Place::Dir(_, log)) => {
                        let finished = writer.finish(&[], lowest + 1)?;
                        info!(frame = lowest, bytes = finished.bytes, "checkpoint written");
                        if let Some(frame) = finished.truncate_before {
                            log.truncate_before(frame);
                        }
                    }
                    (Writer::Chunks(writer), Place::Redis(redis)) => {
                        let format = writer.format();
                        // One that fails may be there all the same.
                        self.last.format.fetch_max(format, Ordering::Relaxed);
                        let bytes = writer.finish(&mut redis.link, lowest + 1)?;
                        self.last.format.store(format, Ordering::Relaxed);
                        match redis.kind {
                            Kind::CheckpointOf(partition) => {
                                info!(partition, offset = lowest - base_of(partition), bytes, "checkpoint of a partition written to redis");
                            }
                            _ => info!(frame = lowest, bytes, "checkpoint written to redis"),
                        }
                        let copied = redis.snapshots.as_mut().map(|of| of.write_if_due(&mut redis.link, &redis.fence, hurried));
                        if let Some(Err(fault)) = copied {
                            warn!(
                                "the store could not be copied to redis; the journal is kept, and the next checkpoint tries again: {fault}"
                            );
                        }
                    }
                    _ => {}
                }
                self.last.failed.store(false, Ordering::Relaxed);
                drop(done);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use anomaly_engine::EngineConfig;

    use super::*;
    use crate::log::handle;

    #[test]
    fn one_that_failed_is_written_at_the_end_although_nothing_came_since() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, folder) = (Arc::new(DataDir::open(temp.path()).unwrap()), temp.path().join("checkpoints"));
        let (commits, asked) = sync_channel(1);
        let committer = std::thread::spawn(move || {
            while let Ok(ToCommit::Flush(reply)) = asked.recv() {
                reply.send(()).unwrap();
            }
        });
        let (log, _requests) = handle::channel();
        let (mut checkpoints, files) = Checkpoints::start(Place::Dir(dir, log.hints()), newest_format(), commits).unwrap();
        let engine = Engine::new(EngineConfig::default(), 1);
        fs::write(&folder, "a file is in the way").unwrap();
        checkpoints.logged(1);
        checkpoints.write_now(&engine);
        fs::remove_file(&folder).unwrap();
        let written = || fs::read_dir(&folder).map_or(0, Iterator::count);
        for times in ["written", "not written again"] {
            checkpoints.write_now(&engine);
            assert_eq!(written(), 1, "{times}");
        }
        drop(checkpoints);
        files.join().unwrap();
        committer.join().unwrap();
    }
}
