//! The embedded store in `anomaly.db`: its one writer.

use std::path::PathBuf;
use std::{fs, io};

use anomaly_engine::frame::Position;
use anomaly_engine::{SeriesHash, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::handling::{What, Word, pass, record};
use super::only_open::only_open;
pub use super::reader::StoreReader;
use super::schema::{ANOMALY, STEPS};
use super::{AnomalyRow, Change, Commit, Outcome, StoreError, Stored, UploadJudged, Write};
use crate::data_dir::DataDir;
use crate::log::sqlite::Durability;
use crate::sqlite::{self, Options, Place, WalKeeper};

const FILE: &str = "anomaly.db";
/// A store that is made from a journal.
const VIEW: &str = "view.db";
const WAL_LIMIT: u64 = 16 << 20;
/// At most so many anomalies are deleted at once, so that no commit waits for long.
const RETAIN_STEP: i64 = 1000;
/// So much is given back to the disk at once.
const GIVE_BACK_BYTES: u64 = 4 << 20;
/// What goes with an incident, each to be finished by which.
const OF_INCIDENTS: [&str; 5] = [
    "DELETE FROM handling WHERE incident",
    "DELETE FROM audit WHERE incident",
    "DELETE FROM told WHERE incident",
    "DELETE FROM waiting WHERE incident",
    "DELETE FROM transitions WHERE incident",
];

/// The store, and the only connection that writes to it.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    place: Place,
    position: Position,
    wal: WalKeeper,
    /// The last entry of a journal that was done to it; 0 where it follows none.
    applied: Applying,
    /// The entry that is being done.
    applying: Option<Applying>,
}

/// An entry of a journal: its number, and the chain behind it, which tells it from others of that number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applying {
    pub number: u64,
    pub chain: String,
}

impl Store {
    /// Opens the store, creating it where there is none. Commits are synced whatever the durability, save in memory.
    ///
    /// # Errors
    /// A file of a newer version, or one that cannot be opened.
    pub fn open(dir: &DataDir, durability: Durability) -> Result<Self, StoreError> {
        let place = if durability == Durability::Memory { dir.memory_database(FILE) } else { dir.database(FILE) };
        Self::open_at(place, "FULL", dir)
    }

