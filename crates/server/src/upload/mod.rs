//! Uploaded files: spooled to disk, noted in the log when they have arrived whole, then taken row by row.
//!
//! A crash before the note leaves nothing; one after it resumes each file at the sample behind its last durable row.

mod ingest;
mod spool;
pub mod tally;
mod view;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use tempfile::TempDir;
use tokio::sync::{OwnedMutexGuard, Semaphore, watch};
use tracing::{info, warn};

pub use spool::{FileWriter, Spool};
pub use view::UploadView;

use crate::clock;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::log::AppendError;
use crate::log::handle::LogHandle;
use crate::log::sqlite::Side;
use crate::log::{UploadRow, UploadState};
use crate::stats::Stats;
use crate::store::sqlite::StoreReader;
use ingest::{Ingest, SpooledFile};

/// Files that are taken at the same time.
const AT_ONCE: usize = 2;
/// How long an answer waits for the verdicts on the last rows, so that most answers have their numbers at once.
const WAIT_FOR_VERDICTS: Duration = Duration::from_secs(1);

/// How long an upload waits when the log has no room for it.
const PAUSE_WITHOUT_ROOM: Duration = Duration::from_secs(2);

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// A file is beyond its limit. HTTP 413.
    #[error("the file {file:?} is larger than {limit} bytes")]
    TooLarge { file: String, limit: u64 },
    /// The key was used with other files. HTTP 422.
    #[error("this Idempotency-Key was used with other files")]
    KeyReused,
    /// The log refused. HTTP 503 or 507.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The spool failed. HTTP 507 where the disk is full, else 500.
    #[error("the file could not be spooled: {0}")]
    Spool(#[from] io::Error),
}

/// Takes uploads, and tells how they stand. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Uploads {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Arc<Config>,
    root: PathBuf,
    /// The root, where it is to go with the process: `DURABILITY=memory`.
    _throw_away: Option<TempDir>,
    log: LogHandle,
    store: StoreReader,
    stats: Arc<Stats>,
    places: Arc<Semaphore>,
    /// Held from the look-up of a key to its note, so that of two requests with one key the second finds the first.
    noting: Arc<tokio::sync::Mutex<()>>,
    /// Uploads that are being taken, and whether they have ended.
    running: Mutex<BTreeMap<String, watch::Receiver<bool>>>,
    stopping: watch::Sender<bool>,
}

