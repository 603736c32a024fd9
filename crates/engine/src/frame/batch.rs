//! Batches as they are built: already in the bytes of a frame.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_128;

use super::partition::partition_of;
use super::read::{Row, take_row};
use super::{EVENTS, EVENTS_APART, HAS_ID, HAS_META, MADE_ID};
use crate::event::Event;
use crate::rejection::Rejected;
use crate::series_key::{SeriesHash, SeriesKey, put_key};
use crate::varint::{put_bytes, put_varint, take_bytes};

/// Bytes of a hash.
const HASH: usize = size_of::<SeriesHash>();

/// The most that the kind of a record and five counts take.
const HEAD: usize = 51;

/// Collects parsed events into a batch. Memory: about 28 bytes a row, 16 more where its line does not follow the last row's, 4 more in
/// what is left of a batch, and each series' key once with 24 bytes.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    index: HashTable<u32>,
    /// Each series once, as a frame names it.
    series: Vec<u8>,
    /// Where each series ends there.
    series_ends: Vec<usize>,
    /// As a frame has them.
    rows: Vec<u8>,
    n_rows: usize,
    /// Rows whose lines do not follow that of the row before, and those lines.
    lines: Vec<(usize, u64)>,
    next_line: u64,
    /// How many positions of the source lie between each row and the one before it; empty where none does.
    gaps: Vec<u32>,
    made_ids: bool,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch whose events without an id get one from their position, as `POST /events/raw` answers it.
    pub fn with_made_ids() -> Self {
        Self { made_ids: true, ..Self::default() }
    }

    /// Makes room for the events of a text of `bytes` bytes, of as many series. Of what is not used, only two bytes
    /// an event are touched.
    pub fn reserve(&mut self, bytes: usize) {
        let events = bytes / 64;
        self.rows.reserve(bytes / 2);
        self.series.reserve(bytes / 2);
        self.series_ends.reserve(events);
        let (series, ends) = (&self.series, &self.series_ends);
        self.index.reserve(events, |&i| nth_hash(series, ends, i as usize) as u64);
    }

    /// Adds an event; `line` is where it stood, for an error that the log's writer may still raise.
    pub fn push(&mut self, event: &Event<'_>, line: u64) {
        let start = self.series.len();
        self.series.extend_from_slice(&[0; HASH]);
        let key = put_key(&mut self.series, event.metric, event.labels);
        let hash = xxh3_128(&self.series[key..]);
        self.series[start..start + HASH].copy_from_slice(&hash.to_le_bytes());
        let series = self.known(start, hash);
        self.push_row(series, event, line);
    }

    /// Number of rows so far.
    pub fn len(&self) -> usize {
        self.n_rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Bytes that the rows and keys take so far.
    pub fn byte_len(&self) -> usize {
        self.rows.len() + self.series.len()
    }

    /// The batch, with where it came from.
    pub fn finish(mut self, origin: Origin) -> Batch {
        self.index = HashTable::new();
        Batch { origin, builder: self }
    }

    /// The index of the series that was just written from `start` on; it stays there only where it is new.
    fn known(&mut self, start: usize, hash: SeriesHash) -> u32 {
        let ((before, it), ends) = (self.series.split_at(start), &self.series_ends);
        let is_it = |&i: &u32| nth_series(before, ends, i as usize) == it;
        match self.index.entry(hash as u64, is_it, |&i| nth_hash(before, ends, i as usize) as u64) {
            Entry::Occupied(known) => {
                let known = *known.get();
                self.series.truncate(start);
                known
            }
            Entry::Vacant(place) => {
                let new = ends.len() as u32;
                place.insert(new);
                self.series_ends.push(self.series.len());
                new
            }
        }
    }

    fn push_row(&mut self, series: u32, event: &Event<'_>, line: u64) {
        put_varint(&mut self.rows, u64::from(series));
        let made = self.made_ids && event.id.is_none();
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let flags = flag(event.id.is_some(), HAS_ID) | flag(event.meta.is_some(), HAS_META) | flag(made, MADE_ID);
        let mut fixed = [0; 17];
        fixed[0] = flags;
        fixed[1..9].copy_from_slice(&event.timestamp.nanos().to_le_bytes());
        fixed[9..].copy_from_slice(&event.value.to_le_bytes());
        self.rows.extend_from_slice(&fixed);
        for text in [event.id, event.meta].into_iter().flatten() {
            put_bytes(&mut self.rows, text.as_bytes());
        }
        if line != self.next_line || self.n_rows == 0 {
            self.lines.push((self.n_rows, line));
        }
        self.n_rows += 1;
        self.next_line = line + 1;
    }

    /// The line of each row.
    fn lines(&self) -> impl Iterator<Item = u64> {
        let ends = self.lines.iter().skip(1).map(|&(row, _)| row).chain([self.n_rows]);
        self.lines.iter().zip(ends).flat_map(|(&(row, line), end)| line..line + (end - row) as u64)
    }
}

