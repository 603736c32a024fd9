//! Reads incidents.

use anomaly_engine::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::filter::Resolved;
use super::reader::{StoreReader, newest, parse_cursor, stored};
use super::{Filter, Incident, IncidentPage, Page, StoreError, Stored, Totals};

/// The most anomalies that are listed with an incident.
const LISTED: i64 = 10_000;

const COLUMNS: &str = "i.id, s.name, s.metric, s.labels, i.start, i.end, i.count, i.critical, b.body, i.first, i.num";

impl StoreReader {
    /// The incidents of a filter, which any of an incident's anomalies may meet, in the order of the anomaly that was detected
    /// first in each, latest first, and of creation where that is the same; and what the filter holds in all.
    ///
    /// # Errors
    /// A cursor that is none, or SQLite's own.
    pub fn incidents(&self, filter: &Filter, cursor: Option<&str>, limit: usize) -> Result<IncidentPage, StoreError> {
        let before = cursor.map(parse_place).transpose()?.unwrap_or((i64::MAX, i64::MAX));
        self.read(|connection| {
            let as_of = newest(connection)?;
            let Some(filter) = Resolved::new(connection, filter)? else {
                return Ok(IncidentPage { page: Page { items: Vec::new(), next: None }, totals: Totals::default(), as_of });
            };
            let mut conditions = filter.on_incidents();
            conditions.and("(i.first, i.num) < (?, ?)", [before.0.into(), before.1.into(), Value::from(limit as i64 + 1)]);
            let sql = format!(
                "SELECT {COLUMNS} FROM (SELECT num FROM incidents i {} ORDER BY i.first DESC, i.num DESC LIMIT ?) p
                JOIN incidents i ON i.num = p.num JOIN series s ON s.num = i.series JOIN bodies b ON b.seq = i.peak
                ORDER BY i.first DESC, i.num DESC",
                conditions.sql
            );
            let read = |row: &Row<'_>| Ok((incident(row)?, (row.get::<_, i64>(9)?, row.get::<_, i64>(10)?)));
            let mut items: Vec<(Incident, (i64, i64))> =
                connection.prepare_cached(&sql)?.query_map(params_from_iter(conditions.values), read)?.collect::<Result<_, _>>()?;
            let more = items.len() > limit;
            items.truncate(limit);
            let next = items.last().filter(|_| more).map(|(_, (first, num))| format!("{first}-{num}"));
            let items = items.into_iter().map(|(incident, _)| incident).collect();
            Ok(IncidentPage { page: Page { items, next }, totals: totals(connection, &filter)?, as_of })
        })
    }

    /// One incident with its anomalies in the order of detection; the latest 10,000, where there are more.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn incident(&self, id: &str) -> Result<Option<(Incident, Vec<Stored>)>, StoreError> {
        let one =
            format!("SELECT {COLUMNS} FROM incidents i JOIN series s ON s.num = i.series JOIN bodies b ON b.seq = i.peak WHERE i.id = ?1");
        let all = "SELECT p.seq, s.metric, b.body FROM
                (SELECT seq, series FROM anomalies WHERE incident = ?1 ORDER BY seq DESC LIMIT ?2) p
            JOIN series s ON s.num = p.series JOIN bodies b ON b.seq = p.seq ORDER BY p.seq";
        self.read(|connection| {
            let read = |row: &Row<'_>| Ok((incident(row)?, row.get::<_, i64>(10)?));
            let Some((incident, num)) = connection.prepare_cached(&one)?.query_row([id], read).optional()? else { return Ok(None) };
            let anomalies = connection.prepare_cached(all)?.query_map(params![num, LISTED], stored)?.collect::<Result<_, _>>()?;
            Ok(Some((incident, anomalies)))
        })
    }
}

fn totals(connection: &Connection, filter: &Resolved) -> rusqlite::Result<Totals> {
    let conditions = filter.on_anomalies();
    let sql = if filter.is_all() {
        "SELECT count(*), coalesce(sum(count), 0) FROM incidents".to_owned()
    } else {
        format!("SELECT count(DISTINCT incident), count(*) FROM anomalies {}", conditions.sql)
    };
    connection.prepare_cached(&sql)?.query_row(params_from_iter(conditions.values), |row| {
        Ok(Totals { incidents: row.get::<_, i64>(0)? as u64, anomalies: row.get::<_, i64>(1)? as u64 })
    })
}

fn incident(row: &Row<'_>) -> rusqlite::Result<Incident> {
    Ok(Incident {
        id: row.get(0)?,
        name: row.get(1)?,
        metric: row.get(2)?,
        labels: row.get(3)?,
        start: Timestamp::from_nanos(row.get(4)?),
        end: Timestamp::from_nanos(row.get(5)?),
        count: row.get::<_, i64>(6)? as u64,
        critical: row.get(7)?,
        peak: row.get(8)?,
    })
}

/// The cursor of incidents: time and number of the last one seen.
fn parse_place(text: &str) -> Result<(i64, i64), StoreError> {
    let parts = text.split_once('-').ok_or_else(|| StoreError::BadCursor(text.chars().take(40).collect()))?;
    Ok((parse_cursor(parts.0)? as i64, parse_cursor(parts.1)? as i64))
}
