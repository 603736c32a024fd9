//! Bodies of requests: one event, NDJSON, or a JSON array.

use std::ops::Range;

use memchr::memchr;

use super::array::{ArrayScanner, Broken, Step};
use super::json::{Draft, EventReader, not_json};
use super::time::{Arrival, Forms, WrittenTime};
use super::{MAX_EVENT_BYTES, reject};
use crate::event::Event;
use crate::frame::BatchBuilder;
use crate::rejection::{Code, Rejected, Report};
use crate::timestamp::Timestamp;

/// What parsing a body depends on besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// When it arrived.
    pub arrival: Arrival,
    /// The most bytes of one event, [`MAX_EVENT_BYTES`] by default.
    pub max_event_bytes: usize,
}

impl Context {
    /// The context of bytes that arrived at `time`; events may be `max_future` nanoseconds ahead of it.
    pub const fn new(time: Timestamp, max_future: i64) -> Self {
        Self { arrival: Arrival { time, max_future }, max_event_bytes: MAX_EVENT_BYTES }
    }

    #[inline]
    fn resolve(&self, time: WrittenTime) -> Result<Timestamp, Rejected> {
        match time {
            WrittenTime::Absent => Ok(self.arrival.time),
            WrittenTime::Instant(nanos) => self.arrival.check(nanos),
            WrittenTime::Local(wall) => self.arrival.check(wall.at_offset(0)?),
        }
    }

    #[inline]
    fn push(&self, draft: &Draft<'_>, line: u64, into: &mut BatchBuilder) -> Result<(), Rejected> {
        let Draft { metric, labels, time, value, id, meta } = *draft;
        into.push(&Event { metric, labels, timestamp: self.resolve(time)?, value, id, meta }, line);
        Ok(())
    }

    fn too_large(&self, n: usize) -> Rejected {
        reject("", Code::TooLarge, format!("an event of {n} bytes, at most {} are taken", self.max_event_bytes))
    }
}

/// A body that should be a JSON array and is no JSON. Nothing of it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the array is not JSON: element {element}, byte {byte} of the body")]
pub struct NotJson {
    /// The element in which it was found, from 1.
    pub element: u64,
    /// The byte at which it was found, from 1; behind the last where the array is cut.
    pub byte: usize,
}

/// Reads the body of `POST /events/raw`: one event.
///
/// # Errors
/// Why it was not taken. [`Code::InvalidJson`] and [`Code::InvalidUtf8`] mean that it is not JSON (400),
/// [`Code::TooLarge`] that it is too large (413), the others that it is no good event (422).
pub fn parse_event(body: &[u8], context: &Context, into: &mut BatchBuilder) -> Result<(), Rejected> {
    parse_event_at(body, 1, context, into)
}

/// As [`parse_event`], for one of many: `line` is where it stands, for this error and those that the log's writer may raise.
///
/// # Errors
/// As [`parse_event`].
pub fn parse_event_at(body: &[u8], line: u64, context: &Context, into: &mut BatchBuilder) -> Result<(), Rejected> {
    one(without_bom(body), line, context, into).map_err(|rejected| Rejected { line, ..rejected })
}

/// Reads the body of `POST /events`: NDJSON, which may be a single event, or a JSON array, told apart by its first byte.
///
/// In NDJSON a line that is not JSON is an error of that line; blank lines count and are no errors.
///
/// # Errors
/// An array that is not JSON as a whole; nothing is pushed then.
pub fn parse_batch(body: &[u8], context: &Context, into: &mut BatchBuilder) -> Result<Report, NotJson> {
    let body = without_bom(body);
    into.reserve(body.len());
    match body.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'[') => array(body, context, into),
        Some(b'{') if is_one_event_on_many_lines(body) => {
            let mut report = Report::default();
            count(one(body, 1, context, into), 1, &mut report);
            Ok(report)
        }
        _ => Ok(lines(body, context, into)),
    }
}

fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

