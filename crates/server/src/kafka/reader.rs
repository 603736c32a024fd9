//! Owns the consumer: hands messages to the partitions' lanes, lets them be appended, commits what is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use rdkafka::Message as _;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use super::client::{self, Client, Context, Event};
use super::cut::source;
use super::lane::{Lane, MOST_BYTES};
use super::lost::LOST;
use super::messages::Message;
use super::take::Taker;
use super::{Sink, is_told};

/// Messages that are taken from the consumer before anything else is looked at.
pub(super) const AT_ONCE: usize = 1000;
/// What waits in all lanes together, so that many partitions share what few may have each.
const MOST_BYTES_OF_ALL: usize = 64 << 20;
/// How often what is not urgent is done: commits, pauses, questions to the broker.
const TICK: Duration = Duration::from_millis(100);
/// How long a lane may be full before Kafka is told to send no more of it; until then all wait, which costs nothing.
const FULL_AT_MOST: Duration = Duration::from_millis(200);
/// How soon a commit that failed is tried again.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);
/// How often the broker is asked whether it is there, where it should be and where it was not, and how long it may take.
const ASKED: Duration = Duration::from_secs(10);
const ASKED_IN_TROUBLE: Duration = Duration::from_secs(1);
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);
/// How long those who get our partitions are kept waiting for what is under way.
const REVOKED_WITHIN: Duration = Duration::from_secs(20);
/// How long a stop waits: for what is being appended, for the commit, for the group.
const STOP_WITHIN: [Duration; 3] = [Duration::from_secs(3), Duration::from_millis(1500), Duration::from_millis(1500)];

/// What a lane's messages have come to.
struct Finished {
    partition: i32,
    generation: u64,
    done: Option<i64>,
}

/// A reading of the topic, from the group's join to its leave.
struct Reader<S> {
    consumer: Arc<StreamConsumer<Context>>,
    taker: Arc<Taker<S>>,
    lanes: BTreeMap<i32, Lane>,
    under_way: JoinSet<Finished>,
    /// Partitions that have to be given up, and by when.
    revoked: Option<(TopicPartitionList, Instant)>,
    generation: u64,
    /// Whether the consumer had nothing more when it was last looked at.
    is_drained: bool,
    commit_from: Instant,
    asking: Option<tokio::task::JoinHandle<Result<bool, String>>>,
    asked: Option<Instant>,
    /// Why a broker could not be reached, in librdkafka's words.
    hint: Option<String>,
}

/// Reads until it is told to stop.
///
/// # Errors
/// The consumer is broken and has to be made anew.
pub(super) async fn read<S: Sink>(client: Client, taker: Arc<Taker<S>>, stop: &mut watch::Receiver<bool>) -> Result<(), String> {
    let Client { consumer, mut events } = client;
    let mut reader = Reader {
        consumer: Arc::clone(&consumer),
        taker,
        lanes: BTreeMap::new(),
        under_way: JoinSet::new(),
        revoked: None,
        generation: 0,
        is_drained: true,
        commit_from: Instant::now(),
        asking: None,
        asked: None,
        hint: None,
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stream = consumer.stream();
    let ended = 'reading: loop {
        let has_room = reader.has_room();
        tokio::select! {
            biased;
            () = is_told(stop) => break Ok(()),
            Some(event) = events.recv() => {
                if let Err(why) = reader.handle(event).await {
                    break Err(why);
                }
            }
            Some(finished) = reader.under_way.join_next(), if !reader.under_way.is_empty() => {
                if let Err(why) = reader.finished(finished).await {
                    break Err(why);
                }
            }
            _ = tick.tick() => reader.tick().await,
            Some(message) = stream.next(), if has_room => {
                let mut next = Some(message);
                let mut n = 0;
                while let Some(message) = next.take() {
                    if let Err(why) = reader.push(message) {
                        break 'reading Err(why);
                    }
                    n += 1;
                    if n < AT_ONCE && reader.has_room() {
                        next = stream.next().now_or_never().flatten();
                        reader.is_drained = next.is_none();
                    } else {
                        reader.is_drained = false;
                    }
                }
            }
            // Nothing of the above: the consumer has nothing more.
            () = std::future::ready(()), if has_room && !reader.is_drained => reader.is_drained = true,
        }
        reader.dispatch();
    };
    drop(stream);
    drop(consumer);
    reader.end(ended).await
}

impl<S: Sink> Reader<S> {
    fn push(&mut self, message: Result<BorrowedMessage<'_>, KafkaError>) -> Result<(), String> {
        let message = match message {
            Ok(message) => message,
            Err(fault @ KafkaError::MessageConsumptionFatal(_)) => return Err(fault.to_string()),
            Err(fault) => {
                // What it is was told as an event.
                debug!("{fault}");
                return Ok(());
            }
        };
        if let Some(lane) = self.lanes.get_mut(&message.partition()) {
            let plain = Message { offset: message.offset(), key: message.key(), value: message.payload() };
            lane.push(&source(&self.taker.topic, message.partition()), plain);
        }
        Ok(())
    }

