//! Room on disk: a preallocated reserve, and the most that the data directory may take.
//!
//! On a full disk neither a deletion nor a truncation succeeds by itself: SQLite writes before it frees. So 5 % of the disk,
//! at most 256 MiB, is held back, and freed for commits, checkpoints and deletions when there is no other room.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::data_dir::DataDir;

const RESERVE: &str = "reserve";
const RESERVE_MAX: u64 = 256 << 20;

/// Whether more may be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// It may.
    Enough,
    /// No: HTTP 507, with this reason.
    Low(String),
}

/// The disk under a data directory. In memory there is always room.
#[derive(Debug)]
pub struct Disk {
    path: Option<PathBuf>,
    max_bytes: Option<u64>,
    reserve_bytes: u64,
    held: bool,
}

impl Disk {
    /// The disk under `dir`. Allocates the reserve; where there is no room for it, [`Disk::room`] is low from the start.
    ///
    /// # Errors
    /// The file system cannot be asked.
    pub fn open(dir: &DataDir) -> io::Result<Self> {
        let Some(path) = dir.path() else {
            return Ok(Self { path: None, max_bytes: None, reserve_bytes: 0, held: true });
        };
        let reserve_bytes = reserve_bytes(dir)?;
        let mut disk = Self { path: Some(path.to_owned()), max_bytes: dir.max_bytes(), reserve_bytes, held: false };
        let file = path.join(RESERVE);
        disk.held = file.metadata().is_ok_and(|meta| meta.blocks() * 512 >= reserve_bytes) || disk.allocate(&file).is_ok();
        Ok(disk)
    }

    /// Whether the reserve is held back.
    pub fn held(&self) -> bool {
        self.held
    }

    /// Frees the reserve, for commits, checkpoints and deletions; from now on [`Disk::room`] is low.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn release(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        self.held = false;
        match fs::remove_file(path.join(RESERVE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes the reserve back where half as much again is free (else the next append would need it at once); whether it is held.
    ///
    /// # Errors
    /// The file system cannot be asked.
    pub fn restore(&mut self) -> io::Result<bool> {
        if !self.held
            && let Some(path) = self.path.clone()
            && capacity(&path)?.1 >= self.reserve_bytes + self.reserve_bytes / 2
        {
            self.held = self.allocate(&path.join(RESERVE)).is_ok();
        }
        Ok(self.held)
    }

    /// Free bytes on the file system.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn free(&self) -> io::Result<u64> {
        self.path.as_deref().map_or(Ok(u64::MAX), |path| Ok(capacity(path)?.1))
    }

    /// Bytes that all of the data directory takes, the reserve included.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn used(&self) -> io::Result<u64> {
        self.path.as_deref().map_or(Ok(0), taken)
    }

    /// By how much the data directory is beyond `DISK_MAX_BYTES`; `reusable` bytes of it are free within the databases.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn excess(&self, reusable: u64) -> io::Result<u64> {
        let Some(max) = self.max_bytes else { return Ok(0) };
        Ok(self.used()?.saturating_sub(reusable).saturating_sub(max))
    }

    /// Whether more may be accepted; `reusable` as for [`Disk::excess`].
    ///
    /// # Errors
    /// It cannot be read.
    pub fn room(&self, reusable: u64) -> io::Result<Room> {
        if !self.held {
            return Ok(Room::Low(format!("the disk is full, {} bytes are free", self.free()?)));
        }
        let excess = self.excess(reusable)?;
        if excess > 0 {
            let max = self.max_bytes.unwrap_or_default();
            return Ok(Room::Low(format!("the data directory takes {} bytes, DISK_MAX_BYTES is {max}", max + excess)));
        }
        Ok(Room::Enough)
    }

    fn allocate(&self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let done = match fallocate(&file, FallocateFlags::empty(), 0, self.reserve_bytes.max(1)) {
            Err(Errno::OPNOTSUPP) => write_zeros(&file, self.reserve_bytes),
            other => other.map_err(io::Error::from),
        };
        if done.and_then(|()| file.sync_all()).is_err() {
            let _ = fs::remove_file(path);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

/// How large the reserve of a data directory is to be; in memory as large as can be, since nothing is held back there.
///
/// # Errors
/// The file system cannot be asked.
pub(crate) fn reserve_bytes(dir: &DataDir) -> io::Result<u64> {
    let Some(path) = dir.path() else { return Ok(RESERVE_MAX) };
    let total = capacity(path)?.0;
    Ok((dir.max_bytes().unwrap_or(total).min(total) / 20).min(RESERVE_MAX))
}

/// Size of the file system, and what of it is free for us.
fn capacity(path: &Path) -> io::Result<(u64, u64)> {
    let stat = statvfs(path)?;
    Ok((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
}

fn taken(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        // A file may vanish while we look.
        let Ok(meta) = entry.as_ref().map_or_else(|_| Err(io::ErrorKind::NotFound.into()), fs::DirEntry::metadata) else { continue };
        sum += if meta.is_dir() { taken(&entry?.path()).unwrap_or(0) } else { meta.blocks() * 512 };
    }
    Ok(sum)
}

fn write_zeros(mut file: &File, mut bytes: u64) -> io::Result<()> {
    let zeros = [0; 1 << 16];
    while bytes > 0 {
        let n = bytes.min(zeros.len() as u64);
        file.write_all(&zeros[..n as usize])?;
        bytes -= n;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_low_until_the_reserve_is_restored() {
        let temp = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(&DataDir::open(temp.path()).unwrap().at_most(Some(40 << 20))).unwrap();
        assert_eq!((disk.reserve_bytes, disk.room(0).unwrap()), (2 << 20, Room::Enough));
        assert!(disk.used().unwrap() >= 2 << 20);
        disk.release().unwrap();
        assert!(matches!(disk.room(0).unwrap(), Room::Low(reason) if reason.starts_with("the disk is full")));
        assert!(disk.restore().unwrap());
        assert_eq!(disk.room(0).unwrap(), Room::Enough);
    }

    #[test]
    fn disk_max_bytes_counts_all_but_what_can_be_used_again() {
        let temp = tempfile::tempdir().unwrap();
        let disk = Disk::open(&DataDir::open(temp.path()).unwrap().at_most(Some(1 << 20))).unwrap();
        assert_eq!(disk.room(0).unwrap(), Room::Enough);
        fs::create_dir(temp.path().join("spool")).unwrap();
        fs::write(temp.path().join("spool/a"), vec![1; 1 << 20]).unwrap();
        assert!(matches!(disk.room(0).unwrap(), Room::Low(reason) if reason.ends_with("DISK_MAX_BYTES is 1048576")));
        assert_eq!(disk.room(1 << 20).unwrap(), Room::Enough);
    }

    #[test]
    fn memory_always_has_room() {
        let disk = Disk::open(&DataDir::memory().at_most(Some(1))).unwrap();
        assert_eq!(disk.room(0).unwrap(), Room::Enough);
    }
}
