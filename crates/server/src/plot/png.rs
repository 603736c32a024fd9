//! A picture painted, in light colours, at twice its size so that it is sharp.

use tiny_skia::{Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke as Pen, StrokeDash, Transform};

use super::PlotError;
use super::font::Font;
use super::scene::{Anchor, Place, Scene, Shape, Stroke, Text, Tone, mark_corners};

const SCALE: f32 = 2.0;

/// Paints a picture.
///
/// # Errors
/// It is too large.
pub(crate) fn paint(scene: &Scene, font: &Font) -> Result<Vec<u8>, PlotError> {
    let (width, height) = scene.size;
    let pixels = |length: f32| (length * SCALE).ceil() as u32;
    let mut canvas = Canvas { pixmap: Pixmap::new(pixels(width), pixels(height)).ok_or(PlotError::TooLarge)?, font };
    scene.shapes.iter().for_each(|shape| canvas.shape(shape));
    canvas.pixmap.encode_png().map_err(|error| PlotError::Png(error.to_string()))
}

struct Canvas<'a> {
    pixmap: Pixmap,
    font: &'a Font,
}

impl Canvas<'_> {
    fn shape(&mut self, shape: &Shape) {
        match shape {
            Shape::Rect { at: (x, y), size: (width, height), tone } => {
                self.fill(path([[(*x, *y), (x + width, *y), (x + width, y + height), (*x, y + height)].as_slice()], true), *tone);
            }
            Shape::Lines { lines, stroke } => self.stroke(path(lines.iter().map(Vec::as_slice), false), *stroke),
            Shape::Areas { areas, tone } => self.fill(path(areas.iter().map(Vec::as_slice), true), *tone),
            Shape::Text(text) => self.text(text),
            Shape::Marks { severity, at } => {
                // One by one, as overlapping ones are to be told apart.
                for (place, _) in at {
                    let corners = path([mark_corners(*severity, *place).as_slice()], true);
                    let tone = Tone::from(*severity);
                    let (inside, outline, width) = if tone == Tone::Critical { (tone, Tone::Panel, 1.0) } else { (Tone::Panel, tone, 2.0) };
                    self.fill(corners.clone(), inside);
                    self.stroke(corners, Stroke { tone: outline, width, dashed: false });
                }
            }
        }
    }

    fn text(&mut self, Text { at: (x, y), text, size, anchor, bold, tone }: &Text) {
        let width = self.font.width(text, *size);
        let start = match anchor {
            Anchor::Start => *x,
            Anchor::Middle => x - width / 2.0,
            Anchor::End => x - width,
        };
        let outline = self.font.outline(text, *size, start, *y);
        if *bold {
            self.stroke(outline.clone(), Stroke { tone: *tone, width: size * 0.04, dashed: false });
        }
        self.fill(outline, *tone);
    }

    fn fill(&mut self, path: Option<Path>, tone: Tone) {
        if let Some(path) = path {
            let scale = Transform::from_scale(SCALE, SCALE);
            self.pixmap.fill_path(&path, &paint_of(tone), FillRule::Winding, scale, None);
        }
    }

    fn stroke(&mut self, path: Option<Path>, Stroke { tone, width, dashed }: Stroke) {
        if let Some(path) = path {
            let dash = if dashed { StrokeDash::new(vec![5.0, 4.0], 0.0) } else { None };
            let pen = Pen { width, dash, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Pen::default() };
            self.pixmap.stroke_path(&path, &paint_of(tone), &pen, Transform::from_scale(SCALE, SCALE), None);
        }
    }
}

fn paint_of(tone: Tone) -> Paint<'static> {
    let (red, green, blue, percent) = tone.light();
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color(Color::from_rgba8(red, green, blue, (u16::from(percent) * 255 / 100) as u8));
    paint
}

fn path<'a>(lines: impl IntoIterator<Item = &'a [Place]>, closed: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    for line in lines {
        for (i, &(x, y)) in line.iter().enumerate() {
            if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
        }
        match line {
            // A round end alone: a dot.
            [(x, y)] => path.line_to(x + 0.01, *y),
            _ if closed => path.close(),
            _ => {}
        }
    }
    path.finish()
}
