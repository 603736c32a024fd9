//! The embedded log: one blob a frame in `events.db`, and what must be durable with a frame beside it.

use anomaly_engine::{NANOS, Report, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

pub use super::error::LogError;
use super::mark::Mark;
pub use super::reader::LogReader;
pub use super::side::{SealedFrame, Side};
use super::side::{from_json, put};
use super::uploads::{self, FileProgress, UploadRow};
use super::wal_tail;
use crate::data_dir::DataDir;
use crate::sqlite::{self, Options, Place, WalKeeper};

const FILE: &str = "events.db";
/// Larger pages mean fewer writes for a large frame, and more bytes for a small one: twice SQLite's default is between.
const PAGE_SIZE: u32 = 8192;
/// The write-ahead log is copied into the database when it has grown by this.
const WAL_LIMIT: u64 = 32 << 20;
/// For how long answers to an `Idempotency-Key`, and uploads that have ended, are kept.
const ANSWERS_KEPT: i64 = 24 * 3600 * NANOS;
/// At most so much is truncated at once, so that no append waits for long.
const TRUNCATE_FRAMES: usize = 256;
const TRUNCATE_BYTES: u64 = 8 << 20;
/// So much of what truncation frees is kept in the file for frames to come, and as much as these take; the rest is given back.
const SPARE_BYTES: u64 = 256 << 20;
/// So much is given back at once.
const GIVE_BACK_BYTES: u64 = 8 << 20;

/// `meta.next` is the least number of the next frame: it rises when numbers are skipped and when the log is truncated, and not
/// with an append, which would write one page more. `skipped` are numbers that never were frames.
const SCHEMA: &str = "
CREATE TABLE frames (number INTEGER PRIMARY KEY, rows INTEGER NOT NULL, bytes BLOB NOT NULL);
CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL);
INSERT INTO meta VALUES (1, 1);
CREATE TABLE skipped (first INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE answers (key TEXT PRIMARY KEY, fingerprint INTEGER NOT NULL, report TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX answers_at ON answers (at);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

/// When an append counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk.
    Fsync,
    /// When the operating system has it: a crash of the process loses nothing, one of the machine may.
    ///
    /// This is `synchronous=NORMAL`, which in WAL mode leaves out the sync at commit and nothing else. `OFF` would leave out
    /// those around the checkpoints of SQLite too, and a power cut there would break the file itself.
    Os,
    /// Never: all is in memory.
    Memory,
}

impl Durability {
    /// As it is configured.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
            Self::Memory => "memory",
        }
    }
}

/// What was found at open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// What of the log is lost, if something is: to be said at start, and `/health` is degraded.
    pub lost: Option<String>,
}

/// The log, and the only connection that writes to it.
#[derive(Debug)]
pub struct EventLog {
    connection: Connection,
    place: Place,
    durability: Durability,
    next: u64,
    wal: WalKeeper,
    mark: Option<Mark>,
    opened: Opened,
    /// After a fatal error nothing is tried again.
    broken: bool,
}

impl EventLog {
    /// Opens the log, creating it where there is none, and looks for what is missing of it.
    ///
    /// # Errors
    /// A file of a newer version, or one that cannot be opened.
    pub fn open(dir: &DataDir, durability: Durability) -> Result<Self, LogError> {
        let memory = durability == Durability::Memory;
        let place = if memory { dir.memory_database(FILE) } else { dir.database(FILE) };
        let dropped = match place.wal_path() {
            Some(path) => wal_tail::look(&path).map_err(|source| LogError::Io { path, source })?,
            None => wal_tail::Dropped::default(),
        };
        let options = Options { page_size: PAGE_SIZE, synchronous: synchronous(durability), incremental_vacuum: true };
        let steps = [&format!("{SCHEMA}{}", uploads::SCHEMA)[..]];
        let mut connection = place.writer(options, &steps)?;
        let (mark, marked) = match dir.path().filter(|_| !memory) {
            Some(path) => {
                let (mark, marked) = Mark::open(path).map_err(|source| LogError::Io { path: path.join("events.mark"), source })?;
                (Some(mark), marked)
            }
            None => (None, None),
        };
        let next =
            connection.query_row("SELECT max((SELECT coalesce(max(number), 0) + 1 FROM frames), (SELECT next FROM meta))", [], |row| {
                Ok(row.get::<_, i64>(0)? as u64)
            })?;
        let wal = WalKeeper::new(&mut connection, place.clone(), dir.wal_limit(WAL_LIMIT))?;
        let mut log = Self { connection, place, durability, next, wal, mark, opened: Opened::default(), broken: false };
        log.opened.lost = log.look_for_losses(dropped, marked)?;
        Ok(log)
    }

    /// What was found at open.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The number of the next frame; numbers start at 1 and rise, whatever is truncated.
    pub fn next_frame(&self) -> u64 {
        self.next
    }

