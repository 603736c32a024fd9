//! The topic that holds the log, where the log is on Kafka: made by us, looked at before it is used.

use std::time::Duration;

use anomaly_engine::frame::MAX_PARTITIONS;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::warn;

use super::client::connection;
use super::lost::{LOST, Quiet, STATISTICS};
use crate::config::KafkaConfig;

/// Partitions of a topic that we make: so many processors can share the work. One that is made by hand may have others.
const PARTITIONS: i32 = 16;
/// Replicas, as far as there are brokers; with all of them, two must have what is acknowledged.
const REPLICAS: usize = 3;
/// A frame holds one request at the most, which may be large; a broker takes no request of 100 MiB.
const MAX_MESSAGE_BYTES: &str = "100000000";
/// Less would refuse requests that are taken elsewhere.
const LEAST_MESSAGE_BYTES: u64 = 64 << 20;
/// How often it is looked whether a topic that was just made is known, and how far apart.
const LOOKS: u32 = 25;
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How long a broker may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Where the log is. Cheap enough to clone.
#[derive(Clone, Debug)]
pub struct LogTopic {
    config: KafkaConfig,
    name: String,
    partitions: u32,
}

/// Why a topic cannot hold the log.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error("Kafka at {at} does not answer: {fault}")]
    Away { at: String, fault: KafkaError },
    #[error("the topic {topic} could not be made: {code}")]
    NotMade { topic: String, code: RDKafkaErrorCode },
    #[error("the topic {topic} has cleanup.policy={policy}, which throws events away: set it to delete")]
    Compacted { topic: String, policy: String },
    #[error("the topic {topic} has max.message.bytes={bytes}, and a request may be larger: set it to {MAX_MESSAGE_BYTES}")]
    TooSmall { topic: String, bytes: String },
    #[error("the topic {topic} has {partitions} partitions, at most {MAX_PARTITIONS} are possible")]
    TooMany { topic: String, partitions: usize },
}

impl TopicError {
    /// Whether it may go away by itself.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::NotMade { .. })
    }
}

impl LogTopic {
    /// Looks at the topic, and makes it where it is not there.
    ///
    /// # Errors
    /// No broker answers, or it must not be used as it is set up.
    pub async fn open(config: &KafkaConfig) -> Result<Self, TopicError> {
        let name = config.log_topic();
        let away = |fault| TopicError::Away { at: config.broker.clone().unwrap_or_default(), fault };
        let admin: AdminClient<DefaultClientContext> = connection(config).create().map_err(away)?;
        let options = AdminOptions::new().request_timeout(Some(ANSWERED_WITHIN)).operation_timeout(Some(ANSWERED_WITHIN));
        // Of all topics: a broker may make one that is asked for by its name, and not as it should be.
        let look = || -> Result<(usize, usize), TopicError> {
            let metadata = tokio::task::block_in_place(|| admin.inner().fetch_metadata(None, ANSWERED_WITHIN)).map_err(away)?;
            let found = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
            Ok((found.map_or(0, |topic| topic.partitions().len()), metadata.brokers().len()))
        };
        let (mut partitions, brokers) = look()?;
        if partitions == 0 {
            let replicas = brokers.clamp(1, REPLICAS);
            let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(replicas as i32))
                .set("cleanup.policy", "delete")
                .set("max.message.bytes", MAX_MESSAGE_BYTES)
                .set("min.insync.replicas", if replicas == REPLICAS { "2" } else { "1" });
            match admin.create_topics([&topic], &options).await.map_err(away)?.into_iter().next() {
                Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
                Some(Err((_, code))) => return Err(TopicError::NotMade { topic: name, code }),
                _ => tracing::info!(topic = name, partitions = PARTITIONS, replicas, "the topic of the log is made"),
            }
            // Not every broker knows of it at once.
            for _ in 0..LOOKS {
                (partitions, _) = look()?;
                if partitions > 0 {
                    break;
                }
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            if partitions == 0 {
                return Err(TopicError::NotMade { topic: name, code: RDKafkaErrorCode::UnknownTopicOrPartition });
            }
        }
        let described = admin.describe_configs([&ResourceSpecifier::Topic(&name)], &options).await.map_err(away)?;
        let settings: Vec<_> = described.into_iter().flatten().collect();
        let setting = |name: &str| settings.iter().find_map(|of| of.entry_map().get(name).and_then(|entry| entry.value.clone()));
        if let Some(bytes) =
            setting("max.message.bytes").filter(|bytes| bytes.parse::<u64>().is_ok_and(|bytes| bytes < LEAST_MESSAGE_BYTES))
        {
            return Err(TopicError::TooSmall { topic: name, bytes });
        }
        if let Some(policy) = setting("cleanup.policy").filter(|policy| policy.contains("compact")) {
            return Err(TopicError::Compacted { topic: name, policy });
        }
        if partitions > MAX_PARTITIONS as usize {
            return Err(TopicError::TooMany { topic: name, partitions });
        }
        Ok(Self { config: config.clone(), name, partitions: partitions as u32 })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// What Kafka is configured by.
    pub fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// How to reach it.
    pub(crate) fn connection(&self) -> ClientConfig {
        connection(&self.config)
    }

    /// Who looks at where its partitions begin and end.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    pub(crate) fn observer(&self) -> Result<Observer, KafkaError> {
        let quiet = Quiet::default();
        let consumer = self.connection().set(STATISTICS.0, STATISTICS.1).create_with_context(quiet.clone())?;
        Ok(Observer { topic: self.clone(), consumer, quiet })
    }
}

/// Looks at where the partitions of the log begin and end.
pub(crate) struct Observer {
    topic: LogTopic,
    consumer: BaseConsumer<Quiet>,
    quiet: Quiet,
}

impl Observer {
    /// Asks for the first offset of a partition that is kept, and the one behind its last.
    ///
    /// # Errors
    /// Its leader does not answer.
    pub(crate) fn watermarks(&mut self, partition: u32) -> Result<(u64, u64), KafkaError> {
        // No message comes; its statistics are heard so.
        self.consumer.poll(Duration::ZERO);
        if self.quiet.is_lost() {
            *self = self.topic.observer()?;
            warn!("Kafka: another client looks at the ends of the log: {LOST}");
        }
        let (first, next) = self.consumer.fetch_watermarks(&self.topic.name, partition as i32, ANSWERED_WITHIN)?;
        Ok((first.max(0) as u64, next.max(0) as u64))
    }
}
