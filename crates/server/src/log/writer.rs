//! The log's writer: one thread that decides every refusal, gives frames their numbers and groups appends into one fsync.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anomaly_engine::frame::{Batch, Position, Record};
use anomaly_engine::{Rejected, Report, SeriesHash};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tracing::{error, info, warn};

use super::admission::Admission;
use super::frames::{Frames, Place};
use super::handle::{Refusal, Reply, Request, Requests};
use super::sqlite::{LogError, Side};
use super::stream::Entry;
use super::{Append, AppendError, Appended, ForgetError, Landed, Log};
use crate::backlog::Backlog;
use crate::clock;
use crate::disk::Room;
use crate::engine_thread::EngineFeed;
use crate::fatal::Fatal;
use crate::room::DiskWatch;
use crate::stats::{Component, Stats};

/// A group closes at so many rows or bytes; one request is never split.
const GROUP_ROWS: usize = 50_000;
const GROUP_BYTES: usize = 8 << 20;

/// Under a load that leaves no pause, the log is truncated a step each time it has grown by so much: a step deletes more.
const TRUNCATE_EACH_GROUPS: u32 = 64;
const TRUNCATE_EACH_BYTES: usize = 4 << 20;

/// A log that is away is tried again this often where nobody asks for anything.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The log's counter of rejected rows.
pub const REJECTED: &str = "rejected";

/// What the writer owns.
#[derive(Debug)]
pub struct Writer {
    /// The log.
    pub log: Log,
    /// Which series may enter.
    pub admission: Admission,
    /// Where durable frames go, where the engine is in this process and reads no shared log.
    pub feed: Option<Arc<EngineFeed>>,
    /// Events between the log's end and P.
    pub backlog: Arc<Backlog>,
    /// How much room the disk has.
    pub disk: Arc<DiskWatch>,
    /// Counts everything.
    pub stats: Arc<Stats>,
    /// Rejected rows that the log's counter knows of.
    pub rejected: u64,
    /// Where the end of the process is called for.
    pub fatal: Fatal,
    /// What it has in mind for itself.
    pub housekeeping: Housekeeping,
}

/// What a writer has to do when there is time; it starts with nothing.
#[derive(Debug, Default)]
pub struct Housekeeping {
    /// Frames below this one are to be deleted.
    truncate_to: Option<u64>,
    /// Groups and bytes since the last step of that.
    grown: (u32, usize),
    /// When the log could not be reached, if it was so when it was tried last.
    away: Option<Instant>,
}

/// Starts the writer's thread. It ends when all handles are gone, after what they sent is durable.
///
/// # Errors
/// The system gives no thread.
pub fn start(writer: Writer, requests: Requests) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("log-writer".into()).spawn(move || writer.run(requests.0))
}

/// A request of the group that waits for the fsync, where it stands in the frames, and what to answer then.
enum Pending {
    Append { reply: Reply<Result<Appended, Refusal>>, place: Place, partitions: Vec<u32>, report: Report, noted: bool },
    Note(Reply<Result<(), AppendError>>),
    Forget(Reply<Result<Position, ForgetError>>, Place, SeriesHash),
    Configure(Reply<Result<Position, AppendError>>, Place),
}

/// Requests that become durable together, as frames and the notes beside them.
struct Group {
    frames: Frames,
    number: u64,
    notes: Vec<Side>,
    keys: Vec<String>,
    pending: Vec<Pending>,
    /// Written even where nobody waits for it.
    must: bool,
}

impl Writer {
    fn run(mut self, mut receiver: mpsc::Receiver<Request>) {
        let _guard = self.fatal.guard("log-writer");
        let mut held = None;
        while let Some(first) = held.take().or_else(|| self.receive(&mut receiver)) {
            let mut group = Group {
                frames: Frames::new(clock::now(), self.log.parts()),
                number: self.log.next_frame(),
                notes: Vec::new(),
                keys: Vec::new(),
                pending: Vec::new(),
                must: false,
            };
            let mut next = Some(first);
            while let Some(request) = next {
                if let Some(request) = self.admit(request, &mut group) {
                    held = Some(request);
                    break;
                }
                let full = group.frames.rows() >= GROUP_ROWS || group.frames.byte_len() >= GROUP_BYTES;
                next = if full { None } else { receiver.try_recv().ok() };
            }
            if !self.write(group) {
                break;
            }
        }
        if let Some(feed) = &self.feed {
            feed.close();
        }
        // How the log is, whoever writes to it next will say.
        if self.housekeeping.away.take().is_some() {
            self.stats.works_again("log");
        }
        let rejected = self.stats.rejected_here() - self.rejected;
        if rejected > 0
            && let Err(fault) =
                self.log.append(Frames::new(clock::now(), self.log.parts()), &[Side::Count { name: REJECTED, by: rejected }])
        {
            warn!("the count of rejected rows was not noted: {fault}");
        }
        if let Log::Sqlite(log) = self.log
            && let Err(fault) = log.close()
        {
            warn!("the log was not closed cleanly, which loses nothing: {fault}");
        }
    }

