//! Takes the rows of an upload's files: unpack, read, append, a batch at a time, each noted with the sample to go on with.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anomaly_engine::frame::{BatchBuilder, Origin};
use anomaly_engine::parse::{Arrival, FileError, FileOptions, FileReader, More, UnpackError, unpack};
use anomaly_engine::{Code, LISTED_ERRORS, Rejected, Report};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::tally::origin;
use super::view::About;
use crate::config::Config;
use crate::log::handle::{LogHandle, Refusal};
use crate::log::sqlite::Side;
use crate::log::{Append, AppendError, Appended};
use crate::log::{FileProgress, UploadRow, UploadState};
use crate::stats::Stats;

/// Rows that are appended at once.
const BATCH_ROWS: usize = 10_000;
/// How long to wait before a batch is offered again to a log that has no room.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A file as it is noted when its upload has arrived whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SpooledFile {
    pub(super) name: String,
    /// Zone of times without an offset.
    pub(super) zone: String,
}

/// What taking an upload needs.
#[derive(Debug)]
pub(super) struct Ingest<'a> {
    pub(super) log: &'a LogHandle,
    pub(super) config: &'a Config,
    pub(super) stats: &'a Stats,
    pub(super) folder: &'a Path,
    pub(super) upload: &'a UploadRow,
}

/// A file that is open, and how far it is.
struct Open {
    reader: FileReader<BufReader<File>>,
    progress: FileProgress,
}