    /// Bytes that may wait in a lane.
    fn share(&self) -> usize {
        (MOST_BYTES_OF_ALL / self.lanes.len().max(1)).clamp(MOST_BYTES / 64, MOST_BYTES)
    }

    /// Whether no lane is full, but for those that Kafka sends no more for.
    fn has_room(&self) -> bool {
        let share = self.share();
        self.lanes.values().all(|lane| lane.is_paused || !lane.is_full(share))
    }

    /// Lets what waits be appended, once it is enough or nothing more comes.
    fn dispatch(&mut self) {
        let share = self.share();
        let mut resumed = TopicPartitionList::new();
        for (&partition, lane) in &mut self.lanes {
            if !self.is_drained && !lane.is_full(share) && !lane.is_paused {
                continue;
            }
            let Some(messages) = lane.next() else { continue };
            if std::mem::take(&mut lane.is_paused) {
                resumed.add_partition(&self.taker.topic, partition);
            }
            let (taker, left, generation) = (Arc::clone(&self.taker), lane.stop.subscribe(), lane.generation);
            self.under_way.spawn(async move {
                let done = taker.take(partition, messages, left).await;
                Finished { partition, generation, done }
            });
        }
        self.resume(&resumed);
    }

    fn resume(&self, partitions: &TopicPartitionList) {
        if partitions.count() > 0
            && let Err(fault) = self.consumer.resume(partitions)
        {
            warn!("Kafka: partitions could not be resumed: {fault}");
        }
    }

    async fn finished(&mut self, finished: Result<Finished, JoinError>) -> Result<(), String> {
        let Finished { partition, generation, done } = finished.map_err(|fault| format!("events of Kafka could not be taken: {fault}"))?;
        if let Some(lane) = self.lanes.get_mut(&partition).filter(|lane| lane.generation == generation) {
            lane.finished(done);
        }
        self.give_up_revoked().await;
        Ok(())
    }

