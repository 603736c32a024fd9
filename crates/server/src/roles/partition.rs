//! One partition of the log is taken over, and its stages are started.

use std::sync::Arc;
use std::time::Duration;

use anomaly_engine::Engine;
use anomaly_engine::frame::base_of;
use tracing::{error, info, warn};

use super::Processor;
use super::judging::{Judging, ToJudge};
use crate::backlog::Backlog;
use crate::checkpoint::{self, NewerFormat, OnRedis};
use crate::engine_thread::{EngineFeed, EngineHandle};
use crate::fatal::Fatal;
use crate::kafka::LogTopic;
use crate::log::frames::Parts;
use crate::log::kafka::{Ends, KafkaLog, Sender};
use crate::log::stream::RedisLog;
use crate::log::{AppendError, FrameReader, Log};
use crate::points::PointsHandle;
use crate::redis::chunks::Kind;
use crate::redis::{Link, RedisPlace, keys, nonce};
use crate::share::Share;
use crate::sharing::ShownBy;
use crate::stats::Component;
use crate::store::ledger::Ledger;
use crate::store::partition::PartitionJournal;

/// How often it is looked whether a checkpoint has become old.
const CHECKPOINT_LOOK: Duration = Duration::from_secs(300);

/// Of each engine: there are as many engines as partitions.
const SHARDS: usize = 1;

/// What all partitions of a process share.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) processor: Processor,
    pub(super) topic: LogTopic,
    pub(super) sender: Sender,
    pub(super) ends: Arc<Ends>,
    pub(super) fatal: Fatal,
}

/// What was taken over.
pub(super) struct TakenOver {
    journal: PartitionJournal,
    checkpoint: Link,
    engine: Engine,
    /// There was no checkpoint.
    is_new: bool,
    /// The last frame of the log.
    last: u64,
}

/// Why a partition of the log cannot be taken over by this version, if that is so of any.
pub(super) fn newer_format(place: &RedisPlace, partitions: u32) -> Option<String> {
    (0..partitions).find_map(|partition| {
        // What else is wrong with one of them, it is found out when it is taken over.
        let mut link = place.of(keys::partition_tag(partition)).connect().ok()?;
        let fault = checkpoint::readable(&mut link, &Kind::CheckpointOf(partition)).err()?;
        fault.is::<NewerFormat>().then(|| format!("partition {partition}: {fault}"))
    })
}

impl TakenOver {
    /// Takes a partition over: from its checkpoint, and P.
    ///
    /// # Errors
    /// Redis or Kafka is away, or what they have does not go together.
    pub(super) fn take(common: &Common, share: Share) -> anyhow::Result<Self> {
        let Common { processor: Processor { config, place, stats, .. }, topic, .. } = common;
        let mut checkpoint = place.of(keys::partition_tag(share.partition)).connect()?;
        // Before it is taken from whoever may be writing one that can be read.
        let kind = Kind::CheckpointOf(share.partition);
        checkpoint::readable(&mut checkpoint, &kind)?;
        let journal = PartitionJournal::take_over(place.connect()?, &mut checkpoint, share, &nonce())?;
        let restored = checkpoint::newest(&mut checkpoint, &kind, SHARDS)?;
        let is_new = restored.is_none();
        let mut engine = restored.unwrap_or_else(|| {
            let mut engine = Engine::new(config.engine.clone(), SHARDS);
            engine.skip(base_of(share.partition));
            engine
        });
        engine.keep_points(true);
        let (first, next) = topic.observer()?.watermarks(share.partition)?;
        let (base, known) = (base_of(share.partition), journal.position().frame.max(engine.applied()).max(engine.recovering()));
        let last = base + next;
        anyhow::ensure!(
            last >= known,
            "partition {} of {} ends at offset {next}, but what lies before offset {} was judged: the topic was made anew, or Kafka has lost what \
             it had confirmed, and what comes now gets offsets that were judged; stop what appends to it and begin anew, with an empty redis and \
             a new KAFKA_LOG_TOPIC",
            share.partition,
            topic.name(),
            known - base
        );
        if base + first > engine.applied() {
            let (from, judged) = (engine.applied() - base, journal.reached() - base);
            let unjudged = first.saturating_sub(judged.max(from));
            stats.kafka().lost_by_retention(unjudged);
            let what = if unjudged > 0 {
                format!(
                    "{unjudged} frames of them were not judged, their events are lost: raise its retention.ms, or see why processors were away"
                )
            } else {
                "all of them were judged, but what was learned from them is lost: windows begin anew; raise its retention.ms".to_owned()
            };
            let lost = format!(
                "offsets {from} to {} of partition {} of {} are kept no more, and no checkpoint makes up for them; {what}",
                first - 1,
                share.partition,
                topic.name()
            );
            error!("{lost}");
            stats.component("log", Component::Degraded(lost));
            engine.skip(base + first);
        }
        Ok(Self { journal, checkpoint, engine, is_new, last })
    }

    /// The offset from which the log is read.
    pub(super) fn next_offset(&self, partition: u32) -> i64 {
        (self.engine.applied() - base_of(partition)) as i64
    }

    /// Starts the stages on what was taken over.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(self, common: &Common, share: Share) -> anyhow::Result<Judging> {
        let Common { processor, sender, ends, fatal, .. } = common;
        let Self { journal, checkpoint, engine, is_new, last } = self;
        let (fence, epoch) = (journal.fence().clone(), journal.epoch());
        info!(
            partition = share.partition,
            epoch,
            series = engine.series_len(),
            "partition taken over; offsets {} to {} are replayed",
            engine.applied() - base_of(share.partition),
            last - base_of(share.partition)
        );
        let feed = Arc::new(EngineFeed::new(engine.applied()));
        let parts = Parts::Owner { partition: share.partition, epoch };
        let beside = RedisLog::of_owner(processor.place.clone(), fence.clone());
        let mut stages = Judging::start(
            processor,
            ToJudge {
                engine,
                is_new,
                owner: ShownBy { fence, share, ends: Some(Arc::clone(ends)) },
                reader: FrameReader::Feed(Arc::clone(&feed)),
                feed,
                last,
                log: Log::Kafka(Box::new(KafkaLog::new(sender.clone(), parts, beside, Arc::clone(ends)))),
                checkpoint: OnRedis {
                    link: checkpoint,
                    place: processor.place.of(keys::partition_tag(share.partition)),
                    fence: journal.checkpoint_fence(),
                    kind: Kind::CheckpointOf(share.partition),
                    snapshots: None,
                },
                journal: Ledger::Partition(Box::new(journal)),
                points: PointsHandle::none(),
                // What waits is counted over all partitions, by who asks.
                backlog: Arc::new(Backlog::new(u64::MAX >> 12, Arc::clone(&processor.stats))),
            },
            fatal,
        )?;
        let catching_up = stages.catch_up(&processor.config);
        stages.tasks.0.push(tokio::spawn(checkpoint_in_time(stages.engine.clone())));
        stages.tasks.0.push(tokio::spawn(async {
            if let Err(fault) = catching_up.await
                && !matches!(fault, AppendError::Closing)
            {
                warn!("the settings that are in force could not be recorded, the next owner does it: {fault}");
            }
        }));
        Ok(stages)
    }
}

/// Kafka deletes by time, however little comes: so a checkpoint is due by time, too.
async fn checkpoint_in_time(engine: EngineHandle) {
    loop {
        tokio::time::sleep(CHECKPOINT_LOOK).await;
        if engine.ask(|stage| stage.checkpoint.in_time()).await.is_none() {
            return;
        }
    }
}
