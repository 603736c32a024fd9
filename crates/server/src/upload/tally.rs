//! What became of the rows of uploads, as the engine judges them, and what it has to say of their series.

use std::collections::{BTreeMap, VecDeque};

use anomaly_engine::{BatchOutcome, Timestamp};

use crate::store::UploadJudged;

/// Series of a file of which more is told than numbers.
const SERIES: usize = 10_000;
/// Files whose series are remembered; the numbers of all are in the store.
const FILES: usize = 64;
/// Warnings of one kind that a report lists.
const LISTED: usize = 20;
/// What may be done about an upload that came too late to be judged.
const UPLOAD_ADVICE: &str = "delete the series, rename it, or use anomaly detect";

/// The name of the source of an upload's file, as the log records it.
pub fn origin(upload: &str, file: u32) -> String {
    format!("upload:{upload}/{file}")
}

/// Adds up what became of the files that are being judged.
#[derive(Debug, Default)]
pub struct Tallies {
    files: VecDeque<(String, FileTally)>,
}

/// Adds up what became of the series of one file, whether it was uploaded or is read offline.
#[derive(Debug, Default)]
pub struct FileTally {
    series: BTreeMap<String, SeriesTally>,
}

#[derive(Debug, Default)]
struct SeriesTally {
    rows: u64,
    late: u64,
    judged: u64,
    newest: Timestamp,
    sparse: Option<String>,
}

impl Tallies {
    /// Takes a batch; if it was of an upload, returns what to add to that file's numbers.
    pub fn add(&mut self, outcome: &BatchOutcome) -> Option<UploadJudged> {
        let (upload, file) = outcome.origin.strip_prefix("upload:")?.rsplit_once('/')?;
        let tally = self.file(&outcome.origin);
        tally.add(outcome);
        Some(UploadJudged {
            upload: upload.to_owned(),
            file: file.parse().ok()?,
            rows: u64::from(outcome.rows - outcome.redelivered),
            late: u64::from(outcome.late),
            anomalies: u64::from(outcome.anomalies),
            warnings: tally.warnings(UPLOAD_ADVICE),
        })
    }

    fn file(&mut self, origin: &str) -> &mut FileTally {
        let at = self.files.iter().position(|(known, _)| known == origin).unwrap_or_else(|| {
            if self.files.len() == FILES {
                self.files.pop_front();
            }
            self.files.push_back((origin.to_owned(), FileTally::default()));
            self.files.len() - 1
        });
        &mut self.files[at].1
    }
}

impl FileTally {
    /// Takes a batch of this file.
    pub fn add(&mut self, outcome: &BatchOutcome) {
        for seen in &outcome.series {
            if self.series.len() >= SERIES && !self.series.contains_key(&seen.name) {
                continue;
            }
            let tally = self.series.entry(seen.name.clone()).or_default();
            tally.rows += u64::from(seen.rows);
            tally.late += u64::from(seen.late);
            tally.judged += u64::from(seen.judged);
            tally.newest = seen.newest;
            tally.sparse.clone_from(&seen.sparse);
        }
    }

    /// What the engine has to say of the file's series, as things stand; `advice` is what may be done about one that came too late.
    pub fn warnings(&self, advice: &str) -> Vec<String> {
        let series = &self.series;
        let sparse = series.iter().filter_map(|(name, tally)| tally.sparse.as_ref().map(|text| format!("{name}: {text}")));
        let late = series.iter().filter(|(_, tally)| tally.late * 2 > tally.rows).map(|(name, tally)| {
            let until = time_text(tally.newest);
            format!("not judged: {name} already has samples until {until}; {advice}")
        });
        let few = series.iter().filter(|(_, tally)| tally.judged == 0 && tally.late == 0 && tally.sparse.is_none() && tally.rows > 0);
        let few = few.map(|(name, tally)| {
            let rows = if tally.rows == 1 { "its only row".to_owned() } else { format!("each of its {} rows", tally.rows) };
            format!("not judged: {name} has too few samples in its window before {rows}")
        });
        [capped(sparse), capped(late), capped(few)].concat()
    }
}

/// The first of many warnings, and how many more there are.
fn capped(warnings: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = warnings.collect();
    let more = all.len().saturating_sub(LISTED);
    if more > 0 {
        all.truncate(LISTED);
        all.push(format!("and {more} more series of which the same is to be said"));
    }
    all
}

/// A time as a person reads it: the time of day, with the date where it is not obvious.
fn time_text(at: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.nanos()))
        .map_or_else(|_| at.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use anomaly_engine::SeriesOutcome;

    use super::*;

    fn outcome(origin: &str, series: SeriesOutcome) -> BatchOutcome {
        BatchOutcome { rows: series.rows, late: series.late, origin: origin.into(), series: vec![series], ..BatchOutcome::default() }
    }

    fn seen(name: &str, rows: u32, late: u32, judged: u32, sparse: Option<&str>) -> SeriesOutcome {
        SeriesOutcome { name: name.into(), rows, late, judged, newest: Timestamp::from_seconds(60), sparse: sparse.map(str::to_owned) }
    }

    #[test]
    fn only_batches_of_uploads_are_tallied() {
        let mut tallies = Tallies::default();
        assert_eq!(tallies.add(&outcome("http", seen("m", 5, 0, 5, None))), None);
        let judged = tallies.add(&outcome("upload:abc/2", seen("m", 5, 1, 4, None))).unwrap();
        assert_eq!((judged.upload.as_str(), judged.file, judged.rows, judged.late), ("abc", 2, 5, 1));
        assert!(judged.warnings.is_empty());
    }

    #[test]
    fn a_series_that_was_mostly_late_is_told_with_what_to_do() {
        let judged = Tallies::default().add(&outcome("upload:a/0", seen("cpu", 120, 113, 7, None))).unwrap();
        let expected =
            "not judged: cpu already has samples until 1970-01-01 00:01:00 UTC; delete the series, rename it, or use anomaly detect";
        assert_eq!(judged.warnings, [expected]);
    }

    #[test]
    fn the_last_word_on_sparseness_counts() {
        let mut tallies = Tallies::default();
        let first = tallies.add(&outcome("upload:a/0", seen("m", 20, 0, 0, Some("samples every 5 min")))).unwrap();
        assert_eq!(first.warnings, ["m: samples every 5 min"]);
        let then = tallies.add(&outcome("upload:a/0", seen("m", 100, 0, 90, None))).unwrap();
        assert!(then.warnings.is_empty());
    }

    #[test]
    fn a_series_without_a_judged_row_says_why() {
        let judged = Tallies::default().add(&outcome("upload:a/0", seen("m", 3, 0, 0, None))).unwrap();
        assert_eq!(judged.warnings, ["not judged: m has too few samples in its window before each of its 3 rows"]);
    }
}
