//! Reading from librdkafka's mock cluster into a log that can be told to refuse. Real brokers: `tests/test_kafka.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anomaly_engine::frame::Position;
use anomaly_engine::{Code, Rejected, Report};
use futures_util::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use rdkafka::util::Timeout;

use super::*;
use crate::config::KafkaConfig;
use crate::log::AppendError;

/// A log that notes what it takes: by source, first position and rows.
#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    taken: Vec<(String, u64, usize)>,
    /// How many offers are answered with a full queue, and with a full disk that has lost the events.
    full: usize,
    lost: usize,
    /// Metrics that are refused.
    refused: BTreeSet<&'static str>,
}

impl Fake {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of each source, after a check that no position came twice or out of order.
    fn rows(&self) -> BTreeMap<String, usize> {
        let mut rows = BTreeMap::new();
        let mut ends: BTreeMap<String, u64> = BTreeMap::new();
        for (source, first, n) in &self.state().taken {
            let end = ends.insert(source.clone(), first + *n as u64).unwrap_or(0);
            assert!(end <= *first, "{source}: {first} after {end}");
            *rows.entry(source.clone()).or_default() += n;
        }
        rows
    }
}

impl Sink for Fake {
    async fn offer(&self, mut append: Append) -> Result<Appended, Refusal> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut state = self.state();
        if state.full > 0 {
            state.full -= 1;
            let error = AppendError::QueueFull { queued: 1, capacity: 1 };
            return Err(Refusal { error, append: Some(Box::new(append)) });
        }
        if state.lost > 0 {
            state.lost -= 1;
            return Err(AppendError::DiskFull("full".into()).into());
        }
        let full = Rejected { line: 0, field: "metric".into(), code: Code::SeriesLimit, message: "too many series".into() };
        let refused: Vec<_> = (0..append.batch.n_series())
            .filter(|&i| state.refused.contains(append.batch.key(i).metric()))
            .map(|i| append.batch.hash(i))
            .collect();
        let errors = append.batch.refuse(|hash| refused.contains(&hash).then(|| full.clone()));
        append.report.withdraw(errors);
        if append.report.rejected > 0 {
            assert!(append.atomic);
            return Err(AppendError::Refused(append.report).into());
        }
        let origin = append.batch.origin.clone();
        state.taken.push((origin.name, origin.first.expect("every message has a position"), append.batch.len()));
        let report = Report { accepted: append.batch.len() as u64, ..Report::default() };
        Ok(Appended::Taken { position: Position { frame: state.taken.len() as u64, row: 0 }, report })
    }
}

/// A cluster with a topic, what is in it, and what reads it.
struct Rig {
    cluster: MockCluster<'static, DefaultProducerContext>,
    config: Config,
    log: Fake,
    stats: Arc<Stats>,
}