    /// Makes `least` the next number, if it is higher: after a loss, the numbers up to P and to the newest checkpoint are used.
    ///
    /// # Errors
    /// As for an append.
    pub fn skip_to(&mut self, least: u64) -> Result<(), LogError> {
        if least <= self.next {
            return Ok(());
        }
        self.check()?;
        let next = self.next;
        let skipped = self.connection.transaction().and_then(|transaction| {
            transaction.execute("INSERT INTO skipped VALUES (?1, ?2)", [next as i64, least as i64])?;
            transaction.execute("UPDATE meta SET next = ?1", [least as i64])?;
            transaction.commit()
        });
        self.noting(skipped)?;
        self.next = least;
        Ok(())
    }

    /// Appends frames, numbered from [`EventLog::next_frame`] on, and what goes with them, all or nothing; returns when it is
    /// durable. After a fatal error nothing is appended any more.
    ///
    /// # Errors
    /// Fatal, full, or SQLite's own; nothing of it is in the log, save that after a fatal one the next start may find it.
    pub fn append(&mut self, frames: &[SealedFrame], side: &[Side]) -> Result<(), LogError> {
        self.check()?;
        for (frame, expected) in frames.iter().zip(self.next..) {
            if frame.number != expected {
                return Err(LogError::Order { found: frame.number, expected });
            }
        }
        let written = write(&mut self.connection, frames, side);
        self.noting(written)?;
        self.next += frames.len() as u64;
        if let (Some(mark), true) = (&self.mark, !frames.is_empty()) {
            mark.set(self.next - 1);
        }
        let copied = self.wal.wrote(&self.connection);
        self.noting(copied)
    }

    /// Deletes some of the frames below `frame`, synced, or gives some of their room back; whether there is more to do. Call it
    /// again for that, between appends.
    ///
    /// # Errors
    /// As for an append.
    pub fn truncate_before(&mut self, frame: u64) -> Result<bool, LogError> {
        self.check()?;
        if self.durability == Durability::Os {
            self.connection.pragma_update(None, "synchronous", "FULL")?;
        }
        let truncated = truncate(&mut self.connection, frame, self.next);
        if self.durability == Durability::Os {
            self.connection.pragma_update(None, "synchronous", synchronous(self.durability))?;
        }
        let more = self.noting(truncated)?;
        let copied = self.wal.wrote(&self.connection);
        self.noting(copied)?;
        if more {
            return Ok(true);
        }
        let (used, free) = sqlite::sizes(&self.connection)?;
        if free > used.max(SPARE_BYTES) { self.give_back() } else { Ok(false) }
    }

    /// Gives the disk back some of what truncation has freed within the file; whether there is more. For a full disk, on which
    /// the file would keep its size otherwise.
    ///
    /// # Errors
    /// As for an append.
    pub fn give_back(&mut self) -> Result<bool, LogError> {
        self.check()?;
        let given = sqlite::give_back(&self.connection, &mut self.wal, GIVE_BACK_BYTES);
        self.noting(given)
    }

