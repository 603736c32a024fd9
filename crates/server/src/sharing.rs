//! What the owner of the engine shows to other processes, best effort: recent points, and what is known of each series.
//!
//! A thread of its own gathers both and writes them to Redis now and then. When it cannot keep up, or Redis is away, points are
//! dropped: charts have a gap then, and nothing else. Memory: at most 262,144 points, 40 MB, or 32,768 for each of many
//! partitions, and a hash for each series that has
//! changed since it was last told. What is said of series is said by the owner alone: a script checks that it still is one.

mod reconcile;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anomaly_engine::{DetectorKind, SeriesHash, SeriesInfo, SeriesKey, Timestamp};
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use crate::engine_thread::{EngineHandle, EngineStage};
use crate::log::kafka::Ends;
use crate::points::{Decoder, Encoder, Point};
use crate::redis::keys::field;
use crate::redis::{Anywhere, Fence, Link, Reconnecting, RedisError, RedisPlace, Script, ServerState, keys};
use crate::results::EventResult;
use crate::share::Share;
use crate::store::journal::NOTE;

use reconcile::{Reconcile, unheld};

/// Batches and points that may wait; then points are dropped.
const QUEUE: usize = 64;
const QUEUE_POINTS: usize = 1 << 18;
const LEAST_QUEUE_POINTS: usize = 1 << 15;
/// Nothing waits longer.
const PAUSE: Duration = Duration::from_millis(50);
/// Series are told of this often where many change.
const SERIES_PAUSE: Duration = Duration::from_secs(1);
/// Points that are written without waiting for more.
const MANY_POINTS: usize = 8192;
/// Series of which is told at a time.
const SERIES_STEP: usize = 2000;
/// Results that are written at a time.
const RESULTS_STEP: usize = 1000;
/// So many may have changed to be told of at once.
const FEW_SERIES: usize = 500;
/// The points that are kept on Redis, in bytes, and as a part of its memory.
const KEPT_BYTES: u64 = 64 << 20;
const KEPT_PART: u64 = 16;
/// It is looked at how many are kept when so many bytes were written.
const LOOK_BYTES: usize = 1 << 20;

/// KEYS: what proves the owner, series, names, who is let in. ARGV: the token, then for each series its hash, what is shown of it, its name.
static SHOW: Script = Script::new(
    "showing series",
    "#!lua
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 3 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[3], 0, ARGV[i + 2])
  redis.call('SADD', KEYS[4], ARGV[i])
end
return 1",
);

/// KEYS: as of `SHOW`. ARGV: the token, then for each series its hash, and its name where that is known.
static FORGET: Script = Script::new(
    "taking series away",
    "#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 2 do
  redis.call('HDEL', KEYS[2], ARGV[i])
  redis.call('ZREM', KEYS[3], ARGV[i + 1])
  redis.call('SREM', KEYS[4], ARGV[i])
end
return 1",
);

/// Takes what is to be shown. Never waits. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sharing {
    shown: Option<(SyncSender<Shown>, Arc<Changed>)>,
}

/// Who shows something: what proves it, for which series, and, where the log is on Kafka, what is known of its end.
#[derive(Clone, Debug)]
pub struct ShownBy {
    pub fence: Fence,
    pub share: Share,
    pub ends: Option<Arc<Ends>>,
}

/// What has become of series since they were told of: `true`, they are known no more. Beside the queue, since none may be missed when
/// that is full, and nobody may wait: the thread that tells asks the engine, which may wait for whoever would wait here.
#[derive(Debug, Default)]
struct Changed {
    series: Mutex<HashMap<SeriesHash, bool>>,
    /// The frame up to which they are marked.
    upto: AtomicU64,
    /// How many points wait, and may wait.
    points: AtomicUsize,
    most_points: usize,
    /// Nothing that waits is worth showing any more.
    ending: AtomicBool,
}

