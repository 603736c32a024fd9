//! Words that all messages share: texts that do no harm, times, and counts.
//!
//! Names of metrics and labels come from anywhere. In what is returned here no character breaks a line or turns the direction
//! of writing; what else a channel must escape (HTML, mrkdwn) it escapes itself.

use anomaly_detect::text;
use anomaly_engine::{NANOS, Timestamp};
use serde_json::Value;

/// `1 incident`, `1,440 incidents`.
pub(super) fn counted(n: u64, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{} {many}", text::count(n)) }
}

/// A text on one line: what breaks lines, hides or turns the direction of writing is written as an escape.
pub fn tame(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if harmful(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Controls, line and paragraph separators, marks without width, and what sets the direction of writing.
pub(crate) fn harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text of at most so many characters: its middle is left out, as both ends of a name tell it from others.
pub fn shortened(text: &str, most: usize) -> String {
    let n = text.chars().count();
    if n <= most {
        return text.to_owned();
    }
    let (head, tail) = (most / 2, most - most / 2 - 1);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(n - tail)).collect()
}

/// An id as it may stand in links and headers: ids are our own, and this holds even if one were not.
pub fn plain_id(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(128).collect()
}

/// An instant of our domain in jiff's form.
fn jiff(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(at.nanos().into()).unwrap_or_default()
}

/// `2026-11-27 03:12:05 UTC`.
pub fn instant(at: Timestamp) -> String {
    jiff(at).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `03:12 UTC`.
pub(super) fn clock(at: Timestamp) -> String {
    jiff(at).strftime("%H:%M UTC").to_string()
}

/// An instant behind another: of the same day, its time alone.
pub(super) fn clock_seconds(before: Timestamp, at: Timestamp) -> String {
    let day = |at: Timestamp| at.nanos().div_euclid(86_400 * NANOS);
    if day(before) == day(at) { jiff(at).strftime("%H:%M:%S").to_string() } else { instant(at) }
}

/// RFC 3339, as other programs read it: `2026-11-27T03:12:05.25Z`.
pub fn rfc3339(at: Timestamp) -> String {
    jiff(at).to_string()
}

/// An instant as a number of JSON, with all its digits where a double holds them.
pub fn number(at: Timestamp) -> Value {
    at.to_string().parse().map_or_else(|_| Value::from(at.seconds()), Value::Number)
}

/// A span of time as people say it: `40 s`, `12 min`, `3 h 20 min`, `2 d 4 h`.
pub(super) fn lasting(nanos: i64) -> String {
    let seconds = (nanos as f64 / NANOS as f64).round() as u64;
    let pair = |large: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {small_unit}") }
    };
    match seconds {
        0 => "less than 1 s".into(),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => pair(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}
