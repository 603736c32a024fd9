//! Which series are drawn, and where everything stands in the picture.

use anomaly_detect::text;
use anomaly_engine::Severity;
use jiff::tz::TimeZone;

use super::Drawn;
use super::area::Area;
use super::font::Font;
use super::scale::{instant_text, span_text};
use super::scene::{Anchor, Scene, Shape, Stroke, Text, Tone, label};
use super::trace::{Bucket, Trace};

/// The most series of a figure.
const PANELS: usize = 12;
/// Names in the sentence on what was left out, and the most characters of each.
const NAMED: usize = 3;
const NAME_CHARS: usize = 40;
/// The most marks that are drawn; of more, those that lie on each other are one.
pub(crate) const MARKS: usize = 24_000;
/// Up to so many marks each says what it is when it is pointed at.
const EXPLAINED_MARKS: usize = 1000;

pub(super) const WIDTH: f32 = 1200.0;
pub(super) const LEFT: f32 = 66.0;
pub(super) const RIGHT: f32 = 24.0;
const HEADER: f32 = 96.0;
/// Above a panel: its name.
const NAME: f32 = 26.0;
/// Below a panel: its axis, and room to the next.
const AXIS: f32 = 40.0;
/// How much wider bold letters may be than those of the font.
pub(super) const BOLD: f32 = 1.18;

/// What stands above the panels.
#[derive(Clone, Debug, Default)]
pub struct Heading {
    /// In large letters: what was found.
    pub title: String,
    /// Below: of what, and how it was judged.
    pub subtitle: String,
}

/// The series that are drawn.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) heading: Heading,
    pub(crate) zone: TimeZone,
    pub(crate) panels: Vec<Panel>,
    left_out: Option<String>,
}

/// One series.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) name: String,
    /// How many anomalies, and the strongest.
    pub(crate) summary: String,
    pub(crate) trace: Trace,
    /// The ends of its axis of time, in nanoseconds; they differ.
    pub(crate) times: (i64, i64),
    /// The ends of its axis of values; they differ.
    pub(crate) values: (f64, f64),
}

impl Panel {
    /// A series between two instants, which differ.
    pub(crate) fn new(name: String, trace: Trace, times: (i64, i64), zone: &TimeZone) -> Self {
        Self { summary: summary(&trace, zone), values: value_range(&trace), name, trace, times }
    }
}

impl Figure {
    /// The series with the strongest anomalies come first, and those beyond the limit are left out.
    pub(crate) fn new(mut series: Vec<Drawn>, heading: Heading, zone: TimeZone) -> Self {
        let strength = |drawn: &Drawn| drawn.trace.strongest().map_or(-1.0, |mark| mark.strength);
        series.sort_by(|a, b| strength(b).total_cmp(&strength(a)));
        let n = series.len();
        let left_out = (n > PANELS).then(|| left_out(&series[PANELS..], n));
        series.truncate(PANELS);
        let common = common_times(&series);
        let panel = |Drawn { name, trace, .. }: Drawn| {
            let times = common.or_else(|| trace.span()).unwrap_or((0, 0));
            let times = if times.0 < times.1 { times } else { (times.0 - 500_000_000, times.1 + 500_000_000) };
            Panel::new(name, trace, times, &zone)
        };
        let panels = series.into_iter().map(panel).collect();
        Self { heading, panels, zone, left_out }
    }

    /// The sentence that says which series were left out.
    pub(crate) fn left_out(&self) -> Option<String> {
        self.left_out.clone()
    }

    /// The name of the zone of all times.
    pub(crate) fn zone_name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// What was judged and how, and when that was.
    pub(crate) fn subtitle(&self) -> String {
        let common = self.panels.first().filter(|first| self.panels.iter().all(|panel| panel.times == first.times));
        let when = common.map_or_else(|| "times in".to_owned(), |panel| span_text(panel.times.0, panel.times.1, &self.zone));
        format!("{} · {when} {}", self.heading.subtitle, self.zone_name())
    }

