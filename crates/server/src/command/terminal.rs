//! What a terminal can show: colours, its width, and notes that stand out.

use std::fmt;
use std::io::{self, Write};

use crate::notify::words::harmful;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A way to stand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Bold,
    Red,
    Yellow,
    Cyan,
}

/// A text in a style, where colours are shown.
pub(crate) fn painted(text: &str, style: Style, colour: bool) -> String {
    let code = match style {
        Style::Bold => "1",
        Style::Red => "31",
        Style::Yellow => "33",
        Style::Cyan => "36",
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Columns of the terminal on standard output; nothing where it is none, or does not say.
pub(crate) fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// Columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// A text without what would move the cursor, change colours or turn the direction of writing.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect()
}

/// A text, or as much of it as takes so many columns, with `…` in its middle: both ends of a name tell it from others.
pub(crate) fn fitted(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(1);
    let taken = |chars: &mut dyn Iterator<Item = char>, room: usize| {
        let mut used = 0;
        let fits = |c: &char| {
            used += c.width().unwrap_or(0);
            used <= room
        };
        chars.take_while(fits).collect::<String>()
    };
    let end: String = taken(&mut text.chars().rev(), room / 2).chars().rev().collect();
    let start = taken(&mut text.chars(), room - room / 2);
    format!("{start}…{end}")
}

/// What a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A file that could not be read.
    Error,
    /// What may not be as it was meant.
    Warning,
    /// A row that was not taken.
    Rejected,
    /// What to do.
    Hint,
    /// What was done besides.
    Plot,
}

/// Where notes go: standard error.
pub(crate) struct Notes<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) colour: bool,
}

impl Notes<'_> {
    /// Writes a note on a line.
    pub(crate) fn say(&mut self, note: Note, text: impl fmt::Display) -> io::Result<()> {
        let (word, style) = match note {
            Note::Error => ("error:", Style::Red),
            Note::Warning => ("warning:", Style::Yellow),
            Note::Rejected => ("rejected:", Style::Yellow),
            Note::Hint => ("hint:", Style::Cyan),
            Note::Plot => ("plot:", Style::Cyan),
        };
        writeln!(self.out, "{} {}", painted(word, style, self.colour), harmless(&text.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_both_ends_and_takes_no_more_columns() {
        assert_eq!(fitted("requests{host=\"web-1\"}", 13), "reques…eb-1\"}");
        assert_eq!((fitted("cpu", 3).as_str(), fitted("cpu_usage", 1).as_str()), ("cpu", "…"));
        for columns in 1..12 {
            assert!(width(&fitted("温度温度温度", columns)) <= columns);
        }
    }

    #[test]
    fn what_would_change_the_terminal_is_shown_as_a_box() {
        assert_eq!(harmless("a\x1b[31mb\nc"), "a\u{fffd}[31mb\u{fffd}c");
        assert_eq!((painted("a", Style::Red, false), painted("a", Style::Red, true)), ("a".into(), "\x1b[31ma\x1b[0m".into()));
    }
}
