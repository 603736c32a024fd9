//! Whether a client of Kafka still knows a broker.
//!
//! One that knows none never finds one again, and has to be made anew. It comes about when a broker that is about to end, or has just
//! begun, answers that there is no broker at all, itself included: librdkafka then drops all, is to begin with those of its settings,
//! and where this is due at the wrong moment cancels it (from 2.12 on; librdkafka #5177, #5301).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use tracing::debug;

/// What is told of a client that knows no broker any more.
pub(crate) const LOST: &str = "a broker answered that there are none, as one does that restarts, and librdkafka does not go on from that";
/// How often a client tells of itself.
pub(super) const STATISTICS: (&str, &str) = ("statistics.interval.ms", "2000");

/// Whether a client knows a broker, be it from its settings or from another.
pub(super) fn knows_a_broker(statistics: &Statistics) -> bool {
    statistics.brokers.values().any(|broker| matches!(broker.source.as_str(), "configured" | "learned"))
}

/// What a client has to say stands in the outcome of what it is asked to do, but for one thing, which whoever made it can ask a clone of this.
#[derive(Clone, Default)]
pub(crate) struct Quiet(Arc<AtomicBool>);

impl Quiet {
    /// Whether the client knows no broker any more.
    pub(super) fn is_lost(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        debug!(target: "librdkafka", "{facility}: {line}");
    }

    fn stats(&self, statistics: Statistics) {
        if !knows_a_broker(&statistics) {
            self.0.store(true, Relaxed);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ConsumerContext for Quiet {}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::Broker;

    use super::*;

    fn of(sources: &[&str]) -> Statistics {
        let broker = |source: &&str| (source.to_string(), Broker { source: source.to_string(), ..Broker::default() });
        Statistics { brokers: sources.iter().map(broker).collect(), ..Statistics::default() }
    }

    #[test]
    fn a_coordinator_alone_is_no_broker_that_is_known() {
        let quiet = Quiet::default();
        for sources in [&["configured"][..], &["logical", "learned"]] {
            quiet.stats(of(sources));
            assert!(!quiet.is_lost(), "{sources:?}");
        }
        quiet.stats(of(&["logical"]));
        assert!(quiet.is_lost());
    }
}
