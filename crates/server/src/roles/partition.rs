//! What the owner of one partition of the log runs: its engine, and what writes down what that finds.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anomaly_engine::Engine;
use anomaly_engine::frame::{Position, base_of};
use rdkafka::consumer::BaseConsumer;
use tokio::sync::{Notify, watch};
use tracing::{error, info};

use super::Tasks;
use super::formats::Formats;
use crate::backlog::Backlog;
use crate::checkpoint::{self, Checkpoints, NewerFormat};
use crate::commit::{self, Carried, Committer};
use crate::config::Config;
use crate::config::redis::Results;
use crate::data_dir::DataDir;
use crate::disk::Disk;
use crate::engine_thread::{self, EngineFeed, EngineHandle, EngineStage};
use crate::fatal::Fatal;
use crate::kafka::LogTopic;
use crate::live::Live;
use crate::log::admission::{Admission, Memory};
use crate::log::frames::Parts;
use crate::log::handle::{self, LogHandle};
use crate::log::kafka::{Ends, KafkaLog, Sender};
use crate::log::stream::RedisLog;
use crate::log::writer::{self, Housekeeping, Writer};
use crate::log::{FrameReader, Log};
use crate::points::PointsHandle;
use crate::redis::chunks::Kind;
use crate::redis::{Link, RedisPlace, keys, nonce};
use crate::room::DiskWatch;
use crate::run;
use crate::share::Share;
use crate::sharing::{Sharing, ShownBy};
use crate::stats::{Component, Stats};
use crate::store::Extent;
use crate::store::ledger::Ledger;
use crate::store::partition::PartitionJournal;
use crate::tick;

/// How often it is looked whether a checkpoint has become old.
const CHECKPOINT_LOOK: Duration = Duration::from_secs(300);

/// Of each engine: there are as many engines as partitions.
const SHARDS: usize = 1;

/// What all partitions of a process share.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) config: Arc<Config>,
    pub(super) place: RedisPlace,
    pub(super) topic: LogTopic,
    pub(super) sender: Sender,
    pub(super) ends: Arc<Ends>,
    pub(super) stats: Arc<Stats>,
    pub(super) formats: Formats,
    pub(super) fatal: Fatal,
}

/// What was taken over.
pub(super) struct TakenOver {
    journal: PartitionJournal,
    checkpoint: Link,
    engine: Engine,
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
        let Common { config, place, topic, .. } = common;
        let mut checkpoint = place.of(keys::partition_tag(share.partition)).connect()?;
        // Before it is taken from whoever may be writing one that can be read.
        let kind = Kind::CheckpointOf(share.partition);
        checkpoint::readable(&mut checkpoint, &kind)?;
        let journal = PartitionJournal::take_over(place.connect()?, &mut checkpoint, share, &nonce())?;
        let mut engine = match checkpoint::newest(&mut checkpoint, &kind, SHARDS)? {
            Some(engine) => engine,
            None => {
                let mut engine = Engine::new(config.engine.clone(), SHARDS);
                engine.skip(base_of(share.partition));
                engine
            }
        };
        engine.keep_points(true);
        let observer: BaseConsumer = topic.connection().create()?;
        let (first, next) = topic.watermarks(&observer, share.partition)?;
        let (base, known) = (base_of(share.partition), journal.position().frame.max(engine.applied()).max(engine.recovering()));
        let last = base + next;
        anyhow::ensure!(
            last >= known,
            "partition {} of {} ends at offset {next}, but what lies before offset {} was judged: the topic was made anew or has lost its end; \
             begin anew with an empty redis, or another KAFKA_LOG_TOPIC",
            share.partition,
            topic.name(),
            known - base
        );
        if base + first > engine.applied() {
            let (from, judged) = (engine.applied() - base, journal.reached() - base);
            let unjudged = first.saturating_sub(judged.max(from));
            common.stats.kafka().lost_by_retention(unjudged);
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
            common.stats.component("log", Component::Degraded(lost));
            engine.skip(base + first);
        }
        Ok(Self { journal, checkpoint, engine, last })
    }

    /// The offset from which the log is read.
    pub(super) fn next_offset(&self, partition: u32) -> i64 {
        (self.engine.applied() - base_of(partition)) as i64
    }
}

/// The stages of one partition.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) feed: Arc<EngineFeed>,
    /// The last frame whose outputs are in the journal.
    pub(super) reached: watch::Receiver<u64>,
    /// The account of its state.
    pub(super) memory: Arc<Memory>,
    log: LogHandle,
    writer: JoinHandle<()>,
    engine: JoinHandle<EngineStage>,
    committer: JoinHandle<()>,
    checkpoints: JoinHandle<()>,
    sharing: (Sharing, JoinHandle<()>),
    tasks: Tasks,
}

