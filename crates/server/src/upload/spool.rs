//! A request's files on disk, before anything of them counts.

use std::io;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use xxhash_rust::xxh3::Xxh3;

use super::{UploadError, UploadView, Uploads};
use crate::ids::new_id;

/// What a request has sent so far. Dropped before [`Spool::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Spool {
    uploads: Uploads,
    id: String,
    key: Option<String>,
    folder: PathBuf,
    files: Vec<String>,
    hash: Hash,
    max_file_bytes: u64,
    kept: bool,
}

struct Hash(Xxh3);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash")
    }
}

impl Spool {
    pub(super) async fn begin(uploads: Uploads, root: &Path, key: Option<String>, max_file_bytes: u64) -> io::Result<Self> {
        let id = new_id();
        let folder = root.join(&id);
        tokio::fs::create_dir(&folder).await?;
        Ok(Self { uploads, id, key, folder, files: Vec::new(), hash: Hash(Xxh3::new()), max_file_bytes, kept: false })
    }

    /// Begins the next file; its name is only data.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub async fn file(&mut self, name: &str) -> Result<FileWriter<'_>, UploadError> {
        let file = File::create(self.folder.join(format!("{}.raw", self.files.len()))).await?;
        self.files.push(name.to_owned());
        self.hash.0.update(name.as_bytes());
        self.hash.0.update(&[0xff]);
        Ok(FileWriter { spool: self, file: BufWriter::with_capacity(256 << 10, file), written: 0 })
    }

    /// The names of the files received.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Takes what was received. Answers when its rows are in the log.
    ///
    /// # Errors
    /// See [`UploadError`]; nothing of it counts then.
    pub async fn finish(mut self, zone: Option<TimeZone>) -> Result<UploadView, UploadError> {
        let uploads = self.uploads.clone();
        uploads.finish(&mut self, zone).await
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Makes names durable (the files are already), and tells the hash of all content.
    pub(super) async fn sync(&mut self) -> io::Result<u64> {
        for folder in [Some(self.folder.as_path()), self.folder.parent()].into_iter().flatten() {
            File::open(folder).await?.sync_all().await?;
        }
        Ok(self.hash.0.digest())
    }

    /// Its files lie elsewhere from now on: they are those of an upload that is known.
    pub(super) async fn rename(&mut self, folder: &Path) -> io::Result<()> {
        tokio::fs::rename(&self.folder, folder).await?;
        self.folder = folder.to_owned();
        Ok(())
    }

    /// The spool is noted in the log: from now on it stays until its rows are taken.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// It was not noted after all.
    pub(super) fn unkeep(&mut self) {
        self.kept = false;
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is removed at the next start.
            drop(std::fs::remove_dir_all(&self.folder));
        }
    }
}

/// Receives one file.
#[derive(Debug)]
pub struct FileWriter<'a> {
    spool: &'a mut Spool,
    file: BufWriter<File>,
    written: u64,
}

impl FileWriter<'_> {
    /// Writes the next bytes.
    ///
    /// # Errors
    /// Beyond the limit, or the spool cannot be written.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        self.written += bytes.len() as u64;
        if self.written > self.spool.max_file_bytes {
            let file = self.spool.files.last().cloned().unwrap_or_default();
            return Err(UploadError::TooLarge { file, limit: self.spool.max_file_bytes });
        }
        self.spool.hash.0.update(bytes);
        Ok(self.file.write_all(bytes).await?)
    }

    /// The file has arrived whole: it is on disk when this returns.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub async fn end(mut self) -> Result<(), UploadError> {
        self.spool.hash.0.update(&self.written.to_le_bytes());
        self.file.flush().await?;
        Ok(self.file.get_ref().sync_all().await?)
    }
}
