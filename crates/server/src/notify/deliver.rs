//! Sends what was decided: one task a channel, so that one that does not answer holds up no other.
//!
//! A notification is marked as sent after the other side has taken it. A process that dies in between sends it again, the same
//! bytes under the same id.

use std::sync::Arc;
use std::time::Duration;

use anomaly_engine::NANOS;
use tokio::sync::Notify;
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::channel::{Channel, Channels, alertmanager};
use super::message::Kind;
use super::{fact, nanos};
use crate::clock;
use crate::desk::{Desk, DeskError};
use crate::stats::{Component, Delivery, Stats};
use crate::store::notices::ToSend;
use crate::store::sqlite::StoreReader;
use crate::store::{StoreError, Write};

/// The pause after the first failure; it doubles with each,
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// What could not be sent for so long is given up.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);
/// How long a decision is taken for what is so.
const FRESH: Duration = Duration::from_secs(5);
/// How long to wait after a fault of the store.
const FAULT_PAUSE: Duration = Duration::from_secs(5);
/// The longest sleep while something is due: the wall clock may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Sends the notifications of one channel.
#[derive(Debug)]
pub struct Courier {
    /// Over which.
    pub channel: Channel,
    /// How.
    pub channels: Arc<Channels>,
    /// What is to be sent.
    pub store: StoreReader,
    /// Where it is noted that it was.
    pub desk: Desk,
    /// Told when there may be something to send.
    pub decided: Arc<Notify>,
    /// Where people reach the dashboard.
    pub base_url: String,
    /// Counts what was sent, and tells whether the other side takes it.
    pub stats: Arc<Stats>,
}

impl Courier {
    /// Sends until it is dropped.
    pub async fn run(self) {
        loop {
            // Before asking: what is decided while we ask is not missed.
            let decided = self.decided.notified();
            let now = clock::now();
            let channel = self.channel.name();
            let next = match self.ask(move |store| store.to_send(channel, now)).await {
                Ok(Ok(to_send)) => {
                    if let Err(DeskError::Closing) = self.send(to_send).await {
                        return;
                    }
                    continue;
                }
                Ok(Err(next)) => next,
                Err(fault) => {
                    warn!(channel, "alerts wait, it is tried again in {} s: {fault}", FAULT_PAUSE.as_secs());
                    Some(now.plus(nanos(FAULT_PAUSE)))
                }
            };
            let left = next.map(|at| Duration::from_nanos(at.since(clock::now()).max(0) as u64).min(LONGEST_SLEEP));
            tokio::select! {
                () = decided => {}
                () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => {}
            }
        }
    }

    async fn send(&self, to_send: ToSend) -> Result<(), DeskError> {
        let channel = self.channel.name();
        let ToSend { num, id, attempts, made, kind, body, by_hand } = to_send;
        // What had to wait may have been silenced, acknowledged or over meanwhile. What somebody asked to send is sent.
        let follows = matches!(kind, Some(Kind::Resolved | Kind::Acknowledged));
        let waited = !by_hand && (follows || attempts > 0 || clock::now().since(made) > nanos(FRESH));
        let outdated = match kind.filter(|_| waited) {
            Some(kind) => self.ask(move |store| store.outdated(num, kind, channel, clock::now())).await.unwrap_or_default(),
            None => None,
        };
        if let Some((why, silent_until)) = outdated {
            info!(channel, id, "alert not sent: {why}");
            return self.desk.write(Write::Withhold { num, why: why.to_owned(), silent_until }).await.map(drop);
        }
        let outcome = self.channels.send(self.channel, &id, &body).await;
        let now = clock::now();
        let noted = match outcome {
            Ok(answer) => {
                info!(channel, id, answer, "alert sent");
                self.stats.delivery(self.channel, Delivery::Sent);
                self.stats.component(channel, Component::Ok);
                self.desk.write(Write::Sent { num, at: now }).await.map(drop)
            }
            Err(fault) => {
                let again = now.plus(nanos(fault.retry_after.unwrap_or_default().max(pause(attempts, &id))));
                let again = (!fault.permanent && again.since(made) < nanos(GIVE_UP)).then_some(again);
                match again {
                    Some(at) => warn!(channel, id, "alert not sent, it is tried again in {} s: {}", at.since(now) / NANOS, fault.message),
                    None => warn!(channel, id, "alert given up (POST /notifications/{id}/resend sends it again): {}", fault.message),
                }
                self.stats.delivery(self.channel, if again.is_some() { Delivery::Retried } else { Delivery::Failed });
                self.stats.component(channel, Component::Degraded(fault.message.clone()));
                self.desk.write(Write::Failed { num, error: fault.message, again }).await.map(drop)
            }
        };
        if let Err(fault @ DeskError::Store(_)) = noted {
            // It is sent again, and the receiver knows its id; but not at once.
            warn!(channel, "what became of an alert could not be noted: {fault}");
            tokio::time::sleep(FAULT_PAUSE).await;
            return Ok(());
        }
        noted
    }

    /// Tells an Alertmanager again and again what is active: it takes what it does not hear of for resolved.
    pub async fn keep_active(self) {
        loop {
            let decided = self.decided.notified();
            let (now, channel) = (clock::now(), self.channel.name());
            let Ok(active) = self.ask(move |store| store.active_on(channel, now)).await else {
                tokio::time::sleep(FAULT_PAUSE).await;
                continue;
            };
            if active.is_empty() {
                decided.await;
                continue;
            }
            tokio::time::sleep(Duration::from_nanos(alertmanager::RESEND.unsigned_abs())).await;
            let now = clock::now();
            let Ok(active) = self.ask(move |store| store.active_on(channel, now)).await else { continue };
            if active.is_empty() {
                continue;
            }
            let facts: Vec<_> = active.iter().map(fact).collect();
            let body = alertmanager::alerts(&facts, &self.base_url, now.plus(alertmanager::LIFETIME));
            if let Err(fault) = self.channels.send(self.channel, "active", &body).await {
                warn!(
                    channel,
                    "what is active could not be told, it is tried again in {} s: {}",
                    alertmanager::RESEND / NANOS,
                    fault.message
                );
            }
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || ask(&store)).await {
            Ok(answer) => answer,
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}

/// How long to wait after so many attempts: twice as long each time, and by a half more or less, so that not all come at once.
fn pause(attempts: u64, id: &str) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << attempts.min(16)).min(LONGEST_PAUSE);
    let hash = xxh3_64(format!("{id} {attempts}").as_bytes());
    doubled.mul_f64(0.5 + (hash % 1000) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_differ() {
        for attempts in 0..40 {
            let whole = (1u64 << attempts.min(16)).min(300) as f64;
            let pause = pause(attempts, "n-1").as_secs_f64();
            assert!((0.5 * whole..1.5 * whole).contains(&pause), "{attempts}: {pause}");
        }
        assert_ne!(pause(3, "n-1"), pause(3, "n-2"));
    }
}
