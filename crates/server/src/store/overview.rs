//! Counts in event time, for the overview.

use anomaly_engine::{NANOS, Timestamp};
use rusqlite::params;

use super::reader::StoreReader;
use super::{Cell, Lane, StoreError};

const HOUR: i64 = 3600 * NANOS;

impl StoreReader {
    /// The series with the most anomalies from `from` to `to`, `top` of them, then by name; each with `buckets` cells of equal
    /// width, of which the `i`th covers `[from + i·width, from + (i + 1)·width)`, and the last one `to` as well.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn heat(&self, from: Timestamp, to: Timestamp, buckets: usize, top: usize) -> Result<Vec<Lane>, StoreError> {
        if to < from || buckets == 0 {
            return Ok(Vec::new());
        }
        let lanes = "SELECT s.num, s.name, s.metric, s.labels FROM
                (SELECT series, count(*) AS n FROM anomalies WHERE timestamp BETWEEN ?1 AND ?2 GROUP BY series) c
            JOIN series s ON s.num = c.series ORDER BY c.n DESC, s.name LIMIT ?3";
        let cells = "SELECT min((timestamp - ?2) / ?4, ?5) AS bucket, count(*), max(height), max(critical) FROM anomalies
            WHERE series = ?1 AND timestamp BETWEEN ?2 AND ?3 GROUP BY bucket";
        // Rounded up to a nanosecond, so that the last bucket ends at or behind `to`.
        let n_buckets = i64::try_from(buckets).unwrap_or(i64::MAX);
        let span = to.since(from);
        let width = (span / n_buckets + i64::from(span % n_buckets != 0)).max(1);
        self.read(|connection| {
            let read = |row: &rusqlite::Row<'_>| {
                let lane = Lane { name: row.get(1)?, metric: row.get(2)?, labels: row.get(3)?, cells: vec![None; buckets] };
                Ok((row.get::<_, i64>(0)?, lane))
            };
            let found =
                connection.prepare_cached(lanes)?.query_map(params![from.nanos(), to.nanos(), top as i64], read)?.collect::<Vec<_>>();
            let mut statement = connection.prepare_cached(cells)?;
            let mut out = Vec::with_capacity(found.len());
            for lane in found {
                let (series, mut lane) = lane?;
                let mut rows = statement.query(params![series, from.nanos(), to.nanos(), width, n_buckets - 1])?;
                while let Some(row) = rows.next()? {
                    let cell = Cell { count: row.get::<_, i64>(1)? as u64, height: row.get(2)?, critical: row.get(3)? };
                    lane.cells[row.get::<_, i64>(0)? as usize] = Some(cell);
                }
                out.push(lane);
            }
            Ok(out)
        })
    }

    /// Anomalies from an instant in event time on: warnings, and critical ones.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn counts_since(&self, from: Timestamp) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT count(*), coalesce(sum(critical), 0) FROM anomalies WHERE timestamp >= ?1";
        let (all, critical): (i64, i64) =
            self.read(|connection| Ok(connection.prepare_cached(sql)?.query_row([from.nanos()], |row| Ok((row.get(0)?, row.get(1)?)))?))?;
        Ok(((all - critical) as u64, critical as u64))
    }

    /// Anomalies in each of the 24 hours up to `now`, in event time, oldest first.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn hours(&self, now: Timestamp) -> Result<[u64; 24], StoreError> {
        let sql = "SELECT (?1 - timestamp) / ?2 AS ago, count(*) FROM anomalies WHERE timestamp > ?1 - 24 * ?2 AND timestamp <= ?1
            GROUP BY ago";
        self.read(|connection| {
            let mut hours = [0; 24];
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([now.nanos(), HOUR])?;
            while let Some(row) = rows.next()? {
                let ago = row.get::<_, i64>(0)?.clamp(0, 23) as usize;
                hours[23 - ago] = row.get::<_, i64>(1)? as u64;
            }
            Ok(hours)
        })
    }
}
