//! A made-up incident, for whoever tries whether a channel works.

use anomaly_engine::{NANOS, Timestamp};

use super::message::{Fact, Kind, Message};
use super::words::number;
use crate::points::{Point, Verdict};

impl Message {
    /// An example, for whoever tries whether a channel works.
    pub fn example(at: Timestamp, base_url: &str) -> Self {
        let at = Timestamp::from_seconds(at.nanos() / NANOS);
        let incidents = vec![Fact::example(at)];
        Self { kind: Kind::Test, at, incidents, key: String::new(), digest: None, base_url: base_url.to_owned() }
    }
}

impl Fact {
    /// An incident that ends at `at`.
    pub(super) fn example(at: Timestamp) -> Self {
        let point = |i: i64| {
            let timestamp = at.plus((i - 119) * 15 * NANOS);
            // A calm curve without randomness, and what nobody overlooks at its end.
            let calm = 54.5 + 2.4 * (i as f64 * 0.37).sin() + 1.3 * (i as f64 * 1.9).cos();
            let odd = i >= 117;
            Point {
                timestamp,
                value: if odd { 95.0 - 4.0 * (119 - i) as f64 } else { calm },
                verdict: if odd { Verdict::Critical } else { Verdict::Normal },
                count: 20,
                mean: 54.5,
                stddev: 2.947,
                expected: 54.5,
                lower: 45.66,
                upper: 63.34,
                z_score: Some(if odd { 13.74 } else { (calm - 54.5) / 2.947 }),
                strength: if odd { 4.58 } else { 0.2 },
            }
        };
        let labels = vec![("dc".to_owned(), "eu".to_owned()), ("host".to_owned(), "example-1".to_owned())];
        let series = "example_latency_ms{dc=\"eu\",host=\"example-1\"}";
        let peak = serde_json::json!({
            "id": "example", "series": series, "metric": "example_latency_ms", "labels": {"dc": "eu", "host": "example-1"},
            "timestamp": number(at), "value": 95.0, "detector": "zscore", "score": 0.958, "z_score": 13.74, "expected": 54.5,
            "lower": 45.66, "upper": 63.34, "mean": 54.5, "stddev": 2.947, "count": 20, "threshold": 3.0, "critical_from": 6.0,
            "min_count": 5, "window_seconds": 300, "direction": "high", "severity": "critical",
            "summary": "13.7 standard deviations above the last 5 min",
            "explanation": "95 is 13.7 standard deviations above the mean 54.5 of the last 20 samples (5 min)",
            "checks": [], "meta": {}, "event_id": null, "incident_id": "example", "detected_at": number(at), "source": "test"
        });
        Self {
            id: "example".into(),
            series: series.into(),
            metric: "example_latency_ms".into(),
            labels,
            start: at.plus(-30 * NANOS),
            end: at,
            count: 3,
            critical: true,
            peak,
            points: (0..120).map(point).collect(),
        }
    }
}
