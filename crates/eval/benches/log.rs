//! Goal 6: durable appends at the log's own interface, beside a plain file that gets the same bytes and an fdatasync.
//!
//! A batch is one frame of 40 bytes an event. Both write to the same disk, in turns that begin with nothing and are long enough
//! for the write-ahead log to reach its full length, be copied into the database and start over two or three times: all of that
//! is in the rates.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anomaly_eval::{Need, Row, grouped, timed};
use anomaly_server::data_dir::DataDir;
use anomaly_server::log::sqlite::{Durability, EventLog, SealedFrame};

const EVENT: usize = 40;
const TURNS: usize = 5;
/// (events a batch, batches a turn, the least share of the plain file's rate)
const CASES: [(usize, usize, f64); 4] = [(1, 10_000, 0.7), (100, 10_000, 0.7), (1_000, 2_000, 0.7), (10_000, 250, 0.33)];

fn main() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("log");
    for (events, batches, least) in CASES {
        let (mut log, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            log.push(appended_to_log(&fresh(&folder), events, batches));
            plain.push(appended_to_file(&fresh(&folder), events, batches));
        }
        print(events, least, &log, &plain);
    }
    drop(fs::remove_dir_all(&folder));
}

/// An empty folder.
fn fresh(folder: &Path) -> PathBuf {
    drop(fs::remove_dir_all(folder));
    fs::create_dir_all(folder).expect("a folder in the target directory");
    folder.to_owned()
}

fn appended_to_log(folder: &Path, events: usize, batches: usize) -> Vec<Duration> {
    let dir = DataDir::open(folder).expect("an empty folder");
    let mut log = EventLog::open(&dir, Durability::Fsync).expect("a new log");
    let append = |bytes: Vec<u8>| {
        let frame = SealedFrame { number: log.next_frame(), rows: events as u32, bytes };
        timed(|| log.append(std::slice::from_ref(&frame), &[]).expect("room on disk"))
    };
    payloads(events, batches).map(append).collect()
}

fn appended_to_file(folder: &Path, events: usize, batches: usize) -> Vec<Duration> {
    let mut file = File::create(folder.join("plain")).expect("an empty folder");
    let append = |bytes: Vec<u8>| {
        timed(|| {
            file.write_all(&bytes).expect("room on disk");
            file.sync_data().expect("a disk that works");
        })
    };
    payloads(events, batches).map(append).collect()
}

/// Bytes that no file system or disk can make smaller.
fn payloads(events: usize, batches: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut rng = anomaly_eval::Rng::new(events as u64);
    (0..batches).map(move |_| (0..events * EVENT / 8).flat_map(|_| rng.bits().to_le_bytes()).collect())
}

fn print(events: usize, least: f64, log: &[Vec<Duration>], plain: &[Vec<Duration>]) {
    let rate = |turns: &[Vec<Duration>]| {
        let mut rates: Vec<f64> =
            turns.iter().map(|turn| (events * turn.len()) as f64 / turn.iter().sum::<Duration>().as_secs_f64()).collect();
        median(&mut rates)
    };
    let p50 = |turns: &[Vec<Duration>]| median(&mut turns.iter().flatten().map(|time| time.as_nanos() as f64 / 1e3).collect::<Vec<_>>());
    let (log_rate, plain_rate, log_p50, plain_p50) = (rate(log), rate(plain), p50(log), p50(plain));
    let batch = format!("{} event{} a batch", grouped(events as u64), if events == 1 { "" } else { "s" });
    Row {
        goal: 6,
        what: format!("durable append, {batch}"),
        measured: format!("{} events/s", grouped(log_rate as u64)),
        beside: format!("plain append and fdatasync: {} events/s", grouped(plain_rate as u64)),
        ratio: log_rate / plain_rate,
        need: Need::AtLeast(least),
    }
    .print();
    Row {
        goal: 6,
        what: format!("until it is durable, {batch}"),
        measured: format!("p50 {log_p50:.0} µs"),
        beside: format!("plain append and fdatasync: p50 {plain_p50:.0} µs"),
        ratio: log_p50 / plain_p50,
        need: if events <= 100 { Need::AtMost(1.5) } else { Need::Nothing },
    }
    .print();
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
