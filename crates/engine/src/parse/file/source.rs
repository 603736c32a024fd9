//! A file through a buffer that does not grow.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

pub(super) const CAPACITY: usize = 256 << 10;

/// Reads ahead so that a whole row lies in one piece. Memory: 256 KiB, or twice the largest piece asked for.
#[derive(Debug)]
pub(super) struct Source<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Where `start` stands in the file.
    offset: u64,
    at_end: bool,
}

impl<R: Read> Source<R> {
    /// A file that stands at `offset`.
    pub(super) fn new(reader: R, offset: u64) -> Self {
        Self { reader, buffer: Vec::new(), start: 0, end: 0, offset, at_end: false }
    }

    /// What is there and not consumed.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Whether nothing comes behind [`Source::bytes`].
    #[inline]
    pub(super) fn is_last(&self) -> bool {
        self.at_end
    }

    /// Where [`Source::bytes`] begins in the file.
    #[inline]
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    #[inline]
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        self.offset += n as u64;
    }

    /// Reads on until at least `n` bytes are there, or all that the file has.
    pub(super) fn fill(&mut self, n: usize) -> io::Result<()> {
        if self.at_end || self.end - self.start >= n {
            return Ok(());
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < CAPACITY.max(2 * n) {
            self.buffer.resize(CAPACITY.max(2 * n), 0);
        }
        while self.end < n {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.at_end = true;
                    break;
                }
                Ok(more) => self.end += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<R: Read + Seek> Source<R> {
    /// Goes on at `offset`.
    pub(super) fn seek(&mut self, offset: u64) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(offset))?;
        (self.start, self.end, self.offset, self.at_end) = (0, 0, offset, false);
        Ok(())
    }

    /// The length of the file; it has to be seeked afterwards.
    pub(super) fn len(&mut self) -> io::Result<u64> {
        self.reader.seek(SeekFrom::End(0))
    }
}
