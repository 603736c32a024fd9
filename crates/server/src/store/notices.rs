//! What the notifier keeps: what it knows of incidents, what it gathers, what it decided, and what became of it.

use std::collections::BTreeMap;

use anomaly_engine::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::handling::{What, Word, about, labels_of, silences};
use super::incidents::{COLUMNS, TABLES, incident};
use super::reader::{StoreReader, parse_cursor};
use super::sqlite::Store;
use super::{Incident, Page, State, StoreError};
use crate::notify::message::{Digest, Kind, Worst};
use crate::silence::{Silence, Subject, silencing};

/// Anomalies and transitions that one step of gathering takes, so that no commit waits for long.
const GATHER_STEP: i64 = 2000;
/// The most incidents of one message.
const MESSAGE_INCIDENTS: i64 = 1000;
/// The worst series that a digest names.
const WORST: i64 = 10;

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is to be sent, or was tried in vain and will be tried again.
    Pending = 0,
    Sent = 1,
    /// Beyond a limit; the next digest counts it.
    Held = 2,
    /// Given up. It can be sent again by hand.
    Failed = 3,
}

impl Status {
    pub const ALL: [Self; 4] = [Self::Pending, Self::Sent, Self::Held, Self::Failed];

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Held => "held",
            Self::Failed => "failed",
        }
    }

    fn from_number(number: i64) -> Self {
        Self::ALL.into_iter().find(|status| *status as i64 == number).unwrap_or(Self::Failed)
    }
}

/// A notification as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    pub num: i64,
    pub id: String,
    pub channel: String,
    pub kind: String,
    /// Ids, at most 1,000.
    pub incidents: Vec<String>,
    pub status: Status,
    pub attempts: u64,
    /// Why it was not sent, is held, or failed.
    pub error: Option<String>,
    pub made: Timestamp,
    pub sent: Option<Timestamp>,
}

/// How far the notifier's knowledge of an incident has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Gathered for its first message.
    Waiting = 0,
    /// Somebody was told, or it is held for a digest.
    Told = 1,
    /// It was old when it came: the next digest counts it.
    Old = 2,
    /// A silence held when its turn came; it is looked at again when that ends.
    Silent = 3,
    /// Nobody is to be told.
    Quiet = 4,
}

/// Whether the growth of an incident is looked at when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// For the first time since it was told.
    First = 0,
    /// It was a storm, and is looked at until that is over.
    Again = 1,
    /// Not any more.
    Done = 2,
}

impl Looks {
    fn from_number(number: i64) -> Self {
        [Self::First, Self::Again].into_iter().find(|looks| *looks as i64 == number).unwrap_or(Self::Done)
    }
}

/// What decides about an incident that has just changed.
#[derive(Clone, Copy, Debug)]
pub struct Gathering<R> {
    /// How long a message gathers, in nanoseconds.
    pub wait: i64,
    /// How old the newest anomaly may have been when it came, in nanoseconds; `None`: any age.
    pub max_age: Option<i64>,
    /// The channels of an incident, as they are stored.
    pub route: R,
}

/// An incident that the notifier is to look at.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub num: i64,
    pub kind: Kind,
    pub incident: Incident,
    pub labels: Vec<(String, String)>,
    /// The id of the first incident of the message in which it was told first; its own before.
    pub lead: String,
    /// Messages about it so far.
    pub times: u64,
    /// When it was told first, and how many anomalies it had then.
    pub told: (Timestamp, u64),
    /// Whether its growth is looked at, and how many anomalies it had then.
    pub looks: Looks,
    pub seen: u64,
    /// Channels on which it was told.
    pub channels: String,
}

/// What was decided about some incidents, to be stored as one.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    pub rows: Vec<NewNotification>,
    /// Numbers of the incidents that the rows are about, and their ids.
    pub incidents: Vec<(i64, String)>,
    /// Waiting entries that are done with.
    pub done: Vec<(i64, Kind)>,
    /// Waiting entries that are looked at later.
    pub later: Vec<(i64, Kind, Timestamp)>,
    pub known: Vec<Known>,
    /// Held notifications up to which (by channel) this decision's digest counts.
    pub digested: Vec<(String, i64)>,
    /// Old incidents noted until then are counted by this decision's digest.
    pub old_until: Option<Timestamp>,
}

/// What the notifier knows of an incident from now on.
#[derive(Clone, Debug)]
pub struct Known {
    pub num: i64,
    pub phase: Phase,
    pub at: Timestamp,
    pub due: Option<Timestamp>,
    pub lead: String,
    pub times: u64,
    pub count: u64,
    /// Of one that is told first: whether the message says that it is critical. From then on what is known of its state comes from
    /// looking at it alone.
    pub said: Option<bool>,
    pub looks: Looks,
    pub seen: u64,
    pub channels: String,
}

