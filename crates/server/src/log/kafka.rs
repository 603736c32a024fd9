//! The log on Kafka: a topic of ours, whose partitions are judged each for itself.
//!
//! The number of a frame is its partition and its offset, so frames are sealed without one and get it when they are read. A batch is
//! appended to several partitions, and may be in some of them and not in others when one does not answer; a retry under the same key, or
//! of the same positions of a source, completes it. What goes with frames is written to Redis behind them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anomaly_engine::Timestamp;
use anomaly_engine::frame::{FrameBuilder, base_of};
use futures_util::future::join_all;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureRecord, Producer as _};

use super::error::LogError;
use super::frames::{Frames, Part, Parts};
use super::side::Side;
use super::stream::{RedisLog, UNNUMBERED};
use crate::kafka::{LogTopic, Producer};
use crate::redis::{Reconnecting, keys};

/// A frame waits so long for its replicas, through the election of a leader; then its client is told that it may try again.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(15);

/// What became of frames.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// The number of each that is durable, by its partition.
    pub(super) numbers: Vec<(u32, u64)>,
    /// The partitions of which it is not known, and why.
    pub(super) failed: Option<(Vec<u32>, LogError)>,
}

impl Delivered {
    fn fail(&mut self, partition: u32, fault: LogError) {
        self.failed.get_or_insert_with(|| (Vec::new(), fault)).0.push(partition);
    }
}

/// How long brokers may take to answer when it is doubtful whether they do.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// The log, as one role appends to it.
pub struct KafkaLog {
    sender: Sender,
    runtime: tokio::runtime::Handle,
    parts: Parts,
    /// Where what goes with frames is kept, and which series may enter.
    pub(super) beside: RedisLog,
    /// Where the familiar list is, which may be elsewhere.
    raw_events: Reconnecting,
    ends: Arc<Ends>,
    /// The last append was not confirmed: brokers are asked before the next is sent, so that nobody waits long again.
    is_doubtful: bool,
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// What is known of the log's end, by partition.
#[derive(Debug, Default)]
pub struct Ends(Mutex<Vec<End>>);

#[derive(Debug)]
struct End {
    /// The last frame.
    last: u64,
    /// Frames that were appended here, and their events: of the others nobody tells how many they hold.
    own: VecDeque<(u64, u64)>,
}

/// How many events wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// About: frames of others are taken to hold as many as was told.
    pub about: u64,
    /// So many at least.
    pub least: u64,
}

impl Ends {
    /// A frame is there.
    pub fn raise(&self, partition: u32, number: u64) {
        Self::end(&mut self.lock(), partition, number);
    }

    /// A frame that was appended here is there, with so many events.
    fn appended(&self, partition: u32, number: u64, events: u64) {
        Self::end(&mut self.lock(), partition, number).own.push_back((number, events));
    }

    /// The last frame of a partition.
    pub fn of(&self, partition: u32) -> u64 {
        self.lock().get(partition as usize).map_or(base_of(partition), |end| end.last)
    }

    /// What is behind the frames that each partition has `reached`; a frame of somebody else's holds `mean` events.
    pub fn waiting(&self, reached: impl Iterator<Item = Option<u64>>, mean: u64) -> Waiting {
        let (mut ends, mut waiting) = (self.lock(), Waiting::default());
        for ((partition, end), reached) in (0..).zip(ends.iter_mut()).zip(reached) {
            let reached = reached.unwrap_or(base_of(partition));
            while end.own.pop_front_if(|(number, _)| *number <= reached).is_some() {}
            let own: u64 = end.own.iter().map(|(_, events)| events).sum();
            let others = end.last.saturating_sub(reached).saturating_sub(end.own.len() as u64);
            waiting.about += own + others.saturating_mul(mean);
            waiting.least += own + others;
        }
        waiting
    }

    fn end(ends: &mut Vec<End>, partition: u32, number: u64) -> &mut End {
        let from = ends.len() as u32;
        ends.extend((from..=partition).map(|partition| End { last: base_of(partition), own: VecDeque::new() }));
        let end = &mut ends[partition as usize];
        end.last = number.max(end.last);
        end
    }

    fn lock(&self) -> MutexGuard<'_, Vec<End>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends to the topic; all logs of a process share one. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    topic: LogTopic,
    producer: Producer,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Sender {
    /// Connects when there is something to send.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    pub fn new(topic: LogTopic) -> Result<Self, KafkaError> {
        let producer = producer(&topic)?;
        Ok(Self { topic, producer })
    }
}

