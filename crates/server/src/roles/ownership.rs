//! Who works and who stands by: the lease is asked for, and renewed beside the work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::fatal::Fatal;
use crate::redis::{Lease, LeaseKeys, Link, RedisPlace, keys, nonce};
use crate::stats::{Component, Stats};

/// How long a lease lasts without being renewed: a processor that is gone is missed for so long.
const LEASE: Duration = Duration::from_secs(5);
/// It is renewed this often, and asked for this often.
const RENEW: Duration = Duration::from_secs(1);
const ASK: Duration = Duration::from_millis(500);

/// Asks for the lease until it is given; `None` where the process is to stop.
pub(super) fn acquire(place: &RedisPlace, stopping: &AtomicBool, stats: &Stats) -> Option<(Link, Lease)> {
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

/// Renews the lease, on a connection of its own.
pub(super) struct Keeper {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(place: RedisPlace, lease: Lease, fatal: Fatal) -> anyhow::Result<Self> {
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
    pub(super) fn release(self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}