impl Changed {
    fn add(&self, series: impl Iterator<Item = SeriesHash>, gone: bool) {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).extend(series.map(|series| (series, gone)));
    }

    fn take(&self) -> HashMap<SeriesHash, bool> {
        std::mem::take(&mut *self.series.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
enum Shown {
    Points(Vec<(SeriesHash, Point)>),
    Results(Vec<EventResult>),
}

impl Sharing {
    /// Nobody looks.
    pub fn none() -> Self {
        Self::default()
    }

    /// Starts the owner's thread; it ends with the last handle. It asks `engine` for what is known of a series.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(place: RedisPlace, owner: ShownBy, engine: EngineHandle, result_ttl: Duration) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(QUEUE);
        let most_points = (QUEUE_POINTS / owner.share.of as usize).max(LEAST_QUEUE_POINTS);
        let changed = Arc::new(Changed { most_points, ..Changed::default() });
        let shower = Shower {
            marked: Arc::clone(&changed),
            results: Anywhere::new(place.clone()),
            connection: Reconnecting::new(place),
            engine,
            result_ttl,
            encoder: Encoder::new(),
            points: HashMap::new(),
            n_points: 0,
            changed: HashSet::new(),
            gone: HashSet::new(),
            reconcile: Reconcile::new(owner.clone()),
            owner,
            unlooked: LOOK_BYTES,
            told: Instant::now(),
            shown_at: Instant::now(),
            shown: 0,
        };
        let thread = std::thread::Builder::new().name("sharing".into()).spawn(move || shower.run(&receiver))?;
        Ok((Self { shown: Some((sender, changed)) }, thread))
    }

    /// Whether anybody looks.
    pub fn is_on(&self) -> bool {
        self.shown.is_some()
    }

    /// Points, in the order in which they were judged.
    pub fn points(&self, points: Vec<(SeriesHash, Point)>) {
        let Some((sender, changed)) = self.shown.as_ref().filter(|_| !points.is_empty()) else { return };
        changed.add(points.iter().map(|(series, _)| *series), false);
        let n = points.len();
        let waiting = changed.points.fetch_add(n, Ordering::Relaxed);
        if waiting > 0 && waiting + n > changed.most_points || sender.try_send(Shown::Points(points)).is_err() {
            changed.points.fetch_sub(n, Ordering::Relaxed);
        }
    }

    /// All of the frames up to this one was given.
    pub fn upto(&self, frame: u64) {
        if let Some((_, changed)) = &self.shown {
            changed.upto.store(frame, Ordering::Release);
        }
    }

    /// Series of which the owner before may not have told how they stand.
    pub fn changed(&self, series: impl Iterator<Item = SeriesHash>) {
        if let Some((_, changed)) = &self.shown {
            changed.add(series, false);
        }
    }

    /// Results of events that did not fire.
    pub fn results(&self, results: Vec<EventResult>) {
        if let Some((sender, _)) = self.shown.as_ref().filter(|_| !results.is_empty()) {
            let _ = sender.try_send(Shown::Results(results));
        }
    }

    /// Lets go of this handle; points that wait are shown only where that is still the owner's to do.
    pub fn end(self, is_ours: bool) {
        if let Some((_, changed)) = &self.shown {
            changed.ending.store(!is_ours, Ordering::Relaxed);
        }
    }

    /// Series that are known no more.
    pub fn gone(&self, series: Vec<SeriesHash>) {
        if let Some((_, changed)) = &self.shown {
            changed.add(series.into_iter(), true);
        }
    }
}

/// What is shown of a series.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    name: String,
    count: u64,
    at: Timestamp,
    value: f64,
    detector: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sparse: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

/// What is known of a series, from what is shown of it.
pub fn series_of(text: &str) -> Option<SeriesInfo> {
    let About { name, count, at, value, detector, sparse, truncated } = serde_json::from_str(text).ok()?;
    let detector = DetectorKind::parse(&detector)?;
    Some(SeriesInfo { key: SeriesKey::parse(&name)?, name, count, last: (at, value), detector, sparse, truncated })
}

/// The points of an entry of the stream; what is damaged is left out.
pub(crate) fn points_of(mut entry: &[u8], decoder: &mut Decoder) -> Vec<(SeriesHash, Point)> {
    let mut points = Vec::new();
    while let Some((hash, rest)) = entry.split_first_chunk::<16>()
        && let Some((length, rest)) = rest.split_first_chunk::<4>()
        && let Some((chunk, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)
    {
        let series = SeriesHash::from_le_bytes(*hash);
        points.extend(decoder.decode(chunk).unwrap_or_default().into_iter().map(|point| (series, point)));
        entry = rest;
    }
    points
}

struct Shower {
    connection: Reconnecting,
    results: Anywhere,
    engine: EngineHandle,
    marked: Arc<Changed>,
    result_ttl: Duration,
    encoder: Encoder,
    points: HashMap<SeriesHash, Vec<Point>>,
    n_points: usize,
    changed: HashSet<SeriesHash>,
    gone: HashSet<SeriesHash>,
    reconcile: Reconcile,
    owner: ShownBy,
    /// Bytes of points that were written since it was looked at how many are kept.
    unlooked: usize,
    told: Instant,
    /// When something was shown last, and the frame up to which everything is.
    shown_at: Instant,
    shown: u64,
}

impl Shower {
    fn run(mut self, receiver: &Receiver<Shown>) {
        let mut due = Instant::now() + PAUSE;
        loop {
            let ended = match receiver.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(_) if self.marked.ending.load(Ordering::Relaxed) => false,
                Ok(Shown::Points(points)) => {
                    self.marked.points.fetch_sub(points.len(), Ordering::Relaxed);
                    self.n_points += points.len();
                    for (series, point) in points {
                        self.points.entry(series).or_default().push(point);
                    }
                    false
                }
                Ok(Shown::Results(results)) => {
                    let _ = self.show_results(&results);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            // What comes after a pause is shown at once.
            if ended || self.n_points >= MANY_POINTS || Instant::now() >= due || self.shown_at.elapsed() >= PAUSE {
                self.show(ended);
                due = Instant::now() + PAUSE;
            }
            if ended {
                return;
            }
        }
    }

    /// Writes what was gathered; what Redis does not take is let go.
    fn show(&mut self, all: bool) {
        // Read before what is marked is taken: that then holds all up to it.
        let upto = self.marked.upto.load(Ordering::Acquire);
        self.shown_at = Instant::now();
        for (series, gone) in self.marked.take() {
            if gone {
                self.changed.remove(&series);
                self.n_points -= self.points.remove(&series).map_or(0, |points| points.len());
                self.gone.insert(series);
            } else {
                // It has come again.
                self.gone.remove(&series);
                self.changed.insert(series);
            }
        }
        if self.n_points > 0 {
            let _ = self.show_points();
            self.points.clear();
            self.n_points = 0;
        }
        // Both are kept until Redis takes them.
        let _ = self.forget_gone();
        if all || self.changed.len() <= FEW_SERIES || self.told.elapsed() >= SERIES_PAUSE {
            self.told = Instant::now();
            let _ = self.show_series();
        }
        if upto > self.shown && self.changed.is_empty() && self.gone.is_empty() {
            let _ = self.show_upto(upto);
        }
        if !all {
            // What comes again from here on is marked, and so shown again behind this.
            self.gone.extend(self.reconcile.step(self.connection.link(), &self.engine));
        }
    }

    fn show_points(&mut self) -> Result<(), RedisError> {
        let mut entry = Vec::new();
        for (series, points) in &self.points {
            let chunk = self.encoder.encode(points);
            entry.extend_from_slice(&series.to_le_bytes());
            entry.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
            entry.extend_from_slice(&chunk);
        }
        let link = self.connection.link()?;
        self.unlooked += entry.len();
        if self.unlooked >= LOOK_BYTES {
            self.unlooked = 0;
            trim_points(link)?;
        }
        link.query::<String>(redis::cmd("XADD").arg(keys::POINTS).arg("*").arg("p").arg(&entry[..])).map(drop)
    }

    fn show_results(&mut self, results: &[EventResult]) -> Result<(), RedisError> {
        for some in results.chunks(RESULTS_STEP) {
            let mut pipe = redis::pipe();
            for EventResult { id, fields } in some {
                let key = format!("event:{id}");
                pipe.cmd("HSET").arg(&key).arg(fields).ignore();
                pipe.cmd("EXPIRE").arg(&key).arg(self.result_ttl.as_secs().max(1)).ignore();
            }
            self.results.pipe(&pipe)?;
        }
        Ok(())
    }

    /// Takes away what the engine does not hold.
    fn forget_gone(&mut self) -> Result<(), RedisError> {
        while !self.gone.is_empty() {
            let some: Vec<SeriesHash> = self.gone.iter().copied().take(SERIES_STEP).collect();
            let Some(unheld) = unheld(&self.engine, some.clone()) else { return Ok(()) };
            let hashes: Vec<[u8; 16]> = unheld.iter().map(|series| series.to_be_bytes()).collect();
            if !hashes.is_empty() {
                let link = self.connection.link()?;
                let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash[..]).collect();
                let shown: Vec<Option<String>> = link.query(redis::cmd("HMGET").arg(keys::SERIES).arg(&hashes))?;
                let about = |text: Option<String>| text.and_then(|text| serde_json::from_str::<About>(&text).ok());
                let names: Vec<String> = shown.into_iter().map(|text| about(text).map(|about| about.name).unwrap_or_default()).collect();
                let mut args = vec![self.owner.fence.token().as_bytes()];
                args.extend(hashes.iter().zip(&names).flat_map(|(hash, name)| [*hash, name.as_bytes()]));
                link.eval::<u8>(&FORGET, &[self.owner.fence.key(), keys::SERIES, keys::NAMES, keys::KNOWN], &args)?;
            }
            for series in &some {
                self.gone.remove(series);
            }
            // They have come again.
            self.changed.extend(some.into_iter().filter(|series| !unheld.contains(series)));
        }
        Ok(())
    }

    fn show_series(&mut self) -> Result<(), RedisError> {
        while !self.changed.is_empty() {
            let some: Vec<SeriesHash> = self.changed.iter().copied().take(SERIES_STEP).collect();
            let asked = some.clone();
            let ask = move |stage: &mut EngineStage| asked.into_iter().filter_map(|series| stage.engine.series(series)).collect::<Vec<_>>();
            let Some(known) = self.engine.ask_and_wait(ask) else { return Ok(()) };
            let texts: Vec<[Vec<u8>; 3]> = known.into_iter().map(shown).collect();
            if !texts.is_empty() {
                let mut args = vec![self.owner.fence.token().as_bytes()];
                args.extend(texts.iter().flatten().map(Vec::as_slice));
                let keys = [self.owner.fence.key(), keys::SERIES, keys::NAMES, keys::KNOWN];
                self.connection.link()?.eval::<u8>(&SHOW, &keys, &args)?;
            }
            for series in &some {
                self.changed.remove(series);
            }
        }
        Ok(())
    }

    /// All is shown up to a frame.
    fn show_upto(&mut self, frame: u64) -> Result<(), RedisError> {
        let (name, upto) = (self.owner.share.field(field::SHOWN), frame.to_string());
        let args: [&[u8]; 3] = [self.owner.fence.token().as_bytes(), name.as_bytes(), upto.as_bytes()];
        self.connection.link()?.eval::<u8>(&NOTE, &[keys::STATE, self.owner.fence.key()], &args)?;
        self.shown = frame;
        Ok(())
    }
}

/// What is shown of a series: its hash, that, and its name.
fn shown(info: SeriesInfo) -> [Vec<u8>; 3] {
    let SeriesInfo { key, name, count, last: (at, value), detector, sparse, truncated } = info;
    let about = About { name: name.clone(), count, at, value, detector: detector.as_str().to_owned(), sparse, truncated };
    [key.hash().to_be_bytes().to_vec(), serde_json::to_vec(&about).unwrap_or_default(), name.into_bytes()]
}

/// Takes the oldest half of the points away where they are more than their share of the server's memory.
fn trim_points(link: &mut Link) -> Result<(), RedisError> {
    let server = ServerState::read(link)?;
    let most = server.maxmemory.filter(|most| *most > 0).map_or(KEPT_BYTES, |most| KEPT_BYTES.min(most / KEPT_PART));
    let mut usage = redis::cmd("MEMORY");
    usage.arg("USAGE").arg(keys::POINTS).arg("SAMPLES").arg(20);
    if link.query::<Option<u64>>(&usage)?.unwrap_or(0) < most {
        return Ok(());
    }
    let entries: u64 = link.query(redis::cmd("XLEN").arg(keys::POINTS))?;
    link.query::<u64>(redis::cmd("XTRIM").arg(keys::POINTS).arg("MAXLEN").arg("~").arg(entries / 2)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::points::Verdict;

    #[test]
    fn what_is_shown_of_a_series_is_read_again() {
        let text = r#"{"name":"cpu{dc=\"eu\"}","count":7,"at":1000000000,"value":1.5,"detector":"zscore","sparse":true}"#;
        let info = series_of(text).unwrap();
        assert_eq!(
            (info.name.as_str(), info.count, info.last, info.sparse, info.truncated),
            ("cpu{dc=\"eu\"}", 7, (Timestamp::from_seconds(1), 1.5), true, false)
        );
        assert_eq!(info.key.metric(), "cpu");
        assert!(series_of("{}").is_none());
    }

    #[test]
    fn points_of_a_damaged_entry_end_where_it_does() {
        let point = Point {
            timestamp: Timestamp::from_seconds(3),
            value: 2.0,
            verdict: Verdict::Normal,
            count: 9,
            mean: 1.0,
            stddev: 0.5,
            expected: 1.0,
            lower: 0.0,
            upper: 3.0,
            z_score: Some(2.0),
            strength: 0.6,
        };
        let chunk = Encoder::new().encode(&[point]);
        let mut entry = Vec::new();
        for series in [1u128, 2] {
            entry.extend_from_slice(&series.to_le_bytes());
            entry.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
            entry.extend_from_slice(&chunk);
        }
        let mut decoder = Decoder::new();
        assert_eq!(points_of(&entry, &mut decoder), [(1, point), (2, point)]);
        assert_eq!(points_of(&entry[..entry.len() - 1], &mut decoder), [(1, point)]);
    }
}
