//! What is held back, and how much was told.

use anomaly_engine::Timestamp;
use rusqlite::{Connection, Row, params};

use super::{HeldBack, Phase, Status};
use crate::notify::message::{Digest, Worst};
use crate::store::StoreError;
use crate::store::reader::StoreReader;

/// The worst series that a digest names.
const WORST: i64 = 10;

impl StoreReader {
    /// What a digest of a channel would hold now; `None` where nothing is held back.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn held_back(&self, channel: &str) -> Result<Option<HeldBack>, StoreError> {
        self.read(|connection| held_back(connection, channel))
    }

    /// When the messages were made that count in the budget since then, newest first.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn counted(&self, since: Timestamp) -> Result<Vec<Timestamp>, StoreError> {
        let sql = "SELECT min(made) FROM notifications WHERE counts = 1 AND made > ?1 AND status != ?2 GROUP BY message ORDER BY 1 DESC";
        self.read(|connection| {
            let read = |row: &Row<'_>| row.get(0).map(Timestamp::from_nanos);
            Ok(connection.prepare_cached(sql)?.query_map(params![since.nanos(), Status::Held as i64], read)?.collect::<Result<_, _>>()?)
        })
    }

    /// When the newest message of a channel was made that counts in the budget.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn last_made(&self, channel: &str) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT max(made) FROM notifications WHERE channel = ?1 AND counts = 1 AND status != ?2";
        self.read(|connection| {
            let read = |row: &Row<'_>| row.get::<_, Option<i64>>(0);
            Ok(connection.prepare_cached(sql)?.query_row(params![channel, Status::Held as i64], read)?.map(Timestamp::from_nanos))
        })
    }

    /// How many notifications are held that no digest has counted.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn held(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM notifications WHERE status = ?1 AND digest IS NULL";
        self.read(|connection| Ok(connection.prepare_cached(sql)?.query_row([Status::Held as i64], |row| row.get::<_, i64>(0))? as u64))
    }
}

fn held_back(connection: &Connection, channel: &str) -> Result<Option<HeldBack>, StoreError> {
    let (held, old) = (Status::Held as i64, Phase::Old as i64);
    let sql = "SELECT max(num), min(made) FROM notifications WHERE channel = ?1 AND status = ?2 AND digest IS NULL";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let (upto, made): (Option<i64>, Option<i64>) = connection.prepare_cached(sql)?.query_row(params![channel, held], read)?;
    let sql = "SELECT max(at), min(at) FROM told WHERE phase = ?1 AND times = 0 AND instr(channels, ?2) > 0";
    let (old_until, old_since): (Option<i64>, Option<i64>) = connection.prepare_cached(sql)?.query_row(params![old, channel], read)?;
    let Some(since) = made.into_iter().chain(old_since).min() else { return Ok(None) };
    // Of old data only what no digest has counted; of all else the incident as it stands.
    let news = format!("CASE WHEN t.phase = {old} THEN i.count - t.count ELSE i.count END");
    let counted = "SELECT num FROM incidents WHERE id IN (SELECT d.incident FROM notified d JOIN notifications n ON n.num = d.notification
            WHERE n.channel = ?1 AND n.status = ?2 AND n.digest IS NULL)
        UNION SELECT incident FROM told WHERE phase = ?3 AND times = 0 AND instr(channels, ?1) > 0";
    let sql = format!(
        "SELECT s.name, count(*) AS n, sum({news}), max(i.critical) FROM incidents i JOIN series s ON s.num = i.series
        LEFT JOIN told t ON t.incident = i.num
        WHERE i.num IN ({counted}) GROUP BY i.series ORDER BY max(i.critical) DESC, max(i.strength) DESC, sum({news}) DESC LIMIT ?4"
    );
    let read = |row: &Row<'_>| {
        let (incidents, anomalies) = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64);
        Ok(Worst { series: row.get(0)?, incidents, anomalies, critical: row.get(3)? })
    };
    let series = connection.prepare_cached(&sql)?.query_map(params![channel, held, old, WORST], read)?.collect::<Result<_, _>>()?;
    let sql = format!(
        "SELECT count(*), coalesce(sum({news}), 0), count(DISTINCT i.series), coalesce(sum(i.num IN (SELECT incident FROM told
            WHERE phase = ?3 AND times = 0 AND instr(channels, ?1) > 0)), 0) FROM incidents i LEFT JOIN told t ON t.incident = i.num WHERE i.num IN ({counted})"
    );
    let read = |row: &Row<'_>| Ok([0, 1, 2, 3].map(|i| row.get::<_, i64>(i).unwrap_or(0) as u64));
    let [incidents, anomalies, n_series, old] = connection.prepare_cached(&sql)?.query_row(params![channel, held, old], read)?;
    if incidents == 0 {
        return Ok(None);
    }
    let digest = Digest { since: Timestamp::from_nanos(since), incidents, anomalies, old, series, n_series };
    let stamp = |nanos: Option<i64>| nanos.map(Timestamp::from_nanos);
    Ok(Some(HeldBack { digest, upto: upto.unwrap_or(0), old_until: stamp(old_until), old_since: stamp(old_since) }))
}
