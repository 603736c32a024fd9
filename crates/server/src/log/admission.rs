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
    limit: AtomicU64,
}

impl Memory {
    /// An account with a limit in bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit: limit.into() })
    }

    /// Notes what state takes now.
    pub fn set_used(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    /// It may take so much from now on.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Takes over what the owner of the engine has noted.
    pub fn share(&self, bytes: u64, limit: u64) {
        self.set_used(bytes);
        if limit > 0 {
            self.set_limit(limit);
        }
    }

    /// Bytes of state.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// `MEMORY_MAX_BYTES`.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether nothing more may be taken.
    pub fn is_full(&self) -> bool {
        self.used() >= self.limit()
    }

    fn refuses_new_series(&self) -> bool {
        self.used() as f64 >= self.limit() as f64 * NEW_SERIES_SHARE
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
    /// Which series are known is decided together with other roles: what was not registered may not enter.
    shared: bool,
}

impl Admission {
    /// Admission on top of the series that a recovery has found after frame `upto`.
    pub fn new(known: impl IntoIterator<Item = SeriesHash>, upto: u64, max_series: u64, memory: Arc<Memory>) -> Self {
        Self { known: known.into_iter().map(|hash| (hash, upto)).collect(), max_series, memory, fresh: Vec::new(), shared: false }
    }

    /// Admission to a log that other roles append to: [`Admission::registered`] says who may enter.
    pub fn shared(max_series: u64, memory: Arc<Memory>) -> Self {
        Self { shared: true, ..Self::new([], 0, max_series, memory) }
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

    /// What was admitted since `n_fresh` told `mark` will not be in the log after all: its request was refused. Returns these series.
    pub fn withdraw(&mut self, mark: usize) -> Vec<SeriesHash> {
        let withdrawn: Vec<_> = self.fresh.drain(mark..).collect();
        for hash in &withdrawn {
            self.known.remove(hash);
        }
        withdrawn
    }

    /// How many series are admitted and not settled.
    pub fn n_fresh(&self) -> usize {
        self.fresh.len()
    }

    /// What was admitted is in the log now (`durable`), or never will be; returns how many series are new, and which are not known
    /// after all.
    pub fn settle(&mut self, durable: bool) -> (u64, Vec<SeriesHash>) {
        let fresh = std::mem::take(&mut self.fresh);
        if durable {
            return (fresh.len() as u64, Vec::new());
        }
        for hash in &fresh {
            self.known.remove(hash);
        }
        (0, fresh)
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

    /// As many new series as all roles together may still let in; the series that are known count there and not here.
    pub fn room_for_new(&self) -> u64 {
        if self.memory.refuses_new_series() { 0 } else { self.max_series }
    }

    /// A series may enter the log that all roles share; `is_new` where nobody has brought it before.
    pub fn registered(&mut self, hash: SeriesHash, is_new: bool) {
        self.known.insert(hash, 0);
        if is_new {
            self.fresh.push(hash);
        }
    }

    fn refusal(&self) -> Option<(Code, String)> {
        if self.shared && !self.memory.refuses_new_series() || self.known.len() as u64 >= self.max_series {
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
        assert_eq!(admission.settle(true), (1, Vec::new()));
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