impl Uploads {
    /// Uploads in a data directory. Those that a crash interrupted go on after [`Uploads::resume`].
    ///
    /// # Errors
    /// The spool folder cannot be made.
    pub fn start(config: Arc<Config>, dir: &DataDir, log: LogHandle, store: StoreReader, stats: Arc<Stats>) -> io::Result<Self> {
        let (root, throw_away) = match dir.path() {
            Some(path) => (path.join("spool"), None),
            None => {
                let folder = tempfile::Builder::new().prefix("anomaly-spool-").tempdir()?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        std::fs::create_dir_all(&root)?;
        let shared = Shared {
            config,
            root,
            _throw_away: throw_away,
            log,
            store,
            stats,
            places: Arc::new(Semaphore::new(AT_ONCE)),
            noting: Arc::default(),
            running: Mutex::default(),
            stopping: watch::Sender::new(false),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Goes on with the uploads that were not finished, and removes spools that never arrived whole.
    ///
    /// # Errors
    /// The log cannot be asked.
    pub async fn resume(&self) -> Result<(), AppendError> {
        let unfinished = self.shared.log.unfinished_uploads().await?;
        for entry in std::fs::read_dir(&self.shared.root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !unfinished.iter().any(|(upload, _)| name == upload.id.as_str()) {
                drop(std::fs::remove_dir_all(entry.path()));
            }
        }
        for (upload, _) in unfinished {
            info!(upload = upload.id, "going on with an upload that was interrupted");
            self.run(upload);
        }
        Ok(())
    }

    /// Begins to receive an upload.
    ///
    /// # Errors
    /// The spool folder cannot be made.
    pub async fn begin(&self, key: Option<String>) -> Result<Spool, UploadError> {
        Ok(Spool::begin(self.clone(), &self.shared.root, key, self.shared.config.limits.max_file_bytes).await?)
    }

    /// How an upload stands; `None` where it is not known.
    pub async fn view(&self, id: &str) -> Option<UploadView> {
        let (upload, progress) = self.shared.log.upload(id.to_owned()).await.ok()??;
        view::view(&self.shared.store, upload, progress).await
    }

    /// Takes what a spool has received, and answers when its rows are in the log.
    async fn finish(&self, spool: &mut Spool, zone: Option<TimeZone>) -> Result<UploadView, UploadError> {
        let fingerprint = spool.sync().await?;
        let noting = Arc::clone(&self.shared.noting).lock_owned().await;
        if let Some(key) = spool.key()
            && let Some((known, _)) = self.shared.log.upload_by_key(key.to_owned()).await?
        {
            if known.fingerprint != fingerprint {
                return Err(UploadError::KeyReused);
            }
            if known.state == UploadState::Interrupted && known.ended.is_none() {
                return self.take_over(spool, known, noting).await;
            }
            return self.ended(&known.id).await;
        }
        let zone = zone.unwrap_or_else(|| self.shared.config.timezone.clone());
        let zone = zone.iana_name().unwrap_or("UTC");
        let files = spool.files().iter().map(|name| SpooledFile { name: name.clone(), zone: zone.to_owned() });
        let upload = UploadRow {
            id: spool.id().to_owned(),
            key: spool.key().map(str::to_owned),
            fingerprint,
            created: clock::now(),
            files: serde_json::to_string(&files.collect::<Vec<_>>()).unwrap_or_default(),
            state: UploadState::Running,
            ended: None,
        };
        self.note_and_run(spool, Side::Upload(upload.clone()), upload, noting).await
    }

    /// Goes on with an upload whose files were lost with another replica: the same files have come again, under its key.
    async fn take_over(&self, spool: &mut Spool, known: UploadRow, noting: OwnedMutexGuard<()>) -> Result<UploadView, UploadError> {
        let folder = self.shared.root.join(&known.id);
        drop(tokio::fs::remove_dir_all(&folder).await);
        spool.rename(&folder).await?;
        info!(upload = known.id, "going on with an upload that another replica has begun and lost");
        self.note_and_run(spool, Side::UploadAgain(UploadRow { state: UploadState::Running, ..known.clone() }), known, noting).await
    }

    async fn note_and_run(
        &self,
        spool: &mut Spool,
        note: Side,
        upload: UploadRow,
        noting: OwnedMutexGuard<()>,
    ) -> Result<UploadView, UploadError> {
        // In a task of its own: a client that goes away now must not part the note from the spool and from the taking.
        let (uploads, noted) = (self.clone(), upload.clone());
        spool.keep();
        let noted = tokio::spawn(async move {
            uploads.shared.log.note(vec![note]).await?;
            uploads.run(UploadRow { state: UploadState::Running, ..noted });
            drop(noting);
            Ok(())
        });
        if let Err(fault) = noted.await.map_err(|_| AppendError::Closing).flatten() {
            spool.unkeep();
            // Another replica may have taken the same files under the same key a moment ago.
            if let (AppendError::Away(_), Some(key)) = (&fault, &upload.key)
                && let Ok(Some((known, _))) = self.shared.log.upload_by_key(key.clone()).await
                && known.fingerprint == upload.fingerprint
                && known.id != upload.id
            {
                return self.ended(&known.id).await;
            }
            return Err(fault.into());
        }
        self.ended(&upload.id).await
    }

    /// Waits until an upload is in the log, and a moment for its verdicts.
    async fn ended(&self, id: &str) -> Result<UploadView, UploadError> {
        let running = self.running().get(id).cloned();
        if let Some(mut running) = running {
            // An error means that the task is gone; how it stands is told all the same.
            let _ = running.wait_for(|ended| *ended).await;
        }
        let deadline = tokio::time::Instant::now() + WAIT_FOR_VERDICTS;
        loop {
            let view = self.view(id).await.ok_or(AppendError::Closing)?;
            if view.judged || tokio::time::Instant::now() >= deadline {
                return Ok(view);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Takes an upload's files, in a task of its own.
    fn run(&self, upload: UploadRow) {
        let (ended, receiver) = watch::channel(false);
        self.running().insert(upload.id.clone(), receiver);
        let uploads = self.clone();
        tokio::spawn(async move {
            let id = upload.id.clone();
            let mut stopping = uploads.shared.stopping.subscribe();
            tokio::select! {
                outcome = uploads.take_whole(upload) => {
                    if let Err(fault) = outcome {
                        warn!(upload = id, "an upload could not be finished now, the next start goes on with it: {fault}");
                    }
                }
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
            ended.send_replace(true);
            uploads.running().remove(&id);
        });
    }

    /// Takes an upload to its end, however often the log has no room meanwhile.
    async fn take_whole(&self, upload: UploadRow) -> Result<(), AppendError> {
        loop {
            match self.take(upload.clone()).await {
                Err(fault) if fault.is_temporary() => {
                    warn!(upload = upload.id, "an upload waits: {fault}");
                    tokio::time::sleep(PAUSE_WITHOUT_ROOM).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn take(&self, upload: UploadRow) -> Result<(), AppendError> {
        let shared = &self.shared;
        let _place = shared.places.acquire().await.map_err(|_| AppendError::Closing)?;
        let folder = shared.root.join(&upload.id);
        let (_, progress) = shared.log.upload(upload.id.clone()).await?.unwrap_or_else(|| (upload.clone(), Vec::new()));
        let ingest = Ingest { log: &shared.log, config: &shared.config, stats: &shared.stats, folder: &folder, upload: &upload };
        let state = ingest.run(progress).await?;
        let end = Side::UploadEnded { row: UploadRow { state, ended: Some(clock::now()), ..upload.clone() } };
        shared.log.note(vec![end]).await?;
        drop(tokio::fs::remove_dir_all(&folder).await);
        Ok(())
    }

    /// Takes no more rows; what is spooled goes on at the next start.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        let running: Vec<_> = self.running().values().cloned().collect();
        for mut upload in running {
            let _ = upload.wait_for(|ended| *ended).await;
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, watch::Receiver<bool>>> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
