//! What an append writes: frames, and what must be durable with them.

use anomaly_engine::{Report, Timestamp};
use rusqlite::{Connection, params};

use super::uploads::{self, FileProgress, UploadRow};

/// A frame that has its number and its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedFrame {
    /// Its number.
    pub number: u64,
    /// Rows in it.
    pub rows: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What is written in the transaction of frames.
#[derive(Clone, Debug, PartialEq)]
pub enum Side {
    /// The answer to an `Idempotency-Key`.
    Answer {
        /// As the client sent it.
        key: String,
        /// Hash of the request.
        fingerprint: u64,
        /// What was answered.
        report: Report,
        /// When.
        at: Timestamp,
    },
    /// A new upload; its key, where it has one, must be new too.
    Upload(UploadRow),
    /// An upload that is known, whose files lie here now.
    UploadAgain(UploadRow),
    /// A file of an upload has got on.
    Progress(FileProgress),
    /// An upload has come to its end.
    UploadEnded {
        /// It, as it is from now on.
        row: UploadRow,
    },
    /// What was taken from the list `raw_events` under this number is in the log now. Where it is there no more somebody else has appended
    /// it, and nothing is.
    Moved {
        /// Its number.
        taken: u64,
    },
    /// A counter that is kept across restarts rises.
    Count {
        /// Its name.
        name: &'static str,
        /// By how much.
        by: u64,
    },
}

/// Writes one, in the transaction of the connection.
pub(super) fn put(connection: &Connection, side: &Side) -> rusqlite::Result<()> {
    match side {
        Side::Answer { key, fingerprint, report, at } => {
            let sql = "INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3, ?4)";
            connection.prepare_cached(sql)?.execute(params![key, *fingerprint as i64, to_json(report)?, at.nanos()]).map(drop)
        }
        Side::Upload(row) | Side::UploadAgain(row) => uploads::put_upload(connection, row),
        Side::Progress(row) => uploads::put_progress(connection, row, &to_json(&row.report)?, &to_json(&row.refused)?),
        Side::UploadEnded { row } => uploads::put_upload(connection, row),
        // The list is on Redis, and so is the log that it is moved to.
        Side::Moved { .. } => Ok(()),
        Side::Count { name, by } => {
            let sql = "INSERT INTO counters VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value";
            connection.prepare_cached(sql)?.execute(params![name, *by as i64]).map(drop)
        }
    }
}

fn to_json(report: &Report) -> rusqlite::Result<String> {
    serde_json::to_string(report).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// A report as it is stored.
pub(super) fn from_json(text: &str) -> rusqlite::Result<Report> {
    serde_json::from_str(text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()))
}
