//! Which series may enter the log: decided here, before the acknowledgement, so that a replay never has to refuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anomaly_engine::frame::Batch;
use anomaly_engine::{Code, Rejected, SeriesHash};
use hashbrown::HashMap;

/// The share of `MEMORY_MAX_BYTES` from which new series are refused.
const NEW_SERIES_SHARE: f64 = 0.8;

/// What all series take, written by the engine, read by the log's writer.
#[derive(Debug)]
pub struct Memory {
    used: AtomicU64,
    limit: u64,
}

impl Memory {
    /// An account with a limit in bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit })
    }

    /// Notes what state takes now.
    pub fn set_used(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of state.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// `MEMORY_MAX_BYTES`.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether nothing more may be taken.
    pub fn is_full(&self) -> bool {
        self.used() >= self.limit
    }

    fn refuses_new_series(&self) -> bool {
        self.used() as f64 >= self.limit as f64 * NEW_SERIES_SHARE
    }
}

/// The series that are known to the log.
#[derive(Debug)]
pub struct Admission {
    /// With the last frame that named each.
    known: HashMap<SeriesHash, u64>,
    max_series: u64,
    memory: Arc<Memory>,
    /// Admitted since the last [`Admission::settle`].
    fresh: Vec<SeriesHash>,
}

impl Admission {
    /// Admission on top of the series that a recovery has found after frame `upto`.
    pub fn new(known: impl IntoIterator<Item = SeriesHash>, upto: u64, max_series: u64, memory: Arc<Memory>) -> Self {
        Self { known: known.into_iter().map(|hash| (hash, upto)).collect(), max_series, memory, fresh: Vec::new() }
    }

    /// Admits the series of a batch to `frame`; takes out the rows of those that may not enter, and returns why.
    pub fn admit(&mut self, batch: &mut Batch, frame: u64) -> Vec<Rejected> {
        let mut refused = HashMap::new();
        for hash in (0..batch.n_series()).map(|i| batch.hash(i)) {
            if let Some(last) = self.known.get_mut(&hash) {
                *last = frame;
                continue;
            }
            if let Some((code, message)) = self.refusal() {
                refused.insert(hash, Rejected { line: 0, field: "metric".into(), code, message });
            } else {
                self.known.insert(hash, frame);
                self.fresh.push(hash);
            }
        }
        if refused.is_empty() { Vec::new() } else { batch.refuse(|hash| refused.get(&hash).cloned()) }
    }

    /// What was admitted since `n_fresh` told `mark` will not be in the log after all: its request was refused.
    pub fn withdraw(&mut self, mark: usize) {
        for hash in self.fresh.drain(mark..) {
            self.known.remove(&hash);
        }
    }

    /// How many series are admitted and not settled.
    pub fn n_fresh(&self) -> usize {
        self.fresh.len()
    }

    /// What was admitted is in the log now (`durable`), or never will be; returns how many series are new.
    pub fn settle(&mut self, durable: bool) -> u64 {
        let admitted = self.fresh.len() as u64;
        for hash in self.fresh.drain(..) {
            if !durable {
                self.known.remove(&hash);
            }
        }
        if durable { admitted } else { 0 }
    }

    /// Whether a series is known.
    pub fn knows(&self, hash: SeriesHash) -> bool {
        self.known.contains_key(&hash)
    }

    /// A series was forgotten.
    pub fn forget(&mut self, hash: SeriesHash) {
        self.known.remove(&hash);
    }

    /// A series has left memory after `frame`; one that a later frame names is known again.
    pub fn idle(&mut self, hash: SeriesHash, frame: u64) {
        if self.known.get(&hash).is_some_and(|last| *last <= frame) {
            self.known.remove(&hash);
        }
    }

    /// A series that was to be forgotten stays: its record did not become durable.
    pub fn known_after_all(&mut self, hash: SeriesHash) {
        self.known.entry(hash).or_default();
    }

