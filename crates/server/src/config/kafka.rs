//! Where Kafka is, what is read from it, and how the connection is secured.

use std::path::PathBuf;

use super::notify::Secret;
use super::value;

/// Whether this build links OpenSSL, which librdkafka needs for TLS and SCRAM.
const HAS_TLS: bool = cfg!(feature = "kafka-tls");

/// Everything about Kafka.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaConfig {
    /// Brokers to begin with, `HOST:PORT` between commas; `None`: Kafka is not read.
    pub broker: Option<String>,
    /// The topic of events (default `events`).
    pub topic: String,
    /// The consumer group (default `anomaly-ingest-group`).
    pub group_id: String,
    /// The topic of what could not be taken; `None`: [`KafkaConfig::dead_letter_topic`] makes its name.
    pub dead_letter_topic: Option<String>,
    /// The topic of the log, with `BACKEND=kafka`; `None`: [`KafkaConfig::log_topic`] makes its name.
    pub log_topic: Option<String>,
    /// The topic that anomalies are written to (default none).
    pub anomaly_topic: Option<String>,
    /// How the connection is secured (default: not at all).
    pub security_protocol: SecurityProtocol,
    /// How we prove who we are, where the protocol asks for it (default PLAIN).
    pub sasl_mechanism: Option<SaslMechanism>,
    /// Whom we say we are.
    pub sasl_username: Option<String>,
    /// And prove it with.
    pub sasl_password: Option<Secret>,
    /// A file with the certificates to trust; `None`: those of the system.
    pub ssl_ca_location: Option<PathBuf>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            broker: None,
            topic: "events".into(),
            group_id: "anomaly-ingest-group".into(),
            dead_letter_topic: None,
            log_topic: None,
            anomaly_topic: None,
            security_protocol: SecurityProtocol::Plaintext,
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password: None,
            ssl_ca_location: None,
        }
    }
}

impl KafkaConfig {
    /// The topic of what could not be taken.
    pub fn dead_letter_topic(&self) -> String {
        self.dead_letter_topic.clone().unwrap_or_else(|| format!("{}.dead", self.topic))
    }

    /// The topic of the log.
    pub fn log_topic(&self) -> String {
        self.log_topic.clone().unwrap_or_else(|| format!("{}.log", self.topic))
    }

    /// The consumer group of the processors.
    pub fn processor_group(&self) -> String {
        format!("{}-processor", self.group_id)
    }

    /// What this build cannot do, and what is missing or of no use, by the name of the setting at fault.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.broker.is_none() {
            return faults;
        }
        if self.dead_letter_topic() == self.topic {
            faults.push((
                "KAFKA_DEAD_LETTER_TOPIC",
                format!("is KAFKA_TOPIC ({:?}) as well: what is bad would be read again for ever", self.topic),
            ));
        }
        if [self.topic.clone(), self.dead_letter_topic()].contains(&self.log_topic()) {
            faults.push((
                "KAFKA_LOG_TOPIC",
                format!("is {:?}, which holds what others write: the log needs a topic of its own", self.log_topic()),
            ));
        }
        if let Some(topic) =
            self.anomaly_topic.as_ref().filter(|topic| [&self.topic, &self.dead_letter_topic(), &self.log_topic()].contains(topic))
        {
            faults.push(("KAFKA_ANOMALY_TOPIC", format!("is {topic:?}, which holds something else: anomalies need a topic of their own")));
        }
        let (protocol, mechanism) = (self.security_protocol, self.sasl_mechanism.unwrap_or(SaslMechanism::Plain));
        if protocol.is_tls() && !HAS_TLS {
            faults.push(("KAFKA_SECURITY_PROTOCOL", needs_tls(&format!("{} needs TLS", protocol.as_str()))));
        }
        if protocol.is_sasl() {
            if mechanism != SaslMechanism::Plain && !HAS_TLS {
                faults.push(("KAFKA_SASL_MECHANISM", needs_tls(&format!("{} needs OpenSSL", mechanism.as_str()))));
            }
            for (name, is_set) in
                [("KAFKA_SASL_USERNAME", self.sasl_username.is_some()), ("KAFKA_SASL_PASSWORD", self.sasl_password.is_some())]
            {
                if !is_set {
                    faults.push((name, format!("is not set, and KAFKA_SECURITY_PROTOCOL={} needs it", protocol.as_str())));
                }
            }
        } else {
            let set = [
                ("KAFKA_SASL_MECHANISM", self.sasl_mechanism.is_some()),
                ("KAFKA_SASL_USERNAME", self.sasl_username.is_some()),
                ("KAFKA_SASL_PASSWORD", self.sasl_password.is_some()),
            ];
            for (name, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
                faults.push((name, "would not be used: set KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT or SASL_SSL as well".into()));
            }
        }
        if self.ssl_ca_location.is_some() && !protocol.is_tls() {
            faults.push(("KAFKA_SSL_CA_LOCATION", "would not be used: set KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL as well".into()));
        }
        faults
    }

    /// What should be told at start.
    pub(super) fn warnings(&self) -> Vec<String> {
        let unused = self.broker.is_none() && *self != Self::default();
        unused.then(|| "settings of Kafka are set, but KAFKA_BROKER is not: nothing is read from Kafka".to_owned()).into_iter().collect()
    }
}