    /// Opens a store that follows a journal and can always be made anew from it: it is whole after a crash, and may lack the end.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_view(dir: &DataDir) -> Result<Self, StoreError> {
        Self::open_at(dir.database(VIEW), "NORMAL", dir)
    }

    /// Where [`Store::open_view`] has its file.
    ///
    /// # Panics
    /// Where the directory is in memory: a view is a file.
    pub fn view_path(dir: &DataDir) -> PathBuf {
        dir.path().expect("a view is a file").join(VIEW)
    }

    /// Removes what [`Store::open_view`] has left.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove_view(dir: &DataDir) -> io::Result<()> {
        let path = Self::view_path(dir);
        for name in [path.clone(), path.with_extension("db-wal"), path.with_extension("db-shm")] {
            match fs::remove_file(name) {
                Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault),
                _ => {}
            }
        }
        Ok(())
    }

    fn open_at(place: Place, synchronous: &'static str, dir: &DataDir) -> Result<Self, StoreError> {
        let options = Options { page_size: 4096, synchronous, incremental_vacuum: true };
        let mut connection = place.writer(options, STEPS)?;
        let (position, applied) = connection.query_row("SELECT frame, row, applied, chain FROM meta", [], |row| {
            let position = Position { frame: row.get::<_, i64>(0)? as u64, row: row.get(1)? };
            Ok((position, Applying { number: row.get::<_, i64>(2)? as u64, chain: row.get(3)? }))
        })?;
        let wal = WalKeeper::new(&mut connection, place.clone(), dir.wal_limit(WAL_LIMIT))?;
        Ok(Self { connection, position, wal, place, applied, applying: None })
    }

    /// The last entry of a journal that was done to it.
    pub fn applied(&self) -> u64 {
        self.applied.number
    }

    /// The chain behind that entry.
    pub fn chain(&self) -> &str {
        &self.applied.chain
    }

    /// Does an entry of a journal, and notes that in the same transaction. One that fails by itself is noted as done: it fails
    /// everywhere alike.
    ///
    /// # Errors
    /// As for any write.
    pub fn apply_numbered(&mut self, entry: Applying, write: &Write) -> Result<Outcome, StoreError> {
        self.applying = Some(entry.clone());
        let mut done = self.apply(write);
        if done.as_ref().is_err_and(StoreError::is_everywhere)
            && let Err(fault) = self.transact(|_| Ok(()))
        {
            done = Err(fault);
        }
        self.applying = None;
        if done.as_ref().err().is_none_or(StoreError::is_everywhere) {
            self.applied = entry;
        }
        done
    }

    /// The identity of the store, by which cursors are told from those of another one: all that follow one journal have the same.
    ///
    /// # Errors
    /// As for any write.
    pub fn set_identity(&mut self, identity: &str) -> Result<(), StoreError> {
        self.transact(|transaction| transaction.execute("UPDATE meta SET store = ?1 WHERE store != ?1", [identity]).map(drop))
    }

    /// P: the outputs of all rows up to here are in the store, and none behind.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Stores what happened up to `commit.upto` and makes that P, all or nothing, durable when it returns. Outputs at or below
    /// P are the caller's to discard. Returns the anomalies that are new, with their numbers.
    ///
    /// # Errors
    /// Fatal (the process must stop), full, or SQLite's own; nothing of it is in the store.
    pub fn commit(&mut self, commit: &Commit) -> Result<Vec<Stored>, StoreError> {
        let position = self.position.max(commit.upto);
        let committed = write(&mut self.connection, commit, position, self.applying.as_ref());
        let stored = self.noting(committed)?;
        self.position = position;
        self.wal.wrote(&self.connection)?;
        Ok(stored)
    }

    /// A handle that reads.
    pub fn reader(&self) -> StoreReader {
        StoreReader::new(self.place.clone())
    }

    /// Deletes some of what was detected before `before`, oldest first; whether there is more. Call it again for that, between
    /// commits. An incident goes with its last anomaly.
    ///
    /// # Errors
    /// As for a commit.
    pub fn retain(&mut self, before: Timestamp) -> Result<bool, StoreError> {
        let retained = retain(&mut self.connection, before, self.applying.as_ref());
        let deleted = self.noting(retained)?;
        self.wal.wrote(&self.connection)?;
        Ok(deleted == RETAIN_STEP)
    }

    /// Gives the disk back some of what deletions have freed within the file; whether there is more.
    ///
    /// # Errors
    /// As for a commit.
    pub fn give_back(&mut self) -> Result<bool, StoreError> {
        let given = sqlite::give_back(&self.connection, &mut self.wal, GIVE_BACK_BYTES);
        self.noting(given)
    }

    /// Bytes of the file that deletions have freed for what comes.
    pub fn reusable(&self) -> u64 {
        sqlite::sizes(&self.connection).map_or(0, |(_, free)| free)
    }

    /// Bytes in use, the write-ahead log included.
    pub fn bytes(&self) -> u64 {
        sqlite::sizes(&self.connection).map_or(0, |(used, _)| used) + self.place.wal_bytes()
    }

    /// Runs `write` in a transaction of its own, durable when it returns.
    pub(super) fn transact<T>(&mut self, write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let run = |connection: &mut Connection, applying: Option<&Applying>| {
            let transaction = connection.transaction()?;
            let done = write(&transaction)?;
            note(&transaction, applying)?;
            transaction.commit()?;
            Ok(done)
        };
        let done = run(&mut self.connection, self.applying.as_ref());
        let done = self.noting(done)?;
        self.wal.wrote(&self.connection)?;
        Ok(done)
    }

    /// Makes the disk full at so many pages.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        self.connection.pragma_update(None, "max_page_count", pages).expect("a pragma");
    }

    /// Copies the write-ahead log into the database and empties it. For a clean stop.
    ///
    /// # Errors
    /// As for a commit.
    pub fn close(mut self) -> Result<(), StoreError> {
        Ok(self.wal.empty(&self.connection)?)
    }

    fn noting<T>(&mut self, result: rusqlite::Result<T>) -> Result<T, StoreError> {
        let result = result.map_err(StoreError::from);
        if matches!(result, Err(StoreError::Full(_))) {
            self.wal.found_no_room(&self.connection)?;
        }
        result
    }
}

