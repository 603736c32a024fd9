//! What was read from Kafka.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counted since start; nothing of it is told before Kafka is read.
#[derive(Debug, Default)]
pub struct KafkaCounts {
    messages: AtomicU64,
    dead_letters: AtomicU64,
    lost_by_retention: AtomicU64,
    /// By partition; `None` until Kafka is read.
    lag: Mutex<Option<BTreeMap<i32, u64>>>,
}

impl KafkaCounts {
    /// `n` messages are done: their events are durable, or they are dead letters.
    pub fn consumed(&self, n: u64) {
        self.messages.fetch_add(n, Relaxed);
    }

    /// `n` messages were written to the topic of dead letters.
    pub fn dead_letters(&self, n: u64) {
        self.dead_letters.fetch_add(n, Relaxed);
    }

    /// `n` frames of the log were deleted before they were judged.
    pub fn lost_by_retention(&self, n: u64) {
        self.lost_by_retention.fetch_add(n, Relaxed);
    }

    /// How many of these.
    pub(super) fn lost(&self) -> u64 {
        self.lost_by_retention.load(Relaxed)
    }

    /// How many messages each partition of this process has that are not done.
    pub fn set_lag(&self, lag: BTreeMap<i32, u64>) {
        *self.lag() = Some(lag);
    }

    /// What was counted: messages, dead letters, lag by partition; `None` where Kafka is not read.
    pub(super) fn told(&self) -> Option<(u64, u64, BTreeMap<i32, u64>)> {
        let lag = self.lag().clone()?;
        Some((self.messages.load(Relaxed), self.dead_letters.load(Relaxed), lag))
    }

    fn lag(&self) -> MutexGuard<'_, Option<BTreeMap<i32, u64>>> {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
