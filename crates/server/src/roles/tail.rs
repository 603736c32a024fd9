//! Follows what other processes write to Redis: frames for the engine, entries of the journal for the store, points, counters.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use redis::Value;
use redis::streams::StreamReadReply;
use tokio::sync::watch;
use tracing::warn;

use super::judging::Judging;
use super::monitor::{Monitor, Watch};
use super::worker::Worker;
use crate::commit::ToCommit;
use crate::engine_thread::EngineFeed;
use crate::fatal::Fatal;
use crate::log::stream_reader::{Stride, frame_of};
use crate::points::{Decoder, PointsHandle};
use crate::redis::{Link, Reconnecting, RedisError, RedisPlace, keys};
use crate::sharing::points_of;
use crate::store::journal::Progress;

/// How long a read waits for something new.
const BLOCK: Duration = Duration::from_millis(50);
/// While something is written that is not safe yet.
const UNSAFE_BLOCK: Duration = Duration::from_millis(2);
/// A committer that is behind is told again this often.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// Entries that are read at a time.
const ENTRIES: usize = 64;

/// Follows for a process without an engine: entries that are safe, points, counters. Redis may go away and come back.
///
/// # Errors
/// The system gives no thread.
pub(super) fn without_engine(
    place: RedisPlace,
    watch: Watch,
    commits: Option<SyncSender<ToCommit>>,
    points: PointsHandle,
) -> std::io::Result<Worker> {
    let (mut tail, mut connection) = (Tail::new(watch, commits), Reconnecting::new(place));
    Worker::start("tail", move |stopping| {
        let mut seen = "$".to_owned();
        while !stopping.is_told() {
            let step = connection.link().and_then(|link| tail.follow(link, &mut seen, &points));
            tail.monitor.answered(step.as_ref().err());
            if step.is_err() {
                std::thread::sleep(BLOCK);
            }
        }
    })
}

/// Follows for the owner of the lease, with its link: frames behind `last`, counters. When Redis goes away, the ownership ends.
///
/// # Errors
/// The system gives no thread.
pub(super) fn of_processor(
    mut link: Link,
    watch: Watch,
    judging: &Judging,
    progress: Arc<Progress>,
    mut last: u64,
    fatal: Fatal,
) -> std::io::Result<Worker> {
    let (feed, reached) = (Arc::clone(&judging.feed), judging.reached.clone());
    let mut tail = Tail::new(watch, Some(judging.commits.clone()));
    let mut judged = 0;
    Worker::start("tail", move |stopping| {
        let _guard = fatal.guard("tail");
        while !stopping.is_told() {
            let step = tail.take(&mut link, &feed, &progress, &mut last);
            tail.monitor.answered(step.as_ref().err());
            if let Err(fault) = step {
                fatal.call(fault.to_string());
                break;
            }
            // A replay says nothing new to others, however long it takes.
            if std::mem::replace(&mut judged, *reached.borrow()) != judged {
                tail.monitor.goes_on();
            }
            if let Some(why) = tail.monitor.stuck() {
                fatal.call(why);
                break;
            }
        }
        feed.close();
    })
}

/// Follows, and looks how it all stands.
struct Tail {
    monitor: Monitor,
    /// Who follows the journal, where anybody does, and how far that is.
    commits: Option<SyncSender<ToCommit>>,
    applied: Option<watch::Receiver<u64>>,
    /// Up to where the committer was told that there is something.
    told: u64,
    told_at: Option<Instant>,
    decoder: Decoder,
    stride: Stride,
}

impl Tail {
    fn new(watch: Watch, commits: Option<SyncSender<ToCommit>>) -> Self {
        let applied = watch.applied.clone();
        Self { monitor: Monitor::new(watch), commits, applied, told: 0, told_at: None, decoder: Decoder::new(), stride: Stride::default() }
    }

    /// One step of an API's tail.
    fn follow(&mut self, link: &mut Link, seen: &mut String, points: &PointsHandle) -> Result<(), RedisError> {
        let safe = self.monitor.count(link)?;
        self.tell_committer(safe);
        if self.commits.is_none() {
            // Who has no store follows counters alone.
            std::thread::sleep(BLOCK);
            return Ok(());
        }
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(ENTRIES).arg("BLOCK");
        // What is not safe yet would end a wait for the journal at once, again and again.
        let block = if self.monitor.written() > safe { UNSAFE_BLOCK } else { BLOCK };
        command.arg(block.as_millis() as u64).arg("STREAMS");
        let from = format!("{safe}-0");
        let journal = (self.monitor.written() <= safe).then_some((keys::JOURNAL, &from));
        let streams = journal.into_iter().chain(points.is_on().then_some((keys::POINTS, &*seen)));
        let (streams, behind): (Vec<_>, Vec<_>) = streams.unzip();
        if streams.is_empty() {
            std::thread::sleep(block);
            return Ok(());
        }
        command.arg(streams).arg(behind);
        let reply: Option<StreamReadReply> = link.query_blocking(&command, block)?;
        for stream in reply.into_iter().flat_map(|reply| reply.keys) {
            if stream.key.as_bytes() != keys::POINTS {
                continue;
            }
            for entry in stream.ids {
                if let Some(Value::BulkString(bytes)) = entry.map.get("p") {
                    points.offer(points_of(bytes, &mut self.decoder));
                }
                *seen = entry.id;
            }
        }
        Ok(())
    }

    /// One step of the owner's tail.
    fn take(&mut self, link: &mut Link, feed: &EngineFeed, progress: &Progress, last: &mut u64) -> Result<(), RedisError> {
        self.monitor.count(link)?;
        self.tell_committer(self.monitor.written());
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(self.stride.count()).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        command.arg("STREAMS").arg(keys::LOG).arg(format!("{last}-0"));
        let reply: Option<StreamReadReply> = link.query_blocking(&command, BLOCK)?;
        let (mut entries, mut bytes) = (0, 0);
        for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids) {
            let id = entry.id.clone();
            let Some(frame) = frame_of(entry) else {
                warn!(entry = id, "an entry of the log is no frame of ours: it is left out");
                continue;
            };
            let length = frame.bytes.len();
            progress.appended(frame.number, frame.appended);
            feed.push(frame.number, frame.bytes.into());
            *last = frame.number;
            (entries, bytes) = (entries + 1, bytes + length);
        }
        self.stride.learn(entries, bytes);
        Ok(())
    }

    /// Tells the committer that there is something up to `number`, once; one that is busy is told again in the next step.
    fn tell_committer(&mut self, number: u64) {
        let Some(commits) = &self.commits else { return };
        let is_behind = self.applied.as_ref().is_some_and(|applied| *applied.borrow() < number);
        let again = is_behind && self.told_at.is_none_or(|at| at.elapsed() >= TELL_AGAIN);
        if number == self.told && !again {
            return;
        }
        if !matches!(commits.try_send(ToCommit::Follow), Err(mpsc::TrySendError::Full(_))) {
            (self.told, self.told_at) = (number, Some(Instant::now()));
        }
    }
}
