//! A picture as SVG, light or dark as its reader prefers.

use std::fmt::Write as _;

use anomaly_engine::Severity;

use super::scene::{Anchor, Place, Scene, Shape, Stroke, Text, Tone, mark_corners, style_sheet};

/// Appends a picture.
pub(crate) fn write(scene: &Scene, out: &mut String) {
    let (width, height) = scene.size;
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-labelledby=\"t d\">\n<title id=\"t\">{}</title>\n<desc id=\"d\">{}</desc>\n<style>{}</style>\n",
        escaped(&scene.title),
        escaped(&scene.description),
        style()
    );
    for shape in &scene.shapes {
        write_shape(shape, out);
        out.push('\n');
    }
    out.push_str("</svg>\n");
}

fn style() -> String {
    let mut text = format!(
        "{}text{{font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif;font-variant-numeric:tabular-nums}}\
         .s{{fill:none;stroke-linejoin:round;stroke-linecap:round}}.d{{stroke-dasharray:5 4}}\
         .mark-critical{{fill:var(--critical);stroke:var(--panel);stroke-width:1}}\
         .mark-warning{{fill:var(--panel);stroke:var(--warning);stroke-width:2;stroke-linejoin:round}}",
        style_sheet()
    );
    for tone in Tone::ALL {
        let name = tone.as_str();
        let _ = write!(text, ".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}");
    }
    text
}

fn write_shape(shape: &Shape, out: &mut String) {
    match shape {
        Shape::Rect { at: (x, y), size: (width, height), tone } => {
            let _ = write!(out, "<rect class=\"f-{}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>", tone.as_str());
        }
        Shape::Lines { lines, stroke: Stroke { tone, width, dashed } } => {
            let dash = if *dashed { " d" } else { "" };
            let _ = write!(out, "<path class=\"s{dash} s-{}\" stroke-width=\"{width}\" d=\"", tone.as_str());
            lines.iter().for_each(|line| push_line(line, out));
            out.push_str("\"/>");
        }
        Shape::Areas { areas, tone } => {
            let _ = write!(out, "<path class=\"f-{}\" d=\"", tone.as_str());
            for area in areas {
                push_line(area, out);
                out.push('z');
            }
            out.push_str("\"/>");
        }
        Shape::Text(text) => write_text(text, out),
        Shape::Marks { severity, at } => write_marks(*severity, at, out),
    }
}

fn write_text(Text { at: (x, y), text, size, anchor, bold, tone }: &Text, out: &mut String) {
    let anchor = match anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let weight = if *bold { " font-weight=\"600\"" } else { "" };
    let _ = write!(
        out,
        "<text class=\"f-{}\" x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\"{anchor}{weight}>{}</text>",
        tone.as_str(),
        escaped(text)
    );
}

fn write_marks(severity: Severity, at: &[(Place, String)], out: &mut String) {
    let _ = write!(out, "<g class=\"mark-{}\">", severity.as_str());
    for (place, said) in at {
        out.push_str("<path d=\"");
        push_line(&mark_corners(severity, *place), out);
        if said.is_empty() {
            out.push_str("z\"/>");
        } else {
            let _ = write!(out, "z\"><title>{}</title></path>", escaped(said));
        }
    }
    out.push_str("</g>");
}

/// Appends a line as path data: the first place, then the way from each to the next, to a tenth of a pixel.
fn push_line(line: &[Place], out: &mut String) {
    let tenths = |x: f32| (x * 10.0).round() as i64;
    let push = |out: &mut String, tenths: i64| {
        let sign = if tenths < 0 { "-" } else { "" };
        let (whole, rest) = (tenths.abs() / 10, tenths.abs() % 10);
        let _ = match rest {
            0 => write!(out, "{sign}{whole}"),
            _ => write!(out, "{sign}{whole}.{rest}"),
        };
    };
    let mut before: Option<(i64, i64)> = None;
    for &(x, y) in line {
        let (x, y) = (tenths(x), tenths(y));
        let (x0, y0) = before.unwrap_or((0, 0));
        out.push(if before.is_some() { 'l' } else { 'M' });
        push(out, x - x0);
        if y >= y0 {
            out.push(' ');
        }
        push(out, y - y0);
        before = Some((x, y));
    }
    if line.len() == 1 {
        // A round end alone: a dot.
        out.push_str("h0");
    }
}

/// A text inside of an element or an attribute of XML or HTML. What XML cannot hold is shown as a box.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escaped("a<b & \"c\" ]]>\u{1}\u{ffff}"), "a&lt;b &amp; &quot;c&quot; ]]&gt;\u{fffd}\u{fffd}");
    }

    #[test]
    fn lines_are_written_as_steps_of_tenths() {
        let mut out = String::new();
        push_line(&[(10.04, 20.0), (10.55, 19.5), (9.0, 19.5)], &mut out);
        assert_eq!(out, "M10 20l0.6-0.5l-1.6 0");
        out.clear();
        push_line(&[(1.0, 2.0)], &mut out);
        assert_eq!(out, "M1 2h0");
    }
}