    async fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Assigned(partitions) => {
                for partition in partitions.elements() {
                    self.generation += 1;
                    self.lanes.insert(partition.partition(), Lane::new(self.generation));
                }
                debug!("assigned {:?}", self.lanes.keys());
                if let Err(fault) = self.consumer.incremental_assign(&partitions) {
                    warn!("Kafka: partitions could not be assigned: {fault}");
                }
            }
            Event::Revoked(partitions) => {
                for partition in partitions.elements() {
                    if let Some(lane) = self.lanes.get_mut(&partition.partition()) {
                        lane.leave();
                    }
                }
                let within = if self.consumer.assignment_lost() { Duration::ZERO } else { REVOKED_WITHIN };
                self.revoked = Some((partitions, Instant::now() + within));
                self.give_up_revoked().await;
            }
            Event::Hint(reason) => self.hint = Some(reason),
            Event::Down => {
                self.taker.health.unreachable(self.hint.as_deref().unwrap_or("no broker answers"));
            }
            Event::Lost => return Err(LOST.to_owned()),
            Event::CommitFailed(why) => self.commit_again(&why),
            Event::Ends { ends, .. } => self.tell_lag(&ends),
        }
        Ok(())
    }

    /// Gives up the partitions that were revoked, once nothing of them is under way.
    async fn give_up_revoked(&mut self) {
        let Some((partitions, by)) = self.revoked.take() else { return };
        let is_late = Instant::now() >= by;
        let of = partitions.elements().iter().map(TopicPartitionListElem::partition).collect::<Vec<_>>();
        let is_busy = of.iter().any(|partition| self.lanes.get(partition).is_some_and(|lane| lane.is_busy));
        if is_busy && !is_late {
            self.revoked = Some((partitions, by));
            return;
        }
        // What was lost is another's already, which has its own offsets.
        if !self.consumer.assignment_lost() {
            if is_busy {
                warn!("Kafka: partitions were given up although some of their events are still being appended");
            }
            let offsets = self.offsets(&of);
            if let Err(why) = client::commit(&self.consumer, offsets, STOP_WITHIN[0]).await {
                warn!("Kafka: offsets of partitions that another gets were not committed; it is sent some events again: {why}");
            }
        }
        let mut paused = TopicPartitionList::new();
        for partition in of {
            if self.lanes.remove(&partition).is_some_and(|lane| lane.is_paused) {
                paused.add_partition(&self.taker.topic, partition);
            }
            self.taker.health.goes_on(partition);
        }
        // Should they come back, they begin as any other.
        self.resume(&paused);
        if let Err(fault) = self.consumer.incremental_unassign(&partitions) {
            warn!("Kafka: partitions could not be given up: {fault}");
        }
    }

    /// What the group is to be told of these partitions; it counts as told.
    fn offsets(&mut self, of: &[i32]) -> TopicPartitionList {
        let mut offsets = TopicPartitionList::new();
        for partition in of {
            let Some(lane) = self.lanes.get_mut(partition) else { continue };
            if let Some(done) = lane.to_commit()
                && offsets.add_partition_offset(&self.taker.topic, *partition, Offset::Offset(done)).is_ok()
            {
                lane.committed = Some(done);
            }
        }
        offsets
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        if now >= self.commit_from {
            let of = self.lanes.iter().filter(|(_, lane)| !lane.is_leaving).map(|(partition, _)| *partition).collect::<Vec<_>>();
            let offsets = self.offsets(&of);
            if offsets.count() > 0
                && let Err(fault) = self.consumer.commit(&offsets, CommitMode::Async)
            {
                self.commit_again(&fault.to_string());
            }
        }
        if self.revoked.as_ref().is_some_and(|(_, by)| now >= *by) {
            self.give_up_revoked().await;
        }
        self.pause(now);
        self.ask(now).await;
    }

    fn commit_again(&mut self, why: &str) {
        debug!("offsets were not committed, it is tried again: {why}");
        self.commit_from = Instant::now() + COMMIT_AGAIN;
        self.lanes.values_mut().for_each(|lane| lane.committed = None);
    }

    /// Tells Kafka to send no more of what has been full for a while.
    fn pause(&mut self, now: Instant) {
        let share = self.share();
        let mut paused = TopicPartitionList::new();
        for (&partition, lane) in &mut self.lanes {
            if lane.is_paused || lane.is_leaving || !lane.is_full(share) {
                continue;
            }
            if now - *lane.full_since.get_or_insert(now) >= FULL_AT_MOST {
                lane.is_paused = true;
                paused.add_partition(&self.taker.topic, partition);
            }
        }
        if paused.count() > 0
            && let Err(fault) = self.consumer.pause(&paused)
        {
            warn!("Kafka: partitions could not be paused: {fault}");
        }
    }

    /// Asks the broker from time to time whether it is there and has the topic, and hears what it has answered.
    async fn ask(&mut self, now: Instant) {
        if let Some(asking) = self.asking.take_if(|asking| asking.is_finished()) {
            match asking.await {
                Ok(Ok(topic_exists)) => {
                    self.hint = None;
                    self.taker.health.answered(topic_exists);
                }
                Ok(Err(why)) => self.taker.health.unreachable(self.hint.as_ref().unwrap_or(&why)),
                Err(_) => {}
            }
        }
        let pause = if self.taker.health.is_well() { ASKED } else { ASKED_IN_TROUBLE };
        if self.asking.is_none() && self.asked.is_none_or(|asked| now - asked >= pause) {
            self.asked = Some(now);
            let (consumer, topic) = (Arc::clone(&self.consumer), self.taker.topic.clone());
            self.asking = Some(tokio::spawn(async move { client::ask(&consumer, &topic, ANSWERED_WITHIN).await }));
        }
    }

    fn tell_lag(&self, ends: &BTreeMap<i32, (i64, i64)>) {
        let lag = self.lanes.iter().filter_map(|(partition, lane)| {
            let (end, committed) = ends.get(partition)?;
            let done = lane.done.unwrap_or(*committed).max(0);
            Some((*partition, u64::try_from(*end).ok()?.saturating_sub(done as u64)))
        });
        self.taker.stats.kafka().set_lag(lag.collect());
    }

    /// Ends what is under way, commits and leaves the group.
    async fn end(mut self, ended: Result<(), String>) -> Result<(), String> {
        self.lanes.values_mut().for_each(Lane::leave);
        let waited = tokio::time::timeout(STOP_WITHIN[0], async {
            while let Some(finished) = self.under_way.join_next().await {
                if let Ok(Finished { partition, generation, done }) = finished
                    && let Some(lane) = self.lanes.get_mut(&partition).filter(|lane| lane.generation == generation)
                {
                    lane.finished(done);
                }
            }
        });
        if waited.await.is_err() {
            warn!("Kafka: not everything that was read is appended; it is read again");
        }
        let of = self.lanes.keys().copied().collect::<Vec<_>>();
        let offsets = self.offsets(&of);
        if let Err(why) = client::commit(&self.consumer, offsets, STOP_WITHIN[1]).await {
            warn!("Kafka: the last offsets were not committed; some events are sent again and skipped: {why}");
        }
        if let Some(asking) = self.asking.take() {
            asking.abort();
        }
        let Self { consumer, taker, .. } = self;
        taker.stats.kafka().set_lag(BTreeMap::new());
        client::close(consumer, STOP_WITHIN[2]).await;
        ended
    }
}
