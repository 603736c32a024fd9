//! Reads the store: pages of anomalies, the outbox, uploads. Incidents and the overview are in files of their own.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anomaly_engine::{SeriesHash, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::filter::Resolved;
use super::schema::ANOMALY;
use super::sqlite::{series_number, upload_judged};
use super::{Extent, Filter, Page, StoreError, Stored, UploadJudged};
use crate::sqlite::Place;

/// How many connections are kept for the next reader.
const KEPT: usize = 8;

/// Reads the store, on connections of its own. Every method blocks for as long as the disk takes; no transaction outlives one.
#[derive(Clone, Debug)]
pub struct StoreReader {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    place: Place,
    /// A mutex is enough: it is held to push or pop, never while reading.
    idle: Mutex<Vec<Connection>>,
}

impl StoreReader {
    pub(super) fn new(place: Place) -> Self {
        Self { pool: Arc::new(Pool { place, idle: Mutex::default() }) }
    }

    /// The anomalies of a filter in the order of detection, newest first, `limit` of them from `cursor` on.
    ///
    /// # Errors
    /// A cursor that is none, or SQLite's own.
    pub fn anomalies(&self, filter: &Filter, cursor: Option<&str>, limit: usize) -> Result<Page<Stored>, StoreError> {
        let before = cursor.map(parse_cursor).transpose()?.map_or(i64::MAX, |seq| seq as i64);
        self.read(|connection| {
            let Some(filter) = Resolved::new(connection, filter)? else { return Ok(Page { items: Vec::new(), next: None }) };
            let mut conditions = filter.on_anomalies();
            conditions.and("seq < ?", [Value::from(before)]);
            conditions.values.push(Value::from(limit as i64 + 1));
            let sql = format!(
                "SELECT a.seq, s.metric, b.body FROM (SELECT seq FROM anomalies {} {} ORDER BY seq DESC LIMIT ?) p
                JOIN anomalies a ON a.seq = p.seq JOIN series s ON s.num = a.series JOIN bodies b ON b.seq = p.seq ORDER BY p.seq DESC",
                filter.index, conditions.sql
            );
            let mut items: Vec<Stored> =
                connection.prepare_cached(&sql)?.query_map(params_from_iter(conditions.values), stored)?.collect::<Result<_, _>>()?;
            let more = items.len() > limit;
            items.truncate(limit);
            let next = items.last().filter(|_| more).map(|last| last.seq.to_string());
            Ok(Page { items, next })
        })
    }

    /// One anomaly.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn anomaly(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        let sql = "SELECT a.seq, s.metric, b.body FROM anomalies a JOIN series s ON s.num = a.series JOIN bodies b ON b.seq = a.seq
            WHERE a.id = ?1";
        self.read(|connection| Ok(connection.prepare_cached(sql)?.query_row([id], stored).optional()?))
    }

    /// The anomaly of a series at an instant; the latest detected, where there are several.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn anomaly_at(&self, series: SeriesHash, timestamp: Timestamp) -> Result<Option<Stored>, StoreError> {
        let sql = "SELECT a.seq, s.metric, b.body FROM anomalies a JOIN series s ON s.num = a.series JOIN bodies b ON b.seq = a.seq
            WHERE a.series = ?1 AND a.timestamp = ?2 ORDER BY a.seq DESC LIMIT 1";
        self.read(|connection| {
            let Some(number) = series_number(connection, series)? else { return Ok(None) };
            Ok(connection.prepare_cached(sql)?.query_row([number, timestamp.nanos()], stored).optional()?)
        })
    }

    /// Anomalies of a series from an instant in event time on.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn anomalies_since(&self, series: SeriesHash, from: Timestamp) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM anomalies WHERE series = ?1 AND timestamp >= ?2";
        self.read(|connection| {
            let Some(number) = series_number(connection, series)? else { return Ok(0) };
            Ok(connection.prepare_cached(sql)?.query_row([number, from.nanos()], |row| row.get::<_, i64>(0))? as u64)
        })
    }

    /// The outbox in the order of detection, oldest first: `limit` anomalies behind the one with the number `after`.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn after(&self, after: Option<u64>, limit: usize) -> Result<Vec<Stored>, StoreError> {
        let sql = "SELECT o.seq, s.metric, b.body FROM outbox o JOIN anomalies a ON a.seq = o.seq JOIN series s ON s.num = a.series
            JOIN bodies b ON b.seq = o.seq WHERE o.seq > ?1 AND o.kind = ?2 ORDER BY o.seq LIMIT ?3";
        let after = after.map_or(0, |after| i64::try_from(after).unwrap_or(i64::MAX));
        self.read(|connection| {
            Ok(connection.prepare_cached(sql)?.query_map(params![after, ANOMALY, limit as i64], stored)?.collect::<Result<_, _>>()?)
        })
    }

    /// Which numbers there are, and in which store.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn extent(&self) -> Result<Extent, StoreError> {
        let sql = "SELECT oldest, store FROM meta";
        self.read(|connection| {
            let (oldest, store) = connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))?;
            Ok(Extent { newest: newest(connection)?, oldest, store })
        })
    }

    /// Writes a copy of the whole store, as of one moment, to a file that is not there yet; returns the last entry of the journal that
    /// is in it.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn copy_to(&self, path: &Path) -> Result<u64, StoreError> {
        let connection = self.pool.place.reader()?;
        connection.pragma_update(None, "query_only", false)?;
        connection.execute("VACUUM INTO ?1", [path.to_string_lossy()])?;
        let copy = Connection::open(path)?;
        Ok(copy.query_row("SELECT applied FROM meta", [], |row| row.get::<_, i64>(0))? as u64)
    }

    /// What was judged of a file of an upload so far.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn upload_judged(&self, upload: &str, file: u32) -> Result<Option<UploadJudged>, StoreError> {
        self.read(|connection| Ok(upload_judged(connection, upload, file)?))
    }

    /// Runs `read` in one transaction, so that all it sees is of one moment.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.pool.place.reader()?,
        };
        let transaction = connection.unchecked_transaction()?;
        let result = read(&transaction);
        drop(transaction);
        let mut idle = self.idle();
        if idle.len() < KEPT {
            idle.push(connection);
        }
        result
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn newest(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0)";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))? as u64)
}

pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored { seq: row.get::<_, i64>(0)? as u64, metric: row.get(1)?, body: row.get(2)? })
}

/// A number as we write it, and nothing else: digits, no sign, no zero in front.
pub(super) fn parse_cursor(text: &str) -> Result<u64, StoreError> {
    let number = text.parse().ok().filter(|number: &u64| i64::try_from(*number).is_ok() && number.to_string() == text);
    number.ok_or_else(|| StoreError::BadCursor(text.chars().take(40).collect()))
}
