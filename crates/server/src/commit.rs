//! The committer: one thread that turns the engine's outputs into store transactions, then tells the world.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use anomaly_engine::frame::Position;
use anomaly_engine::{Anomaly, Outputs, SeriesHash, Severity, Timestamp, Totals, hash_text, push_labels};
use hashbrown::HashMap;
use tokio::sync::{Notify, oneshot, watch};
use tracing::{error, warn};

use crate::backlog::Backlog;
use crate::clock;
use crate::fatal::Fatal;
use crate::kafka;
use crate::live::Live;
use crate::log::handle::LogHints;
use crate::points::{Point, PointsHandle};
use crate::redis::keys::field;
use crate::results::EventResult;
use crate::room::DiskWatch;
use crate::share::Share;
use crate::sharing::Sharing;
use crate::stats::{Component, Stats};
use crate::store::journal::Followed;
use crate::store::ledger::Ledger;
use crate::store::{AnomalyRow, Change, Commit, Outcome, StoreError, Write};
use crate::upload::tally::Tallies;

/// Outputs that may wait for a transaction; then the engine waits.
const WAITING: usize = 16;
/// Changes from which a transaction takes no more outputs along.
const COMMIT_CHANGES: usize = 10_000;
/// How long to wait before a commit is tried again on a full disk.
const FULL_DISK_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// What the committer is sent.
#[derive(Debug)]
pub enum ToCommit {
    /// Outputs of the engine.
    Judged(Box<Judged>),
    /// P is to be durable as far as outputs were sent; answered when it is.
    Flush(SyncSender<()>),
    /// Delete what was detected before.
    Retain(Timestamp),
    /// Others may have written to the store that they share with this process.
    Follow,
    /// Something else to write, answered when it is durable.
    Write(Box<Write>, WriteReply),
}

/// Where it is answered what came of a write.
type WriteReply = oneshot::Sender<Result<Outcome, StoreError>>;

/// The outputs of some frames.
#[derive(Debug)]
pub struct Judged {
    /// The last of the frames.
    pub frame: u64,
    /// When those of them arrived that hold events, in their order: how long a tick takes says nothing of theirs.
    pub arrivals: Vec<(u64, Timestamp)>,
    /// What they brought forth.
    pub outputs: Outputs,
    /// Which incidents are open behind them, of what the engine is for; told once it has taken over.
    pub open: Option<(Share, Vec<u128>)>,
    /// The results of events that did not fire, where they are wanted.
    pub results: Vec<EventResult>,
    /// Series known now.
    pub n_series: usize,
    /// What the engine has counted.
    pub totals: Totals,
    /// Bytes that its state takes, and may take.
    pub state_bytes: u64,
    pub memory_limit: u64,
}

/// What the committer owns and whom it tells.
#[derive(Debug)]
pub struct Committer {
    /// The store.
    pub store: Ledger,
    /// Who listens.
    pub live: Live,
    /// Who draws.
    pub points: PointsHandle,
    /// What other processes are shown.
    pub sharing: Sharing,
    /// Counts what waits.
    pub backlog: Arc<Backlog>,
    /// Counts everything.
    pub stats: Arc<Stats>,
    /// How far commits have come.
    pub reached: watch::Sender<u64>,
    /// Nobody judges here: how far commits have come is how far those of others have.
    pub judged_elsewhere: bool,
    /// The reserve for a full disk.
    pub disk: Arc<DiskWatch>,
    /// Told of idle series.
    pub log: LogHints,
    /// The last frame of the log at start: what it holds is counted in the totals that the engine restores.
    pub counted: u64,
    /// What it carries from one commit to the next.
    pub carried: Carried,
    /// Told when incidents may have changed.
    pub news: Arc<Notify>,
    /// Told when there may be something to send.
    pub decided: Arc<Notify>,
    /// Where the end of the process is called for.
    pub fatal: Fatal,
}

/// What a committer carries from one commit to the next; it starts with nothing.
#[derive(Debug, Default)]
pub struct Carried {
    /// What became of uploads.
    tallies: Tallies,
    /// Idle series of which the writer could not be told yet.
    idle: Vec<(u64, SeriesHash)>,
    /// Anomalies that were detected before are being deleted.
    retaining: Option<Timestamp>,
}

/// Starts the committer's thread. It ends when all senders are gone, with P durable.
///
/// # Errors
/// The system gives no thread.
pub fn start(committer: Committer) -> std::io::Result<(SyncSender<ToCommit>, JoinHandle<()>)> {
    let (sender, receiver) = sync_channel(WAITING);
    let thread = std::thread::Builder::new().name("committer".into()).spawn(move || committer.run(&receiver))?;
    Ok((sender, thread))
}

