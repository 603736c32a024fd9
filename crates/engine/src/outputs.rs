//! What applying frames brings forth.

use crate::anomaly::{Anomaly, Point};
use crate::frame::Position;
use crate::series_key::{SeriesHash, SeriesKey};
use crate::timestamp::Timestamp;

/// The outputs of the frames applied since it was last cleared, each list in the order of positions.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Events that fired.
    pub anomalies: Vec<Anomaly>,
    /// Every event but the duplicates, where the engine keeps points.
    pub points: Vec<Point>,
    /// Incidents that are over, within a position by incident. At the position of an anomaly it is the incident before that
    /// anomaly's.
    pub resolved: Vec<Resolved>,
    /// What became of batches; those of one source that follow each other are told together.
    pub batches: Vec<BatchOutcome>,
    /// Rows in all of them.
    pub rows: u64,
    /// Series that `DELETE /series` has forgotten.
    pub forgotten: Vec<(Position, SeriesKey)>,
    /// Series that have left memory because they were idle, each with the frame after which it did: their anomalies stay.
    pub idle: Vec<(u64, SeriesHash)>,
}

impl Outputs {
    /// Empties the lists and keeps their room.
    pub fn clear(&mut self) {
        self.anomalies.clear();
        self.points.clear();
        self.resolved.clear();
        self.batches.clear();
        self.rows = 0;
        self.forgotten.clear();
        self.idle.clear();
    }

    /// Takes what became of a batch; where it may, and is of the same source as the one before, together with that.
    pub(crate) fn add(&mut self, batch: BatchOutcome, origin: &str, of_a_file: bool) {
        self.rows += u64::from(batch.rows);
        match self.batches.last_mut().filter(|last| !of_a_file && last.origin == origin) {
            Some(last) => last.add(&batch),
            None => self.batches.push(BatchOutcome { origin: origin.to_owned(), ..batch }),
        }
    }
}

/// An incident that is over: its series was quiet for a window, or a later incident has begun. An anomaly within the window
/// of its last one may open it again, under the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The tick that found its series quiet, or the anomaly that began the later incident.
    pub position: Position,
    /// Its id.
    pub incident: u128,
    /// Its series.
    pub series: SeriesHash,
}

/// What became of the rows of one batch of a file, or of all batches of another source that no other's came between.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchOutcome {
    /// The first row.
    pub first: Position,
    /// Rows in all.
    pub rows: u32,
    /// The name of its origin.
    pub origin: String,
    /// Rows at or below the highest position taken from this source: skipped.
    pub redelivered: u32,
    /// Rows whose id came before.
    pub duplicates: u32,
    /// Rows too far behind to be judged.
    pub late: u32,
    /// Rows that fired.
    pub anomalies: u32,
    /// Ids forgotten for want of room.
    pub evicted_ids: u32,
    /// What became of each series of the batch; only for the rows of a file (`upload:…`, `file:…`).
    pub series: Vec<SeriesOutcome>,
}

impl BatchOutcome {
    fn add(&mut self, next: &Self) {
        let add = |sum: &mut u32, n: u32| *sum = sum.saturating_add(n);
        add(&mut self.rows, next.rows);
        add(&mut self.redelivered, next.redelivered);
        add(&mut self.duplicates, next.duplicates);
        add(&mut self.late, next.late);
        add(&mut self.anomalies, next.anomalies);
        add(&mut self.evicted_ids, next.evicted_ids);
    }
}

/// What became of the rows of one series in one batch of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesOutcome {
    /// Its name.
    pub name: String,
    /// Rows that counted (duplicates and redelivered ones do not).
    pub rows: u32,
    /// Of those, too late.
    pub late: u32,
    /// Of those, judged: the window held enough before them.
    pub judged: u32,
    /// The newest event of the series.
    pub newest: Timestamp,
    /// What to say where it comes too seldom for its window.
    pub sparse: Option<String>,
}

/// What the engine counted since the log began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events accepted: late ones and duplicates included.
    pub events: u64,
    /// Events too late to be judged.
    pub late: u64,
    /// Events whose id came before.
    pub duplicates: u64,
    /// Rows that a source delivered again.
    pub redelivered: u64,
    /// Ids forgotten for want of room.
    pub evicted_ids: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, batch: &BatchOutcome) {
        let add = |total: &mut u64, n: u32| *total = total.saturating_add(u64::from(n));
        add(&mut self.events, batch.rows - batch.redelivered);
        add(&mut self.late, batch.late);
        add(&mut self.duplicates, batch.duplicates);
        add(&mut self.redelivered, batch.redelivered);
        add(&mut self.evicted_ids, batch.evicted_ids);
    }

    pub(crate) fn numbers(&self) -> [u64; 5] {
        [self.events, self.late, self.duplicates, self.redelivered, self.evicted_ids]
    }

    pub(crate) fn from_numbers([events, late, duplicates, redelivered, evicted_ids]: [u64; 5]) -> Self {
        Self { events, late, duplicates, redelivered, evicted_ids }
    }
}
