//! The engine: frames in, outputs out.

use std::collections::BTreeMap;
use std::mem;

use anomaly_detect::DetectorKind;

use crate::config::{EngineConfig, Settings};
use crate::frame::{BatchRef, Frame, Position, RecordRef};
use crate::outputs::{BatchOutcome, Outputs, Totals};
use crate::series_key::{SeriesHash, SeriesKey};
use crate::shard::{Delivery, Shard, ShardOutputs};
use crate::timestamp::{NANOS, Timestamp};
use crate::varint::{DecodeError, undecodable};

/// Rows from which a batch is worth the threads of several shards.
const PARALLEL_ROWS: u32 = 4096;
/// How long the positions of uploads and keys are remembered.
const SOURCE_MEMORY: i64 = 24 * 3600 * NANOS;

/// The pure core: applies frames in the order of their numbers and says what they bring forth.
///
/// The same frames give the same outputs, bit for bit, whatever the number of shards, the batches that rows came in, and
/// the checkpoints that it was restored from. Memory: see `anomaly_detect::Window` for a series' samples, and about 350
/// bytes a series besides.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: EngineConfig,
    pub(crate) shards: Vec<Shard>,
    /// The highest position taken from each source, and when.
    pub(crate) sources: BTreeMap<String, (u64, Timestamp)>,
    /// Bytes of these: each key of a client is one, for a day.
    pub(crate) source_bytes: usize,
    pub(crate) totals: Totals,
    /// The latest time of arrival.
    pub(crate) clock: Timestamp,
    swept: Timestamp,
    /// The latest arrival of a series that was idle and has left memory.
    pub(crate) let_go: Option<Timestamp>,
    /// The last frame applied.
    pub(crate) applied: u64,
    /// The latest owner that has appended to the log.
    pub(crate) epoch: u64,
    /// The frame up to which a checkpoint has counted and restored; 0 outside a recovery.
    pub(crate) recovering: u64,
    keep_points: bool,
}

/// What is known of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesInfo {
    /// Its identity.
    pub key: SeriesKey,
    /// Its name.
    pub name: String,
    /// Events ever accepted.
    pub count: u64,
    /// The newest event in event time.
    pub last: (Timestamp, f64),
    /// The detector that judges it.
    pub detector: DetectorKind,
    /// Whether it comes too seldom for its window.
    pub sparse: bool,
    /// Whether its window had to leave out samples.
    pub truncated: bool,
}

impl Engine {
    /// An engine without series.
    ///
    /// # Panics
    /// Without a shard.
    pub fn new(config: EngineConfig, n_shards: usize) -> Self {
        assert!(n_shards > 0, "an engine has at least one shard");
        Self {
            shards: (0..n_shards).map(|_| Shard::new(&config)).collect(),
            config,
            sources: BTreeMap::new(),
            source_bytes: 0,
            totals: Totals::default(),
            clock: Timestamp::default(),
            swept: Timestamp::default(),
            let_go: None,
            applied: 0,
            epoch: 0,
            recovering: 0,
            keep_points: false,
        }
    }

    /// Whether outputs hold every point, for drawing and for `--all-points`; off at first.
    pub fn keep_points(&mut self, keep: bool) {
        self.keep_points = keep;
    }

    /// Applies a frame and appends what it brings forth to `out`.
    ///
    /// Frames come in the order of their numbers; a number at or below the last is skipped.
    ///
    /// # Errors
    /// A record that cannot be decoded, such as a configuration of a newer version.
    pub fn apply(&mut self, frame: &Frame<'_>, out: &mut Outputs) -> Result<(), DecodeError> {
        if frame.number <= self.applied {
            return Ok(());
        }
        self.clock = self.clock.max(frame.arrival);
        for record in frame.records() {
            let (row, record) = record?;
            let at = Position { frame: frame.number, row };
            match record {
                RecordRef::Events(batch) => self.take(&batch, at, out),
                RecordRef::Forget(key) => {
                    let key = SeriesKey::from_bytes(key)?;
                    self.shard_mut(key.hash()).forget(key.hash(), frame.number);
                    out.forgotten.push((at, key));
                }
                RecordRef::Configure(text) => {
                    let config = EngineConfig::from_text(text).map_err(|_| undecodable("a recorded configuration"))?;
                    let mut idle = Vec::new();
                    self.shards.iter_mut().for_each(|shard| shard.configure(&config, frame.number, self.clock, &mut idle));
                    // As of the frame before: behind this record, the same frame may name them anew.
                    self.let_go(idle, frame.number.saturating_sub(1), &mut out.idle);
                    self.config = config;
                }
                RecordRef::Tick => {
                    let before = out.resolved.len();
                    self.shards.iter_mut().for_each(|shard| shard.tick(at, self.clock, &mut out.resolved));
                    // Places say which shard a series is in: they must not show.
                    out.resolved[before..].sort_unstable_by_key(|resolved| resolved.incident);
                }
                // A zombie's: whoever owns it since has said what is to be said.
                RecordRef::Owner(epoch) if epoch < self.epoch => break,
                RecordRef::Owner(epoch) => self.epoch = epoch,
            }
        }
        self.applied = frame.number;
        self.end_recovery_if_caught_up();
        self.sweep(&mut out.idle);
        Ok(())
    }

