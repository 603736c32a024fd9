//! The state of one series: its window, its detector, and what it remembers of its events.

use anomaly_detect::{Detector, Judgement, Window};
use anomaly_prefetch::prefetch;

use crate::cadence::{Cadence, sparse_text};
use crate::config::{Limits, Settings};
use crate::dedup::{Seen, SeenIds};
use crate::frame::Row;
use crate::series_key::SeriesKey;
use crate::timestamp::Timestamp;
use crate::varint::{DecodeError, put_bytes, put_varint, take_array, take_bytes, take_varint, undecodable};
use crate::window::{bounds, is_late, is_quiet};

/// One series. Memory: 320 bytes, its name, and what window and detector hold.
///
/// Five whole cache lines, since with many series none of them is in a near cache: what every event needs comes first, and
/// what few series need is behind a pointer.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Series {
    window: Window,
    /// The newest event in event time, and its value.
    pub(crate) newest: (Timestamp, f64),
    /// Accepted events since then, late ones included.
    pub(crate) ordinal: u64,
    /// Frame time of its last event.
    pub(crate) last_arrival: Timestamp,
    pub(crate) key: SeriesKey,
    detector: Detector,
    rare: Option<Box<Rare>>,
    /// Bytes behind `rare`: at hand without going there.
    rare_bytes: u32,
    /// Index into the shard's table of settings.
    pub(crate) rule: u32,
    cadence: Cadence,
    /// Time of its first event since it became known.
    pub(crate) first: Timestamp,
}

const _: () = assert!(size_of::<Option<Series>>() == 320, "docstrings and the page on memory say how large a series is");

/// What only series have whose events bring ids, or that had an anomaly.
#[derive(Debug, Default)]
struct Rare {
    seen: SeenIds,
    incident: Option<Incident>,
}

impl Rare {
    fn bytes(&self) -> u32 {
        u32::try_from(size_of::<Self>() + self.seen.heap_bytes()).unwrap_or(u32::MAX)
    }
}

/// The newest incident: the next anomaly may join it, resolved or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Incident {
    id: u128,
    /// Its newest anomaly in event time.
    last: Timestamp,
    /// Told as over.
    resolved: bool,
}

/// How a checkpoint says what is known of an incident.
const NO_INCIDENT: u8 = 0;
const OPEN: u8 = 1;
const RESOLVED: u8 = 2;

/// What became of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// Its id came before: accepted, and not counted again.
    Duplicate,
    /// Too far behind: counted, and not judged.
    Late,
    /// Judged, and in the window now.
    Judged(Judgement),
}

impl Series {
    pub(crate) fn new(key: SeriesKey, rule: usize, settings: &Settings, arrival: Timestamp) -> Self {
        let window = Window::new(settings.shape);
        let detector = Detector::new(&settings.params, &window);
        Self {
            key,
            rule: rule as u32,
            first: Timestamp::default(),
            ordinal: 0,
            newest: (Timestamp::from_nanos(i64::MIN), 0.0),
            last_arrival: arrival,
            cadence: Cadence::default(),
            rare: None,
            rare_bytes: 0,
            window,
            detector,
        }
    }

    /// Whether it has been without an arrival for so long that it counts as forgotten at `arrival`. Not while an incident is
    /// open: it would never be told as over.
    pub(crate) fn is_idle(&self, arrival: Timestamp, limits: &Limits) -> bool {
        arrival.since(self.last_arrival) > limits.idle && !self.has_open_incident()
    }

    /// Whether it has an incident that is not resolved.
    pub(crate) fn has_open_incident(&self) -> bool {
        self.open_incident().is_some()
    }

    /// The id of that incident.
    pub(crate) fn open_incident(&self) -> Option<u128> {
        self.rare.as_ref()?.incident.filter(|incident| !incident.resolved).map(|incident| incident.id)
    }

    /// Has fetched what [`Series::push`] will read; see [`Window::prefetch`].
    #[inline(always)]
    pub(crate) fn prefetch(&self, depth: usize) {
        if depth == 0 {
            // Of a long key the beginning: the processor goes on by itself.
            let key = self.key.as_bytes();
            prefetch(&key[..key.len().min(128)]);
        }
        self.window.prefetch(depth);
    }

    /// Takes an event; returns what became of it, and whether an id was forgotten for want of room.
    pub(crate) fn push(&mut self, row: &Row<'_>, arrival: Timestamp, limits: &Limits, settings: &Settings) -> (Outcome, bool) {
        self.last_arrival = arrival;
        let mut evicted = false;
        if let Some(id) = row.id {
            let rare = self.rare.get_or_insert_default();
            let seen = rare.seen.is_repeated(id, row.timestamp, self.newest.0, limits.dedup_horizon, limits.dedup_max_ids);
            self.rare_bytes = rare.bytes();
            match seen {
                Seen::Repeated => return (Outcome::Duplicate, false),
                Seen::New { evicted: forgotten } => evicted = forgotten,
            }
        }
        if self.ordinal == 0 {
            self.first = row.timestamp;
        }
        self.ordinal += 1;
        if self.ordinal > 1 && is_late(row.timestamp, self.newest.0, limits.lateness) {
            return (Outcome::Late, evicted);
        }
        let bounds = bounds(row.timestamp, settings.shape.span);
        let judgement = self.detector.judge(&settings.params, &mut self.window, bounds, row.value);
        self.detector.observe(&settings.params, &mut self.window, row.timestamp.nanos(), row.value);
        if row.timestamp >= self.newest.0 {
            if self.ordinal > 1 {
                self.cadence.push(row.timestamp.since(self.newest.0));
            }
            self.newest = (row.timestamp, row.value);
        }
        (Outcome::Judged(judgement), evicted)
    }

