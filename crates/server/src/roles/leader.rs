//! What only one processor does where several share a log on Kafka: it tells people, publishes, moves `raw_events`, and keeps the journal
//! short. Who leads holds the lease; which partitions it owns is another matter.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tracing::warn;

use super::monitor::{OnKafka, Watch};
use super::ownership::{Owned, take_journal};
use super::partition::Common;
use super::tail;
use super::worker::Worker;
use super::{Processor, Tasks, anomaly_topic, blocking, raw_events};
use crate::backlog::Backlog;
use crate::commit::{self, Carried, Committer};
use crate::data_dir::DataDir;
use crate::desk::Desk;
use crate::disk::Disk;
use crate::fatal::Fatal;
use crate::live::Live;
use crate::log::Log;
use crate::log::admission::{Admission, Memory};
use crate::log::frames::Parts;
use crate::log::handle::{self, LogHandle};
use crate::log::kafka::KafkaLog;
use crate::log::stream::RedisLog;
use crate::log::writer::{self, Housekeeping, Writer};
use crate::notify::{self, Alerts};
use crate::points;
use crate::redis::{Fence, Link};
use crate::room::DiskWatch;
use crate::run;
use crate::sharing::Sharing;
use crate::stats::Component;
use crate::store::ledger::Ledger;
use crate::store::snapshot::Snapshots;

/// How often it is looked whether the journal has become long.
const COPY_PAUSE: Duration = Duration::from_secs(10);

/// The stages of who leads.
#[derive(Debug)]
pub(super) struct Leader {
    log: LogHandle,
    tail: Worker,
    writer: JoinHandle<()>,
    committer: JoinHandle<()>,
    points: Option<JoinHandle<()>>,
    raw_events: Worker,
    copies: Worker,
    anomaly_topic: Option<Worker>,
    tasks: Tasks,
}

impl Leader {
    /// Takes over what there is, with the link that gave the lease.
    ///
    /// # Errors
    /// Redis is away or was replaced.
    pub(super) async fn start(common: Common, link: Link, token: String, fatal: Fatal) -> anyhow::Result<Self> {
        let Common { processor: Processor { config, place, stats, .. }, topic, sender, ends, .. } = common;
        let (journal, snapshots, copying) = {
            let (config, place, token) = (Arc::clone(&config), place.clone(), token.clone());
            blocking(move || -> anyhow::Result<_> {
                let at = place.connect()?;
                anyhow::ensure!(link.at() == at.at(), "there are two primaries, {} and {}", link.at(), at.at());
                let (journal, snapshots) = take_journal(&config, &place, link, &token, Arc::default())?;
                Ok((journal, snapshots, at))
            })
            .await??
        };
        let store = journal.reader();
        let (points, points_thread) = points::start_for_alerts(&config);
        let disk = Arc::new(DiskWatch::new(Disk::open(&DataDir::memory())?, points.clone(), Arc::clone(&stats)));
        let (memory, backlog) = (Memory::new(config.memory_max_bytes), Arc::new(Backlog::new(config.queue_capacity, Arc::clone(&stats))));
        let (news, decided) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (applied, applied_reader) = watch::channel(journal.applied());
        let (log, requests) = handle::channel();
        let fence = Fence::of_lease(token.clone());
        let copies = copy_in_time(copying, fence.clone(), snapshots)?;
        let anomaly_topic = anomaly_topic::start(&config, place.clone(), fence.clone(), store.clone(), Arc::clone(&stats))?;
        let committer = Committer {
            live: Live::unheard(),
            reached: watch::channel(journal.position().frame).0,
            judged_elsewhere: true,
            store: Ledger::Shared(Box::new(journal.telling(applied))),
            points: points.clone(),
            sharing: Sharing::none(),
            backlog: Arc::clone(&backlog),
            stats: Arc::clone(&stats),
            disk: Arc::clone(&disk),
            log: log.hints(),
            counted: 0,
            carried: Carried::default(),
            news: Arc::clone(&news),
            decided: Arc::clone(&decided),
            fatal: fatal.clone(),
        };
        let (commits, committer) = commit::start(committer)?;
        let partitions = topic.partitions();
        let beside = RedisLog::of_owner(place.clone(), fence);
        let writer = Writer {
            log: Log::Kafka(Box::new(KafkaLog::new(sender, Parts::Partitions(partitions), beside, Arc::clone(&ends)))),
            admission: Admission::shared(config.max_series, Arc::clone(&memory)),
            feed: None,
            backlog: Arc::clone(&backlog),
            disk,
            stats: Arc::clone(&stats),
            rejected: stats.rejected_here(),
            fatal: fatal.clone(),
            housekeeping: Housekeeping::default(),
        };
        let writer = writer::start(writer, requests)?;
        let watch = Watch {
            applied: Some(applied_reader),
            kafka: Some(OnKafka { partitions, ends }),
            ..Watch::new(&place, &backlog, memory, &stats, log.hints())
        };
        let tail = tail::without_engine(place.clone(), watch, Some(commits.clone()), points.clone())?;
        stats.component("store", Component::Ok);
        let mut tasks = Tasks(vec![tokio::spawn(run::retain(commits.clone(), log.hints(), config.anomaly_retention_days))]);
        let raw_events = raw_events::start(&place, token, Arc::clone(&config), log.clone(), backlog, Arc::clone(&stats), fatal.clone())?;
        let alerts = Alerts { store, desk: Desk::new(commits), points, news, decided, fatal, stats };
        tasks.0.extend(notify::start(&config, alerts).await?);
        Ok(Self { log, tail, writer, committer, points: points_thread, raw_events, copies, anomaly_topic, tasks })
    }
}

impl Owned for Leader {
    const ROLE: &'static str = "leading: this processor tells people, and moves raw_events";

    async fn stop(self, _is_ours: bool) {
        let Self { log, tail, writer, committer, points, raw_events, copies, anomaly_topic, tasks } = self;
        tasks.end().await;
        let finish = move || {
            raw_events.stop();
            copies.stop();
            // Told, and not waited for: Kafka may be away, and the next owner goes on.
            drop(anomaly_topic);
            drop(log);
            let _ = writer.join();
            tail.stop();
            let _ = committer.join();
            let _ = points.map(JoinHandle::join);
        };
        let _ = tokio::task::spawn_blocking(finish).await;
    }
}

/// Copies the store to Redis when the journal has become long.
fn copy_in_time(mut link: Link, fence: Fence, mut snapshots: Snapshots) -> std::io::Result<Worker> {
    Worker::start("copies", move |stopping| {
        let mut looked = Instant::now();
        while !stopping.is_told() {
            std::thread::sleep(Duration::from_millis(100));
            if looked.elapsed() < COPY_PAUSE {
                continue;
            }
            looked = Instant::now();
            if let Err(fault) = snapshots.write_if_due(&mut link, &fence, false) {
                warn!("the store could not be copied to redis; the journal is kept, and it is tried again: {fault}");
            }
        }
    })
}
