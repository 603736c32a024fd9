//! A figure as a page of its own: the data, and a script that draws them and zooms. Nothing comes from elsewhere.

use std::fmt::Write as _;

use anomaly_engine::Severity;
use anomaly_engine::json_text::push_str;

use super::area::thinned;
use super::figure::{Figure, MARKS, Panel};
use super::scene::style_sheet;
use super::trace::{Bucket, Mark};

/// Buckets of all panels together, so that the page stays below 3 MB.
const BUCKETS: usize = 20_000;
/// Cells of a panel in each direction: where there are very many anomalies, each shows its strongest.
const CELLS: f32 = 8192.0;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Appends the page.
pub(crate) fn write(figure: &mut Figure, out: &mut String) {
    let n = figure.panels.len().max(1);
    for panel in &mut figure.panels {
        panel.trace.shrink(BUCKETS / n);
    }
    let mut data = String::new();
    push_figure(figure, &mut data);
    // Nothing in a text may end the element that the data stand in.
    let data = data.replace('<', "\\u003c");
    let mut rest = PAGE;
    let parts = [("{{style}}", format!("{}\n{STYLE}", style_sheet())), ("{{data}}", data), ("{{script}}", SCRIPT.to_owned())];
    for (place, text) in parts {
        // The template is ours, and its places stand in this order.
        let Some((before, after)) = rest.split_once(place) else { continue };
        out.push_str(before);
        out.push_str(&text);
        rest = after;
    }
    out.push_str(rest);
}

fn push_figure(figure: &Figure, out: &mut String) {
    out.push_str("{\"title\":");
    push_str(out, &figure.heading.title);
    out.push_str(",\"subtitle\":");
    push_str(out, &figure.subtitle());
    out.push_str(",\"note\":");
    push_str(out, figure.left_out().as_deref().unwrap_or_default());
    out.push_str(",\"zone\":");
    push_str(out, figure.zone_name());
    out.push_str(",\"panels\":[");
    for (i, panel) in figure.panels.iter().enumerate() {
        out.push_str(if i == 0 { "\n" } else { ",\n" });
        push_panel(panel, MARKS / figure.panels.len(), out);
    }
    out.push_str("\n]}");
}

/// Times are milliseconds from the beginning of the axis.
fn push_panel(panel: &Panel, most_marks: usize, out: &mut String) {
    let (from, to) = panel.times;
    let since = |at: i64| (i128::from(at) - i128::from(from)) as f64 / 1e6;
    out.push_str("{\"name\":");
    push_str(out, &panel.name);
    out.push_str(",\"summary\":");
    push_str(out, &panel.summary);
    let _ = write!(out, ",\"from\":{},\"to\":{},\"lines\":[", from as f64 / 1e6, to as f64 / 1e6);
    for (i, line) in panel.trace.lines(Bucket::extremes).iter().enumerate() {
        out.push_str(if i == 0 { "{\"t\":" } else { ",{\"t\":" });
        push_numbers(out, line.iter().map(|dot| Some(since(dot.at))));
        out.push_str(",\"v\":");
        push_numbers(out, line.iter().map(|dot| Some(short(dot.value))));
        out.push('}');
    }
    let bands: Vec<_> =
        panel.trace.buckets().map(|bucket| ((since(bucket.first.at) + since(bucket.last.at)) / 2.0, bucket.band())).collect();
    out.push_str("],\"band\":{\"t\":");
    push_numbers(out, bands.iter().map(|(at, _)| Some((at * 1e3).round() / 1e3)));
    for (name, number) in [("expected", 0), ("lower", 1), ("upper", 2)] {
        let _ = write!(out, ",\"{name}\":");
        push_numbers(out, bands.iter().map(|(_, band)| band.map(|band| short([band.expected, band.lower, band.upper][number]))));
    }
    let marks = marks(panel, most_marks);
    out.push_str("},\"marks\":{\"t\":");
    push_numbers(out, marks.iter().map(|mark| Some(since(mark.dot.at))));
    out.push_str(",\"v\":");
    push_numbers(out, marks.iter().map(|mark| Some(mark.dot.value)));
    out.push_str(",\"z\":");
    push_numbers(out, marks.iter().map(|mark| mark.z_score.map(|z| (z * 10.0).round() / 10.0)));
    out.push_str(",\"critical\":");
    push_numbers(out, marks.iter().map(|mark| Some(f64::from(mark.severity == Severity::Critical))));
    out.push_str("}}");
}

/// The anomalies in the order of time: each, as one may zoom in, or of very many the strongest of each cell.
fn marks(panel: &Panel, most: usize) -> Vec<&Mark> {
    let mut marks: Vec<&Mark> = panel.trace.marks().iter().collect();
    if marks.len() <= most {
        marks.sort_by_key(|mark| mark.dot.at);
        return marks;
    }
    let ((from, to), (low, high)) = (panel.times, panel.values);
    let place = |mark: &Mark| {
        let time = (mark.dot.at as f64 - from as f64) / (to as f64 - from as f64);
        // Halves, as the difference of two large numbers may not be finite.
        let value = (mark.dot.value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
        (time as f32 * CELLS, value as f32 * CELLS)
    };
    thinned(marks, most, 1.0, place)
}

fn push_numbers(out: &mut String, numbers: impl Iterator<Item = Option<f64>>) {
    out.push('[');
    for (i, number) in numbers.enumerate() {
        if i > 0 {
            out.push(',');
        }
        match number {
            // The shorter of the two: no long row of zeros.
            Some(x) if x != 0.0 && !(1e-5..1e15).contains(&x.abs()) => _ = write!(out, "{x:e}"),
            Some(x) => _ = write!(out, "{x}"),
            None => out.push_str("null"),
        }
    }
    out.push(']');
}

/// A number with the six digits that can be seen.
fn short(x: f64) -> f64 {
    format!("{x:.5e}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_are_json() {
        let mut out = String::new();
        push_numbers(&mut out, [Some(short(1.0 / 3.0)), None, Some(-0.0), Some(1e300), Some(f64::MAX), Some(12.0)].into_iter());
        assert_eq!(out, "[0.333333,null,-0,1e300,1.7976931348623157e308,12]");
        assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok());
    }

    #[test]
    fn the_template_has_its_places_in_order() {
        let at = |place| PAGE.find(place).unwrap();
        assert!(at("{{style}}") < at("{{data}}") && at("{{data}}") < at("{{script}}"));
        let elsewhere = ["http:", "https:", "url(", "import", "src="];
        assert!([PAGE, STYLE, SCRIPT].iter().all(|text| !elsewhere.iter().any(|word| text.contains(word))));
        assert!(!SCRIPT.contains("</"), "it would end the element that it stands in");
    }
}
