//! A shard: the one owner of its series.

use std::collections::BTreeSet;
use std::mem;

use anomaly_detect::{Judgement, Verdict as Judged};

use crate::anomaly::{Anomaly, Point, Verdict, anomaly_id};
use crate::config::{EngineConfig, Limits, Settings};
use crate::frame::{BatchRef, Position, Row};
use crate::outputs::{Resolved, SeriesOutcome};
use crate::series::{Outcome, Series};
use crate::series_key::{SeriesHash, SeriesKey};
use crate::slab::Slab;
use crate::timestamp::Timestamp;
use crate::varint::{DecodeError, undecodable};

/// Some of the series, and all that is known of them.
#[derive(Debug)]
pub(crate) struct Shard {
    slab: Slab,
    /// Settings by rule; 0 is without one.
    table: Vec<Settings>,
    limits: Limits,
    /// The places of series with an open incident: a tick looks at no others.
    open: BTreeSet<u32>,
    /// Bytes of all series; the slab's own come on top.
    series_bytes: usize,
    recovery: Option<Recovery>,
    /// For each series of a batch where it may be, and where it is; kept for their room.
    scratch: (Vec<u32>, Vec<u32>),
}

/// Which frames the series of a checkpoint have already seen.
#[derive(Debug, Default)]
struct Recovery {
    /// Places below the first number came from a chunk written after the frame behind it; ascending.
    chunks: Vec<(u32, u64)>,
}

/// A batch on its way through a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery<'a> {
    pub(crate) batch: &'a BatchRef<'a>,
    /// Position of its first row.
    pub(crate) first: Position,
    /// Frame time.
    pub(crate) arrival: Timestamp,
    /// The first rows, taken from their source before.
    pub(crate) redelivered: u32,
    /// Which series of the batch are this shard's; `None`: all.
    pub(crate) mine: Option<&'a [bool]>,
    pub(crate) keep_points: bool,
    pub(crate) of_a_file: bool,
}

/// What a batch brought forth in one shard.
#[derive(Debug, Default)]
pub(crate) struct ShardOutputs {
    pub(crate) anomalies: Vec<Anomaly>,
    pub(crate) points: Vec<Point>,
    pub(crate) resolved: Vec<Resolved>,
    pub(crate) duplicates: u32,
    pub(crate) late: u32,
    pub(crate) evicted_ids: u32,
    pub(crate) series: Vec<SeriesOutcome>,
}

impl ShardOutputs {
    /// Appends what another shard made of the same batch.
    pub(crate) fn append(&mut self, mut part: Self) {
        self.anomalies.append(&mut part.anomalies);
        self.points.append(&mut part.points);
        self.resolved.append(&mut part.resolved);
        self.series.append(&mut part.series);
        self.duplicates += part.duplicates;
        self.late += part.late;
        self.evicted_ids += part.evicted_ids;
    }
}

/// A place that is not looked up yet, and one whose rows are skipped (its checkpoint has seen them).
const UNKNOWN: u32 = u32::MAX;
const SKIPPED: u32 = u32::MAX - 1;
/// How many rows ahead of the one that is judged the series of a row is fetched; a power of two.
const AHEAD: usize = 16;

/// What a late event is drawn with.
const NOT_JUDGED: Judgement = Judgement {
    verdict: Judged::TooFew,
    count: 0,
    mean: 0.0,
    stddev: 0.0,
    expected: 0.0,
    lower: 0.0,
    upper: 0.0,
    z_score: None,
    strength: 0.0,
};