    /// Goes past a frame that is damaged: what it held is lost, and the next one is applied. The caller tells it.
    pub fn skip(&mut self, number: u64) {
        self.applied = self.applied.max(number);
        self.end_recovery_if_caught_up();
    }

    fn end_recovery_if_caught_up(&mut self) {
        if self.recovering > 0 && self.applied >= self.recovering {
            self.recovering = 0;
            self.shards.iter_mut().for_each(Shard::end_recovery);
        }
    }

    fn take(&mut self, batch: &BatchRef<'_>, first: Position, out: &mut Outputs) {
        let redelivered = self.redelivered(batch);
        let of_a_file = batch.origin.starts_with("upload:") || batch.origin.starts_with("file:");
        let delivery = Delivery { batch, first, arrival: self.clock, redelivered, mine: None, keep_points: self.keep_points, of_a_file };
        let before = out.anomalies.len();
        let part = self.deliver(&delivery, out);
        let outcome = BatchOutcome {
            first,
            rows: batch.n_rows,
            origin: String::new(),
            redelivered,
            duplicates: part.duplicates,
            late: part.late,
            anomalies: (part.anomalies.len() - before) as u32,
            evicted_ids: part.evicted_ids,
            series: part.series,
        };
        (out.anomalies, out.points, out.resolved) = (part.anomalies, part.points, part.resolved);
        if first.frame > self.recovering {
            self.totals.add(&outcome);
        }
        out.add(outcome, batch.origin, of_a_file);
    }

