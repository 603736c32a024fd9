//! What others hold of the log: handles that send requests to its writer, wherever that is.

use anomaly_engine::frame::Position;
use anomaly_engine::{SeriesHash, SeriesKey};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::sqlite::Side;
use super::{Append, AppendError, Appended, FileProgress, ForgetError, UploadRow};

/// Requests that may wait for the writer; then senders wait, and so do their clients.
const WAITING: usize = 1024;

/// Sends appends to the log's writer.
#[derive(Clone, Debug)]
pub struct LogHandle {
    pub(super) sender: mpsc::Sender<Request>,
}

impl LogHandle {
    /// Appends events; returns when they are durable.
    ///
    /// # Errors
    /// Nothing of it was taken: see [`AppendError`].
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.append_with(append, Vec::new()).await.map_err(|refusal| refusal.error)
    }

    /// Appends events together with notes that become durable in the same transaction.
    ///
    /// # Errors
    /// As [`LogHandle::append`], with the events, so that they can be offered again.
    pub async fn append_with(&self, append: Append, notes: Vec<Side>) -> Result<Appended, Refusal> {
        self.ask(|reply| Request::Append(Box::new(append), notes, reply)).await?
    }

    /// An upload as the log knows it, and how far its files are.
    ///
    /// # Errors
    /// As [`LogHandle::append`].
    pub async fn upload(&self, id: String) -> Result<Option<KnownUpload>, AppendError> {
        Ok(self.uploads(Lookup::Id(id)).await?.pop())
    }

    /// The upload that came with an `Idempotency-Key`.
    ///
    /// # Errors
    /// As [`LogHandle::append`].
    pub async fn upload_by_key(&self, key: String) -> Result<Option<KnownUpload>, AppendError> {
        Ok(self.uploads(Lookup::Key(key)).await?.pop())
    }

    /// The uploads that are not in the log whole.
    ///
    /// # Errors
    /// As [`LogHandle::append`].
    pub async fn unfinished_uploads(&self) -> Result<Vec<KnownUpload>, AppendError> {
        self.uploads(Lookup::Unfinished).await
    }

    async fn uploads(&self, lookup: Lookup) -> Result<Vec<KnownUpload>, AppendError> {
        self.ask(|reply| Request::Uploads(lookup, reply)).await?
    }

    /// Makes notes durable without events.
    ///
    /// # Errors
    /// As [`LogHandle::append`].
    pub async fn note(&self, notes: Vec<Side>) -> Result<(), AppendError> {
        self.ask(|reply| Request::Note(notes, reply)).await?
    }

    /// Appends that a series is to be forgotten; returns where.
    ///
    /// # Errors
    /// [`ForgetError::Unknown`] where no such series is known.
    pub async fn forget(&self, key: SeriesKey) -> Result<Position, ForgetError> {
        self.ask(|reply| Request::Forget(key, reply)).await?
    }

    /// Appends a configuration; returns where.
    ///
    /// # Errors
    /// As [`LogHandle::append`].
    pub async fn configure(&self, text: String) -> Result<Position, AppendError> {
        self.ask(|reply| Request::Configure(text, reply)).await?
    }

    /// Gives the writer hints; it does not keep the writer's thread alive.
    pub fn hints(&self) -> LogHints {
        LogHints { sender: self.sender.downgrade() }
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(request(reply)).await.map_err(|_| AppendError::Closing)?;
        answer.await.map_err(|_| AppendError::Closing)
    }
}

/// Tells the log's writer what other stages have found. Never waits; a hint that finds the writer busy is lost, or
/// left with who gave it. The writer ends although hints may still come.
#[derive(Clone, Debug)]
pub struct LogHints {
    sender: mpsc::WeakSender<Request>,
}

impl LogHints {
    /// These series have left memory, each after the frame beside it. Left where the writer is busy: tell it again, since
    /// nobody finds them idle again.
    pub fn idle(&self, series: &mut Vec<(u64, SeriesHash)>) {
        let Some(sender) = self.sender.upgrade() else { return };
        if let Err(TrySendError::Full(Request::Idle(left))) = sender.try_send(Request::Idle(std::mem::take(series))) {
            *series = left;
        }
    }

    /// These series were forgotten by whoever asked another process.
    pub fn forgotten(&self, series: Vec<SeriesHash>) {
        self.give(Request::Forgotten(series));
    }

    /// The counters are to be noted, though nothing may be appended for long.
    pub fn note_counts(&self) {
        self.give(Request::NoteCounts);
    }

    /// No recovery needs the frames before `frame` any more.
    pub fn truncate_before(&self, frame: u64) {
        self.give(Request::Truncate(frame));
    }

    /// Time has passed: the engine is to look which incidents are over. Without room on the disk it does so later.
    pub fn tick(&self) {
        self.give(Request::Tick);
    }

    /// Answers and uploads that are older than a day may go.
    pub fn prune(&self) {
        self.give(Request::Prune);
    }

    fn give(&self, hint: Request) {
        if let Some(sender) = self.sender.upgrade() {
            let _ = sender.try_send(hint);
        }
    }
}

/// An append that was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// Why.
    pub error: AppendError,
    /// The events, where offering them again later makes sense.
    pub append: Option<Box<Append>>,
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        Self { error, append: None }
    }
}

/// An upload, and how far each of its files is.
pub type KnownUpload = (UploadRow, Vec<FileProgress>);

/// Which uploads are asked for.
#[derive(Debug)]
pub(super) enum Lookup {
    Id(String),
    Key(String),
    Unfinished,
}

pub(super) type Reply<T> = oneshot::Sender<T>;

#[derive(Debug)]
pub(super) enum Request {
    Append(Box<Append>, Vec<Side>, Reply<Result<Appended, Refusal>>),
    Uploads(Lookup, Reply<Result<Vec<KnownUpload>, AppendError>>),
    Note(Vec<Side>, Reply<Result<(), AppendError>>),
    Forget(SeriesKey, Reply<Result<Position, ForgetError>>),
    Configure(String, Reply<Result<Position, AppendError>>),
    Idle(Vec<(u64, SeriesHash)>),
    Forgotten(Vec<SeriesHash>),
    NoteCounts,
    Truncate(u64),
    Prune,
    Tick,
}

/// The requests of all handles, for the writer that is to start.
#[derive(Debug)]
pub struct Requests(pub(super) mpsc::Receiver<Request>);

#[cfg(test)]
impl Requests {
    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.0.len()
    }
}

/// A handle to a writer that starts later: what is sent until then waits.
pub fn channel() -> (LogHandle, Requests) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (LogHandle { sender }, Requests(receiver))
}
