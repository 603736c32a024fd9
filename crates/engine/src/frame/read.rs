//! Frames as they are read.

use std::ops::Deref;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{CONFIGURE, EVENTS, EVENTS_APART, FORGET, HAS_ID, HAS_META, MADE_ID, OWNER, TICK, VERSION};
use crate::series_key::SeriesHash;
use crate::timestamp::Timestamp;
use crate::varint::{DecodeError, take, take_array, take_bytes, take_str, take_varint, undecodable};

/// The fewest bytes of a series in a batch: its hash, and a key of an empty metric without labels.
const SERIES: usize = 19;

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
    /// Who appended what follows in this frame.
    Owner(u64),
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
            kind @ (EVENTS | EVENTS_APART) => {
                let name = take_str(rest)?;
                let first = take_varint(rest)?.checked_sub(1);
                let n_series = take_varint(rest)?;
                let n_rows = u32::try_from(take_varint(rest)?).map_err(|_| undecodable("a count of rows"))?;
                let row_bytes = usize::try_from(take_varint(rest)?).map_err(|_| undecodable("a length of rows"))?;
                let series = SeriesRefs::take(rest, n_series)?;
                let rows = take(rest, row_bytes)?;
                let before = *rest;
                for _ in 0..if kind == EVENTS_APART { n_rows } else { 0 } {
                    take_varint(rest)?;
                }
                let gaps = &before[..before.len() - rest.len()];
                self.count(n_rows)?;
                return Ok(RecordRef::Events(BatchRef { origin: name, first, series, n_rows, rows, gaps }));
            }
            FORGET => RecordRef::Forget(take_bytes(rest)?),
            CONFIGURE => RecordRef::Configure(take_str(rest)?),
            TICK => RecordRef::Tick,
            OWNER => RecordRef::Owner(take_varint(rest)?),
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

/// The series of a batch, as a slice. That of a single event needs no allocation.
#[derive(Clone, Debug)]
pub enum SeriesRefs<'a> {
    /// One alone.
    One([SeriesRef<'a>; 1]),
    /// Any other number.
    Many(Vec<SeriesRef<'a>>),
}

impl<'a> SeriesRefs<'a> {
    fn take(rest: &mut &'a [u8], n: u64) -> Result<Self, DecodeError> {
        let one = |rest: &mut &'a [u8]| Ok(SeriesRef { hash: u128::from_le_bytes(take_array(rest)?), key: take_bytes(rest)? });
        if n == 1 {
            return Ok(Self::One([one(rest)?]));
        }
        // As many as there are bytes for: a count alone must not take memory.
        let mut many = Vec::with_capacity((n as usize).min(rest.len() / SERIES));
        for _ in 0..n {
            many.push(one(rest)?);
        }
        Ok(Self::Many(many))
    }
}

impl<'a> Deref for SeriesRefs<'a> {
    type Target = [SeriesRef<'a>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

/// A batch as it is read.
#[derive(Clone, Debug)]
pub struct BatchRef<'a> {
    /// The origin's name.
    pub origin: &'a str,
    /// The position of the first row in its source, where rows have one.
    pub first: Option<u64>,
    /// Each series of the batch once; rows refer to it by index.
    pub series: SeriesRefs<'a>,
    /// Number of rows.
    pub n_rows: u32,
    rows: &'a [u8],
    /// Before each row; empty where rows follow each other.
    gaps: &'a [u8],
}

impl<'a> BatchRef<'a> {
    /// The rows in order. A row that cannot be decoded ends them (the checksum was right, so only a fault of ours could).
    pub fn rows(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let mut rest = self.rows;
        let n_series = self.series.len() as u32;
        std::iter::from_fn(move || take_row(&mut rest).ok().filter(|row| row.series < n_series)).take(self.n_rows as usize)
    }

    /// The position of the last row in its source, and how many of the first rows stand at or below `taken`.
    pub(crate) fn positions(&self, taken: Option<u64>) -> Option<(u64, u32)> {
        let first = self.first.filter(|_| self.n_rows > 0)?;
        if self.gaps.is_empty() {
            let known = taken.map_or(0, |taken| taken.saturating_add(1).saturating_sub(first).min(u64::from(self.n_rows)));
            return Some((first.saturating_add(u64::from(self.n_rows) - 1), known as u32));
        }
        let (mut rest, mut next, mut last, mut known) = (self.gaps, first, first, 0);
        while let Ok(gap) = take_varint(&mut rest) {
            last = next.saturating_add(gap);
            next = last.saturating_add(1);
            known += u32::from(taken.is_some_and(|taken| last <= taken));
        }
        Some((last, known))
    }

    /// The series of each row in order, by index, at less cost than the rows.
    pub(crate) fn series_of_rows(&self) -> impl Iterator<Item = u32> + use<'a> {
        let mut rest = self.rows;
        let n_series = self.series.len() as u32;
        std::iter::from_fn(move || skip_row(&mut rest).ok().filter(|series| *series < n_series)).take(self.n_rows as usize)
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
pub(super) fn take_row<'a>(rest: &mut &'a [u8]) -> Result<Row<'a>, DecodeError> {
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

/// Goes past a row, and tells its series.
#[inline]
fn skip_row(rest: &mut &[u8]) -> Result<u32, DecodeError> {
    let series = u32::try_from(take_varint(rest)?).map_err(|_| undecodable("the series of a row"))?;
    let [flags, ..]: [u8; 17] = take_array(rest)?;
    for _ in 0..(flags & (HAS_ID | HAS_META)).count_ones() {
        take_bytes(rest)?;
    }
    Ok(series)
}