impl Shard {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        Self {
            slab: Slab::default(),
            table: config.table(),
            limits: config.limits(),
            open: BTreeSet::new(),
            series_bytes: 0,
            recovery: None,
            scratch: (Vec::new(), Vec::new()),
        }
    }

    pub(crate) fn apply(&mut self, delivery: &Delivery<'_>, config: &EngineConfig, out: &mut ShardOutputs) {
        let batch = delivery.batch;
        // Looked up in one go: loads that do not depend on each other overlap. Whether the key is the same too is seen when the
        // series is at hand.
        let (mut guesses, mut places) = mem::take(&mut self.scratch);
        guesses.clear();
        guesses.extend(batch.series.iter().map(|series| self.slab.guess(series.hash).unwrap_or(UNKNOWN)));
        places.clear();
        places.resize(batch.series.len(), UNKNOWN);
        let mut counts = vec![Counts::default(); if delivery.of_a_file { batch.series.len() } else { 0 }];
        let mut ahead = Lookahead::new(batch.series_of_rows());
        (0..AHEAD.min((batch.n_rows as usize).saturating_sub(1))).for_each(|_| ahead.step(&self.slab, &guesses));
        for (i, row) in (0..).zip(batch.rows()) {
            ahead.step(&self.slab, &guesses);
            let n = row.series as usize;
            if i < delivery.redelivered || delivery.mine.is_some_and(|mine| !mine[n]) {
                continue;
            }
            if places[n] == UNKNOWN {
                places[n] = self.place(delivery, n, guesses[n], config);
            }
            if places[n] == SKIPPED {
                continue;
            }
            let position = Position { frame: delivery.first.frame, row: delivery.first.row + i };
            let taken = self.push(places[n], &row, position, delivery, out);
            if let Some(counts) = counts.get_mut(n) {
                counts.add(taken);
            }
        }
        for (&place, counts) in places.iter().zip(counts).filter(|(_, counts)| counts.rows > 0) {
            if let Some(series) = self.slab.get(place) {
                let sparse = series.sparse(&self.table[series.rule as usize]);
                let Counts { rows, late, judged } = counts;
                out.series.push(SeriesOutcome { name: series.key.name(), rows, late, judged, newest: series.newest.0, sparse });
            }
        }
        self.scratch = (guesses, places);
    }

    /// The place of the `n`th series of a batch, which may be the one guessed; made known where it is not, begun anew where
    /// it was idle for too long.
    fn place(&mut self, delivery: &Delivery<'_>, n: usize, guess: u32, config: &EngineConfig) -> u32 {
        let named = delivery.batch.series[n];
        let is_it = self.slab.get(guess).is_some_and(|series| series.key.as_bytes() == named.key);
        let found = if is_it { Some(guess) } else { self.slab.find(named.hash, named.key) };
        if let Some(place) = found {
            if self.seen_until(place) >= delivery.first.frame {
                return SKIPPED;
            }
            if !self.slab.get(place).is_some_and(|series| series.is_idle(delivery.arrival, &self.limits)) {
                return place;
            }
            self.remove(place);
        }
        let Some(key) = SeriesKey::from_bytes(named.key).ok().filter(|key| key.hash() == named.hash) else {
            return SKIPPED;
        };
        let rule = config.rule_of(&key);
        let series = Series::new(key, rule, &self.table[rule], delivery.arrival);
        self.series_bytes += series.bytes();
        self.slab.insert(series)
    }

    fn push(&mut self, place: u32, row: &Row<'_>, position: Position, delivery: &Delivery<'_>, out: &mut ShardOutputs) -> Taken {
        let Some(series) = self.slab.get_mut(place) else {
            return Taken::Duplicate;
        };
        let settings = &self.table[series.rule as usize];
        let before = series.bytes();
        let (outcome, evicted) = series.push(row, delivery.arrival, &self.limits, settings);
        out.evicted_ids += u32::from(evicted);
        let (taken, verdict, judgement) = match &outcome {
            Outcome::Duplicate => {
                out.duplicates += 1;
                self.series_bytes = self.series_bytes + series.bytes() - before;
                return Taken::Duplicate;
            }
            Outcome::Late => {
                out.late += 1;
                (Taken::Late, Verdict::Late, &NOT_JUDGED)
            }
            Outcome::Judged(judgement) => {
                (Taken::InTime { judged: judgement.verdict != Judged::TooFew }, judgement.verdict.into(), judgement)
            }
        };
        if delivery.keep_points {
            let &judgement = judgement;
            out.points.push(Point {
                position,
                series: delivery.batch.series[row.series as usize].hash,
                timestamp: row.timestamp,
                value: row.value,
                verdict,
                judgement,
            });
        }
        if verdict == Verdict::Anomaly
            && let Some((anomaly, superseded)) = anomaly(series, settings, row, judgement, position, delivery)
        {
            let series = delivery.batch.series[row.series as usize].hash;
            out.resolved.extend(superseded.map(|incident| Resolved { position, incident, series }));
            out.anomalies.push(anomaly);
            self.open.insert(place);
        }
        self.series_bytes = self.series_bytes + series.bytes() - before;
        taken
    }

    /// A tick at a position, which arrived at `arrival`: resolves the incidents whose series have been quiet for a window.
    pub(crate) fn tick(&mut self, position: Position, arrival: Timestamp, resolved: &mut Vec<Resolved>) {
        let mut open = mem::take(&mut self.open);
        open.retain(|&place| {
            if self.seen_until(place) >= position.frame {
                return true;
            }
            let Some(series) = self.slab.get_mut(place) else { return false };
            let span = self.table[series.rule as usize].shape.span;
            let Some(incident) = series.resolve_if_quiet(arrival, span) else { return true };
            resolved.push(Resolved { position, incident, series: series.key.hash() });
            false
        });
        self.open = open;
    }

    /// `DELETE /series` at a frame; returns whether the series was known.
    pub(crate) fn forget(&mut self, hash: SeriesHash, frame: u64) -> bool {
        match self.slab.find_hash(hash) {
            Some(place) if self.seen_until(place) < frame => self.remove(place),
            _ => false,
        }
    }

    /// Takes a new configuration, recorded at `frame`, which arrived at `arrival`. Series that are idle by the old one go into
    /// `idle`, each with its last arrival: the new one may be more patient, and must not bring back what a sweep may or may not
    /// have found before.
    pub(crate) fn configure(&mut self, config: &EngineConfig, frame: u64, arrival: Timestamp, idle: &mut Vec<(SeriesHash, Timestamp)>) {
        let table = config.table();
        for place in 0..self.slab.places() {
            if self.seen_until(place) >= frame {
                continue;
            }
            let Some(series) = self.slab.get_mut(place) else { continue };
            if series.is_idle(arrival, &self.limits) {
                idle.push((series.key.hash(), series.last_arrival));
                self.remove(place);
                continue;
            }
            let rule = config.rule_of(&series.key);
            let before = series.bytes();
            series.configure(rule, &self.table[series.rule as usize], &table[rule]);
            self.series_bytes = self.series_bytes + series.bytes() - before;
        }
        self.table = table;
        self.limits = config.limits();
    }

    /// Lets go of the series that are idle at `arrival`; they go into `idle`, each with its last arrival. It changes no
    /// result: an event for one of them would begin it anew.
    pub(crate) fn sweep(&mut self, arrival: Timestamp, idle: &mut Vec<(SeriesHash, Timestamp)>) {
        for place in 0..self.slab.places() {
            if let Some(series) = self.slab.get(place).filter(|series| series.is_idle(arrival, &self.limits)) {
                idle.push((series.key.hash(), series.last_arrival));
                self.remove(place);
            }
        }
    }

    fn remove(&mut self, place: u32) -> bool {
        let removed = self.slab.remove(place);
        self.open.remove(&place);
        self.series_bytes -= removed.as_ref().map_or(0, Series::bytes);
        removed.is_some()
    }

    pub(crate) fn find(&self, hash: SeriesHash) -> Option<(&Series, &Settings)> {
        self.at(self.slab.find_hash(hash)?)
    }

    /// The series at a place, if there is one.
    pub(crate) fn at(&self, place: u32) -> Option<(&Series, &Settings)> {
        self.slab.get(place).map(|series| (series, &self.table[series.rule as usize]))
    }

    /// One past the last place.
    pub(crate) fn places(&self) -> u32 {
        self.slab.places()
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Number of series with an open incident.
    pub(crate) fn open_incidents(&self) -> usize {
        self.open.len()
    }

    /// Their ids.
    pub(crate) fn open_incident_ids(&self) -> impl Iterator<Item = u128> {
        self.open.iter().filter_map(|&place| self.at(place)?.0.open_incident())
    }

    pub(crate) fn bytes(&self) -> usize {
        // Nodes of a tree are two thirds full.
        self.series_bytes + self.slab.bytes() + self.open.len() * size_of::<u32>() * 3 / 2
    }

    /// The frame up to which the series at a place has seen everything; 0 outside a recovery.
    fn seen_until(&self, place: u32) -> u64 {
        let Some(recovery) = &self.recovery else { return 0 };
        let at = recovery.chunks.partition_point(|&(end, _)| end <= place);
        recovery.chunks.get(at).map_or(0, |&(_, frame)| frame)
    }

    /// Begins a recovery: series are restored, then frames replayed.
    pub(crate) fn begin_recovery(&mut self) {
        self.recovery = Some(Recovery::default());
        self.slab.keep_places();
    }

    /// Restores a series from a chunk that was written after `frame`.
    pub(crate) fn restore(&mut self, hash: SeriesHash, series: Series, frame: u64) -> Result<(), DecodeError> {
        // Forgotten behind the cutting of the checkpoint and known again ahead of it, a series is in two chunks: the later counts.
        if let Some(earlier) = self.slab.find_hash(hash) {
            self.remove(earlier);
        }
        let recovery = self.recovery.as_mut().ok_or(undecodable("a series outside a recovery"))?;
        self.series_bytes += series.bytes();
        let is_open = series.has_open_incident();
        let place = self.slab.insert(series);
        if is_open {
            self.open.insert(place);
        }
        let end = place + 1;
        match recovery.chunks.last_mut() {
            Some(last) if last.1 == frame => last.0 = end,
            _ => recovery.chunks.push((end, frame)),
        }
        Ok(())
    }

    /// Ends a recovery: every series has caught up.
    pub(crate) fn end_recovery(&mut self) {
        self.recovery = None;
        self.slab.release_places();
    }
}

