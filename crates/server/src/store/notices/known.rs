//! Incidents that the notifier is to look at.

use anomaly_engine::Timestamp;
use rusqlite::{Connection, Row};

use super::{Candidate, Looks, MESSAGE_INCIDENTS, Phase};
use crate::notify::message::Kind;
use crate::store::handling::{labels_of, silences};
use crate::store::incidents::{COLUMNS, TABLES, incident};
use crate::store::reader::StoreReader;
use crate::store::{State, StoreError};

impl StoreReader {
    /// Whether something waits to be gathered.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn has_news(&self) -> Result<bool, StoreError> {
        let sql =
            "SELECT EXISTS (SELECT 1 FROM anomalies WHERE seq > n.anomaly) OR EXISTS (SELECT 1 FROM transitions WHERE num > n.transition)
            FROM notifier n";
        self.read(|connection| Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?))
    }

    /// Everything that waits, where anything of it is due: what waits at that moment goes into the same messages.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn gathered(&self, now: Timestamp) -> Result<Vec<Candidate>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM waiting WHERE due <= ?1)";
            if !connection.prepare_cached(sql)?.query_row([now.nanos()], |row| row.get::<_, bool>(0))? {
                return Ok(Vec::new());
            }
            let from = format!("(SELECT incident, kind FROM waiting ORDER BY due, incident LIMIT {MESSAGE_INCIDENTS}) w");
            candidates(connection, &from, "w.kind", "i.start, i.num", now)
        })
    }

    /// Known incidents whose time has come: to be told again, or the end of a silence.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn due(&self, now: Timestamp) -> Result<Vec<(Phase, Candidate)>, StoreError> {
        self.read(|connection| {
            let at = |phase: Phase, kind: Kind| {
                let from = format!(
                    "(SELECT incident FROM told WHERE due <= {} AND phase = {} ORDER BY due LIMIT {MESSAGE_INCIDENTS}) w",
                    now.nanos(),
                    phase as i64
                );
                let found = candidates(connection, &from, &format!("'{}'", kind.as_str()), "i.start, i.num", now)?;
                Ok::<_, StoreError>(found.into_iter().map(move |candidate| (phase, candidate)))
            };
            Ok(at(Phase::Told, Kind::Repeated)?.chain(at(Phase::Silent, Kind::Opened)?).collect())
        })
    }

    /// All incidents that were told in the same message first, that one's first incident before the others.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn led_by(&self, lead: &str, kind: Kind, now: Timestamp) -> Result<Vec<Candidate>, StoreError> {
        self.read(|connection| {
            let from =
                format!("(SELECT incident FROM told WHERE lead = '{lead}' AND phase = {} LIMIT {MESSAGE_INCIDENTS}) w", Phase::Told as i64);
            candidates(connection, &from, &format!("'{}'", kind.as_str()), "i.id != t.lead, i.start, i.num", now)
        })
    }

    /// Incidents that are open and were told on a channel, for one that wants to hear of them as long as they are.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn active_on(&self, channel: &str, now: Timestamp) -> Result<Vec<Candidate>, StoreError> {
        self.read(|connection| {
            let from = format!("(SELECT incident FROM told WHERE phase = {} AND resolved = 0) w", Phase::Told as i64);
            let mut active = candidates(connection, &from, &format!("'{}'", Kind::Repeated.as_str()), "i.start, i.num", now)?;
            let is_active = |one: &Candidate| matches!(one.incident.state, State::Open | State::Acknowledged);
            active.retain(|one| is_active(one) && one.channels.split(',').any(|name| name == channel));
            Ok(active)
        })
    }

    /// When the notifier must look again, if nothing happens until then.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT min(due) FROM (SELECT min(due) AS due FROM waiting UNION ALL SELECT min(due) FROM told WHERE due IS NOT NULL)";
        self.read(|connection| {
            Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, Option<i64>>(0))?.map(Timestamp::from_nanos))
        })
    }
}

/// Incidents in a table `w` of numbers, with what is known of them.
fn candidates(connection: &Connection, from: &str, kind: &str, order: &str, now: Timestamp) -> Result<Vec<Candidate>, StoreError> {
    let silences = silences(connection, now)?;
    let sql = format!(
        "SELECT {COLUMNS}, {kind}, t.lead, t.times, t.at, t.count, t.looks, t.seen, t.channels FROM {from}
        JOIN incidents i ON i.num = w.incident JOIN told t ON t.incident = i.num {TABLES} ORDER BY {order}"
    );
    let read = |row: &Row<'_>| {
        let name: String = row.get(17)?;
        let one = incident(row, &silences, now)?;
        let labels = labels_of(&one.labels);
        let told = (Timestamp::from_nanos(row.get(20)?), row.get::<_, i64>(21)? as u64);
        let (num, lead, times) = (row.get(10)?, row.get(18)?, row.get::<_, i64>(19)? as u64);
        let (looks, seen, channels) = (Looks::from_number(row.get(22)?), row.get::<_, i64>(23)? as u64, row.get(24)?);
        Ok(Kind::named(&name).map(|kind| Candidate { num, kind, incident: one, labels, lead, times, told, looks, seen, channels }))
    };
    let found: Vec<Option<Candidate>> = connection.prepare_cached(&sql)?.query_map([], read)?.collect::<Result<_, _>>()?;
    Ok(found.into_iter().flatten().collect())
}
