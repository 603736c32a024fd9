//! Appends what a partition has gathered, in order, and writes what is bad to the topic of dead letters.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anomaly_engine::Report;
use anomaly_engine::frame::Batch;
use anomaly_engine::parse::Context;
use futures_util::future::join_all;
use tokio::sync::watch;

use super::cut::{Refused, Step, cut, source};
use super::dead_letter::DeadLetters;
use super::health::Health;
use super::messages::Messages;
use super::{Sink, is_told, is_told_within};
use crate::clock;
use crate::log::handle::Refusal;
use crate::log::{Append, AppendError, Appended};
use crate::stats::Stats;

/// From this size on messages are parsed outside the threads that serve sockets.
const BLOCKING_BYTES: usize = 128 << 10;
/// How long to wait before a batch is offered again to a log that has no room, the first time and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long a log may have no room before it is told.
const TOLD_AFTER: Duration = Duration::from_secs(2);
/// How long to wait before dead letters are written again.
const LETTERS_AGAIN: Duration = Duration::from_secs(1);
/// Dead letters that are written at the same time.
const LETTERS_AT_ONCE: usize = 500;
/// How long dead letters that are being written are waited for when the partition is to be left.
const LETTERS_GRACE: Duration = Duration::from_secs(2);

/// What taking messages needs, the same for every partition.
pub(super) struct Taker<S> {
    pub(super) log: S,
    pub(super) stats: Arc<Stats>,
    pub(super) dead: DeadLetters,
    pub(super) health: Arc<Health>,
    pub(super) topic: String,
    pub(super) max_event_bytes: usize,
    pub(super) max_future: i64,
}

/// What became of an offer to the log.
enum Offered {
    /// It is durable.
    Taken,
    /// Nothing was taken, since these rows cannot be.
    Refused(Report),
    /// Nothing was taken, and the events are gone: they are to be made again from their messages.
    Lost,
    /// Nothing was taken, and the partition is to be left.
    Left,
}

impl<S: Sink> Taker<S> {
    /// Takes messages of one partition; returns the offset behind the last one that is done, all before it done as well. `left`
    /// tells that the rest is to be given up.
    pub(super) async fn take(self: Arc<Self>, partition: i32, messages: Messages, mut left: watch::Receiver<bool>) -> Option<i64> {
        let (messages, source) = (Arc::new(messages), source(&self.topic, partition));
        let mut refused = Refused::new();
        let mut letters: Vec<(usize, Report)> = Vec::new();
        let mut steps = self.cut(&messages, messages.range(), &source, &refused).await?;
        let mut done = messages.len();
        while let Some(step) = steps.pop_front() {
            let (range, batch, report) = match step {
                Step::Bad { message, report } => {
                    self.stats.report_rejected(&report);
                    letters.push((message, report));
                    continue;
                }
                Step::Events { messages, batch } => (messages, batch, Report::default()),
                Step::Array { message, batch, report } => (message..message + 1, batch, report),
            };
            if *left.borrow() {
                done = range.start;
                break;
            }
            match self.offer(partition, batch, &mut left).await {
                Offered::Taken => {
                    if report.rejected > 0 {
                        self.stats.report_rejected(&report);
                        letters.push((range.start, report));
                    }
                    continue;
                }
                Offered::Refused(by_writer) => note_refused(&mut refused, &range, by_writer),
                Offered::Lost => {}
                Offered::Left => {
                    done = range.start;
                    break;
                }
            }
            // Cut again, without what was refused.
            let first = range.start;
            let Some(again) = self.cut(&messages, range, &source, &refused).await else {
                done = first;
                break;
            };
            again.into_iter().rev().for_each(|step| steps.push_front(step));
        }
        // Letters behind what was given up are written by who takes it.
        letters.retain(|(message, _)| *message < done);
        if let Some(unwritten) = self.write(partition, &messages, letters, &mut left).await {
            done = unwritten;
        }
        self.health.goes_on(partition);
        self.stats.kafka().consumed(done as u64);
        messages.behind(done)
    }

