//! Reads incidents.

use anomaly_engine::{NANOS, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::Deserialize;

use super::filter::{Conditions, Resolved};
use super::handling::{Entry, history, labels_of, silences, state_of};
use super::notices::{Notification, of_incident};
use super::reader::{StoreReader, newest, parse_cursor, stored};
use super::{Filter, Incident, IncidentPage, Page, State, StoreError, Stored, Totals};
use crate::silence::{Silence, Subject, silencing};

/// The most anomalies that are listed with an incident.
pub const LISTED: usize = 10_000;
/// Incidents that are read at a time where a silence decides whether they are asked for.
const TURN: usize = 1000;
/// The most incidents that are told to have started together with one, besides the first mover.
const TOGETHER: i64 = 4;

pub(super) const COLUMNS: &str = "i.id, s.name, s.metric, s.labels, i.start, i.end, i.count, i.critical, b.body, i.first, i.num, \
    i.resolved, CASE WHEN h.closed_of = i.arrived THEN h.closed END, \
    CASE WHEN h.acknowledged_of = i.opened THEN h.acknowledged END, h.by, h.comment, h.useful";
pub(super) const TABLES: &str =
    "JOIN series s ON s.num = i.series JOIN bodies b ON b.seq = i.peak LEFT JOIN handling h ON h.incident = i.num";
const ACKNOWLEDGED: &str = "coalesce(h.acknowledged_of = i.opened, 0)";
const RESOLVED: &str = "(i.resolved IS NOT NULL OR coalesce(h.closed_of = i.arrived, 0))";

/// An incident with all that is known of it.
#[derive(Clone, Debug)]
pub struct Whole {
    pub incident: Incident,
    /// In the order of detection; the latest, where there are more than were asked for.
    pub anomalies: Vec<Stored>,
    /// Oldest first.
    pub history: Vec<Entry>,
    /// Oldest first.
    pub notifications: Vec<Notification>,
    /// Others that began within a window of it, nearest first: the first mover of them all, and the four nearest.
    pub together: Vec<Incident>,
}

impl StoreReader {
    /// The incidents of a filter, which any of an incident's anomalies may meet, in the order of the anomaly that was detected
    /// first in each, latest first, and of creation where that is the same; and what the filter holds in all.
    ///
    /// # Errors
    /// A cursor that is none, or SQLite's own.
    pub fn incidents(&self, filter: &Filter, cursor: Option<&str>, limit: usize, now: Timestamp) -> Result<IncidentPage, StoreError> {
        let mut before = cursor.map(parse_place).transpose()?.unwrap_or((i64::MAX, i64::MAX));
        self.read(|connection| {
            let as_of = newest(connection)?;
            let Some(resolved) = Resolved::new(connection, filter)? else {
                return Ok(IncidentPage { page: Page { items: Vec::new(), next: None }, totals: Totals::default(), as_of });
            };
            let states = States::new(&filter.states, silences(connection, now)?, now);
            let mut items: Vec<(Incident, (i64, i64))> = Vec::new();
            let turn = if states.needs_silences() { limit.max(TURN) } else { limit };
            // What a silence holds for is seen only when it has been read, so a page may take several turns.
            loop {
                let mut conditions = resolved.on_incidents();
                states.on_incidents(&mut conditions);
                conditions.and("(i.first, i.num) < (?, ?)", [before.0.into(), before.1.into(), Value::from(turn as i64 + 1)]);
                let sql = format!(
                    "SELECT {COLUMNS} FROM (SELECT num FROM incidents i LEFT JOIN handling h ON h.incident = i.num {} \
                    ORDER BY i.first DESC, i.num DESC LIMIT ?) p JOIN incidents i ON i.num = p.num {TABLES} ORDER BY i.first DESC, i.num DESC",
                    conditions.sql
                );
                let read = |row: &Row<'_>| Ok((incident(row, &states.silences, now)?, (row.get::<_, i64>(9)?, row.get::<_, i64>(10)?)));
                let read: Vec<(Incident, (i64, i64))> =
                    connection.prepare_cached(&sql)?.query_map(params_from_iter(conditions.values), read)?.collect::<Result<_, _>>()?;
                let last = read.last().filter(|_| read.len() > turn).map(|(_, place)| *place);
                items.extend(read.into_iter().filter(|(incident, _)| states.holds(incident.state)));
                match last {
                    Some(place) if items.len() <= limit => before = place,
                    _ => break,
                }
            }
            let more = items.len() > limit;
            items.truncate(limit);
            let next = items.last().filter(|_| more).map(|(_, (first, num))| format!("{first}-{num}"));
            let items = items.into_iter().map(|(incident, _)| incident).collect();
            Ok(IncidentPage { page: Page { items, next }, totals: totals(connection, &resolved, &states)?, as_of })
        })
    }

    /// One incident with all that is known of it, and its latest `limit` anomalies.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn incident(&self, id: &str, limit: usize, now: Timestamp) -> Result<Option<Whole>, StoreError> {
        let all = "SELECT p.seq, s.metric, b.body FROM
                (SELECT seq, series FROM anomalies WHERE incident = ?1 ORDER BY seq DESC LIMIT ?2) p
            JOIN series s ON s.num = p.series JOIN bodies b ON b.seq = p.seq ORDER BY p.seq";
        self.read(|connection| {
            let silences = silences(connection, now)?;
            let one = format!("SELECT {COLUMNS} FROM incidents i {TABLES} WHERE i.id = ?1");
            let read = |row: &Row<'_>| Ok((incident(row, &silences, now)?, (row.get::<_, i64>(9)?, row.get::<_, i64>(10)?)));
            let found = connection.prepare_cached(&one)?.query_row([id], read).optional()?;
            let Some((one, (first, num))) = found else { return Ok(None) };
            let anomalies = connection.prepare_cached(all)?.query_map(params![num, limit as i64], stored)?.collect::<Result<_, _>>()?;
            let window = window_of(&one.peak);
            // The nearest, and the first mover of them all.
            let beside = format!(
                "SELECT {COLUMNS} FROM (
                    SELECT num FROM (SELECT num FROM incidents WHERE first BETWEEN ?1 AND ?2 AND num != ?3 ORDER BY first, num LIMIT 1)
                    UNION SELECT num FROM (SELECT num FROM incidents WHERE first BETWEEN ?1 AND ?2 AND num != ?3
                        ORDER BY abs(first - ?4), num LIMIT ?5)) p
                JOIN incidents i ON i.num = p.num {TABLES} ORDER BY abs(i.first - ?4), i.num"
            );
            let place = params![first.saturating_sub(window), first.saturating_add(window), num, first, TOGETHER];
            let together =
                connection.prepare_cached(&beside)?.query_map(place, |row| incident(row, &silences, now))?.collect::<Result<_, _>>()?;
            let (history, notifications) = (history(connection, num)?, of_incident(connection, id)?);
            Ok(Some(Whole { incident: one, anomalies, history, notifications, together }))
        })
    }
}

