//! A filter as SQL over `anomalies`, and the index by which its newest page is found soonest.

use anomaly_engine::Timestamp;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::Filter;
use super::sqlite::series_number;

/// Up to so many series are collected by their index and sorted; beyond, the newest anomalies are looked through.
const FEW_SERIES: i64 = 64;
/// Up to so many anomalies in a range of time are collected and sorted; beyond, the newest are looked through.
const FEW_IN_RANGE: i64 = 5000;

/// Conditions with their values.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Conditions {
    pub(super) fn and(&mut self, sql: &str, values: impl IntoIterator<Item = Value>) {
        self.sql.push_str(if self.sql.is_empty() { "WHERE " } else { " AND " });
        self.sql.push_str(sql);
        self.values.extend(values);
    }
}

/// A filter, looked up in the store.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// On the column `series` of any table.
    series: Option<(&'static str, Value)>,
    /// On columns of `anomalies`.
    rest: Vec<(&'static str, Value)>,
    /// The clause that names an index of `anomalies`.
    pub(super) index: &'static str,
}

impl Resolved {
    /// `None`: nothing is of this filter.
    pub(super) fn new(connection: &Connection, filter: &Filter) -> rusqlite::Result<Option<Self>> {
        let mut index = "NOT INDEXED";
        let mut series = None;
        let metric = filter.metric.as_deref().filter(|metric| metric.is_empty() || !metric.bytes().all(|b| b == b'*'));
        if let Some(hash) = filter.series {
            let Some(number) = series_number(connection, hash)? else { return Ok(None) };
            if let Some(metric) = metric {
                let sql = "SELECT 1 FROM series WHERE num = ?1 AND metric GLOB ?2";
                if !connection.prepare_cached(sql)?.exists((number, glob(metric)))? {
                    return Ok(None);
                }
            }
            series = Some(("series = ?", Value::from(number)));
            index = "INDEXED BY anomalies_series";
        } else if let Some(metric) = metric {
            let exact = !metric.contains('*');
            let (sql, within) = if exact {
                ("SELECT count(*) FROM series WHERE metric = ?1", "series IN (SELECT num FROM series WHERE metric = ?)")
            } else {
                ("SELECT count(*) FROM series WHERE metric GLOB ?1", "series IN (SELECT num FROM series WHERE metric GLOB ?)")
            };
            let pattern = if exact { metric.to_owned() } else { glob(metric) };
            let n: i64 = connection.prepare_cached(sql)?.query_row([&pattern], |row| row.get(0))?;
            // SQLite ends a text at a NUL, where no metric has one.
            if n == 0 || metric.contains('\0') {
                return Ok(None);
            }
            series = Some((within, Value::from(pattern)));
            if n <= FEW_SERIES {
                index = "INDEXED BY anomalies_series";
            }
        }
        let mut rest = Vec::new();
        rest.extend(filter.from.map(|from| ("timestamp >= ?", Value::from(from.nanos()))));
        rest.extend(filter.to.map(|to| ("timestamp <= ?", Value::from(to.nanos()))));
        if index == "NOT INDEXED" && !rest.is_empty() {
            let (from, to) = (filter.from.map_or(i64::MIN, Timestamp::nanos), filter.to.map_or(i64::MAX, Timestamp::nanos));
            let sql = "SELECT count(*) FROM (SELECT 1 FROM anomalies WHERE timestamp BETWEEN ?1 AND ?2 LIMIT ?3)";
            let n: i64 = connection.prepare_cached(sql)?.query_row([from, to, FEW_IN_RANGE + 1], |row| row.get(0))?;
            if n <= FEW_IN_RANGE {
                index = "INDEXED BY anomalies_time";
            }
        }
        rest.extend(filter.critical.map(|critical| ("critical = ?", Value::from(i64::from(critical)))));
        Ok(Some(Self { series, rest, index }))
    }

    /// Whether it holds for everything.
    pub(super) fn is_all(&self) -> bool {
        self.series.is_none() && self.rest.is_empty()
    }

    /// The conditions on `anomalies`.
    pub(super) fn on_anomalies(&self) -> Conditions {
        let mut conditions = Conditions::default();
        for (sql, value) in self.series.iter().chain(&self.rest) {
            conditions.and(sql, [value.clone()]);
        }
        conditions
    }

    /// The conditions on `incidents i`: the filter is met by any anomaly.
    pub(super) fn on_incidents(&self) -> Conditions {
        let mut conditions = Conditions::default();
        if let Some((sql, value)) = &self.series {
            conditions.and(&format!("i.{sql}"), [value.clone()]);
        }
        for (sql, value) in &self.rest {
            // An incident whose span is outside needs no look at its anomalies.
            match *sql {
                "timestamp >= ?" => conditions.and("i.end >= ?", [value.clone()]),
                "timestamp <= ?" => conditions.and("i.start <= ?", [value.clone()]),
                _ => {}
            }
        }
        if !self.rest.is_empty() {
            let rest: Vec<_> = self.rest.iter().map(|(sql, _)| format!("a.{sql}")).collect();
            let sql = format!("EXISTS (SELECT 1 FROM anomalies a WHERE a.incident = i.num AND {})", rest.join(" AND "));
            conditions.and(&sql, self.rest.iter().map(|(_, value)| value.clone()));
        }
        conditions
    }
}

/// A pattern of ours, in which only `*` is special, as one of SQLite's.
fn glob(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        match c {
            '?' => out.push_str("[?]"),
            '[' => out.push_str("[[]"),
            _ => out.push(c),
        }
    }
    out
}