    /// `None` where the process ends before it is done.
    async fn cut(&self, messages: &Arc<Messages>, range: Range<usize>, source: &str, refused: &Refused) -> Option<VecDeque<Step>> {
        let context = Context { max_event_bytes: self.max_event_bytes, ..Context::new(clock::now(), self.max_future) };
        if messages.byte_len() < BLOCKING_BYTES {
            return Some(cut(messages, range, source, refused, &context).into());
        }
        let (messages, source, refused) = (Arc::clone(messages), source.to_owned(), refused.clone());
        let steps = tokio::task::spawn_blocking(move || cut(&messages, range, &source, &refused, &context)).await;
        match steps {
            Ok(steps) => Some(steps.into()),
            // A panic is a fault of ours: it ends the reading of this partition as it would on this thread.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => None,
        }
    }

    /// Offers a batch until the log takes or refuses it.
    async fn offer(&self, partition: i32, batch: Batch, left: &mut watch::Receiver<bool>) -> Offered {
        let report = Report { accepted: batch.len() as u64, ..Report::default() };
        // All or none: where rows are refused, positions are given anew.
        let mut append = Append { batch, report, atomic: true, key: None };
        let (began, mut pause) = (Instant::now(), RETRY.0);
        loop {
            let (error, back) = match self.log.offer(append).await {
                Ok(Appended::Taken { .. } | Appended::Repeated(_)) => break,
                Err(Refusal { error: AppendError::Refused(report), .. }) => return Offered::Refused(report),
                Err(Refusal { error, append }) => (error, append),
            };
            if !error.is_temporary() {
                return Offered::Left;
            }
            if began.elapsed() >= TOLD_AFTER {
                self.health.waits(partition, || error.to_string());
            }
            if is_told_within(left, pause).await {
                return Offered::Left;
            }
            pause = RETRY.1.min(pause * 2);
            match back {
                Some(back) => append = *back,
                None => return Offered::Lost,
            }
        }
        self.health.goes_on(partition);
        Offered::Taken
    }

    /// Writes dead letters until all are durable; where the partition is to be left before that, returns the message of the first
    /// that is not.
    async fn write(
        &self,
        partition: i32,
        messages: &Messages,
        mut letters: Vec<(usize, Report)>,
        left: &mut watch::Receiver<bool>,
    ) -> Option<usize> {
        let from = format!("{}/{partition}", self.topic);
        while !letters.is_empty() {
            let some = &letters[..letters.len().min(LETTERS_AT_ONCE)];
            let sent = join_all(some.iter().map(|(message, report)| self.dead.send(&from, messages.get(*message), report)));
            let outcomes = tokio::select! {
                outcomes = sent => outcomes,
                () = told_and_after(left.clone(), LETTERS_GRACE) => return letters.first().map(|(message, _)| *message),
            };
            let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            self.stats.kafka().dead_letters(written as u64);
            let fault = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
            if let Some(fault) = fault {
                self.health.waits(partition, || format!("dead letters cannot be written to {}: {fault}", self.dead.topic()));
            }
            let failed = fault.is_some();
            let mut outcomes = outcomes.into_iter();
            letters.retain(|_| outcomes.next().is_none_or(|outcome| outcome.is_err()));
            if failed && is_told_within(left, LETTERS_AGAIN).await {
                return letters.first().map(|(message, _)| *message);
            }
        }
        None
    }
}

/// Ends so much time after the end was told.
async fn told_and_after(mut told: watch::Receiver<bool>, time: Duration) {
    is_told(&mut told).await;
    tokio::time::sleep(time).await;
}

/// Notes rows that the log's writer has refused under their messages. The line of a single event is its message's number, from 1;
/// the lines of an array, which is alone, are its own.
fn note_refused(refused: &mut Refused, range: &Range<usize>, report: Report) {
    for rejected in report.errors {
        let message = if range.len() > 1 { rejected.line as usize - 1 } else { range.start };
        refused.entry(message).or_default().push(rejected);
    }
}
