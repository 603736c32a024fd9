//! Counters, rates and their recent history, kept by the stages through small methods.
//!
//! Totals are atomics; rates are rings of seconds that advance when they are touched, so nothing runs while nothing happens.

mod deliveries;
mod exposition;
mod kafka;
mod ring;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anomaly_engine::{Code, Report};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::notify::channel::Channel;
use deliveries::Deliveries;
pub use deliveries::Delivery;
use exposition::Histogram;
use kafka::KafkaCounts;
use ring::{Levels, Sums};

/// Seconds of history that `/stats` tells.
const HISTORY: usize = 60;
/// The code under which refusals beyond the first [`anomaly_engine::LISTED_ERRORS`] of a request are counted.
const UNLISTED: &str = "unlisted";

/// Totals that outlive a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events accepted.
    pub events: u64,
    /// Rows rejected.
    pub rejected: u64,
    /// Events too old to be judged.
    pub late: u64,
    /// Events whose id was known.
    pub duplicates: u64,
    /// Rows delivered again and skipped.
    pub redelivered: u64,
}

/// How a stage is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Component {
    /// It works.
    #[default]
    Ok,
    /// It works, with less than it should have: `/health` is degraded, events are accepted.
    Degraded(String),
    /// It is still recovering: `/readyz` is 503.
    Recovering(String),
    /// It has stopped: `/readyz` is 503.
    Failed(String),
}

/// What the stages count.
#[derive(Debug)]
pub struct Stats {
    started: Instant,
    capacity: u64,
    events: AtomicU64,
    rejected: AtomicU64,
    rejected_here: AtomicU64,
    /// Totals come from [`Stats::share`].
    shared: AtomicBool,
    told_shared: AtomicBool,
    late: AtomicU64,
    duplicates: AtomicU64,
    redelivered: AtomicU64,
    judged: AtomicU64,
    warnings: AtomicU64,
    criticals: AtomicU64,
    depth: AtomicU64,
    series: AtomicU64,
    deliveries: Deliveries,
    kafka: KafkaCounts,
    websockets: AtomicI64,
    /// Answers by the hundreds of their status.
    answers: [AtomicU64; 5],
    commit: Histogram,
    end_to_end: Histogram,
    // Std mutexes: held for a few nanoseconds, never across an await.
    recent: Mutex<Recent>,
    codes: Mutex<BTreeMap<&'static str, u64>>,
    components: Mutex<BTreeMap<&'static str, Component>>,
    standing: Mutex<Option<&'static str>>,
    new_series: Mutex<Option<u64>>,
    counts: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Recent {
    events: Sums<64>,
    rejected: Sums<64>,
    late: Sums<64>,
    depth: Levels<64>,
    /// By hour since start.
    new_series: Sums<25>,
}

impl Stats {
    /// Nothing counted yet; `capacity` is `QUEUE_CAPACITY`.
    pub fn new(capacity: u64) -> Self {
        Self {
            started: Instant::now(),
            capacity,
            events: AtomicU64::default(),
            rejected: AtomicU64::default(),
            rejected_here: AtomicU64::default(),
            shared: AtomicBool::default(),
            told_shared: AtomicBool::default(),
            late: AtomicU64::default(),
            duplicates: AtomicU64::default(),
            redelivered: AtomicU64::default(),
            judged: AtomicU64::default(),
            warnings: AtomicU64::default(),
            criticals: AtomicU64::default(),
            depth: AtomicU64::default(),
            deliveries: Deliveries::default(),
            kafka: KafkaCounts::default(),
            series: AtomicU64::default(),
            websockets: AtomicI64::default(),
            answers: Default::default(),
            commit: Histogram::default(),
            end_to_end: Histogram::default(),
            recent: Mutex::default(),
            codes: Mutex::default(),
            components: Mutex::default(),
            standing: Mutex::default(),
            new_series: Mutex::default(),
            counts: watch::Sender::new(0),
        }
    }

    /// Adds what earlier runs counted. Called once, at start.
    pub fn restore(&self, totals: Totals) {
        self.events.fetch_add(totals.events, Relaxed);
        self.rejected.fetch_add(totals.rejected, Relaxed);
        self.rejected_here.fetch_add(totals.rejected, Relaxed);
        self.late.fetch_add(totals.late, Relaxed);
        self.duplicates.fetch_add(totals.duplicates, Relaxed);
        self.redelivered.fetch_add(totals.redelivered, Relaxed);
    }

    /// Rows rejected that the log's counter is to know of: those of this process, and what it counted before.
    pub fn rejected_here(&self) -> u64 {
        self.rejected_here.load(Relaxed)
    }

