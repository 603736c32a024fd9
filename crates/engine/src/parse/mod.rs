//! From bytes to events.
//!
//! Everything that comes in becomes [`Event`](crate::Event)s in a [`BatchBuilder`](crate::frame::BatchBuilder), or
//! [`Rejected`] rows with line, field, code and message.
//!
//! | what | by | where |
//! |---|---|---|
//! | `POST /events/raw` | [`parse_event`] | `batch.rs` |
//! | a message of Kafka | [`parse_event_at`], [`parse_batch`] | `batch.rs` |
//! | `POST /events`: NDJSON or a JSON array | [`parse_batch`] | `batch.rs` |
//! | a file as it was sent: packed, UTF-16 | [`unpack`] | `file/unpack.rs` |
//! | a file's rows: CSV, TXT, JSON, NDJSON | [`FileReader`] | `file/` |
//!
//! One JSON event is read by `json.rs` (tokens by `lexer.rs`, numbers by `decimal.rs`), in its usual form by `plain.rs`; `array.rs` checks the grammar of
//! arrays of any size in pieces; `time.rs` knows the forms of times and their limits.
//!
//! No clock here: the time of arrival is an argument, so the same bytes with the same arrival give the same events.

mod array;
mod batch;
mod decimal;
mod file;
mod json;
mod lexer;
mod plain;
mod time;

pub use batch::{Context, NotJson, parse_batch, parse_event, parse_event_at};
pub use file::{FileError, FileOptions, FileReader, Format, More, UnpackError, Unpacked, series_name, unpack};
pub use time::Arrival;

use crate::event::{MAX_NAME_BYTES, is_metric};
use crate::rejection::{Code, Rejected};
use crate::timestamp::Timestamp;

/// The most bytes of one event or row: 64 KiB.
pub const MAX_EVENT_BYTES: usize = 64 << 10;

/// The most levels of nesting in an event; its own object is the first.
pub const MAX_LEVELS: usize = 16;

/// A refusal whose line is not known yet.
#[cold]
fn reject(field: &str, code: Code, message: String) -> Rejected {
    Rejected { line: 0, field: field.to_owned(), code, message }
}

/// A text in quotes for a message: escaped, cut after 40 characters.
fn shown(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
        None => format!("{text:?}"),
    }
}

/// Checks what names a series.
#[inline]
fn check_metric(metric: &str) -> Result<(), Rejected> {
    if is_metric(metric) {
        return Ok(());
    }
    let message = match metric.len() {
        0 => "the metric is empty".to_owned(),
        n @ ..=MAX_NAME_BYTES => format!("the metric {} holds a control character ({n} bytes)", shown(metric)),
        n => format!("the metric {} has {n} bytes, at most {MAX_NAME_BYTES} are allowed", shown(metric)),
    };
    Err(reject("metric", Code::InvalidMetric, message))
}

/// Checks a name of 1–255 bytes: an id, or that of a label.
#[inline]
fn check_name(name: &str, field: &str, code: Code, what: &str) -> Result<(), Rejected> {
    match name.len() {
        1..=MAX_NAME_BYTES => Ok(()),
        0 => Err(reject(field, code, format!("{what} is empty"))),
        n => Err(reject(field, code, format!("{what} {} has {n} bytes, at most {MAX_NAME_BYTES} are allowed", shown(name)))),
    }
}

/// Reads a time as a person or a program writes it in a query: epoch seconds or RFC 3339; UTC where no offset stands.
///
/// # Errors
/// What is wrong with it.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let written = time::parse_text(text, time::Forms::File { decimal_comma: false }).map_err(|rejected| rejected.message)?;
    match written {
        time::WrittenTime::Instant(nanos) => Ok(Timestamp::from_nanos(nanos)),
        time::WrittenTime::Local(wall) => wall.at_offset(0).map(Timestamp::from_nanos).map_err(|rejected| rejected.message),
        time::WrittenTime::Absent => Err("the time is empty".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_queries_are_epoch_seconds_or_rfc_3339() {
        for text in ["1737453600", "1737453600.0", "2025-01-21T10:00:00Z", "2025-01-21T12:00:00+02:00", "2025-01-21 10:00"] {
            assert_eq!(parse_time(text), Ok(Timestamp::from_seconds(1_737_453_600)), "{text}");
        }
        assert!(["", "yesterday", "NaN", "-1"].iter().all(|text| parse_time(text).is_err()));
    }

    #[test]
    fn values_at_fault_are_shown_in_quotes_and_cut() {
        assert_eq!(shown("a\n"), "\"a\\n\"");
        assert_eq!(shown(&"é".repeat(41)), format!("\"{}…\"", "é".repeat(40)));
    }

    #[test]
    fn names_say_what_is_wrong_with_them() {
        for (metric, word) in [("", "is empty"), ("a\nb", "control character"), (&"é".repeat(128), "256 bytes")] {
            let rejected = check_metric(metric).unwrap_err();
            assert!(rejected.code == Code::InvalidMetric && rejected.message.contains(word), "{rejected:?}");
        }
    }
}