fn needs_tls(what: &str) -> String {
    format!(
        "{what}, which this build has not: build with `cargo build --release --features kafka-tls`, which needs the headers of OpenSSL \
         (Debian: apt-get install libssl-dev)"
    )
}

/// How a connection to Kafka is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// In the clear.
    Plaintext,
    /// TLS.
    Ssl,
    /// In the clear, with a name and a password.
    SaslPlaintext,
    /// TLS, with a name and a password.
    SaslSsl,
}

impl SecurityProtocol {
    /// All.
    pub const ALL: [Self; 4] = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];

    /// As it is configured, and as librdkafka reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// Whether it asks who we are.
    pub fn is_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    fn is_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }
}

/// How we prove who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password as it is.
    Plain,
    /// A proof of it, with SHA-256.
    ScramSha256,
    /// A proof of it, with SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    /// All.
    pub const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// As it is configured, and as librdkafka reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Reads brokers between commas.
pub(super) fn brokers(text: &str) -> Result<String, String> {
    let brokers: Vec<_> = text.split(',').map(str::trim).filter(|broker| !broker.is_empty()).collect();
    let is_broker = |broker: &&str| {
        let host = broker.rsplit_once(':').map_or(*broker, |(host, port)| if port.parse::<u16>().is_ok() { host } else { "" });
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c))
    };
    if !brokers.is_empty() && brokers.iter().all(is_broker) {
        Ok(brokers.join(","))
    } else {
        Err(format!("must be brokers such as kafka-1:9092,kafka-2:9092, got {text:?}"))
    }
}

/// Reads the name of a topic.
pub(super) fn topic(text: &str) -> Result<String, String> {
    let fine = text.len() <= 249 && ![".", ".."].contains(&text) && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if fine { Ok(text.to_owned()) } else { Err(format!("must be a topic: at most 249 letters, digits, dots, _ and -, got {text:?}")) }
}

/// Reads a security protocol.
pub(super) fn security_protocol(text: &str) -> Result<SecurityProtocol, String> {
    value::word(text, &SecurityProtocol::ALL.map(|protocol| (protocol.as_str(), protocol)))
}

/// Reads a SASL mechanism.
pub(super) fn sasl_mechanism(text: &str) -> Result<SaslMechanism, String> {
    value::word(text, &SaslMechanism::ALL.map(|mechanism| (mechanism.as_str(), mechanism)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_hosts_with_ports() {
        assert_eq!(brokers("a:9092, [::1]:9093,,b").unwrap(), "a:9092,[::1]:9093,b");
        for text in ["", ",", "kafka://a:9092", "a b:1", "a:x", ":9092", "a:99999"] {
            assert!(brokers(text).unwrap_err().ends_with(&format!("got {text:?}")), "{text}");
        }
    }

    #[test]
    fn a_topic_has_few_characters() {
        assert_eq!(topic("metrics.v1_x-y").unwrap(), "metrics.v1_x-y");
        for text in ["a/b", ".", "..", "a b", &"x".repeat(250)] {
            assert!(topic(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_told_once_kafka_is_read() {
        let faulty = KafkaConfig { sasl_username: Some("me".into()), ssl_ca_location: Some("ca.pem".into()), ..KafkaConfig::default() };
        assert!(faulty.faults().is_empty() && faulty.warnings().len() == 1);
        let names = |config: KafkaConfig| {
            let config = KafkaConfig { broker: Some("a:1".into()), ..config };
            config.faults().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(faulty), ["KAFKA_SASL_USERNAME", "KAFKA_SSL_CA_LOCATION"]);
        assert_eq!(names(KafkaConfig { dead_letter_topic: Some("events".into()), ..KafkaConfig::default() }), ["KAFKA_DEAD_LETTER_TOPIC"]);
        let sasl = KafkaConfig { security_protocol: SecurityProtocol::SaslPlaintext, ..KafkaConfig::default() };
        assert_eq!(names(sasl.clone()), ["KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"]);
        let whole = KafkaConfig { sasl_username: Some("me".into()), sasl_password: Some("hunter2".into()), ..sasl };
        assert!(names(whole).is_empty());
    }

    #[test]
    fn a_build_without_openssl_says_how_to_build_one_with_it() {
        let config = KafkaConfig {
            broker: Some("a:1".into()),
            security_protocol: SecurityProtocol::SaslSsl,
            sasl_mechanism: Some(SaslMechanism::ScramSha512),
            sasl_username: Some("me".into()),
            sasl_password: Some("hunter2".into()),
            ..KafkaConfig::default()
        };
        let faults = config.faults();
        assert_eq!(faults.len(), if HAS_TLS { 0 } else { 2 }, "{faults:?}");
        assert!(faults.iter().all(|(_, message)| message.contains("--features kafka-tls") && message.contains("libssl-dev")), "{faults:?}");
    }
}