    /// A connection of its own that reads frames.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn reader(&self) -> Result<LogReader, LogError> {
        Ok(LogReader { connection: self.place.reader()? })
    }

    /// The fingerprint and the answer that are kept under a key.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn answer(&self, key: &str) -> Result<Option<(u64, Report)>, LogError> {
        let mut statement = self.connection.prepare_cached("SELECT fingerprint, report FROM answers WHERE key = ?1")?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)? as u64, from_json(&row.get::<_, String>(1)?)?));
        Ok(statement.query_row([key], read).optional()?)
    }

    /// Forgets answers, and uploads that ended, of more than 24 h ago.
    ///
    /// # Errors
    /// As for an append.
    pub fn prune_answers(&mut self, now: Timestamp) -> Result<(), LogError> {
        self.check()?;
        let before = now.plus(-ANSWERS_KEPT);
        let pruned = self.connection.transaction().and_then(|transaction| {
            transaction.execute("DELETE FROM answers WHERE at < ?1", [before.nanos()])?;
            uploads::prune(&transaction, before)?;
            transaction.commit()
        });
        self.noting(pruned)
    }

    /// The upload of this id, with the progress of each file that has any.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn upload(&self, id: &str) -> Result<Option<(UploadRow, Vec<FileProgress>)>, LogError> {
        self.with_progress(uploads::find(&self.connection, "id", id)?)
    }

    /// The upload that came with this `Idempotency-Key`.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn upload_by_key(&self, key: &str) -> Result<Option<(UploadRow, Vec<FileProgress>)>, LogError> {
        self.with_progress(uploads::find(&self.connection, "key", key)?)
    }

    /// The uploads that have not ended, oldest first: those to resume.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn unfinished_uploads(&self) -> Result<Vec<(UploadRow, Vec<FileProgress>)>, LogError> {
        let rows = uploads::running(&self.connection)?;
        rows.into_iter().map(|row| Ok((uploads::progress(&self.connection, &row.id)?, row))).map(|both| both.map(|(p, r)| (r, p))).collect()
    }

    /// A counter that is kept across restarts.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn counter(&self, name: &str) -> Result<u64, LogError> {
        let sql = "SELECT value FROM counters WHERE name = ?1";
        let value = self.connection.query_row(sql, [name], |row| row.get::<_, i64>(0)).optional()?;
        Ok(value.unwrap_or(0) as u64)
    }

    /// Bytes in use, the write-ahead log included.
    pub fn bytes(&self) -> u64 {
        sqlite::sizes(&self.connection).map_or(0, |(used, _)| used) + self.place.wal_bytes()
    }

    /// Bytes of the file that truncation has freed for frames to come.
    pub fn reusable(&self) -> u64 {
        sqlite::sizes(&self.connection).map_or(0, |(_, free)| free)
    }

    /// Copies the write-ahead log into the database and empties it, so that `events.db` is all there is. For a clean stop.
    ///
    /// # Errors
    /// As for an append.
    pub fn close(mut self) -> Result<(), LogError> {
        self.check()?;
        let emptied = self.wal.empty(&self.connection);
        self.noting(emptied)
    }

    fn with_progress(&self, row: Option<UploadRow>) -> Result<Option<(UploadRow, Vec<FileProgress>)>, LogError> {
        row.map(|row| Ok((uploads::progress(&self.connection, &row.id)?, row))).transpose().map(|both| both.map(|(p, r)| (r, p)))
    }

    fn look_for_losses(&mut self, dropped: wal_tail::Dropped, marked: Option<u64>) -> Result<Option<String>, LogError> {
        let mut lost = Vec::new();
        let end = self.next - 1;
        if let Some(marked) = marked.filter(|&marked| marked > end) {
            lost.push(format!("{} acknowledged frames, {} to {marked}, are missing at its end", marked - end, end + 1));
            self.skip_to(marked + 1)?;
        }
        if dropped.commits > 1 || dropped.header {
            let commits = if dropped.header { String::new() } else { format!(", at least {} appends", dropped.commits) };
            lost.push(format!("{} bytes of events.db-wal are damaged{commits}", dropped.bytes));
        } else if dropped.bytes > 0 && lost.is_empty() {
            tracing::warn!(
                bytes = dropped.bytes,
                "an append that was under way when the process ended is dropped: it was not acknowledged"
            );
        }
        let missing: i64 = self.connection.query_row(
            "SELECT coalesce(max(number) - min(number) + 1 - count(*), 0) - (SELECT coalesce(sum(next - first), 0) FROM skipped
                WHERE first > (SELECT min(number) FROM frames) AND next <= (SELECT max(number) FROM frames)) FROM frames",
            [],
            |row| row.get(0),
        )?;
        if missing > 0 {
            lost.push(format!("{missing} frames are missing in its middle"));
        }
        Ok((!lost.is_empty()).then(|| format!("the event log is damaged: {}", lost.join("; "))))
    }

    fn check(&self) -> Result<(), LogError> {
        if self.broken {
            let said = Some("an error before this one was fatal".to_owned());
            return Err(LogError::Fatal(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR), said)));
        }
        Ok(())
    }

    fn noting<T>(&mut self, result: rusqlite::Result<T>) -> Result<T, LogError> {
        let mut result = result.map_err(LogError::from);
        if matches!(result, Err(LogError::Full(_)))
            && let Err(error) = self.wal.found_no_room(&self.connection)
        {
            result = Err(error.into());
        }
        self.broken |= matches!(result, Err(LogError::Fatal(_)));
        result
    }
}

fn synchronous(durability: Durability) -> &'static str {
    match durability {
        Durability::Fsync => "FULL",
        Durability::Os => "NORMAL",
        Durability::Memory => "OFF",
    }
}

fn write(connection: &mut Connection, frames: &[SealedFrame], side: &[Side]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare_cached("INSERT INTO frames VALUES (?1, ?2, ?3)")?;
        for frame in frames {
            insert.execute(params![frame.number as i64, frame.rows, frame.bytes])?;
        }
    }
    for side in side {
        put(&transaction, side)?;
    }
    transaction.commit()
}

/// Whether there are more.
fn truncate(connection: &mut Connection, before: u64, next: u64) -> rusqlite::Result<bool> {
    let transaction = connection.transaction()?;
    let (mut end, mut n, mut bytes, mut more) = (None, 0, 0, false);
    {
        let mut statement = transaction.prepare_cached("SELECT number, length(bytes) FROM frames WHERE number < ?1 ORDER BY number")?;
        let mut rows = statement.query([before as i64])?;
        while let Some(row) = rows.next()? {
            if n == TRUNCATE_FRAMES || bytes >= TRUNCATE_BYTES {
                more = true;
                break;
            }
            end = Some(row.get::<_, i64>(0)?);
            bytes += row.get::<_, i64>(1)? as u64;
            n += 1;
        }
    }
    let Some(end) = end else { return Ok(false) };
    transaction.prepare_cached("DELETE FROM frames WHERE number <= ?1")?.execute([end])?;
    transaction.prepare_cached("DELETE FROM skipped WHERE next <= ?1")?.execute([end])?;
    transaction.prepare_cached("UPDATE meta SET next = max(next, ?1)")?.execute([next as i64])?;
    transaction.commit()?;
    Ok(more)
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
