//! Events between the log's end and P: what waits for detection, and how much may wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::AppendError;
use crate::stats::Stats;

/// Counts what is durable and not yet judged and committed.
#[derive(Debug)]
pub struct Backlog {
    queued: AtomicU64,
    capacity: u64,
    /// Events of each frame that is not committed.
    frames: Mutex<VecDeque<(u64, u64)>>,
    /// Why nothing is taken, whatever waits.
    refusal: Mutex<Option<String>>,
    stats: Arc<Stats>,
}

impl Backlog {
    /// An empty backlog that may hold `capacity` events and tells `stats` how many it holds.
    pub fn new(capacity: u64, stats: Arc<Stats>) -> Self {
        Self { queued: AtomicU64::new(0), capacity, frames: Mutex::new(VecDeque::new()), refusal: Mutex::default(), stats }
    }

    /// Events that wait.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Acquire)
    }

    /// `QUEUE_CAPACITY`.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Whether another batch may be taken whole, with `grouped` events already on their way.
    ///
    /// # Errors
    /// [`AppendError::QueueFull`].
    pub fn check(&self, grouped: u64) -> Result<(), AppendError> {
        self.check_refusal()?;
        let queued = self.queued() + grouped;
        if queued < self.capacity { Ok(()) } else { Err(AppendError::QueueFull { queued, capacity: self.capacity }) }
    }

    /// A frame with so many events is durable.
    pub fn appended(&self, frame: u64, events: u64) {
        if events > 0 {
            // Held until the count is told, so that what is told last is how it stands.
            let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
            frames.push_back((frame, events));
            let queued = self.queued.fetch_add(events, Ordering::AcqRel) + events;
            self.stats.queue(queued);
        }
    }

    /// Whether anything may be taken at all.
    ///
    /// # Errors
    /// [`AppendError::Away`], with the reason.
    pub fn check_refusal(&self) -> Result<(), AppendError> {
        match &*self.refusal.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => Err(AppendError::Away(why.clone())),
            None => Ok(()),
        }
    }

    /// From now on nothing is taken, for this reason, or again what there is room for.
    pub fn refuse(&self, why: Option<String>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// So many wait, as the log says that other roles append to as well.
    pub fn set(&self, queued: u64) {
        self.queued.store(queued, Ordering::Release);
    }

    /// All frames up to `frame` are committed.
    pub fn committed(&self, frame: u64) {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while let Some(&(number, events)) = frames.front()
            && number <= frame
        {
            done += events;
            frames.pop_front();
        }
        if done > 0 {
            let queued = self.queued.fetch_sub(done, Ordering::AcqRel) - done;
            self.stats.queue(queued);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_taken_whole_while_the_queue_is_below_its_capacity() {
        let backlog = Backlog::new(10, Arc::new(Stats::new(10)));
        backlog.appended(1, 9);
        assert!(backlog.check(0).is_ok());
        backlog.appended(2, 50);
        assert_eq!(backlog.check(0), Err(AppendError::QueueFull { queued: 59, capacity: 10 }));
        backlog.committed(1);
        assert_eq!(backlog.queued(), 50);
        backlog.committed(2);
        assert!(backlog.queued() == 0 && backlog.check(9).is_ok() && backlog.check(10).is_err());
    }
}
