//! Decisions, each stored as one.

use anomaly_engine::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::gather::look_at;
use super::{Decision, Gathering, Known, Phase, Status};
use crate::config::notify::Routing;
use crate::store::StoreError;
use crate::store::sqlite::Store;

impl Store {
    /// Stores a decision, all or nothing.
    ///
    /// # Errors
    /// As for a commit.
    pub fn decide(&mut self, decision: &Decision, now: Timestamp) -> Result<(), StoreError> {
        self.transact(|transaction| decide(transaction, decision, now))
    }
}

fn decide(transaction: &Transaction<'_>, decision: &Decision, now: Timestamp) -> rusqlite::Result<()> {
    let mut first = None;
    for row in &decision.rows {
        let status = if row.held.is_some() { Status::Held } else { Status::Pending };
        let sql = "INSERT INTO notifications (id, message, channel, kind, status, attempts, due, made, counts, error, body)
            VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING RETURNING num";
        let at = now.nanos();
        let values = params![row.id, row.message, row.channel, row.kind.as_str(), status as i64, at, row.counts, row.held, row.body];
        let Some(num) = transaction.prepare_cached(sql)?.query_row(values, |row| row.get::<_, i64>(0)).optional()? else { continue };
        first = first.or(Some(num));
        for id in &decision.incidents {
            transaction.prepare_cached("INSERT OR IGNORE INTO notified VALUES (?1, ?2)")?.execute(params![num, id])?;
        }
    }
    for (num, kind) in &decision.done {
        transaction.prepare_cached("DELETE FROM waiting WHERE incident = ?1 AND kind = ?2")?.execute(params![num, kind.as_str()])?;
    }
    for (num, kind, due) in &decision.later {
        let sql = "UPDATE waiting SET due = ?3 WHERE incident = ?1 AND kind = ?2";
        transaction.prepare_cached(sql)?.execute(params![num, kind.as_str(), due.nanos()])?;
    }
    for known in &decision.known {
        let Known { num, phase, at, due, lead, times, count, said, looks, seen, channels } = known;
        let sql = "UPDATE told SET phase = ?2, at = ?3, due = ?4, lead = ?5, times = ?6, count = ?7, looks = ?8, seen = ?9, channels = ?10
            WHERE incident = ?1";
        let due = due.map(Timestamp::nanos);
        let (phase, times, count, looks, seen) = (*phase as i64, *times as i64, *count as i64, *looks as i64, *seen as i64);
        transaction.prepare_cached(sql)?.execute(params![num, phase, at.nanos(), due, lead, times, count, looks, seen, channels])?;
        if let Some(critical) = said {
            let sql = "UPDATE told SET critical = ?2, resolved = 0, acknowledged = 0 WHERE incident = ?1";
            transaction.prepare_cached(sql)?.execute(params![num, critical])?;
        }
        // What has changed since it was read, or was so already, is told next: it is over, say, before anybody heard of it.
        let at_once = Gathering { wait: 0, max_age: None, routing: Routing::default() };
        look_at(transaction, *num, false, &at_once, &[], now)?;
    }
    for (channel, upto) in &decision.digested {
        let sql = "UPDATE notifications SET digest = ?3 WHERE channel = ?1 AND status = ?4 AND digest IS NULL AND num <= ?2";
        transaction.prepare_cached(sql)?.execute(params![channel, upto, first.unwrap_or(0), Status::Held as i64])?;
    }
    if let Some(until) = decision.old_until {
        let sql = "UPDATE told SET times = 1, count = (SELECT count FROM incidents WHERE num = told.incident)
            WHERE phase = ?1 AND times = 0 AND at <= ?2";
        transaction.prepare_cached(sql)?.execute(params![Phase::Old as i64, until.nanos()])?;
    }
    Ok(())
}
