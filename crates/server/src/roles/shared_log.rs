//! Opens the log that roles share, on Redis or on Kafka.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anomaly_engine::frame::base_of;
use anyhow::Context as _;
use tracing::warn;

use super::monitor::OnKafka;
use super::{PATIENCE, PAUSE, blocking, patiently};
use crate::config::{Backend, Config};
use crate::kafka::LogTopic;
use crate::log::Log;
use crate::log::frames::Parts;
use crate::log::kafka::{Ends, KafkaLog, Sender};
use crate::log::stream::RedisLog;
use crate::redis::keys::{self, field};
use crate::redis::{RedisPlace, Script};

/// How often it is looked at what others have appended.
const LOOK: Duration = Duration::from_secs(1);

/// KEYS: state. ARGV: the topic and its partitions. Answers those of the first start. It writes them each time, so that an answer proves
/// that they are replicated.
static PIN: Script = Script::new(
    "naming the topic of the log",
    "#!lua flags=allow-oom
local pinned = redis.call('HGET', KEYS[1], 'log_topic') or ARGV[1]
redis.call('HSET', KEYS[1], 'log_topic', pinned)
return pinned",
);

/// The log that roles share.
#[derive(Debug)]
pub(super) struct SharedLog {
    pub(super) log: Log,
    pub(super) kafka: Option<OnKafka>,
}

impl SharedLog {
    /// Opens it for a role that appends what others bring; `replica` names this process across restarts.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub(super) async fn open(config: &Config, place: &RedisPlace, replica: String) -> anyhow::Result<Self> {
        if config.backend != Backend::Kafka {
            let log = RedisLog::new(place.clone(), config.queue_capacity, replica);
            return Ok(Self { log: Log::Redis(Box::new(log)), kafka: None });
        }
        let beside = RedisLog::beside(place.clone(), config.queue_capacity, replica);
        let topic = open_topic(config, place).await?;
        let ends = Arc::new(Ends::default());
        let partitions = topic.partitions();
        follow_ends(topic.clone(), Arc::downgrade(&ends))?;
        let sender = Sender::new(topic).context("Kafka cannot be written to")?;
        let log = KafkaLog::new(sender, Parts::Partitions(partitions), beside, Arc::clone(&ends));
        Ok(Self { log: Log::Kafka(Box::new(log)), kafka: Some(OnKafka { partitions, ends }) })
    }
}

/// The topic of the log, the same as at the first start; a broker that is about to start is waited for.
///
/// # Errors
/// No broker answers, or the topic must not be used.
pub(super) async fn open_topic(config: &Config, place: &RedisPlace) -> anyhow::Result<LogTopic> {
    anyhow::ensure!(config.kafka.broker.is_some(), "BACKEND=kafka keeps the log on Kafka: set KAFKA_BROKER, such as localhost:9092");
    let began = Instant::now();
    let mut told = false;
    let topic = loop {
        match LogTopic::open(&config.kafka).await {
            Ok(topic) => break topic,
            Err(fault) if fault.is_temporary() && began.elapsed() < PATIENCE => {
                if !std::mem::replace(&mut told, true) {
                    warn!("waiting up to {} s: {fault}", PATIENCE.as_secs());
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(fault) => return Err(fault.into()),
        }
    };
    let (mine, place) = (format!("{}/{}", topic.name(), topic.partitions()), place.clone());
    let asked = mine.clone();
    let pin = move || place.connect()?.eval_durable(&PIN, &[keys::STATE], &[asked.as_bytes()]);
    let pinned: String = blocking(move || patiently(&AtomicBool::new(false), pin)).await??;
    anyhow::ensure!(
        pinned == mine,
        "the log is the topic {pinned} (name/partitions) since the first start ({} in redis), and here it is {mine}: which partition a series is \
         in must not change; set KAFKA_LOG_TOPIC as it was, or begin anew with an empty redis and a new topic",
        field::LOG_TOPIC
    );
    Ok(topic)
}

/// Looks from time to time at what others have appended, for as long as somebody wants to know.
pub(super) fn follow_ends(topic: LogTopic, ends: Weak<Ends>) -> anyhow::Result<()> {
    let mut observer = topic.observer().context("Kafka cannot be read")?;
    std::thread::Builder::new().name("log-ends".into()).spawn(move || {
        loop {
            for partition in 0..topic.partitions() {
                let Some(ends) = ends.upgrade() else { return };
                // A partition without a leader is looked at again.
                if let Ok((_, next)) = observer.watermarks(partition) {
                    ends.raise(partition, base_of(partition) + next);
                }
            }
            std::thread::sleep(LOOK);
        }
    })?;
    Ok(())
}
