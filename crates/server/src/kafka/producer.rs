//! A producer that is made anew when it is of no more use.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{FutureProducer, Producer as _};
use tracing::warn;

use super::lost::{LOST, Quiet, STATISTICS};

/// How long what is under way may take in a producer that was replaced: longer than any message does.
const LAST_MESSAGES: Duration = Duration::from_secs(20);

/// A producer, as all its users share it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Producer {
    /// What it writes, in words.
    of: &'static str,
    settings: Arc<ClientConfig>,
    // A std mutex: held while librdkafka makes a producer at the most, never across an await.
    current: Arc<Mutex<Current>>,
}

struct Current {
    producer: FutureProducer<Quiet>,
    quiet: Quiet,
}

impl Current {
    fn new(settings: &ClientConfig) -> KafkaResult<Self> {
        let quiet = Quiet::default();
        Ok(Self { producer: settings.create_with_context(quiet.clone())?, quiet })
    }

    /// Why it will never write again.
    fn why_useless(&self) -> Option<String> {
        // An idempotent producer that has lost count takes nothing more.
        let fatal = self.producer.client().fatal_error().map(|(_, why)| why);
        fatal.or_else(|| self.quiet.is_lost().then(|| LOST.to_owned()))
    }

    /// Ends it behind its last messages. That takes a while and its users wait for none of it, so on a thread.
    fn end(self) {
        let spawned = std::thread::Builder::new().name("kafka".into()).spawn(move || {
            let _ = self.producer.flush(LAST_MESSAGES);
        });
        if let Err(fault) = spawned {
            warn!("Kafka: a producer was ended at once: {fault}");
        }
    }
}

impl Producer {
    /// Connects when there is something to send; `of` says what.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    pub(crate) fn new(of: &'static str, mut settings: ClientConfig) -> KafkaResult<Self> {
        settings.set(STATISTICS.0, STATISTICS.1);
        Ok(Self { of, current: Arc::new(Mutex::new(Current::new(&settings)?)), settings: Arc::new(settings) })
    }

    /// The one to send with, now: another where the last will never write again.
    pub(crate) fn get(&self) -> FutureProducer<Quiet> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = current.why_useless() {
            match Current::new(&self.settings) {
                Ok(new) => {
                    warn!("Kafka: another producer writes {}: {why}", self.of);
                    std::mem::replace(&mut *current, new).end();
                }
                Err(fault) => warn!("Kafka: {} cannot be written, and no other producer be made: {why}; {fault}", self.of),
            }
        }
        current.producer.clone()
    }
}
