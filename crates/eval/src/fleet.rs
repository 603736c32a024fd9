//! A fleet of metrics, as samples and as the texts in which they come.

use std::fmt::Write;

use anomaly_engine::{Event, NANOS, Timestamp};

use crate::Rng;

/// 2023-11-14, so that a time in seconds has ten digits as today's have.
const START: i64 = 1_700_000_000 * NANOS;
/// One value in so many is a spike that fires: what an anomaly costs is paid for, as rarely as in life.
const SPIKE_EVERY: usize = 1000;

/// Series that report once an interval each.
///
/// Values are 50 and uniform noise below 5, with three digits behind the point, and rare spikes.
#[derive(Debug)]
pub struct Fleet {
    rng: Rng,
    order: Vec<u32>,
    /// Whether it changes.
    mode: Order,
    /// How far the round has come.
    at: usize,
    round_start: i64,
    interval: i64,
}

/// In which order the series of a fleet report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Always the same, as a collector that walks its targets sends them.
    Steady,
    /// Another one each time, as requests of many clients mix; the worst case for caches.
    Shuffled,
}

/// One value of one series.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Its number in the fleet.
    pub series: u32,
    /// Event time; rises through the fleet.
    pub time: Timestamp,
    /// The value.
    pub value: f64,
}

impl Fleet {
    /// `n_series` series that report every `interval` nanoseconds.
    pub fn new(n_series: u32, interval: i64, order: Order) -> Self {
        let rng = Rng::new(u64::from(n_series));
        Self { rng, order: (0..n_series).collect(), mode: order, at: 0, round_start: START, interval }
    }

    /// From here on the series report every `interval` nanoseconds. Takes effect with the next round.
    pub fn set_interval(&mut self, interval: i64) {
        self.interval = interval;
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are no series.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The time of the first sample.
    pub fn start(&self) -> Timestamp {
        Timestamp::from_nanos(START)
    }

    /// The time of the next sample.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.round_start + self.at as i64 * self.interval / self.order.len() as i64)
    }

    /// The next `n` samples with the bytes of their keys.
    pub fn named(&mut self, n: usize) -> Named {
        let mut names = String::new();
        let samples = self.samples(n);
        for Sample { series, .. } in &samples {
            let _ = write!(names, "node-{series:07}.cpu_usage");
        }
        Named { names, samples }
    }

    /// The next `n` samples.
    pub fn samples(&mut self, n: usize) -> Vec<Sample> {
        (0..n).map(|_| self.sample()).collect()
    }

    fn sample(&mut self) -> Sample {
        if self.at == 0 && self.mode == Order::Shuffled {
            self.rng.shuffle(&mut self.order);
        }
        let spike = if self.rng.below(SPIKE_EVERY) == 0 { 40.0 } else { 0.0 };
        let value = 50.0 + (self.rng.unit() * 5e3).floor() / 1e3 + spike;
        let sample = Sample { series: self.order[self.at], time: self.now(), value };
        self.at += 1;
        if self.at == self.order.len() {
            self.at = 0;
            self.round_start += self.interval;
        }
        sample
    }
}

/// Samples with the metrics of their series, 22 bytes each and one behind the other, as a parser finds them in a request.
#[derive(Debug)]
pub struct Named {
    names: String,
    samples: Vec<Sample>,
}

impl Named {
    const BYTES: usize = 22;

    /// The events in order.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        self.samples.iter().enumerate().map(|(i, &Sample { time, value, .. })| {
            let metric = &self.names[i * Self::BYTES..(i + 1) * Self::BYTES];
            Event { metric, labels: &[], timestamp: time, value, id: None, meta: None }
        })
    }

    /// The time of the last.
    ///
    /// # Panics
    /// Where there are none.
    pub fn end(&self) -> Timestamp {
        self.samples[self.samples.len() - 1].time
    }
}

impl Sample {
    /// A line of NDJSON of 97 bytes, all of the series' name in the metric.
    pub fn ndjson(self, out: &mut String) {
        let Self { series, value, .. } = self;
        let (time, region, rack) = (self.seconds(), series % 4, series % 1000);
        let _ = writeln!(
            out,
            r#"{{"timestamp":{time},"metric":"eu-west-{region}.rack-{rack:03}.host-{series:08}.cpu_user","value":{value:.3}}}"#
        );
    }

    /// A line of NDJSON of 97 bytes with a label.
    pub fn ndjson_labelled(self, out: &mut String) {
        let (time, Self { series, value, .. }) = (self.seconds(), self);
        let _ = writeln!(out, r#"{{"timestamp":{time},"metric":"cpu_user","value":{value:.3},"labels":{{"host":"node-{series:07}"}}}}"#);
    }

    /// A row of CSV of 40 bytes: metric, value, timestamp.
    pub fn csv(self, out: &mut String) {
        let _ = writeln!(out, "node-{:07}.load,{:.3},{}", self.series, self.value, self.seconds());
    }

    /// Epoch seconds with three digits behind the point.
    fn seconds(self) -> String {
        let millis = self.time.nanos() / (NANOS / 1000);
        format!("{}.{:03}", millis / 1000, millis % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_size_that_they_say() {
        for sample in Fleet::new(100_000, NANOS, Order::Shuffled).samples(1000) {
            let text = |write: fn(Sample, &mut String)| {
                let mut out = String::new();
                write(sample, &mut out);
                out.len()
            };
            assert_eq!([Sample::ndjson, Sample::ndjson_labelled, Sample::csv].map(text), [97, 97, 40]);
        }
        assert_eq!(Fleet::new(1_000_000, NANOS, Order::Steady).named(3).names.len(), 3 * Named::BYTES);
    }

    #[test]
    fn each_series_reports_once_a_round_and_time_rises() {
        let mut fleet = Fleet::new(10, NANOS, Order::Shuffled);
        let samples = fleet.samples(20);
        for round in samples.chunks(10) {
            let mut series: Vec<_> = round.iter().map(|sample| sample.series).collect();
            series.sort_unstable();
            assert_eq!(series, (0..10).collect::<Vec<_>>());
        }
        assert!(samples.is_sorted_by_key(|sample| sample.time));
        assert_eq!(fleet.now().since(samples[0].time), 2 * NANOS);
    }
}
