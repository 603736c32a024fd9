//! Writing to the store beside the engine's commits: what people say, and what the notifier decides.
//!
//! The committer's thread has the only connection that writes, so it does this too, between two commits.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use tokio::sync::{Notify, oneshot};

use crate::commit::{Job, ToCommit};
use crate::store::StoreError;
use crate::store::sqlite::Store;

/// Hands jobs to the one who writes to the store. It keeps the committer alive.
#[derive(Clone, Debug)]
pub struct Desk {
    commits: SyncSender<ToCommit>,
    news: Arc<Notify>,
}

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    #[error("the server is stopping")]
    Closing,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Desk {
    /// A desk before the committer; `news` is told when people have changed something.
    pub fn new(commits: SyncSender<ToCommit>, news: Arc<Notify>) -> Self {
        Self { commits, news }
    }

    /// Has a job done; it is durable when this returns.
    ///
    /// # Errors
    /// The server stops, or the store failed: nothing was written.
    pub async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DeskError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::new(move |store| {
            let done = job(store);
            let fatal = match &done {
                Err(fault @ StoreError::Fatal(_)) => Some(fault.to_string()),
                _ => None,
            };
            // Whoever asked may have given up.
            let _ = reply.send(done);
            fatal
        });
        let commits = self.commits.clone();
        // The queue may be full, and waiting for it must not hold up those who serve sockets.
        let sent = tokio::task::spawn_blocking(move || commits.send(ToCommit::Do(job))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Err(DeskError::Closing);
        }
        Ok(answer.await.map_err(|_| DeskError::Closing)??)
    }

    /// As [`Desk::write`] for what people say; the notifier then looks at it.
    ///
    /// # Errors
    /// As [`Desk::write`].
    pub async fn say<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DeskError> {
        let done = self.write(job).await;
        self.news.notify_one();
        done
    }
}
