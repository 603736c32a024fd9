//! The folder that holds everything, and the lock that keeps a second process out of it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk;
use crate::sqlite::Place;

const LOCK: &str = "LOCK";

/// Names the memory of each data directory, so that two of one process never share.
static OPENED: AtomicU64 = AtomicU64::new(1);

/// An open data directory. While it lives no other process (and no second one in this process) can open the same.
#[derive(Debug)]
pub struct DataDir {
    path: Option<PathBuf>,
    max_bytes: Option<u64>,
    /// Locked while it is open; the kernel unlocks it however the process ends.
    _lock: Option<File>,
    number: u64,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Somebody has it.
    #[error("data directory {} is in use by {holder}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// `process 1234 (since 2026-01-21T10:00:00Z)`, as far as it is known.
        holder: String,
    },
    /// It cannot be created or written.
    #[error("data directory {} cannot be written: {source}", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl DataDir {
    /// Opens a directory, creating it (for its owner alone) where there is none, and locks it.
    ///
    /// # Errors
    /// In use, or not writable.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataDirError> {
        let path = path.into();
        let failed = |source| DataDirError::NotWritable { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        let mut lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                let holder = if holder.is_empty() { "another process".to_owned() } else { holder.trim_end().to_owned() };
                return Err(DataDirError::InUse { path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let since = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
        let text = format!("process {} (since {since})\n", std::process::id());
        lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(text.as_bytes())).map_err(failed)?;
        Ok(Self { path: Some(path), max_bytes: None, _lock: Some(lock), number: OPENED.fetch_add(1, Ordering::Relaxed) })
    }

    /// Opens the first of `NAME-1`, `NAME-2`, … under `base` that nobody has, so that several processes of one machine share a base.
    ///
    /// # Errors
    /// As [`DataDir::open`], save that one in use is passed over.
    pub fn open_first(base: &Path, name: &str) -> Result<Self, DataDirError> {
        let mut number = 1;
        loop {
            match Self::open(base.join(format!("{name}-{number}"))) {
                Err(DataDirError::InUse { .. }) => number += 1,
                opened => return opened,
            }
        }
    }

    /// A data directory in memory: nothing of it is on disk, and it is gone with the process.
    pub fn memory() -> Self {
        Self { path: None, max_bytes: None, _lock: None, number: OPENED.fetch_add(1, Ordering::Relaxed) }
    }

    /// The path; `None` in memory.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The same, of which at most `max_bytes` (`DISK_MAX_BYTES`) are to be taken.
    pub fn at_most(self, max_bytes: Option<u64>) -> Self {
        Self { max_bytes, ..self }
    }

    /// The most that it may take (`DISK_MAX_BYTES`).
    pub(crate) fn max_bytes(&self) -> Option<u64> {
        self.max_bytes
    }

    /// How long a write-ahead log becomes before it is copied: `most` bytes, less where there is little room. What is not copied
    /// yet must fit into the reserve that is freed when the disk is full, of which it may take an eighth.
    pub(crate) fn wal_limit(&self, most: u64) -> u64 {
        disk::reserve_bytes(self).map_or(most, |reserve| most.min(reserve / 8))
    }

    /// Where the database of this file name is.
    pub(crate) fn database(&self, file: &str) -> Place {
        match &self.path {
            Some(path) => Place::File(path.join(file)),
            None => self.memory_database(file),
        }
    }

    /// A database of this name in memory.
    pub(crate) fn memory_database(&self, file: &str) -> Place {
        Place::Memory(format!("{}-{file}", self.number))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_opener_is_told_who_holds_it_and_may_have_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/data");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let error = DataDir::open(&path).unwrap_err().to_string();
        let expected = format!("data directory {} is in use by process {} (since 2", path.display(), std::process::id());
        assert!(error.starts_with(&expected), "{error}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = DataDir::open(file.join("data")).unwrap_err().to_string();
        assert!(error.contains("cannot be written: ") && error.contains("file/data"), "{error}");
    }

    #[test]
    fn write_ahead_logs_are_short_where_there_is_little_room() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap().at_most(Some(3_200_000));
        assert_eq!((dir.wal_limit(32 << 20), dir.wal_limit(100), DataDir::memory().wal_limit(7)), (20_000, 100, 7));
    }

    #[test]
    fn two_in_memory_share_nothing() {
        assert_ne!(format!("{:?}", DataDir::memory().database("a")), format!("{:?}", DataDir::memory().database("a")));
        assert_eq!(DataDir::memory().path(), None);
    }
}