impl Partition {
    /// Starts the stages on what was taken over.
    ///
    /// # Errors
    /// The system gives no thread; settings that librdkafka refuses.
    pub(super) fn start(common: &Common, share: Share, taken: TakenOver) -> anyhow::Result<Self> {
        let Common { config, place, sender, ends, stats, formats, fatal, .. } = common.clone();
        let TakenOver { journal, checkpoint, engine, last } = taken;
        let (fence, epoch, stored) = (journal.fence().clone(), journal.epoch(), journal.position().frame);
        info!(
            partition = share.partition,
            epoch,
            series = engine.series_len(),
            "partition taken over; offsets {} to {} are replayed",
            engine.applied() - base_of(share.partition),
            last - base_of(share.partition)
        );
        let memory = Memory::new(config.memory_max_bytes);
        let disk = Arc::new(DiskWatch::new(Disk::open(&DataDir::memory())?, PointsHandle::none(), Arc::clone(&stats)));
        // What waits is counted over all partitions, by who asks.
        let backlog = Arc::new(Backlog::new(u64::MAX >> 12, Arc::clone(&stats)));
        let feed = Arc::new(EngineFeed::new(engine.applied()));
        let (reached, reached_reader) = watch::channel(engine.applied());
        let (log, requests) = handle::channel();
        let handle = EngineHandle::new(Arc::clone(&feed), reached_reader.clone(), engine.config().clone());
        let shown_by = ShownBy { fence: fence.clone(), share, ends: Some(Arc::clone(&ends)) };
        let (sharing, sharing_thread) = Sharing::start(place.clone(), shown_by, handle.clone(), config.redis.result_ttl)?;
        let of_checkpoints = journal.checkpoint_fence();
        let committer = Committer {
            store: Ledger::Partition(Box::new(journal)),
            live: Live::new(Extent::default()),
            points: PointsHandle::none(),
            sharing: sharing.clone(),
            backlog: Arc::clone(&backlog),
            stats: Arc::clone(&stats),
            reached,
            judged_elsewhere: false,
            disk: Arc::clone(&disk),
            log: log.hints(),
            counted: last,
            carried: Carried::default(),
            news: Arc::new(Notify::new()),
            decided: Arc::new(Notify::new()),
            fatal: fatal.clone(),
        };
        let (commits, committer) = commit::start(committer)?;
        let kind = Kind::CheckpointOf(share.partition);
        let of_partition = place.of(keys::partition_tag(share.partition));
        let on_redis = checkpoint::OnRedis { link: checkpoint, place: of_partition, fence: of_checkpoints, kind, snapshots: None };
        let (checkpoint, checkpoints) =
            Checkpoints::start(checkpoint::Place::Redis(Box::new(on_redis)), formats.agreed(), commits.clone())?;
        let (open_incidents, open_incidents_reader) = watch::channel(engine.open_incidents());
        let stage = EngineStage {
            engine,
            reader: FrameReader::Feed(Arc::clone(&feed)),
            feed: Arc::clone(&feed),
            commits,
            stored,
            memory: Arc::clone(&memory),
            stats: Arc::clone(&stats),
            open_incidents,
            checkpoint,
            tell_open: Some((last, share)),
            wants_results: config.redis.results == Results::All,
            fatal: fatal.clone(),
        };
        let engine = engine_thread::start(stage)?;
        let beside = RedisLog::of_owner(place, fence);
        let parts = Parts::Owner { partition: share.partition, epoch };
        let writer = Writer {
            log: Log::Kafka(Box::new(KafkaLog::new(sender, parts, beside, ends))),
            admission: Admission::shared(config.max_series, Arc::clone(&memory)),
            feed: None,
            backlog,
            disk,
            rejected: stats.rejected_here(),
            stats,
            fatal,
            housekeeping: Housekeeping::default(),
        };
        let writer = writer::start(writer, requests)?;
        let tasks = Tasks(vec![
            tokio::spawn(tick::tick(open_incidents_reader, log.hints())),
            tokio::spawn(checkpoint_in_time(handle.clone())),
            tokio::spawn(formats.wake(handle.clone())),
            tokio::spawn(caught_up(handle, sharing.clone(), log.clone(), config, last, last == base_of(share.partition))),
        ]);
        Ok(Self {
            feed,
            reached: reached_reader,
            memory,
            log,
            writer,
            engine,
            committer,
            checkpoints,
            sharing: (sharing, sharing_thread),
            tasks,
        })
    }

    /// Ends the stages. What was read is judged and written, and a checkpoint too, where that is still ours to do.
    pub(super) async fn stop(self, is_ours: bool) {
        let Self { feed, reached: _, memory: _, log, writer, engine, committer, checkpoints, sharing: (shown, sharing), tasks } = self;
        tasks.end().await;
        let finish = move || {
            drop(log);
            let _ = writer.join();
            feed.close();
            shown.end(is_ours);
            if let Ok(mut stage) = engine.join()
                && is_ours
            {
                stage.checkpoint.write_now(&stage.engine);
            }
            let _ = checkpoints.join();
            let _ = committer.join();
            let _ = sharing.join();
        };
        let _ = tokio::task::spawn_blocking(finish).await;
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

/// Once all is judged that was there: says which configuration is in force, and shows all series, since the owner before may have judged
/// what it told nobody of.
async fn caught_up(engine: EngineHandle, sharing: Sharing, log: LogHandle, config: Arc<Config>, last: u64, is_new: bool) {
    engine.reached(Position { frame: last, row: u32::MAX }).await;
    let asked = engine.ask(|stage| (stage.engine.config().clone(), run::known_series(&stage.engine))).await;
    let Some((recorded, known)) = asked else { return };
    sharing.changed(known.into_iter());
    if (recorded != config.engine || is_new)
        && let Err(fault) = log.configure(config.engine.to_text()).await
    {
        tracing::warn!("the configuration could not be recorded, the next owner does it: {fault}");
    }
}
