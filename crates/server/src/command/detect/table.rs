//! Anomalies as a table that can be read while it grows.

use anomaly_detect::text;
use anomaly_engine::{Anomaly, Severity, Timestamp};
use jiff::tz::TimeZone;

/// Rows that are held back at first, so that the columns fit them.
const HELD: usize = 1000;
/// Headings.
const HEADINGS: [&str; 5] = ["series", "value", "expected", "z", "severity"];

/// Writes a line an anomaly, with headings before the first. Memory: at most a thousand rows.
#[derive(Debug)]
pub(super) struct Table {
    zone: TimeZone,
    colour: bool,
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
    pub(super) fn new(zone: TimeZone, colour: bool) -> Self {
        Self { zone, colour, held: Vec::new(), widths: [0; 5] }
    }

    /// Takes an anomaly, and hands over the lines that need not be held back any more.
    pub(super) fn push(&mut self, anomaly: &Anomaly, take: &mut impl FnMut(&str)) {
        let z = anomaly.judgement.z_score.map_or_else(|| "–".to_owned(), signed);
        let time = time_text(anomaly.timestamp, &self.zone);
        let cells = [time, anomaly.key.name(), text::number(anomaly.value), expected(anomaly), z];
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
                *width = (*width).max(cell.chars().count());
            }
        }
        if let Some((cells, severity)) = headings {
            take(&self.painted(&self.line(&cells, severity), "1"));
        }
        for row in &self.held {
            let severity = match row.severity {
                Severity::Critical => self.painted("◆ critical", "31"),
                Severity::Warning => self.painted("△ warning", "33"),
            };
            take(&self.line(&row.cells, &severity));
        }
        self.held.clear();
    }

    /// Words to the left, numbers to the right.
    fn line(&self, [time, series, value, expected, z]: &[String; 5], severity: &str) -> String {
        let [a, b, c, d, e] = self.widths;
        format!("{time:<a$}  {series:<b$}  {value:>c$}  {expected:>d$}  {z:>e$}  {severity}")
    }

    fn painted(&self, text: &str, code: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
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
