//! Keeps a write-ahead log bounded, and its file ahead of what is written.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::{Failure, Mode, Place, WAL_FRAME_HEADER, checkpoint, failure};

/// The file grows by its own length at a time, within these.
const LEAST_STEP: u64 = 256 << 10;
const LARGEST_STEP: u64 = 4 << 20;

/// What one connection, the only one that writes to a database, needs to know of the write-ahead log.
///
/// - The log is copied into the database when it has grown by a limit, and what comes of that is looked at. SQLite starts over in
///   the file at the first commit that finds all copied and nobody reading.
/// - Until it has started over once, each commit would make the file longer, and then its fsync also writes what the file system
///   notes about the file: half as much time again. So the file is filled with zeros ahead of what is written. SQLite takes a log
///   up to the first frame without this log's salt, whatever stands behind.
#[derive(Debug)]
pub(crate) struct WalKeeper {
    place: Place,
    limit: u64,
    /// Bytes of the log that are in use, as SQLite told after the last commit.
    used: Arc<AtomicU64>,
    /// Bytes at its beginning that are in the database.
    copied: u64,
    ahead: Ahead,
}

impl WalKeeper {
    /// `limit`, in bytes, is for [`DataDir::wal_limit`](crate::data_dir::DataDir::wal_limit) to give.
    pub(crate) fn new(connection: &mut Connection, place: Place, limit: u64) -> rusqlite::Result<Self> {
        let page: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let used = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&used);
        connection.wal_hook(Some(move |_: &mut Wal, pages: c_int| {
            told.store(u64::from(pages.unsigned_abs()) * (u64::from(page) + WAL_FRAME_HEADER as u64), Ordering::Relaxed);
            Ok(())
        }))?;
        let ahead = Ahead { file: None, length: place.wal_bytes(), given_up: false };
        Ok(Self { place, limit, used, copied: 0, ahead })
    }

    /// Where the database is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Where the last commit ends in the log's file.
    #[cfg(test)]
    pub(crate) fn end(&self) -> u64 {
        super::WAL_HEADER as u64 + self.used.load(Ordering::Relaxed)
    }

    /// Called when a transaction found no room. What it had written of the log's file before is given back, where the rest can
    /// be copied; a disk that is full for that too is no further error. From now on the file is as long as it must be.
    pub(crate) fn found_no_room(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.ahead.given_up = true;
        match self.empty(connection) {
            Err(error) if failure(&error) == Failure::Full => Ok(()),
            other => other,
        }
    }

    /// Copies all of the log and empties its file.
    pub(crate) fn empty(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.place.in_memory() && checkpoint(connection, Mode::Truncate)? {
            self.copied = 0;
            self.used.store(0, Ordering::Relaxed);
            self.ahead.length = 0;
        }
        Ok(())
    }

    /// Called after each commit. A full disk is no error here, the commit itself is durable: what fails is tried again after
    /// the next one.
    pub(crate) fn wrote(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let used = self.used.load(Ordering::Relaxed);
        if used < self.copied {
            self.copied = 0;
        }
        if used - self.copied < self.limit {
            self.ahead.keep(&self.place, used, self.limit);
            return Ok(());
        }
        // Where readers are there each time, so that it never starts over, wait for them.
        let mode = if used > 4 * self.limit { Mode::Restart } else { Mode::Passive };
        match checkpoint(connection, mode) {
            Ok(true) => self.copied = used,
            Ok(false) => {}
            Err(error) if failure(&error) == Failure::Full => {
                tracing::warn!(database = self.place.name(), %error, "no room to copy the write-ahead log");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The file of the log, filled ahead of its use.
#[derive(Debug)]
struct Ahead {
    /// Opened to append, so that nothing can be overwritten.
    file: Option<File>,
    length: u64,
    /// It has failed once, or there was no room: SQLite does without.
    given_up: bool,
}

impl Ahead {
    /// Lengthens the file where less than half a step of it is left, up to `limit`. Nothing is synced: the next commit does.
    fn keep(&mut self, place: &Place, used: u64, limit: u64) {
        self.length = self.length.max(used);
        let step = self.length.clamp(LEAST_STEP, LARGEST_STEP);
        if self.given_up || used == 0 || self.length >= limit || self.length - used >= step / 2 {
            return;
        }
        match self.lengthen(place, step.min(limit - self.length)) {
            Ok(length) => self.length = length,
            Err(error) => {
                tracing::debug!(database = place.name(), %error, "the write-ahead log's file is not filled ahead");
                self.given_up = true;
            }
        }
    }

    fn lengthen(&mut self, place: &Place, bytes: u64) -> std::io::Result<u64> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let path = place.wal_path().ok_or(std::io::ErrorKind::Unsupported)?;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().append(true).open(path)?),
        };
        let before = file.metadata()?.len();
        for _ in 0..bytes.div_ceil(ZEROS.len() as u64) {
            // What zeros have taken of the last room is given back.
            file.write_all(&ZEROS).inspect_err(|_| drop(file.set_len(before)))?;
        }
        Ok(file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 20;

    fn writer(place: &Place) -> (Connection, WalKeeper) {
        let options = super::super::Options { page_size: 4096, synchronous: "FULL", incremental_vacuum: false };
        let mut connection = place.writer(options, &["CREATE TABLE t (id INTEGER PRIMARY KEY, bytes BLOB)"]).unwrap();
        let keeper = WalKeeper::new(&mut connection, place.clone(), LIMIT).unwrap();
        (connection, keeper)
    }

    fn insert(connection: &Connection, keeper: &mut WalKeeper) {
        connection.execute("INSERT INTO t (bytes) VALUES (zeroblob(3000))", []).unwrap();
        keeper.wrote(connection).unwrap();
    }

    #[test]
    fn the_file_is_longer_than_what_is_used_and_no_longer_than_the_limit() {
        let temp = tempfile::tempdir().unwrap();
        let place = Place::File(temp.path().join("a.db"));
        let (connection, mut keeper) = writer(&place);
        let mut lengths = Vec::new();
        for _ in 0..1000 {
            insert(&connection, &mut keeper);
            assert!(place.wal_bytes() >= keeper.end(), "{} of {}", keeper.end(), place.wal_bytes());
            lengths.push(place.wal_bytes());
        }
        lengths.dedup();
        assert!(lengths.len() <= 6, "{lengths:?}");
        assert!(*lengths.last().unwrap() < LIMIT + (128 << 10), "{lengths:?}");
    }

    #[test]
    fn what_was_written_before_the_zeros_is_found_after_a_crash() {
        let temp = tempfile::tempdir().unwrap();
        let place = Place::File(temp.path().join("a.db"));
        let (connection, mut keeper) = writer(&place);
        for _ in 0..7 {
            insert(&connection, &mut keeper);
        }
        let copy = tempfile::tempdir().unwrap();
        for name in ["a.db", "a.db-wal"] {
            std::fs::copy(temp.path().join(name), copy.path().join(name)).unwrap();
        }
        let (connection, _) = writer(&Place::File(copy.path().join("a.db")));
        assert_eq!(connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, u32>(0)).unwrap(), 7);
    }

    #[test]
    fn without_room_the_file_is_emptied_and_stays_as_short_as_it_can() {
        let temp = tempfile::tempdir().unwrap();
        let place = Place::File(temp.path().join("a.db"));
        let (connection, mut keeper) = writer(&place);
        insert(&connection, &mut keeper);
        keeper.found_no_room(&connection).unwrap();
        assert_eq!(place.wal_bytes(), 0);
        insert(&connection, &mut keeper);
        assert_eq!(place.wal_bytes(), keeper.end());
    }
}