    /// Everything as shapes.
    pub(crate) fn scene(&self, font: &Font) -> Scene {
        let height = match self.panels.len() {
            0 | 1 => 380.0,
            2 => 250.0,
            3 | 4 => 190.0,
            _ => 150.0,
        };
        let footer = if self.left_out.is_some() { 30.0 } else { 6.0 };
        let total = HEADER + self.panels.len() as f32 * (NAME + height + AXIS) + footer;
        let mut shapes = vec![Shape::Rect { at: (0.0, 0.0), size: (WIDTH, total), tone: Tone::Background }];
        self.header(font, &mut shapes);
        let n_marks: usize = self.panels.iter().map(|panel| panel.trace.marks().len()).sum();
        for (i, panel) in self.panels.iter().enumerate() {
            let top = HEADER + i as f32 * (NAME + height + AXIS) + NAME;
            let area = Area { top, height, width: WIDTH, panel };
            area.draw(font, &self.zone, MARKS / self.panels.len(), n_marks <= EXPLAINED_MARKS, &mut shapes);
        }
        if let Some(sentence) = &self.left_out {
            let text = font.fitted(sentence, 12.0, WIDTH - LEFT - RIGHT);
            shapes.push(label((LEFT, total - 14.0), text, 12.0, Anchor::Start, Tone::Muted));
        }
        let names: Vec<&str> = self.panels.iter().map(|panel| panel.name.as_str()).collect();
        let description = format!("{}. Panels: {}", self.subtitle(), names.join(", "));
        Scene { size: (WIDTH, total), title: self.heading.title.clone(), description, shapes }
    }

    fn header(&self, font: &Font, shapes: &mut Vec<Shape>) {
        let room = WIDTH - LEFT - RIGHT;
        let title = Text {
            at: (LEFT, 34.0),
            text: font.fitted(&self.heading.title, 20.0, room / BOLD),
            size: 20.0,
            anchor: Anchor::Start,
            bold: true,
            tone: Tone::Text,
        };
        shapes.push(Shape::Text(title));
        let subtitle = self.subtitle();
        shapes.push(label((LEFT, 55.0), font.fitted(&subtitle, 12.0, room), 12.0, Anchor::Start, Tone::Muted));
        let y = 80.0;
        let mut x = LEFT;
        let line = |x: f32, tone, dashed| Shape::Lines {
            lines: vec![vec![(x, y - 4.0), (x + 22.0, y - 4.0)]],
            stroke: Stroke { tone, width: 1.8, dashed },
        };
        let mark = |x: f32, severity| Shape::Marks { severity, at: vec![((x + 11.0, y - 4.0), String::new())] };
        let band = |x: f32| Shape::Rect { at: (x, y - 10.0), size: (22.0, 12.0), tone: Tone::Band };
        let entries: [(&str, &dyn Fn(f32) -> Shape); 5] = [
            ("value", &|x| line(x, Tone::Value, false)),
            ("expected", &|x| line(x, Tone::Expected, true)),
            ("normal band", &band),
            ("critical", &|x| mark(x, Severity::Critical)),
            ("warning", &|x| mark(x, Severity::Warning)),
        ];
        for (name, shape) in entries {
            shapes.push(shape(x));
            shapes.push(label((x + 29.0, y), name.into(), 12.0, Anchor::Start, Tone::Muted));
            x += 29.0 + font.width(name, 12.0) + 22.0;
        }
    }
}

/// The number of standard deviations, where it tells something: behind a constant it is beside the point.
pub(super) fn telling(z_score: Option<f64>) -> Option<f64> {
    z_score.filter(|z| z.abs() < 1e6)
}

/// A number of standard deviations with its sign.
pub(super) fn signed(z: f64) -> String {
    format!("{}{}", if z > 0.0 { "+" } else { "" }, text::zed(z))
}

