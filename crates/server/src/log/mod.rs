//! The event log: what is acknowledged is here first, durable.
//!
//! [`sqlite::EventLog`] is the embedded log, [`stream::RedisLog`] the one on Redis, [`kafka::KafkaLog`] the one on Kafka, [`writer`] the
//! thread that owns one and groups appends, and [`handle`] what others send to it with.

pub mod admission;
mod error;
pub mod frames;
pub mod handle;
pub mod kafka;
mod mark;
mod reader;
mod side;
pub mod sqlite;
pub mod stream;
mod stream_beside;
pub mod stream_reader;
mod uploads;
mod wal_tail;
pub mod writer;

pub use uploads::{FileProgress, UploadRow, UploadState};

use std::sync::Arc;

use anomaly_engine::frame::{Batch, Position};
use anomaly_engine::{Report, SeriesHash, SeriesKey};

use frames::{Frames, Part, Parts, Place};
use handle::{KnownUpload, Lookup};
use kafka::{Delivered, KafkaLog};
use sqlite::{EventLog, LogError, LogReader, SealedFrame, Side};
use stream::{Entry, RedisLog};
use stream_reader::RedisReader;

use crate::engine_thread::EngineFeed;

/// A log, as its writer owns it.
#[derive(Debug)]
pub enum Log {
    Sqlite(Box<EventLog>),
    Redis(Box<RedisLog>),
    Kafka(Box<KafkaLog>),
}

/// What became of the frames of an append.
#[derive(Debug)]
struct Landed {
    /// The number of each, by its partition.
    numbers: Vec<(u32, u64)>,
    /// The one frame of a log that is one.
    frame: Option<SealedFrame>,
    /// Whether what goes with them is kept, where that is not one with the append.
    noted: Result<(), LogError>,
    /// The partitions of which it is not known whether they have their frames, and why; then nothing is noted either.
    failed: Option<(Vec<u32>, LogError)>,
}

impl Landed {
    /// The position of what stands at a place.
    fn position(&self, place: Place) -> Position {
        let number = self.numbers.iter().find(|(partition, _)| *partition == place.partition);
        Position { frame: number.map_or(0, |(_, number)| *number), row: place.row }
    }
}

impl Log {
    /// The number of the next frame; about that where others append too, and nothing where there are several.
    pub fn next_frame(&self) -> u64 {
        match self {
            Self::Sqlite(log) => log.next_frame(),
            Self::Redis(log) => log.next_frame(),
            Self::Kafka(_) => 0,
        }
    }

    /// Into which frames it divides what is appended.
    fn parts(&self) -> Parts {
        match self {
            Self::Sqlite(_) | Self::Redis(_) => Parts::One,
            Self::Kafka(log) => log.parts(),
        }
    }

    /// Appends frames with what goes with them; durable when it returns. A log that is one takes all or nothing.
    ///
    /// # Errors
    /// As each of them.
    fn append(&mut self, frames: Frames, sides: &[Side]) -> Result<Landed, LogError> {
        if let Self::Kafka(log) = self {
            let Delivered { numbers, failed } = log.append(frames)?;
            // An answer is not kept of what was not taken whole.
            let noted = if failed.is_some() { Ok(()) } else { log.write_beside(sides) };
            return Ok(Landed { numbers, frame: None, noted, failed });
        }
        let Part { frame, events, .. } = frames.into_one();
        let frame = match self {
            Self::Redis(log) => log.append(frame, events, sides)?,
            Self::Sqlite(log) => {
                let (rows, number) = (frame.rows(), log.next_frame());
                let frame = (rows > 0).then(|| SealedFrame { number, rows, bytes: frame.seal(number) });
                log.append(frame.as_slice(), sides)?;
                frame
            }
            Self::Kafka(_) => None,
        };
        Ok(Landed { numbers: frame.iter().map(|frame| (0, frame.number)).collect(), frame, noted: Ok(()), failed: None })
    }

    /// The fingerprint and the answer that are kept under an `Idempotency-Key`.
    ///
    /// # Errors
    /// As each of them.
    pub fn answer(&mut self, key: &str) -> Result<Option<(u64, Report)>, LogError> {
        match self {
            Self::Sqlite(log) => log.answer(key),
            Self::Redis(log) => log.answer(key),
            Self::Kafka(log) => log.beside.answer(key),
        }
    }

    /// The uploads that are asked for, with the progress of each file that has any.
    ///
    /// # Errors
    /// As each of them.
    fn uploads(&mut self, lookup: &Lookup) -> Result<Vec<KnownUpload>, LogError> {
        let one = |found: Option<KnownUpload>| found.into_iter().collect();
        let log = match (self, lookup) {
            (Self::Sqlite(log), Lookup::Id(id)) => return log.upload(id).map(one),
            (Self::Sqlite(log), Lookup::Key(key)) => return log.upload_by_key(key).map(one),
            (Self::Sqlite(log), Lookup::Unfinished) => return log.unfinished_uploads(),
            (Self::Redis(log), _) => log,
            (Self::Kafka(log), _) => &mut log.beside,
        };
        match lookup {
            Lookup::Id(id) => log.upload(id).map(one),
            Lookup::Key(key) => log.upload_by_key(key).map(one),
            Lookup::Unfinished => log.unfinished_uploads(),
        }
    }

