//! The store: anomalies, incidents, the outbox and P, in one transaction a commit.

#[cfg(test)]
mod alerting_tests;
mod entry;
mod filter;
pub mod handling;
pub mod incidents;
pub mod journal;
pub mod ledger;
pub mod notices;
mod only_open;
mod overview;
pub mod partition;
mod reader;
mod schema;
pub mod snapshot;
pub mod sqlite;
#[cfg(test)]
mod tests;
mod write;

use anomaly_engine::frame::Position;
use anomaly_engine::{SeriesHash, Timestamp};
use serde::{Deserialize, Serialize};

pub use write::{NewSilence, Outcome, Write};

use crate::share::Share;
use crate::sqlite::{Failure, OpenError, failure as sqlite_failure};

/// The outputs of all rows up to `upto` that no earlier commit held.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Commit {
    /// P after this commit.
    pub upto: Position,
    /// `detected_at` of its anomalies; retention counts from it.
    pub at: Timestamp,
    /// What happened, in the order of positions.
    pub changes: Vec<Change>,
}

impl Commit {
    /// Whether incidents stand otherwise after it.
    pub fn is_news(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Anomaly(_) | Change::Resolved(_) | Change::OnlyOpen { .. }))
    }
}

/// One change that a commit makes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A new anomaly; left as it is where its id is already stored.
    Anomaly(Box<AnomalyRow>),
    /// `DELETE /series`: anomalies and incidents of the series go.
    Forget(SeriesHash),
    /// Series that have left memory since they were idle: for who keeps account of those known. Nothing of them is deleted.
    Idle(Vec<SeriesHash>),
    /// The engine has resolved the incident with this id.
    Resolved(String),
    /// What an engine has open of its share once it has taken over: others of it are over, since no engine will resolve them. Its log had a
    /// gap, or another version judges a replay otherwise.
    OnlyOpen { share: Share, incidents: Vec<String> },
    /// Rows of an upload's file have been judged.
    Judged(UploadJudged),
}

/// An anomaly as it is stored: the columns that are asked for, and its JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnomalyRow {
    /// 32 hexadecimal digits.
    pub id: String,
    pub series: SeriesHash,
    /// The name as text.
    pub name: String,
    pub metric: String,
    /// The labels as a JSON object.
    pub labels: String,
    pub timestamp: Timestamp,
    /// When its event arrived.
    pub arrival: Timestamp,
    pub critical: bool,
    /// The detector's measure ÷ its threshold: the peak of an incident is its strongest.
    pub strength: f64,
    /// |z|, or the strength where the detector has no z-score: what the overview draws.
    pub height: f64,
    pub incident: String,
    /// The anomaly of DESIGN §6 as JSON, on one line.
    pub body: String,
}

/// Judged rows of one file of an upload, to be added to what earlier commits counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadJudged {
    pub upload: String,
    pub file: u32,
    /// Rows that have passed the engine (late and duplicate ones included).
    pub rows: u64,
    pub late: u64,
    pub anomalies: u64,
    /// What the engine has to say of its series (sparse, not judged), as things stand.
    pub warnings: Vec<String>,
}

/// A stored anomaly with its place in the order of detection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Number in the order of detection, from 1: the cursor.
    pub seq: u64,
    pub metric: String,
    pub body: String,
}

/// Which numbers of anomalies there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Of what was detected last, deleted or not; 0 before anything was.
    pub newest: u64,
    /// The least that retention has not deleted: a reader that stands more than one before it has a gap. What was forgotten by
    /// `DELETE /series` is no gap.
    pub oldest: u64,
    /// Made with the store: numbers of another one mean something else.
    pub store: String,
}

/// Which anomalies (and, met by any of them, which incidents).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// May hold `*`.
    pub metric: Option<String>,
    /// A series by its hash.
    pub series: Option<SeriesHash>,
    /// Event time, inclusive.
    pub from: Option<Timestamp>,
    /// Event time, inclusive.
    pub to: Option<Timestamp>,
    pub critical: Option<bool>,
    /// Of incidents only: those in one of these states; empty: in any.
    pub states: Vec<State>,
}

