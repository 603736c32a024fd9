//! Fills a log on Kafka with requests of so many events: `kafka_frames BROKER TOPIC PARTITIONS EVENTS EVENTS_PER_REQUEST SERIES`. Each series
//! has one a second. Prints the number of frames. As `anomaly api` appends them, and as fast as Kafka takes them.
#![expect(clippy::print_stdout, reason = "the line is what it is for")]

use std::error::Error;
use std::time::Duration;

use anomaly_engine::frame::{BatchBuilder, Origin};
use anomaly_engine::{Event, Timestamp};
use anomaly_server::log::frames::{Frames, Parts};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

const USAGE: &str = "usage: kafka_frames BROKER TOPIC PARTITIONS EVENTS EVENTS_PER_REQUEST SERIES";
const START: u64 = 1_700_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [broker, topic, partitions, numbers @ ..] = &arguments[..] else { return Err(USAGE.into()) };
    let partitions: u32 = partitions.parse()?;
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
    let [events, per_request, series] = numbers[..] else { return Err(USAGE.into()) };
    let names: Vec<String> = (0..series).map(|i| format!("s{i}")).collect();
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "1000000")
        .create()?;
    let mut frames = 0_u64;
    for first in (0..events).step_by(per_request as usize) {
        let mut batch = BatchBuilder::new();
        for i in first..events.min(first + per_request) {
            let timestamp = Timestamp::from_seconds((START + i / series) as i64);
            let metric = names[(i % series) as usize].as_str();
            batch.push(&Event { metric, labels: &[], timestamp, value: (50 + i % 7) as f64, id: None, meta: None }, i - first + 1);
        }
        let mut parts = Frames::new(Timestamp::from_seconds(START as i64), Parts::Partitions(partitions));
        parts.push_events(batch.finish(Origin::http()));
        for part in parts.into_parts() {
            let bytes = part.frame.seal(0);
            let mut record = BaseRecord::<(), [u8]>::to(topic).partition(part.partition as i32).payload(&bytes);
            while let Err((fault, back)) = producer.send(record) {
                if !matches!(fault, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                    return Err(fault.into());
                }
                std::thread::sleep(Duration::from_millis(1));
                record = back;
            }
            frames += 1;
        }
    }
    producer.flush(PATIENCE)?;
    println!("{frames}");
    Ok(())
}