/// The anomaly that a row is, as judged; and the incident that was open until its own began, if one was.
#[cold]
fn anomaly(
    series: &mut Series,
    settings: &Settings,
    row: &Row<'_>,
    judgement: &Judgement,
    position: Position,
    delivery: &Delivery<'_>,
) -> Option<(Anomaly, Option<u128>)> {
    let severity = judgement.severity(&settings.params)?;
    let id = anomaly_id(&series.key, series.first, series.ordinal, row.timestamp, row.value, settings);
    let (incident, superseded) = series.incident_of(id, row.timestamp, settings.shape.span);
    let anomaly = Anomaly {
        position,
        id,
        key: series.key.clone(),
        timestamp: row.timestamp,
        value: row.value,
        judgement: *judgement,
        settings: settings.clone(),
        severity,
        meta: row.meta.map(str::to_owned),
        event_id: row.id.map(str::to_owned).or_else(|| row.made_id.then(|| position.made_id())),
        incident,
        source: delivery.batch.origin.to_owned(),
    };
    Some((anomaly, superseded))
}

/// Walks ahead of the row that is judged, and has fetched what its series holds, which is seldom in a cache: first the series,
/// a few rows on what it points to, then what that points to.
struct Lookahead<I> {
    series: I,
    /// The guessed places of the last rows, in a ring.
    places: [u32; AHEAD],
    at: usize,
}