impl Decision {
    /// A decision about incidents, with nothing decided yet.
    pub fn about(members: &[Candidate]) -> Self {
        Self { incidents: members.iter().map(|one| (one.num, one.incident.id.clone())).collect(), ..Self::default() }
    }
}

impl Known {
    /// What is known of a candidate and stays, without a time to look at it again.
    pub fn as_it_was(one: &Candidate) -> Self {
        Self {
            num: one.num,
            phase: Phase::Told,
            at: one.told.0,
            due: None,
            lead: one.lead.clone(),
            times: one.times,
            count: one.told.1,
            said: None,
            looks: one.looks,
            seen: one.seen,
            channels: one.channels.clone(),
        }
    }
}

/// A notification that is decided.
#[derive(Clone, Debug)]
pub struct NewNotification {
    pub id: String,
    /// The same for all channels of one message.
    pub message: String,
    pub channel: String,
    pub kind: Kind,
    /// Why it is held; `None`: it is to be sent.
    pub held: Option<String>,
    /// Whether it counts in the budget.
    pub counts: bool,
    pub body: Vec<u8>,
}

/// A notification that is to be sent now.
#[derive(Clone, Debug)]
pub struct ToSend {
    pub num: i64,
    pub id: String,
    pub attempts: u64,
    pub made: Timestamp,
    pub kind: Option<Kind>,
    pub body: Vec<u8>,
}

/// What a digest of a channel would hold.
#[derive(Clone, Debug)]
pub struct HeldBack {
    pub digest: Digest,
    /// The newest held notification that it counts; 0 where none is.
    pub upto: i64,
    /// When the newest of the old incidents was noted.
    pub old_until: Option<Timestamp>,
    /// When the first of the old incidents was noted.
    pub old_since: Option<Timestamp>,
}

