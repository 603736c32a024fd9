//! How it stands with Kafka: in `/health`, and a line of the log for each change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

use crate::stats::{Component, Stats};

/// The component's name in `/health`.
const NAME: &str = "kafka";

/// What is wrong, told when it changes and not when it is tried again.
#[derive(Debug)]
pub(super) struct Health {
    broker: String,
    topic: String,
    stats: Arc<Stats>,
    // A std mutex: held for a few nanoseconds, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    unreachable: Option<String>,
    topic_missing: bool,
    /// Partitions that wait, and for what.
    waiting: BTreeMap<i32, String>,
    told: Option<String>,
}

impl Health {
    /// Not yet connected.
    pub(super) fn new(broker: String, topic: String, stats: Arc<Stats>) -> Self {
        stats.component(NAME, Component::Degraded(format!("connecting to {broker}")));
        let state = State { told: Some(String::new()), ..State::default() };
        Self { broker, topic, stats, state: Mutex::new(state) }
    }

    /// No broker answers. The first reason stands until one does: later ones differ in numbers alone.
    pub(super) fn unreachable(&self, reason: &str) {
        self.change(|state| _ = state.unreachable.get_or_insert_with(|| reason.to_owned()));
    }

    /// A broker has answered, and said whether the topic exists.
    pub(super) fn answered(&self, topic_exists: bool) {
        self.change(|state| {
            state.unreachable = None;
            state.topic_missing = !topic_exists;
        });
    }

    /// Whether something is wrong that an answer of the broker may end.
    pub(super) fn is_well(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unreachable.is_none() && !state.topic_missing && state.told.is_none()
    }

    /// A partition waits.
    pub(super) fn waits(&self, partition: i32, reason: impl FnOnce() -> String) {
        self.change(|state| _ = state.waiting.entry(partition).or_insert_with(reason));
    }

    /// A partition goes on, or is another's.
    pub(super) fn goes_on(&self, partition: i32) {
        self.change(|state| _ = state.waiting.remove(&partition));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let now = self.reason(&state);
        if now == state.told {
            return;
        }
        match &now {
            Some(reason) => warn!("Kafka: {reason}"),
            None => info!("Kafka at {}: reading {}", self.broker, self.topic),
        }
        self.stats.component(NAME, now.clone().map_or(Component::Ok, Component::Degraded));
        state.told = now;
    }

    fn reason(&self, state: &State) -> Option<String> {
        if let Some(reason) = &state.unreachable {
            return Some(format!("broker {} cannot be reached: {reason}", self.broker));
        }
        if state.topic_missing {
            return Some(format!("the topic {} does not exist on {} yet; it is read when it does", self.topic, self.broker));
        }
        let (partition, reason) = state.waiting.first_key_value()?;
        let others = match state.waiting.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        Some(format!("partition {partition}{others} waits: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_told_with_the_brokers_name() {
        let stats = Arc::new(Stats::new(9));
        let health = Health::new("b:9092".into(), "events".into(), Arc::clone(&stats));
        let told = || {
            let health = stats.health();
            let component = &health["components"]["kafka"];
            (component["status"].to_string(), component.to_string())
        };
        assert!(told().1.contains("connecting to b:9092") && !health.is_well());
        health.answered(true);
        assert!(told().0.contains("ok") && health.is_well());
        health.waits(3, || "the queue is full".into());
        health.waits(1, || "the queue is full".into());
        assert!(told().1.contains("partition 1 (and 1 more) waits: the queue is full"), "{:?}", told());
        health.unreachable("refused (after 1 ms)");
        health.unreachable("refused (after 2 ms)");
        assert!(told().1.contains("broker b:9092 cannot be reached: refused (after 1 ms)"), "{:?}", told());
        health.answered(false);
        assert!(told().1.contains("the topic events does not exist on b:9092 yet") && !health.is_well());
        health.answered(true);
        health.goes_on(3);
        health.goes_on(1);
        assert!(told().0.contains("ok"));
    }
}
