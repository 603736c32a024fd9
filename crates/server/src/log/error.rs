//! What can go wrong with the embedded log.

use std::io;
use std::path::PathBuf;

use crate::redis::RedisError;
use crate::sqlite::{Failure, OpenError, failure};

/// Why the log did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// What was written may not be on disk, or what is on disk is damaged: the process must stop, nothing is retried.
    #[error("the event log cannot be relied on any more: {0}")]
    Fatal(rusqlite::Error),
    /// No room on disk; nothing was appended, and the log goes on once there is room.
    #[error("no room on disk for the event log: {0}")]
    Full(rusqlite::Error),
    /// SQLite's own words.
    #[error("the event log failed: {0}")]
    Sqlite(rusqlite::Error),
    /// A file beside the database cannot be used.
    #[error("{} cannot be used: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of a newer version.
    #[error("{file} has schema version {found}, this version of anomaly knows up to {known}: use a newer anomaly, or another DATA_DIR")]
    Newer {
        /// The file.
        file: String,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The other side cannot be reached, or did not confirm; what was appended may be in the log all the same.
    #[error("{0}")]
    Away(String),
    /// So many events wait for detection that no more are taken; nothing was appended.
    #[error("the queue is full: {queued} events wait for detection, QUEUE_CAPACITY is {capacity}")]
    QueueFull {
        /// Events that wait.
        queued: u64,
        /// The most.
        capacity: u64,
    },
    /// Frames out of order: a fault of ours.
    #[error("frame {found} cannot be appended where {expected} is next")]
    Order {
        /// Its number.
        found: u64,
        /// The next one.
        expected: u64,
    },
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        match failure(&error) {
            Failure::Fatal => Self::Fatal(error),
            Failure::Full => Self::Full(error),
            Failure::Other => Self::Sqlite(error),
        }
    }
}

impl From<RedisError> for LogError {
    fn from(error: RedisError) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<OpenError> for LogError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Sqlite(error) => error.into(),
            OpenError::Newer { file, found, known } => Self::Newer { file, found, known },
        }
    }
}