impl Ingest<'_> {
    /// Takes all files, from where they were left.
    ///
    /// # Errors
    /// The server stops, or the log fails: the next start goes on.
    pub(super) async fn run(&self, progress: Vec<FileProgress>) -> Result<UploadState, AppendError> {
        let files: Vec<SpooledFile> = serde_json::from_str(&self.upload.files).unwrap_or_default();
        let mut state = UploadState::Ended;
        for (i, file) in (0..).zip(&files) {
            let fresh = FileProgress { upload: self.upload.id.clone(), file: i, ..FileProgress::default() };
            let progress = progress.iter().find(|progress| progress.file == i).cloned().unwrap_or(fresh);
            if progress.finished {
                continue;
            }
            let raw = self.folder.join(format!("{i}.raw"));
            if !raw.exists() {
                state = UploadState::Interrupted;
                self.end_with(progress, lost()).await?;
                continue;
            }
            self.take(file, raw, progress).await?;
        }
        Ok(state)
    }

    async fn take(&self, file: &SpooledFile, raw: PathBuf, progress: FileProgress) -> Result<(), AppendError> {
        let arrival = Arrival { time: self.upload.created, max_future: self.config.max_future };
        let options = FileOptions {
            zone: TimeZone::get(&file.zone).unwrap_or(TimeZone::UTC),
            max_event_bytes: self.config.limits.max_event_bytes,
            ..FileOptions::new(&file.name, arrival)
        };
        let limit = self.config.limits.max_file_bytes;
        let skip = progress.next_sample;
        let mut open = match blocking(move || open(&raw, limit, &options, skip)).await? {
            Ok(reader) => Open { reader, progress },
            Err(rejected) => return self.end_with(progress, rejected).await,
        };
        while !open.progress.finished {
            let before = open.progress.report.clone();
            let (back, batch) = blocking(move || next(open)).await?;
            open = back;
            self.stats.report_rejected(&newly_rejected(&before, &open.progress.report));
            self.append(&mut open.progress, batch).await?;
        }
        Ok(())
    }

    /// Appends a batch with the note of how far the file is; where the log has no room, waits until it has.
    async fn append(&self, progress: &mut FileProgress, batch: BatchBuilder) -> Result<(), AppendError> {
        let rows = batch.len() as u64;
        if rows == 0 {
            return self.note(progress).await;
        }
        // Not of those that were accepted: whether the log's writer refuses one may be otherwise the next time.
        let first = progress.next_sample - rows;
        let origin = Origin { name: origin(&self.upload.id, progress.file), first: Some(first) };
        let report = Report { accepted: rows, ..Report::default() };
        let mut append = Append { batch: batch.finish(origin), report, atomic: false, key: None };
        loop {
            let refused = match self.log.append_with(append, vec![Side::Progress(progress.clone())]).await {
                Ok(Appended::Taken { report, .. } | Appended::Repeated(report)) => {
                    self.stats.report(&report);
                    note_refused(progress, &report);
                    return Ok(());
                }
                Err(refusal) => refusal,
            };
            append = match refused {
                Refusal { error: AppendError::Refused(report), .. } => {
                    self.stats.report_rejected(&report);
                    note_refused(progress, &report);
                    return self.note(progress).await;
                }
                Refusal { append: Some(append), .. } => *append,
                Refusal { error, append: None } => return Err(error),
            };
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn note(&self, progress: &FileProgress) -> Result<(), AppendError> {
        self.log.note(vec![Side::Progress(progress.clone())]).await
    }

    async fn end_with(&self, mut progress: FileProgress, rejected: Rejected) -> Result<(), AppendError> {
        self.stats.rejected(rejected.code, 1);
        progress.report.reject(rejected);
        progress.finished = true;
        self.note(&progress).await
    }
}

/// Unpacks and opens a spooled file, at the sample with which to go on.
fn open(raw: &Path, limit: u64, options: &FileOptions, skip: u64) -> Result<FileReader<BufReader<File>>, Rejected> {
    let failed = |fault: io::Error| refused(format!("the spooled file cannot be read: {fault}"));
    let plain = raw.with_extension("txt");
    let mut out = BufWriter::with_capacity(256 << 10, File::create(&plain).map_err(failed)?);
    let unpacked = unpack(BufReader::with_capacity(256 << 10, File::open(raw).map_err(failed)?), limit, &mut out);
    unpacked.map_err(|fault| match fault {
        UnpackError::TooLarge { .. } => Rejected { code: Code::TooLarge, ..refused(fault.to_string()) },
        _ => refused(fault.to_string()),
    })?;
    out.flush().map_err(failed)?;
    let source = BufReader::with_capacity(256 << 10, File::open(&plain).map_err(failed)?);
    let mut reader = FileReader::open(source, options).map_err(|fault| match fault {
        FileError::Io(fault) => failed(fault),
        FileError::Refused(rejected) => rejected,
    })?;
    reader.skip(skip);
    Ok(reader)
}

/// Cuts the next batch and notes how far the file is then.
fn next(mut open: Open) -> (Open, BatchBuilder) {
    let mut batch = BatchBuilder::new();
    let more = open.reader.next_batch(&mut batch, BATCH_ROWS);
    let progress = &mut open.progress;
    progress.next_sample = open.reader.accepted();
    progress.report = combined(open.reader.report(), &progress.refused);
    match more {
        Ok(more) => progress.finished = more == More::End,
        Err(fault) => {
            progress.report.reject(refused(format!("the spooled file cannot be read: {fault}")));
            progress.finished = true;
        }
    }
    progress.about = about(&open.reader);
    (open, batch)
}

/// What the reader says and what the log's writer refused, in one report.
fn combined(mut report: Report, refused: &Report) -> Report {
    report.accepted -= refused.rejected;
    report.rejected += refused.rejected;
    report.errors.extend(refused.errors.iter().cloned());
    report.errors.sort_by_key(|rejected| rejected.line);
    report.errors.truncate(LISTED_ERRORS);
    report
}

/// The rows that were rejected between two states of a report.
fn newly_rejected(before: &Report, after: &Report) -> Report {
    let errors = after.errors.iter().skip(before.errors.len()).cloned().collect();
    Report { accepted: 0, rejected: after.rejected.saturating_sub(before.rejected), errors }
}

/// The writer refused rows of a batch that is in the log now.
fn note_refused(progress: &mut FileProgress, report: &Report) {
    progress.refused.add_refusals(report);
    progress.report.withdraw_counted(report);
}

fn about(reader: &FileReader<BufReader<File>>) -> String {
    let span = reader.span();
    let about = About {
        format: Some(reader.format().as_str().to_owned()),
        from: span.map(|(from, _)| from.nanos()),
        to: span.map(|(_, to)| to.nanos()),
        warnings: reader.warnings(),
    };
    serde_json::to_string(&about).unwrap_or_default()
}

fn refused(message: String) -> Rejected {
    Rejected { line: 0, field: String::new(), code: Code::InvalidFile, message }
}

fn lost() -> Rejected {
    refused("the file was lost before all its rows were taken: send it again".into())
}

/// Runs what waits for a disk on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AppendError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| AppendError::Closing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_refused_rows_are_counted_and_some_are_listed() {
        let refusal = |line| Rejected { line, ..refused("no room".into()) };
        let mut progress = FileProgress { report: Report { accepted: 10_000, ..Report::default() }, ..FileProgress::default() };
        let mut batch = Report { accepted: 10_000, ..Report::default() };
        batch.withdraw((0..4000).map(refusal).collect());
        note_refused(&mut progress, &batch);
        assert_eq!((progress.report.accepted, progress.report.rejected, progress.report.errors.len()), (6000, 4000, LISTED_ERRORS));
        assert_eq!((progress.refused.rejected, progress.refused.errors.len()), (4000, LISTED_ERRORS));
    }
}
