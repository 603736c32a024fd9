//! One panel of a figure as shapes: its name, its axes, its band, its line and its anomalies.

use anomaly_detect::text;
use anomaly_engine::Severity;
use jiff::tz::TimeZone;

use super::figure::{BOLD, LEFT, Panel, RIGHT, signed, telling};
use super::font::Font;
use super::scale::{instant_text, time_ticks, value_ticks};
use super::scene::{Anchor, Place, Shape, Stroke, Text, Tone, label};
use super::trace::{Band, Bucket, Dot, Mark, by_column};

/// Left and right of the first and the last row, so that a mark there is seen whole.
const MARGIN: f32 = 8.0;

/// A panel at its place in the picture.
pub(super) struct Area<'a> {
    pub(super) top: f32,
    pub(super) height: f32,
    /// Of the whole picture.
    pub(super) width: f32,
    pub(super) panel: &'a Panel,
}

impl Area<'_> {
    pub(super) fn x(&self, at: i64) -> f32 {
        let (from, to) = self.panel.times;
        let share = (at as f64 - from as f64) / (to as f64 - from as f64);
        LEFT + MARGIN + share as f32 * (self.width - LEFT - RIGHT - 2.0 * MARGIN)
    }

    /// A value beyond the axis stands at its end.
    pub(super) fn y(&self, value: f64) -> f32 {
        let (low, high) = self.panel.values;
        // Halves, as the difference of two large numbers may not be finite.
        let share = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
        self.top + self.height * (1.0 - share.clamp(0.0, 1.0) as f32)
    }

    fn place(&self, dot: Dot) -> Place {
        (self.x(dot.at), self.y(dot.value))
    }

    pub(super) fn draw(&self, font: &Font, zone: &TimeZone, most_marks: usize, explained: bool, shapes: &mut Vec<Shape>) {
        let Self { top, height, width, panel } = *self;
        let right = width - RIGHT;
        shapes.push(Shape::Rect { at: (LEFT, top), size: (right - LEFT, height), tone: Tone::Panel });
        let summary_width = font.width(&panel.summary, 12.0);
        // Measured larger than it is, as bold letters are wider.
        let name = font.fitted(&panel.name, 13.0 * BOLD, right - LEFT - summary_width - 24.0);
        shapes.push(Shape::Text(Text {
            at: (LEFT, top - 8.0),
            text: name,
            size: 13.0,
            anchor: Anchor::Start,
            bold: true,
            tone: Tone::Text,
        }));
        shapes.push(label((right, top - 8.0), panel.summary.clone(), 12.0, Anchor::End, Tone::Muted));
        self.axes(font, zone, shapes);

        let (bands, expected) = self.bands();
        shapes.push(Shape::Areas { areas: bands, tone: Tone::Band });
        shapes.push(Shape::Lines { lines: expected, stroke: Stroke { tone: Tone::Expected, width: 1.2, dashed: true } });
        let line = |dots: Vec<Dot>| by_column(&dots, |at| self.x(at) as i64).into_iter().map(|dot| self.place(dot)).collect();
        let lines = panel.trace.lines(Bucket::dots).into_iter().map(line).collect();
        shapes.push(Shape::Lines { lines, stroke: Stroke { tone: Tone::Value, width: 1.4, dashed: false } });

        // Warnings first, so that critical ones lie on them.
        for severity in [Severity::Warning, Severity::Critical] {
            let marks = self.marks(severity, most_marks / 2);
            let tick = |mark: &&Mark| vec![(self.x(mark.dot.at), top), (self.x(mark.dot.at), top + 7.0)];
            let mut ticks: Vec<Vec<Place>> = marks.iter().map(tick).collect();
            ticks.dedup();
            shapes.push(Shape::Lines { lines: ticks, stroke: Stroke { tone: severity.into(), width: 1.6, dashed: false } });
            let said = |mark: &Mark| if explained { mark_text(mark, zone) } else { String::new() };
            let at = marks.into_iter().map(|mark| (self.place(mark.dot), said(mark))).collect();
            shapes.push(Shape::Marks { severity, at });
        }
    }

    fn axes(&self, font: &Font, zone: &TimeZone, shapes: &mut Vec<Shape>) {
        let right = self.width - RIGHT;
        let grid = |from: Place, to: Place| vec![from, to];
        let mut lines = Vec::new();
        let (low, high) = self.panel.values;
        for tick in value_ticks(low, high, ((self.height / 45.0) as usize).max(4)) {
            let y = self.y(tick.at);
            lines.push(grid((LEFT, y), (right, y)));
            shapes.push(label((LEFT - 8.0, y + 4.0), font.fitted(&tick.label, 11.0, LEFT - 12.0), 11.0, Anchor::End, Tone::Muted));
        }
        let bottom = self.top + self.height;
        let mut free_from = LEFT - 20.0;
        for tick in time_ticks(self.panel.times.0, self.panel.times.1, (self.width / 120.0) as usize, zone) {
            let (x, half) = (self.x(tick.at), font.width(&tick.label, 11.0) / 2.0);
            lines.push(grid((x, self.top), (x, bottom)));
            if x - half >= free_from && x + half <= self.width - 4.0 {
                free_from = x + half + 10.0;
                shapes.push(label((x, bottom + 16.0), tick.label, 11.0, Anchor::Middle, Tone::Muted));
            }
        }
        shapes.push(Shape::Lines { lines, stroke: Stroke { tone: Tone::Grid, width: 1.0, dashed: false } });
    }

    /// The band as areas and what was expected as lines: means over columns, broken where nothing was judged.
    fn bands(&self) -> (Vec<Vec<Place>>, Vec<Vec<Place>>) {
        let mut runs: Vec<Vec<(f32, Band)>> = vec![Vec::new()];
        let mut column = None;
        for bucket in self.panel.trace.buckets() {
            let x = (self.x(bucket.first.at) + self.x(bucket.last.at)) / 2.0;
            let Some(run) = runs.last_mut() else { break };
            match bucket.band() {
                // A pixel shows one.
                Some(_) if column == Some(x as i64) => {}
                Some(band) => {
                    run.push((x, band));
                    column = Some(x as i64);
                }
                None if run.is_empty() => {}
                None => runs.push(Vec::new()),
            }
        }
        let (low, high) = self.panel.values;
        let mut expected: Vec<Vec<Place>> = Vec::new();
        let mut areas = Vec::new();
        for run in runs.iter().filter(|run| !run.is_empty()) {
            let upper = run.iter().map(|(x, band)| (*x, self.y(band.upper)));
            let lower = run.iter().rev().map(|(x, band)| (*x, self.y(band.lower)));
            areas.push(upper.chain(lower).collect());
            let inside = run.chunk_by(|a, b| (low..=high).contains(&a.1.expected) == (low..=high).contains(&b.1.expected));
            let inside = inside.filter(|part| (low..=high).contains(&part[0].1.expected));
            expected.extend(inside.map(|part| part.iter().map(|(x, band)| (*x, self.y(band.expected))).collect()));
        }
        (areas, expected)
    }

    /// The anomalies of a severity that are seen, in the order of time.
    fn marks(&self, severity: Severity, most: usize) -> Vec<&Mark> {
        let marks = self.panel.trace.marks().iter().filter(|mark| mark.severity == severity).collect();
        let place = |mark: &Mark| self.place(mark.dot);
        thinned(marks, most, 0.5, place)
    }
}

