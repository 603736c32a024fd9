//! Whether the disk has room for more, asked at most once a second, and the reserve freed where it has not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::disk::{Disk, Room};
use crate::points::PointsHandle;
use crate::stats::{Component, Stats};

const PAUSE: Duration = Duration::from_secs(1);

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
    /// What points took when they were last told to shrink: who has shrunk no further since has nothing more to give.
    points_bytes: u64,
}

impl DiskWatch {
    /// Watches a disk, and tells `stats` when it has no room; `points` go before anything is refused.
    pub fn new(disk: Disk, points: PointsHandle, stats: Arc<Stats>) -> Self {
        stats.component("disk", Component::Ok);
        Self { state: Mutex::new(State { disk, asked: None, room: Room::Enough, points_bytes: u64::MAX }), points, stats }
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
    fn look(&mut self, reusable: u64, points: &PointsHandle) -> std::io::Result<Room> {
        let excess = self.disk.excess(reusable)?;
        if excess == 0 {
            self.points_bytes = u64::MAX;
            return self.disk.room(reusable);
        }
        let bytes = points.bytes();
        if self.disk.held() && (1..self.points_bytes).contains(&bytes) {
            self.points_bytes = bytes;
            points.shrink_to(bytes.saturating_sub(excess));
            return Ok(Room::Enough);
        }
        self.disk.room(reusable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::DataDir;
    use crate::points;

    #[test]
    fn points_that_have_nothing_more_to_give_do_not_hide_that_there_is_no_room() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap().at_most(Some(1));
        let (points, _) = points::start(&dir, 1 << 30);
        let watch = DiskWatch::new(Disk::open(&dir).unwrap(), points.clone(), Arc::new(Stats::new(9)));
        // An empty database takes some pages, which cannot be given back.
        let mut state = watch.lock();
        for _ in 0..10 {
            state.ask(0, &points, &watch.stats);
        }
        assert!(matches!(&state.room, Room::Low(why) if why.ends_with("DISK_MAX_BYTES is 1")), "{:?}", state.room);
    }
}
