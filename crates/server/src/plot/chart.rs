//! A small picture of one series around what went wrong: for an email.

use jiff::tz::TimeZone;

use super::PlotError;
use super::area::Area;
use super::figure::Panel;
use super::font::Font;
use super::png;
use super::scene::{Scene, Shape, Tone};
use super::trace::{Band, Dot, Mark, Trace};
use crate::points::{Point, Verdict};

const WIDTH: f32 = 600.0;
const HEIGHT: f32 = 180.0;
/// Above: the line that says how many anomalies there are. Below: the axis.
const TOP: f32 = 26.0;
const BOTTOM: f32 = 26.0;
/// Columns that may differ.
const BUCKETS: usize = 1200;

/// The points of a series, sorted by time, with their band and anomalies as PNG, its times in UTC; nothing where there is no
/// span of time to draw.
pub fn chart(points: &[Point]) -> Option<Vec<u8>> {
    draw(points).inspect_err(|error| tracing::warn!(%error, "a chart cannot be drawn")).ok().flatten()
}

fn draw(points: &[Point]) -> Result<Option<Vec<u8>>, PlotError> {
    let mut trace = Trace::new();
    for point in points.iter().filter(|point| point.value.is_finite()) {
        let dot = Dot { at: point.timestamp.nanos(), value: point.value };
        let judged = !matches!(point.verdict, Verdict::TooFew | Verdict::Late);
        let band = judged.then_some(Band { expected: point.expected, lower: point.lower, upper: point.upper });
        trace.push(dot, band, BUCKETS);
        let severity = match point.verdict {
            Verdict::Critical => Some(anomaly_engine::Severity::Critical),
            Verdict::Anomaly => Some(anomaly_engine::Severity::Warning),
            _ => None,
        };
        if let Some(severity) = severity {
            trace.mark(Mark { dot, severity, z_score: point.z_score, strength: point.strength });
        }
    }
    let Some(times) = trace.span().filter(|(from, to)| from < to) else { return Ok(None) };
    let zone = TimeZone::UTC;
    // The name of the series stands in the email: letters that the font has not would be boxes here.
    let panel = Panel::new("UTC".into(), trace, times, &zone);
    let font = Font::load()?;
    let size = (WIDTH, TOP + HEIGHT + BOTTOM);
    let mut shapes = vec![Shape::Rect { at: (0.0, 0.0), size, tone: Tone::Background }];
    Area { top: TOP, height: HEIGHT, width: WIDTH, panel: &panel }.draw(&font, &zone, 1000, false, &mut shapes);
    png::paint(&Scene { size, title: String::new(), description: String::new(), shapes }, &font).map(Some)
}

#[cfg(test)]
mod tests {
    use anomaly_engine::Timestamp;

    use super::*;

    fn point(seconds: i64, value: f64, verdict: Verdict) -> Point {
        Point {
            timestamp: Timestamp::from_seconds(seconds),
            value,
            verdict,
            count: 20,
            mean: 50.0,
            stddev: 2.0,
            expected: 50.0,
            lower: 44.0,
            upper: 56.0,
            z_score: Some(0.0),
            strength: 0.1,
        }
    }

    #[test]
    fn a_series_is_a_small_picture() {
        let points: Vec<Point> = (0..200)
            .map(|i| point(1_700_000_000 + 15 * i, 50.0 + (i % 7) as f64, if i == 190 { Verdict::Critical } else { Verdict::Normal }))
            .collect();
        let png = chart(&points).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() < 80_000, "{}", png.len());
        assert_eq!(chart(&points), Some(png), "the same bytes");
    }

    #[test]
    fn odd_points_are_no_reason_not_to_write() {
        assert_eq!(chart(&[]), None);
        assert_eq!(chart(&[point(5, 1.0, Verdict::Normal)]), None);
        let extreme = [
            point(0, f64::MAX, Verdict::Critical),
            point(1, f64::MIN, Verdict::TooFew),
            point(i64::MAX / 2_000_000_000, f64::NAN, Verdict::Late),
            point(9_000_000_000, 5e-324, Verdict::Anomaly),
        ];
        assert!(chart(&extreme).is_some());
        let constant: Vec<Point> = (0..20).map(|i| point(i, 0.0, Verdict::Normal)).collect();
        assert!(chart(&constant).is_some());
    }
}