/// Notes that an entry of a journal is done, where it is one.
fn note(transaction: &Transaction<'_>, applying: Option<&Applying>) -> rusqlite::Result<()> {
    let Some(Applying { number, chain }) = applying else { return Ok(()) };
    transaction.prepare_cached("UPDATE meta SET applied = ?1, chain = ?2")?.execute(params![*number as i64, chain]).map(drop)
}

fn write(connection: &mut Connection, commit: &Commit, position: Position, applying: Option<&Applying>) -> rusqlite::Result<Vec<Stored>> {
    let transaction = connection.transaction()?;
    let mut stored: Vec<(SeriesHash, Stored)> = Vec::new();
    for change in &commit.changes {
        match change {
            Change::Anomaly(row) => {
                if let Some(seq) = insert(&transaction, row, commit.at)? {
                    stored.push((row.series, Stored { seq, metric: row.metric.clone(), body: row.body.clone() }));
                }
            }
            Change::Forget(series) => {
                forget(&transaction, *series)?;
                stored.retain(|(of, _)| of != series);
            }
            Change::Idle(_) => {}
            Change::Resolved(incident) => resolve(&transaction, incident, commit.at)?,
            Change::OnlyOpen { share, incidents } => only_open(&transaction, *share, incidents, commit.at)?,
            Change::Judged(judged) => add_judged(&transaction, judged, commit.at)?,
        }
    }
    let sql = "UPDATE meta SET frame = ?1, row = ?2";
    transaction.prepare_cached(sql)?.execute(params![position.frame as i64, position.row])?;
    note(&transaction, applying)?;
    transaction.commit()?;
    Ok(stored.into_iter().map(|(_, stored)| stored).collect())
}

/// The anomaly's number, unless it is stored already.
fn insert(transaction: &Transaction<'_>, row: &AnomalyRow, at: Timestamp) -> rusqlite::Result<Option<u64>> {
    if transaction.prepare_cached("SELECT 1 FROM anomalies WHERE id = ?1")?.exists([&row.id])? {
        return Ok(None);
    }
    let series =
        match series_number(transaction, row.series)? {
            Some(number) => number,
            None => transaction
                .prepare_cached("INSERT INTO series (hash, name, metric, labels) VALUES (?1, ?2, ?3, ?4)")?
                .insert(params![row.series.to_be_bytes(), row.name, row.metric, row.labels])?,
        };
    // SQLite would make NULL of NaN, and refuse it.
    let [strength, height] = [row.strength, row.height].map(|x| if x.is_nan() { 0.0 } else { x });
    let seq = transaction.prepare_cached("INSERT INTO outbox (record, kind) VALUES (?1, ?2)")?.insert(params![row.id, ANOMALY])?;
    let was_over = is_over(transaction, &row.incident)?;
    let incident: i64 = transaction
        .prepare_cached(
            "INSERT INTO incidents (id, series, first, start, end, count, critical, peak, strength, opened, arrived, age)
                VALUES (?1, ?2, ?3, ?3, ?3, 1, ?4, ?5, ?6, ?7, ?7, ?8)
            ON CONFLICT (id) DO UPDATE SET start = min(start, excluded.start), end = max(end, excluded.end), count = count + 1,
                critical = max(critical, excluded.critical), strength = max(strength, excluded.strength),
                peak = CASE WHEN excluded.strength > strength THEN excluded.peak ELSE peak END, arrived = excluded.arrived,
                age = CASE WHEN excluded.end >= end THEN excluded.age ELSE age END
            RETURNING num",
        )?
        .query_row(
            params![row.incident, series, row.timestamp.nanos(), row.critical, seq, strength, at.nanos(), row.arrival.since(row.timestamp)],
            |row| row.get(0),
        )?;
    if was_over {
        reopen(transaction, incident, at)?;
    }
    transaction.prepare_cached("INSERT INTO anomalies VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?.execute(params![
        seq,
        row.id,
        series,
        row.timestamp.nanos(),
        row.critical,
        strength,
        height,
        incident,
        at.nanos()
    ])?;
    transaction.prepare_cached("INSERT INTO bodies VALUES (?1, ?2)")?.execute(params![seq, row.body])?;
    Ok(Some(seq as u64))
}

