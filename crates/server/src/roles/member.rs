//! A processor as a member of the group that shares the partitions of the log: which are its own, and what is read of them.
//!
//! ```text
//! assigned ─► taken over: epoch, checkpoint, P ─► read from there ─► feed of its engine
//! revoked  ─► what was read is judged, written, checkpointed ─► given up          lost ─► dropped: it is another's already
//! ```
//! Whatever goes wrong with one ends the membership, and all is taken over anew: nobody knows what of it others have.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anomaly_engine::frame::{base_of, renumber};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::blocking;
use super::partition::{Common, Partition, TakenOver};
use crate::kafka::{self, Client, Event};
use crate::log::stream::UNNUMBERED;
use crate::share::Share;
use crate::stats::Component;

/// How long others wait for partitions that we finish; then they are theirs all the same, and what we write is refused.
const DRAIN: Duration = Duration::from_secs(9);
/// Room, offsets.
const TICK: Duration = Duration::from_millis(100);
/// How long the group may take when we leave it.
const LEAVE: Duration = Duration::from_secs(2);

/// A partition that is ours.
struct Owned {
    stages: Partition,
    /// Frames for which there is no room yet; Kafka sends no more meanwhile.
    held: VecDeque<(u64, Arc<Vec<u8>>)>,
    committed: u64,
}

struct Member {
    common: Common,
    client: Arc<rdkafka::consumer::StreamConsumer<kafka::Context>>,
    owned: BTreeMap<i32, Owned>,
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
    let mut member = Member { common, client: Arc::clone(&consumer), owned: BTreeMap::new() };
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
            _ = tick.tick() => member.tick(),
            Some(message) = stream.next() => {
                if let Err(why) = member.push(message) {
                    break Err(why);
                }
            }
        }
    };
    drop(stream);
    drop(consumer);
    let Member { client, owned, .. } = member;
    give_up(owned, ended.is_ok()).await;
    kafka::close(client, LEAVE).await;
    ended
}

/// Ends the stages of partitions.
async fn give_up(owned: BTreeMap<i32, Owned>, are_ours: bool) {
    let stopping = join_all(owned.into_values().map(|owned| owned.stages.stop(are_ours)));
    if tokio::time::timeout(DRAIN, stopping).await.is_err() {
        warn!("not everything was finished within {} s; who takes over goes on from the log", DRAIN.as_secs());
    }
}

impl Member {
    async fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Assigned(partitions) => self.take_over(partitions).await.map_err(|fault| format!("{fault:#}"))?,
            Event::Revoked(partitions) => {
                let are_ours = !self.client.assignment_lost();
                let of: Vec<i32> = partitions.elements().iter().map(TopicPartitionListElem::partition).collect();
                let leaving = of.iter().filter_map(|partition| self.owned.remove_entry(partition)).collect();
                give_up(leaving, are_ours).await;
                self.client.incremental_unassign(&partitions).map_err(|fault| fault.to_string())?;
                self.tell();
            }
            Event::Ends(ends) => {
                for (partition, (next, _)) in ends {
                    if let (Ok(partition), Ok(next)) = (u32::try_from(partition), u64::try_from(next)) {
                        self.common.ends.raise(partition, base_of(partition) + next);
                    }
                }
            }
            Event::Hint(why) | Event::CommitFailed(why) => debug!("{why}"),
            Event::Down => warn!("no broker of Kafka answers"),
        }
        Ok(())
    }

    /// Takes partitions over, all at a time, and begins to read them.
    async fn take_over(&mut self, mut partitions: TopicPartitionList) -> anyhow::Result<()> {
        let of: Vec<u32> = partitions.elements().iter().map(|partition| partition.partition() as u32).collect();
        let owned = (self.owned.len() + of.len()) as u32;
        let taking = of.iter().map(|&partition| {
            let (common, share) = (self.common.clone(), self.share(partition));
            blocking(move || TakenOver::take(&common, share))
        });
        for (&partition, taken) in of.iter().zip(join_all(taking).await) {
            let taken = taken??;
            partitions.set_partition_offset(self.common.topic.name(), partition as i32, Offset::Offset(taken.next_offset(partition)))?;
            let stages = Partition::start(&self.common, self.share(partition), taken, owned)?;
            let committed = *stages.reached.borrow();
            self.owned.insert(partition as i32, Owned { stages, held: VecDeque::new(), committed });
        }
        self.client.incremental_assign(&partitions)?;
        self.tell();
        Ok(())
    }

    fn share(&self, partition: u32) -> Share {
        Share { partition, of: self.common.topic.partitions() }
    }

    fn tell(&self) {
        self.common.stats.set_standing(if self.owned.is_empty() { "standby" } else { "active" });
        self.common.stats.component("engine", Component::Ok);
    }

    fn push(&mut self, message: Result<BorrowedMessage<'_>, KafkaError>) -> Result<(), String> {
        let message = match message {
            Ok(message) => message,
            Err(fault @ (KafkaError::MessageConsumption(code) | KafkaError::MessageConsumptionFatal(code))) => {
                // Brokers that come and go are waited for; an offset that is gone is found when the partition is taken over anew.
                let ends =
                    matches!(fault, KafkaError::MessageConsumptionFatal(_)) || code == rdkafka::error::RDKafkaErrorCode::AutoOffsetReset;
                return if ends { Err(fault.to_string()) } else { Ok(()) };
            }
            Err(_) => return Ok(()),
        };
        let (partition, offset) = (message.partition(), message.offset() as u64);
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        let number = base_of(partition as u32) + offset + 1;
        let mut bytes = message.payload().unwrap_or_default().to_vec();
        // What is damaged stays as it is: whoever opens it finds that out, and says so.
        renumber(&mut bytes, UNNUMBERED, number);
        self.common.ends.raise(partition as u32, number);
        if owned.held.is_empty() && owned.stages.feed.has_room_for(number, bytes.len()) {
            owned.stages.feed.push(number, Arc::new(bytes));
        } else {
            owned.held.push_back((number, Arc::new(bytes)));
            let mut full = TopicPartitionList::new();
            full.add_partition(self.common.topic.name(), partition);
            self.client.pause(&full).map_err(|fault| fault.to_string())?;
        }
        Ok(())
    }

    /// Goes on with what has room again, and tells the group how far everything is.
    fn tick(&mut self) {
        let (mut resumed, mut done) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (&partition, owned) in &mut self.owned {
            let waited = !owned.held.is_empty();
            while let Some((number, bytes)) = owned.held.front()
                && owned.stages.feed.has_room_for(*number, bytes.len())
            {
                owned.stages.feed.push(*number, Arc::clone(bytes));
                owned.held.pop_front();
            }
            if waited && owned.held.is_empty() {
                resumed.add_partition(self.common.topic.name(), partition);
            }
            let reached = *owned.stages.reached.borrow();
            let offset = Offset::Offset((reached - base_of(partition as u32)) as i64);
            if reached > owned.committed && done.add_partition_offset(self.common.topic.name(), partition, offset).is_ok() {
                owned.committed = reached;
            }
        }
        if resumed.count() > 0
            && let Err(fault) = self.client.resume(&resumed)
        {
            warn!("Kafka: partitions could not be resumed: {fault}");
        }
        // Only for who looks at the lag: what counts is in redis.
        if done.count() > 0
            && let Err(fault) = self.client.commit(&done, CommitMode::Async)
        {
            debug!("offsets were not committed: {fault}");
        }
    }
}
