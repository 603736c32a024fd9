//! A partition that is ours: what waits, what is under way, how far it is done.

use std::time::Instant;

use tokio::sync::watch;
use tracing::warn;

use super::messages::{Message, Messages};

/// The most messages that are appended at once, and the most bytes of them where partitions are few.
const MOST_MESSAGES: usize = 10_000;
pub(super) const MOST_BYTES: usize = 4 << 20;

/// One partition.
#[derive(Debug)]
pub(super) struct Lane {
    /// Tells this assignment from an earlier one of the same partition.
    pub(super) generation: u64,
    pending: Messages,
    /// Whether messages of it are being appended: one run at a time, so that their order is kept.
    pub(super) is_busy: bool,
    /// Whether it is to be another's: what comes is left to that one.
    pub(super) is_leaving: bool,
    /// Whether Kafka was told to send no more for now.
    pub(super) is_paused: bool,
    /// Since when it has been full without being taken from.
    pub(super) full_since: Option<Instant>,
    /// The offset of the last message that came.
    last: Option<i64>,
    /// The offset behind the last message that is durable.
    pub(super) done: Option<i64>,
    /// The offset that the group was last told.
    pub(super) committed: Option<i64>,
    /// Tells what is under way to end as soon as it can.
    pub(super) stop: watch::Sender<bool>,
}

impl Lane {
    pub(super) fn new(generation: u64) -> Self {
        Self {
            generation,
            pending: Messages::default(),
            is_busy: false,
            is_leaving: false,
            is_paused: false,
            full_since: None,
            last: None,
            done: None,
            committed: None,
            stop: watch::Sender::new(false),
        }
    }

    pub(super) fn push(&mut self, source: &str, message: Message<'_>) {
        if self.is_leaving {
            return;
        }
        if let Some(last) = self.last.filter(|last| message.offset <= *last) {
            warn!(
                "{source} has gone back from offset {last} to {}: where the topic was made anew, its events up to offset {last} are \
                 taken for events that came before; use another topic name, or another DATA_DIR",
                message.offset
            );
        }
        self.last = Some(message.offset);
        self.pending.push(message);
    }

    /// Whether it should get no more; `most_bytes` is its share.
    pub(super) fn is_full(&self, most_bytes: usize) -> bool {
        self.pending.len() >= MOST_MESSAGES || self.pending.byte_len() >= most_bytes
    }

    /// What is to be appended now, unless something is.
    pub(super) fn next(&mut self) -> Option<Messages> {
        if self.is_busy || self.is_leaving || self.pending.is_empty() {
            return None;
        }
        self.is_busy = true;
        self.full_since = None;
        Some(std::mem::take(&mut self.pending))
    }

    /// What was under way has ended; everything before `done` is durable.
    pub(super) fn finished(&mut self, done: Option<i64>) {
        self.is_busy = false;
        self.done = done.or(self.done);
    }

    /// Gives up what has not begun, and tells what has to end.
    pub(super) fn leave(&mut self) {
        self.is_leaving = true;
        self.pending = Messages::default();
        self.stop.send_replace(true);
    }

    /// The offset that the group should be told.
    pub(super) fn to_commit(&self) -> Option<i64> {
        self.done.filter(|done| self.committed != Some(*done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(offset: i64) -> Message<'static> {
        Message { offset, key: None, value: Some(b"12345") }
    }

    #[test]
    fn one_run_at_a_time_and_only_what_is_done_is_committed() {
        let mut lane = Lane::new(1);
        (5..8).for_each(|offset| lane.push("kafka:t/0", message(offset)));
        assert!(lane.is_full(15) && !lane.is_full(16));
        assert_eq!(lane.next().map(|messages| messages.len()), Some(3));
        lane.push("kafka:t/0", message(8));
        assert!(lane.next().is_none() && lane.to_commit().is_none());
        lane.finished(Some(8));
        assert_eq!(lane.to_commit(), Some(8));
        lane.committed = lane.done;
        assert_eq!((lane.to_commit(), lane.next().map(|messages| messages.len())), (None, Some(1)));
        lane.finished(None);
        assert_eq!((lane.done, lane.to_commit()), (Some(8), None), "nothing of it was done");
    }

    #[test]
    fn what_leaves_takes_nothing_more() {
        let mut lane = Lane::new(1);
        lane.push("kafka:t/0", message(1));
        lane.leave();
        lane.push("kafka:t/0", message(2));
        assert!(lane.next().is_none() && *lane.stop.borrow());
    }
}