/// The engine found an incident quiet for a window.
pub(super) fn resolve(transaction: &Transaction<'_>, incident: &str, at: Timestamp) -> rusqlite::Result<()> {
    let sql = "UPDATE incidents SET resolved = ?2 WHERE id = ?1 AND resolved IS NULL RETURNING num";
    let num: Option<i64> = transaction.prepare_cached(sql)?.query_row(params![incident, at.nanos()], |row| row.get(0)).optional()?;
    let Some(num) = num else { return Ok(()) };
    record(transaction, at, What::Resolved, Some(num), &Word::default())?;
    pass(transaction, num)
}

/// Whether an incident is there, and resolved by the engine or by hand.
fn is_over(transaction: &Transaction<'_>, incident: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM incidents i LEFT JOIN handling h ON h.incident = i.num
        WHERE i.id = ?1 AND (i.resolved IS NOT NULL OR h.closed_of = i.arrived)";
    transaction.prepare_cached(sql)?.exists([incident])
}

/// An anomaly has joined an incident that was resolved.
fn reopen(transaction: &Transaction<'_>, incident: i64, at: Timestamp) -> rusqlite::Result<()> {
    let sql = "UPDATE incidents SET resolved = NULL, opened = ?2 WHERE num = ?1";
    transaction.prepare_cached(sql)?.execute([incident, at.nanos()])?;
    record(transaction, at, What::Reopened, Some(incident), &Word::default())
}

fn forget(transaction: &Transaction<'_>, series: SeriesHash) -> rusqlite::Result<()> {
    let Some(number) = series_number(transaction, series)? else { return Ok(()) };
    for sql in OF_INCIDENTS {
        transaction.prepare_cached(&format!("{sql} IN (SELECT num FROM incidents WHERE series = ?1)"))?.execute([number])?;
    }
    for sql in [
        "DELETE FROM outbox WHERE seq IN (SELECT seq FROM anomalies WHERE series = ?1)",
        "DELETE FROM bodies WHERE seq IN (SELECT seq FROM anomalies WHERE series = ?1)",
        "DELETE FROM anomalies WHERE series = ?1",
        "DELETE FROM incidents WHERE series = ?1",
        "DELETE FROM series WHERE num = ?1",
    ] {
        transaction.prepare_cached(sql)?.execute([number])?;
    }
    Ok(())
}

fn add_judged(transaction: &Transaction<'_>, judged: &UploadJudged, at: Timestamp) -> rusqlite::Result<()> {
    let mut sum = upload_judged(transaction, &judged.upload, judged.file)?.unwrap_or_else(|| UploadJudged {
        upload: judged.upload.clone(),
        file: judged.file,
        ..UploadJudged::default()
    });
    sum.rows += judged.rows;
    sum.late += judged.late;
    sum.anomalies += judged.anomalies;
    // They are of the file so far, not of these rows: the last word counts.
    sum.warnings.clone_from(&judged.warnings);
    let warnings = serde_json::to_string(&sum.warnings).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let (rows, late, anomalies) = (sum.rows as i64, sum.late as i64, sum.anomalies as i64);
    let sql = "INSERT OR REPLACE INTO upload_judged VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    transaction.prepare_cached(sql)?.execute(params![sum.upload, sum.file, rows, late, anomalies, warnings, at.nanos()])?;
    Ok(())
}

/// What was judged of a file of an upload so far.
pub(super) fn upload_judged(connection: &Connection, upload: &str, file: u32) -> rusqlite::Result<Option<UploadJudged>> {
    let sql = "SELECT rows, late, anomalies, warnings FROM upload_judged WHERE upload = ?1 AND file = ?2";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(UploadJudged {
            upload: upload.to_owned(),
            file,
            rows: row.get::<_, i64>(0)? as u64,
            late: row.get::<_, i64>(1)? as u64,
            anomalies: row.get::<_, i64>(2)? as u64,
            warnings: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
        })
    };
    connection.prepare_cached(sql)?.query_row(params![upload, file], read).optional()
}

