//! Notifications on their way, and as they are listed.

use anomaly_engine::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{MESSAGE_INCIDENTS, Notification, Phase, Status, ToSend};
use crate::notify::message::Kind;
use crate::silence::{Subject, silencing};
use crate::store::handling::{What, Word, about, labels_of, silences};
use crate::store::incidents::{COLUMNS, TABLES, incident};
use crate::store::reader::{StoreReader, parse_cursor};
use crate::store::sqlite::Store;
use crate::store::{Incident, Page, State, StoreError};

impl Store {
    /// A notification was taken by the other side.
    ///
    /// # Errors
    /// As for a commit.
    pub fn notification_sent(&mut self, num: i64, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE notifications SET status = ?2, sent = ?3, attempts = attempts + 1, error = NULL WHERE num = ?1";
        self.transact(|transaction| transaction.prepare_cached(sql)?.execute(params![num, Status::Sent as i64, now.nanos()]).map(drop))
    }

    /// A notification was not taken: it is tried again at `again`, or given up.
    ///
    /// # Errors
    /// As for a commit.
    pub fn notification_failed(&mut self, num: i64, error: &str, again: Option<Timestamp>) -> Result<(), StoreError> {
        let status = if again.is_some() { Status::Pending } else { Status::Failed };
        let sql = "UPDATE notifications SET status = ?2, error = ?3, due = coalesce(?4, due), attempts = attempts + 1 WHERE num = ?1";
        self.transact(|transaction| {
            transaction.prepare_cached(sql)?.execute(params![num, status as i64, error, again.map(Timestamp::nanos)]).map(drop)
        })
    }

    /// A notification is not sent after all: what it says is no longer so. Where a silence holds until `silent_until`, what is still
    /// open then is told, unless it was, or still is to be, told elsewhere.
    ///
    /// # Errors
    /// As for a commit.
    pub fn withhold(&mut self, num: i64, why: &str, silent_until: Option<Timestamp>) -> Result<(), StoreError> {
        self.transact(|transaction| {
            let sql = "UPDATE notifications SET status = ?2, error = ?3, counts = 0, digest = 0 WHERE num = ?1";
            transaction.prepare_cached(sql)?.execute(params![num, Status::Held as i64, why])?;
            let Some(until) = silent_until else { return Ok(()) };
            let sql = "UPDATE told SET phase = ?2, due = ?3 WHERE incident IN (
                SELECT i.num FROM incidents i JOIN notified d ON d.incident = i.id WHERE d.notification = ?1 AND NOT EXISTS (
                    SELECT 1 FROM notified other JOIN notifications e ON e.num = other.notification
                    WHERE other.incident = i.id AND e.num != ?1 AND e.status IN (?4, ?5)))";
            let (silent, pending, sent) = (Phase::Silent as i64, Status::Pending as i64, Status::Sent as i64);
            transaction.prepare_cached(sql)?.execute(params![num, silent, until.nanos(), pending, sent]).map(drop)
        })
    }

    /// Sends a notification again, under the same id with the same bytes; whether there is one that has bytes.
    ///
    /// # Errors
    /// As for a commit.
    pub fn resend(&mut self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let sql = "UPDATE notifications SET status = ?2, due = ?3, made = ?3, by_hand = 1 WHERE id = ?1 AND status != ?4 RETURNING num";
        self.transact(|transaction| {
            let held = Status::Held as i64;
            let sent = transaction.prepare_cached(sql)?.exists(params![id, Status::Pending as i64, now.nanos(), held])?;
            if sent {
                about(transaction, now, What::Resent, id, &Word::default())?;
            }
            Ok(sent)
        })
    }
}

