//! The event log: what is acknowledged is here first, durable.
//!
//! [`sqlite::EventLog`] is the embedded log, [`writer`] the thread that owns it and groups appends into one fsync.

pub mod admission;
mod error;
mod mark;
mod reader;
mod side;
pub mod sqlite;
mod uploads;
mod wal_tail;
pub mod writer;

pub use uploads::{FileProgress, UploadRow, UploadState};

use anomaly_engine::frame::{Batch, Position};
use anomaly_engine::{Report, SeriesKey};

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
    /// The process is stopping. HTTP 503.
    #[error("the server is stopping")]
    Closing,
}

impl AppendError {
    /// Whether the same append may be taken a little later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::QueueFull { .. } | Self::MemoryFull { .. } | Self::DiskFull(_))
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