fn one(bytes: &[u8], line: u64, context: &Context, into: &mut BatchBuilder) -> Result<(), Rejected> {
    if bytes.len() > context.max_event_bytes {
        return Err(context.too_large(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(not_utf8)?;
    EventReader::new(Forms::Strict).read(text, |draft| context.push(draft, line, into))
}

#[cold]
pub(super) fn not_utf8(error: std::str::Utf8Error) -> Rejected {
    reject("", Code::InvalidUtf8, format!("not UTF-8 at byte {}", error.valid_up_to() + 1))
}

fn count(result: Result<(), Rejected>, line: u64, report: &mut Report) {
    match result {
        Ok(()) => report.accepted += 1,
        Err(rejected) => report.reject(Rejected { line, ..rejected }),
    }
}

/// Whether a body that begins with `{` is one object that goes over several lines, as `jq` writes it.
fn is_one_event_on_many_lines(body: &[u8]) -> bool {
    let start = body.len() - body.trim_ascii_start().len();
    let first_line = memchr(b'\n', &body[start..]).map_or(&body[start..], |end| &body[start..start + end]);
    let opens = matches!(first_line.trim_ascii_end().last(), Some(b'{' | b'[' | b',' | b':'));
    opens && body.len() <= 16 * MAX_EVENT_BYTES && std::str::from_utf8(body).is_ok_and(is_one_value)
}

/// Whether a text is one JSON value, whatever it means.
pub(super) fn is_one_value(text: &str) -> bool {
    !matches!(EventReader::new(Forms::Strict).read(text, |_| Ok(())), Err(Rejected { code: Code::InvalidJson, .. }))
}

fn lines(body: &[u8], context: &Context, into: &mut BatchBuilder) -> Report {
    let mut report = Report::default();
    let mut reader = EventReader::new(Forms::Strict);
    let whole = std::str::from_utf8(body).ok();
    let (mut start, mut line) = (0, 0);
    while start < body.len() {
        line += 1;
        // Nearly every line is an event in plain form: reading it finds its end as well.
        if let Some(text) = whole
            && let Some((bytes, result)) =
                reader.read_plain_line(&text[start..], context.max_event_bytes, |draft| context.push(draft, line, into))
        {
            count(result, line, &mut report);
            start += bytes;
            continue;
        }
        let end = memchr(b'\n', &body[start..]).map_or(body.len(), |n| start + n);
        let bytes = body[start..end].trim_ascii();
        if !bytes.is_empty() {
            let result = if bytes.len() > context.max_event_bytes {
                Err(context.too_large(bytes.len()))
            } else {
                let text = whole.map_or_else(|| std::str::from_utf8(bytes).map_err(not_utf8), |text| Ok(text[start..end].trim_ascii()));
                text.and_then(|text| reader.read(text, |draft| context.push(draft, line, into)))
            };
            count(result, line, &mut report);
        }
        start = end + 1;
    }
    report
}

fn array(body: &[u8], context: &Context, into: &mut BatchBuilder) -> Result<Report, NotJson> {
    let (mut element, mut at, mut start) = (0, 0, 0);
    let mut too_large = Vec::new();
    let mut scanner = ArrayScanner::new();
    let text = std::str::from_utf8(body).map_err(|error| NotJson { element, byte: error.valid_up_to() + 1 })?;
    loop {
        match scanner.step(body, &mut at) {
            Ok(Step::Begin) => {
                element += 1;
                start = at - 1;
            }
            Ok(Step::End) if at - start > context.max_event_bytes => too_large.push(start..at),
            Ok(Step::End) => {}
            Ok(Step::More) if scanner.is_done() => return Ok(elements(text, &too_large, context, into)),
            Ok(Step::More) | Err(Broken) => return Err(NotJson { element, byte: at + 1 }),
        }
    }
}

/// The elements of an array that is known to be valid, and which of them are too large to be read.
fn elements(text: &str, too_large: &[Range<usize>], context: &Context, into: &mut BatchBuilder) -> Report {
    let mut report = Report::default();
    let mut reader = EventReader::new(Forms::Strict);
    let mut too_large = too_large.iter().peekable();
    let (mut at, mut element) = (text.find('[').map_or(text.len(), |open| open + 1), 0);
    loop {
        at = text.len() - text[at..].trim_start().len();
        if text[at..].starts_with(']') || at == text.len() {
            return report;
        }
        element += 1;
        if let Some(range) = too_large.next_if(|range| range.start == at) {
            count(Err(context.too_large(range.len())), element, &mut report);
            at = text.len() - text[range.end..].trim_start().len();
        } else {
            match reader.read_at(text, at, |draft| context.push(draft, element, into)) {
                Ok((end, result)) => {
                    count(result, element, &mut report);
                    at = end;
                }
                Err(syntax) => {
                    // Not reached: the scanner has found the array valid, and a test compares the two.
                    count(Err(not_json(text, syntax)), element, &mut report);
                    return report;
                }
            }
        }
        at += usize::from(text[at..].starts_with(','));
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
