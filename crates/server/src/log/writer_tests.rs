//! What the writer makes durable, and what it leaves.

use anomaly_engine::frame::{Frame, RecordRef};
use tokio::sync::oneshot;

use super::super::admission::Memory;
use super::*;
use crate::data_dir::DataDir;
use crate::disk::Disk;
use crate::feed::Work;
use crate::log::handle::{LogHandle, channel};
use crate::log::sqlite::{Durability, EventLog};
use crate::points;

/// Runs a writer in a directory of `max_bytes` until it has done what it was asked for; the records that became durable.
fn written(max_bytes: u64, ask: impl FnOnce(&LogHandle)) -> Vec<String> {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap().at_most(Some(max_bytes));
    let log = EventLog::open(&dir, Durability::Os).unwrap();
    let last = log.next_frame() - 1;
    let stats = Arc::new(Stats::new(9));
    let (points, _) = points::start(&dir, 1 << 30);
    let disk = Arc::new(DiskWatch::new(Disk::open(&dir).unwrap(), points, Arc::clone(&stats)));
    if max_bytes == 1 {
        // Asked twice: the first time, points that there might be are told to go.
        (0..2).for_each(|_| disk.release());
    }
    let feed = Arc::new(EngineFeed::new(last));
    let writer = Writer {
        log: Log::Sqlite(Box::new(log)),
        admission: Admission::new([], last, 9, Memory::new(1 << 30)),
        feed: Some(Arc::clone(&feed)),
        backlog: Arc::new(Backlog::new(9, Arc::clone(&stats))),
        disk,
        stats,
        rejected: 0,
        fatal: Fatal::new().0,
        housekeeping: Housekeeping::default(),
    };
    let (handle, requests) = channel();
    ask(&handle);
    drop(handle);
    start(writer, requests).unwrap().join().unwrap();
    let Work::Frames(frames) = feed.next(last, true) else { return Vec::new() };
    let mut records = Vec::new();
    for (number, bytes) in frames {
        for record in Frame::open(number, &bytes).unwrap().records() {
            let (row, record) = record.unwrap();
            records.push(match record {
                RecordRef::Tick => format!("{row} tick"),
                RecordRef::Configure(text) => format!("{row} {text}"),
                _ => panic!("neither: {record:?}"),
            });
        }
    }
    records
}

#[test]
fn a_tick_is_a_row_of_a_frame_though_nobody_waits_for_it() {
    assert_eq!(written(64 << 20, |log| log.hints().tick()), ["0 tick"]);
    let configure = |log: &LogHandle| {
        log.hints().tick();
        let (reply, _) = oneshot::channel();
        log.sender.try_send(Request::Configure("a".into(), reply)).unwrap();
    };
    assert_eq!(written(64 << 20, configure), ["0 tick", "1 a"]);
    assert_eq!(written(64 << 20, |log| log.hints().prune()), [""; 0]);
}

#[test]
fn without_room_there_are_no_ticks() {
    assert_eq!(written(1, |log| log.hints().tick()), [""; 0]);
}
