//! A processor as a member of the group that shares the partitions of the log: which are its own, and what is read of them.
//!
//! ```text
//! assigned ─► taken over: epoch, checkpoint, P ─► read from there ─► feed of its engine
//! revoked  ─► what was read is judged, written, checkpointed ─► given up          lost ─► dropped: it is another's already
//! ```
//! One that cannot be taken over is tried again, and holds up no other; where this version is too old for it,
//! and somebody comes who is not, we leave. Whatever goes wrong with one that is at work ends the membership,
//! and all is taken over anew: nobody knows what of it others have.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anomaly_engine::frame::{base_of, renumber};
use bytes::BytesMut;
use futures_util::future::join_all;
use futures_util::{FutureExt as _, StreamExt as _};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::blocking;
use super::judging::Judging;
use super::partition::{Common, TakenOver};
use crate::checkpoint::NewerFormat;
use crate::feed::SealedBytes;
use crate::kafka::{self, Client, Event};
use crate::log::stream::UNNUMBERED;
use crate::share::Share;
use crate::stats::Component;

/// How long others wait for partitions that we finish; then they are theirs all the same, and what we write is refused.
const DRAIN: Duration = Duration::from_secs(9);
/// Before a partition is tried again that could not be taken over.
const TAKE_AGAIN: Duration = Duration::from_secs(3);
/// A partition that judges nothing for so long, though events wait, is taken over anew.
const STUCK: Duration = Duration::from_secs(60);
/// Frames that are taken before anything else has its turn, and their bytes.
const AT_ONCE: usize = 2048;
const AT_ONCE_BYTES: usize = 1 << 20;
/// Bytes that are allocated at once for copies of a partition's frames; one that is not much smaller has its own.
const COPIES: usize = 32 << 10;
/// Room, offsets, what is to be taken over.
const TICK: Duration = Duration::from_millis(100);
/// How long the group may take when we leave it.
const LEAVE: Duration = Duration::from_secs(2);

/// A partition that is ours.
struct Owned {
    stages: Judging,
    /// How far it was when that was last seen to move.
    moved: (u64, Instant),
    /// Frames that were read and are not handed over.
    held: VecDeque<SealedBytes>,
    /// There is no room for them; Kafka sends no more meanwhile.
    paused: bool,
    /// What small frames are copied to; many find their place in one allocation.
    copies: BytesMut,
    committed: u64,
}

struct Member {
    common: Common,
    client: Arc<rdkafka::consumer::StreamConsumer<kafka::Context>>,
    owned: BTreeMap<i32, Owned>,
    /// What the group has given us and is not taken over, and when that is due.
    wanted: BTreeMap<i32, Instant>,
    /// Why not.
    failing: BTreeMap<i32, String>,
    /// Whether somebody was there already who reads more than we, when we joined.
    had_newer: bool,
    /// Why a broker could not be reached, until one is.
    hint: Option<String>,
    /// Why nothing could be read, until something is.
    trouble: Option<String>,
}

/// Shares in the work until `stop`.
///
/// # Errors
/// Why all of it has to be taken over anew.
pub(super) async fn take_part(
    common: Common,
    failed: &mut mpsc::UnboundedReceiver<String>,
    stop: &mut (impl Future<Output = ()> + Unpin),
) -> Result<(), String> {
    let (config, topic) = (common.topic.config().clone(), common.topic.name().to_owned());
    let Client { consumer, mut events } =
        Client::subscribe(&config, &topic, &config.processor_group(), "error").map_err(|fault| fault.to_string())?;
    let mut member = Member {
        had_newer: common.processor.formats.newer_is_there(),
        common,
        client: Arc::clone(&consumer),
        owned: BTreeMap::new(),
        wanted: BTreeMap::new(),
        failing: BTreeMap::new(),
        hint: None,
        trouble: None,
    };
    member.tell();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stream = consumer.stream();
    let ended = loop {
        tokio::select! {
            biased;
            () = &mut *stop => break Ok(()),
            Some(reason) = failed.recv() => break Err(reason),
            Some(event) = events.recv() => {
                if let Err(why) = member.handle(event).await {
                    break Err(why);
                }
            }
            _ = tick.tick() => {
                member.tick();
                if let Some(why) = member.stuck() {
                    break Err(why);
                }
                if let Err(why) = member.take_over().await {
                    break Err(why);
                }
            }
            Some(message) = stream.next() => {
                let (mut taken, mut frames) = (member.take(message), 1);
                while let Ok(bytes) = taken
                    && bytes < AT_ONCE_BYTES
                    && frames < AT_ONCE
                    && let Some(Some(message)) = stream.next().now_or_never()
                {
                    (taken, frames) = (member.take(message).map(|more| bytes + more), frames + 1);
                }
                let handed = taken.and_then(|_| member.hand_over());
                // Who leads and who stops are of the same task, and must not wait until nothing is left to be read.
                tokio::task::yield_now().await;
                if let Err(why) = handed {
                    break Err(why);
                }
            }
        }
    };
    drop(stream);
    drop(consumer);
    let Member { client, owned, common, .. } = member;
    give_up(&common, owned, ended.is_ok()).await;
    kafka::close(client, LEAVE).await;
    ended
}

