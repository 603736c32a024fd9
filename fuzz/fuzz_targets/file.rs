//! A file of any kind: the same rows in whatever batches and pieces it is read, and after a restart.
//!
//! The first six bytes choose the options; `000000` are the usual ones.
#![no_main]

use std::io::{Cursor, Read, Seek, SeekFrom};

use anomaly_engine::frame::BatchBuilder;
use anomaly_engine::parse::{Arrival, FileError, FileOptions, FileReader, Format, MAX_EVENT_BYTES, More, unpack};
use anomaly_engine::{LISTED_ERRORS, NANOS, Report, Timestamp};
use anomaly_fuzz::{ARRIVAL, Choices, Sample, is_json, samples};
use jiff::tz::{Offset, TimeZone};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let name = choices.of(&["x.csv", "dir/x.txt", "x.json", "x.ndjson", "x.jsonl.gz", "", "é\n.csv", "x"]);
    let zone =
        choices.of(&["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "+05:30", "Pacific/Apia"]);
    let interval = choices.of(&[None, Some(NANOS), Some(1), Some(3600 * NANOS), Some(i64::MAX)]);
    let (time, require_timestamps) =
        choices.of(&[(ARRIVAL, false), (ARRIVAL, true), (Timestamp::from_nanos(i64::MAX), false), (Timestamp::from_seconds(0), false)]);
    let max_event_bytes = choices.of(&[MAX_EVENT_BYTES, 30, 0, 1, 200]);
    let size = if choices.byte() % 16 == 3 { Size::Repeated } else { Size::Plain };
    let options = FileOptions {
        zone: if zone.starts_with('+') { TimeZone::fixed(Offset::from_seconds(19_800).unwrap()) } else { TimeZone::get(zone).unwrap() },
        interval,
        require_timestamps,
        max_event_bytes,
        ..FileOptions::new(name, Arrival { time, max_future: 60 * NANOS })
    };
    let skip = data.len() as u64 ^ u64::from(data.last().copied().unwrap_or(0));
    let mut plain = Vec::new();
    if unpack(choices.rest(), 1 << 20, &mut plain).is_err() {
        return;
    }
    if let Size::Repeated = size {
        repeat(&mut plain);
    }

    let mut whole = match FileReader::open(Cursor::new(&plain), &options) {
        Ok(reader) => reader,
        Err(FileError::Io(error)) => panic!("{error}"),
        Err(FileError::Refused(rejected)) => {
            assert!(!rejected.message.is_empty());
            if rejected.message.starts_with("the array is not JSON") && !rejected.message.contains("UTF-8") {
                assert_ne!(is_json(&plain), Some(true), "refused, and JSON: {rejected:?}");
            }
            return;
        }
    };
    if whole.format() == Format::Json && plain.trim_ascii_start().starts_with(b"[") {
        assert_ne!(is_json(&plain), Some(false), "read as an array, and no JSON");
    }
    let told = read(&mut whole, 1000);
    check(&told);
    // Small batches of a large file would take a second.
    let batches = if let Size::Repeated = size { &[701][..] } else { &[1, 7] };
    for &batch in batches {
        let mut reader = FileReader::open(Slow::new(&plain, batch), &options).expect("it opened before");
        assert_eq!(read(&mut reader, batch), told, "in batches and pieces of {batch}");
    }
    let skip = skip % (told.report.accepted + 2);
    let mut reader = FileReader::open(Cursor::new(&plain), &options).expect("it opened before");
    reader.skip(skip);
    let mut rest = read(&mut reader, batches[batches.len() - 1]);
    let tail = told.rows.get(skip as usize..).unwrap_or_default();
    assert_eq!(rest.rows, tail, "{skip} skipped");
    rest.rows.clone_from(&told.rows);
    assert_eq!(rest, told, "{skip} skipped");
});

#[derive(Clone, Copy)]
enum Size {
    Plain,
    /// The second half again and again, so that it does not fit into buffers and blocks.
    Repeated,
}

fn repeat(plain: &mut Vec<u8>) {
    let half = plain.len() / 2;
    let from = memchr(plain, half).map_or(half, |at| at + 1);
    let tail = plain[from..].to_vec();
    while tail.len() > 40 && plain.len() < 150 << 10 {
        plain.extend_from_slice(&tail);
    }
}

fn memchr(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].iter().position(|&b| b == b'\n').map(|n| from + n)
}

/// All that a reader has said.
#[derive(Debug, PartialEq)]
struct Told {
    rows: Vec<Sample>,
    report: Report,
    warnings: Vec<String>,
    span: Option<(Timestamp, Timestamp)>,
}

fn read<R: Read + Seek>(reader: &mut FileReader<R>, batch: usize) -> Told {
    let mut rows = Vec::new();
    loop {
        let mut builder = BatchBuilder::new();
        let more = reader.next_batch(&mut builder, batch).expect("memory can be read");
        rows.append(&mut samples(builder));
        if more == More::End {
            break;
        }
    }
    assert_eq!(reader.accepted(), reader.report().accepted);
    Told { rows, report: reader.report(), warnings: reader.warnings(), span: reader.span() }
}

fn check(told: &Told) {
    let Report { accepted, rejected, errors } = &told.report;
    assert_eq!(*accepted as usize, told.rows.len());
    assert_eq!(errors.len(), (*rejected as usize).min(LISTED_ERRORS));
    assert!(errors.iter().all(|error| error.line >= 1 && !error.message.is_empty()));
    assert!(errors.is_sorted_by_key(|error| error.line));
    let times = || told.rows.iter().map(|row| Timestamp::from_nanos(row.nanos));
    assert_eq!(told.span, times().min().zip(times().max()));
}

/// Gives a few bytes at a time.
struct Slow<'a> {
    cursor: Cursor<&'a [u8]>,
    size: usize,
}

impl<'a> Slow<'a> {
    fn new(bytes: &'a [u8], batch: usize) -> Self {
        Self { cursor: Cursor::new(bytes), size: if batch > 7 { 5000 } else { batch } }
    }
}

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = into.len().min(self.size);
        self.cursor.read(&mut into[..n])
    }
}

impl Seek for Slow<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.cursor.seek(to)
    }
}