/// What one transaction will hold, and what to tell after it.
#[derive(Debug, Default)]
struct Batch {
    upto: u64,
    changes: Vec<Change>,
    points: Vec<(SeriesHash, Point)>,
    results: Vec<EventResult>,
    arrived: Vec<Timestamp>,
    flushes: Vec<SyncSender<()>>,
    retain: Option<Timestamp>,
    writes: Vec<(Box<Write>, WriteReply)>,
    follows: bool,
    counted: Option<Counted>,
    criticals: Vec<bool>,
}

/// How the engine stands behind the last of the frames.
#[derive(Clone, Copy, Debug)]
struct Counted {
    n_series: usize,
    totals: Totals,
    state_bytes: u64,
    memory_limit: u64,
}

impl Counted {
    /// As it is noted for other processes, who is at this frame.
    fn fields(&self, frame: u64) -> [(&'static str, u64); 8] {
        [
            (field::REACHED, frame),
            (field::EVENTS, self.totals.events),
            (field::LATE, self.totals.late),
            (field::DUPLICATES, self.totals.duplicates),
            (field::REDELIVERED, self.totals.redelivered),
            (field::MEMORY, self.state_bytes),
            (field::MEMORY_LIMIT, self.memory_limit),
            (field::N_SERIES, self.n_series as u64),
        ]
    }
}

impl Committer {
    fn run(mut self, receiver: &Receiver<ToCommit>) {
        let _guard = self.fatal.guard("committer");
        // While something is to be deleted, a step is made whenever nobody waits, and behind each commit.
        while let Some(first) = self.next(receiver) {
            let at = clock::now();
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(message) = next {
                self.gather(message, at, &mut batch);
                next = if batch.changes.len() < COMMIT_CHANGES { receiver.try_recv().ok() } else { None };
            }
            if !self.commit(batch, at) {
                return;
            }
            if !self.retain() {
                return;
            }
        }
        let frame = *self.reached.borrow();
        if self.store.position().frame < frame {
            let commit = Commit { upto: whole(frame), at: clock::now(), changes: Vec::new() };
            if let Err(fault) = self.store.write(&Write::Commit(commit)) {
                warn!("P could not be written at the end; the next start replays a little more: {fault}");
            }
        }
        if let Err(fault) = self.store.close() {
            warn!("the store was not closed cleanly, which loses nothing: {fault}");
        }
    }

    fn gather(&mut self, message: ToCommit, at: Timestamp, batch: &mut Batch) {
        let judged = match message {
            ToCommit::Judged(judged) => *judged,
            ToCommit::Flush(reply) => return batch.flushes.push(reply),
            ToCommit::Retain(before) => return batch.retain = Some(before),
            ToCommit::Follow => {
                batch.follows = true;
                return;
            }
            ToCommit::Write(write, reply) => return batch.writes.push((write, reply)),
        };
        let Judged { frame, arrivals, mut outputs, open, results, n_series, totals, state_bytes, memory_limit } = judged;
        batch.upto = frame;
        batch.results.extend(results);
        batch.counted = Some(Counted { n_series, totals, state_bytes, memory_limit });
        // What a recovery replays has waited for the start, which says nothing of the path.
        batch.arrived.extend(arrivals.first().filter(|_| frame > self.counted).map(|(_, at)| *at));
        // Points of the same outputs that came before their series was forgotten must not come back behind it.
        let forgotten_at: HashMap<_, _> = outputs.forgotten.iter().map(|(position, key)| (key.hash(), *position)).collect();
        if !forgotten_at.is_empty() {
            outputs.points.retain(|point| forgotten_at.get(&point.series).is_none_or(|forgotten| point.position > *forgotten));
        }
        let severities: Vec<_> = outputs.anomalies.iter().map(|anomaly| (anomaly.position, anomaly.severity)).collect();
        // Merged by position: a series that was forgotten between two of its anomalies loses the first only, and an incident that
        // was resolved between two of them is opened again by the second.
        let mut forgotten = outputs.forgotten.drain(..).peekable();
        let mut resolved = outputs.resolved.drain(..).peekable();
        let mut anomalies = outputs.anomalies.drain(..).peekable();
        loop {
            let at_forgotten = forgotten.peek().map(|(position, _)| *position);
            let at_resolved = resolved.peek().map(|resolved| resolved.position);
            let at_anomaly = anomalies.peek().map(|anomaly| anomaly.position);
            let Some(first) = [at_forgotten, at_resolved, at_anomaly].into_iter().flatten().min() else { break };
            if at_forgotten == Some(first) {
                if let Some((_, key)) = forgotten.next() {
                    let hash = key.hash();
                    batch.points.retain(|(series, _)| *series != hash);
                    self.points.forget(hash);
                    self.sharing.gone(vec![hash]);
                    batch.changes.push(Change::Forget(hash));
                }
            } else if at_resolved == Some(first) {
                batch.changes.extend(resolved.next().map(|resolved| Change::Resolved(hash_text(resolved.incident))));
            } else if let Some(anomaly) = anomalies.next() {
                batch.criticals.push(anomaly.severity == Severity::Critical);
                let frame = arrivals.binary_search_by_key(&anomaly.position.frame, |(number, _)| *number);
                let arrival = frame.map_or(at, |i| arrivals[i].1);
                batch.changes.push(Change::Anomaly(Box::new(row(&anomaly, arrival, at))));
            }
        }
        drop((forgotten, resolved, anomalies));
        batch.changes.extend(open.map(|(share, incidents)| {
            let incidents = incidents.into_iter().map(hash_text).collect();
            Change::OnlyOpen { share, incidents }
        }));
        for outcome in &outputs.batches {
            // What a recovery replays was counted before, and comes back as totals.
            if frame > self.counted {
                self.stats.judged(u64::from(outcome.rows - outcome.redelivered));
                self.stats.late(u64::from(outcome.late));
                self.stats.duplicates(u64::from(outcome.duplicates));
                self.stats.redelivered(u64::from(outcome.redelivered));
                // Whether rows of Kafka came before is known only here, so they are counted here and not when they are appended.
                if outcome.origin.starts_with(kafka::SOURCE) {
                    self.stats.accepted(u64::from(outcome.rows - outcome.redelivered));
                }
            }
            batch.changes.extend(self.carried.tallies.add(outcome).map(Change::Judged));
        }
        // Both lists are in the order of positions.
        let mut severities = severities.into_iter().peekable();
        batch.points.extend(outputs.points.iter().map(|point| {
            while severities.next_if(|(position, _)| *position < point.position).is_some() {}
            let severity = severities.next_if(|(position, _)| *position == point.position).map(|(_, severity)| severity);
            (point.series, Point::from_engine(point, severity))
        }));
        if self.sharing.is_on() && !outputs.idle.is_empty() {
            let idle: Vec<_> = outputs.idle.iter().map(|(_, series)| *series).collect();
            batch.changes.push(Change::Idle(idle.clone()));
            self.sharing.gone(idle);
        }
        self.carried.idle.append(&mut outputs.idle);
        if !self.carried.idle.is_empty() {
            self.log.idle(&mut self.carried.idle);
        }
    }

