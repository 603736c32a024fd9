//! The log on Kafka: a topic of ours, whose partitions are judged each for itself.
//!
//! The number of a frame is its partition and its offset, so frames are sealed without one and get it when they are read. A batch is
//! appended to several partitions, and may be in some of them and not in others when one does not answer; a retry under the same key, or
//! of the same positions of a source, completes it. What goes with frames is written to Redis behind them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anomaly_engine::Timestamp;
use anomaly_engine::frame::{FrameBuilder, base_of};
use futures_util::future::join_all;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::error::LogError;
use super::frames::{Frames, Part, Parts};
use super::side::Side;
use super::stream::{RedisLog, UNNUMBERED};
use crate::kafka::{LogTopic, Quiet};
use crate::redis::{Reconnecting, keys};

/// A frame waits so long for its replicas, through the election of a leader; then its client is told that it may try again.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(15);

/// How long brokers may take to answer when it is doubtful whether they do.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// The log, as one role appends to it.
pub struct KafkaLog {
    topic: LogTopic,
    producer: FutureProducer<Quiet>,
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

/// The last frames that are known to be in the log, by partition.
#[derive(Debug, Default)]
pub struct Ends(Mutex<Vec<u64>>);

impl Ends {
    /// A frame is there.
    pub fn raise(&self, partition: u32, number: u64) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ends.len() <= partition as usize {
            let from = ends.len() as u32;
            ends.extend((from..=partition).map(base_of));
        }
        let end = &mut ends[partition as usize];
        *end = number.max(*end);
    }

    /// The last of a partition.
    pub fn of(&self, partition: u32) -> u64 {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(partition as usize).copied().unwrap_or(base_of(partition))
    }

    /// Frames behind those that each partition has `reached`.
    pub fn behind(&self, reached: impl Iterator<Item = Option<u64>>) -> u64 {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (0..)
            .zip(ends.iter())
            .zip(reached)
            .map(|((partition, end), reached)| end.saturating_sub(reached.unwrap_or(base_of(partition))))
            .sum()
    }
}

/// A producer for the log: what is acknowledged is on all replicas that are in step, once and in order.
///
/// # Errors
/// Settings that librdkafka refuses.
fn producer(topic: &LogTopic) -> Result<FutureProducer<Quiet>, KafkaError> {
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
    settings.create_with_context(Quiet)
}

impl KafkaLog {
    /// The log, as `parts` divides it.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn new(topic: LogTopic, parts: Parts, beside: RedisLog, ends: Arc<Ends>) -> Result<Self, KafkaError> {
        let producer = producer(&topic)?;
        let raw_events = Reconnecting::new(beside.place().of(keys::RAW_EVENTS_TAG));
        Ok(Self { topic, producer, runtime: tokio::runtime::Handle::current(), parts, beside, raw_events, ends, is_doubtful: false })
    }

    pub(super) fn parts(&self) -> Parts {
        self.parts
    }

    /// Appends frames; returns the number of each by its partition, once all are durable.
    ///
    /// # Errors
    /// [`LogError::Away`]: some may be there.
    pub(super) fn append(&mut self, frames: Frames) -> Result<Vec<(u32, u64)>, LogError> {
        let away = |fault: &KafkaError| LogError::Away(format!("Kafka has not confirmed it: {fault}"));
        if self.is_doubtful {
            let answered = self.producer.client().fetch_metadata(Some(self.topic.name()), ANSWERED_WITHIN);
            answered.map_err(|fault| away(&fault))?;
            self.is_doubtful = false;
        }
        let mut sent = Vec::new();
        for Part { partition, frame, .. } in frames.into_parts() {
            let bytes = frame.seal(UNNUMBERED);
            let record = FutureRecord::<(), [u8]>::to(self.topic.name()).partition(partition as i32).payload(&bytes);
            let delivery = self.producer.send_result(record).map_err(|(fault, _)| away(&fault))?;
            sent.push(async move { (partition, delivery.await) });
        }
        let (mut numbers, mut failed) = (Vec::new(), None);
        for (partition, delivered) in self.runtime.block_on(join_all(sent)) {
            match delivered {
                Ok(Ok(delivery)) => {
                    let number = base_of(partition) + delivery.offset as u64 + 1;
                    self.ends.raise(partition, number);
                    numbers.push((partition, number));
                }
                Ok(Err((fault, _))) => failed = Some(fault),
                Err(_) => failed = Some(KafkaError::MessageProduction(RDKafkaErrorCode::OperationTimedOut)),
            }
        }
        let Some(fault) = failed else { return Ok(numbers) };
        self.is_doubtful = true;
        // An idempotent producer that has lost count takes nothing more: another begins to count anew.
        if self.producer.client().fatal_error().is_some()
            && let Ok(producer) = producer(&self.topic)
        {
            self.producer = producer;
        }
        Err(away(&fault))
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
    fn what_is_behind_is_counted_over_all_partitions() {
        let ends = Ends::default();
        assert_eq!(ends.behind([Some(1), None].into_iter()), 0);
        ends.raise(2, base_of(2) + 7);
        ends.raise(0, 5);
        ends.raise(0, 4);
        assert_eq!(ends.behind([None; 4].into_iter()), 12);
        assert_eq!(ends.behind([Some(5), None, Some(base_of(2) + 6)].into_iter()), 1);
    }
}
