//! What log, store and points share of SQLite: opening, schema steps, checkpoints whose result is looked at.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

mod wal_keeper;

pub(crate) use wal_keeper::WalKeeper;

/// What the connection that writes keeps of a database in memory.
const WRITER_CACHE_KIB: i64 = 8 << 10;
/// What each that reads keeps. Small, since there are as many as there are queries at a time; the kernel has the pages anyway.
const READER_CACHE_KIB: i64 = 1 << 10;
/// How long a connection waits for another one's lock; ours hold theirs for milliseconds.
const BUSY: Duration = Duration::from_secs(10);

/// Bytes before the first page of a write-ahead log, and before each page:
/// <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.
pub(crate) const WAL_HEADER: usize = 32;
pub(crate) const WAL_FRAME_HEADER: usize = 24;

/// Where a database is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    File(PathBuf),
    /// In this process' memory, shared by its connections while at least one is open.
    Memory(String),
}

/// What a database is opened with; page size and incremental vacuum only count when it is new.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) page_size: u32,
    pub(crate) synchronous: &'static str,
    pub(crate) incremental_vacuum: bool,
}

/// Why a database was not opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    Sqlite(rusqlite::Error),
    Newer { file: String, found: i64, known: i64 },
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Place {
    pub(crate) fn in_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// As it is named in errors.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Memory(name) => format!("memory:{name}"),
        }
    }

    /// Bytes of the write-ahead log's file.
    pub(crate) fn wal_bytes(&self) -> u64 {
        self.wal_path().and_then(|path| path.metadata().ok()).map_or(0, |meta| meta.len())
    }

    /// The write-ahead log's file.
    pub(crate) fn wal_path(&self) -> Option<PathBuf> {
        let Self::File(path) = self else { return None };
        let mut wal = path.clone().into_os_string();
        wal.push("-wal");
        Some(wal.into())
    }

    /// The connection that writes, with the schema brought up to date by those of `steps` that it has not had.
    ///
    /// What stands in the write-ahead log is copied into the database, so that it is written anew: after an fsync error of
    /// the process before, pages of the log may look well only in the cache of the kernel.
    pub(crate) fn writer(&self, options: Options, steps: &[&str]) -> Result<Connection, OpenError> {
        let mut connection = self.connect()?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let known = steps.len() as i64;
        if found > known {
            return Err(OpenError::Newer { file: self.name(), found, known });
        }
        if self.in_memory() {
            connection.execute_batch("PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF;")?;
        } else {
            connection.pragma_update(None, "page_size", options.page_size)?;
            if options.incremental_vacuum && found == 0 {
                connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            }
            let mode = to_wal(&connection)?;
            if mode != "wal" {
                let said = format!("{} cannot be put into WAL mode: it stays in mode {mode}", self.name());
                return Err(failed(ffi::SQLITE_CANTOPEN, said).into());
            }
            connection.pragma_update(None, "synchronous", options.synchronous)?;
            match checkpoint(&connection, Mode::Truncate) {
                Err(error) if failure(&error) == Failure::Full => {}
                other => _ = other?,
            }
        }
        for (i, step) in steps.iter().enumerate().skip(found as usize) {
            let transaction = connection.transaction()?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "user_version", i as i64 + 1)?;
            transaction.commit()?;
        }
        self.sync_folder()?;
        Ok(connection)
    }

    /// Makes the files' names durable: SQLite does so too, and ignores what comes of it.
    fn sync_folder(&self) -> rusqlite::Result<()> {
        let Self::File(path) = self else { return Ok(()) };
        let folder = path.parent().unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed(ffi::SQLITE_IOERR_DIR_FSYNC, format!("{}: {error}", folder.display())))
    }

    /// A connection that reads.
    pub(crate) fn reader(&self) -> rusqlite::Result<Connection> {
        let connection = self.connect()?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        Ok(connection)
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match self {
            Self::File(path) => Connection::open_with_flags(path, flags)?,
            Self::Memory(name) => Connection::open_with_flags(format!("file:/{name}?vfs=memdb"), flags | OpenFlags::SQLITE_OPEN_URI)?,
        };
        connection.busy_timeout(BUSY)?;
        // Its checkpoint at close, as its automatic one, would swallow errors.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.execute_batch("PRAGMA wal_autocheckpoint=0; PRAGMA secure_delete=OFF; PRAGMA temp_store=MEMORY;")?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }
}

/// Puts a database into WAL mode, and returns the mode in which it then is.
fn to_wal(connection: &Connection) -> rusqlite::Result<String> {
    let mut statement = connection.prepare("PRAGMA journal_mode=WAL")?;
    let mut rows = statement.query([])?;
    let mode = rows.next()?.map_or_else(|| Ok(String::new()), |row| row.get(0))?;
    // The change is committed after its only row: not looking for another one would swallow the error.
    while rows.next()?.is_some() {}
    Ok(mode)
}

fn failed(code: i32, said: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(said))
}

/// How much a checkpoint insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// As much as readers allow.
    Passive,
    /// All of it: waits for readers.
    Restart,
    /// All of it, and the file is emptied.
    Truncate,
}

/// Copies the write-ahead log into the database, synced; whether all of it was copied.
fn checkpoint(connection: &Connection, mode: Mode) -> rusqlite::Result<bool> {
    let sql = match mode {
        Mode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Mode::Restart => "PRAGMA wal_checkpoint(RESTART)",
        Mode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    let (busy, in_log, copied) =
        connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
    Ok(busy == 0 && in_log == copied)
}

/// Bytes in use, and bytes of the file that deletions have freed for what comes next.
pub(crate) fn sizes(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let get = |name| -> rusqlite::Result<i64> { connection.pragma_query_value(None, name, |row| row.get(0)) };
    let (page, pages, free) = (get("page_size")?, get("page_count")?, get("freelist_count")?);
    Ok(((page * (pages - free)).max(0) as u64, (page * free).max(0) as u64))
}

/// Gives the disk back up to `bytes` of what deletions have freed within the file; whether there is more.
pub(crate) fn give_back(connection: &Connection, wal: &mut WalKeeper, bytes: u64) -> rusqlite::Result<bool> {
    if wal.place().in_memory() {
        return Ok(false);
    }
    // On a full disk what is not copied yet goes first, and makes room.
    wal.empty(connection)?;
    let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    {
        // A step frees a page.
        let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({})", bytes / page as u64))?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
    }
    // The file becomes smaller when its write-ahead log is copied.
    wal.empty(connection)?;
    Ok(sizes(connection)?.1 > 0)
}

/// What an error of SQLite means for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No room; the transaction is rolled back and the connection usable.
    Full,
    /// What was written may not be on disk, or what is on disk is damaged: never to be retried.
    Fatal,
    Other,
}

pub(crate) fn failure(error: &rusqlite::Error) -> Failure {
    let Some(code) = error.sqlite_error().map(|error| error.extended_code) else { return Failure::Other };
    match code & 0xff {
        ffi::SQLITE_FULL => Failure::Full,
        // The file of shared memory beside the database could not grow; nothing durable lives there.
        ffi::SQLITE_IOERR if code == ffi::SQLITE_IOERR_SHMSIZE => Failure::Full,
        ffi::SQLITE_IOERR | ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => Failure::Fatal,
        _ => Failure::Other,
    }
}
