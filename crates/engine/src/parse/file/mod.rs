//! Files as people have them.
//!
//! A file goes through two stages: [`unpack`] makes it plain UTF-8, and [`FileReader`] finds out what it is (`scan.rs`,
//! `header.rs`) and reads its rows (`rows.rs`) into batches, as a table (`table.rs`, cells by `cells.rs`) or as JSON.
//! Times without an offset are settled by `clock.rs`, files that are sorted newest first are turned round by `order.rs`.

mod cells;
mod clock;
mod header;
mod name;
mod order;
mod read;
mod rows;
mod scan;
mod source;
mod table;
mod unpack;

use jiff::tz::TimeZone;

pub use name::series_name;
pub use read::{FileReader, More};
pub use unpack::{UnpackError, Unpacked, unpack};

use super::MAX_EVENT_BYTES;
use super::time::Arrival;
use crate::rejection::Rejected;

/// What reading a file depends on besides its bytes. The same bytes and options give the same events.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// The file's name as it was sent, with directories and endings; it names a series that has no other name.
    pub name: String,
    /// When it arrived.
    pub arrival: Arrival,
    /// The zone of times without an offset.
    pub zone: TimeZone,
    /// Nanoseconds from row to row, for rows without a time: each series begins in 1970 and goes on from its last row.
    pub interval: Option<i64>,
    /// Whether rows without a time are refused rather than given the time of arrival (an interval comes first).
    pub require_timestamps: bool,
    /// The most bytes of a row, [`MAX_EVENT_BYTES`] by default.
    pub max_event_bytes: usize,
}

impl FileOptions {
    /// The options of an uploaded file: UTC, the time of arrival where a row has none.
    pub fn new(name: &str, arrival: Arrival) -> Self {
        Self {
            name: name.to_owned(),
            arrival,
            zone: TimeZone::UTC,
            interval: None,
            require_timestamps: false,
            max_event_bytes: MAX_EVENT_BYTES,
        }
    }
}

/// How a file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table with a header.
    Csv,
    /// A JSON array or one event.
    Json,
    /// One JSON event a line.
    Ndjson,
    /// A table without a header.
    Txt,
}

impl Format {
    /// `csv`, `json`, `ndjson` or `txt`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Txt => "txt",
        }
    }
}

/// A file of which no row can be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be read from where it lies; trying again may help.
    #[error("the file could not be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is none of the forms that are understood: an error of the whole file, for its report.
    #[error("{}", .0.message)]
    Refused(Rejected),
}

impl From<Rejected> for FileError {
    fn from(rejected: Rejected) -> Self {
        Self::Refused(rejected)
    }
}

#[cfg(test)]
mod tests;
