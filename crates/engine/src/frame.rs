//! The log's frames: what is appended, made durable and replayed as one.
//!
//! ```text
//! frame  = version u8 · arrival i64 · record* · checksum u64 (XXH3 of all before it, seeded with the frame's number)
//! record = 1 · batch | 2 · series key (forget) | 3 · configuration as text | 4 (tick)
//! batch  = origin name · first position + 1 (0: none) · series count · row count · row bytes
//!          · series* (hash u128 · key) · row*
//! row    = series index · flags u8 · timestamp i64 · value f64 · [id] · [meta]
//! ```
//! Counts and lengths are LEB128, numbers little-endian. A batch names each of its series once, so that the engine looks a
//! series up once a batch and not once a row. A row's position is (frame, row), rows counted through all batches of a frame.

use hashbrown::HashTable;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use crate::event::Event;
use crate::rejection::Rejected;
use crate::series_key::{SeriesHash, SeriesKey, write_key};
use crate::timestamp::Timestamp;
use crate::varint::{DecodeError, put_bytes, put_varint, take, take_array, take_bytes, take_str, take_varint, undecodable};

const VERSION: u8 = 1;
const EVENTS: u8 = 1;
const FORGET: u8 = 2;
const CONFIGURE: u8 = 3;
const TICK: u8 = 4;

const HAS_ID: u8 = 1;
const HAS_META: u8 = 2;
const MADE_ID: u8 = 4;

/// Where a row stands in the log: the frame's number, and the row in it, both from the log's writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The frame; numbers rise and are never used twice.
    pub frame: u64,
    /// The row in the frame, from 0.
    pub row: u32,
}

impl Position {
    /// The id that `POST /events/raw` answers for the event at this position, where the event brought none.
    pub fn made_id(self) -> String {
        format!("{}-{}", self.frame, self.row)
    }
}

/// Collects parsed events into a batch. Memory: about 20 bytes a row and each series' key once.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    index: HashTable<u32>,
    hashes: Vec<SeriesHash>,
    /// Where each series' key ends in `keys`.
    key_ends: Vec<usize>,
    keys: Vec<u8>,
    rows: Vec<u8>,
    lines: Vec<u64>,
    made_ids: bool,
    scratch: Vec<u8>,
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

    /// Makes room for the events of a text of `bytes` bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.rows.reserve(bytes / 2);
        self.lines.reserve(bytes / 64);
    }

    /// Adds an event; `line` is where it stood, for an error that the log's writer may still raise.
    pub fn push(&mut self, event: &Event<'_>, line: u64) {
        let series = self.series(event.metric, event.labels);
        self.push_row(series, event, line);
    }

    /// Number of rows so far.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes that the rows and keys take so far.
    pub fn byte_len(&self) -> usize {
        self.rows.len() + self.keys.len() + 16 * self.hashes.len()
    }

    /// The batch, with where it came from.
    pub fn finish(self, origin: Origin) -> Batch {
        Batch { origin, builder: self }
    }

    /// The index of a series in this batch, added where it is new.
    fn series(&mut self, metric: &str, labels: &[(&str, &str)]) -> u32 {
        self.scratch.clear();
        write_key(&mut self.scratch, metric, labels);
        let key = std::mem::take(&mut self.scratch);
        let series = self.series_of(&key, xxh3_128(&key));
        self.scratch = key;
        series
    }

    fn series_of(&mut self, key: &[u8], hash: SeriesHash) -> u32 {
        let (hashes, ends, keys) = (&self.hashes, &self.key_ends, &self.keys);
        let same = |&i: &u32| hashes[i as usize] == hash && nth_key(ends, keys, i as usize) == key;
        if let Some(&found) = self.index.find(hash as u64, same) {
            return found;
        }
        let new = self.hashes.len() as u32;
        self.hashes.push(hash);
        self.keys.extend_from_slice(key);
        self.key_ends.push(self.keys.len());
        let hashes = &self.hashes;
        self.index.insert_unique(hash as u64, new, |&i| hashes[i as usize] as u64);
        new
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
        self.lines.push(line);
    }
}

fn nth_key<'a>(ends: &[usize], keys: &'a [u8], i: usize) -> &'a [u8] {
    let start = if i == 0 { 0 } else { ends[i - 1] };
    &keys[start..ends[i]]
}

