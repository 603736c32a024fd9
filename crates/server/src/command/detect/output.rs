//! How judged rows are written: a table, JSON or CSV; anomalies alone or every row.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write};

use anomaly_engine::frame::{BatchRef, Position, Row};
use anomaly_engine::{EngineConfig, Outputs, Point, SeriesKey, Settings, Timestamp, write_explained};
use anyhow::bail;

use super::table::Table;
use super::{Options, csv};
use crate::cli::Format;
use crate::config::Config;

/// A batch, and what the engine said of it.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    /// Its rows.
    pub(super) batch: &'a BatchRef<'a>,
    /// The number of its first row in the frame.
    pub(super) first: u32,
    /// What it brought forth; points only where the engine keeps them.
    pub(super) outputs: &'a Outputs,
    /// What applied.
    pub(super) config: &'a EngineConfig,
    /// `detected_at` of its anomalies.
    pub(super) detected_at: Timestamp,
}

/// What is written.
#[derive(Debug)]
pub(super) enum Output {
    /// Anomalies, for people.
    Table(Table),
    /// Anomalies, a JSON object a line.
    Json,
    /// Anomalies as CSV.
    Csv,
    /// Every row, a JSON object a line.
    EveryJson,
    /// Every row as CSV.
    EveryCsv,
}

impl Output {
    /// The output that the options ask for.
    ///
    /// # Errors
    /// Every row as a table.
    pub(super) fn new(options: &Options, config: &Config) -> anyhow::Result<Self> {
        Ok(match (options.format, options.all_points) {
            (Some(Format::Table), true) => bail!("--all-points writes no table: add --format csv or --format json"),
            (None | Some(Format::Table), false) => Self::Table(Table::new(config.timezone.clone(), options.colour, options.columns)),
            (Some(Format::Json), false) => Self::Json,
            (Some(Format::Csv), false) => Self::Csv,
            (Some(Format::Json), true) => Self::EveryJson,
            (None | Some(Format::Csv), true) => Self::EveryCsv,
        })
    }

    /// Writes what stands before all rows.
    pub(super) fn begin(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Csv | Self::EveryCsv => writeln!(out, "{}", csv::HEADER),
            Self::Table(_) | Self::Json | Self::EveryJson => Ok(()),
        }
    }

    /// Writes a batch, its rows in order.
    pub(super) fn write(&mut self, judged: &Judged<'_>, out: &mut dyn Write) -> io::Result<()> {
        let mut text = String::new();
        self.lines(judged, |line| {
            text.push_str(line);
            text.push('\n');
        });
        out.write_all(text.as_bytes())
    }

    /// Writes what was held back, behind all rows.
    pub(super) fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut text = String::new();
        if let Self::Table(table) = self {
            table.finish(&mut |line| {
                text.push_str(line);
                text.push('\n');
            });
        }
        out.write_all(text.as_bytes())
    }

    /// Hands over each line that is to be written of a batch, without its end.
    fn lines(&mut self, judged: &Judged<'_>, mut take: impl FnMut(&str)) {
        let mut line = String::new();
        match self {
            Self::Table(table) => judged.outputs.anomalies.iter().for_each(|anomaly| table.push(anomaly, &mut take)),
            Self::Json => {
                for anomaly in &judged.outputs.anomalies {
                    line.clear();
                    anomaly.write_json(&mut line, judged.detected_at);
                    take(&line);
                }
            }
            Self::Csv => {
                for anomaly in &judged.outputs.anomalies {
                    line.clear();
                    csv::push_anomaly(&mut line, anomaly);
                    take(&line);
                }
            }
            Self::EveryJson | Self::EveryCsv => {
                let is_csv = matches!(self, Self::EveryCsv);
                every_row(judged, |series, row, point| {
                    line.clear();
                    match (is_csv, point) {
                        (true, _) => csv::push_row(&mut line, series, row, point),
                        (false, Some(point)) => write_explained(&mut line, &series.key, &series.settings, point),
                        // A row whose id came before has no verdict, and the API no shape for it.
                        (false, None) => return,
                    }
                    take(&line);
                });
            }
        }
    }
}

/// A series of a batch.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) key: SeriesKey,
    pub(super) name: String,
    pub(super) settings: Settings,
}

/// Hands over every row of a batch in order, with its series and what was said of it: nothing where its id came before.
fn every_row(judged: &Judged<'_>, mut take: impl FnMut(&Series, &Row<'_>, Option<&Point>)) {
    let mut series: Vec<Option<Series>> = Vec::new();
    series.resize_with(judged.batch.series.len(), || None);
    let mut points = judged.outputs.points.iter().peekable();
    let frame = judged.outputs.batches.first().map_or(0, |batch| batch.first.frame);
    for (position, row) in (judged.first..).zip(judged.batch.rows()) {
        let i = row.series as usize;
        if series[i].is_none() {
            let Ok(key) = SeriesKey::from_bytes(judged.batch.series[i].key) else { continue };
            series[i] = Some(Series { name: key.name(), settings: judged.config.settings_of(&key), key });
        }
        let point = points.next_if(|point| point.position == Position { frame, row: position });
        if let Some(series) = &series[i] {
            take(series, &row, point);
        }
    }
}

/// The lines of a file that is sorted newest first: it is read in time order, and its rows are written in its own.
///
/// They wait in a temporary file, so that memory does not grow with them.
#[derive(Debug)]
pub(super) struct Backwards {
    file: File,
    /// Where each batch ends in the file.
    ends: Vec<u64>,
}

impl Backwards {
    /// Nothing yet.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile()?, ends: Vec::new() })
    }

    /// Keeps the lines of a batch, the last first.
    pub(super) fn take(&mut self, output: &mut Output, judged: &Judged<'_>) -> io::Result<()> {
        let mut lines: Vec<String> = Vec::new();
        output.lines(judged, |line| lines.push(format!("{line}\n")));
        lines.reverse();
        let text = lines.concat();
        self.ends.push(self.ends.last().copied().unwrap_or(0) + text.len() as u64);
        self.file.write_all(text.as_bytes())
    }

    /// Writes all that was kept, the last batch first.
    pub(super) fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        while let Some(end) = self.ends.pop() {
            let start = self.ends.last().copied().unwrap_or(0);
            self.file.seek(SeekFrom::Start(start))?;
            io::copy(&mut BufReader::new(&mut self.file).take(end - start), out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_last_is_written_first() {
        let mut kept = Backwards::new().unwrap();
        for text in ["2\n1\n", "4\n3\n", ""] {
            kept.file.write_all(text.as_bytes()).unwrap();
            kept.ends.push(kept.ends.last().copied().unwrap_or(0) + text.len() as u64);
        }
        let mut out = Vec::new();
        kept.write(&mut out).unwrap();
        assert_eq!(out, b"4\n3\n2\n1\n");
    }
}
