//! A file's rows into batches.

use std::collections::VecDeque;
use std::io::{self, Read, Seek};

use super::clock::Clock;
use super::order::Backwards;
use super::rows::{Division, RowFault, RowReader};
use super::scan::{Content, scan};
use super::{FileError, FileOptions, Format};
use crate::event::Event;
use crate::frame::BatchBuilder;
use crate::parse::batch::not_utf8;
use crate::parse::json::{Draft, EventReader};
use crate::parse::reject;
use crate::parse::time::Forms;
use crate::rejection::{Code, LISTED_ERRORS, Rejected, Report};
use crate::timestamp::Timestamp;

/// Whether a file has more rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// There may be more.
    Rows,
    /// That was the last.
    End,
}

/// Reads the rows of a file of plain UTF-8 into batches.
///
/// The same bytes and [`FileOptions`] give the same samples in the same order, however they are cut into batches, so a
/// reader can be made anew after a crash and told how many samples to [`skip`](FileReader::skip).
///
/// Memory: about 1 MiB whatever the file's size and the length of its rows, plus 16 bytes for every 64 KiB of a file that is
/// sorted newest first, plus what [`FileOptions::interval`] and a time zone need for each series (an instant).
#[derive(Debug)]
pub struct FileReader<R> {
    rows: RowReader<R>,
    format: Format,
    division: Division,
    backwards: Option<Backwards>,
    intake: Intake,
    warnings: Vec<String>,
}

impl<R: Read + Seek> FileReader<R> {
    /// Looks at a file and gets ready to read its rows. An array is read to its end first; of other files the head, the
    /// last rows, and where those are older than the first all rows once.
    ///
    /// # Errors
    /// [`FileError::Refused`] for a file that is empty or binary, has no needed column, or is an array that is not JSON;
    /// [`FileError::Io`] where it cannot be read.
    pub fn open(file: R, options: &FileOptions) -> Result<Self, FileError> {
        let (rows, plan) = scan(file, options)?;
        let intake = Intake {
            content: plan.content,
            clock: Clock::new(options),
            max_event_bytes: options.max_event_bytes,
            accepted: 0,
            rejected: 0,
            errors: VecDeque::new(),
            is_backwards: plan.backwards.is_some(),
            skip: 0,
            span: None,
        };
        Ok(Self { rows, format: plan.format, division: plan.division, backwards: plan.backwards, intake, warnings: plan.warnings })
    }

    /// Leaves out the next `samples` samples: they are read, settled and counted in the report, and not pushed.
    pub fn skip(&mut self, samples: u64) {
        self.intake.skip += samples;
    }

    /// Reads at most `max_rows` rows, good and bad, and pushes their samples; it stops once `max_rows` samples were pushed.
    /// A row is never divided, so a wide table can push up to a row's samples more.
    ///
    /// # Errors
    /// A file that cannot be read; the reader is of no use then.
    pub fn next_batch(&mut self, into: &mut BatchBuilder, max_rows: usize) -> io::Result<More> {
        let enough = into.len() + max_rows;
        for _ in 0..max_rows {
            if let Some(backwards) = &mut self.backwards {
                let Some((line, range)) = backwards.next(&mut self.rows, self.division == Division::Elements)? else {
                    return Ok(More::End);
                };
                self.intake.row(line, range.map(|range| &backwards.bytes()[range]), into);
            } else {
                let Some(row) = self.rows.next()? else { return Ok(More::End) };
                self.intake.row(row.line, row.range.map(|range| &self.rows.bytes()[range]), into);
            }
            if into.len() >= enough {
                break;
            }
        }
        Ok(More::Rows)
    }
}

impl<R> FileReader<R> {
    /// How the file is read.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Samples accepted and rejected so far, skipped ones included, and the refused rows by line.
    pub fn report(&self) -> Report {
        let Intake { accepted, rejected, errors, .. } = &self.intake;
        Report { accepted: *accepted, rejected: *rejected, errors: errors.iter().cloned().collect() }
    }

    /// Whether the file is sorted newest first, so that its rows are read from its end.
    pub fn is_backwards(&self) -> bool {
        self.backwards.is_some()
    }

    /// Samples accepted so far, those that were skipped included.
    pub fn accepted(&self) -> u64 {
        self.intake.accepted
    }

    /// The earliest and the latest event time accepted so far.
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.intake.span
    }

    /// What was assumed so far; complete behind the last row.
    pub fn warnings(&self) -> Vec<String> {
        [&self.warnings[..], &self.intake.clock.warnings()].concat()
    }
}

/// From the bytes of a row to the batch, with the counts.
#[derive(Debug)]
struct Intake {
    content: Content,
    clock: Clock,
    max_event_bytes: usize,
    accepted: u64,
    rejected: u64,
    /// By line.
    errors: VecDeque<Rejected>,
    /// Whether each row stands before the last one in the file.
    is_backwards: bool,
    skip: u64,
    span: Option<(Timestamp, Timestamp)>,
}

impl Intake {
    #[inline]
    fn row(&mut self, line: u64, row: Result<&[u8], RowFault>, into: &mut BatchBuilder) {
        let text = match row {
            Ok(bytes) => std::str::from_utf8(bytes).map_err(not_utf8),
            Err(fault) => Err(self.fault(fault)),
        };
        let text = match text {
            Ok(text) => text,
            Err(rejected) => return self.refuse(line, rejected),
        };
        // The content is lent out while its drafts are taken.
        let mut content = std::mem::replace(&mut self.content, Content::Json);
        match &mut content {
            Content::Table(table) => {
                // The samples of a wide row come from left to right, and so do its errors.
                table.read(text, |draft| match draft.and_then(|draft| self.take(draft, line, into)) {
                    Ok(()) => {}
                    Err(rejected) => self.refuse(line, rejected),
                });
            }
            Content::Json => {
                let mut reader = EventReader::new(Forms::File { decimal_comma: false });
                if let Err(rejected) = reader.read(text, |draft| self.take(draft, line, into)) {
                    self.refuse(line, rejected);
                }
            }
        }
        self.content = content;
    }

    fn fault(&self, fault: RowFault) -> Rejected {
        match fault {
            RowFault::TooLong => reject("", Code::TooLarge, format!("a row of more than {} bytes", self.max_event_bytes)),
            RowFault::Quotes => reject("", Code::InvalidRow, "a quote that is never closed, or closed inside a cell".into()),
        }
    }

    #[inline]
    fn take(&mut self, draft: &Draft<'_>, line: u64, into: &mut BatchBuilder) -> Result<(), Rejected> {
        let timestamp = self.clock.settle(draft)?;
        let Draft { metric, labels, value, id, meta, .. } = *draft;
        self.accepted += 1;
        self.span = Some(self.span.map_or((timestamp, timestamp), |(from, to)| (from.min(timestamp), to.max(timestamp))));
        if self.skip > 0 {
            self.skip -= 1;
        } else {
            into.push(&Event { metric, labels, timestamp, value, id, meta }, line);
        }
        Ok(())
    }

    #[cold]
    fn refuse(&mut self, line: u64, rejected: Rejected) {
        self.rejected += 1;
        let rejected = Rejected { line, ..rejected };
        if self.is_backwards {
            // Before those of later lines, behind those of the same.
            let at = self.errors.iter().take_while(|known| known.line <= line).count();
            self.errors.insert(at, rejected);
            self.errors.truncate(LISTED_ERRORS);
        } else if self.errors.len() < LISTED_ERRORS {
            self.errors.push_back(rejected);
        }
    }
}
