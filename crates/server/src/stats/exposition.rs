//! The counters as Prometheus text (exposition format 0.0.4).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Stats;
use super::deliveries::Delivery;
use crate::notify::channel::Channel;

/// Upper bounds of the histograms' buckets, in seconds: from a commit on a fast disk to a queue that is behind.
const BOUNDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Durations counted in fixed buckets.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, seconds: f64) {
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.nanos.fetch_add((seconds * 1e9) as u64, Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, help, "histogram");
        let mut count = 0;
        for (i, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Relaxed);
            let bound = BOUNDS.get(i).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(out, "{name}_sum {}\n{name}_count {count}", self.nanos.load(Relaxed) as f64 / 1e9);
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn one(out: &mut String, name: &str, help: &str, kind: &str, value: impl std::fmt::Display) {
    head(out, name, help, kind);
    let _ = writeln!(out, "{name} {value}");
}

fn by_label<'a>(out: &mut String, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = (&'a str, u64)>) {
    head(out, name, help, "counter");
    for (value, n) in values {
        let _ = writeln!(out, "{name}{{{label}=\"{value}\"}} {n}");
    }
}

impl Stats {
    /// Everything counted, as Prometheus reads it.
    pub fn exposition(&self) -> String {
        let mut text = String::with_capacity(8192);
        let out = &mut text;
        let totals = self.totals();
        one(out, "anomaly_events_total", "Events accepted.", "counter", totals.events);
        one(out, "anomaly_rejected_total", "Rows rejected, kept across restarts.", "counter", totals.rejected);
        by_label(out, "anomaly_rejected_by_code_total", "Rows rejected since start, by code.", "code", self.rejected_by_code());
        one(out, "anomaly_late_total", "Events older than the allowed lateness, accepted and not judged.", "counter", totals.late);
        one(out, "anomaly_duplicates_total", "Events whose id was known, accepted and not judged again.", "counter", totals.duplicates);
        one(out, "anomaly_redelivered_total", "Rows delivered again and skipped.", "counter", totals.redelivered);
        one(out, "anomaly_judged_total", "Events that passed the engine since start.", "counter", self.judged.load(Relaxed));
        let severities = [("warning", self.warnings.load(Relaxed)), ("critical", self.criticals.load(Relaxed))];
        by_label(out, "anomaly_anomalies_total", "Anomalies found since start, by severity.", "severity", severities);
        one(out, "anomaly_queue_depth", "Events between the log's end and the last commit.", "gauge", self.queue_depth());
        one(out, "anomaly_queue_capacity", "QUEUE_CAPACITY.", "gauge", self.queue_capacity());
        one(out, "anomaly_series", "Series known.", "gauge", self.series.load(Relaxed));
        one(out, "anomaly_websocket_clients", "WebSockets connected.", "gauge", self.websocket_clients());
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(self.answers.iter().map(|n| n.load(Relaxed)));
        by_label(out, "anomaly_http_requests_total", "HTTP requests answered since start, by class of status.", "status", classes);
        head(out, "anomaly_notifications_total", "Attempts to send a notification since start, by channel and outcome.", "counter");
        for channel in Channel::ALL {
            for (name, delivery) in Delivery::ALL {
                let (n, channel_name) = (self.deliveries.of(channel, delivery), channel.name());
                let _ = writeln!(out, "anomaly_notifications_total{{channel=\"{channel_name}\",outcome=\"{name}\"}} {n}");
            }
        }
        let help = "Frames of the log on Kafka that it deleted before they were judged, since start.";
        one(out, "anomaly_lost_by_retention_total", help, "counter", self.kafka.lost());
        if let Some((messages, dead_letters, lag)) = self.kafka.told() {
            let help = "Messages of Kafka since start that are in the log or dead letters.";
            one(out, "anomaly_kafka_messages_total", help, "counter", messages);
            one(
                out,
                "anomaly_kafka_dead_letters_total",
                "Messages written to the topic of dead letters since start.",
                "counter",
                dead_letters,
            );
            head(out, "anomaly_kafka_lag", "Messages behind the last that is done, by partition of this process.", "gauge");
            for (partition, n) in lag {
                let _ = writeln!(out, "anomaly_kafka_lag{{partition=\"{partition}\"}} {n}");
            }
        }
        self.commit.write(out, "anomaly_commit_seconds", "Duration of a commit of the store.");
        self.end_to_end.write(out, "anomaly_end_to_end_seconds", "From the arrival of an event to the commit of its verdict.");
        one(out, "anomaly_ready", "1 while events can be accepted.", "gauge", u8::from(self.unready().is_none()));
        one(out, "anomaly_uptime_seconds", "Seconds since start.", "gauge", self.uptime().as_secs_f64());
        head(out, "anomaly_build_info", "The version, as a label.", "gauge");
        let _ = writeln!(out, "anomaly_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        text
    }
}