/// Ends the stages of partitions.
async fn give_up(common: &Common, owned: BTreeMap<i32, Owned>, are_ours: bool) {
    if are_ours && !owned.is_empty() {
        // Whoever gets them may have come just now, and may not read what is newest.
        common.processor.formats.tell().await;
    }
    let stopping = join_all(owned.into_values().map(|Owned { mut stages, .. }| async move {
        stages.end_tasks().await;
        blocking(move || stages.finish(are_ours, || {})).await
    }));
    if tokio::time::timeout(DRAIN, stopping).await.is_err() {
        warn!("not everything was finished within {} s; who takes over goes on from the log", DRAIN.as_secs());
    }
}

impl Member {
    async fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Assigned(partitions) => {
                self.wanted.extend(partitions.elements().iter().map(|partition| (partition.partition(), Instant::now())));
                // What cannot be taken over yet is assigned later; the group waits for an answer.
                if !self.take_over().await? {
                    self.client.incremental_assign(&TopicPartitionList::new()).map_err(|fault| fault.to_string())?;
                }
            }
            Event::Revoked(partitions) => {
                let are_ours = !self.client.assignment_lost();
                let of: Vec<i32> = partitions.elements().iter().map(TopicPartitionListElem::partition).collect();
                self.wanted.retain(|partition, _| !of.contains(partition));
                let leaving: BTreeMap<_, _> = of.iter().filter_map(|partition| self.owned.remove_entry(partition)).collect();
                let assigned = self.list(leaving.keys().copied());
                give_up(&self.common, leaving, are_ours).await;
                // A pause would outlive the assignment, and should the partition come back nothing of it would be read.
                self.client.resume(&assigned).map_err(|fault| fault.to_string())?;
                self.client.incremental_unassign(&assigned).map_err(|fault| fault.to_string())?;
                self.tell();
            }
            Event::Ends { ends, is_up } => {
                for (partition, (next, _)) in ends {
                    if let (Ok(partition), Ok(next)) = (u32::try_from(partition), u64::try_from(next)) {
                        self.common.ends.raise(partition, base_of(partition) + next);
                    }
                }
                if is_up {
                    self.hint = None;
                }
                let down = (!is_up).then(|| self.hint.clone().unwrap_or_else(|| "no broker answers".to_owned()));
                let why = self.trouble.clone().or(down);
                self.common.processor.stats.component("kafka", why.map_or(Component::Ok, Component::Degraded));
            }
            Event::Lost => return Err(kafka::LOST.to_owned()),
            Event::Hint(why) => self.hint = Some(why),
            Event::CommitFailed(why) => debug!("offsets, which tell the lag, were not committed: {why}"),
            Event::Down => {}
        }
        Ok(())
    }

    fn list(&self, partitions: impl Iterator<Item = i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(self.common.topic.name(), partition);
        }
        list
    }

    /// Takes over what is due of what the group has given us, all at a time, and begins to read it. What cannot be taken over is tried
    /// again, and holds up nothing else. Returns whether there is something new to read.
    async fn take_over(&mut self) -> Result<bool, String> {
        let now = Instant::now();
        let of: Vec<i32> = self.wanted.iter().filter(|(_, due)| **due <= now).map(|(partition, _)| *partition).collect();
        if of.is_empty() {
            return Ok(false);
        }
        let taking = of.iter().map(|&partition| {
            let (common, share) = (self.common.clone(), self.share(partition));
            blocking(move || TakenOver::take(&common, share))
        });
        let mut assigned = TopicPartitionList::new();
        for (&partition, taken) in of.iter().zip(join_all(taking).await) {
            let begun = taken.and_then(|taken| taken).and_then(|taken| {
                let from = Offset::Offset(taken.next_offset(partition as u32));
                let stages = taken.start(&self.common, self.share(partition))?;
                assigned.add_partition_offset(self.common.topic.name(), partition, from)?;
                Ok(stages)
            });
            match begun {
                Ok(stages) => {
                    self.wanted.remove(&partition);
                    self.failing.remove(&partition);
                    let committed = *stages.reached.borrow();
                    let owned =
                        Owned { stages, held: VecDeque::new(), paused: false, copies: BytesMut::new(), committed, moved: (committed, now) };
                    self.owned.insert(partition, owned);
                }
                // Somebody has come who reads it, and has it as soon as we leave; it is ours again once it is written anew.
                Err(fault) if fault.is::<NewerFormat>() && !self.had_newer && self.common.processor.formats.newer_is_there() => {
                    return Err(format!("partition {partition}: {fault}"));
                }
                Err(fault) => {
                    let why = format!("{fault:#}");
                    if self.failing.insert(partition, why.clone()).is_none_or(|before| before != why) {
                        warn!(partition, "a partition cannot be taken over, it is tried again, its events wait: {why}");
                    }
                    self.wanted.insert(partition, Instant::now() + TAKE_AGAIN);
                }
            }
        }
        if assigned.count() > 0 {
            self.client.incremental_assign(&assigned).map_err(|fault| fault.to_string())?;
        }
        self.tell();
        Ok(assigned.count() > 0)
    }

    fn share(&self, partition: i32) -> Share {
        Share { partition: partition as u32, of: self.common.topic.partitions() }
    }

    /// Tells how it stands, and divides the memory anew.
    fn tell(&self) {
        let stats = &self.common.processor.stats;
        stats.set_standing(if self.owned.is_empty() { "standby" } else { "active" });
        stats.component(
            "engine",
            match self.failing.iter().find(|(partition, _)| self.wanted.contains_key(partition)) {
                None => Component::Ok,
                Some((partition, why)) => {
                    Component::Degraded(format!("partition {partition} cannot be taken over, its events wait: {why}"))
                }
            },
        );
        let limit = self.common.processor.config.memory_max_bytes / (self.owned.len() as u64).max(1);
        self.owned.values().for_each(|owned| owned.stages.memory.set_limit(limit));
    }

    /// Takes a frame; returns its bytes.
    fn take(&mut self, message: Result<BorrowedMessage<'_>, KafkaError>) -> Result<usize, String> {
        let message = match message {
            Ok(message) => message,
            Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)) => {
                return Err("the log has deleted what was to be read next".to_owned());
            }
            Err(fault @ KafkaError::MessageConsumptionFatal(_)) => return Err(fault.to_string()),
            Err(fault @ KafkaError::MessageConsumption(_)) => {
                // Brokers that come and go are waited for.
                if self.trouble.replace(fault.to_string()).is_none() {
                    warn!("Kafka: {fault}");
                }
                return Ok(0);
            }
            Err(_) => return Ok(0),
        };
        self.trouble = None;
        let (partition, offset) = (message.partition(), message.offset() as u64);
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(0) };
        let number = base_of(partition as u32) + offset + 1;
        let payload = message.payload().unwrap_or_default();
        let mut bytes = if payload.len() > COPIES / 4 {
            BytesMut::from(payload)
        } else {
            if owned.copies.capacity() < payload.len() {
                owned.copies.reserve(COPIES);
            }
            owned.copies.extend_from_slice(payload);
            owned.copies.split()
        };
        // What is damaged stays as it is: whoever opens it finds that out, and says so.
        renumber(&mut bytes, UNNUMBERED, number);
        let taken = bytes.len();
        owned.held.push_back((number, bytes.freeze()));
        Ok(taken)
    }

    /// Hands what was read to the engines, as far as they have room.
    fn hand_over(&mut self) -> Result<(), String> {
        let mut full = TopicPartitionList::new();
        for (&partition, owned) in &mut self.owned {
            let Some((last, _)) = owned.held.back() else { continue };
            self.common.ends.raise(partition as u32, *last);
            owned.stages.feed.take_from(&mut owned.held);
            if !owned.held.is_empty() && !owned.paused {
                owned.paused = true;
                full.add_partition(self.common.topic.name(), partition);
            }
        }
        if full.count() > 0 {
            self.client.pause(&full).map_err(|fault| fault.to_string())?;
        }
        Ok(())
    }

    /// Why all is to be taken over anew, where a partition has not moved for long although there is more of it.
    fn stuck(&mut self) -> Option<String> {
        let now = Instant::now();
        for (&partition, owned) in &mut self.owned {
            let reached = *owned.stages.reached.borrow();
            if reached != owned.moved.0 || self.common.ends.of(partition as u32) <= reached {
                owned.moved = (reached, now);
            } else if now - owned.moved.1 >= STUCK {
                return Some(format!("events of partition {partition} wait, and none was judged for {} s", STUCK.as_secs()));
            }
        }
        None
    }

    /// Goes on with what has room again, and tells the group how far everything is.
    fn tick(&mut self) {
        let (mut resumed, mut done) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (&partition, owned) in &mut self.owned {
            if owned.paused {
                owned.stages.feed.take_from(&mut owned.held);
                if owned.held.is_empty() {
                    resumed.add_partition(self.common.topic.name(), partition);
                }
            }
            let reached = *owned.stages.reached.borrow();
            let offset = Offset::Offset((reached - base_of(partition as u32)) as i64);
            if reached > owned.committed && done.add_partition_offset(self.common.topic.name(), partition, offset).is_ok() {
                owned.committed = reached;
            }
        }
        if resumed.count() > 0 {
            match self.client.resume(&resumed) {
                Ok(()) => self.owned.values_mut().for_each(|owned| owned.paused &= !owned.held.is_empty()),
                Err(fault) => warn!("Kafka: partitions could not be resumed, it is tried again: {fault}"),
            }
        }
        // Only for who looks at the lag: what counts is in redis.
        if done.count() > 0
            && let Err(fault) = self.client.commit(&done, CommitMode::Async)
        {
            debug!("offsets were not committed: {fault}");
        }
    }
}