/// The number under which the store knows a series.
pub(super) fn series_number(connection: &Connection, series: SeriesHash) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT num FROM series WHERE hash = ?1")?.query_row([series.to_be_bytes()], |row| row.get(0)).optional()
}

/// How many anomalies one step of retention deleted.
fn retain(connection: &mut Connection, before: Timestamp, applying: Option<&Applying>) -> rusqlite::Result<i64> {
    let transaction = connection.transaction()?;
    for sql in [
        "DELETE FROM upload_judged WHERE at < ?1",
        "DELETE FROM silences WHERE end < ?1",
        "DELETE FROM audit WHERE incident IS NULL AND at < ?1",
        "DELETE FROM notified WHERE notification IN (SELECT num FROM notifications WHERE made < ?1 AND status != 0)",
        "DELETE FROM notifications WHERE made < ?1 AND status != 0",
    ] {
        transaction.prepare_cached(sql)?.execute([before.nanos()])?;
    }
    let deleted = retain_anomalies(&transaction, before)?;
    note(&transaction, applying)?;
    transaction.commit()?;
    Ok(deleted)
}

fn retain_anomalies(transaction: &Transaction<'_>, before: Timestamp) -> rusqlite::Result<i64> {
    let (mut last, mut n) = (0, 0);
    let (mut incidents, mut series) = (Vec::new(), Vec::new());
    {
        let sql = "SELECT seq, incident, series, detected_at FROM anomalies ORDER BY seq LIMIT ?1";
        let mut statement = transaction.prepare_cached(sql)?;
        let mut rows = statement.query([RETAIN_STEP])?;
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(3)? >= before.nanos() {
                break;
            }
            last = row.get(0)?;
            n += 1;
            incidents.push(row.get::<_, i64>(1)?);
            series.push(row.get::<_, i64>(2)?);
        }
    }
    if n == 0 {
        return Ok(0);
    }
    for sql in ["DELETE FROM anomalies WHERE seq <= ?1", "DELETE FROM bodies WHERE seq <= ?1", "DELETE FROM outbox WHERE seq <= ?1"] {
        transaction.prepare_cached(sql)?.execute([last])?;
    }
    transaction.prepare_cached("UPDATE meta SET oldest = ?1 + 1")?.execute([last])?;
    incidents.sort_unstable();
    for same in incidents.chunk_by(|a, b| a == b) {
        shrink_incident(transaction, same[0], same.len() as i64, last)?;
    }
    series.sort_unstable();
    series.dedup();
    let sql = "DELETE FROM series WHERE num = ?1 AND NOT EXISTS (SELECT 1 FROM anomalies WHERE series = ?1)";
    for number in series {
        transaction.prepare_cached(sql)?.execute([number])?;
    }
    Ok(n)
}

/// Takes deleted anomalies, those up to number `last`, out of their incident.
fn shrink_incident(transaction: &Transaction<'_>, incident: i64, deleted: i64, last: i64) -> rusqlite::Result<()> {
    let left: (i64, i64) = transaction
        .prepare_cached("UPDATE incidents SET count = count - ?2 WHERE num = ?1 RETURNING count, peak")?
        .query_row([incident, deleted], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if left.0 <= 0 {
        for sql in OF_INCIDENTS {
            transaction.prepare_cached(&format!("{sql} = ?1"))?.execute([incident])?;
        }
        transaction.prepare_cached("DELETE FROM incidents WHERE num = ?1")?.execute([incident])?;
        return Ok(());
    }
    let sql = "UPDATE incidents SET start = (SELECT min(timestamp) FROM anomalies WHERE incident = ?1),
        end = (SELECT max(timestamp) FROM anomalies WHERE incident = ?1) WHERE num = ?1";
    transaction.prepare_cached(sql)?.execute([incident])?;
    if left.1 <= last {
        let sql = "UPDATE incidents SET critical = (SELECT max(critical) FROM anomalies WHERE incident = ?1),
            (peak, strength) = (SELECT seq, strength FROM anomalies WHERE incident = ?1 ORDER BY strength DESC, seq LIMIT 1)
            WHERE num = ?1";
        transaction.prepare_cached(sql)?.execute([incident])?;
    }
    Ok(())
}
