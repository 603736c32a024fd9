//! Files that are sorted newest first, read in time order with flat memory.
//!
//! Places in the file are remembered sparsely, one for every 64 KiB. The blocks between them are read from the last to the
//! first, and the rows of each from its last to its first. So rows of the same time come in the reverse of the file's order,
//! as rows of different times do: in such a file the later row is the older.

use std::io::{self, Read, Seek};
use std::ops::Range;

use super::rows::{Place, RowFault, RowReader};

const BLOCK: u64 = 64 << 10;

/// How many times falling steps must outnumber rising ones.
const FAR: u64 = 10;

/// What a look at all rows in their order has found. Memory: 16 bytes for every 64 KiB of file.
#[derive(Debug, Default)]
pub(super) struct Order {
    blocks: Vec<Place>,
    falling: u64,
    rising: u64,
    first: Option<i64>,
    last: Option<i64>,
}

impl Order {
    /// Remembers where a row begins; `place.line` is the line before it.
    pub(super) fn place(&mut self, place: Place) {
        if self.blocks.last().is_none_or(|block| place.offset - block.offset >= BLOCK) {
            self.blocks.push(place);
        }
    }

    /// Counts a row's time.
    pub(super) fn time(&mut self, time: i64) {
        self.first.get_or_insert(time);
        if let Some(last) = self.last.replace(time) {
            self.falling += u64::from(time < last);
            self.rising += u64::from(time > last);
        }
    }

    /// Whether the file is sorted newest first: its last time is before its first, and falling steps far outnumber rising
    /// ones.
    pub(super) fn is_newest_first(&self) -> bool {
        self.last < self.first && self.falling > FAR * self.rising
    }

    /// The rows from the last to the first.
    pub(super) fn backwards(self) -> Backwards {
        Backwards { blocks: self.blocks, end: u64::MAX, bytes: Vec::new(), rows: Vec::new() }
    }
}

/// A row's line, and where it lies among the bytes held, or why it cannot be had.
type HeldRow = (u64, Result<Range<usize>, RowFault>);

/// Reads rows from the last to the first. Memory: one block, and the places of all.
#[derive(Debug)]
pub(super) struct Backwards {
    blocks: Vec<Place>,
    /// Where the rows that were read already begin.
    end: u64,
    bytes: Vec<u8>,
    rows: Vec<HeldRow>,
}

impl Backwards {
    /// The row before the last one that was returned; it lies in [`Backwards::bytes`].
    pub(super) fn next<R: Read + Seek>(&mut self, reader: &mut RowReader<R>, in_array: bool) -> io::Result<Option<HeldRow>> {
        while self.rows.is_empty() {
            let Some(block) = self.blocks.pop() else { return Ok(None) };
            self.bytes.clear();
            reader.seek(block, in_array)?;
            while let Some(row) = reader.next()? {
                if row.offset >= self.end {
                    break;
                }
                let range = row.range.map(|range| {
                    let start = self.bytes.len();
                    self.bytes.extend_from_slice(&reader.bytes()[range]);
                    start..self.bytes.len()
                });
                self.rows.push((row.line, range));
            }
            self.end = block.offset;
        }
        Ok(self.rows.pop())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
