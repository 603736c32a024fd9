//! The rows of a file: lines, records of a table whose quotes may hold line ends, or elements of an array.

use std::io::{self, Read, Seek};
use std::ops::Range;

use memchr::{memchr, memchr_iter};

use super::source::{CAPACITY, Source};
use crate::parse::array::{ArrayScanner, Step};

/// How rows are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Division {
    /// Each line.
    Lines,
    /// Each line, but for line ends in quotes.
    Records { delimiter: u8 },
    /// Each element of a JSON array.
    Elements,
    /// All of the file.
    Whole,
}

/// One row that is not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The physical line at which it begins, or the element's number; from 1.
    pub(super) line: u64,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Where it lies in [`RowReader::bytes`], or why it cannot be had.
    pub(super) range: Result<Range<usize>, RowFault>,
}

/// A row that was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowFault {
    TooLong,
    /// A quote that is never closed, or one that is closed in the middle of a cell. Reading goes on with the next line.
    Quotes,
}

/// Reads rows one by one. Memory: that of its source, whatever the length of a row.
#[derive(Debug)]
pub(super) struct RowReader<R> {
    source: Source<R>,
    division: Division,
    max: usize,
    /// Lines or elements before the next.
    line: u64,
    /// Bytes of the last row, to be consumed with the next.
    used: usize,
    scanner: ArrayScanner,
}

/// Where rows can be read from again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    /// Lines or elements before it.
    pub(super) line: u64,
}

impl<R: Read> RowReader<R> {
    /// Reads from a reader that stands at `place`; rows of more than `max` bytes are too long.
    pub(super) fn new(reader: R, division: Division, place: Place, max: usize) -> Self {
        Self { source: Source::new(reader, place.offset), division, max, line: place.line, used: 0, scanner: ArrayScanner::new() }
    }

