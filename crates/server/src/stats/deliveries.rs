//! What became of notifications, by channel.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::notify::channel::Channel;

/// What became of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The other side took it.
    Sent,
    /// It did not, and will be asked again.
    Retried,
    /// It did not, and is not asked again.
    Failed,
}

impl Delivery {
    pub(super) const ALL: [(&'static str, Self); 3] = [("sent", Self::Sent), ("retried", Self::Retried), ("failed", Self::Failed)];
}

/// Attempts since start.
#[derive(Debug, Default)]
pub(super) struct Deliveries([[AtomicU64; Delivery::ALL.len()]; Channel::ALL.len()]);

impl Deliveries {
    pub(super) fn count(&self, channel: Channel, delivery: Delivery) {
        self.0[channel as usize][delivery as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn of(&self, channel: Channel, delivery: Delivery) -> u64 {
        self.0[channel as usize][delivery as usize].load(Relaxed)
    }
}
