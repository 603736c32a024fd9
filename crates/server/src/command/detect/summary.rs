//! What is said of a run on standard error: warnings, the first row errors, and one closing line.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use anomaly_engine::{Code, Outputs, Report, SeriesHash};

use crate::command::terminal::{Note, Notes};
use crate::upload::tally::FileTally;

/// Row errors of a file that are written; all are counted.
const SHOWN_ERRORS: usize = 5;
/// Series with anomalies that are told apart; beyond, the closing line says "more than".
const COUNTED_SERIES: usize = 1_000_000;
/// What may be done about a series of which a file came too late.
const LATE_ADVICE: &str = "name its files in the order of time";

/// What a run came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Files that were read.
    pub files: u64,
    /// Files that could not be.
    pub failed: u64,
    /// Rows that were taken.
    pub rows: u64,
    /// Rows that were not.
    pub rejected: u64,
    /// Rows too late to be judged.
    pub late: u64,
    /// Rows whose id came before.
    pub duplicates: u64,
    /// Rows that fired.
    pub anomalies: u64,
    /// Series in which a row fired.
    pub series: BTreeSet<SeriesHash>,
}

impl Summary {
    /// Takes the numbers of a file.
    pub(super) fn add(&mut self, file: &FileNotes) {
        if file.report.accepted == 0 {
            self.failed += 1;
        } else {
            self.files += 1;
        }
        self.rows += file.report.accepted;
        self.rejected += file.report.rejected;
        self.late += file.late;
        self.duplicates += file.duplicates;
    }

    /// Counts the anomalies of a batch.
    pub(super) fn see(&mut self, outputs: &Outputs) {
        self.anomalies += outputs.anomalies.len() as u64;
        for anomaly in &outputs.anomalies {
            if self.series.len() < COUNTED_SERIES {
                self.series.insert(anomaly.key.hash());
            }
        }
    }
}

impl Summary {
    /// `3 anomalies in 1 series`.
    pub(super) fn found(&self) -> String {
        let more = if self.series.len() == COUNTED_SERIES { "more than " } else { "" };
        match self.anomalies {
            0 => "no anomalies".into(),
            n => format!("{} in {more}{} series", counted(n, "anomaly", "anomalies"), thousands(self.series.len() as u64)),
        }
    }

    /// `4,032 rows from 1 file`.
    pub(super) fn read(&self) -> String {
        format!("{} from {}", counted(self.rows, "row", "rows"), counted(self.files, "file", "files"))
    }
}

impl fmt::Display for Summary {
    /// `3 anomalies in 1 series; 4,032 rows from 1 file, 2 rejected, 0 late`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}, {} rejected, {} late", self.found(), self.read(), thousands(self.rejected), thousands(self.late))?;
        if self.duplicates > 0 {
            write!(f, ", {}", counted(self.duplicates, "duplicate", "duplicates"))?;
        }
        if self.failed > 0 {
            write!(f, "; {} could not be read", counted(self.failed, "file", "files"))?;
        }
        Ok(())
    }
}

/// What there is to say of one file.
#[derive(Debug, Default)]
pub(super) struct FileNotes {
    report: Report,
    warnings: Vec<String>,
    late: u64,
    duplicates: u64,
    tally: FileTally,
}

impl FileNotes {
    /// Takes what became of a batch.
    pub(super) fn add(&mut self, outputs: &Outputs) {
        for batch in &outputs.batches {
            self.late += u64::from(batch.late);
            self.duplicates += u64::from(batch.duplicates);
            self.tally.add(batch);
        }
    }

    /// Takes what the parser says at the end.
    pub(super) fn finish(&mut self, report: Report, warnings: Vec<String>) {
        self.report = report;
        self.warnings = warnings;
        self.warnings.extend(self.tally.warnings(LATE_ADVICE));
    }

    /// Writes it, under the name of the file.
    pub(super) fn write(&self, file: &str, notes: &mut Notes<'_>) -> io::Result<()> {
        for warning in &self.warnings {
            notes.say(Note::Warning, format_args!("{file}: {warning}"))?;
        }
        for error in self.report.errors.iter().take(SHOWN_ERRORS) {
            let field = if error.field.is_empty() { String::new() } else { format!("{}: ", error.field) };
            notes.say(Note::Rejected, format_args!("{file} line {}: {field}{}", error.line, error.message))?;
        }
        let more = self.report.rejected.saturating_sub(SHOWN_ERRORS as u64);
        if more > 0 {
            notes.say(Note::Rejected, format_args!("{file}: and {} more", thousands(more)))?;
        }
        if self.report.errors.iter().any(|error| error.code == Code::MissingTimestamp) {
            notes.say(Note::Hint, format_args!("{file}: with --interval 1s, rows without a time are taken as a second apart"))?;
        }
        if self.report.accepted == 0 {
            notes.say(Note::Error, format_args!("{file}: no row was accepted"))?;
        }
        Ok(())
    }
}

fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(n), if n == 1 { one } else { many })
}

/// A count with commas: `4,032`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_counts() {
        let summary = Summary { anomalies: 3, series: BTreeSet::from([1]), rows: 4032, files: 1, rejected: 2, ..Summary::default() };
        assert_eq!(summary.to_string(), "3 anomalies in 1 series; 4,032 rows from 1 file, 2 rejected, 0 late");
        let summary = Summary { rows: 1, files: 2, failed: 1, duplicates: 1_234_567, ..Summary::default() };
        assert_eq!(
            summary.to_string(),
            "no anomalies; 1 row from 2 files, 0 rejected, 0 late, 1,234,567 duplicates; 1 file could not be read"
        );
    }
}
