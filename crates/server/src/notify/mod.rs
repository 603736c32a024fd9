//! Tells people about incidents: who hears of what and when (`notifier`, `group`, `limits`), what is said (`message`, `words`),
//! where and how (`channel`, `deliver`), and where never (`guard`).

pub mod channel;
pub mod deliver;
mod example;
mod group;
pub mod guard;
mod limits;
pub mod message;
pub mod notifier;
pub mod words;

use std::sync::Arc;
use std::time::Duration;

use anomaly_engine::hash_text;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::xxh3_128;

use crate::clock;
use crate::config::Config;
use crate::desk::{Desk, DeskError};
use crate::fatal::Fatal;
use crate::points::PointsHandle;
use crate::stats::{Component, Stats};
use crate::store::Write;
use crate::store::notices::Candidate;
use crate::store::sqlite::StoreReader;
use channel::{Channel, Channels, ChannelsError};
use deliver::Courier;
use message::Fact;
use notifier::Notifier;

/// What alerting works on.
#[derive(Clone, Debug)]
pub struct Alerts {
    /// What was committed.
    pub store: StoreReader,
    /// Where it is written what was decided and sent.
    pub desk: Desk,
    /// Samples for charts.
    pub points: PointsHandle,
    /// Told when incidents may have changed.
    pub news: Arc<Notify>,
    /// Told when there may be something to send.
    pub decided: Arc<Notify>,
    /// Counts everything.
    pub stats: Arc<Stats>,
    /// Where the end of the process is called for.
    pub fatal: Fatal,
}

/// Why alerting does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A channel cannot be used at all.
    #[error(transparent)]
    Channels(#[from] ChannelsError),
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] DeskError),
}

/// Starts the notifier and one task a channel; none where no channel is configured.
///
/// # Errors
/// A channel cannot be used at all, or the store cannot be written.
pub async fn start(config: &Arc<Config>, alerts: Alerts) -> Result<Vec<JoinHandle<()>>, StartError> {
    let channels = Arc::new(Channels::new(&config.notify)?);
    let configured: Vec<_> = channels.configured().collect();
    let mut tasks = Vec::new();
    let names = configured.iter().map(|channel| channel.name().to_owned()).collect();
    alerts.desk.write(Write::Notifying { channels: names }).await?;
    if configured.is_empty() {
        return Ok(tasks);
    }
    let Alerts { store, desk, points, news, decided, stats, fatal } = alerts;
    let base_url = config.public_url();
    for channel in configured {
        let courier = || Courier {
            channel,
            channels: Arc::clone(&channels),
            store: store.clone(),
            desk: desk.clone(),
            decided: Arc::clone(&decided),
            base_url: base_url.clone(),
            stats: Arc::clone(&stats),
        };
        stats.component(channel.name(), Component::Ok);
        tasks.push(tokio::spawn(guarded(fatal.clone(), channel.name(), courier().run())));
        if channel == Channel::Alertmanager {
            tasks.push(tokio::spawn(guarded(fatal.clone(), channel.name(), courier().keep_active())));
        }
    }
    let notifier = Notifier { config: Arc::clone(config), base_url, channels, store, desk, points, news, last: clock::now() };
    tasks.push(tokio::spawn(guarded(fatal, "notifier", notifier.run())));
    Ok(tasks)
}

/// A task that panics must not leave its channel mute without a word.
async fn guarded(fatal: Fatal, name: &'static str, task: impl Future<Output = ()>) {
    let _guard = fatal.guard(name);
    task.await;
}

/// An incident as channels write it.
fn fact(one: &Candidate) -> Fact {
    let incident = &one.incident;
    Fact {
        id: incident.id.clone(),
        series: incident.name.clone(),
        metric: incident.metric.clone(),
        labels: one.labels.clone(),
        start: incident.start,
        end: incident.end,
        count: incident.count,
        critical: incident.critical,
        peak: serde_json::from_str(&incident.peak).unwrap_or_default(),
        points: Vec::new(),
    }
}

/// The id of a notification: of what it is about, and nothing else, so that a decision that is made again has it again.
fn notification_id(subject: &str, what: &str, times: u64, channel: Channel) -> String {
    hash_text(xxh3_128(format!("{subject} {what} {times} {}", channel.name()).as_bytes()))
}

/// The same for all channels of a message.
fn message_id(subject: &str, what: &str, times: u64) -> String {
    hash_text(xxh3_128(format!("{subject} {what} {times}").as_bytes()))
}

/// A duration as timestamps count it.
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