impl StoreReader {
    /// The next notification of a channel that is due, and otherwise when one will be.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn to_send(&self, channel: &str, now: Timestamp) -> Result<Result<ToSend, Option<Timestamp>>, StoreError> {
        // Not before an earlier one about the same incident: "resolved" must not overtake "opened".
        let sql = "SELECT num, id, attempts, made, body, due, kind, by_hand FROM notifications n WHERE status = ?1 AND channel = ?2 AND NOT EXISTS (
                SELECT 1 FROM notified mine JOIN notified other ON other.incident = mine.incident JOIN notifications e ON e.num = other.notification
                WHERE mine.notification = n.num AND e.num < n.num AND e.channel = n.channel AND e.status = ?1)
            ORDER BY due, num LIMIT 1";
        self.read(|connection| {
            let read = |row: &Row<'_>| {
                let (attempts, made) = (row.get::<_, i64>(2)? as u64, Timestamp::from_nanos(row.get(3)?));
                let kind = Kind::named(&row.get::<_, String>(6)?);
                Ok((
                    ToSend { num: row.get(0)?, id: row.get(1)?, attempts, made, kind, by_hand: row.get(7)?, body: row.get(4)? },
                    Timestamp::from_nanos(row.get(5)?),
                ))
            };
            let found = connection.prepare_cached(sql)?.query_row(params![Status::Pending as i64, channel], read).optional()?;
            Ok(match found {
                Some((to_send, due)) if due <= now => Ok(to_send),
                other => Err(other.map(|(_, due)| due)),
            })
        })
    }

    /// Why a notification that has waited should not be sent any more: everybody looks after what it tells of, a silence holds for it
    /// (until then), it is over, or it follows up what was never told.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn outdated(
        &self,
        num: i64,
        kind: Kind,
        channel: &str,
        now: Timestamp,
    ) -> Result<Option<(&'static str, Option<Timestamp>)>, StoreError> {
        self.read(|connection| {
            if matches!(kind, Kind::Resolved | Kind::Acknowledged) {
                let sql = "SELECT EXISTS (SELECT 1 FROM notified mine JOIN notified other ON other.incident = mine.incident
                    JOIN notifications e ON e.num = other.notification WHERE mine.notification = ?1 AND e.channel = ?2 AND e.status = ?3)";
                let told: bool = connection.prepare_cached(sql)?.query_row(params![num, channel, Status::Sent as i64], |row| row.get(0))?;
                return Ok((!told).then_some(("nothing was told of it here", None)));
            }
            if matches!(kind, Kind::Digest | Kind::Test) {
                return Ok(None);
            }
            let silences = silences(connection, now)?;
            let sql = format!("SELECT {COLUMNS} FROM notified d JOIN incidents i ON i.id = d.incident {TABLES} WHERE d.notification = ?1");
            let about: Vec<Incident> =
                connection.prepare_cached(&sql)?.query_map([num], |row| incident(row, &silences, now))?.collect::<Result<_, _>>()?;
            if about.is_empty() || about.iter().any(|one| one.state == State::Open) {
                return Ok(None);
            }
            let silent = about.iter().filter(|one| one.state == State::Silenced);
            let until = silent.filter_map(|one| {
                let labels = labels_of(&one.labels);
                silencing(&silences, Subject { series: &one.name, metric: &one.metric, labels: &labels, critical: one.critical }, now)
                    .map(|silence| silence.to)
            });
            Ok(Some(match (until.min(), about.iter().any(|one| one.state == State::Acknowledged)) {
                (Some(until), _) => ("silenced before it could be told", Some(until)),
                (None, true) => ("acknowledged before it could be told", None),
                (None, false) => ("over before it could be told", None),
            }))
        })
    }

    /// Notifications, newest first.
    ///
    /// # Errors
    /// A cursor that is none, or SQLite's own.
    pub fn notifications(&self, status: Option<Status>, cursor: Option<&str>, limit: usize) -> Result<Page<Notification>, StoreError> {
        let before = cursor.map(parse_cursor).transpose()?.map_or(i64::MAX, |num| num as i64);
        self.read(|connection| {
            let sql = format!("{NOTIFICATION} WHERE n.num < ?1 AND (?2 IS NULL OR n.status = ?2) ORDER BY n.num DESC LIMIT ?3");
            let values = params![before, status.map(|status| status as i64), limit as i64 + 1];
            let mut items: Vec<_> = connection.prepare_cached(&sql)?.query_map(values, notification)?.collect::<Result<_, _>>()?;
            let more = items.len() > limit;
            items.truncate(limit);
            for item in &mut items {
                item.incidents = incidents_of(connection, item.num)?;
            }
            let next = items.last().filter(|_| more).map(|last| last.num.to_string());
            Ok(Page { items, next })
        })
    }

    /// One notification.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn notification(&self, id: &str) -> Result<Option<Notification>, StoreError> {
        self.read(|connection| {
            let found = connection.prepare_cached(&format!("{NOTIFICATION} WHERE n.id = ?1"))?.query_row([id], notification).optional()?;
            let Some(mut found) = found else { return Ok(None) };
            found.incidents = incidents_of(connection, found.num)?;
            Ok(Some(found))
        })
    }
}

const NOTIFICATION: &str = "SELECT n.num, n.id, n.channel, n.kind, n.status, n.attempts, n.error, n.made, n.sent FROM notifications n";

fn notification(row: &Row<'_>) -> rusqlite::Result<Notification> {
    Ok(Notification {
        num: row.get(0)?,
        id: row.get(1)?,
        channel: row.get(2)?,
        kind: row.get(3)?,
        incidents: Vec::new(),
        status: Status::from_number(row.get(4)?),
        attempts: row.get::<_, i64>(5)? as u64,
        error: row.get(6)?,
        made: Timestamp::from_nanos(row.get(7)?),
        sent: row.get::<_, Option<i64>>(8)?.map(Timestamp::from_nanos),
    })
}

fn incidents_of(connection: &Connection, num: i64) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT incident FROM notified WHERE notification = ?1 LIMIT ?2";
    connection.prepare_cached(sql)?.query_map([num, MESSAGE_INCIDENTS], |row| row.get(0))?.collect()
}

/// The notifications of an incident, oldest first.
pub(in crate::store) fn of_incident(connection: &Connection, id: &str) -> rusqlite::Result<Vec<Notification>> {
    let sql = format!("{NOTIFICATION} WHERE n.num IN (SELECT notification FROM notified WHERE incident = ?1) ORDER BY n.num");
    let mut items: Vec<Notification> = connection.prepare_cached(&sql)?.query_map([id], notification)?.collect::<Result<_, _>>()?;
    for item in &mut items {
        item.incidents = incidents_of(connection, item.num)?;
    }
    Ok(items)
}
