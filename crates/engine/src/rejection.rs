//! What is wrong with a row, as data: line, field, code, message.

use serde::{Deserialize, Serialize};

/// How many row errors an answer lists; all are counted.
pub const LISTED_ERRORS: usize = 1000;

/// The stable codes of row errors, as written in answers and counted in `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The text is not JSON at all (HTTP 400 for a single event).
    InvalidJson,
    /// The bytes are not UTF-8.
    InvalidUtf8,
    /// A JSON value of the wrong kind, such as text where a number is needed.
    InvalidType,
    /// A needed field or column is absent.
    MissingField,
    /// An object names the same key twice.
    DuplicateKey,
    /// A field is given only under two synonyms, neither of which is the contract's own name.
    AmbiguousField,
    /// More than 16 levels of nesting.
    TooDeep,
    /// One event is larger than its limit.
    TooLarge,
    /// A metric that is empty, longer than 255 bytes or holds control characters.
    InvalidMetric,
    /// Labels that are not at most 32 pairs of text.
    InvalidLabels,
    /// A value that is not a finite number.
    InvalidValue,
    /// A time that cannot be read, is before 1970 or beyond 2262.
    InvalidTimestamp,
    /// A time that looks like milliseconds (or finer) where seconds are meant.
    MillisecondsTimestamp,
    /// A time further ahead of arrival than `MAX_FUTURE_SECONDS`.
    FutureTimestamp,
    /// A row without a time where one is needed (offline, without `--interval`).
    MissingTimestamp,
    /// An id that is not text of 1–255 bytes.
    InvalidId,
    /// `meta` that is not an object.
    InvalidMeta,
    /// A row of a file that cannot be read: a wrong number of columns, a quote that is never closed.
    InvalidRow,
    /// A file that cannot be read as a whole: empty, binary, cut, no needed column.
    InvalidFile,
    /// A new series beyond `MAX_SERIES`.
    SeriesLimit,
    /// A new series while memory is above 80 % of `MEMORY_MAX_BYTES`.
    MemoryLimit,
}

impl Code {
    /// The code as it is written, such as `invalid_value`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidType => "invalid_type",
            Self::MissingField => "missing_field",
            Self::DuplicateKey => "duplicate_key",
            Self::AmbiguousField => "ambiguous_field",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::InvalidMetric => "invalid_metric",
            Self::InvalidLabels => "invalid_labels",
            Self::InvalidValue => "invalid_value",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::MillisecondsTimestamp => "milliseconds_timestamp",
            Self::FutureTimestamp => "future_timestamp",
            Self::MissingTimestamp => "missing_timestamp",
            Self::InvalidId => "invalid_id",
            Self::InvalidMeta => "invalid_meta",
            Self::InvalidRow => "invalid_row",
            Self::InvalidFile => "invalid_file",
            Self::SeriesLimit => "series_limit",
            Self::MemoryLimit => "memory_limit",
        }
    }
}

/// One row that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The line in the file or body, from 1, blank lines and header included; in a JSON array the element's number.
    pub line: u64,
    /// The field at fault; empty where the whole row is.
    pub field: String,
    /// A stable code.
    pub code: Code,
    /// What is wrong, in lower case, with the value at fault.
    pub message: String,
}

/// What became of the rows of one request or file so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Rows (in a wide table: samples) taken.
    pub accepted: u64,
    /// Rows or samples refused.
    pub rejected: u64,
    /// The first [`LISTED_ERRORS`] refusals, by line.
    pub errors: Vec<Rejected>,
}

impl Report {
    /// Counts a refusal, and lists it while there is room.
    pub fn reject(&mut self, rejected: Rejected) {
        self.rejected += 1;
        if self.errors.len() < LISTED_ERRORS {
            self.errors.push(rejected);
        }
    }

    /// Moves rows that the log's writer refused from the accepted to the rejected; the list stays in the order of lines.
    pub fn withdraw(&mut self, refused: Vec<Rejected>) {
        self.accepted -= refused.len() as u64;
        self.list(refused.len() as u64, refused);
    }

    /// As [`Report::withdraw`], for what a report tells: it may count more than it lists.
    pub fn withdraw_counted(&mut self, refused: &Self) {
        self.accepted -= refused.rejected;
        self.add_refusals(refused);
    }

    /// Counts and lists the refusals of another report.
    pub fn add_refusals(&mut self, other: &Self) {
        self.list(other.rejected, other.errors.iter().cloned());
    }

    fn list(&mut self, rejected: u64, errors: impl IntoIterator<Item = Rejected>) {
        self.rejected += rejected;
        self.errors.extend(errors);
        self.errors.sort_by_key(|rejected| rejected.line);
        self.errors.truncate(LISTED_ERRORS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_they_are_serialised() {
        for code in [Code::InvalidJson, Code::MillisecondsTimestamp, Code::MemoryLimit, Code::InvalidUtf8] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.as_str()));
        }
    }

    #[test]
    fn the_list_of_errors_is_capped_and_the_count_is_not() {
        let mut report = Report { accepted: 5, ..Report::default() };
        let row = |line| Rejected { line, field: "value".into(), code: Code::InvalidValue, message: "no".into() };
        (2..2000).for_each(|line| report.reject(row(line)));
        report.withdraw(vec![row(1)]);
        assert_eq!((report.accepted, report.rejected, report.errors.len()), (4, 1999, LISTED_ERRORS));
        assert_eq!(report.errors[0].line, 1);
    }
}