/// Where the rows of a batch came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `http`, `upload:ID/FILE`, `key:KEY`, `kafka:events/3`: it names the source, and is the `source` of its anomalies.
    pub name: String,
    /// The position of the batch's first row in that source, where rows have one; the others follow it one by one.
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

    /// The hash of each series in the batch, once.
    pub fn series(&self) -> &[SeriesHash] {
        &self.builder.hashes
    }

    /// The key of the `i`th series.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn key(&self, i: usize) -> SeriesKey {
        SeriesKey::from_bytes(nth_key(&self.builder.key_ends, &self.builder.keys, i)).expect("a builder writes keys that can be read")
    }

    /// Takes the rows of the series for which `refused` returns an error out of the batch, and returns those errors with
    /// their lines. The rows that stay keep their order.
    pub fn refuse(&mut self, refused: impl Fn(SeriesHash) -> Option<Rejected>) -> Vec<Rejected> {
        let verdicts: Vec<_> = self.builder.hashes.iter().map(|&hash| refused(hash)).collect();
        if verdicts.iter().all(Option::is_none) {
            return Vec::new();
        }
        let emptied = BatchBuilder { made_ids: self.builder.made_ids, ..BatchBuilder::default() };
        let old = std::mem::replace(&mut self.builder, emptied);
        let mut errors = Vec::new();
        let mut rest = &old.rows[..];
        for &line in &old.lines {
            let row = take_row(&mut rest).expect("a builder writes rows that can be read");
            let i = row.series as usize;
            if let Some(error) = &verdicts[i] {
                errors.push(Rejected { line, ..error.clone() });
                continue;
            }
            let series = self.builder.series_of(nth_key(&old.key_ends, &old.keys, i), old.hashes[i]);
            let event = Event { metric: "", labels: &[], timestamp: row.timestamp, value: row.value, id: row.id, meta: row.meta };
            self.builder.push_row(series, &event, line);
        }
        errors
    }
}

/// What a frame may hold.
#[derive(Debug)]
pub enum Record {
    /// Events.
    Events(Batch),
    /// `DELETE /series`: forget the series of this key.
    Forget(SeriesKey),
    /// The effective configuration from here on, as its canonical text.
    Configure(String),
    /// Time has passed.
    Tick,
}

/// Builds a frame from records. The log's writer gives it its number.
#[derive(Debug)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
    rows: u32,
}

impl FrameBuilder {
    /// An empty frame that arrived at `arrival`.
    pub fn new(arrival: Timestamp) -> Self {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&arrival.nanos().to_le_bytes());
        Self { bytes, rows: 0 }
    }

    /// Appends a record and returns the number of its first row in the frame.
    pub fn push(&mut self, record: &Record) -> u32 {
        let first = self.rows;
        let out = &mut self.bytes;
        match record {
            Record::Events(batch) => {
                let builder = &batch.builder;
                out.push(EVENTS);
                put_bytes(out, batch.origin.name.as_bytes());
                put_varint(out, batch.origin.first.map_or(0, |first| first.saturating_add(1)));
                put_varint(out, builder.hashes.len() as u64);
                put_varint(out, builder.lines.len() as u64);
                put_varint(out, builder.rows.len() as u64);
                for (i, hash) in builder.hashes.iter().enumerate() {
                    out.extend_from_slice(&hash.to_le_bytes());
                    put_bytes(out, nth_key(&builder.key_ends, &builder.keys, i));
                }
                out.extend_from_slice(&builder.rows);
                self.rows += builder.lines.len() as u32;
            }
            Record::Forget(key) => {
                out.push(FORGET);
                put_bytes(out, key.as_bytes());
                self.rows += 1;
            }
            Record::Configure(text) => {
                out.push(CONFIGURE);
                put_bytes(out, text.as_bytes());
                self.rows += 1;
            }
            Record::Tick => {
                out.push(TICK);
                self.rows += 1;
            }
        }
        first
    }

    /// Rows so far; every record that is no batch counts as one, so that each has a position.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Bytes so far.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The frame's bytes under its number.
    pub fn seal(mut self, number: u64) -> Vec<u8> {
        let checksum = xxh3_64_with_seed(&self.bytes, number);
        self.bytes.extend_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

/// A frame as it is read.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its number in the log.
    pub number: u64,
    /// The time at which it arrived.
    pub arrival: Timestamp,
    records: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame and checks its checksum.
    ///
    /// # Errors
    /// Bytes that are not the frame of this number: damaged, cut, or of a newer version.
    pub fn open(number: u64, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut body = sealed(number, bytes)?;
        if take_array::<1>(&mut body)? != [VERSION] {
            return Err(undecodable("a frame of another version"));
        }
        let arrival = Timestamp::from_nanos(i64::from_le_bytes(take_array(&mut body)?));
        Ok(Self { number, arrival, records: body })
    }

    /// Whether bytes are not what was sealed under this number; the frame of a newer version is not damaged.
    pub fn is_damaged(number: u64, bytes: &[u8]) -> bool {
        sealed(number, bytes).is_err()
    }

    /// The records, each with the number of its first row.
    pub fn records(&self) -> Records<'a> {
        Records { rest: self.records, row: 0 }
    }
}