/// Which states are asked for, as far as SQL can tell, and what silences hold.
struct States {
    /// Empty: all.
    asked: Vec<State>,
    silences: Vec<Silence>,
    now: Timestamp,
}

impl States {
    fn new(asked: &[State], silences: Vec<Silence>, now: Timestamp) -> Self {
        Self { asked: asked.to_vec(), silences, now }
    }

    fn holds(&self, state: State) -> bool {
        self.asked.is_empty() || self.asked.contains(&state)
    }

    /// Whether what SQL finds must still be looked at.
    fn needs_silences(&self) -> bool {
        !self.silences.is_empty() && self.holds(State::Open) != self.holds(State::Silenced)
    }

    /// On `incidents i` and `handling h`.
    fn on_incidents(&self, conditions: &mut Conditions) {
        if self.asked.is_empty() {
            return;
        }
        let parts = [
            (self.holds(State::Resolved), RESOLVED.to_owned()),
            (self.holds(State::Acknowledged), format!("(NOT {RESOLVED} AND {ACKNOWLEDGED})")),
            (self.holds(State::Open) || self.holds(State::Silenced), format!("(NOT {RESOLVED} AND NOT {ACKNOWLEDGED})")),
        ];
        let parts: Vec<_> = parts.into_iter().filter_map(|(asked, sql)| asked.then_some(sql)).collect();
        conditions.and(&format!("({})", parts.join(" OR ")), []);
    }
}

