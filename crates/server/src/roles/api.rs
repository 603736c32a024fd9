//! `anomaly api`: takes events, answers, and shows what processors find. Any number of it.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::monitor::Watch;
use super::shared_log::SharedLog;
use super::tail;
use super::worker::Worker;
use super::{PAUSE, Told, blocking, connect, place};
use crate::app::App;
use crate::backlog::Backlog;
use crate::commit::{self, Carried, Committer};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::desk::Desk;
use crate::directory::Directory;
use crate::disk::Disk;
use crate::engine_thread::EngineHandle;
use crate::fatal::Fatal;
use crate::freshness::Freshness;
use crate::ids::new_id;
use crate::live::Live;
use crate::log::admission::{Admission, Memory};
use crate::log::handle;
use crate::log::writer::{self, Housekeeping, Writer};
use crate::points;
use crate::redis::RedisPlace;
use crate::room::DiskWatch;
use crate::run::{self, Running};
use crate::sharing::Sharing;
use crate::stats::{Component, Stats};
use crate::store::journal::Journal;
use crate::store::ledger::Ledger;
use crate::store::snapshot::open_view;
use crate::upload::Uploads;

/// What has failed to begin anew is tried again at least this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Beginning anew waits so long for what was there before to be gone.
const LEAVE: Duration = Duration::from_secs(10);

/// Serves until Ctrl-C or SIGTERM. Where what Redis holds was replaced, or goes back not far enough, what is shown here is made anew from it.
///
/// # Errors
/// What keeps it from starting: no `REDIS_URL`, a Redis that cannot be used, a port in use. Once it has served, that is waited for.
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let place = place(&config, "api")?;
    // Listened for all the time: whoever stops it may do so between two beginnings.
    let (stopping, stop) = watch::channel(false);
    let listening = tokio::spawn(async move {
        run::until_signal().await;
        stopping.send_replace(true);
    });
    let stopped = || {
        let mut stop = stop.clone();
        async move { drop(stop.wait_for(|told| *told).await) }
    };
    // The same all the time, with the uploads in it.
    let dir = Arc::new(DataDir::open_first(&config.data_dir, "api")?);
    let start = async |config, fatal| {
        tokio::select! {
            stages = start(config, place.clone(), Arc::clone(&dir), fatal) => stages,
            () = stopped() => anyhow::bail!("stopped before it served"),
        }
    };
    let (mut has_served, mut told, mut pause) = (false, Told::default(), PAUSE);
    let code = loop {
        match run::serve(config.clone(), start, stopped(), |_, _| std::future::pending::<anyhow::Result<()>>()).await {
            Ok(code) if code == ExitCode::SUCCESS || *stop.borrow() => break code,
            Ok(_) => {
                warn!("beginning anew from what redis holds");
                (has_served, told, pause) = (true, Told::default(), PAUSE);
            }
            Err(_) if *stop.borrow() => {
                info!("stopped");
                break ExitCode::SUCCESS;
            }
            Err(fault) if !has_served => return Err(fault),
            // As when a fail-over is just under way. Others that begin anew ask the same server for the same copy.
            Err(fault) => {
                let why = format!("{fault:#}");
                if told.is_due(&why) {
                    warn!("not served, it is tried again: {why}");
                }
                pause = LONGEST_PAUSE.min(2 * pause);
            }
        }
        drop(tokio::time::timeout(pause, stopped()).await);
        // What was here before may still be writing.
        let began = Instant::now();
        while Arc::strong_count(&dir) > 1 && began.elapsed() < LEAVE && !*stop.borrow() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    listening.abort();
    Ok(code)
}

/// The stages of one API, running.
#[derive(Debug)]
pub struct Stages {
    app: App,
    writer: JoinHandle<()>,
    committer: JoinHandle<()>,
    points: JoinHandle<()>,
    tail: Worker,
}

impl Running for Stages {
    fn app(&self) -> &App {
        &self.app
    }

    async fn stop(self) {
        let Self { app, writer, committer, points, tail } = self;
        app.uploads.stop().await;
        drop(app);
        let finish = move || {
            let _ = writer.join();
            tail.stop();
            let _ = committer.join();
            let _ = points.join();
        };
        let _ = tokio::task::spawn_blocking(finish).await;
    }
}

