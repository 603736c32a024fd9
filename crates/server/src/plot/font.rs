//! The font of pictures: in the binary, so that they look the same on every machine.

use tiny_skia::{Path, PathBuilder};
use ttf_parser::{Face, GlyphId, OutlineBuilder};

/// DejaVu Sans: it has the letters of most names, and is wider than what browsers show, so that what fits in it fits there.
#[derive(Debug, Clone)]
pub(crate) struct Font {
    face: Face<'static>,
}

impl Font {
    /// The font.
    ///
    /// # Errors
    /// The binary is damaged.
    pub(crate) fn load() -> Result<Self, ttf_parser::FaceParsingError> {
        Ok(Self { face: Face::parse(dejavu::sans::regular(), 0)? })
    }

    /// How wide a text is, in the unit of `size`.
    pub(crate) fn width(&self, text: &str, size: f32) -> f32 {
        text.chars().map(|c| self.advance(self.glyph(c))).sum::<f32>() * self.scale(size)
    }

    /// The text, or as much of it as fits with `…` in its middle: both ends of a name tell it from others.
    pub(crate) fn fitted(&self, text: &str, size: f32, width: f32) -> String {
        if self.width(text, size) <= width {
            return text.to_owned();
        }
        let room = width - self.width("…", size);
        let half = |chars: &mut dyn Iterator<Item = char>| {
            let (mut taken, mut used) = (String::new(), 0.0);
            for c in chars {
                used += self.width(c.encode_utf8(&mut [0; 4]), size);
                if used > room / 2.0 {
                    break;
                }
                taken.push(c);
            }
            taken
        };
        let start = half(&mut text.chars());
        let end: String = half(&mut text.chars().rev()).chars().rev().collect();
        format!("{start}…{end}")
    }

    /// The outlines of a text that begins at (`x`, `y`), `y` its base line; nothing where none of it is visible.
    pub(crate) fn outline(&self, text: &str, size: f32, x: f32, y: f32) -> Option<Path> {
        let scale = self.scale(size);
        let mut pen = Pen { path: PathBuilder::new(), x, y, scale };
        for c in text.chars() {
            let glyph = self.glyph(c);
            self.face.outline_glyph(glyph, &mut pen);
            pen.x += self.advance(glyph) * scale;
        }
        pen.path.finish()
    }

    /// The glyph of a character; of one that the font has not, the box that stands for it.
    fn glyph(&self, c: char) -> GlyphId {
        self.face.glyph_index(c).unwrap_or(GlyphId(0))
    }

    fn advance(&self, glyph: GlyphId) -> f32 {
        self.face.glyph_hor_advance(glyph).unwrap_or(0).into()
    }

    fn scale(&self, size: f32) -> f32 {
        size / f32::from(self.face.units_per_em())
    }
}

/// Draws glyphs, whose `y` points up, into a picture, whose `y` points down.
struct Pen {
    path: PathBuilder,
    x: f32,
    y: f32,
    scale: f32,
}

impl Pen {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.scale, self.y - y * self.scale)
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_keeps_both_ends_and_fits() {
        let font = Font::load().unwrap();
        let name = format!("requests{{host=\"{}\",zone=\"eu\"}}", "a".repeat(300));
        let fitted = font.fitted(&name, 13.0, 400.0);
        assert!(font.width(&fitted, 13.0) <= 400.0 && font.width(&fitted, 13.0) > 370.0, "{fitted}");
        assert!(fitted.starts_with("requests{") && fitted.ends_with("zone=\"eu\"}") && fitted.contains('…'));
        assert_eq!(font.fitted("cpu", 13.0, 400.0), "cpu");
    }

    #[test]
    fn signs_of_the_pictures_have_glyphs() {
        let font = Font::load().unwrap();
        assert!("az09−±σ…–·◆△äжλ".chars().all(|c| font.face.glyph_index(c).is_some()));
        assert!(font.outline("cpu", 12.0, 0.0, 10.0).is_some() && font.outline(" ", 12.0, 0.0, 0.0).is_none());
    }
}