/// What was sealed under this number, without its checksum.
fn sealed(number: u64, bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let (body, checksum) = bytes.split_last_chunk::<8>().ok_or(undecodable("a frame that is cut"))?;
    if xxh3_64_with_seed(body, number) == u64::from_le_bytes(*checksum) {
        Ok(body)
    } else {
        Err(undecodable("a frame whose checksum does not match"))
    }
}

/// The records of a frame in order.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    row: u32,
}

/// A record as it is read.
#[derive(Clone, Debug)]
pub enum RecordRef<'a> {
    /// Events.
    Events(BatchRef<'a>),
    /// Forget the series with these key bytes.
    Forget(&'a [u8]),
    /// The effective configuration from here on.
    Configure(&'a str),
    /// Time has passed.
    Tick,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u32, RecordRef<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let first = self.row;
        let record = self.take_record();
        if record.is_err() {
            self.rest = &[];
        }
        Some(record.map(|record| (first, record)))
    }
}

impl<'a> Records<'a> {
    fn take_record(&mut self) -> Result<RecordRef<'a>, DecodeError> {
        let rest = &mut self.rest;
        let record = match take_array::<1>(rest)?[0] {
            EVENTS => {
                let name = take_str(rest)?;
                let first = take_varint(rest)?.checked_sub(1);
                let n_series = take_varint(rest)?;
                let n_rows = u32::try_from(take_varint(rest)?).map_err(|_| undecodable("a count of rows"))?;
                let row_bytes = usize::try_from(take_varint(rest)?).map_err(|_| undecodable("a length of rows"))?;
                let mut series = Vec::new();
                for _ in 0..n_series {
                    series.push(SeriesRef { hash: u128::from_le_bytes(take_array(rest)?), key: take_bytes(rest)? });
                }
                let rows = take(rest, row_bytes)?;
                self.count(n_rows)?;
                return Ok(RecordRef::Events(BatchRef { origin: name, first, series, n_rows, rows }));
            }
            FORGET => RecordRef::Forget(take_bytes(rest)?),
            CONFIGURE => RecordRef::Configure(take_str(rest)?),
            TICK => RecordRef::Tick,
            _ => return Err(undecodable("a record of an unknown kind")),
        };
        self.count(1)?;
        Ok(record)
    }

    fn count(&mut self, rows: u32) -> Result<(), DecodeError> {
        self.row = self.row.checked_add(rows).ok_or(undecodable("a frame of more rows than can be counted"))?;
        Ok(())
    }
}

/// A series as a batch names it.
#[derive(Clone, Copy, Debug)]
pub struct SeriesRef<'a> {
    /// The hash of the key.
    pub hash: SeriesHash,
    /// The key's canonical bytes.
    pub key: &'a [u8],
}

/// A batch as it is read.
#[derive(Clone, Debug)]
pub struct BatchRef<'a> {
    /// The origin's name.
    pub origin: &'a str,
    /// The position of the first row in its source, where rows have one.
    pub first: Option<u64>,
    /// Each series of the batch once; rows refer to it by index.
    pub series: Vec<SeriesRef<'a>>,
    /// Number of rows.
    pub n_rows: u32,
    rows: &'a [u8],
}

impl<'a> BatchRef<'a> {
    /// The rows in order. A row that cannot be decoded ends them (the checksum was right, so only a fault of ours could).
    pub fn rows(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let mut rest = self.rows;
        let n_series = self.series.len() as u32;
        std::iter::from_fn(move || take_row(&mut rest).ok().filter(|row| row.series < n_series))
    }
}

/// A row as it is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    /// Index into the batch's series.
    pub series: u32,
    /// Event time.
    pub timestamp: Timestamp,
    /// Finite.
    pub value: f64,
    /// The event's own id.
    pub id: Option<&'a str>,
    /// Whether its `event_id` is made of its position.
    pub made_id: bool,
    /// A JSON object, carried along.
    pub meta: Option<&'a str>,
}