    /// Commits, then tells; returns whether the committer may go on.
    fn commit(&mut self, batch: Batch, at: Timestamp) -> bool {
        let frame = batch.upto.max(*self.reached.borrow());
        let commit = Commit { upto: whole(frame), at, changes: batch.changes };
        let must = !commit.changes.is_empty() || !batch.flushes.is_empty() && self.store.position().frame < frame;
        let mut followed = Followed::default();
        if must {
            let began = Instant::now();
            match self.write(&Write::Commit(commit)) {
                Ok(new) => followed = new,
                Err(fault) => return self.give_up(&fault),
            }
            self.stats.commit_seconds(began.elapsed().as_secs_f64());
        }
        if let Err(fault) = self.store.publish(&followed) {
            return self.give_up(&fault);
        }
        self.sharing.results(batch.results);
        self.show_points(batch.points);
        // A replay begins behind what an owner before has shown. Last: all up to there is marked then.
        if frame >= self.counted {
            self.sharing.upto(frame);
        }
        self.tell(followed);
        self.backlog.committed(frame);
        if let Some(counted) = batch.counted {
            self.stats.set_series(counted.n_series as u64);
            if let Err(fault) = self.store.note(frame, &counted.fields(frame)) {
                return self.give_up(&fault);
            }
        }
        if batch.follows && !self.follow() {
            return false;
        }
        let frame = if self.judged_elsewhere { frame.max(self.store.position().frame) } else { frame };
        batch.criticals.into_iter().for_each(|critical| self.stats.anomaly(critical));
        let now = clock::now();
        batch.arrived.into_iter().for_each(|arrived| self.stats.end_to_end_seconds(now.since(arrived) as f64 * 1e-9));
        // Last: who waits for a frame then finds everything told that it brought.
        self.reached.send_replace(frame);
        for reply in batch.flushes {
            // Whoever asked may have given up.
            let _ = reply.send(());
        }
        self.carried.retaining = batch.retain.or(self.carried.retaining);
        batch.writes.into_iter().all(|(write, reply)| self.write_one(&write, reply))
    }

    /// Has points drawn, here and elsewhere.
    fn show_points(&self, points: Vec<(SeriesHash, Point)>) {
        if !self.sharing.is_on() {
            return self.points.offer(points);
        }
        if self.points.is_on() {
            self.points.offer(points.clone());
        }
        self.sharing.points(points);
    }

