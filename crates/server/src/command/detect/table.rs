//! Anomalies as a table that can be read while it grows.

use anomaly_detect::text;
use anomaly_engine::{Anomaly, Severity, Timestamp};
use jiff::tz::TimeZone;

/// Width of the series' column at first; it grows with the names.
const SERIES_WIDTH: usize = 12;
/// Width of the column of expected values and bands.
const EXPECTED_WIDTH: usize = 18;

/// Writes a line an anomaly, with headings before the first.
#[derive(Debug)]
pub(super) struct Table {
    zone: TimeZone,
    colour: bool,
    series_width: usize,
    begun: bool,
}

impl Table {
    /// A table without rows, its times in `zone`.
    pub(super) fn new(zone: TimeZone, colour: bool) -> Self {
        Self { zone, colour, series_width: SERIES_WIDTH, begun: false }
    }

    /// Hands over the line of an anomaly, and before the first one the headings.
    pub(super) fn lines(&mut self, anomaly: &Anomaly, take: &mut impl FnMut(&str)) {
        let series = anomaly.key.name();
        self.series_width = self.series_width.max(series.chars().count());
        let width = self.series_width;
        if !self.begun {
            self.begun = true;
            let time = format!("time ({})", self.zone.iana_name().unwrap_or("UTC"));
            let heading = format!("{time:<19}  {:<width$}  {:>10}  {:>EXPECTED_WIDTH$}  {:>7}  severity", "series", "value", "expected", "z");
            take(&self.painted(&heading, "1"));
        }
        let time = time_text(anomaly.timestamp, &self.zone);
        let value = text::number(anomaly.value);
        let z = anomaly.judgement.z_score.map_or_else(|| "–".to_owned(), |z| format!("{}{}", if z > 0.0 { "+" } else { "" }, text::zed(z)));
        let severity = match anomaly.severity {
            Severity::Critical => self.painted("◆ critical", "31"),
            Severity::Warning => self.painted("△ warning", "33"),
        };
        take(&format!("{time:<19}  {series:<width$}  {value:>10}  {:>EXPECTED_WIDTH$}  {z:>7}  {severity}", expected(anomaly)));
    }

    fn painted(&self, text: &str, code: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
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
