//! The series of the demo, and how each behaves when nothing is wrong.

use std::f64::consts::TAU;

use super::faults::Kind;
use super::random::noise;

const DAY: f64 = 86_400.0;

/// A series: its level follows the hour of the day and a slow wave of its own, with noise on top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Series {
    /// Its metric.
    pub metric: &'static str,
    /// Its labels.
    pub labels: &'static [(&'static str, &'static str)],
    /// Its mean over a day.
    level: f64,
    /// Standard deviation of its noise.
    pub(super) noise: f64,
    /// How far the day moves it, as a share of the level: most in the afternoon (UTC), least at night.
    daily: f64,
    /// Digits behind the point with which it is measured.
    digits: i32,
    /// The largest value that it can have; the least is 0.
    pub(super) most: f64,
    /// What goes wrong with it, in turn.
    pub(super) kinds: &'static [Kind],
}

impl Series {
    /// Its value when nothing is wrong; `i` is its number.
    pub(super) fn normal(&self, seed: u64, i: usize, at: i64) -> f64 {
        let seconds = at as f64;
        // Each wave has a period of its own, between 21 and 40 minutes, so that the series do not move together.
        let period = 1260.0 + 60.0 * i as f64;
        let day = self.level * self.daily * (TAU * (seconds / DAY - 0.4)).sin();
        let wave = 1.5 * self.noise * (TAU * seconds / period).sin();
        self.level + day + wave + self.noise * noise(seed, i, at)
    }

    /// A value as the series would be measured: rounded, from 0 to its largest.
    pub(super) fn rounded(&self, value: f64) -> f64 {
        let scale = 10_f64.powi(self.digits);
        ((value * scale).round() / scale).clamp(0.0, self.most)
    }

    /// Its name as the page and the API write it.
    pub fn name(&self) -> String {
        anomaly_engine::SeriesKey::new(self.metric, self.labels).name()
    }
}

const fn series(
    metric: &'static str,
    labels: &'static [(&'static str, &'static str)],
    (level, noise, daily): (f64, f64, f64),
    digits: i32,
    most: f64,
    kinds: &'static [Kind],
) -> Series {
    Series { metric, labels, level, noise, daily, digits, most, kinds }
}

use Kind::{Drift, Drop, Outage, Shift, Spike, Stuck};

const NO_END: f64 = 1e6;

/// A small shop: what its customers see, what its machines do, and the room in which they stand.
pub const SERIES: [Series; 20] = [
    series("api_latency_ms", &[("region", "eu-west"), ("service", "checkout")], (120.0, 6.0, 0.15), 1, NO_END, &[Shift, Spike]),
    series("api_latency_ms", &[("region", "us-east"), ("service", "checkout")], (134.0, 7.0, 0.15), 1, NO_END, &[Spike, Shift]),
    series("api_latency_ms", &[("region", "eu-west"), ("service", "search")], (46.0, 2.5, 0.1), 1, NO_END, &[Spike]),
    series("api_latency_ms", &[("region", "us-east"), ("service", "search")], (52.0, 3.0, 0.1), 1, NO_END, &[Shift]),
    series("error_rate_percent", &[("service", "checkout")], (0.8, 0.06, 0.05), 2, 100.0, &[Shift]),
    series("error_rate_percent", &[("service", "search")], (0.45, 0.04, 0.05), 2, 100.0, &[Spike]),
    series("orders_per_minute", &[], (940.0, 24.0, 0.4), 0, NO_END, &[Outage, Spike]),
    series("logins_per_minute", &[], (310.0, 11.0, 0.4), 0, NO_END, &[Spike, Outage]),
    series("payments_per_minute", &[("provider", "card")], (420.0, 14.0, 0.4), 0, NO_END, &[Outage]),
    series("cpu_percent", &[("host", "web-1")], (38.0, 1.8, 0.25), 1, 100.0, &[Shift, Spike]),
    series("cpu_percent", &[("host", "web-2")], (36.0, 1.8, 0.25), 1, 100.0, &[Spike]),
    series("cpu_percent", &[("host", "db-1")], (48.0, 1.6, 0.15), 1, 100.0, &[Shift]),
    series("memory_percent", &[("host", "db-1")], (61.0, 0.3, 0.02), 1, 100.0, &[Drift]),
    series("queue_depth", &[("queue", "emails")], (46.0, 3.5, 0.2), 0, NO_END, &[Drift]),
    series("queue_depth", &[("queue", "invoices")], (64.0, 4.0, 0.2), 0, NO_END, &[Drift]),
    // 85 is what a sensor of a common kind reports after it has lost its power.
    series("temperature_celsius", &[("rack", "a")], (41.0, 0.8, 0.02), 1, 125.0, &[Stuck(85.0)]),
    series("temperature_celsius", &[("rack", "b")], (39.5, 0.7, 0.02), 1, 125.0, &[Drift]),
    series("network_mbit_per_second", &[("host", "web-1")], (410.0, 14.0, 0.3), 1, NO_END, &[Drop]),
    series("disk_read_ms", &[("host", "db-1")], (3.2, 0.18, 0.1), 2, NO_END, &[Spike]),
    series("cache_hit_percent", &[("cache", "sessions")], (94.0, 0.5, 0.01), 1, 100.0, &[Drop]),
];
