//! A picture as shapes, before it is written as SVG or painted.

use std::fmt::Write as _;

use anomaly_engine::Severity;

/// A place in a picture, `y` downwards.
pub(crate) type Place = (f32, f32);

/// What a shape is, which gives it its colour: light or dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Background,
    Panel,
    Grid,
    Text,
    Muted,
    Value,
    Expected,
    Band,
    Critical,
    Warning,
}

/// A colour: red, green, blue, opacity in percent.
pub(crate) type Colour = (u8, u8, u8, u8);

impl Tone {
    pub(crate) const ALL: [Tone; 10] = [
        Self::Background,
        Self::Panel,
        Self::Grid,
        Self::Text,
        Self::Muted,
        Self::Value,
        Self::Expected,
        Self::Band,
        Self::Critical,
        Self::Warning,
    ];

    /// Its name in style sheets.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Panel => "panel",
            Self::Grid => "grid",
            Self::Text => "text",
            Self::Muted => "muted",
            Self::Value => "value",
            Self::Expected => "expected",
            Self::Band => "band",
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }

    /// On a light ground.
    pub(crate) fn light(self) -> Colour {
        match self {
            Self::Background => (255, 255, 255, 100),
            Self::Panel => (247, 248, 250, 100),
            Self::Grid => (225, 229, 235, 100),
            Self::Text => (24, 31, 42, 100),
            Self::Muted => (86, 97, 113, 100),
            Self::Value => (37, 99, 168, 100),
            Self::Expected => (70, 82, 99, 100),
            Self::Band => (37, 99, 168, 15),
            Self::Critical => (205, 20, 40, 100),
            Self::Warning => (190, 90, 0, 100),
        }
    }

    /// On a dark ground.
    pub(crate) fn dark(self) -> Colour {
        match self {
            Self::Background => (18, 22, 28, 100),
            Self::Panel => (25, 30, 38, 100),
            Self::Grid => (46, 54, 66, 100),
            Self::Text => (232, 236, 242, 100),
            Self::Muted => (156, 167, 183, 100),
            Self::Value => (112, 174, 240, 100),
            Self::Expected => (176, 187, 202, 100),
            Self::Band => (112, 174, 240, 18),
            Self::Critical => (255, 92, 102, 100),
            Self::Warning => (255, 171, 64, 100),
        }
    }
}

impl From<Severity> for Tone {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Critical => Self::Critical,
            Severity::Warning => Self::Warning,
        }
    }
}

/// Where a text stands at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A line of text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Text {
    /// Of its base line.
    pub(crate) at: Place,
    pub(crate) text: String,
    pub(crate) size: f32,
    pub(crate) anchor: Anchor,
    pub(crate) bold: bool,
    pub(crate) tone: Tone,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stroke {
    pub(crate) tone: Tone,
    pub(crate) width: f32,
    pub(crate) dashed: bool,
}

/// A part of a picture; later ones lie on earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    /// From a corner, so wide and so high.
    Rect { at: Place, size: Place, tone: Tone },
    /// Open lines.
    Lines { lines: Vec<Vec<Place>>, stroke: Stroke },
    /// Closed areas.
    Areas { areas: Vec<Vec<Place>>, tone: Tone },
    /// A line of text.
    Text(Text),
    /// Anomalies of one severity at their places, each with what it says when it is pointed at (or nothing).
    Marks { severity: Severity, at: Vec<(Place, String)> },
}

/// A line of text that is not bold.
pub(crate) fn label(at: Place, text: String, size: f32, anchor: Anchor, tone: Tone) -> Shape {
    Shape::Text(Text { at, text, size, anchor, bold: false, tone })
}

/// The colours as variables of a style sheet, light or dark as the reader prefers.
pub(crate) fn style_sheet() -> String {
    let list = |of: fn(Tone) -> Colour| {
        Tone::ALL.iter().fold(String::new(), |mut text, tone| {
            let (red, green, blue, percent) = of(*tone);
            let _ = write!(text, "--{}:rgb({red} {green} {blue}/{percent}%);", tone.as_str());
            text
        })
    };
    format!(":root{{color-scheme:light dark;{}}}@media(prefers-color-scheme:dark){{:root{{{}}}}}", list(Tone::light), list(Tone::dark))
}

/// A solid diamond or a hollow triangle: as corners around a place.
pub(crate) fn mark_corners(severity: Severity, (x, y): Place) -> Vec<Place> {
    match severity {
        Severity::Critical => vec![(x, y - 6.0), (x + 6.0, y), (x, y + 6.0), (x - 6.0, y)],
        Severity::Warning => vec![(x, y - 5.5), (x + 5.5, y + 4.5), (x - 5.5, y + 4.5)],
    }
}

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scene {
    pub(crate) size: Place,
    /// For those who do not see it, and for the tab of a browser.
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) shapes: Vec<Shape>,
}