    /// Takes over what all roles have counted together, and how that has grown since it was told last.
    pub fn share(&self, totals: Totals) {
        self.shared.store(true, Relaxed);
        let grown = |total: &AtomicU64, now: u64| now.saturating_sub(total.swap(now, Relaxed));
        let is_first = !self.told_shared.swap(true, Relaxed);
        let events = grown(&self.events, totals.events);
        let late = grown(&self.late, totals.late);
        // What was rejected here and is not noted yet counts too.
        let rejected = totals.rejected.saturating_sub(self.rejected.fetch_max(totals.rejected, Relaxed));
        grown(&self.duplicates, totals.duplicates);
        grown(&self.redelivered, totals.redelivered);
        if !is_first {
            let second = self.second();
            let mut recent = self.recent();
            recent.events.add(second, events);
            recent.late.add(second, late);
            // Those of this process are there already.
            recent.rejected.add(second, rejected);
        }
    }

    /// So many series were let in within a day, by all processes together.
    pub fn set_new_series(&self, n: u64) {
        *lock(&self.new_series) = Some(n);
    }

    /// The totals that outlive a restart.
    pub fn totals(&self) -> Totals {
        Totals {
            events: self.events.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            late: self.late.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            redelivered: self.redelivered.load(Relaxed),
        }
    }

    /// `n` events were acknowledged.
    pub fn accepted(&self, n: u64) {
        if n > 0 && !self.shared.load(Relaxed) {
            self.events.fetch_add(n, Relaxed);
            self.recent().events.add(self.second(), n);
        }
    }

    /// `n` rows were rejected for one reason.
    pub fn rejected(&self, code: Code, n: u64) {
        self.count_rejected(code.as_str(), n);
    }

    /// Counts what a source has answered: its accepted and rejected rows.
    pub fn report(&self, report: &Report) {
        self.accepted(report.accepted);
        self.report_rejected(report);
    }

    /// Counts the rejected rows of a report of which nothing was accepted.
    pub fn report_rejected(&self, report: &Report) {
        for error in &report.errors {
            self.rejected(error.code, 1);
        }
        self.count_rejected(UNLISTED, report.rejected.saturating_sub(report.errors.len() as u64));
    }

    /// `n` events have passed the engine.
    pub fn judged(&self, n: u64) {
        self.judged.fetch_add(n, Relaxed);
    }

    /// `n` events were too old to be judged.
    pub fn late(&self, n: u64) {
        if n > 0 && !self.shared.load(Relaxed) {
            self.late.fetch_add(n, Relaxed);
            self.recent().late.add(self.second(), n);
        }
    }

    /// `n` events had an id that was known.
    pub fn duplicates(&self, n: u64) {
        if !self.shared.load(Relaxed) {
            self.duplicates.fetch_add(n, Relaxed);
        }
    }

    /// `n` rows had been taken before.
    pub fn redelivered(&self, n: u64) {
        if !self.shared.load(Relaxed) {
            self.redelivered.fetch_add(n, Relaxed);
        }
    }

    /// `depth` events stand between the log's end and the last commit.
    pub fn queue(&self, depth: u64) {
        if self.depth.swap(depth, Relaxed) != depth {
            self.recent().depth.set(self.second(), depth);
        }
    }

    /// A commit of the store took so long.
    pub fn commit_seconds(&self, seconds: f64) {
        self.commit.observe(seconds);
    }

    /// An event's verdict was committed so long after its arrival.
    pub fn end_to_end_seconds(&self, seconds: f64) {
        self.end_to_end.observe(seconds);
    }

    /// An anomaly was committed.
    pub fn anomaly(&self, critical: bool) {
        if critical { &self.criticals } else { &self.warnings }.fetch_add(1, Relaxed);
    }

    /// An attempt to send a notification.
    pub fn delivery(&self, channel: Channel, delivery: Delivery) {
        self.deliveries.count(channel, delivery);
    }

    /// What is read from Kafka.
    pub fn kafka(&self) -> &KafkaCounts {
        &self.kafka
    }

    /// A WebSocket has come (+1) or gone (−1).
    pub fn websocket(&self, change: i64) {
        self.websockets.fetch_add(change, Relaxed);
    }

    /// So many series are known.
    pub fn set_series(&self, n: u64) {
        self.series.store(n, Relaxed);
    }

    /// `n` series were seen for the first time.
    pub fn new_series(&self, n: u64) {
        if n > 0 {
            self.recent().new_series.add(self.second() / 3600, n);
        }
    }

    /// A request was answered with this status.
    pub fn answered(&self, status: u16) {
        if let Some(class) = (status / 100).checked_sub(1).and_then(|class| self.answers.get(usize::from(class))) {
            class.fetch_add(1, Relaxed);
        }
    }

    /// What is counted together with other processes was counted anew.
    pub fn recounted(&self) {
        self.counts.send_modify(|count| *count += 1);
    }