/// Opens what this replica keeps, catches up with the journal, and starts every stage.
///
/// # Errors
/// What keeps it from starting.
async fn start(config: Config, place: RedisPlace, dir: Arc<DataDir>, fatal: Fatal) -> anyhow::Result<Stages> {
    let stats = Arc::new(Stats::new(config.queue_capacity));
    let replica = replica(&dir)?;
    let opened = {
        let (place, dir) = (place.clone(), Arc::clone(&dir));
        blocking(move || -> anyhow::Result<Journal> {
            let attempt = || -> anyhow::Result<Journal> {
                let mut link = connect(&place, &AtomicBool::new(false))?;
                let view = open_view(&dir, &mut link).context("what processors have found cannot be taken over from redis")?;
                let mut journal = Journal::follower(view, Arc::clone(&dir), place.clone());
                journal.follow()?;
                Ok(journal)
            };
            // A copy may be replaced, and the journal trimmed behind it, just while they are read.
            attempt().or_else(|_| attempt()).or_else(|_| attempt())
        })
    };
    let journal = opened.await??;
    let store = journal.reader();
    let SharedLog { log: shared, kafka } = SharedLog::open(&config, &place, replica.clone()).await?;
    let partitions = kafka.as_ref().map_or(1, |kafka| kafka.partitions);
    let (points, points_thread) = points::start(&dir, config.points_max_bytes);
    let disk = Arc::new(DiskWatch::new(Disk::open(&DataDir::memory())?, points.clone(), Arc::clone(&stats)));
    let backlog = Arc::new(Backlog::new(config.queue_capacity, Arc::clone(&stats)));
    let memory = Memory::new(config.memory_max_bytes);
    let live = Live::new(store.extent()?);
    let (applied, applied_reader) = watch::channel(journal.applied());
    let (reached, reached_reader) = watch::channel(journal.position().frame);
    let (news, decided) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (log, requests) = handle::channel();
    // Until it was looked at for the first time.
    stats.component("redis", Component::Recovering("not looked at yet".into()));
    for name in ["log", "store", "points"] {
        stats.component(name, Component::Ok);
    }
    let committer = Committer {
        store: Ledger::Shared(Box::new(journal.telling(applied))),
        live: live.clone(),
        points: points.clone(),
        sharing: Sharing::none(),
        backlog: Arc::clone(&backlog),
        stats: Arc::clone(&stats),
        reached,
        judged_elsewhere: true,
        disk: Arc::clone(&disk),
        log: log.hints(),
        counted: 0,
        carried: Carried::default(),
        news,
        decided,
        fatal: fatal.clone(),
    };
    let (commits, committer) = commit::start(committer)?;
    let writer = Writer {
        log: shared,
        admission: Admission::shared(config.max_series, Arc::clone(&memory)),
        feed: None,
        backlog: Arc::clone(&backlog),
        disk,
        stats: Arc::clone(&stats),
        rejected: 0,
        fatal,
        housekeeping: Housekeeping::default(),
    };
    let writer = writer::start(writer, requests)?;
    let freshness = Freshness::new(place.clone(), partitions, applied_reader.clone());
    let watch = Watch {
        replica: Some(replica),
        applied: Some(applied_reader),
        freshness: Some(freshness.clone()),
        kafka,
        ..Watch::new(&place, &backlog, memory, &stats, log.hints())
    };
    let tail = tail::without_engine(place.clone(), watch, Some(commits.clone()), points.clone())?;
    let engine = EngineHandle::elsewhere(Directory::new(place, partitions), reached_reader, config.engine.clone());
    let desk = Desk::new(commits);
    let config = Arc::new(config);
    let uploads = Uploads::start(Arc::clone(&config), &dir, log.clone(), store.clone(), Arc::clone(&stats))?;
    uploads.resume().await?;
    let app = App { config, log, store, points, desk, engine, live, uploads, stats, freshness: Some(freshness) };
    Ok(Stages { app, writer, committer, points: points_thread, tail })
}

/// The name of this replica, by which it finds its uploads again: made with its data directory.
fn replica(dir: &DataDir) -> anyhow::Result<String> {
    let Some(path) = dir.path() else { return Ok(new_id()) };
    let path = path.join("replica");
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        _ => {
            let name = new_id();
            std::fs::write(&path, &name).with_context(|| format!("{} cannot be written", path.display()))?;
            Ok(name)
        }
    }
}