/// `2 critical, 3 warnings · strongest +32.8 σ at 2014-02-20 03:10:00`.
fn summary(trace: &Trace, zone: &TimeZone) -> String {
    let Some(strongest) = trace.strongest() else { return "no anomalies".into() };
    let critical = trace.marks().iter().filter(|mark| mark.severity == Severity::Critical).count() as u64;
    let warnings = trace.marks().len() as u64 - critical;
    let mut parts = Vec::new();
    if critical > 0 {
        parts.push(format!("{} critical", text::count(critical)));
    }
    if warnings > 0 {
        parts.push(format!("{} {}", text::count(warnings), if warnings == 1 { "warning" } else { "warnings" }));
    }
    let height = match telling(strongest.z_score) {
        Some(z) => format!("{} σ", signed(z)),
        None => text::number(strongest.dot.value),
    };
    format!("{} · strongest {height} at {}", parts.join(", "), instant_text(strongest.dot.at, zone))
}

/// The axis of values: all values, and as much of the band as leaves them most of the room.
fn value_range(trace: &Trace) -> (f64, f64) {
    let (low, high) = trace.range().unwrap_or((0.0, 0.0));
    // Halves, as the difference of two large numbers may not be finite.
    let half = high / 2.0 - low / 2.0;
    let half = if half > 0.0 { half } else { (low.abs() * 0.05).max(0.5) };
    let bands = || trace.buckets().filter_map(Bucket::band);
    let lowest = bands().map(|band| band.lower).fold(low, f64::min).max(low - 0.4 * half);
    let highest = bands().map(|band| band.upper).fold(high, f64::max).min(high + 0.4 * half);
    let ends = (lowest - 0.15 * half, highest + 0.2 * half);
    (ends.0.max(f64::MIN), ends.1.min(f64::MAX))
}

/// One axis of time for all, where they are about the same time: then what goes wrong together stands below each other.
fn common_times(series: &[Drawn]) -> Option<(i64, i64)> {
    let spans: Vec<(i64, i64)> = series.iter().filter_map(|drawn| drawn.trace.span()).collect();
    let (from, to) = (spans.iter().map(|span| span.0).min()?, spans.iter().map(|span| span.1).max()?);
    let shortest = spans.iter().map(|(from, to)| to - from).min()?;
    (to - from <= shortest.saturating_mul(2)).then_some((from, to))
}

fn left_out(series: &[Drawn], n: usize) -> String {
    let names: Vec<String> = series.iter().take(NAMED).map(|drawn| shortened(&drawn.name)).collect();
    let more = if series.len() > NAMED { format!(" and {} more", text::count((series.len() - NAMED) as u64)) } else { String::new() };
    let odd = series.iter().filter(|drawn| !drawn.trace.marks().is_empty()).count() as u64;
    let odd = if odd == 0 { "none of them has an anomaly".into() } else { format!("{} of them have anomalies", text::count(odd)) };
    let count = text::count(n as u64);
    format!("{PANELS} of {count} series are drawn, those with the strongest anomalies; left out: {}{more} ({odd})", names.join(", "))
}

