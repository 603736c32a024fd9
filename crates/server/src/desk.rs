//! Writing to the store beside the engine's commits: what people say, and what the notifier decides.
//!
//! The committer's thread alone writes to the store, so it does this too, between two commits.

use std::sync::mpsc::SyncSender;

use tokio::sync::oneshot;

use crate::commit::ToCommit;
use crate::store::{Outcome, StoreError, Write};

/// Hands writes to the one who writes to the store. It keeps the committer alive.
#[derive(Clone, Debug)]
pub struct Desk {
    commits: SyncSender<ToCommit>,
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    #[error("the server is stopping")]
    Closing,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Desk {
    /// A desk before the committer.
    pub fn new(commits: SyncSender<ToCommit>) -> Self {
        Self { commits }
    }

    /// Has something written; it is durable when this returns.
    ///
    /// # Errors
    /// The server stops, or the store failed: nothing was written.
    pub async fn write(&self, write: Write) -> Result<Outcome, DeskError> {
        let (reply, answer) = oneshot::channel();
        let commits = self.commits.clone();
        // The queue may be full, and waiting for it must not hold up those who serve sockets.
        let sent = tokio::task::spawn_blocking(move || commits.send(ToCommit::Write(Box::new(write), reply))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Err(DeskError::Closing);
        }
        Ok(answer.await.map_err(|_| DeskError::Closing)??)
    }
}