    /// Waits, where counts are shared with other processes, until they were read after now, half a second at most.
    pub async fn recent_counts(&self) {
        if !self.shared.load(Relaxed) {
            return;
        }
        let mut counts = self.counts.subscribe();
        // The one that is under way may have begun before now.
        let enough = *counts.borrow() + 2;
        let _ = tokio::time::timeout(Duration::from_millis(500), counts.wait_for(|count| *count >= enough)).await;
    }

    /// What this process is among others: `active`, `standby`.
    pub fn set_standing(&self, standing: &'static str) {
        *lock(&self.standing) = Some(standing);
    }

    /// How a stage is from now on.
    pub fn component(&self, name: &'static str, component: Component) {
        lock(&self.components).insert(name, component);
    }

    /// A part that had failed has not any more; where it says something else, that stands.
    pub fn works_again(&self, name: &'static str) {
        if let Some(component @ Component::Failed(_)) = lock(&self.components).get_mut(name) {
            *component = Component::Ok;
        }
    }

    /// Why events cannot be accepted now, if they cannot.
    pub fn unready(&self) -> Option<String> {
        lock(&self.components).iter().find_map(|(name, component)| match component {
            Component::Recovering(reason) | Component::Failed(reason) => Some(format!("{name}: {reason}")),
            Component::Ok | Component::Degraded(_) => None,
        })
    }

    /// Events between the log's end and the last commit.
    pub fn queue_depth(&self) -> u64 {
        self.depth.load(Relaxed)
    }

    /// `QUEUE_CAPACITY`.
    pub fn queue_capacity(&self) -> u64 {
        self.capacity
    }

    /// WebSockets connected.
    pub fn websocket_clients(&self) -> u64 {
        self.websockets.load(Relaxed).max(0) as u64
    }

    /// Time since start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The body of `/health`.
    pub fn health(&self) -> Value {
        let components = lock(&self.components);
        let status = if components.values().all(|component| *component == Component::Ok) { "ok" } else { "degraded" };
        let components: serde_json::Map<_, _> =
            components.iter().map(|(name, component)| ((*name).to_owned(), component.to_json())).collect();
        let mut health = json!({
            "status": status,
            "queue_size": self.queue_depth(),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.uptime().as_secs_f64(),
            "components": components,
        });
        if let Some(standing) = *lock(&self.standing) {
            health["standing"] = standing.into();
        }
        health
    }

    /// The body of `/stats`; what the store counts is given.
    pub fn snapshot(&self, anomalies_24h: (u64, u64), anomalies_per_hour: [u64; 24]) -> Value {
        self.snapshot_at(self.second(), anomalies_24h, anomalies_per_hour)
    }

    fn snapshot_at(&self, second: u64, (warning, critical): (u64, u64), anomalies_per_hour: [u64; 24]) -> Value {
        let totals = self.totals();
        let mut recent = self.recent();
        let events = recent.events.completed(second, HISTORY);
        let last_five: u64 = events[HISTORY - 5..].iter().sum();
        json!({
            "events_total": totals.events,
            "rejected_total": totals.rejected,
            "late_total": totals.late,
            "duplicates_total": totals.duplicates,
            "redelivered_total": totals.redelivered,
            "events_per_second": last_five as f64 / 5.0,
            "rejected_last_minute": recent.rejected.recent(second, HISTORY),
            "late_last_minute": recent.late.recent(second, HISTORY),
            "queue_depth": self.queue_depth(),
            "queue_capacity": self.capacity,
            "series": self.series.load(Relaxed),
            "series_new_24h": lock(&self.new_series).unwrap_or_else(|| recent.new_series.recent(second / 3600, 25)),
            "anomalies_24h": {"warning": warning, "critical": critical},
            "websocket_clients": self.websocket_clients(),
            "history": {
                "events_per_second": events,
                "queue_depth": recent.depth.history(second, HISTORY),
                "anomalies_per_hour": anomalies_per_hour,
            },
        })
    }

    fn rejected_by_code(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.codes).clone()
    }

    fn count_rejected(&self, code: &'static str, n: u64) {
        if n > 0 {
            self.rejected_here.fetch_add(n, Relaxed);
            self.rejected.fetch_add(n, Relaxed);
            self.recent().rejected.add(self.second(), n);
            *lock(&self.codes).entry(code).or_default() += n;
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        lock(&self.recent)
    }

    /// Seconds since start, from 64 so that a ring has a past.
    fn second(&self) -> u64 {
        64 + self.started.elapsed().as_secs()
    }
}

impl Component {
    fn to_json(&self) -> Value {
        match self {
            Self::Ok => json!({"status": "ok"}),
            Self::Degraded(reason) => json!({"status": "degraded", "reason": reason}),
            Self::Recovering(reason) => json!({"status": "recovering", "reason": reason}),
            Self::Failed(reason) => json!({"status": "failed", "reason": reason}),
        }
    }
}

/// A thread that died while counting leaves counts that are as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use anomaly_engine::Rejected;