    /// Does one write between commits, and answers; whether the committer may go on.
    fn write_one(&mut self, write: &Write, reply: WriteReply) -> bool {
        let done = self.store.write(write);
        let mut goes_on = match &done {
            Err(fault) if !self.store.may_go_on_after(fault) => self.give_up(fault),
            _ => true,
        };
        let done = done.map(|(outcome, followed)| {
            goes_on &= self.publish(followed);
            outcome
        });
        // Whoever asked may have given up.
        let _ = reply.send(done);
        goes_on
    }

    /// Takes over what others have written; whether the committer may go on.
    fn follow(&mut self) -> bool {
        match self.store.follow() {
            Ok(followed) => {
                self.stats.component("store", Component::Ok);
                self.publish(followed)
            }
            Err(fault) if self.store.may_go_on_after(&fault) => {
                // It is tried again when there is something new, and whoever reaches Redis says that it is away.
                if !matches!(fault, StoreError::Away(_)) {
                    warn!("what is shown here is old, it is tried again: {fault}");
                    self.stats.component("store", Component::Degraded(format!("what is shown here is old: {fault}")));
                }
                true
            }
            Err(fault) => self.give_up(&fault),
        }
    }

    /// Publishes what is new in the store, and tells of it; whether the committer may go on.
    fn publish(&mut self, followed: Followed) -> bool {
        if let Err(fault) = self.store.publish(&followed) {
            return self.give_up(&fault);
        }
        self.tell(followed);
        true
    }

    /// Tells what is new in the store.
    fn tell(&mut self, followed: Followed) {
        let Followed { stored, forgotten, idle, news, decisions } = followed;
        self.live.publish(stored);
        if !forgotten.is_empty() {
            forgotten.iter().for_each(|series| self.points.forget(*series));
            self.log.forgotten(forgotten);
        }
        if !idle.is_empty() {
            self.log.forgotten(idle);
        }
        if news {
            self.news.notify_one();
        }
        if decisions {
            self.decided.notify_waiters();
        }
    }

    /// The store cannot be relied on any more.
    fn give_up(&self, fault: &StoreError) -> bool {
        if let StoreError::Deposed | StoreError::Away(_) | StoreError::Behind { .. } | StoreError::Replaced = fault {
            self.fatal.call(fault.to_string());
            return false;
        }
        error!("the store failed, so the process stops; the log has everything, and the next start goes on from it: {fault}");
        self.fatal.call(format!("the store failed: {fault}"));
        false
    }

    /// The next message; until there is one, old anomalies are deleted.
    fn next(&mut self, receiver: &Receiver<ToCommit>) -> Option<ToCommit> {
        while self.carried.retaining.is_some() {
            match receiver.try_recv() {
                Ok(message) => return Some(message),
                Err(TryRecvError::Empty) if !self.retain() => return None,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        receiver.recv().ok()
    }

    /// Deletes some of what was detected too long ago, if there is more; whether the committer may go on.
    fn retain(&mut self) -> bool {
        let Some(before) = self.carried.retaining else { return true };
        match self.store.write(&Write::Retain { before }) {
            Ok((outcome, followed)) => {
                if !outcome.is_yes() {
                    self.carried.retaining = None;
                }
                return self.publish(followed);
            }
            Err(fault) => warn!("old anomalies could not be deleted, it is tried again in an hour: {fault}"),
        }
        self.carried.retaining = None;
        true
    }

    /// One transaction; on a full disk the reserve is freed and the commit waits until it fits: nothing is given up.
    fn write(&mut self, commit: &Write) -> Result<Followed, StoreError> {
        let mut released = false;
        loop {
            match self.store.write(commit) {
                Err(StoreError::Full(_)) if released && self.store.waits_for_room() => std::thread::sleep(FULL_DISK_PAUSE),
                Err(StoreError::Full(_)) if self.store.waits_for_room() => {
                    self.disk.release();
                    released = true;
                }
                outcome => return outcome.map(|(_, followed)| followed),
            }
        }
    }
}

/// The position behind all rows of a frame: commits hold whole frames.
fn whole(frame: u64) -> Position {
    Position { frame, row: u32::MAX }
}

fn row(anomaly: &Anomaly, arrival: Timestamp, at: Timestamp) -> AnomalyRow {
    let mut body = String::with_capacity(1024);
    anomaly.write_json(&mut body, at);
    let mut labels = String::new();
    push_labels(&mut labels, &anomaly.key);
    let judgement = &anomaly.judgement;
    AnomalyRow {
        id: hash_text(anomaly.id),
        series: anomaly.key.hash(),
        name: anomaly.key.name(),
        metric: anomaly.key.metric().to_owned(),
        labels,
        timestamp: anomaly.timestamp,
        arrival,
        critical: anomaly.severity == Severity::Critical,
        strength: judgement.strength,
        height: judgement.z_score.map_or(judgement.strength, f64::abs),
        incident: hash_text(anomaly.incident),
        body,
    }
}