/// A name as it stands in a sentence: its middle is left out where it is long.
fn shortened(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= NAME_CHARS {
        return name.to_owned();
    }
    let half = NAME_CHARS / 2;
    chars[..half].iter().chain(&['…']).chain(&chars[chars.len() - half..]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::scene::Place;
    use super::super::trace::{Dot, Mark};
    use super::*;

    fn mark(at: i64, value: f64, strength: f64) -> Mark {
        Mark { dot: Dot { at, value }, severity: Severity::Warning, z_score: Some(value), strength }
    }

    /// A series of values a second apart, from a start, with anomalies of these strengths among them.
    fn drawn(name: &str, start: i64, n: i64, strengths: &[f64]) -> Drawn {
        let mut trace = Trace::new();
        for i in 0..n {
            trace.push(Dot { at: start + i * 1_000_000_000, value: (i % 7) as f64 }, None, 1000);
        }
        for (i, strength) in strengths.iter().enumerate() {
            trace.mark(mark(start + i as i64 * 1_000_000_000, (i % 7) as f64, *strength));
        }
        let key = anomaly_engine::SeriesKey::new(name, &[]);
        Drawn { name: name.into(), trace, settings: anomaly_engine::EngineConfig::default().settings_of(&key) }
    }

    fn figure(series: Vec<Drawn>) -> Figure {
        Figure::new(series, Heading { title: "title".into(), subtitle: "subtitle".into() }, TimeZone::UTC)
    }

    #[test]
    fn the_series_with_the_strongest_anomalies_are_drawn_and_the_others_named() {
        let series = (0..15).map(|i| drawn(&format!("m{i}"), 0, 10, if i > 0 { &[1.0, 1.5][..] } else { &[] }));
        let mut series: Vec<Drawn> = series.collect();
        series.push(drawn("strongest", 0, 10, &[9.0]));
        let figure = figure(series);
        assert_eq!(figure.panels.len(), PANELS);
        assert_eq!((figure.panels[0].name.as_str(), figure.panels[1].name.as_str()), ("strongest", "m1"));
        assert_eq!(
            figure.left_out().unwrap(),
            "12 of 16 series are drawn, those with the strongest anomalies; left out: m12, m13, m14 and 1 more (3 of them have anomalies)"
        );
    }

    #[test]
    fn no_two_texts_of_a_figure_lie_on_each_other() {
        let font = Font::load().unwrap();
        let long = format!("requests{{path=\"{}\"}}", "/very/long".repeat(40));
        for n in [1, 2, 3, 12, 14] {
            let scene =
                figure((0..n).map(|i| drawn(&format!("{long}{i}"), 1_700_000_000_000_000_000, 3000, &[5.0])).collect()).scene(&font);
            let boxes: Vec<(f32, f32, f32, f32)> = scene
                .shapes
                .iter()
                .filter_map(|shape| if let Shape::Text(text) = shape { Some(text) } else { None })
                .map(|text| {
                    let width = font.width(&text.text, text.size) * if text.bold { BOLD } else { 1.0 };
                    let left = text.at.0 - width * [0.0, 0.5, 1.0][text.anchor as usize];
                    (left, left + width, text.at.1 - 0.75 * text.size, text.at.1 + 0.2 * text.size)
                })
                .collect();
            for (i, a) in boxes.iter().enumerate() {
                assert!(a.0 >= 0.0 && a.1 <= scene.size.0 && a.3 <= scene.size.1, "{a:?} {:?}", scene.size);
                for b in &boxes[i + 1..] {
                    assert!(a.1 <= b.0 || b.1 <= a.0 || a.3 <= b.2 || b.3 <= a.2, "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn every_anomaly_is_drawn_unless_another_lies_on_it() {
        let font = Font::load().unwrap();
        let scene = figure(vec![drawn("m", 0, 3000, &[2.0; 300])]).scene(&font);
        let places: Vec<Place> = scene.shapes.iter().flat_map(marks_of).collect();
        // 300 seconds in 1094 pixels of 3000 seconds, each of 7 values at least once a pixel; one more is in the legend.
        assert!(places.len() > 200 && places.len() <= 301, "{}", places.len());
        let near = |x: f32, y: f32| places.iter().any(|place| (place.0 - x).abs() <= 0.5 && (place.1 - y).abs() <= 0.5);
        let panel = &figure(vec![drawn("m", 0, 3000, &[2.0; 300])]).panels[0];
        let area = Area { top: HEADER + NAME, height: 380.0, width: WIDTH, panel };
        assert!(panel.trace.marks().iter().all(|mark| near(area.x(mark.dot.at), area.y(mark.dot.value))));
    }

    fn marks_of(shape: &Shape) -> Vec<Place> {
        let Shape::Marks { severity: Severity::Warning, at } = shape else { return Vec::new() };
        at.iter().map(|(place, _)| *place).collect()
    }

    #[test]
    fn series_of_about_the_same_time_share_its_axis_and_others_do_not() {
        let hour = 3_600_000_000_000;
        let together = figure(vec![drawn("a", 0, 3600, &[]), drawn("b", hour / 4, 3600, &[])]);
        assert_eq!(together.panels[0].times, together.panels[1].times);
        let apart = figure(vec![drawn("a", 0, 3600, &[]), drawn("b", 100 * hour, 3600, &[])]);
        assert_ne!(apart.panels[0].times, apart.panels[1].times);
        let instant = figure(vec![drawn("a", 0, 1, &[])]);
        assert!(instant.panels[0].times.0 < instant.panels[0].times.1 && instant.panels[0].values.0 < instant.panels[0].values.1);
    }
}