    use super::*;

    #[test]
    fn the_rate_is_the_mean_of_the_last_five_whole_seconds() {
        let stats = Stats::new(9);
        stats.accepted(20);
        let at = |second: u64| stats.snapshot_at(64 + second, (1, 2), [3; 24]);
        assert_eq!(at(0)["events_per_second"], 0.0, "the running second is not told");
        assert_eq!((&at(1)["events_per_second"], &at(5)["events_per_second"]), (&json!(4.0), &json!(4.0)));
        let later = at(6);
        assert_eq!(later["events_per_second"], 0.0);
        assert_eq!(later["history"]["events_per_second"][54], 20);
        assert_eq!((&later["events_total"], &later["queue_capacity"]), (&json!(20), &json!(9)));
        assert_eq!(later["anomalies_24h"], json!({"warning": 1, "critical": 2}));
    }

    #[test]
    fn histories_have_their_lengths_and_a_minute_passes() {
        let stats = Stats::new(9);
        stats.rejected(Code::InvalidValue, 7);
        stats.late(3);
        stats.queue(5);
        let now = stats.snapshot_at(64, (0, 0), [0; 24]);
        for (name, n) in [("events_per_second", 60), ("queue_depth", 60), ("anomalies_per_hour", 24)] {
            assert_eq!(now["history"][name].as_array().map(Vec::len), Some(n), "{name}");
        }
        assert_eq!((&now["rejected_last_minute"], &now["late_last_minute"], &now["queue_depth"]), (&json!(7), &json!(3), &json!(5)));
        assert_eq!(now["history"]["queue_depth"][59], 5);
        let later = stats.snapshot_at(64 + 61, (0, 0), [0; 24]);
        assert_eq!((&later["rejected_last_minute"], &later["rejected_total"]), (&json!(0), &json!(7)));
    }

    #[test]
    fn restored_totals_go_on() {
        let stats = Stats::new(9);
        stats.restore(Totals { events: 100, rejected: 10, late: 3, duplicates: 2, redelivered: 1 });
        stats.accepted(1);
        assert_eq!(stats.totals(), Totals { events: 101, rejected: 10, late: 3, duplicates: 2, redelivered: 1 });
        assert_eq!(stats.snapshot_at(65, (0, 0), [0; 24])["events_per_second"], 0.2, "a restart is no rate");
    }

    #[test]
    fn a_report_is_counted_by_code_and_beyond_its_list() {
        let stats = Stats::new(9);
        let mut report = Report { accepted: 4, ..Report::default() };
        for line in 0..1500 {
            report.reject(Rejected { line, field: String::new(), code: Code::InvalidJson, message: String::new() });
        }
        stats.report(&report);
        assert_eq!((stats.totals().events, stats.totals().rejected), (4, 1500));
        let text = stats.exposition();
        assert!(text.contains("anomaly_rejected_by_code_total{code=\"invalid_json\"} 1000\n"), "{text}");
        assert!(text.contains("anomaly_rejected_by_code_total{code=\"unlisted\"} 500\n"), "{text}");
    }

    #[test]
    fn health_and_readiness_follow_the_components() {
        let stats = Stats::new(9);
        stats.component("log", Component::Ok);
        assert_eq!((&stats.health()["status"], stats.unready()), (&json!("ok"), None));
        stats.component("store", Component::Degraded("the log ended before P".into()));
        assert_eq!((&stats.health()["status"], stats.unready()), (&json!("degraded"), None));
        stats.component("engine", Component::Recovering("replaying".into()));
        assert_eq!(stats.unready().as_deref(), Some("engine: replaying"));
        assert_eq!(stats.health()["components"]["engine"], json!({"status": "recovering", "reason": "replaying"}));
    }

    #[test]
    fn the_exposition_is_text_that_prometheus_reads() {
        let stats = Stats::new(9);
        stats.commit_seconds(0.002);
        stats.commit_seconds(60.0);
        stats.anomaly(true);
        stats.websocket(1);
        stats.answered(202);
        let text = stats.exposition();
        for line in [
            "anomaly_commit_seconds_bucket{le=\"0.0025\"} 1",
            "anomaly_commit_seconds_bucket{le=\"10\"} 1",
            "anomaly_commit_seconds_bucket{le=\"+Inf\"} 2",
            "anomaly_commit_seconds_sum 60.002",
            "anomaly_commit_seconds_count 2",
            "anomaly_anomalies_total{severity=\"critical\"} 1",
            "anomaly_websocket_clients 1",
            "anomaly_http_requests_total{status=\"2xx\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
        let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert!(names.iter().enumerate().all(|(i, name)| !names[..i].contains(name)), "a metric is described twice");
    }
}
