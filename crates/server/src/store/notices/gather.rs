//! Which incidents have changed, and what that asks for.

use std::collections::BTreeMap;

use anomaly_engine::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Gathering, Phase, Status};
use crate::notify::message::Kind;
use crate::silence::{Silence, Subject, silencing};
use crate::store::StoreError;
use crate::store::handling::{labels_of, silences};
use crate::store::sqlite::Store;

/// Anomalies and transitions that one step of gathering takes, so that no commit waits for long.
const GATHER_STEP: i64 = 2000;

impl Store {
    /// On which channels there is a notifier from now on. What was found while there was none is not told later, and what was to
    /// be sent on another channel is given up.
    ///
    /// # Errors
    /// As for a commit.
    pub fn set_notifying(&mut self, channels: &[String]) -> Result<(), StoreError> {
        let notifying = !channels.is_empty();
        self.transact(|transaction| {
            let sql = "UPDATE notifications SET status = ?1, error = 'its channel is not configured any more'
                WHERE status = ?2 AND instr(?3, channel) = 0";
            transaction.prepare_cached(sql)?.execute(params![Status::Failed as i64, Status::Pending as i64, channels.join(",")])?;
            let was: bool = transaction.prepare_cached("SELECT active FROM notifier")?.query_row([], |row| row.get(0))?;
            if was == notifying {
                return Ok(());
            }
            let sql = "UPDATE notifier SET active = ?1, anomaly = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0),
                transition = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'transitions'), 0)";
            transaction.prepare_cached(sql)?.execute([notifying])?;
            for sql in [
                // What was to be told when the notifier ended is told by nobody now, and found anew where it goes on.
                "DELETE FROM waiting",
                "DELETE FROM told WHERE phase = 0",
                "UPDATE told SET resolved = 1 WHERE resolved = 0 AND incident IN (SELECT num FROM incidents WHERE resolved IS NOT NULL)",
            ] {
                transaction.prepare_cached(sql)?.execute([])?;
            }
            Ok(())
        })
    }

    /// The wall clock was set back by so many nanoseconds: what waits for a time waits as long as before.
    ///
    /// # Errors
    /// As for a commit.
    pub fn set_back(&mut self, nanos: i64) -> Result<(), StoreError> {
        self.transact(|transaction| {
            for sql in [
                "UPDATE waiting SET due = due - ?1",
                "UPDATE told SET due = due - ?1 WHERE due IS NOT NULL",
                "UPDATE notifications SET due = due - ?1 WHERE status = 0",
            ] {
                transaction.prepare_cached(sql)?.execute([nanos])?;
            }
            Ok(())
        })
    }

    /// Looks at what has happened since it was last called: new incidents begin to wait for their message, known ones for the
    /// word that they changed. So much at a time:
    /// `StoreReader::has_news` tells whether there is more.
    ///
    /// # Errors
    /// As for a commit.
    pub fn gather(&mut self, gathering: &Gathering, now: Timestamp) -> Result<(), StoreError> {
        self.transact(|transaction| gather(transaction, gathering, now))
    }
}

fn gather(transaction: &Transaction<'_>, gathering: &Gathering, now: Timestamp) -> rusqlite::Result<()> {
    let (mut anomaly, mut transition): (i64, i64) =
        transaction.prepare_cached("SELECT anomaly, transition FROM notifier")?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // By incident: whether it has a new anomaly.
    let mut touched: BTreeMap<i64, bool> = BTreeMap::new();
    {
        let sql = "SELECT seq, incident FROM anomalies WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let mut statement = transaction.prepare_cached(sql)?;
        let mut rows = statement.query([anomaly, GATHER_STEP])?;
        while let Some(row) = rows.next()? {
            anomaly = row.get(0)?;
            touched.insert(row.get(1)?, true);
        }
        let sql = "SELECT num, incident FROM transitions WHERE num > ?1 ORDER BY num LIMIT ?2";
        let mut statement = transaction.prepare_cached(sql)?;
        let mut rows = statement.query([transition, GATHER_STEP])?;
        while let Some(row) = rows.next()? {
            transition = row.get(0)?;
            touched.entry(row.get(1)?).or_insert(false);
        }
    }
    let silences = silences(transaction, now)?;
    for (incident, has_new) in touched {
        look_at(transaction, incident, has_new, gathering, &silences, now)?;
    }
    transaction.prepare_cached("UPDATE notifier SET anomaly = ?1, transition = ?2")?.execute([anomaly, transition])?;
    transaction.prepare_cached("DELETE FROM transitions WHERE num <= ?1")?.execute([transition])?;
    Ok(())
}

/// How an incident stands.
struct Is {
    critical: bool,
    resolved: bool,
    acknowledged: bool,
    age: i64,
}

/// How it stood when the notifier looked last.
struct Was {
    phase: i64,
    critical: bool,
    resolved: bool,
    acknowledged: bool,
}

