//! How long a bare consumer takes to read so many messages: `kafka_consumer BROKER TOPIC MESSAGES`. Prints the seconds from the first
//! message to the last. For comparison with what `anomaly ingest` does with them.
#![expect(clippy::print_stdout, reason = "the line is what it is for")]

use std::error::Error;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [broker, topic, messages] = &arguments[..] else { return Err("usage: kafka_consumer BROKER TOPIC MESSAGES".into()) };
    let (messages, mut read, mut bytes): (u64, u64, usize) = (messages.parse()?, 0, 0);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("group.id", format!("bare-{}", std::process::id()))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        // By default it pauses for a second when it has read far enough ahead.
        .set("fetch.queue.backoff.ms", "20")
        .create()?;
    consumer.subscribe(&[topic])?;
    let (mut began, mut last) = (None, Instant::now());
    while read < messages {
        // It also returns when the group has changed.
        let Some(message) = consumer.poll(Duration::from_secs(1)) else {
            if last.elapsed() > PATIENCE {
                return Err(format!("{read} messages, and no more for {} s", PATIENCE.as_secs()).into());
            }
            continue;
        };
        let message = message?;
        last = Instant::now();
        began.get_or_insert_with(Instant::now);
        bytes += message.payload().map_or(0, <[u8]>::len);
        read += 1;
    }
    let seconds = began.map_or(0.0, |began| began.elapsed().as_secs_f64());
    println!("{seconds} {bytes}");
    Ok(())
}