    /// The account of memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    fn refusal(&self) -> Option<(Code, String)> {
        if self.known.len() as u64 >= self.max_series {
            let message = format!("a new series, but MAX_SERIES ({}) are known: raise it, or delete series", self.max_series);
            return Some((Code::SeriesLimit, message));
        }
        self.memory.refuses_new_series().then(|| {
            let (used, limit) = (self.memory.used(), self.memory.limit());
            let message = format!("a new series, but state takes {used} of MEMORY_MAX_BYTES ({limit}): raise it, or delete series");
            (Code::MemoryLimit, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use anomaly_engine::frame::{BatchBuilder, Origin};
    use anomaly_engine::{Event, SeriesKey, Timestamp};

    use super::*;

    fn batch(metrics: &[&str]) -> Batch {
        let mut batch = BatchBuilder::new();
        for (metric, line) in metrics.iter().zip(1..) {
            let event = Event { metric, labels: &[], timestamp: Timestamp::default(), value: 1.0, id: None, meta: None };
            batch.push(&event, line);
        }
        batch.finish(Origin::http())
    }

    #[test]
    fn new_series_beyond_the_limit_are_row_errors_and_known_ones_go_on() {
        let mut admission = Admission::new([], 0, 2, Memory::new(1000));
        assert_eq!(admission.admit(&mut batch(&["a", "b"]), 1), []);
        admission.settle(true);
        let mut third = batch(&["a", "c", "b", "c"]);
        let refused = admission.admit(&mut third, 1);
        assert_eq!(refused.iter().map(|r| (r.line, r.code)).collect::<Vec<_>>(), [(2, Code::SeriesLimit), (4, Code::SeriesLimit)]);
        assert_eq!(third.len(), 2);
        admission.forget(SeriesKey::new("a", &[]).hash());
        assert_eq!(admission.admit(&mut batch(&["c"]), 1), []);
    }

    #[test]
    fn what_did_not_become_durable_is_not_known() {
        let mut admission = Admission::new([], 0, 1, Memory::new(1000));
        admission.admit(&mut batch(&["a"]), 1);
        admission.settle(false);
        assert!(!admission.knows(SeriesKey::new("a", &[]).hash()));
        assert_eq!(admission.admit(&mut batch(&["b"]), 1), []);
    }

    #[test]
    fn a_series_that_came_again_behind_its_idleness_stays_known() {
        let a = SeriesKey::new("a", &[]).hash();
        let mut admission = Admission::new([], 0, 10, Memory::new(1000));
        admission.admit(&mut batch(&["a"]), 5);
        admission.settle(true);
        admission.admit(&mut batch(&["a"]), 9);
        admission.idle(a, 8);
        assert!(admission.knows(a), "found idle after frame 8, named by frame 9");
        admission.idle(a, 9);
        assert!(!admission.knows(a));
    }

    #[test]
    fn what_a_refused_request_brought_takes_no_place() {
        let mut admission = Admission::new([], 0, 2, Memory::new(1000));
        admission.admit(&mut batch(&["a"]), 1);
        let mark = admission.n_fresh();
        assert_eq!(admission.admit(&mut batch(&["a", "b", "c"]), 1).len(), 1);
        admission.withdraw(mark);
        assert_eq!(admission.settle(true), 1);
        assert!(admission.knows(SeriesKey::new("a", &[]).hash()) && !admission.knows(SeriesKey::new("b", &[]).hash()));
    }

    #[test]
    fn memory_at_80_percent_refuses_new_series_only() {
        let memory = Memory::new(1000);
        let mut admission = Admission::new([SeriesKey::new("a", &[]).hash()], 0, 10, Arc::clone(&memory));
        memory.set_used(800);
        let refused = admission.admit(&mut batch(&["a", "b"]), 1);
        assert_eq!(refused.iter().map(|r| r.code).collect::<Vec<_>>(), [Code::MemoryLimit]);
        assert!(!memory.is_full());
    }
}