    /// The bytes in which the last row lies.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.source.bytes()
    }

    /// Whether an array was complete when the rows ended.
    pub(super) fn is_complete(&self) -> bool {
        self.scanner.is_done()
    }

    /// The next row, `None` behind the last. An array that is broken ends early and is not complete.
    #[inline]
    pub(super) fn next(&mut self) -> io::Result<Option<Row>> {
        self.source.consume(std::mem::take(&mut self.used));
        match self.division {
            Division::Lines => self.next_line(None),
            Division::Records { delimiter } => self.next_line(Some(delimiter)),
            Division::Elements => self.next_element(),
            Division::Whole => self.whole(),
        }
    }

    fn next_line(&mut self, delimiter: Option<u8>) -> io::Result<Option<Row>> {
        loop {
            let Some((length, end)) = self.line_end()? else {
                if let Some(row) = self.skip_line()? {
                    return Ok(Some(row));
                }
                continue;
            };
            if end == 0 {
                return Ok(None);
            }
            let (line, offset) = (self.line + 1, self.source.offset());
            let bytes = &self.source.bytes()[..length];
            if let Some(delimiter) = delimiter
                && memchr(b'"', bytes).is_some()
            {
                return self.quoted(delimiter, end).map(Some);
            }
            self.line = line;
            if bytes.iter().all(u8::is_ascii_whitespace) {
                self.source.consume(end);
                continue;
            }
            self.used = end;
            let range = if length > self.max { Err(RowFault::TooLong) } else { Ok(0..length) };
            return Ok(Some(Row { line, offset, range }));
        }
    }

    /// How far a row is looked ahead: what is found must not depend on how much a read happened to bring.
    #[inline]
    fn window(&self) -> usize {
        (self.max + 3).max(CAPACITY / 2)
    }

    /// The length of the line without and with its end; `None` where it is longer than the window.
    #[inline]
    fn line_end(&mut self) -> io::Result<Option<(usize, usize)>> {
        let (window, mut searched) = (self.window(), 0);
        loop {
            let bytes = up_to(self.source.bytes(), window);
            if let Some(found) = memchr(b'\n', &bytes[searched..]) {
                let end = searched + found;
                let length = if end > 0 && bytes[end - 1] == b'\r' { end - 1 } else { end };
                return Ok(Some((length, end + 1)));
            }
            searched = bytes.len();
            if searched == window {
                return Ok(None);
            }
            if self.source.is_last() {
                return Ok(Some((searched, searched)));
            }
            self.source.fill(searched + 1)?;
        }
    }

    /// Passes over a line that is too long; `None` where it was blank.
    fn skip_line(&mut self) -> io::Result<Option<Row>> {
        self.line += 1;
        let (line, offset) = (self.line, self.source.offset());
        let blank = self.pass_line()?;
        Ok((!blank).then_some(Row { line, offset, range: Err(RowFault::TooLong) }))
    }

    /// Consumes the rest of a line; whether that is blank.
    fn pass_line(&mut self) -> io::Result<bool> {
        let mut blank = true;
        loop {
            let bytes = self.source.bytes();
            let end = memchr(b'\n', bytes);
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            blank = blank && piece.iter().all(u8::is_ascii_whitespace);
            let n = end.map_or(bytes.len(), |end| end + 1);
            self.source.consume(n);
            if end.is_some() || (self.source.is_last() && self.source.bytes().is_empty()) {
                return Ok(blank);
            }
            self.source.fill(1)?;
        }
    }

    /// A record with quotes; `first_end` is the end of its first line.
    fn quoted(&mut self, delimiter: u8, first_end: usize) -> io::Result<Row> {
        let (line, offset, window) = (self.line + 1, self.source.offset(), self.window());
        let mut found = record_end(up_to(self.source.bytes(), window), delimiter);
        let reaches_end = |found| match found {
            Record::Ends { length, end } => length == end,
            Record::Cut => true,
            Record::Broken => false,
        };
        if reaches_end(found) && !self.source.is_last() {
            self.source.fill(window)?;
            found = record_end(up_to(self.source.bytes(), window), delimiter);
        }
        let bytes = self.source.bytes();
        let (range, end) = match found {
            Record::Ends { length, end } if length == end && end == window => {
                self.line += memchr_iter(b'\n', &bytes[..end]).count() as u64 + 1;
                self.source.consume(end);
                self.pass_line()?;
                return Ok(Row { line, offset, range: Err(RowFault::TooLong) });
            }
            Record::Ends { length, end } if length > self.max => (Err(RowFault::TooLong), end),
            Record::Ends { length, end } => (Ok(0..length), end),
            Record::Cut | Record::Broken => (Err(RowFault::Quotes), first_end),
        };
        self.line += memchr_iter(b'\n', &bytes[..end]).count().max(1) as u64;
        self.used = end;
        Ok(Row { line, offset, range })
    }

    fn next_element(&mut self) -> io::Result<Option<Row>> {
        let (mut at, mut inside, mut too_long, mut offset) = (0, false, false, 0);
        loop {
            match self.scanner.step(self.source.bytes(), &mut at) {
                Err(_) => return Ok(None),
                Ok(Step::Begin) => {
                    self.source.consume(at - 1);
                    (at, inside, offset) = (1, true, self.source.offset());
                    self.line += 1;
                }
                Ok(Step::End) => {
                    self.used = at;
                    let range = if too_long || at > self.max { Err(RowFault::TooLong) } else { Ok(0..at) };
                    return Ok(Some(Row { line: self.line, offset, range }));
                }
                Ok(Step::More) => {
                    too_long |= inside && at > self.max;
                    if too_long || !inside {
                        self.source.consume(at);
                        at = 0;
                    }
                    self.source.fill(at + 1)?;
                    if self.source.bytes().len() == at {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn whole(&mut self) -> io::Result<Option<Row>> {
        self.source.fill(self.max + 1)?;
        let (line, offset, length) = (self.line + 1, self.source.offset(), self.source.bytes().len());
        if length > self.max {
            while !self.source.bytes().is_empty() {
                self.source.consume(self.source.bytes().len());
                self.source.fill(1)?;
            }
            return Ok(Some(Row { line, offset, range: Err(RowFault::TooLong) }));
        }
        self.used = length;
        Ok((length > 0).then_some(Row { line, offset, range: Ok(0..length) }))
    }
}

impl<R: Read + Seek> RowReader<R> {
    /// Goes on at the beginning of a row.
    pub(super) fn seek(&mut self, place: Place, inside_array: bool) -> io::Result<()> {
        self.source.seek(place.offset)?;
        (self.line, self.used) = (place.line, 0);
        self.scanner = if inside_array { ArrayScanner::at_element() } else { ArrayScanner::new() };
        Ok(())
    }

    /// The source, for looking around; it has to be seeked afterwards.
    pub(super) fn source(&mut self) -> &mut Source<R> {
        &mut self.source
    }
}

fn up_to(bytes: &[u8], n: usize) -> &[u8] {
    &bytes[..bytes.len().min(n)]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// Without and with its line end.
    Ends { length: usize, end: usize },
    /// The bytes end before it does.
    Cut,
    /// Something stands behind a closing quote.
    Broken,
}

/// Where the record at the start of `bytes` ends. A quote opens only at the beginning of a cell.
fn record_end(bytes: &[u8], delimiter: u8) -> Record {
    let mut at = 0;
    loop {
        at += bytes[at..].iter().take_while(|&&b| b == b' ').count();
        if bytes.get(at) == Some(&b'"') {
            at += 1;
            loop {
                let Some(quote) = memchr(b'"', &bytes[at..]) else { return Record::Cut };
                at += quote + 1;
                if bytes.get(at) != Some(&b'"') {
                    break;
                }
                at += 1;
            }
            at += bytes[at..].iter().take_while(|&&b| b == b' ').count();
        } else {
            at += bytes[at..].iter().take_while(|&&b| b != delimiter && b != b'\n').count();
            if bytes.get(at) == Some(&b'\n') && at > 0 && bytes[at - 1] == b'\r' {
                return Record::Ends { length: at - 1, end: at + 1 };
            }
        }
        match (bytes.get(at), bytes.get(at + 1)) {
            (None, _) => return Record::Ends { length: at, end: at },
            (Some(&b), _) if b == delimiter => at += 1,
            (Some(b'\n'), _) => return Record::Ends { length: at, end: at + 1 },
            (Some(b'\r'), Some(b'\n')) => return Record::Ends { length: at, end: at + 2 },
            (Some(b'\r'), None) => return Record::Ends { length: at + 1, end: at + 1 },
            _ => return Record::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const START: Place = Place { offset: 0, line: 0 };

    /// A reader that gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(into.len());
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn rows(text: &str, division: Division, max: usize) -> Vec<String> {
        let rows = rows_in_pieces(text, division, max, usize::MAX);
        for size in [1, 2, 7] {
            assert_eq!(rows_in_pieces(text, division, max, size), rows, "in pieces of {size}");
        }
        rows
    }

    fn rows_in_pieces(text: &str, division: Division, max: usize, size: usize) -> Vec<String> {
        let mut reader = RowReader::new(Slow(text.as_bytes(), size), division, START, max);
        let mut rows = Vec::new();
        while let Some(row) = reader.next().unwrap() {
            let said = match row.range {
                Ok(range) => String::from_utf8(reader.bytes()[range].to_vec()).unwrap(),
                Err(fault) => format!("{fault:?}"),
            };
            rows.push(format!("{}@{}: {said}", row.line, row.offset));
        }
        rows
    }

    #[test]
    fn lines_count_from_one_and_blank_ones_are_no_rows() {
        assert_eq!(rows("a\n\n \t\r\nb\r\nc", Division::Lines, 100), ["1@0: a", "4@7: b", "5@10: c"]);
        assert!(rows("", Division::Lines, 100).is_empty() && rows("\n \n", Division::Lines, 100).is_empty());
    }

    #[test]
    fn quotes_hold_delimiters_and_line_ends() {
        let records = Division::Records { delimiter: b',' };
        assert_eq!(rows("a,\"b\n\"\"c,\"\r\n1,2\n\n3,\"4\"", records, 100), ["1@0: a,\"b\n\"\"c,\"", "3@12: 1,2", "5@17: 3,\"4\""]);
        assert_eq!(rows("a\"b,\"c\"\nx", records, 100), ["1@0: a\"b,\"c\"", "2@8: x"], "a quote inside a cell is only a quote");
        assert_eq!(rows("\"a\" , \"b\"\n", records, 100), ["1@0: \"a\" , \"b\""]);
    }

    #[test]
    fn broken_quotes_spoil_one_line() {
        let records = Division::Records { delimiter: b',' };
        assert_eq!(rows("a,\"b\n1,2\n3,4\n", records, 100), ["1@0: Quotes", "2@5: 1,2", "3@9: 3,4"], "never closed");
        assert_eq!(rows("a,\"b\"c\n1,2\n", records, 100), ["1@0: Quotes", "2@7: 1,2"], "closed inside a cell");
        let text = format!("a,\"b\n{}", "1,2\n".repeat(100));
        let found = rows(&text, records, 50);
        assert_eq!((found.len(), &*found[0], &*found[100]), (101, "1@0: Quotes", "101@401: 1,2"), "closed nowhere near");
    }

    #[test]
    fn rows_that_are_too_long_are_passed_over() {
        for division in [Division::Lines, Division::Records { delimiter: b',' }] {
            assert_eq!(
                rows(&format!("a\n{}\nb\n{}", "x".repeat(11), "y".repeat(10)), division, 10),
                ["1@0: a", "2@2: TooLong", "3@14: b", "4@16: yyyyyyyyyy"]
            );
            let text = format!("a\n{}\nb", "x".repeat(1 << 20));
            let mut reader = RowReader::new(Slow(text.as_bytes(), 5000), division, START, 10);
            let mut lines = Vec::new();
            while let Some(row) = reader.next().unwrap() {
                lines.push((row.line, row.range.is_ok()));
                assert!(reader.source.bytes().len() <= 256 << 10);
            }
            assert_eq!(lines, [(1, true), (2, false), (3, true)]);
        }
        assert_eq!(rows("[1,\"xxxxxxxxxxxx\",2]", Division::Elements, 10), ["1@1: 1", "2@3: TooLong", "3@18: 2"]);
        let array = format!("[1,\"{}\",2]", "x".repeat(1 << 20));
        let mut reader = RowReader::new(Cursor::new(&array), Division::Elements, START, 10);
        assert!(
            (reader.next().unwrap().is_some(), reader.next().unwrap().unwrap().range.is_err(), reader.next().unwrap().unwrap().line)
                == (true, true, 3)
        );
        assert!(reader.next().unwrap().is_none() && reader.is_complete());
    }

    #[test]
    fn what_is_too_long_does_not_depend_on_the_reads() {
        let records = Division::Records { delimiter: b',' };
        assert_eq!(rows("a\n\"a\nd\",3\nb\n", records, 1), ["1@0: a", "2@2: TooLong", "4@10: b"]);
        for n in [CAPACITY / 2 - 9, CAPACITY / 2 - 4, CAPACITY / 2 - 3, CAPACITY / 2 - 1, CAPACITY / 2, CAPACITY] {
            let texts = [format!("\"{}\",1", "y".repeat(n)), format!("\"\n\",{}", "y".repeat(n)), format!("\"{}\",1", "y\n".repeat(n / 2))];
            for text in texts.map(|text| format!("{text}\nb\n{}", "x\n".repeat(CAPACITY))) {
                let pieces = [usize::MAX, 60_000].map(|size| rows_in_pieces(&text, records, 10, size));
                assert!(pieces[0] == pieces[1], "{n}: {:?}", &pieces[0][..2]);
            }
        }
        assert_eq!(rows("{\"a\":1}", Division::Whole, 3), ["1@0: TooLong"]);
        assert_eq!(rows("[[1],2]", Division::Elements, 9), ["1@1: [1]", "2@5: 2"], "the first element may be an array");
    }

    #[test]
    fn elements_have_numbers_and_broken_arrays_are_not_complete() {
        assert_eq!(rows(" [ {\"a\":[1]} ,\n 5,\"x\"] ", Division::Elements, 100), ["1@3: {\"a\":[1]}", "2@16: 5", "3@18: \"x\""]);
        for text in ["[1,2", "[1,2,]", "[1,2] x", "[1 2]"] {
            let mut reader = RowReader::new(Cursor::new(text), Division::Elements, START, 100);
            while reader.next().unwrap().is_some() {}
            assert!(!reader.is_complete(), "{text}");
        }
    }

    #[test]
    fn reading_goes_on_at_any_row() {
        let mut reader = RowReader::new(Cursor::new("[1, 22 ,3]"), Division::Elements, START, 100);
        reader.seek(Place { offset: 4, line: 1 }, true).unwrap();
        assert_eq!(reader.next().unwrap(), Some(Row { line: 2, offset: 4, range: Ok(0..2) }));
        assert_eq!(reader.next().unwrap().map(|row| row.line), Some(3));
        assert!(reader.next().unwrap().is_none() && reader.is_complete());
    }
}