/// What a change of an incident asks for, by how it stands now: so the order in which its changes came does not matter, nor
/// how many of them were looked at together.
pub(super) fn look_at(
    transaction: &Transaction<'_>,
    num: i64,
    has_new: bool,
    gathering: &Gathering,
    silences: &[Silence],
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql =
        "SELECT i.critical, i.resolved IS NOT NULL OR coalesce(h.closed_of = i.arrived, 0), coalesce(h.acknowledged_of = i.opened, 0),
            t.phase, t.critical, t.resolved, t.acknowledged, i.age
        FROM incidents i LEFT JOIN handling h ON h.incident = i.num LEFT JOIN told t ON t.incident = i.num WHERE i.num = ?1";
    let read = |row: &Row<'_>| {
        let was = match row.get::<_, Option<i64>>(3)? {
            Some(phase) => Some(Was { phase, critical: row.get(4)?, resolved: row.get(5)?, acknowledged: row.get(6)? }),
            None => None,
        };
        Ok((Is { critical: row.get(0)?, resolved: row.get(1)?, acknowledged: row.get(2)?, age: row.get(7)? }, was))
    };
    let Some((is, was)) = transaction.prepare_cached(sql)?.query_row([num], read).optional()? else { return Ok(()) };
    let Is { critical, resolved, acknowledged, age } = is;
    let wait = |kind: Kind| {
        let sql = "INSERT INTO waiting VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        transaction.prepare_cached(sql)?.execute(params![num, kind.as_str(), now.plus(gathering.wait).nanos()]).map(drop)
    };
    let Some(was) = was.filter(|was| was.phase != Phase::Old as i64) else {
        if !has_new {
            return Ok(());
        }
        let old = gathering.max_age.is_some_and(|max| age > max);
        let channels = if old {
            let subject = subject_of(transaction, num, critical)?;
            let silent = silencing(silences, subject.as_subject(), now).is_some();
            if silent { String::new() } else { gathering.routing.names_of(subject.as_subject()) }
        } else {
            String::new()
        };
        let phase = match (old, channels.is_empty()) {
            (false, _) => Phase::Waiting,
            (true, false) => Phase::Old,
            (true, true) => Phase::Quiet,
        };
        // Each anomaly moves the time of an old one: the digest waits until no more come.
        let sql = "INSERT INTO told SELECT ?1, ?2, ?3, NULL, id, 0, 0, ?4, 0, ?5, 0, 0, ?6 FROM incidents WHERE num = ?1
            ON CONFLICT DO UPDATE SET phase = excluded.phase, at = excluded.at, times = 0, critical = excluded.critical,
                resolved = excluded.resolved, channels = excluded.channels";
        transaction.prepare_cached(sql)?.execute(params![num, phase as i64, now.nanos(), critical, resolved, channels])?;
        return if phase == Phase::Waiting { wait(Kind::Opened) } else { Ok(()) };
    };
    let changed = if was.phase == Phase::Told as i64 {
        if resolved && !was.resolved {
            wait(Kind::Resolved)?;
        }
        if !resolved && was.resolved {
            wait(Kind::Reopened)?;
        }
        if acknowledged && !was.acknowledged {
            wait(Kind::Acknowledged)?;
        }
        if critical && !was.critical && !resolved {
            wait(Kind::Escalated)?;
        }
        true
    } else if was.phase == Phase::Quiet as i64 {
        // It is open again, or another route may take it now.
        if has_new && !resolved && !acknowledged && (was.resolved || was.acknowledged || critical && !was.critical) {
            wait(Kind::Opened)?;
        }
        true
    } else if was.phase == Phase::Silent as i64 {
        if critical && !was.critical {
            // The silence may be for warnings alone.
            transaction.prepare_cached("UPDATE told SET due = ?2 WHERE incident = ?1")?.execute([num, now.nanos()])?;
        }
        true
    } else {
        false
    };
    if changed {
        let sql = "UPDATE told SET critical = ?2, resolved = ?3, acknowledged = ?4 WHERE incident = ?1";
        transaction.prepare_cached(sql)?.execute(params![num, critical, resolved, acknowledged])?;
    }
    Ok(())
}

/// What routes and silences ask of an incident.
struct OwnedSubject {
    series: String,
    metric: String,
    labels: Vec<(String, String)>,
    critical: bool,
}

impl OwnedSubject {
    fn as_subject(&self) -> Subject<'_> {
        Subject { series: &self.series, metric: &self.metric, labels: &self.labels, critical: self.critical }
    }
}

fn subject_of(transaction: &Transaction<'_>, num: i64, critical: bool) -> rusqlite::Result<OwnedSubject> {
    let sql = "SELECT s.metric, s.labels, s.name FROM incidents i JOIN series s ON s.num = i.series WHERE i.num = ?1";
    transaction.prepare_cached(sql)?.query_row([num], |row| {
        Ok(OwnedSubject { series: row.get(2)?, metric: row.get(0)?, labels: labels_of(&row.get::<_, String>(1)?), critical })
    })
}