/// The bytes of the `i`th series: its hash, its key's length, its key.
#[inline]
fn nth_series<'a>(series: &'a [u8], ends: &[usize], i: usize) -> &'a [u8] {
    let start = if i == 0 { 0 } else { ends[i - 1] };
    &series[start..ends[i]]
}

#[inline]
fn nth_hash(series: &[u8], ends: &[usize], i: usize) -> SeriesHash {
    nth_series(series, ends, i).first_chunk().map_or(0, |hash| SeriesHash::from_le_bytes(*hash))
}

fn nth_key<'a>(series: &'a [u8], ends: &[usize], i: usize) -> &'a [u8] {
    take_bytes(&mut &nth_series(series, ends, i)[HASH..]).expect("a builder writes keys with their lengths")
}

/// Where the rows of a batch came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `http`, `upload:ID/FILE`, `key:KEY`, `kafka:events/3`: it names the source, and is the `source` of its anomalies.
    pub name: String,
    /// The position of the batch's first row in that source, where rows have one; the others follow it one by one, but for those that
    /// were taken out.
    pub first: Option<u64>,
}

impl Origin {
    /// Events that came by HTTP without a key: a source without positions.
    pub fn http() -> Self {
        Self { name: "http".into(), first: None }
    }
}

/// A batch that waits for the log's writer.
#[derive(Debug)]
pub struct Batch {
    /// Where it came from.
    pub origin: Origin,
    builder: BatchBuilder,
}