impl Rig {
    fn new(partitions: i32) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", partitions, 1).unwrap();
        cluster.create_topic("events.dead", 1, 1).unwrap();
        let kafka = KafkaConfig { broker: Some(cluster.bootstrap_servers()), ..KafkaConfig::default() };
        Self { cluster, config: Config { kafka, ..Config::default() }, log: Fake::default(), stats: Arc::new(Stats::new(9)) }
    }

    fn start(&self) -> Ingest {
        Ingest::start(&self.config, self.log.clone(), Arc::clone(&self.stats)).unwrap()
    }

    async fn send(&self, partition: i32, values: &[String]) {
        let producer: FutureProducer = self.client().create().unwrap();
        let record = |value| FutureRecord::<str, str>::to("events").partition(partition).key("k").payload(value);
        let sent = join_all(values.iter().map(|value| producer.send(record(value), Timeout::Never)));
        assert!(sent.await.iter().all(Result::is_ok));
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.cluster.bootstrap_servers()).set("group.id", "anomaly-ingest-group").set("linger.ms", "0");
        config
    }

    /// The offsets that the group has of the topic's partitions.
    fn committed(&self, partitions: i32) -> Vec<Offset> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let mut list = TopicPartitionList::new();
        (0..partitions).for_each(|partition| _ = list.add_partition("events", partition));
        let found = consumer.committed_offsets(list, Duration::from_secs(5)).unwrap();
        found.elements().iter().map(TopicPartitionListElem::offset).collect()
    }

    /// Source and code of each dead letter.
    fn letters(&self, n: usize) -> Vec<(String, String)> {
        let consumer: BaseConsumer = self.client().set("group.id", "letters").set("auto.offset.reset", "earliest").create().unwrap();
        consumer.subscribe(&["events.dead"]).unwrap();
        let (mut found, until) = (Vec::new(), Instant::now() + Duration::from_secs(20));
        while found.len() < n && Instant::now() < until {
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.unwrap();
            assert_eq!(message.key(), Some(&b"k"[..]));
            let header = |name: &str| {
                let headers = message.headers().unwrap();
                let value = headers.iter().find(|header| header.key == name).and_then(|header| header.value).unwrap();
                String::from_utf8(value.to_vec()).unwrap()
            };
            found.push((header("anomaly.source"), header("anomaly.error.code")));
        }
        found
    }

    async fn until(&self, what: impl Fn(&BTreeMap<String, usize>) -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        while !what(&self.log.rows()) {
            assert!(Instant::now() < until, "{:?} {}", self.log.rows(), self.stats.health());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn event(metric: &str) -> String {
    format!("{{\"metric\":\"{metric}\",\"value\":1}}")
}

fn events(n: usize) -> Vec<String> {
    vec![event("a"); n]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_is_taken_once_and_in_order_and_its_offset_committed() {
    let rig = Rig::new(2);
    rig.send(0, &events(300)).await;
    let ingest = rig.start();
    rig.send(1, &events(200)).await;
    rig.log.state().full = 3;
    rig.log.state().lost = 2;
    rig.send(1, &events(200)).await;
    rig.until(|rows| rows.values().sum::<usize>() == 700).await;
    ingest.stop().await;
    assert_eq!(rig.log.rows(), BTreeMap::from([("kafka:events/0".into(), 300), ("kafka:events/1".into(), 400)]));
    assert_eq!(rig.committed(2), [Offset::Offset(300), Offset::Offset(400)]);
    // Another one goes on from there.
    let ingest = rig.start();
    rig.send(0, &events(50)).await;
    rig.until(|rows| rows.values().sum::<usize>() == 750).await;
    ingest.stop().await;
    assert_eq!(rig.committed(2), [Offset::Offset(350), Offset::Offset(400)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_appended_however_many_messages_there_are() {
    let rig = Rig::new(1);
    rig.send(0, &events(2 * reader::AT_ONCE)).await;
    let ingest = rig.start();
    rig.until(|rows| rows.values().sum::<usize>() == 2 * reader::AT_ONCE).await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_bad_or_refused_goes_to_the_dead_letters_and_its_neighbours_are_taken() {
    let rig = Rig::new(1);
    rig.log.state().refused = BTreeSet::from(["x", "y"]);
    let array = |of: &[&str]| format!("[{}]", of.iter().map(|metric| event(metric)).collect::<Vec<_>>().join(","));
    let sent = [
        event("a"),
        "nonsense".into(),
        event("a"),
        event("x"),
        event("a"),
        event("y"),
        event("a"),
        array(&["a", "x", "b"]),
        array(&["y", "x"]),
        array(&["a", "b"]),
        event("a"),
    ];
    rig.send(0, &sent).await;
    let ingest = rig.start();
    rig.until(|rows| rows.values().sum::<usize>() == 9).await;
    let letters = rig.letters(5);
    ingest.stop().await;
    assert_eq!(rig.log.rows(), BTreeMap::from([("kafka:events/0".into(), 5), ("kafka:events/0[]".into(), 4)]));
    let expected = [(1, "invalid_json"), (3, "series_limit"), (5, "series_limit"), (7, "series_limit"), (8, "series_limit")];
    assert_eq!(letters, expected.map(|(offset, code)| (format!("events/0@{offset}"), code.to_owned())));
    assert_eq!(rig.committed(1), [Offset::Offset(11)]);
    assert_eq!(rig.stats.totals().rejected, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_told_and_waited_for() {
    let rig = Rig::new(1);
    rig.cluster.broker_down(1).unwrap();
    let ingest = rig.start();
    let told = || rig.stats.health()["components"]["kafka"].to_string();
    let until = async |what: &dyn Fn(&str) -> bool| {
        let end = Instant::now() + Duration::from_secs(20);
        while !what(&told()) {
            assert!(Instant::now() < end, "{}", told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let broker = rig.cluster.bootstrap_servers();
    until(&|told| told.contains("cannot be reached") && told.contains(&broker)).await;
    rig.cluster.broker_up(1).unwrap();
    until(&|told| told.contains("\"ok\"")).await;
    rig.send(0, &events(10)).await;
    rig.until(|rows| rows.values().sum::<usize>() == 10).await;
    ingest.stop().await;
}
