//! The consumer, and what librdkafka tells about it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::lost::{STATISTICS, knows_a_broker};
use crate::config::KafkaConfig;
use crate::config::notify::Secret;

/// What librdkafka tells besides messages.
#[derive(Debug)]
pub(crate) enum Event {
    /// These partitions are ours, once they are assigned.
    Assigned(TopicPartitionList),
    /// These are another's, once they are unassigned: it waits for that.
    Revoked(TopicPartitionList),
    /// Why a broker cannot be reached.
    Hint(String),
    /// None can, or what they answer is no.
    Down,
    /// The client knows no broker any more, see `lost.rs`: it has to be made anew.
    Lost,
    /// Offsets were not committed.
    CommitFailed(String),
    /// Now and then, by partition: the end of the log, and the committed offset (negative: unknown); and whether any broker is there.
    Ends { ends: BTreeMap<i32, (i64, i64)>, is_up: bool },
}

/// A consumer of the topic, and what it tells.
pub(crate) struct Client {
    pub(crate) consumer: Arc<StreamConsumer<Context>>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Subscribes to the topic of events; whether it is there, or any broker, is found out later.
    pub(crate) fn of_events(config: &KafkaConfig) -> KafkaResult<Self> {
        Self::subscribe(config, &config.topic, &config.group_id, "earliest")
    }

    /// Subscribes to a topic in a group. `reset` is where to begin without an offset, or with one that is kept no more.
    pub(crate) fn subscribe(config: &KafkaConfig, topic: &str, group: &str, reset: &str) -> KafkaResult<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let context = Context { topic: topic.to_owned(), events: sender, closing: AtomicBool::new(false) };
        let mut settings = connection(config);
        for (key, value) in [
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", reset),
            ("isolation.level", "read_committed"),
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "2000"),
            // A member that comes or goes stops only the partitions that change hands.
            ("partition.assignment.strategy", "cooperative-sticky"),
            // How soon a topic that is made later is found.
            ("topic.metadata.refresh.interval.ms", "5000"),
            ("allow.auto.create.topics", "false"),
            // What is read ahead, of all partitions together. By default it is 64 MiB, and when it is full there is a pause of
            // a second, in which it runs empty.
            ("queued.max.messages.kbytes", "16384"),
            ("fetch.queue.backoff.ms", "1"),
            ("check.crcs", "true"),
            STATISTICS,
        ] {
            settings.set(key, value);
        }
        let consumer: StreamConsumer<Context> = settings.create_with_context(context)?;
        consumer.subscribe(&[topic])?;
        Ok(Self { consumer: Arc::new(consumer), events })
    }
}

/// Where the brokers are and how the connection is secured: the same for reading and writing.
pub(crate) fn connection(config: &KafkaConfig) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set_log_level(RDKafkaLogLevel::Info);
    // What goes on inside, where nothing else tells: LOG_LEVEL=info,librdkafka=trace.
    if tracing::enabled!(target: "librdkafka", tracing::Level::TRACE) {
        settings.set_log_level(RDKafkaLogLevel::Debug).set("debug", "broker,cgrp,consumer,fetch,topic");
    }
    let mut set = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            settings.set(key, value);
        }
    };
    set("bootstrap.servers", config.broker.as_deref());
    set("client.id", Some("anomaly"));
    set("reconnect.backoff.max.ms", Some("2000"));
    set("security.protocol", Some(&config.security_protocol.as_str().to_ascii_lowercase()));
    if config.security_protocol.is_sasl() {
        set("sasl.mechanism", Some(config.sasl_mechanism.map_or("PLAIN", |mechanism| mechanism.as_str())));
        set("sasl.username", config.sasl_username.as_deref());
        set("sasl.password", config.sasl_password.as_ref().map(Secret::reveal));
    }
    set("ssl.ca.location", config.ssl_ca_location.as_deref().and_then(|path| path.to_str()));
    settings
}

