//! Each anomaly as it is committed, to every WebSocket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::broadcast;

use crate::store::{Extent, Stored};

/// How many committed anomalies a slow reader may fall behind before it is closed.
const BACKLOG: usize = 4096;

/// Hands committed anomalies to all who listen.
#[derive(Clone, Debug)]
pub struct Live {
    sender: broadcast::Sender<Arc<Stored>>,
    newest: Arc<AtomicU64>,
    store: Arc<str>,
}

/// A listener, as it joined.
#[derive(Debug)]
pub struct Joined {
    /// Gives every anomaly behind `newest`, and maybe some up to it. One that falls more than the backlog behind gets `Lagged`.
    pub receiver: broadcast::Receiver<Arc<Stored>>,
    /// The number of the last anomaly before.
    pub newest: u64,
    /// The identity of the store.
    pub store: Arc<str>,
}

impl Live {
    /// What comes behind what a store has.
    pub fn new(extent: Extent) -> Self {
        let Extent { newest, store, .. } = extent;
        Self { sender: broadcast::Sender::new(BACKLOG), newest: Arc::new(newest.into()), store: store.into() }
    }

    /// Where nobody can listen.
    pub fn unheard() -> Self {
        Self::new(Extent::default())
    }

    /// Everything committed from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Stored>> {
        self.sender.subscribe()
    }

    /// Listens from now on, and tells where that is, without asking the store.
    pub fn join(&self) -> Joined {
        // In this order, as in `publish`: a number that is not in `newest` yet is sent after we listen.
        let receiver = self.subscribe();
        Joined { receiver, newest: self.newest.load(Ordering::SeqCst), store: Arc::clone(&self.store) }
    }

    /// Tells what a commit has stored, in order. Never waits.
    pub fn publish(&self, stored: Vec<Stored>) {
        // Before they are sent: see `join`.
        if let Some(last) = stored.last() {
            self.newest.store(last.seq, Ordering::SeqCst);
        }
        for anomaly in stored {
            // No listener is no fault.
            let _ = self.sender.send(Arc::new(anomaly));
        }
    }
}
