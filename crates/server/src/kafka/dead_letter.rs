//! Messages that are no good events: written to a topic of their own, with the reason in their headers.

use std::fmt::Write as _;
use std::time::Duration;

use anomaly_engine::{Code, Report};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use rdkafka::util::Timeout;

use super::client::connection;
use super::messages::Message;
use super::producer::Producer;
use crate::config::KafkaConfig;

/// How long one attempt to write may take.
const ATTEMPT_MS: &str = "5000";
/// What is left of a value that the broker finds too large together with its headers.
const CUT_BYTES: usize = 256 << 10;
/// How many bad rows of an array the header describes.
const DESCRIBED: usize = 10;

/// Writes dead letters.
pub(super) struct DeadLetters {
    producer: Producer,
    settings: ClientConfig,
    topic: String,
}

impl DeadLetters {
    pub(super) fn new(config: &KafkaConfig) -> KafkaResult<Self> {
        let settings = connection(config);
        let mut writing = settings.clone();
        for (key, value) in [
            ("acks", "all"),
            ("message.timeout.ms", ATTEMPT_MS),
            ("topic.metadata.propagation.max.ms", "3000"),
            // The broker decides what is too large, as it did for the message that is sent on.
            ("message.max.bytes", "1000000000"),
            ("queue.buffering.max.kbytes", "65536"),
            ("compression.type", "lz4"),
        ] {
            writing.set(key, value);
        }
        Ok(Self { producer: Producer::new("dead letters", writing)?, settings, topic: config.dead_letter_topic() })
    }

    /// The topic they are written to.
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// Writes one and waits until it is durable in Kafka. `from` is the topic and partition it was read from.
    pub(super) async fn send(&self, from: &str, message: Message<'_>, report: &Report) -> Result<(), KafkaError> {
        let whole = message.value.unwrap_or_default();
        match self.attempt(from, message, whole.len(), report).await {
            Err(fault) if fault.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) && whole.len() > CUT_BYTES => {
                let cut = Message { value: Some(&whole[..CUT_BYTES]), ..message };
                self.attempt(from, cut, whole.len(), report).await
            }
            Err(fault) if is_unknown(&fault) => {
                self.create_topic().await?;
                Err(fault)
            }
            outcome => outcome,
        }
    }

    async fn attempt(&self, from: &str, message: Message<'_>, bytes: usize, report: &Report) -> Result<(), KafkaError> {
        let mut headers = OwnedHeaders::new();
        for (key, value) in headers_of(from, message, bytes, report) {
            headers = headers.insert(Header { key, value: Some(value.as_bytes()) });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        (record.key, record.payload) = (message.key, message.value);
        self.producer.get().send(record, Timeout::After(Duration::ZERO)).await.map(|_| ()).map_err(|(fault, _)| fault)
    }

    /// Where brokers do not make topics by themselves; with their defaults.
    async fn create_topic(&self) -> Result<(), KafkaError> {
        let admin: AdminClient<DefaultClientContext> = self.settings.create()?;
        let topic = NewTopic::new(&self.topic, -1, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
        match admin.create_topics([&topic], &options).await?.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => Err(KafkaError::AdminOp(code)),
            _ => Ok(()),
        }
    }
}

fn is_unknown(fault: &KafkaError) -> bool {
    let unknown = [RDKafkaErrorCode::UnknownTopic, RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownPartition];
    fault.rdkafka_error_code().is_some_and(|code| unknown.contains(&code))
}

/// What the headers say: the first error, all of them in words, and where the message came from.
fn headers_of(from: &str, message: Message<'_>, bytes: usize, report: &Report) -> Vec<(&'static str, String)> {
    let first = report.errors.first();
    let mut headers = vec![
        ("anomaly.error.code", first.map_or(Code::InvalidJson, |error| error.code).as_str().to_owned()),
        ("anomaly.error.field", first.map_or_else(String::new, |error| error.field.clone())),
        ("anomaly.error.message", described(report)),
        ("anomaly.source", format!("{from}@{}", message.offset)),
    ];
    if message.value.is_some_and(|value| value.len() < bytes) {
        headers.push(("anomaly.value.bytes", bytes.to_string()));
    }
    headers
}

/// The error of a single event as it is; of an array, which of its events are bad.
fn described(report: &Report) -> String {
    let rows = report.accepted + report.rejected;
    if let ([only], 1) = (&report.errors[..], rows) {
        return only.message.clone();
    }
    let mut text = format!("{} of {rows} events were rejected", report.rejected);
    for (i, error) in report.errors.iter().take(DESCRIBED).enumerate() {
        let _ = write!(text, "{} event {}: {} ({})", if i == 0 { ":" } else { ";" }, error.line, error.message, error.code.as_str());
    }
    let more = report.rejected.saturating_sub(DESCRIBED as u64);
    if more > 0 {
        let _ = write!(text, "; and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use anomaly_engine::Rejected;

    use super::*;

    fn report(accepted: u64, lines: std::ops::RangeInclusive<u64>) -> Report {
        let mut report = Report { accepted, ..Report::default() };
        let error = |line| Rejected { line, field: "value".into(), code: Code::InvalidType, message: "value must be a number".into() };
        lines.for_each(|line| report.reject(error(line)));
        report
    }

    #[test]
    fn headers_say_what_is_wrong_and_where_it_came_from() {
        let message = Message { offset: 100, key: None, value: Some(b"x") };
        assert_eq!(
            headers_of("events/3", message, 1, &report(0, 1..=1)),
            [
                ("anomaly.error.code", "invalid_type".to_owned()),
                ("anomaly.error.field", "value".to_owned()),
                ("anomaly.error.message", "value must be a number".to_owned()),
                ("anomaly.source", "events/3@100".to_owned()),
            ]
        );
        assert_eq!(headers_of("events/3", message, 7, &report(0, 1..=1))[4], ("anomaly.value.bytes", "7".to_owned()), "it was cut");
    }

    #[test]
    fn bad_events_of_an_array_are_named_and_many_are_counted() {
        assert_eq!(described(&report(1, 2..=2)), "1 of 2 events were rejected: event 2: value must be a number (invalid_type)");
        let many = described(&report(0, 1..=2000));
        assert!(many.starts_with("2000 of 2000 events") && many.ends_with("; and 1990 more"), "{many}");
    }
}