impl<I: Iterator<Item = u32>> Lookahead<I> {
    fn new(series: I) -> Self {
        Self { series, places: [UNKNOWN; AHEAD], at: 0 }
    }

    #[inline(always)]
    fn step(&mut self, slab: &Slab, guesses: &[u32]) {
        let place = self.series.next().map_or(UNKNOWN, |n| guesses[n as usize]);
        slab.prefetch(place);
        self.places[self.at % AHEAD] = place;
        for (depth, rows) in [AHEAD / 3, 2 * AHEAD / 3].into_iter().enumerate() {
            if let Some(series) = slab.get(self.places[self.at.wrapping_sub(rows) % AHEAD]) {
                series.prefetch(depth);
            }
        }
        self.at += 1;
    }
}

/// What counts of the outcome of a row.
#[derive(Clone, Copy, Debug)]
enum Taken {
    Duplicate,
    Late,
    InTime { judged: bool },
}

/// What became of the rows of one series.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    rows: u32,
    late: u32,
    judged: u32,
}

impl Counts {
    fn add(&mut self, taken: Taken) {
        match taken {
            Taken::Duplicate => return,
            Taken::Late => self.late += 1,
            Taken::InTime { judged } => self.judged += u32::from(judged),
        }
        self.rows += 1;
    }
}