fn totals(connection: &Connection, filter: &Resolved, states: &States) -> rusqlite::Result<Totals> {
    let mut conditions = filter.on_anomalies();
    let read = |row: &Row<'_>| Ok(Totals { incidents: row.get::<_, i64>(0)? as u64, anomalies: row.get::<_, i64>(1)? as u64 });
    if states.asked.is_empty() {
        let sql = if filter.is_all() {
            "SELECT count(*), coalesce(sum(count), 0) FROM incidents".to_owned()
        } else {
            format!("SELECT count(DISTINCT incident), count(*) FROM anomalies {}", conditions.sql)
        };
        return connection.prepare_cached(&sql)?.query_row(params_from_iter(conditions.values), read);
    }
    let met = format!("SELECT incident, count(*) AS n FROM anomalies {} GROUP BY incident", conditions.sql);
    let mut on_states = Conditions::default();
    states.on_incidents(&mut on_states);
    conditions.values.extend(on_states.values);
    let from = format!("FROM ({met}) a JOIN incidents i ON i.num = a.incident LEFT JOIN handling h ON h.incident = i.num");
    if !states.needs_silences() {
        let sql = format!("SELECT count(*), coalesce(sum(a.n), 0) {from} {}", on_states.sql);
        return connection.prepare_cached(&sql)?.query_row(params_from_iter(conditions.values), read);
    }
    let sql = format!(
        "SELECT s.metric, s.labels, i.critical, {RESOLVED}, {ACKNOWLEDGED}, a.n, s.name {from} JOIN series s ON s.num = i.series {}",
        on_states.sql
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(conditions.values))?;
    let mut totals = Totals::default();
    while let Some(row) = rows.next()? {
        let state = state_of(row.get(3)?, row.get(4)?);
        let (metric, labels, critical) = (row.get::<_, String>(0)?, labels_of(&row.get::<_, String>(1)?), row.get(2)?);
        let name: String = row.get(6)?;
        let subject = Subject { series: &name, metric: &metric, labels: &labels, critical };
        let silenced = silencing(&states.silences, subject, states.now).is_some();
        if states.holds(if state == State::Open && silenced { State::Silenced } else { state }) {
            totals.incidents += 1;
            totals.anomalies += row.get::<_, i64>(5)? as u64;
        }
    }
    Ok(totals)
}

/// Reads [`COLUMNS`].
pub(super) fn incident(row: &Row<'_>, silences: &[Silence], now: Timestamp) -> rusqlite::Result<Incident> {
    let (name, metric, labels): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
    let critical = row.get(7)?;
    let resolved: Option<i64> = row.get::<_, Option<i64>>(11)?.or(row.get(12)?);
    let mut state = state_of(resolved.is_some(), row.get::<_, Option<i64>>(13)?.is_some());
    let (mut by, mut comment): (Option<String>, Option<String>) = (row.get(14)?, row.get(15)?);
    let by_hand = row.get::<_, Option<i64>>(12)?.is_some();
    if state == State::Open || state == State::Resolved && !by_hand {
        // Of a time before it was opened again, or resolved by itself.
        (by, comment) = (None, None);
    }
    if state == State::Open && !silences.is_empty() {
        let pairs = labels_of(&labels);
        if let Some(silence) = silencing(silences, Subject { series: &name, metric: &metric, labels: &pairs, critical }, now) {
            state = State::Silenced;
            (by, comment) = (silence.by.clone(), silence.comment.clone());
        }
    }
    Ok(Incident {
        id: row.get(0)?,
        name,
        metric,
        labels,
        start: Timestamp::from_nanos(row.get(4)?),
        end: Timestamp::from_nanos(row.get(5)?),
        count: row.get::<_, i64>(6)? as u64,
        critical,
        peak: row.get(8)?,
        state,
        resolved: resolved.map(Timestamp::from_nanos),
        by,
        comment,
        useful: row.get(16)?,
    })
}

/// The window of an anomaly in nanoseconds.
fn window_of(body: &str) -> i64 {
    #[derive(Deserialize)]
    struct Window {
        window_seconds: f64,
    }
    serde_json::from_str(body).map_or(300 * NANOS, |window: Window| (window.window_seconds * NANOS as f64) as i64)
}

/// The cursor of incidents: time and number of the last one seen.
fn parse_place(text: &str) -> Result<(i64, i64), StoreError> {
    let parts = text.split_once('-').ok_or_else(|| StoreError::BadCursor(text.chars().take(40).collect()))?;
    Ok((parse_cursor(parts.0)? as i64, parse_cursor(parts.1)? as i64))
}