/// Anomalies in the order of time. Of those in the same cell of a picture the strongest is kept; as long as there are too many,
/// cells double.
pub(crate) fn thinned(mut marks: Vec<&Mark>, most: usize, cell: f32, place: impl Fn(&Mark) -> Place) -> Vec<&Mark> {
    let mut cell = cell;
    loop {
        let cell_of = |mark: &Mark| {
            let (x, y) = place(mark);
            ((x / cell) as i64, (y / cell) as i64)
        };
        marks.sort_by_cached_key(|mark| (cell_of(mark), std::cmp::Reverse(mark.strength.to_bits())));
        marks.dedup_by_key(|mark| cell_of(mark));
        if marks.len() <= most.max(1) {
            marks.sort_by_key(|mark| mark.dot.at);
            return marks;
        }
        cell *= 2.0;
    }
}

/// `2014-02-20 03:10:00: 95, z +32.8`.
fn mark_text(mark: &Mark, zone: &TimeZone) -> String {
    let z = telling(mark.z_score).map_or_else(String::new, |z| format!(", z {}", signed(z)));
    format!("{}: {}{z}", instant_text(mark.dot.at, zone), text::number(mark.dot.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_marks_each_has_a_stronger_one_close_by() {
        let marks: Vec<Mark> = (0..5000)
            .map(|i| {
                let dot = Dot { at: i, value: (i * 37 % 101) as f64 };
                Mark { dot, severity: Severity::Warning, z_score: None, strength: (i * 53 % 89) as f64 }
            })
            .collect();
        let place = |mark: &Mark| (mark.dot.at as f32, mark.dot.value as f32);
        let kept = thinned(marks.iter().collect(), 400, 0.5, place);
        assert!(kept.len() <= 400 && kept.len() > 100, "{}", kept.len());
        assert!(kept.is_sorted_by_key(|mark| mark.dot.at));
        let strongest = |marks: &mut dyn Iterator<Item = &Mark>| marks.map(|mark| mark.strength).fold(0.0, f64::max);
        assert_eq!(strongest(&mut kept.iter().copied()), strongest(&mut marks.iter()));
    }
}
