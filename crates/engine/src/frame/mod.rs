//! The log's frames: what is appended, made durable and replayed as one.
//!
//! ```text
//! frame  = version u8 · arrival i64 · record* · checksum u64 (XXH3 of all before it, seeded with the frame's number)
//! record = 1 · batch | 2 · series key (forget) | 3 · configuration as text | 4 (tick) | 5 · batch · gap* | 6 · epoch
//! batch  = origin name · first position + 1 (0: none) · series count · row count · row bytes
//!          · series* (hash u128 · key) · row*
//! row    = series index · flags u8 · timestamp i64 · value f64 · [id] · [meta]
//! ```
//! Counts and lengths are LEB128, numbers little-endian. A batch names each of its series once, so that the engine looks a
//! series up once a batch and not once a row. A row's position is (frame, row), rows counted through all batches of a frame.
//!
//! The rows of a batch follow each other in their source by one; in kind 5, which is what is left of a batch or one partition's part of it,
//! a gap for each row tells how many positions lie before it. An epoch says who appended the frame, where that must be its owner.

mod batch;
mod partition;
mod read;

pub use batch::{Batch, BatchBuilder, Origin};
pub use partition::{MAX_PARTITIONS, base_of, partition_of, partition_of_frame};
pub use read::{BatchRef, Frame, RecordRef, Records, Row, SeriesRef, SeriesRefs};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::series_key::SeriesKey;
use crate::timestamp::Timestamp;
use crate::varint::{put_bytes, put_varint};

const VERSION: u8 = 1;
const EVENTS: u8 = 1;
const FORGET: u8 = 2;
const CONFIGURE: u8 = 3;
const TICK: u8 = 4;
const EVENTS_APART: u8 = 5;
const OWNER: u8 = 6;

const HAS_ID: u8 = 1;
const HAS_META: u8 = 2;
const MADE_ID: u8 = 4;

/// Where a row stands in the log: the frame's number, and the row in it, both from the log's writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
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
    /// What follows in this frame was appended by the owner of this epoch, and counts unless a later one has appended before.
    Owner(u64),
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
            Record::Events(batch) => self.rows += batch.write(out),
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
            Record::Owner(epoch) => {
                out.push(OWNER);
                put_varint(out, *epoch);
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

/// Gives a frame that was sealed under the number `from` the number `to`; false, with the bytes as they were, where its checksum is
/// not that of `from`.
pub fn renumber(bytes: &mut [u8], from: u64, to: u64) -> bool {
    let Some((body, checksum)) = bytes.split_last_chunk_mut::<8>() else { return false };
    let is_whole = u64::from_le_bytes(*checksum) == xxh3_64_with_seed(body, from);
    if is_whole {
        *checksum = xxh3_64_with_seed(body, to).to_le_bytes();
    }
    is_whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::rejection::{Code, Rejected};

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
    fn a_frame_gets_another_number_only_while_it_is_whole() {
        let mut frame = FrameBuilder::new(Timestamp::from_seconds(9));
        frame.push(&Record::Events(two_series()));
        let mut bytes = frame.seal(0);
        assert!(!renumber(&mut bytes, 1, 2) && Frame::open(0, &bytes).is_ok(), "it is not number 1");
        assert!(renumber(&mut bytes, 0, 12) && Frame::open(12, &bytes).is_ok());
        bytes[9] ^= 1;
        assert!(!renumber(&mut bytes, 12, 13) && !renumber(&mut [], 0, 1));
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

        let mut gaps = vec![EVENTS_APART, 0, 1, 0];
        put_varint(&mut gaps, u64::from(u32::MAX));
        gaps.push(0);
        assert!(Frame::open(3, &sealed(&gaps)).unwrap().records().next().unwrap().is_err(), "more gaps than there are bytes");

        let mut built = FrameBuilder::new(Timestamp::from_seconds(9));
        built.push(&Record::Events(two_series()));
        let count = built.bytes.windows(2).position(|bytes| bytes == [2, 3]).expect("two series, three rows") + 1;
        built.bytes[count] = 2;
        let bytes = built.seal(3);
        let Some(Ok((0, RecordRef::Events(batch)))) = Frame::open(3, &bytes).unwrap().records().next() else { panic!("no events") };
        assert_eq!((batch.rows().count(), batch.series_of_rows().count()), (2, 2), "more rows than are counted");
    }

    #[test]
    fn rows_at_some_lines_are_left_out() {
        let mut batch = two_series();
        batch.leave_out(|line| line == 2);
        assert_eq!((batch.len(), batch.n_series(), batch.key(0).name()), (2, 1, "a{x=\"1\"}".into()));
        batch.leave_out(|_| true);
        assert!(batch.is_empty() && batch.n_series() == 0);
    }

    #[test]
    fn the_parts_of_a_batch_hold_its_rows_at_their_positions() {
        let mut batch = BatchBuilder::new();
        for i in 0..200_u32 {
            batch.push(&event(&format!("m{}", i % 17), &[], i64::from(i), f64::from(i)), u64::from(i) + 1);
        }
        let mut batch = batch.finish(Origin { name: "upload:1".into(), first: Some(1000) });
        batch.leave_out(|line| line % 5 == 1);
        let mut seen = Vec::new();
        for (partition, part) in batch.split(4) {
            let mut frame = FrameBuilder::new(Timestamp::default());
            frame.push(&Record::Events(part));
            let bytes = frame.seal(1);
            let Some(Ok((0, RecordRef::Events(part)))) = Frame::open(1, &bytes).unwrap().records().next() else { panic!("no events") };
            assert!(part.series.iter().all(|series| partition_of(series.hash, 4) == partition));
            let positions: Vec<u64> = part.rows().map(|row| 1000 + row.value as u64).collect();
            assert!(positions.is_sorted() && part.first == positions.first().copied());
            for (i, at) in (0..).zip(&positions) {
                assert_eq!(part.positions(Some(*at)), Some((positions[positions.len() - 1], i + 1)));
                assert_eq!(part.positions(at.checked_sub(1)), Some((positions[positions.len() - 1], i)));
            }
            seen.extend(positions);
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq((0..200).filter(|i| i % 5 != 0).map(|i| 1000 + i)));
    }

    #[test]
    fn rows_stand_where_their_lines_do() {
        let mut batch = BatchBuilder::new();
        for line in [2, 3, 7] {
            batch.push(&event("a", &[], line, 1.0), line as u64);
        }
        let batch = batch.finish(Origin { name: "key:k".into(), first: Some(0) }).at_lines();
        let mut frame = FrameBuilder::new(Timestamp::default());
        frame.push(&Record::Events(batch));
        let bytes = frame.seal(1);
        let Some(Ok((0, RecordRef::Events(batch)))) = Frame::open(1, &bytes).unwrap().records().next() else { panic!("no events") };
        assert_eq!((batch.first, [0, 1, 5, 6].map(|taken| batch.positions(Some(taken)))), (Some(1), [0, 1, 2, 3].map(|n| Some((6, n)))));
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
        assert_eq!((batch.len(), batch.n_series(), batch.key(0).name(), batch.first_id()), (1, 1, "b".into(), Some("i")));
    }
}
