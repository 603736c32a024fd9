//! Who works and who stands by: the lease is asked for, and renewed beside the work; with it comes the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Told, blocking};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::fatal::Fatal;
use crate::redis::{Anywhere, Lease, LeaseKeys, Link, RedisPlace, keys, nonce};
use crate::stats::{Component, Stats};
use crate::store::journal::{Journal, Owner, Progress, Publisher};
use crate::store::snapshot::{Snapshots, open_view};

/// How long a stop may take.
const DRAIN: Duration = Duration::from_secs(9);
/// Before the lease is asked for again after something went wrong.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a lease lasts without being renewed: a processor that is gone is missed for so long.
const LEASE: Duration = Duration::from_secs(5);
/// It is renewed this often, and asked for this often.
const RENEW: Duration = Duration::from_secs(1);
const ASK: Duration = Duration::from_millis(500);

/// What runs while the lease is held.
pub(super) trait Owned {
    /// What is said when it begins.
    const ROLE: &'static str;

    /// Ends it. Where it is still ours, what was accepted is finished first.
    fn stop(self, is_ours: bool) -> impl Future<Output = ()> + Send;
}

/// Asks for the lease, and runs what `start` gives while it is held, again and again until `stop`; `standing` is told of it.
///
/// # Errors
/// The system gives no thread.
pub(super) async fn own<S: Owned, F: Future<Output = anyhow::Result<S>>>(
    place: &RedisPlace,
    stats: &Arc<Stats>,
    stop: impl Future<Output = ()>,
    standing: impl Fn(bool),
    start: impl Fn(Link, String, Fatal) -> F,
) -> anyhow::Result<()> {
    let stopping = Arc::new(AtomicBool::new(false));
    let mut stop = std::pin::pin!(stop);
    stats.component("processor", Component::Ok);
    let mut told = Told::default();
    loop {
        standing(false);
        let acquiring = {
            let (place, stopping, stats) = (place.clone(), Arc::clone(&stopping), Arc::clone(stats));
            blocking(move || acquire(&place, &stopping, &stats))
        };
        let acquired = tokio::select! {
            acquired = acquiring => acquired?,
            () = &mut stop => {
                stopping.store(true, Ordering::Relaxed);
                return Ok(());
            }
        };
        let Some((link, lease)) = acquired else { return Ok(()) };
        let (fatal, mut failed) = Fatal::new();
        let began = Instant::now();
        let keeper = Keeper::start(place.clone(), lease.clone(), fatal.clone())?;
        let stages = tokio::select! {
            // What made a stage give up says more than that others found it gone.
            stages = start(link, lease.token().to_owned(), fatal) => stages.map_err(|fault| failed.try_recv().map_or(fault, anyhow::Error::msg)),
            reason = failed.recv() => Err(anyhow::anyhow!(reason.unwrap_or_default())),
            () = &mut stop => {
                keeper.release();
                return Ok(());
            }
        };
        let stages = match stages {
            Ok(stages) => stages,
            Err(fault) => {
                keeper.release();
                let why = format!("{fault:#}");
                if told.is_due(&why) {
                    warn!("the work could not be taken up, it is tried again: {why}");
                }
                stats.component("processor", Component::Recovering(why));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        standing(true);
        stats.component("processor", Component::Ok);
        told = Told::default();
        info!(epoch = lease.epoch(), seconds = began.elapsed().as_secs_f64(), "{}", S::ROLE);
        let reason = tokio::select! {
            () = &mut stop => None,
            reason = failed.recv() => Some(reason.unwrap_or_default()),
        };
        standing(false);
        let Some(reason) = reason else {
            info!("stopping: finishing what was accepted");
            end(stages, true).await;
            keeper.release();
            return Ok(());
        };
        warn!("no longer active: {reason}");
        // First: another may begin at once, and whatever we still write is refused.
        keeper.release();
        end(stages, false).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn end(stages: impl Owned, are_ours: bool) {
    if tokio::time::timeout(DRAIN, stages.stop(are_ours)).await.is_err() {
        warn!("not everything was finished within {} s; who takes over goes on from the log", DRAIN.as_secs());
    }
}

/// Asks for the lease until it is given; `None` where the process is to stop.
fn acquire(place: &RedisPlace, stopping: &AtomicBool, stats: &Stats) -> Option<(Link, Lease)> {
    let (keys, nonce) = (LeaseKeys::under(keys::PREFIX), nonce());
    let mut link: Option<Link> = None;
    let (mut told_away, mut told_standing_by) = (false, false);
    while !stopping.load(Ordering::Relaxed) {
        let mut current = match link.take() {
            Some(link) => link,
            None => match place.connect() {
                Ok(link) => link,
                Err(fault) => {
                    if !std::mem::replace(&mut told_away, true) {
                        warn!("waiting for redis: {fault}");
                    }
                    stats.component("redis", Component::Failed(fault.to_string()));
                    std::thread::sleep(ASK);
                    continue;
                }
            },
        };
        match Lease::try_acquire(&mut current, &keys, LEASE, &nonce) {
            Ok(Some(lease)) => {
                stats.component("redis", Component::Ok);
                return Some((current, lease));
            }
            Ok(None) => {
                stats.component("redis", Component::Ok);
                stats.component("processor", Component::Ok);
                if !std::mem::replace(&mut told_standing_by, true) {
                    info!("standing by: another processor is active");
                }
                link = Some(current);
            }
            Err(fault) => {
                if !std::mem::replace(&mut told_away, true) {
                    warn!("the lease cannot be taken, it is tried again: {fault}");
                }
                stats.component("redis", Component::Degraded(fault.to_string()));
            }
        }
        std::thread::sleep(ASK);
    }
    None
}

/// Takes the journal over with the link that gave the lease, and publishes what the owner before has left. Gives what copies the store,
/// too.
///
/// # Errors
/// Redis is away or was replaced, another has taken it over meanwhile, or the data directory cannot be written.
pub(super) fn take_journal(
    config: &Config,
    place: &RedisPlace,
    mut link: Link,
    token: &str,
    progress: Arc<Progress>,
) -> anyhow::Result<(Journal, Snapshots)> {
    let dir = Arc::new(DataDir::open_first(&config.data_dir, "processor")?);
    let view = open_view(&dir, &mut link)?;
    let publisher = Publisher { channel: config.redis.alerts_channel.clone(), ttl_seconds: config.redis.result_ttl.as_secs().max(1) };
    let results = place.target.is_cluster().then(|| Anywhere::new(place.clone()));
    let owner = Owner { link, token: token.to_owned(), progress, publisher, published: 0, noted: 0, results };
    let snapshots = Snapshots::new(view.reader(), &dir);
    let mut journal = Journal::owner(view, dir, owner);
    journal.take_over()?;
    journal.publish_the_rest()?;
    Ok((journal, snapshots))
}

/// Renews the lease, on a connection of its own.
struct Keeper {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Keeper {
    fn start(place: RedisPlace, lease: Lease, fatal: Fatal) -> anyhow::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = std::thread::Builder::new().name("lease".into()).spawn(move || {
            let mut link = place.connect();
            let mut renewed = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                if renewed.elapsed() >= RENEW {
                    let ours = link.as_mut().map_err(|fault| fault.clone()).and_then(|link| lease.renew(link));
                    match ours {
                        Ok(true) => renewed = Instant::now(),
                        Ok(false) => return fatal.call("the lease has run out, and another processor may be active".into()),
                        // It may be there again before the lease runs out.
                        Err(_) if renewed.elapsed() < LEASE => link = place.connect(),
                        Err(fault) => return fatal.call(format!("the lease cannot be renewed: {fault}")),
                    }
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            if let Ok(link) = &mut link {
                let _ = lease.release(link);
            }
        })?;
        Ok(Self { stopping, thread })
    }

    /// Gives the lease back, so that another need not wait until it has run out.
    fn release(self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}