/// A page, newest first, and where the next begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// How an incident stands. Resolved comes before acknowledged, and that before silenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    /// Somebody has said that they look after it.
    Acknowledged,
    /// A silence holds for it.
    Silenced,
    /// It was quiet for a window, or somebody has closed it and nothing came since.
    Resolved,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Open, Self::Acknowledged, Self::Silenced, Self::Resolved];

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Silenced => "silenced",
            Self::Resolved => "resolved",
        }
    }
}

/// As the API writes it.
pub fn severity(critical: bool) -> &'static str {
    if critical { "critical" } else { "warning" }
}

/// An incident as it is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    pub id: String,
    pub name: String,
    pub metric: String,
    /// JSON object.
    pub labels: String,
    pub start: Timestamp,
    pub end: Timestamp,
    pub count: u64,
    pub critical: bool,
    /// The JSON of the strongest anomaly.
    pub peak: String,
    pub state: State,
    /// When the engine or somebody resolved it, where it is.
    pub resolved: Option<Timestamp>,
    /// Who acknowledged, closed or silenced it.
    pub by: Option<String>,
    /// What they said.
    pub comment: Option<String>,
    /// Whether somebody found it useful, or a false alarm.
    pub useful: Option<bool>,
}

/// A page of incidents, and what was true when it was read.
#[derive(Clone, Debug)]
pub struct IncidentPage {
    pub page: Page<Incident>,
    pub totals: Totals,
    /// The number of what was detected last: what comes behind it is not in here.
    pub as_of: u64,
}

/// What a filter holds in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub incidents: u64,
    pub anomalies: u64,
}

/// One cell of the overview.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    pub count: u64,
    /// Largest height in the bucket.
    pub height: f64,
    pub critical: bool,
}

/// One row of the overview.
#[derive(Clone, Debug, PartialEq)]
pub struct Lane {
    pub name: String,
    pub metric: String,
    /// JSON object.
    pub labels: String,
    pub cells: Vec<Option<Cell>>,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A cursor that is none of ours. HTTP 400.
    #[error("the cursor {0:?} is not one that this server gave")]
    BadCursor(String),
    /// What was written may not be on disk, or what is on disk is damaged: from a commit, the process must stop.
    #[error("the store cannot be relied on any more: {0}")]
    Fatal(rusqlite::Error),
    /// No room on disk; nothing was committed, and the store goes on once there is room.
    #[error("no room on disk for the store: {0}")]
    Full(rusqlite::Error),
    /// SQLite's own words.
    #[error("the store failed: {0}")]
    Sqlite(rusqlite::Error),
    /// The other processes cannot be reached; what was written may be in the journal all the same. HTTP 503.
    #[error("the store cannot be reached: {0}")]
    Away(String),
    /// Another process owns the engine now: nothing was written.
    #[error("another processor has taken over")]
    Deposed,
    /// What Redis holds is not what this store was made from: it was emptied or restored. It is begun anew from what is there.
    #[error("redis holds another store than the one that was followed here: it was emptied, or restored from a copy")]
    Replaced,
    /// The journal does not go back as far as this store stands.
    #[error("the journal begins with entry {}, and entry {wanted} is the next one here", first.map_or("none".to_owned(), |first| first.to_string()))]
    Behind { wanted: u64, first: Option<u64> },
    /// An entry of the journal cannot be read.
    #[error("entry {number} of the journal cannot be read: {reason}")]
    Unreadable { number: u64, reason: String },
    /// A file of a newer version.
    #[error("{file} has schema version {found}, this version of anomaly knows up to {known}: use a newer anomaly, or another DATA_DIR")]
    Newer { file: String, found: i64, known: i64 },
}

impl StoreError {
    /// Whether the same write fails in every equal store, and not because of this disk or this moment.
    pub fn is_everywhere(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        match error {
            rusqlite::Error::SqliteFailure(fault, _) => fault.code == rusqlite::ErrorCode::ConstraintViolation,
            rusqlite::Error::ToSqlConversionFailure(_) | rusqlite::Error::QueryReturnedNoRows => true,
            _ => false,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match sqlite_failure(&error) {
            Failure::Fatal => Self::Fatal(error),
            Failure::Full => Self::Full(error),
            Failure::Other => Self::Sqlite(error),
        }
    }
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Sqlite(error) => error.into(),
            OpenError::Newer { file, found, known } => Self::Newer { file, found, known },
        }
    }
}