    /// The incident of an anomaly at `at`: the newest one within the window of its last anomaly, which opens it again where
    /// it was resolved; else a new one that takes its id from the anomaly. With it the one that was open until then, if
    /// another has begun.
    pub(crate) fn incident_of(&mut self, anomaly: u128, at: Timestamp, span: i64) -> (u128, Option<u128>) {
        let rare = self.rare.get_or_insert_default();
        self.rare_bytes = rare.bytes();
        match &mut rare.incident {
            Some(newest) if at.since(newest.last) <= span => {
                newest.last = newest.last.max(at);
                newest.resolved = false;
                (newest.id, None)
            }
            incident => {
                let id = incident_id(anomaly);
                let before = incident.replace(Incident { id, last: at, resolved: false });
                (id, before.filter(|before| !before.resolved).map(|before| before.id))
            }
        }
    }

    /// Resolves its incident where one is open and, at a time of arrival, the series has been quiet for a window of `span`;
    /// returns which.
    pub(crate) fn resolve_if_quiet(&mut self, arrival: Timestamp, span: i64) -> Option<u128> {
        let since_arrival = arrival.since(self.last_arrival);
        let open = self.rare.as_mut()?.incident.as_mut().filter(|incident| !incident.resolved)?;
        if !is_quiet(open.last, self.newest.0, since_arrival, span) {
            return None;
        }
        open.resolved = true;
        Some(open.id)
    }

    /// Takes new settings: samples, ordinals and ids stay; a detector whose parameters changed starts afresh from them.
    pub(crate) fn configure(&mut self, rule: usize, old: &Settings, new: &Settings) {
        self.rule = rule as u32;
        if old.shape != new.shape {
            self.window.reshape(new.shape);
        }
        if old.params != new.params || old.shape != new.shape {
            self.detector = Detector::new(&new.params, &self.window);
        }
    }

    /// What to say where it comes too seldom for its window.
    pub(crate) fn sparse(&self, settings: &Settings) -> Option<String> {
        self.cadence.sparse(settings).map(|median| sparse_text(median, settings))
    }

    /// Whether its window had to leave out samples for want of room.
    pub(crate) fn is_truncated(&self, settings: &Settings) -> bool {
        self.ordinal > 0 && self.window.is_truncated(bounds(self.newest.0, settings.shape.span))
    }

    /// Bytes that it takes, its own included.
    pub(crate) fn bytes(&self) -> usize {
        let heap = self.window.heap_bytes() + self.detector.heap_bytes() + self.rare_bytes as usize;
        size_of::<Option<Self>>() + self.key.as_bytes().len() + heap
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.key.as_bytes());
        put_varint(out, self.ordinal);
        for number in [self.first.nanos(), self.newest.0.nanos(), self.newest.1.to_bits() as i64, self.last_arrival.nanos()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        self.cadence.encode(out);
        let none = Rare::default();
        let rare = self.rare.as_deref().unwrap_or(&none);
        rare.seen.encode(out);
        match rare.incident {
            None => out.push(NO_INCIDENT),
            Some(Incident { id, last, resolved }) => {
                out.push(if resolved { RESOLVED } else { OPEN });
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&last.nanos().to_le_bytes());
            }
        }
        self.window.encode(out);
        self.detector.encode(out);
    }

    /// Reads a series whose settings `settings_of` tells.
    pub(crate) fn decode<'s>(from: &mut &[u8], settings_of: impl FnOnce(&SeriesKey) -> (usize, &'s Settings)) -> Result<Self, DecodeError> {
        let key = SeriesKey::from_bytes(take_bytes(from)?)?;
        let (rule, settings) = settings_of(&key);
        let ordinal = take_varint(from)?;
        let mut number = || take_array(from).map(i64::from_le_bytes);
        let (first, newest, value, last_arrival) = (number()?, number()?, number()?, number()?);
        let cadence = Cadence::decode(from)?;
        let seen = SeenIds::decode(from)?;
        let incident = match take_array::<1>(from)?[0] {
            NO_INCIDENT => None,
            state @ (OPEN | RESOLVED) => {
                let id = u128::from_le_bytes(take_array(from)?);
                let last = Timestamp::from_nanos(i64::from_le_bytes(take_array(from)?));
                Some(Incident { id, last, resolved: state == RESOLVED })
            }
            _ => return Err(undecodable("an incident")),
        };
        let unreadable = |_| undecodable("the state of a window or detector");
        let window = Window::decode(settings.shape, from).map_err(unreadable)?;
        let detector = Detector::decode(&settings.params, &window, from).map_err(unreadable)?;
        let rare = (seen.heap_bytes() > 0 || incident.is_some()).then(|| Box::new(Rare { seen, incident }));
        Ok(Self {
            key,
            rule: rule as u32,
            first: Timestamp::from_nanos(first),
            ordinal,
            newest: (Timestamp::from_nanos(newest), f64::from_bits(value as u64)),
            last_arrival: Timestamp::from_nanos(last_arrival),
            cadence,
            rare_bytes: rare.as_ref().map_or(0, |rare| rare.bytes()),
            rare,
            window,
            detector,
        })
    }
}

/// The id of the incident that an anomaly begins.
fn incident_id(anomaly: u128) -> u128 {
    let mut bytes = *b"incident\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    bytes[8..].copy_from_slice(&anomaly.to_le_bytes());
    xxhash_rust::xxh3::xxh3_128(&bytes)
}
