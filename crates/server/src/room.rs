//! Whether the disk has room for more, asked at most once a second, and the reserve freed where it has not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::disk::{Disk, Room};
use crate::points::PointsHandle;
use crate::stats::{Component, Stats};

const PAUSE: Duration = Duration::from_secs(1);
/// What points.db takes without points, and what is not worth the work.
const POINTS_LEAST: u64 = 128 << 10;

/// The disk, shared by the stages that write to it.
#[derive(Debug)]
pub struct DiskWatch {
    state: Mutex<State>,
    points: PointsHandle,
    stats: Arc<Stats>,
}

#[derive(Debug)]
struct State {
    disk: Disk,
    asked: Option<Instant>,
    room: Room,
}

impl DiskWatch {
    /// Watches a disk, and tells `stats` when it has no room; `points` go before anything is refused.
    pub fn new(disk: Disk, points: PointsHandle, stats: Arc<Stats>) -> Self {
        stats.component("disk", Component::Ok);
        Self { state: Mutex::new(State { disk, asked: None, room: Room::Enough }), points, stats }
    }

    /// Whether more may be accepted; `reusable` bytes are free within the databases.
    pub fn room(&self, reusable: impl FnOnce() -> u64) -> Room {
        let mut state = self.lock();
        if state.asked.is_none_or(|asked| asked.elapsed() >= PAUSE) {
            state.ask(reusable(), &self.points, &self.stats);
        }
        state.room.clone()
    }

    /// A write has found the disk full: the reserve is freed for commits, checkpoints and deletions, and nothing is accepted
    /// until it could be taken back.
    pub fn release(&self) {
        let mut state = self.lock();
        if !state.disk.held() {
            return;
        }
        match state.disk.release() {
            Ok(()) => warn!("the disk is full: the reserve is freed, and nothing is accepted until there is room again"),
            Err(fault) => warn!("the disk is full, and the reserve cannot be freed: {fault}"),
        }
        state.ask(0, &self.points, &self.stats);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ask(&mut self, reusable: u64, points: &PointsHandle, stats: &Stats) {
        self.asked = Some(Instant::now());
        let was_low = self.room != Room::Enough;
        let room = self.disk.restore().and_then(|_| self.look(reusable, points));
        self.room = room.unwrap_or_else(|fault| Room::Low(format!("the disk cannot be asked for its room: {fault}")));
        match (&self.room, was_low) {
            (Room::Low(why), false) => {
                warn!("nothing is accepted: {why}");
                stats.component("disk", Component::Degraded(why.clone()));
            }
            (Room::Enough, true) => {
                info!("the disk has room again: events are accepted");
                stats.component("disk", Component::Ok);
            }
            _ => {}
        }
    }

    /// Beyond `DISK_MAX_BYTES` the oldest points go first, and only without any it is too little room.
    fn look(&self, reusable: u64, points: &PointsHandle) -> std::io::Result<Room> {
        let excess = self.disk.excess(reusable)?;
        if excess > 0 && points.bytes() > POINTS_LEAST {
            points.shrink_to(points.bytes().saturating_sub(excess));
            return Ok(Room::Enough);
        }
        self.disk.room(reusable)
    }
}
