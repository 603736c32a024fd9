//! `points.db`: chunks in the order of writing, the oldest dropped beyond a size.

use std::sync::{Arc, Mutex, PoisonError};

use anomaly_engine::{SeriesHash, Timestamp};
use rusqlite::{Connection, params};

use super::Point;
use super::chunk::decode;
use super::owner::Recent;
use super::sample::{Sampler, sorted};
use crate::data_dir::DataDir;
use crate::sqlite::{self, Failure, OpenError, Options, Place, WalKeeper};

const FILE: &str = "points.db";
const WAL_LIMIT: u64 = 16 << 20;
const KEPT_CONNECTIONS: usize = 4;
/// How many chunks are deleted at once.
const DROP_STEP: i64 = 32;
/// So much is given back to the disk at once.
const GIVE_BACK_BYTES: u64 = 16 << 20;
/// How many chunks are looked into on each side of an instant.
const CHUNKS_AROUND: i64 = 64;
/// How far off an instant may be named, in nanoseconds: a client that reads epoch seconds as a double has them no better.
const DOUBLE: u64 = 500;

const SCHEMA: &str = "
CREATE TABLE chunks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, series BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, n INTEGER NOT NULL,
    bytes BLOB NOT NULL
);
CREATE INDEX chunks_series ON chunks (series, first, last, n);
";

/// Some points of one series, encoded.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) series: SeriesHash,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) n: usize,
    pub(super) bytes: Vec<u8>,
}

/// The connection that writes.
#[derive(Debug)]
pub(super) struct Storage {
    connection: Connection,
    place: Place,
    wal: WalKeeper,
    max_bytes: u64,
    /// The number of the last chunk that is committed.
    pub(super) last: i64,
}

impl Storage {
    /// Opens the database; a damaged one is deleted and begun anew. `None`: there is none to be had, said in the log.
    pub(super) fn open_or_begin_anew(dir: &DataDir, max_bytes: u64) -> Option<Self> {
        let place = dir.database(FILE);
        let wal_limit = dir.wal_limit(WAL_LIMIT);
        let opened = match Self::open(place.clone(), max_bytes, wal_limit) {
            Err(OpenError::Sqlite(error)) if sqlite::failure(&error) == Failure::Fatal => {
                tracing::warn!(%error, "points.db is damaged: recent points begin anew");
                if let Place::File(path) = &place {
                    for end in ["", "-wal", "-shm"] {
                        let mut name = path.clone().into_os_string();
                        name.push(end);
                        let _ = std::fs::remove_file(name);
                    }
                }
                Self::open(place, max_bytes, wal_limit)
            }
            other => other,
        };
        opened.inspect_err(|error| tracing::warn!(?error, "points.db cannot be used: only the latest points are kept, in memory")).ok()
    }

    fn open(place: Place, max_bytes: u64, wal_limit: u64) -> Result<Self, OpenError> {
        let options = Options { page_size: 8192, synchronous: "NORMAL", incremental_vacuum: true };
        let mut connection = place.writer(options, &[SCHEMA])?;
        let last = connection.query_row("SELECT coalesce(max(seq), 0) FROM chunks", [], |row| row.get(0))?;
        let wal = WalKeeper::new(&mut connection, place.clone(), wal_limit)?;
        Ok(Self { connection, wal, place, max_bytes, last })
    }

    pub(super) fn reader(&self) -> PointsReader {
        PointsReader(Some(Arc::new(Pool { place: self.place.clone(), idle: Mutex::default() })))
    }

    /// Writes chunks in one transaction, and drops the oldest ones where that is too much. On a full disk none is written.
    pub(super) fn write(&mut self, chunks: &[Chunk]) -> rusqlite::Result<()> {
        let written = self.insert(chunks);
        if written.as_ref().is_err_and(|error| sqlite::failure(error) == Failure::Full) {
            self.wal.found_no_room(&self.connection)?;
        }
        written
    }

    fn insert(&mut self, chunks: &[Chunk]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut last = self.last;
        {
            let sql = "INSERT INTO chunks (series, first, last, n, bytes) VALUES (?1, ?2, ?3, ?4, ?5)";
            let mut statement = transaction.prepare_cached(sql)?;
            for chunk in chunks {
                let (first, until) = (chunk.first.nanos(), chunk.last.nanos());
                last = statement.insert(params![chunk.series.to_be_bytes(), first, until, chunk.n as i64, chunk.bytes])?;
            }
        }
        transaction.commit()?;
        self.last = last;
        self.wal.wrote(&self.connection)?;
        self.drop_oldest()
    }

    /// Copies the write-ahead log into the database and empties it. For a clean stop.
    pub(super) fn close(mut self) -> rusqlite::Result<()> {
        self.wal.empty(&self.connection)
    }