/// A producer for the log: what is acknowledged is on all replicas that are in step, once and in order.
fn producer(topic: &LogTopic) -> Result<Producer, KafkaError> {
    let mut settings = topic.connection();
    for (key, value) in [
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("linger.ms", "0"),
        // The topic says what is too large.
        ("message.max.bytes", "1000000000"),
        ("queue.buffering.max.kbytes", "131072"),
        ("topic.metadata.refresh.interval.ms", "10000"),
    ] {
        settings.set(key, value);
    }
    settings.set("message.timeout.ms", CONFIRMED_WITHIN.as_millis().to_string());
    Producer::new("the log", settings)
}

impl KafkaLog {
    /// The log, as `parts` divides it.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn new(sender: Sender, parts: Parts, beside: RedisLog, ends: Arc<Ends>) -> Self {
        let raw_events = Reconnecting::new(beside.place().of(keys::RAW_EVENTS_TAG));
        Self { sender, runtime: tokio::runtime::Handle::current(), parts, beside, raw_events, ends, is_doubtful: false }
    }

    pub(super) fn parts(&self) -> Parts {
        self.parts
    }

    /// Appends frames; returns what became of each.
    ///
    /// # Errors
    /// [`LogError::Away`]: nothing was sent.
    pub(super) fn append(&mut self, frames: Frames) -> Result<Delivered, LogError> {
        let away = |fault: &KafkaError| LogError::Away(format!("Kafka has not confirmed it: {fault}"));
        let (topic, producer) = (self.sender.topic.name(), self.sender.producer.get());
        if self.is_doubtful {
            let answered = producer.client().fetch_metadata(Some(topic), ANSWERED_WITHIN);
            answered.map_err(|fault| away(&fault))?;
            self.is_doubtful = false;
        }
        let (mut sent, mut delivered) = (Vec::new(), Delivered::default());
        for Part { partition, frame, events } in frames.into_parts() {
            let bytes = frame.seal(UNNUMBERED);
            let record = FutureRecord::<(), [u8]>::to(topic).partition(partition as i32).payload(&bytes);
            match producer.send_result(record) {
                Ok(delivery) => sent.push(async move { (partition, events, delivery.await) }),
                Err((fault, _)) => delivered.fail(partition, away(&fault)),
            }
        }
        for (partition, events, outcome) in self.runtime.block_on(join_all(sent)) {
            match outcome {
                Ok(Ok(delivery)) => {
                    let number = base_of(partition) + delivery.offset as u64 + 1;
                    self.ends.appended(partition, number, events);
                    delivered.numbers.push((partition, number));
                }
                Ok(Err((fault, _))) => delivered.fail(partition, away(&fault)),
                Err(_) => delivered.fail(partition, LogError::Away("Kafka has not confirmed it: the producer has ended".into())),
            }
        }
        if delivered.failed.is_some() {
            self.is_doubtful = true;
        }
        Ok(delivered)
    }

    /// Writes what goes with frames.
    ///
    /// # Errors
    /// As for an append to Redis.
    pub(super) fn write_beside(&mut self, sides: &[Side]) -> Result<(), LogError> {
        let (moved, sides): (Vec<&Side>, Vec<&Side>) = sides.iter().partition(|side| matches!(side, Side::Moved { .. }));
        for side in moved {
            // Where it is there no more somebody has appended it too, and it counts once by its position.
            if let Side::Moved { taken } = side {
                self.raw_events.link()?.query::<u64>(redis::cmd("DEL").arg(keys::taken(*taken)))?;
            }
        }
        if sides.is_empty() {
            return Ok(());
        }
        let sides: Vec<Side> = sides.into_iter().cloned().collect();
        let sides = &sides[..];
        self.beside.append(FrameBuilder::new(Timestamp::default()), 0, sides).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_over_all_partitions() {
        let ends = Ends::default();
        let waiting = |reached: [Option<u64>; 3]| ends.waiting(reached.into_iter(), 10);
        assert_eq!(waiting([Some(1), None, None]), Waiting::default());
        ends.raise(2, base_of(2) + 7);
        ends.appended(0, 5, 100);
        ends.raise(0, 4);
        assert_eq!(waiting([None; 3]), Waiting { about: 100 + 4 * 10 + 7 * 10, least: 100 + 4 + 7 });
        assert_eq!(waiting([Some(4), None, Some(base_of(2) + 6)]), Waiting { about: 110, least: 101 });
        assert_eq!(waiting([Some(5), None, Some(base_of(2) + 7)]), Waiting::default());
    }
}