    /// Lets series enter, as far as there is room for `max_series`, where several let them in. While nobody can be asked a log on Kafka
    /// takes them all: the owner counts them later.
    ///
    /// # Errors
    /// As for an append.
    fn register(&mut self, series: &[SeriesHash], max_series: u64) -> Result<Vec<Entry>, LogError> {
        match self {
            Self::Sqlite(_) => Ok(vec![Entry::New; series.len()]),
            Self::Redis(log) => log.register(series, max_series),
            Self::Kafka(log) => Ok(log.beside.register(series, max_series).unwrap_or_else(|_| vec![Entry::New; series.len()])),
        }
    }

    /// Whether a series is known to others: let in, or listed.
    ///
    /// # Errors
    /// As for an append.
    fn knows(&mut self, series: SeriesHash) -> Result<bool, LogError> {
        match self {
            Self::Sqlite(_) => Ok(false),
            Self::Redis(log) => log.knows(series),
            Self::Kafka(log) => log.beside.knows(series),
        }
    }

    /// Gives back the places of series that have not entered after all, where places are shared.
    fn unregister(&mut self, series: &[SeriesHash]) {
        match self {
            Self::Sqlite(_) => {}
            Self::Redis(log) => log.unregister(series),
            Self::Kafka(log) => log.beside.unregister(series),
        }
    }

    /// A counter that is kept across restarts.
    ///
    /// # Errors
    /// As each of them.
    pub fn counter(&mut self, name: &str) -> Result<u64, LogError> {
        match self {
            Self::Sqlite(log) => log.counter(name),
            Self::Redis(log) => log.counter(name),
            Self::Kafka(log) => log.beside.counter(name),
        }
    }
}

/// Reads frames beside the one who appends them.
#[derive(Debug)]
pub enum FrameReader {
    Sqlite(LogReader),
    Redis(Box<RedisReader>),
    /// All that there is comes by the feed; where that has a gap, the log has one.
    Feed(Arc<EngineFeed>),
}

impl FrameReader {
    /// Frames from number `from` on, in order, until they make `max_bytes`; at least one, where there is one.
    ///
    /// # Errors
    /// As each of them.
    pub fn read(&mut self, from: u64, max_bytes: usize) -> Result<Vec<(u64, Vec<u8>)>, LogError> {
        match self {
            Self::Sqlite(reader) => reader.read(from, max_bytes),
            Self::Redis(reader) => Ok(reader.read(from, max_bytes)?.into_iter().map(|frame| (frame.number, frame.bytes)).collect()),
            Self::Feed(_) => Ok(Vec::new()),
        }
    }

    /// Where a shared log goes on, if frame `from` was in it and is kept no more. The embedded log says what it has lost when it is opened.
    ///
    /// # Errors
    /// As each of them.
    pub fn next_kept(&mut self, from: u64) -> Result<Option<u64>, LogError> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Redis(reader) => reader.next_kept(from),
            Self::Feed(feed) => Ok(feed.first()),
        }
    }
}

/// Events that wait to become durable.
#[derive(Debug)]
pub struct Append {
    /// The rows that parsed.
    pub batch: Batch,
    /// What the parser says of the request; `accepted` equals the batch's rows.
    pub report: Report,
    /// All rows or none.
    pub atomic: bool,
    /// The key under which the answer is kept for a retry, if the client sent one.
    pub key: Option<AnswerKey>,
}

/// An `Idempotency-Key`, and a hash of the request that it was first used with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerKey {
    /// As the client sent it.
    pub key: String,
    /// Hash of route and body: another request under the same key is an error.
    pub fingerprint: u64,
}

/// What became of an [`Append`].
#[derive(Clone, Debug, PartialEq)]
pub enum Appended {
    /// Durable, from this position on; the report counts what the log's writer refused.
    Taken { position: Position, report: Report },
    /// The same request was taken before under its key: this was the answer.
    Repeated(Report),
}

/// Why an [`Append`] was not taken; nothing of it is in the log.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AppendError {
    /// No row is left, or `atomic` and not all are. HTTP 422 with the report.
    #[error("no row was accepted")]
    Refused(Report),
    /// The key was used with another request. HTTP 422.
    #[error("this Idempotency-Key was used with another request")]
    KeyReused,
    /// The queue between log and detection is full. HTTP 503.
    #[error("the queue is full: {queued} events wait for detection, QUEUE_CAPACITY is {capacity}")]
    QueueFull { queued: u64, capacity: u64 },
    /// Series state has reached `MEMORY_MAX_BYTES`. HTTP 503.
    #[error("series state takes {used} bytes, MEMORY_MAX_BYTES is {limit}")]
    MemoryFull { used: u64, limit: u64 },
    /// The disk is full, or `DISK_MAX_BYTES` reached. HTTP 507.
    #[error("no room on disk: {0}")]
    DiskFull(String),
    /// The log cannot be reached, or has not confirmed: it may have what was appended all the same. HTTP 503.
    #[error("the event log cannot be reached: {0}")]
    Away(String),
    /// The process is stopping. HTTP 503.
    #[error("the server is stopping")]
    Closing,
}

impl AppendError {
    /// Whether the same append may be taken a little later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::QueueFull { .. } | Self::MemoryFull { .. } | Self::DiskFull(_) | Self::Away(_))
    }
}

impl From<LogError> for AppendError {
    /// What a fault of the log that is no end is to who asked.
    fn from(error: LogError) -> Self {
        match error {
            LogError::QueueFull { queued, capacity } => Self::QueueFull { queued, capacity },
            LogError::Away(why) => Self::Away(why),
            error => Self::DiskFull(error.to_string()),
        }
    }
}

/// Why a series could not be forgotten.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ForgetError {
    /// No such series. HTTP 404.
    #[error("no series is named {}", .0.name())]
    Unknown(SeriesKey),
    /// As for an append.
    #[error(transparent)]
    Append(#[from] AppendError),
}
