//! Anomalies as a table that can be read while it grows.

use anomaly_detect::text;
use anomaly_engine::{Anomaly, Severity, Timestamp};
use jiff::tz::TimeZone;

use crate::command::terminal::{Style, fitted, harmless, painted, width};

/// Rows that are held back at first, so that the columns fit them.
const HELD: usize = 1000;
/// Columns that the names of series have on the narrowest terminal.
const NARROWEST_SERIES: usize = 16;
/// Columns between cells, and of the severity.
const GAP: usize = 2;
const SEVERITY: usize = 10;
/// Headings.
const HEADINGS: [&str; 5] = ["series", "value", "expected", "z", "severity"];

/// Writes a line an anomaly, with headings before the first. Memory: at most a thousand rows.
#[derive(Debug)]
pub(super) struct Table {
    zone: TimeZone,
    colour: bool,
    /// Columns of the terminal: names of series are cut so that a line fits. Without a terminal they are whole.
    columns: Option<usize>,
    held: Vec<Row>,
    /// Of time, series, value, expected and z; they never shrink. All 0 before the headings are written.
    widths: [usize; 5],
}

/// The cells of an anomaly.
#[derive(Debug)]
struct Row {
    /// Time, series, value, expected, z.
    cells: [String; 5],
    severity: Severity,
}

impl Table {
    /// A table without rows, its times in `zone`.
    pub(super) fn new(zone: TimeZone, colour: bool, columns: Option<usize>) -> Self {
        Self { zone, colour, columns, held: Vec::new(), widths: [0; 5] }
    }

    /// Takes an anomaly, and hands over the lines that need not be held back any more.
    pub(super) fn push(&mut self, anomaly: &Anomaly, take: &mut impl FnMut(&str)) {
        let z = anomaly.judgement.z_score.map_or_else(|| "–".to_owned(), signed);
        let time = time_text(anomaly.timestamp, &self.zone);
        let cells = [time, harmless(&anomaly.key.name()), text::number(anomaly.value), expected(anomaly), z];
        self.held.push(Row { cells, severity: anomaly.severity });
        if self.widths[0] > 0 || self.held.len() == HELD {
            self.finish(take);
        }
    }

    /// Hands over every line that was held back.
    pub(super) fn finish(&mut self, take: &mut impl FnMut(&str)) {
        if self.held.is_empty() {
            return;
        }
        let headings = (self.widths[0] == 0).then(|| {
            let [series, value, expected, z, severity] = HEADINGS;
            let time = format!("time ({})", self.zone.iana_name().unwrap_or("UTC"));
            ([time.as_str(), series, value, expected, z].map(str::to_owned), severity)
        });
        for cells in self.held.iter().map(|row| &row.cells).chain(headings.iter().map(|(cells, _)| cells)) {
            for (width, cell) in self.widths.iter_mut().zip(cells) {
                *width = (*width).max(self::width(cell));
            }
        }
        if let Some(columns) = self.columns {
            let [a, _, c, d, e] = self.widths;
            let others = a + c + d + e + SEVERITY + 5 * GAP;
            self.widths[1] = self.widths[1].min(columns.saturating_sub(others).max(NARROWEST_SERIES));
        }
        if let Some((cells, severity)) = headings {
            take(&painted(&self.line(&cells, severity), Style::Bold, self.colour));
        }
        for row in &self.held {
            let severity = match row.severity {
                Severity::Critical => painted("◆ critical", Style::Red, self.colour),
                Severity::Warning => painted("△ warning", Style::Yellow, self.colour),
            };
            take(&self.line(&row.cells, &severity));
        }
        self.held.clear();
    }

    /// Words to the left, numbers to the right.
    fn line(&self, cells: &[String; 5], severity: &str) -> String {
        let mut line = String::new();
        for (i, (cell, &columns)) in cells.iter().zip(&self.widths).enumerate() {
            let cell = fitted(cell, columns);
            let room = " ".repeat(columns.saturating_sub(width(&cell)));
            let (left, right) = if i < 2 { ("", room.as_str()) } else { (room.as_str(), "") };
            line.extend([left, &cell, right, "  "]);
        }
        line + severity
    }
}

/// A z-score with its sign.
fn signed(z: f64) -> String {
    format!("{}{}", if z > 0.0 { "+" } else { "" }, text::zed(z))
}

/// The expected value with its band: `54.5 ± 8.841`, or where the band is not even, `48 … 99`.
fn expected(anomaly: &Anomaly) -> String {
    let judgement = &anomaly.judgement;
    let (below, above) = (judgement.expected - judgement.lower, judgement.upper - judgement.expected);
    if (below - above).abs() <= 1e-6 * (below.abs() + above.abs()) {
        format!("{} ± {}", text::number(judgement.expected), text::spread(above))
    } else {
        format!("{} … {}", text::number(judgement.lower), text::number(judgement.upper))
    }
}

/// A time to the second, with the fraction that it has.
fn time_text(at: Timestamp, zone: &TimeZone) -> String {
    let Ok(instant) = jiff::Timestamp::from_nanosecond(at.nanos().into()) else { return at.to_string() };
    instant.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_the_zone_with_the_fraction_that_they_have() {
        let at = |nanos| Timestamp::from_nanos(nanos);
        assert_eq!(time_text(at(0), &TimeZone::UTC), "1970-01-01 00:00:00");
        assert_eq!(time_text(at(1_250_000_000), &TimeZone::UTC), "1970-01-01 00:00:01.25");
        assert_eq!(time_text(at(0), &TimeZone::get("Europe/Berlin").unwrap()), "1970-01-01 01:00:00");
    }
}