    /// Hands a batch to the shards that own its series: at once where there is one, or few rows; else each on a thread. Their lists go on
    /// where those of `out` end.
    fn deliver(&mut self, delivery: &Delivery<'_>, out: &mut Outputs) -> ShardOutputs {
        let (config, n) = (&self.config, self.shards.len());
        let (anomalies, points, resolved) = (mem::take(&mut out.anomalies), mem::take(&mut out.points), mem::take(&mut out.resolved));
        let (n_anomalies, n_points, n_resolved) = (anomalies.len(), points.len(), resolved.len());
        let mut all = ShardOutputs { anomalies, points, resolved, ..ShardOutputs::default() };
        if let [shard] = &mut self.shards[..] {
            shard.apply(delivery, config, &mut all);
            return all;
        }
        let run = |shard: &mut Shard, mine: &[bool]| {
            let mut part = ShardOutputs::default();
            shard.apply(&Delivery { mine: Some(mine), ..*delivery }, config, &mut part);
            part
        };
        let owners: Vec<Vec<bool>> =
            (0..n).map(|i| delivery.batch.series.iter().map(|series| shard_of(series.hash, n) == i).collect()).collect();
        let owned = self.shards.iter_mut().zip(&owners);
        if delivery.batch.n_rows < PARALLEL_ROWS {
            owned.for_each(|(shard, mine)| all.append(run(shard, mine)));
        } else {
            std::thread::scope(|scope| {
                let threads: Vec<_> = owned.map(|(shard, mine)| scope.spawn(move || run(shard, mine))).collect();
                threads.into_iter().for_each(|thread| all.append(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
            });
        }
        all.anomalies[n_anomalies..].sort_unstable_by_key(|anomaly| anomaly.position);
        all.points[n_points..].sort_unstable_by_key(|point| point.position);
        all.resolved[n_resolved..].sort_unstable_by_key(|resolved| resolved.position);
        all.series.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// How many of the first rows were taken from their source before; remembers how far it is taken now.
    fn redelivered(&mut self, batch: &BatchRef<'_>) -> u32 {
        if batch.first.is_none() {
            return 0;
        }
        let known = self.sources.get(batch.origin).filter(|(_, at)| !forgets(batch.origin, *at, self.clock)).map(|(taken, _)| *taken);
        let Some((last, redelivered)) = batch.positions(known) else { return 0 };
        let taken = known.map_or(last, |taken| taken.max(last));
        if self.sources.insert(batch.origin.to_owned(), (taken, self.clock)).is_none() {
            self.source_bytes += source_bytes(batch.origin);
        }
        redelivered
    }

    /// From time to time lets go of idle series and old sources. What is let go would count as forgotten anyway, so the
    /// moment shows in no result.
    fn sweep(&mut self, idle: &mut Vec<(u64, SeriesHash)>) {
        let pause = (self.config.limits().idle / 64).clamp(NANOS, 600 * NANOS);
        if self.recovering > 0 || self.clock.since(self.swept) < pause {
            return;
        }
        self.swept = self.clock;
        let clock = self.clock;
        let mut swept = Vec::new();
        self.shards.iter_mut().for_each(|shard| shard.sweep(clock, &mut swept));
        self.let_go(swept, self.applied, idle);
        self.sources.retain(|origin, (_, at)| !forgets(origin, *at, clock));
        self.source_bytes = self.sources.keys().map(|origin| source_bytes(origin)).sum();
    }

    /// Tells of series that have left memory after a frame, and remembers how late the last of them had come.
    fn let_go(&mut self, left: Vec<(SeriesHash, Timestamp)>, frame: u64, idle: &mut Vec<(u64, SeriesHash)>) {
        self.let_go = self.let_go.max(left.iter().map(|&(_, arrival)| arrival).max());
        idle.extend(left.into_iter().map(|(hash, _)| (frame, hash)));
    }

    /// The last frame applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The configuration in force.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// What was counted since the log began.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Number of series known.
    pub fn series_len(&self) -> usize {
        self.shards.iter().map(Shard::len).sum()
    }

    /// Number of incidents that are not resolved, at most one a series: while there are any, ticks are needed.
    pub fn open_incidents(&self) -> usize {
        self.shards.iter().map(Shard::open_incidents).sum()
    }

    /// Which those are.
    pub fn open_incident_ids(&self) -> Vec<u128> {
        self.shards.iter().flat_map(Shard::open_incident_ids).collect()
    }

    /// Bytes that all state takes.
    pub fn state_bytes(&self) -> usize {
        self.shards.iter().map(Shard::bytes).sum::<usize>() + self.source_bytes
    }

    /// What is known of a series.
    pub fn series(&self, hash: SeriesHash) -> Option<SeriesInfo> {
        let (series, settings) = self.shards[shard_of(hash, self.shards.len())].find(hash)?;
        Some(info(series, settings))
    }

    /// Whether a series is known.
    pub fn holds(&self, hash: SeriesHash) -> bool {
        self.shards[shard_of(hash, self.shards.len())].find(hash).is_some()
    }

    /// Looks at up to `max` places of series from `from` on, and returns where to go on; `None` at the end. So that a
    /// listing of a million series can be cut into short pieces.
    pub fn scan(&self, from: ScanCursor, max: u32, mut look: impl FnMut(&SeriesKey, &dyn Fn() -> SeriesInfo)) -> Option<ScanCursor> {
        let shard = self.shards.get(from.shard)?;
        let end = shard.places().min(from.place.saturating_add(max));
        for (series, settings) in (from.place..end).filter_map(|place| shard.at(place)) {
            look(&series.key, &|| info(series, settings));
        }
        if end < shard.places() {
            return Some(ScanCursor { place: end, ..from });
        }
        (from.shard + 1 < self.shards.len()).then_some(ScanCursor { shard: from.shard + 1, place: 0 })
    }

    fn shard_mut(&mut self, hash: SeriesHash) -> &mut Shard {
        let n = self.shards.len();
        &mut self.shards[shard_of(hash, n)]
    }
}

/// Where a scan of all series stands; the default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCursor {
    shard: usize,
    place: u32,
}

/// The shard that owns a series.
pub(crate) fn shard_of(hash: SeriesHash, n_shards: usize) -> usize {
    // The low half is the hash tables': with the high half, shards do not thin out their buckets.
    ((hash >> 64) as u64 % n_shards as u64) as usize
}

fn info(series: &crate::series::Series, settings: &Settings) -> SeriesInfo {
    SeriesInfo {
        name: series.key.name(),
        key: series.key.clone(),
        count: series.ordinal,
        last: series.newest,
        detector: settings.params.kind(),
        sparse: series.sparse(settings).is_some(),
        truncated: series.is_truncated(settings),
    }
}

/// Bytes that a source takes: its name, and its place in a tree that is two thirds full.
pub(crate) fn source_bytes(origin: &str) -> usize {
    origin.len() + size_of::<(String, (u64, Timestamp))>() * 3 / 2
}

/// Whether the position of a source last seen at `at` is no longer remembered at `now`.
fn forgets(origin: &str, at: Timestamp, now: Timestamp) -> bool {
    (origin.starts_with("upload:") || origin.starts_with("key:") || origin.starts_with("file:")) && now.since(at) > SOURCE_MEMORY
}