#[inline]
fn take_row<'a>(rest: &mut &'a [u8]) -> Result<Row<'a>, DecodeError> {
    let series = u32::try_from(take_varint(rest)?).map_err(|_| undecodable("the series of a row"))?;
    let fixed: [u8; 17] = take_array(rest)?;
    let number = |at: usize| -> [u8; 8] { std::array::from_fn(|i| fixed[at + i]) };
    let flags = fixed[0];
    let mut text = |flag: u8| if flags & flag == 0 { Ok(None) } else { take_str(rest).map(Some) };
    Ok(Row {
        series,
        timestamp: Timestamp::from_nanos(i64::from_le_bytes(number(1))),
        value: f64::from_le_bytes(number(9)),
        id: text(HAS_ID)?,
        meta: text(HAS_META)?,
        made_id: flags & MADE_ID != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::Code;

    fn event<'a>(metric: &'a str, labels: &'a [(&'a str, &'a str)], seconds: i64, value: f64) -> Event<'a> {
        Event { metric, labels, timestamp: Timestamp::from_seconds(seconds), value, id: None, meta: None }
    }

    fn two_series() -> Batch {
        let mut batch = BatchBuilder::with_made_ids();
        batch.push(&event("a", &[("x", "1")], 1, 1.5), 1);
        batch.push(&Event { id: Some("i"), meta: Some("{}"), ..event("b", &[], 2, -2.0) }, 2);
        batch.push(&event("a", &[("x", "1")], 3, 3.0), 4);
        batch.finish(Origin { name: "upload:1".into(), first: Some(7) })
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let mut frame = FrameBuilder::new(Timestamp::from_seconds(9));
        assert_eq!(frame.push(&Record::Events(two_series())), 0);
        assert_eq!(frame.push(&Record::Forget(SeriesKey::new("a", &[]))), 3);
        assert_eq!(frame.push(&Record::Configure("w".into())), 4);
        assert_eq!(frame.push(&Record::Tick), 5);
        let bytes = frame.seal(12);
        let frame = Frame::open(12, &bytes).unwrap();
        assert_eq!((frame.number, frame.arrival), (12, Timestamp::from_seconds(9)));
        let records: Vec<_> = frame.records().map(Result::unwrap).collect();
        assert_eq!(records.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [0, 3, 4, 5]);
        let RecordRef::Events(batch) = &records[0].1 else { panic!("not events: {:?}", records[0]) };
        assert_eq!((batch.origin, batch.first, batch.n_rows, batch.series.len()), ("upload:1", Some(7), 3, 2));
        let rows: Vec<_> = batch.rows().collect();
        assert_eq!(
            rows.iter().map(|r| (r.series, r.value, r.id, r.made_id, r.meta)).collect::<Vec<_>>(),
            [(0, 1.5, None, true, None), (1, -2.0, Some("i"), false, Some("{}")), (0, 3.0, None, true, None)]
        );
        assert!(matches!(&records[1].1, RecordRef::Forget(key) if *key == SeriesKey::new("a", &[]).as_bytes()));
        assert!(matches!(&records[2].1, RecordRef::Configure("w")) && matches!(&records[3].1, RecordRef::Tick));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let mut frame = FrameBuilder::new(Timestamp::from_seconds(9));
        frame.push(&Record::Events(two_series()));
        let bytes = frame.seal(3);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::open(3, &damaged).is_err(), "bit {bit}");
        }
        assert!((0..bytes.len()).all(|n| Frame::open(3, &bytes[..n]).is_err()), "cut");
        assert!(Frame::open(4, &bytes).is_err(), "under another number");
    }

    /// A frame of these record bytes with the right checksum.
    fn sealed(records: &[u8]) -> Vec<u8> {
        let mut frame = FrameBuilder::new(Timestamp::from_seconds(9));
        frame.bytes.extend_from_slice(records);
        frame.seal(3)
    }

    #[test]
    fn wrong_counts_under_a_right_checksum_are_errors() {
        let mut events = vec![EVENTS, 0, 0, 0];
        put_varint(&mut events, u64::from(u32::MAX));
        events.push(0);
        let bytes = sealed(&[&events[..], &[TICK]].concat());
        let records: Vec<_> = Frame::open(3, &bytes).unwrap().records().map(|record| record.is_ok()).collect();
        assert_eq!(records, [true, false], "more rows than can be counted");

        let mut events = vec![EVENTS, 0, 0, 1, 1, 22];
        events.extend_from_slice(&[0; 17]);
        put_varint(&mut events, 1 << 32);
        events.extend_from_slice(&[0; 17]);
        let bytes = sealed(&events);
        let Some(Ok((0, RecordRef::Events(batch)))) = Frame::open(3, &bytes).unwrap().records().next() else { panic!("no events") };
        assert_eq!(batch.rows().count(), 0, "a series that no u32 holds");
    }

    #[test]
    fn refused_series_leave_with_their_lines() {
        let mut batch = two_series();
        let a = SeriesKey::new("a", &[("x", "1")]).hash();
        let error = Rejected { line: 0, field: "metric".into(), code: Code::SeriesLimit, message: "full".into() };
        assert_eq!(batch.first_id(), None);
        assert!(batch.refuse(|_| None).is_empty());
        let refused = batch.refuse(|hash| (hash == a).then(|| error.clone()));
        assert_eq!(refused.iter().map(|r| r.line).collect::<Vec<_>>(), [1, 4]);
        assert_eq!((batch.len(), batch.series().len(), batch.key(0).name(), batch.first_id()), (1, 1, "b".into(), Some("i")));
    }
}
