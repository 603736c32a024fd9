//! Events from Kafka: read in a consumer group, appended to the log, then their offsets are committed.
//!
//! ```text
//! consumer ─► Lane (a partition) ─► cut: steps ─► Taker: append, in order ─► offset behind what is durable ─► commit
//!             messages that wait     pure           └─► dead letters: what is no event, with the reason
//! ```
//! [`Ingest`] starts and stops it; `reader.rs` owns the consumer and one `Lane` a partition, `take.rs` appends what a lane has
//! gathered, `cut.rs` is the pure function between the two, `client.rs` is what librdkafka tells us,
//! `producer.rs` writes; `lost.rs` says when a client has to be made anew.
//!
//! A message counts once however often it is delivered, since its offset is its position in its source: see `cut.rs`. Which log it
//! is appended to is the [`Sink`]'s affair. Where the log itself is on Kafka, [`LogTopic`] says where.

mod client;
mod cut;
mod dead_letter;
mod health;
mod lane;
mod log_topic;
mod lost;
mod messages;
mod producer;
mod reader;
mod take;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::log::handle::{LogHandle, Refusal};
use crate::log::{Append, Appended};
use crate::stats::Stats;
pub(crate) use client::{Client, Context, Event, close, connection};
pub use log_topic::LogTopic;
pub(crate) use lost::LOST;
pub(crate) use producer::Producer;

use dead_letter::DeadLetters;
use health::Health;
use take::Taker;

/// What the names of Kafka's partitions as sources begin with.
pub(crate) const SOURCE: &str = "kafka:";

/// How long to wait before a consumer that broke is made anew.
const AGAIN: Duration = Duration::from_secs(5);

/// A log that events can be offered to.
pub trait Sink: Clone + Send + Sync + 'static {
    /// Appends events; ends when they are durable, or with why they are not.
    fn offer(&self, append: Append) -> impl Future<Output = Result<Appended, Refusal>> + Send;
}

impl Sink for LogHandle {
    async fn offer(&self, append: Append) -> Result<Appended, Refusal> {
        self.append_with(append, Vec::new()).await
    }
}

/// The reading of one topic.
#[derive(Debug)]
pub struct Ingest {
    /// None where no broker is configured.
    running: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Ingest {
    /// Begins to read, where `KAFKA_BROKER` is set. A broker that does not answer and a topic that does not exist are waited for.
    ///
    /// # Errors
    /// A file of certificates that is not there; settings that librdkafka refuses.
    pub fn start(config: &Config, log: impl Sink, stats: Arc<Stats>) -> anyhow::Result<Self> {
        let kafka = config.kafka.clone();
        let Some(broker) = kafka.broker.clone() else { return Ok(Self { running: None }) };
        stats.kafka().set_lag(Default::default());
        let health = Arc::new(Health::new(broker.clone(), kafka.topic.clone(), Arc::clone(&stats)));
        let cannot = || format!("Kafka at {broker} cannot be read");
        if let Some(missing) = kafka.ssl_ca_location.as_deref().filter(|path| !path.exists()) {
            anyhow::bail!("KAFKA_SSL_CA_LOCATION: there is no {}", missing.display());
        }
        let client = Client::of_events(&kafka).with_context(cannot)?;
        let dead = DeadLetters::new(&kafka).with_context(cannot)?;
        let (max_event_bytes, max_future) = (config.limits.max_event_bytes, config.max_future);
        let taker = Arc::new(Taker { log, stats, dead, health, topic: kafka.topic.clone(), max_event_bytes, max_future });
        tracing::info!(topic = kafka.topic, group = kafka.group_id, "reading events from Kafka at {broker}");
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut client = client;
            let mut stopped = stopped;
            while let Err(why) = reader::read(client, Arc::clone(&taker), &mut stopped).await {
                taker.health.unreachable(&why);
                client = loop {
                    if is_told_within(&mut stopped, AGAIN).await {
                        return;
                    }
                    match Client::of_events(&kafka) {
                        Ok(client) => {
                            tracing::info!("Kafka: the consumer is made anew: {why}");
                            break client;
                        }
                        Err(fault) => taker.health.unreachable(&fault.to_string()),
                    }
                };
            }
        });
        Ok(Self { running: Some((stop, task)) })
    }

    /// Stops reading, waits for what is being appended, commits its offsets and leaves the group: 6 s at most.
    pub async fn stop(self) {
        if let Some((stop, task)) = self.running {
            stop.send_replace(true);
            let _ = task.await;
        }
    }
}

/// Ends when the end is told. Who would have told it and is gone has told it.
async fn is_told(told: &mut watch::Receiver<bool>) {
    let _ = told.wait_for(|told| *told).await;
}

/// Whether the end is told within so much time.
async fn is_told_within(told: &mut watch::Receiver<bool>, time: Duration) -> bool {
    tokio::time::timeout(time, is_told(told)).await.is_ok()
}
