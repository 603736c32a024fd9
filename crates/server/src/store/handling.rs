//! What people say: acknowledge, resolve, feedback, silences; and the record of every change.
//!
//! These are rows of their own: the engine neither reads nor writes them, and the notifier reads them when it sends.

use anomaly_engine::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use serde::{Deserialize, Serialize};

use super::notices::Phase;
use super::reader::StoreReader;
use super::sqlite::Store;
use super::write::NewSilence;
use super::{State, StoreError};
use crate::silence::{MOST_SILENCES, Silence, stored};

/// How long a silence that has ended is still listed.
const ENDED_KEPT: i64 = 7 * 86_400 * anomaly_engine::NANOS;

/// Who says something, and their words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    pub by: Option<String>,
    pub comment: Option<String>,
}

/// What is said of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Somebody looks after it: it is not told again.
    Acknowledge,
    /// Somebody has seen to it. An anomaly that joins it afterwards opens it again.
    Close,
    /// Whether it was useful; `rule` is what judges its series.
    Feedback { useful: bool, rule: String },
}

/// What became of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acted {
    Done,
    /// There is no such incident.
    Unknown,
    /// It is resolved, so there is nothing to acknowledge or close.
    AlreadyResolved,
}

/// A change that the record keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Opened,
    Reopened,
    Resolved,
    Acknowledged,
    Closed,
    Useful,
    FalseAlarm,
    SilenceMade,
    SilenceEnded,
    Resent,
}

impl What {
    const ALL: [Self; 10] = [
        Self::Opened,
        Self::Reopened,
        Self::Resolved,
        Self::Acknowledged,
        Self::Closed,
        Self::Useful,
        Self::FalseAlarm,
        Self::SilenceMade,
        Self::SilenceEnded,
        Self::Resent,
    ];

    /// As the record has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reopened => "reopened",
            Self::Resolved => "resolved",
            Self::Acknowledged => "acknowledged",
            Self::Closed => "resolved_by_hand",
            Self::Useful => "useful",
            Self::FalseAlarm => "false_alarm",
            Self::SilenceMade => "silence_made",
            Self::SilenceEnded => "silence_ended",
            Self::Resent => "resent",
        }
    }
}

/// An entry of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at: Timestamp,
    pub what: What,
    pub word: Word,
}

/// What people found of the incidents that one rule brought forth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFeedback {
    /// `default`, or `rules[N]`.
    pub rule: String,
    pub useful: u64,
    pub false_alarms: u64,
}