    pub(super) fn forget(&self, series: SeriesHash) -> rusqlite::Result<()> {
        self.connection.prepare_cached("DELETE FROM chunks WHERE series = ?1")?.execute([series.to_be_bytes()]).map(drop)
    }

    /// Keeps at most `max_bytes` from now on and makes the file smaller.
    pub(super) fn shrink_to(&mut self, max_bytes: u64) -> rusqlite::Result<()> {
        self.max_bytes = max_bytes;
        self.drop_oldest()?;
        while sqlite::give_back(&self.connection, &mut self.wal, GIVE_BACK_BYTES)? {}
        Ok(())
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> u64 {
        sqlite::sizes(&self.connection).map_or(0, |(used, _)| used)
    }

    fn drop_oldest(&mut self) -> rusqlite::Result<()> {
        if self.bytes() <= self.max_bytes {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        while sqlite::sizes(&transaction)?.0 > self.max_bytes {
            let sql = "DELETE FROM chunks WHERE seq IN (SELECT seq FROM chunks ORDER BY seq LIMIT ?1)";
            let n = transaction.prepare_cached(sql)?.execute([DROP_STEP])?;
            if n == 0 {
                break;
            }
        }
        transaction.commit()?;
        self.wal.wrote(&self.connection)
    }
}

/// Reads chunks, on connections of its own; without a database there are none.
#[derive(Clone, Debug, Default)]
pub(super) struct PointsReader(Option<Arc<Pool>>);

#[derive(Debug)]
struct Pool {
    place: Place,
    /// Held to push or pop, never while reading.
    idle: Mutex<Vec<Connection>>,
}

impl PointsReader {
    pub(super) fn range(
        &self,
        series: SeriesHash,
        recent: &Recent,
        from: Timestamp,
        to: Timestamp,
        max_points: usize,
    ) -> rusqlite::Result<Option<Vec<Point>>> {
        let inside = |point: &&Point| point.timestamp >= from && point.timestamp <= to;
        // Everything that is kept of the series, to know whether it is known; the index alone is read.
        let sql = "SELECT seq, first, last, n FROM chunks WHERE series = ?1 AND seq <= ?2 ORDER BY seq";
        let kept = self.rows(sql, params![series.to_be_bytes(), recent.upto], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
        })?;
        if kept.is_empty() && recent.points.is_empty() {
            return Ok(None);
        }
        let wanted: Vec<_> = kept.into_iter().filter(|&(_, first, last, _)| last >= from.nanos() && first <= to.nanos()).collect();
        let recents = || recent.points.iter().filter(inside);
        let n = wanted.iter().map(|&(.., n)| n as usize).sum::<usize>() + recents().count();
        let mut all = Vec::new();
        let mut sampler = (n > max_points).then(|| {
            let times = recents().map(|point| point.timestamp.nanos());
            let start = wanted.iter().map(|&(_, first, ..)| first).chain(times.clone()).min().unwrap_or(0);
            let end = wanted.iter().map(|&(_, _, last, _)| last).chain(times).max().unwrap_or(0);
            let (start, end) = (Timestamp::from_nanos(start).max(from), Timestamp::from_nanos(end).min(to));
            Sampler::new(start, end, max_points)
        });
        let mut take = |point: &Point| match &mut sampler {
            Some(sampler) => sampler.offer(point),
            None => all.push((*point, all.len() as u64)),
        };
        for (seq, ..) in wanted {
            let bytes = self.rows("SELECT bytes FROM chunks WHERE seq = ?1", [seq], |row| row.get::<_, Vec<u8>>(0))?;
            // A chunk may have been dropped meanwhile.
            let points = bytes.first().and_then(|bytes| decode(bytes)).unwrap_or_default();
            points.iter().filter(inside).for_each(&mut take);
        }
        recents().for_each(&mut take);
        Ok(Some(sampler.map_or_else(|| sorted(all), Sampler::finish)))
    }

    /// The points of a range in the order in which they arrived; of more than `most` the latest.
    pub(super) fn arrivals(
        &self,
        series: SeriesHash,
        recent: &Recent,
        from: Timestamp,
        to: Timestamp,
        most: usize,
    ) -> rusqlite::Result<Vec<Point>> {
        let inside = |point: &Point| point.timestamp >= from && point.timestamp <= to;
        let sql = "SELECT seq FROM chunks WHERE series = ?1 AND seq <= ?2 AND last >= ?3 AND first <= ?4 ORDER BY seq DESC";
        let params = params![series.to_be_bytes(), recent.upto, from.nanos(), to.nanos()];
        let mut backwards: Vec<Point> = recent.points.iter().copied().rev().filter(inside).collect();
        for seq in self.rows(sql, params, |row| row.get::<_, i64>(0))? {
            if backwards.len() >= most {
                break;
            }
            backwards.extend(self.points_of(seq)?.into_iter().rev().filter(inside));
        }
        backwards.truncate(most);
        backwards.reverse();
        Ok(backwards)
    }

    pub(super) fn at(&self, series: SeriesHash, recent: &Recent, timestamp: Timestamp) -> rusqlite::Result<Option<Point>> {
        let off = |point: &Point| point.timestamp.nanos().abs_diff(timestamp.nanos());
        let nearest = |points: &[Point]| points.iter().rev().filter(|point| off(point) <= DOUBLE).min_by_key(|point| off(point)).copied();
        let mut found = nearest(&recent.points);
        let sql = "SELECT seq FROM chunks WHERE series = ?1 AND seq <= ?2 AND first <= ?3 AND last >= ?4 ORDER BY seq DESC";
        let (latest, earliest) = (timestamp.plus(DOUBLE as i64), timestamp.plus(-(DOUBLE as i64)));
        let params = params![series.to_be_bytes(), recent.upto, latest.nanos(), earliest.nanos()];
        for seq in self.rows(sql, params, |row| row.get::<_, i64>(0))? {
            if found.is_some_and(|point| off(&point) == 0) {
                break;
            }
            let there = nearest(&self.points_of(seq)?);
            found = there.filter(|there| found.is_none_or(|found| off(there) < off(&found))).or(found);
        }
        Ok(found)
    }

    pub(super) fn around(
        &self,
        series: SeriesHash,
        recent: &Recent,
        timestamp: Timestamp,
        n_before: usize,
        n_after: usize,
    ) -> rusqlite::Result<Vec<Point>> {
        let params = params![series.to_be_bytes(), recent.upto, timestamp.nanos(), CHUNKS_AROUND];
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let before = "SELECT seq, last FROM chunks WHERE series = ?1 AND seq <= ?2 AND first <= ?3 ORDER BY last DESC LIMIT ?4";
        let after = "SELECT seq, first FROM chunks WHERE series = ?1 AND seq <= ?2 AND last > ?3 ORDER BY first LIMIT ?4";
        let (mut past, mut future) = (Vec::new(), Vec::new());
        // What was written later is later in the order of arrival.
        let order = |seq: i64, i: usize| (seq as u64) << 20 | i as u64;
        for (i, point) in recent.points.iter().enumerate() {
            let side = if point.timestamp <= timestamp { &mut past } else { &mut future };
            side.push((*point, order(recent.upto + 1, i)));
        }
        for (seq, last) in self.rows(before, params, read)? {
            let newer = |(point, _): &&(Point, u64)| point.timestamp.nanos() > last && point.timestamp < timestamp;
            if past.iter().filter(newer).count() >= n_before && last < timestamp.nanos() {
                break;
            }
            let points = self.points_of(seq)?.into_iter().enumerate().map(|(i, point)| (point, order(seq, i)));
            past.extend(points.filter(|(point, _)| point.timestamp <= timestamp));
        }
        for (seq, first) in self.rows(after, params, read)? {
            if future.iter().filter(|(point, _): &&(Point, u64)| point.timestamp.nanos() < first).count() >= n_after {
                break;
            }
            let points = self.points_of(seq)?.into_iter().enumerate().map(|(i, point)| (point, order(seq, i)));
            future.extend(points.filter(|(point, _)| point.timestamp > timestamp));
        }
        let (past, mut future) = (sorted(past), sorted(future));
        let at = past.partition_point(|point| point.timestamp < timestamp);
        future.truncate(n_after);
        Ok(past[at.saturating_sub(n_before)..].iter().chain(&future).copied().collect())
    }

    fn points_of(&self, seq: i64) -> rusqlite::Result<Vec<Point>> {
        let bytes = self.rows("SELECT bytes FROM chunks WHERE seq = ?1", [seq], |row| row.get::<_, Vec<u8>>(0))?;
        Ok(bytes.first().and_then(|bytes| decode(bytes)).unwrap_or_default())
    }

    /// One statement, which is one read transaction.
    fn rows<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let Some(pool) = &self.0 else { return Ok(Vec::new()) };
        let idle = || pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let connection = kept.map_or_else(|| pool.place.reader(), Ok)?;
        let rows = connection.prepare_cached(sql)?.query_map(params, read)?.collect::<rusqlite::Result<Vec<T>>>();
        let mut idle = idle();
        if idle.len() < KEPT_CONNECTIONS {
            idle.push(connection);
        }
        rows
    }
}
