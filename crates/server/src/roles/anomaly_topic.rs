//! Writes anomalies to `KAFKA_ANOMALY_TOPIC`, in the order of detection, each at least once: who reads it knows one again by its key, which
//! is its id.
//!
//! A thread of its own follows the store, and notes on Redis how far it is, so nobody waits for Kafka, and nothing is left out while that
//! is away. It begins with what is found after it was first set.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::error::KafkaError;
use rdkafka::producer::FutureRecord;
use serde::Deserialize;
use tracing::{info, warn};

use super::worker::{Stopping, Worker};
use crate::config::Config;
use crate::kafka::{Producer, connection};
use crate::redis::keys::{self, field};
use crate::redis::{Fence, Reconnecting, RedisError, RedisPlace};
use crate::stats::{Component, Stats};
use crate::store::StoreError;
use crate::store::journal::NOTE;
use crate::store::sqlite::StoreReader;

/// It is looked this often whether there is something new.
const PAUSE: Duration = Duration::from_millis(200);
/// Before it is tried again after something went wrong.
const AGAIN: Duration = Duration::from_secs(2);
/// Anomalies that are under way at a time.
const PAGE: usize = 256;

struct Writer {
    connection: Reconnecting,
    fence: Fence,
    store: StoreReader,
    producer: Producer,
    topic: String,
    runtime: tokio::runtime::Handle,
    /// The number of the last one that is there.
    written: Option<u64>,
}

/// Why it does not go on.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Kafka(#[from] KafkaError),
    #[error("the producer has ended")]
    Ended,
    #[error("another processor has taken over")]
    Deposed,
}

/// What is read of an anomaly.
#[derive(Deserialize)]
struct Identity {
    id: String,
}

/// Writes as the owner of the lease, where the topic is set.
///
/// # Errors
/// The system gives no thread; settings that librdkafka refuses.
pub(super) fn start(
    config: &Config,
    place: RedisPlace,
    fence: Fence,
    store: StoreReader,
    stats: Arc<Stats>,
) -> anyhow::Result<Option<Worker>> {
    let Some(topic) = config.kafka.anomaly_topic.clone() else { return Ok(None) };
    let mut settings = connection(&config.kafka);
    for (key, value) in [("acks", "all"), ("enable.idempotence", "true"), ("message.timeout.ms", "5000"), ("compression.type", "lz4")] {
        settings.set(key, value);
    }
    let producer = Producer::new("the topic of anomalies", settings)?;
    let runtime = tokio::runtime::Handle::current();
    let writer = Writer { connection: Reconnecting::new(place), fence, store, producer, topic, runtime, written: None };
    Ok(Some(Worker::start("anomaly-topic", move |stopping| writer.run(&stopping, &stats))?))
}

impl Writer {
    fn run(mut self, stopping: &Stopping, stats: &Stats) {
        let mut is_failing = false;
        stats.component("anomaly_topic", Component::Ok);
        while !stopping.is_told() {
            match self.step() {
                Ok(n) => {
                    if std::mem::take(&mut is_failing) {
                        info!("anomalies are written to Kafka again");
                        stats.component("anomaly_topic", Component::Ok);
                    }
                    if n < PAGE {
                        std::thread::sleep(PAUSE);
                    }
                }
                Err(Fault::Deposed) => break,
                Err(fault) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        warn!("anomalies wait to be written to the topic {}: {fault}", self.topic);
                    }
                    stats.component(
                        "anomaly_topic",
                        Component::Degraded(format!("anomalies wait to be written to {}: {fault}", self.topic)),
                    );
                    std::thread::sleep(AGAIN);
                }
            }
        }
        // It is another's now.
        stats.component("anomaly_topic", Component::Ok);
    }

    /// Writes some; returns how many.
    fn step(&mut self) -> Result<usize, Fault> {
        let after = match self.written {
            Some(written) => written,
            None => self.begin()?,
        };
        let page = self.store.after(Some(after), PAGE)?;
        let Some(last) = page.last().map(|last| last.seq) else { return Ok(0) };
        let (producer, mut sent) = (self.producer.get(), Vec::with_capacity(page.len()));
        for anomaly in &page {
            let key = serde_json::from_str::<Identity>(&anomaly.body).map(|identity| identity.id).unwrap_or_default();
            let record = FutureRecord::to(&self.topic).key(&key).payload(&anomaly.body);
            sent.push(producer.send_result(record).map_err(|(fault, _)| fault)?);
        }
        for delivered in self.runtime.block_on(join_all(sent)) {
            delivered.map_err(|_| Fault::Ended)?.map_err(|(fault, _)| fault)?;
        }
        self.note(last)?;
        Ok(page.len())
    }

    /// How far the owner before was.
    fn begin(&mut self) -> Result<u64, Fault> {
        let noted: Option<u64> = self.connection.link()?.query(redis::cmd("HGET").arg(keys::STATE).arg(field::PRODUCED))?;
        let from = match noted {
            Some(noted) => noted,
            None => self.store.extent()?.newest,
        };
        self.note(from)?;
        Ok(from)
    }

    fn note(&mut self, written: u64) -> Result<(), Fault> {
        let text = written.to_string();
        let args: [&[u8]; 3] = [self.fence.token().as_bytes(), field::PRODUCED.as_bytes(), text.as_bytes()];
        if self.connection.link()?.eval::<u8>(&NOTE, &[keys::STATE, self.fence.key()], &args)? == 0 {
            return Err(Fault::Deposed);
        }
        self.written = Some(written);
        Ok(())
    }
}