impl Store {
    /// On which channels there is a notifier from now on. What was found while there was none is not told later, and what was to
    /// be sent on another channel is given up.
    ///
    /// # Errors
    /// As for a commit.
    pub fn set_notifying(&mut self, channels: &[&str]) -> Result<(), StoreError> {
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
    /// word that they changed. Returns whether there is more.
    ///
    /// # Errors
    /// As for a commit.
    pub fn gather(&mut self, gathering: &Gathering<impl Fn(Subject<'_>) -> String>, now: Timestamp) -> Result<bool, StoreError> {
        self.transact(|transaction| gather(transaction, gathering, now))
    }

    /// Stores a decision, all or nothing.
    ///
    /// # Errors
    /// As for a commit.
    pub fn decide(&mut self, decision: &Decision, now: Timestamp) -> Result<(), StoreError> {
        self.transact(|transaction| decide(transaction, decision, now))
    }

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
    /// open then is told.
    ///
    /// # Errors
    /// As for a commit.
    pub fn withhold(&mut self, num: i64, why: &str, silent_until: Option<Timestamp>) -> Result<(), StoreError> {
        self.transact(|transaction| {
            let sql = "UPDATE notifications SET status = ?2, error = ?3, counts = 0, digest = 0 WHERE num = ?1";
            transaction.prepare_cached(sql)?.execute(params![num, Status::Held as i64, why])?;
            let Some(until) = silent_until else { return Ok(()) };
            let sql = "UPDATE told SET phase = ?2, due = ?3 WHERE incident IN (SELECT i.num FROM incidents i JOIN notified d
                ON d.incident = i.id WHERE d.notification = ?1)";
            transaction.prepare_cached(sql)?.execute(params![num, Phase::Silent as i64, until.nanos()]).map(drop)
        })
    }

    /// Sends a notification again, under the same id with the same bytes; whether there is one that has bytes.
    ///
    /// # Errors
    /// As for a commit.
    pub fn resend(&mut self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let sql = "UPDATE notifications SET status = ?2, due = ?3, made = ?3 WHERE id = ?1 AND status != ?4 RETURNING num";
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

fn gather(transaction: &Transaction<'_>, gathering: &Gathering<impl Fn(Subject<'_>) -> String>, now: Timestamp) -> rusqlite::Result<bool> {
    let (mut anomaly, mut transition): (i64, i64) =
        transaction.prepare_cached("SELECT anomaly, transition FROM notifier")?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // By incident: whether it has a new anomaly.
    let mut touched: BTreeMap<i64, bool> = BTreeMap::new();
    let mut n = 0;
    {
        let sql = "SELECT seq, incident FROM anomalies WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let mut statement = transaction.prepare_cached(sql)?;
        let mut rows = statement.query([anomaly, GATHER_STEP])?;
        while let Some(row) = rows.next()? {
            anomaly = row.get(0)?;
            touched.insert(row.get(1)?, true);
            n += 1;
        }
        let sql = "SELECT num, incident FROM transitions WHERE num > ?1 ORDER BY num LIMIT ?2";
        let mut statement = transaction.prepare_cached(sql)?;
        let mut rows = statement.query([transition, GATHER_STEP])?;
        while let Some(row) = rows.next()? {
            transition = row.get(0)?;
            touched.entry(row.get(1)?).or_insert(false);
            n += 1;
        }
    }
    if n == 0 {
        return Ok(false);
    }
    let silences = silences(transaction, now)?;
    for (incident, has_new) in touched {
        look_at(transaction, incident, has_new, gathering, &silences, now)?;
    }
    transaction.prepare_cached("UPDATE notifier SET anomaly = ?1, transition = ?2")?.execute([anomaly, transition])?;
    transaction.prepare_cached("DELETE FROM transitions WHERE num <= ?1")?.execute([transition])?;
    Ok(n >= GATHER_STEP)
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
fn look_at(
    transaction: &Transaction<'_>,
    num: i64,
    has_new: bool,
    gathering: &Gathering<impl Fn(Subject<'_>) -> String>,
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
            if silent { String::new() } else { (gathering.route)(subject.as_subject()) }
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
    metric: String,
    labels: Vec<(String, String)>,
    critical: bool,
}

impl OwnedSubject {
    fn as_subject(&self) -> Subject<'_> {
        Subject { metric: &self.metric, labels: &self.labels, critical: self.critical }
    }
}

fn subject_of(transaction: &Transaction<'_>, num: i64, critical: bool) -> rusqlite::Result<OwnedSubject> {
    let sql = "SELECT s.metric, s.labels FROM incidents i JOIN series s ON s.num = i.series WHERE i.num = ?1";
    transaction
        .prepare_cached(sql)?
        .query_row([num], |row| Ok(OwnedSubject { metric: row.get(0)?, labels: labels_of(&row.get::<_, String>(1)?), critical }))
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
        for (_, id) in &decision.incidents {
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
        let at_once = Gathering { wait: 0, max_age: None, route: |_: Subject<'_>| String::new() };
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

    /// What a digest of a channel would hold now; `None` where nothing is held back.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn held_back(&self, channel: &str) -> Result<Option<HeldBack>, StoreError> {
        self.read(|connection| held_back(connection, channel))
    }

    /// How many messages count in the budget since then, and when the oldest of the newest `n` of them was made.
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

    /// The next notification of a channel that is due, and otherwise when one will be.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn to_send(&self, channel: &str, now: Timestamp) -> Result<Result<ToSend, Option<Timestamp>>, StoreError> {
        // Not before an earlier one about the same incident: "resolved" must not overtake "opened".
        let sql = "SELECT num, id, attempts, made, body, due, kind FROM notifications n WHERE status = ?1 AND channel = ?2 AND NOT EXISTS (
                SELECT 1 FROM notified mine JOIN notified other ON other.incident = mine.incident JOIN notifications e ON e.num = other.notification
                WHERE mine.notification = n.num AND e.num < n.num AND e.channel = n.channel AND e.status = ?1)
            ORDER BY due, num LIMIT 1";
        self.read(|connection| {
            let read = |row: &Row<'_>| {
                let (attempts, made) = (row.get::<_, i64>(2)? as u64, Timestamp::from_nanos(row.get(3)?));
                let kind = Kind::named(&row.get::<_, String>(6)?);
                Ok((
                    ToSend { num: row.get(0)?, id: row.get(1)?, attempts, made, kind, body: row.get(4)? },
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
        to_send: &ToSend,
        channel: &str,
        now: Timestamp,
    ) -> Result<Option<(&'static str, Option<Timestamp>)>, StoreError> {
        let (num, Some(kind)) = (to_send.num, to_send.kind) else { return Ok(None) };
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
                silencing(&silences, Subject { metric: &one.metric, labels: &labels, critical: one.critical }, now)
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
pub(super) fn of_incident(connection: &Connection, id: &str) -> rusqlite::Result<Vec<Notification>> {
    let sql = format!("{NOTIFICATION} WHERE n.num IN (SELECT notification FROM notified WHERE incident = ?1) ORDER BY n.num");
    let mut items: Vec<Notification> = connection.prepare_cached(&sql)?.query_map([id], notification)?.collect::<Result<_, _>>()?;
    for item in &mut items {
        item.incidents = incidents_of(connection, item.num)?;
    }
    Ok(items)
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
