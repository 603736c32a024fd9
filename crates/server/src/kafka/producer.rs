//! A producer that is made anew when it is of no more use.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{FutureProducer, Producer as _};
use rdkafka::statistics::Statistics;
use tracing::{debug, info};

use super::client::{LOST, STATISTICS, knows_a_broker};

/// A producer, as all its users share it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Producer {
    settings: ClientConfig,
    // A std mutex: held while librdkafka makes a producer at the most, never across an await.
    current: Arc<Mutex<Current>>,
}

struct Current {
    producer: FutureProducer<Quiet>,
    is_lost: Arc<AtomicBool>,
}

impl Current {
    fn new(settings: &ClientConfig) -> KafkaResult<Self> {
        let is_lost = Arc::default();
        Ok(Self { producer: settings.create_with_context(Quiet { is_lost: Arc::clone(&is_lost) })?, is_lost })
    }

    /// Why it will never write again.
    fn why_useless(&self) -> Option<String> {
        // An idempotent producer that has lost count takes nothing more.
        let fatal = self.producer.client().fatal_error().map(|(_, why)| why);
        fatal.or_else(|| self.is_lost.load(Relaxed).then(|| LOST.to_owned()))
    }
}

impl Producer {
    /// Connects when there is something to send.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    pub(crate) fn new(mut settings: ClientConfig) -> KafkaResult<Self> {
        settings.set(STATISTICS.0, STATISTICS.1);
        Ok(Self { current: Arc::new(Mutex::new(Current::new(&settings)?)), settings })
    }

    /// The one to send with, now: another where the last will never write again.
    pub(crate) fn get(&self) -> FutureProducer<Quiet> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = current.why_useless()
            && let Ok(new) = Current::new(&self.settings)
        {
            info!("Kafka: nothing more is written by this client, another takes its place: {why}");
            *current = new;
        }
        current.producer.clone()
    }
}

/// What a producer has to say stands in the outcome of each message.
pub(crate) struct Quiet {
    is_lost: Arc<AtomicBool>,
}

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        debug!(target: "librdkafka", "{facility}: {line}");
    }

    fn stats(&self, statistics: Statistics) {
        if !knows_a_broker(&statistics) {
            self.is_lost.store(true, Relaxed);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", "{error}: {reason}");
    }
}