/// Passes on what librdkafka tells. A rebalance is answered by who reads the events, when what is under way is done: librdkafka
/// waits for the answer, and nothing waits inside a callback.
pub(crate) struct Context {
    topic: String,
    events: mpsc::UnboundedSender<Event>,
    closing: AtomicBool,
}

impl Context {
    fn tell(&self, event: Event) {
        // Nobody listens any more when the consumer is being closed.
        let _ = self.events.send(event);
    }
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        debug!(target: "librdkafka", "{facility}: {line}");
    }

    fn stats(&self, statistics: Statistics) {
        let of_topic = statistics.topics.get(&self.topic).into_iter().flat_map(|topic| &topic.partitions);
        let ends = of_topic.map(|(partition, of)| (*partition, (of.hi_offset, of.committed_offset))).collect();
        self.tell(Event::Ends { ends, is_up: statistics.brokers.values().any(|broker| broker.state == "UP") });
        if !knows_a_broker(&statistics) {
            self.tell(Event::Lost);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", "{error}: {reason}");
        match error.rdkafka_error_code() {
            // One broker of many may be down, which concerns nobody: the end of all of them is told apart.
            Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve | RDKafkaErrorCode::SSL) => {
                self.tell(Event::Hint(reason.to_owned()));
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => self.tell(Event::Down),
            Some(
                RDKafkaErrorCode::Authentication | RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed,
            ) => {
                self.tell(Event::Hint(reason.to_owned()));
                self.tell(Event::Down);
            }
            _ => {}
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let is_assigned = what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Relaxed) {
            let answered = if is_assigned { consumer.incremental_assign(partitions) } else { consumer.incremental_unassign(partitions) };
            if let Err(fault) = answered {
                debug!("a rebalance while closing: {fault}");
            }
            return;
        }
        let partitions = partitions.clone();
        self.tell(if is_assigned { Event::Assigned(partitions) } else { Event::Revoked(partitions) });
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(fault) => self.tell(Event::CommitFailed(fault.to_string())),
        }
    }
}

/// Commits offsets and waits until the group has them.
pub(crate) async fn commit(consumer: &Arc<StreamConsumer<Context>>, offsets: TopicPartitionList, at_most: Duration) -> Result<(), String> {
    if offsets.count() == 0 {
        return Ok(());
    }
    let consumer = Arc::clone(consumer);
    let committed = on_thread(at_most, move || consumer.commit(&offsets, CommitMode::Sync)).await;
    committed.unwrap_or(Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut))).map_err(|fault| fault.to_string())
}

/// Asks a broker whether the topic exists.
pub(crate) async fn ask(consumer: &Arc<StreamConsumer<Context>>, topic: &str, at_most: Duration) -> Result<bool, String> {
    let (consumer, topic) = (Arc::clone(consumer), topic.to_owned());
    let asked = move || {
        let metadata = consumer.fetch_metadata(Some(&topic), at_most)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.map(|found| found.error().map(RDKafkaErrorCode::from)) {
            Some(None) => Ok(true),
            None | Some(Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::LeaderNotAvailable)) => Ok(false),
            Some(Some(refused)) => Err(KafkaError::MetadataFetch(refused)),
        }
    };
    let answer: Option<KafkaResult<bool>> = on_thread(at_most * 2, asked).await;
    answer.unwrap_or(Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut))).map_err(|fault| fault.to_string())
}

/// Leaves the group and closes the consumer.
pub(crate) async fn close(consumer: Arc<StreamConsumer<Context>>, at_most: Duration) {
    consumer.context().closing.store(true, Relaxed);
    on_thread(at_most, move || drop(consumer)).await;
}

/// Runs what waits for a broker on a thread of its own, which the end of the process does not wait for.
async fn on_thread<T: Send + 'static>(at_most: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let thread = std::thread::Builder::new().name("kafka".into()).spawn(move || {
        let _ = reply.send(work());
    });
    thread.ok()?;
    tokio::time::timeout(at_most, answer).await.ok()?.ok()
}
