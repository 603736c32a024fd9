//! Each anomaly as it is committed, to every WebSocket.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::store::Stored;

/// How many committed anomalies a slow reader may fall behind before it is closed.
const BACKLOG: usize = 4096;

/// Hands committed anomalies to all who listen.
#[derive(Clone, Debug)]
pub struct Live {
    sender: broadcast::Sender<Arc<Stored>>,
}

impl Default for Live {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG) }
    }
}

impl Live {
    /// Everything committed from now on. A reader that falls more than the backlog behind gets `Lagged`: close it.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Stored>> {
        self.sender.subscribe()
    }

    /// Tells what a commit has stored, in order. Never waits.
    pub fn publish(&self, stored: Vec<Stored>) {
        for anomaly in stored {
            // No listener is no fault.
            let _ = self.sender.send(Arc::new(anomaly));
        }
    }
}