impl Store {
    /// Notes what somebody says of an incident, and records it.
    ///
    /// # Errors
    /// As for a commit.
    pub fn act(&mut self, incident: &str, act: &Act, word: &Word, at: Timestamp) -> Result<Acted, StoreError> {
        self.transact(|transaction| {
            let sql = "SELECT i.num, i.resolved IS NOT NULL OR coalesce(h.closed_of = i.arrived, 0)
                FROM incidents i LEFT JOIN handling h ON h.incident = i.num WHERE i.id = ?1";
            let found = transaction.prepare_cached(sql)?.query_row([incident], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((num, resolved)): Option<(i64, bool)> = found else { return Ok(Acted::Unknown) };
            let (at_nanos, Word { by, comment }) = (at.nanos(), word);
            let what = match act {
                Act::Acknowledge | Act::Close if resolved => return Ok(Acted::AlreadyResolved),
                Act::Acknowledge => {
                    let sql = "INSERT INTO handling (incident, acknowledged, acknowledged_of, by, comment)
                            SELECT num, ?2, opened, ?3, ?4 FROM incidents WHERE num = ?1
                        ON CONFLICT DO UPDATE SET acknowledged = excluded.acknowledged, acknowledged_of = excluded.acknowledged_of,
                            by = CASE WHEN acknowledged_of = excluded.acknowledged_of THEN coalesce(excluded.by, by) ELSE excluded.by END,
                            comment = CASE WHEN acknowledged_of = excluded.acknowledged_of AND excluded.by IS NULL
                                THEN coalesce(excluded.comment, comment) ELSE excluded.comment END";
                    transaction.prepare_cached(sql)?.execute(params![num, at_nanos, by, comment])?;
                    What::Acknowledged
                }
                Act::Close => {
                    let sql = "INSERT INTO handling (incident, closed, closed_of, by, comment)
                            SELECT num, ?2, arrived, ?3, ?4 FROM incidents WHERE num = ?1
                        ON CONFLICT DO UPDATE SET closed = excluded.closed, closed_of = excluded.closed_of, by = excluded.by, comment = excluded.comment";
                    transaction.prepare_cached(sql)?.execute(params![num, at_nanos, by, comment])?;
                    What::Closed
                }
                Act::Feedback { useful, rule } => {
                    let sql = "INSERT INTO handling (incident, useful, rule) VALUES (?1, ?2, ?3)
                        ON CONFLICT DO UPDATE SET useful = excluded.useful, rule = excluded.rule";
                    transaction.prepare_cached(sql)?.execute(params![num, useful, rule])?;
                    if *useful { What::Useful } else { What::FalseAlarm }
                }
            };
            record(transaction, at, what, Some(num), word)?;
            pass(transaction, num)?;
            Ok(Acted::Done)
        })
    }

    /// Makes a silence; whether there were not too many. It holds at once, also for what waits to be sent.
    ///
    /// # Errors
    /// As for a commit.
    pub fn silence(&mut self, silence: &NewSilence, at: Timestamp) -> Result<bool, StoreError> {
        let NewSilence { id, matchers, from, to, word } = silence;
        let matchers = serde_json::to_string(matchers).unwrap_or_default();
        self.transact(|transaction| {
            let sql = "SELECT count(*) FROM silences WHERE end > ?1";
            let n: i64 = transaction.prepare_cached(sql)?.query_row([at.nanos()], |row| row.get(0))?;
            if n >= MOST_SILENCES as i64 {
                return Ok(false);
            }
            let sql = "INSERT INTO silences VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let values = params![id, matchers, from.nanos(), to.nanos(), word.by, word.comment, at.nanos()];
            transaction.prepare_cached(sql)?.execute(values)?;
            about(transaction, at, What::SilenceMade, id, word)?;
            Ok(true)
        })
    }

    /// Ends a silence now; whether there was one that had not ended.
    ///
    /// # Errors
    /// As for a commit.
    pub fn end_silence(&mut self, id: &str, at: Timestamp) -> Result<bool, StoreError> {
        self.transact(|transaction| {
            let sql = "UPDATE silences SET end = ?2, start = min(start, ?2) WHERE id = ?1 AND end > ?2";
            let ended = transaction.prepare_cached(sql)?.execute(params![id, at.nanos()])? > 0;
            if ended {
                about(transaction, at, What::SilenceEnded, id, &Word::default())?;
                // What waits for a silence to end is looked at now: another may still hold for it.
                transaction.prepare_cached("UPDATE told SET due = ?2 WHERE phase = ?1")?.execute([Phase::Silent as i64, at.nanos()])?;
                transaction.prepare_cached("UPDATE waiting SET due = ?1 WHERE due > ?1")?.execute([at.nanos()])?;
            }
            Ok(ended)
        })
    }
}

impl StoreReader {
    /// Silences that have not ended for long, those that end last first.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, StoreError> {
        self.read(|connection| Ok(silences(connection, now.plus(-ENDED_KEPT))?))
    }