    /// The next request; while none is there, and now and then where there always is one, the log is truncated a little.
    fn receive(&mut self, receiver: &mut mpsc::Receiver<Request>) -> Option<Request> {
        while self.housekeeping.truncate_to.is_some() {
            if self.housekeeping.grown.0 >= TRUNCATE_EACH_GROUPS || self.housekeeping.grown.1 >= TRUNCATE_EACH_BYTES {
                self.truncate();
                continue;
            }
            match receiver.try_recv() {
                Ok(request) => return Some(request),
                Err(TryRecvError::Empty) => self.truncate(),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        receiver.blocking_recv()
    }

    /// Puts a request into the group, or answers it at once. Gives it back where it must wait for the next group.
    fn admit(&mut self, request: Request, group: &mut Group) -> Option<Request> {
        match request {
            Request::Append(mut append, notes, reply) => {
                if append.key.as_ref().is_some_and(|key| group.keys.contains(&key.key)) {
                    return Some(Request::Append(append, notes, reply));
                }
                match self.check(&mut append, group) {
                    Ok(refused) => {
                        let mut notes = notes;
                        withdraw(&mut notes, &refused);
                        let Append { batch, report, key, .. } = *append;
                        let (place, partitions) = group.frames.push_events(batch);
                        let noted = key.is_some() || !notes.is_empty();
                        if let Some(key) = key {
                            let at = clock::now();
                            group.notes.push(Side::Answer {
                                key: key.key.clone(),
                                fingerprint: key.fingerprint,
                                report: report.clone(),
                                at,
                            });
                            group.keys.push(key.key);
                        }
                        group.notes.extend(notes);
                        group.pending.push(Pending::Append { reply, place, partitions, report, noted });
                    }
                    Err(Ok(repeated)) => drop(reply.send(Ok(repeated))),
                    Err(Err(error)) => drop(reply.send(Err(Refusal { append: error.is_temporary().then_some(append), error }))),
                }
            }
            Request::Note(notes, reply) => {
                group.notes.extend(notes);
                group.pending.push(Pending::Note(reply));
            }
            Request::Forget(key, reply) => {
                let hash = key.hash();
                match if self.admission.knows(hash) { Ok(true) } else { self.log.knows(hash) } {
                    Ok(true) => {
                        let place = group.frames.push(&Record::Forget(key));
                        // What follows in this group would make it known again.
                        self.admission.forget(hash);
                        group.pending.push(Pending::Forget(reply, place, hash));
                    }
                    Ok(false) => drop(reply.send(Err(ForgetError::Unknown(key)))),
                    Err(fault) => drop(reply.send(Err(AppendError::from(fault).into()))),
                }
            }
            Request::Configure(text, reply) => {
                let place = group.frames.push(&Record::Configure(text));
                group.pending.push(Pending::Configure(reply, place));
            }
            Request::Uploads(lookup, reply) => drop(reply.send(self.log.uploads(&lookup).map_err(Into::into))),
            Request::Idle(series) => series.into_iter().for_each(|(frame, hash)| self.admission.idle(hash, frame)),
            Request::Forgotten(series) => series.into_iter().for_each(|hash| self.admission.forget(hash)),
            // While the log is away it is tried now and then, since nobody sends events to who is not ready.
            Request::NoteCounts => {
                let tries = self.housekeeping.away.is_some_and(|at| at.elapsed() >= TRY_AGAIN);
                group.must = tries || self.stats.rejected_here() > self.rejected;
            }
            Request::Truncate(frame) => self.housekeeping.truncate_to = Some(frame),
            Request::Prune => self.prune(),
            Request::Tick => {
                if self.room() == Room::Enough {
                    group.frames.push(&Record::Tick);
                }
            }
        }
        None
    }

    /// Whether an append may enter, its rows beyond a limit taken out (they are returned); otherwise its answer.
    fn check(&mut self, append: &mut Append, group: &Group) -> Result<Vec<Rejected>, Result<Appended, AppendError>> {
        self.backlog.check_refusal().map_err(Err)?;
        if let Some(key) = &append.key {
            match self.log.answer(&key.key) {
                Ok(Some((fingerprint, report))) if fingerprint == key.fingerprint => return Err(Ok(Appended::Repeated(report))),
                Ok(Some(_)) => return Err(Err(AppendError::KeyReused)),
                Ok(None) => {}
                Err(fault) => return Err(Err(fault.into())),
            }
        }
        if let Room::Low(why) = self.room() {
            return Err(Err(AppendError::DiskFull(why)));
        }
        let memory = self.admission.memory();
        if memory.is_full() {
            return Err(Err(AppendError::MemoryFull { used: memory.used(), limit: memory.limit() }));
        }
        self.backlog.check(group.frames.events()).map_err(Err)?;
        let mark = self.admission.n_fresh();
        self.register(&append.batch).map_err(Err)?;
        let refused = self.admission.admit(&mut append.batch, group.number);
        append.report.withdraw(refused.clone());
        if append.batch.is_empty() || append.atomic && append.report.rejected > 0 {
            let withdrawn = self.admission.withdraw(mark);
            self.log.unregister(&withdrawn);
            return Err(Err(AppendError::Refused(append.report.clone())));
        }
        Ok(refused)
    }

    /// Makes a group durable, then answers. Returns whether the writer may go on.
    fn write(&mut self, mut group: Group) -> bool {
        // Nobody waits for a tick.
        if group.pending.is_empty() && group.frames.rows() == 0 && !group.must {
            return true;
        }
        // Refusals are in no frame: their count is noted with the next one, so that it outlives a restart.
        let rejected = self.stats.rejected_here();
        if rejected > self.rejected {
            group.notes.push(Side::Count { name: REJECTED, by: rejected - self.rejected });
        }
        self.housekeeping.grown.0 += 1;
        self.housekeeping.grown.1 += group.frames.byte_len();
        let events = group.frames.events();
        match self.log.append(group.frames, &group.notes) {
            Ok(mut landed) => {
                self.stats.new_series(self.admission.settle(true).0);
                match (&self.feed, landed.frame.take()) {
                    (Some(feed), frame) => {
                        self.backlog.appended(group.number, events);
                        frame.into_iter().for_each(|frame| feed.push(frame.number, frame.bytes.into()));
                    }
                    (None, _) if landed.failed.is_some() => {}
                    (None, _) => self.tell_shared(),
                }
                let noted = landed.noted.as_ref().map_err(|fault| AppendError::Away(fault.to_string())).copied();
                let failed = landed.failed.take();
                if noted.is_ok() && failed.is_none() {
                    self.rejected = rejected;
                }
                if let Some((_, fault)) = &failed {
                    self.told_away(fault);
                }
                let failed = failed.map(|(partitions, fault)| (partitions, AppendError::from(fault)));
                for pending in group.pending {
                    match (&noted, &failed) {
                        (Err(fault), _) if pending.is_noted() => pending.fail(fault),
                        (_, Some((partitions, fault))) if pending.is_noted() || pending.is_in(partitions) => pending.fail(fault),
                        _ => pending.succeed(&landed),
                    }
                }
                true
            }
            Err(fault) => {
                let withdrawn = self.admission.settle(false).1;
                let fatal = match &fault {
                    LogError::Full(_) => {
                        self.disk.release();
                        false
                    }
                    // Some of it may be there: what was registered stays.
                    LogError::Away(_) => false,
                    LogError::QueueFull { .. } => {
                        self.log.unregister(&withdrawn);
                        false
                    }
                    _ => true,
                };
                if fatal {
                    error!("the log failed, so the process stops before it acknowledges anything more: {fault}");
                    self.fatal.call(format!("the event log failed: {fault}"));
                } else {
                    self.told_away(&fault);
                }
                let error = if fatal { AppendError::Closing } else { fault.into() };
                for pending in group.pending {
                    if let Pending::Forget(_, _, hash) = &pending {
                        self.admission.known_after_all(*hash);
                    }
                    pending.fail(&error);
                }
                !fatal
            }
        }
    }

    /// How much room the disk has under the log, where it is on this disk.
    fn room(&self) -> Room {
        match &self.log {
            Log::Sqlite(log) => self.disk.room(|| log.reusable()),
            Log::Redis(_) | Log::Kafka(_) => Room::Enough,
        }
    }

    /// Asks whether the series of a batch that are new here may enter, where others let series in too.
    fn register(&mut self, batch: &Batch) -> Result<(), AppendError> {
        if let Log::Sqlite(_) = self.log {
            return Ok(());
        }
        let unknown: Vec<_> = (0..batch.n_series()).map(|i| batch.hash(i)).filter(|hash| !self.admission.knows(*hash)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let entries = self.log.register(&unknown, self.admission.room_for_new())?;
        for (hash, entry) in unknown.into_iter().zip(entries) {
            if entry != Entry::Refused {
                self.admission.registered(hash, entry == Entry::New);
            }
        }
        Ok(())
    }

    /// Tells how full the shared log is, and that it can be reached.
    fn tell_shared(&mut self) {
        if let Log::Redis(log) = &self.log {
            self.backlog.set(log.waiting());
        }
        if self.housekeeping.away.take().is_some() {
            info!("the log is there again: events are accepted");
            self.stats.works_again("log");
        }
    }

    /// Once, and not for each request.
    fn told_away(&mut self, fault: &LogError) {
        if self.housekeeping.away.is_none() {
            warn!("nothing is accepted while the log cannot grow: {fault}");
        }
        // A full queue is no fault of the log's, and a full disk has a component of its own.
        if let (Log::Redis(_) | Log::Kafka(_), LogError::Away(why)) = (&self.log, fault) {
            self.housekeeping.away = Some(Instant::now());
            self.stats.component("log", Component::Failed(why.clone()));
        }
    }

    /// Deletes some of the frames that no recovery needs.
    fn truncate(&mut self) {
        let (Some(frame), Log::Sqlite(log)) = (self.housekeeping.truncate_to, &mut self.log) else {
            self.housekeeping.truncate_to = None;
            return;
        };
        self.housekeeping.grown = (0, 0);
        match log.truncate_before(frame) {
            Ok(true) => {}
            Ok(false) => {
                self.housekeeping.truncate_to = None;
                self.give_back();
            }
            Err(fault) => {
                self.housekeeping.truncate_to = None;
                if matches!(fault, LogError::Full(_)) {
                    self.disk.release();
                }
                warn!("the log could not be truncated before frame {frame}, the next checkpoint tries again: {fault}");
            }
        }
    }

    /// On a disk without room, gives back what the truncation has freed within the file.
    fn give_back(&mut self) {
        while self.room() != Room::Enough {
            let Log::Sqlite(log) = &mut self.log else { return };
            match log.give_back() {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => return warn!("the log could not be made smaller: {fault}"),
            }
        }
    }

    fn prune(&mut self) {
        // Redis forgets them by itself.
        if let Log::Sqlite(log) = &mut self.log
            && let Err(fault) = log.prune_answers(clock::now())
        {
            warn!("answers older than a day could not be deleted, it is tried again in an hour: {fault}");
        }
    }
}

/// The progress that is noted beside rows counts what became of them.
fn withdraw(notes: &mut [Side], refused: &[Rejected]) {
    for note in notes {
        if let Side::Progress(progress) = note {
            progress.report.withdraw(refused.to_vec());
            refused.iter().for_each(|rejected| progress.refused.reject(rejected.clone()));
        }
    }
}

impl Pending {
    /// Whether it is not done before what goes with the frames is kept.
    fn is_noted(&self) -> bool {
        matches!(self, Self::Append { noted: true, .. } | Self::Note(_))
    }

    /// Whether some of it is in one of these partitions.
    fn is_in(&self, partitions: &[u32]) -> bool {
        match self {
            Self::Append { place, partitions: of, .. } => {
                of.iter().chain([&place.partition]).any(|partition| partitions.contains(partition))
            }
            Self::Forget(_, place, _) | Self::Configure(_, place) => partitions.contains(&place.partition),
            Self::Note(_) => false,
        }
    }

    fn succeed(self, landed: &Landed) {
        // A client that went away has no answer to get.
        match self {
            Self::Append { reply, place, report, .. } => {
                drop(reply.send(Ok(Appended::Taken { position: landed.position(place), report })));
            }
            Self::Note(reply) => drop(reply.send(Ok(()))),
            Self::Forget(reply, place, _) => drop(reply.send(Ok(landed.position(place)))),
            Self::Configure(reply, place) => drop(reply.send(Ok(landed.position(place)))),
        }
    }

    fn fail(self, error: &AppendError) {
        match self {
            Self::Append { reply, .. } => drop(reply.send(Err(error.clone().into()))),
            Self::Note(reply) => drop(reply.send(Err(error.clone()))),
            Self::Forget(reply, ..) => drop(reply.send(Err(error.clone().into()))),
            Self::Configure(reply, _) => drop(reply.send(Err(error.clone()))),
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