impl Batch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.builder.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// Bytes that the batch will take in a frame, about.
    pub fn byte_len(&self) -> usize {
        self.builder.byte_len()
    }

    /// The id that the first row's event brought, if it brought one.
    pub fn first_id(&self) -> Option<&str> {
        take_row(&mut &self.builder.rows[..]).ok()?.id
    }

    /// Number of series.
    pub fn n_series(&self) -> usize {
        self.builder.series_ends.len()
    }

    /// The hash of the `i`th series.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn hash(&self, i: usize) -> SeriesHash {
        nth_hash(&self.builder.series, &self.builder.series_ends, i)
    }

    /// The key of the `i`th series.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn key(&self, i: usize) -> SeriesKey {
        SeriesKey::from_bytes(nth_key(&self.builder.series, &self.builder.series_ends, i)).expect("a builder writes keys that can be read")
    }

    /// Takes the rows of the series for which `refused` returns an error out of the batch, and returns those errors with
    /// their lines. The rows that stay keep their order.
    pub fn refuse(&mut self, refused: impl Fn(SeriesHash) -> Option<Rejected>) -> Vec<Rejected> {
        let verdicts: Vec<_> = (0..self.n_series()).map(|i| refused(self.hash(i))).collect();
        if verdicts.iter().all(Option::is_none) {
            return Vec::new();
        }
        let mut errors = Vec::new();
        self.retain(|series, line| match &verdicts[series as usize] {
            Some(error) => {
                errors.push(Rejected { line, ..error.clone() });
                false
            }
            None => true,
        });
        errors
    }

    /// Takes the rows at these lines out of the batch. The rows that stay keep their order.
    pub fn leave_out(&mut self, is_left_out: impl Fn(u64) -> bool) {
        self.retain(|_, line| !is_left_out(line));
    }

    /// The position of each row is that of its line, from the batch's first on, which is that of line 1: also where lines between them are
    /// no events, which may depend on when they are read.
    pub fn at_lines(mut self) -> Self {
        if self.origin.first.is_none() {
            return self;
        }
        let lines: Vec<u64> = self.builder.lines().collect();
        let before = lines.first().map_or(0, |line| line.saturating_sub(1));
        self.origin.first = self.origin.first.map(|first| first.saturating_add(before));
        let gap = |pair: &[u64]| u32::try_from(pair[1].saturating_sub(pair[0]).saturating_sub(1)).unwrap_or(u32::MAX);
        if lines.windows(2).any(|pair| gap(pair) > 0) {
            self.builder.gaps = std::iter::once(0).chain(lines.windows(2).map(gap)).collect();
        }
        self
    }

    /// Keeps the rows for whose series and line `stays` says so, each at its position.
    fn retain(&mut self, mut stays: impl FnMut(u32, u64) -> bool) {
        let mut kept = Part::new(self);
        self.each(|row, line, at| {
            if stays(row.series, line) {
                kept.take(self, row, line, at);
            }
        });
        *self = kept.into_batch(self);
    }

    /// The rows of each of `of` partitions, in order and at their positions; those partitions alone that have any.
    pub fn split(self, of: u32) -> Vec<(u32, Self)> {
        let partitions: Vec<u32> = (0..self.n_series()).map(|i| partition_of(self.hash(i), of)).collect();
        let mut parts: Vec<Option<Part>> = (0..of).map(|_| None).collect();
        self.each(|row, line, at| {
            let part = &mut parts[partitions[row.series as usize] as usize];
            part.get_or_insert_with(|| Part::new(&self)).take(&self, row, line, at);
        });
        (0..).zip(parts).filter_map(|(partition, part)| Some((partition, part?.into_batch(&self)))).collect()
    }

    /// Each row with its line, and how far it is from the position of the first.
    fn each(&self, mut look: impl FnMut(&Row<'_>, u64, u64)) {
        let (mut rest, mut gaps, mut skipped) = (&self.builder.rows[..], self.builder.gaps.iter(), 0);
        for (i, line) in (0u64..).zip(self.builder.lines()) {
            let row = take_row(&mut rest).expect("a builder writes rows that can be read");
            skipped += gaps.next().map_or(0, |gap| u64::from(*gap));
            look(&row, line, i + skipped);
        }
    }

    /// Appends its record to a frame; returns how many rows that are.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> u32 {
        let Self { origin, builder } = self;
        let apart = origin.first.is_some() && builder.gaps.iter().any(|gap| *gap > 0);
        out.reserve(builder.byte_len() + origin.name.len() + HEAD + size_of::<u64>() + if apart { self.len() } else { 0 });
        out.push(if apart { EVENTS_APART } else { EVENTS });
        put_bytes(out, origin.name.as_bytes());
        put_varint(out, origin.first.map_or(0, |first| first.saturating_add(1)));
        put_varint(out, self.n_series() as u64);
        put_varint(out, self.len() as u64);
        put_varint(out, builder.rows.len() as u64);
        out.extend_from_slice(&builder.series);
        out.extend_from_slice(&builder.rows);
        if apart {
            builder.gaps.iter().for_each(|gap| put_varint(out, u64::from(*gap)));
        }
        self.len() as u32
    }
}

/// Some of the rows of a batch, as they are gathered.
struct Part {
    builder: BatchBuilder,
    /// How far the first of them, and the last, are from the first of the batch.
    first: u64,
    last: u64,
}

impl Part {
    fn new(of: &Batch) -> Self {
        Self { builder: BatchBuilder { made_ids: of.builder.made_ids, ..BatchBuilder::default() }, first: 0, last: 0 }
    }

    fn take(&mut self, of: &Batch, row: &Row<'_>, line: u64, at: u64) {
        let (builder, from) = (&mut self.builder, &of.builder);
        let start = builder.series.len();
        builder.series.extend_from_slice(nth_series(&from.series, &from.series_ends, row.series as usize));
        let series = builder.known(start, nth_hash(&from.series, &from.series_ends, row.series as usize));
        let event = Event { metric: "", labels: &[], timestamp: row.timestamp, value: row.value, id: row.id, meta: row.meta };
        if builder.n_rows == 0 {
            (self.first, self.last) = (at, at);
            builder.gaps.push(0);
        } else {
            // A batch has fewer rows than that.
            builder.gaps.push(u32::try_from(at - self.last - 1).unwrap_or(u32::MAX));
            self.last = at;
        }
        builder.push_row(series, &event, line);
    }

    fn into_batch(self, of: &Batch) -> Batch {
        let first = of.origin.first.map(|first| first.saturating_add(self.first));
        Batch { origin: Origin { name: of.origin.name.clone(), first }, builder: self.builder }
    }
}