    /// What people found, by rule.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn feedback(&self) -> Result<Vec<RuleFeedback>, StoreError> {
        let sql = "SELECT rule, sum(useful), sum(1 - useful) FROM handling WHERE useful IS NOT NULL GROUP BY rule ORDER BY rule";
        self.read(|connection| {
            let read = |row: &Row<'_>| {
                Ok(RuleFeedback { rule: row.get(0)?, useful: row.get::<_, i64>(1)? as u64, false_alarms: row.get::<_, i64>(2)? as u64 })
            };
            Ok(connection.prepare_cached(sql)?.query_map([], read)?.collect::<Result<_, _>>()?)
        })
    }
}

/// Silences that end after `after`.
pub(super) fn silences(connection: &Connection, after: Timestamp) -> rusqlite::Result<Vec<Silence>> {
    let sql = "SELECT id, matchers, start, end, by, comment FROM silences WHERE end > ?1 ORDER BY end DESC, id";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([after.nanos()])?;
    let mut silences = Vec::new();
    while let Some(row) = rows.next()? {
        // What an older version took and this one does not silences nothing.
        let Some(matchers) = stored(&row.get::<_, String>(1)?) else { continue };
        let (from, to) = (Timestamp::from_nanos(row.get(2)?), Timestamp::from_nanos(row.get(3)?));
        silences.push(Silence { id: row.get(0)?, matchers, from, to, by: row.get(4)?, comment: row.get(5)? });
    }
    Ok(silences)
}

/// The labels of a series as the store has them.
pub(super) fn labels_of(json: &str) -> Vec<(String, String)> {
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).unwrap_or_default();
    map.into_iter().map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned())).collect()
}

/// How an incident stands that no silence holds for.
pub(super) fn state_of(resolved: bool, acknowledged: bool) -> State {
    match (resolved, acknowledged) {
        (true, _) => State::Resolved,
        (false, true) => State::Acknowledged,
        (false, false) => State::Open,
    }
}

/// The record of an incident, oldest first.
pub(super) fn history(connection: &Connection, incident: i64) -> rusqlite::Result<Vec<Entry>> {
    let sql = "SELECT min(detected_at) FROM anomalies WHERE incident = ?1";
    let opened: Option<i64> = connection.prepare_cached(sql)?.query_row([incident], |row| row.get(0))?;
    let opened = opened.map(|at| Entry { at: Timestamp::from_nanos(at), what: What::Opened, word: Word::default() });
    let sql = "SELECT at, what, by, comment FROM audit WHERE incident = ?1 ORDER BY num";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([incident])?;
    let mut history = Vec::from_iter(opened);
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        let Some(what) = What::ALL.into_iter().find(|what| what.as_str() == name) else { continue };
        history.push(Entry { at: Timestamp::from_nanos(row.get(0)?), what, word: Word { by: row.get(2)?, comment: row.get(3)? } });
    }
    Ok(history)
}

/// Records a change to an incident.
pub(super) fn record(transaction: &Transaction<'_>, at: Timestamp, what: What, incident: Option<i64>, word: &Word) -> rusqlite::Result<()> {
    let sql = "INSERT INTO audit (at, what, incident, by, comment) VALUES (?1, ?2, ?3, ?4, ?5)";
    transaction.prepare_cached(sql)?.execute(params![at.nanos(), what.as_str(), incident, word.by, word.comment])?;
    Ok(())
}

/// Records a change to what is no incident.
pub(super) fn about(transaction: &Transaction<'_>, at: Timestamp, what: What, subject: &str, word: &Word) -> rusqlite::Result<()> {
    let sql = "INSERT INTO audit (at, what, subject, by, comment) VALUES (?1, ?2, ?3, ?4, ?5)";
    transaction.prepare_cached(sql)?.execute(params![at.nanos(), what.as_str(), subject, word.by, word.comment])?;
    Ok(())
}

/// Lets the notifier know that an incident has changed, where there is one.
pub(super) fn pass(transaction: &Transaction<'_>, incident: i64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO transitions (incident) SELECT ?1 FROM notifier WHERE active";
    transaction.prepare_cached(sql)?.execute([incident])?;
    Ok(())
}
