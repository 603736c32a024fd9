//! `anomaly processor` where the log is on Kafka: it takes part in the work on partitions, and leads when it has the lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;
use tracing::warn;

use super::leader::Leader;
use super::member::take_part;
use super::ownership::own;
use super::partition::{Common, newer_format};
use super::shared_log::{follow_ends, open_topic};
use super::{Processor, Told, blocking};
use crate::fatal::Fatal;
use crate::log::kafka::{Ends, Sender};
use crate::stats::Component;

/// How long a newer processor may take to write checkpoints that this one can read.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);
/// Before partitions are taken over anew after something went wrong.
const PAUSE: Duration = Duration::from_secs(1);

/// Many threads that each touch a little: with huge pages that is twice the memory and, while the system clears it, half the speed. One
/// engine with many series is a tenth faster with them, so elsewhere they stay.
fn without_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(fault) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("huge pages stay on: {fault}");
    }
}

/// What a newer processor, which is there, has to write again before all partitions can be taken over here, if that is so and has not
/// lasted for long; `waiting` is since when.
async fn wait_for(common: &Common, waiting: &mut Option<Instant>) -> Option<String> {
    let (place, partitions) = (common.processor.place.clone(), common.topic.partitions());
    let why = if common.processor.formats.newer_is_there() { blocking(move || newer_format(&place, partitions)).await.ok()? } else { None };
    if why.is_none() {
        *waiting = None;
    } else if waiting.get_or_insert_with(Instant::now).elapsed() >= WRITTEN_WITHIN {
        // It cannot do it, so that holds up no other partition any more.
        return None;
    }
    why
}

/// Shares the partitions of a log on Kafka with others until `stop`; one of them leads.
///
/// # Errors
/// What keeps it from starting.
pub(super) async fn share(processor: Processor, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    without_huge_pages();
    let Processor { config, place, stats, .. } = processor.clone();
    let mut stop = std::pin::pin!(stop);
    let topic = tokio::select! {
        topic = open_topic(&config, &place) => topic?,
        () = &mut stop => return Ok(()),
    };
    let ends = Arc::new(Ends::default());
    follow_ends(topic.clone(), Arc::downgrade(&ends))?;
    let (ended, end) = watch::channel(false);
    let is_ended = |mut end: watch::Receiver<bool>| async move {
        let _ = end.wait_for(|ended| *ended).await;
    };
    let common = Common {
        processor,
        sender: Sender::new(topic.clone()).context("Kafka cannot be written to")?,
        topic,
        ends: Arc::clone(&ends),
        fatal: Fatal::new().0,
    };
    stats.set_standing("standby");
    let members = async {
        let (mut told, mut waiting) = (Told::default(), None);
        loop {
            let (fatal, mut failed) = Fatal::new();
            let common = Common { fatal, ..common.clone() };
            let mut stop = std::pin::pin!(is_ended(end.clone()));
            let taken_part = match wait_for(&common, &mut waiting).await {
                Some(why) => Err(why),
                None => take_part(common, &mut failed, &mut stop).await,
            };
            let Err(why) = taken_part else { return };
            stats.set_standing("standby");
            // The same is tried again and again while a server is away.
            if told.is_due(&why) {
                warn!("no partition is worked on here for now, all are taken over anew: {why}");
            }
            stats.component("engine", Component::Recovering(why));
            if tokio::time::timeout(PAUSE, is_ended(end.clone())).await.is_ok() {
                return;
            }
        }
    };
    let lead = |link, token, fatal| Leader::start(common.clone(), link, token, fatal);
    let leading = own(&place, &stats, is_ended(end.clone()), |_| {}, lead);
    let leading = async {
        let led = leading.await;
        ended.send_replace(true);
        led
    };
    let stopping = async {
        stop.await;
        ended.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        (led, ()) = async { tokio::join!(leading, members) } => led,
        () = stopping => Ok(()),
    }
}
