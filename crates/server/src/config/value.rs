//! Settings as text: numbers, seconds, sizes, words. What cannot be read is told with the value.

use std::net::IpAddr;

use anomaly_detect::DetectorKind;
use anomaly_engine::NANOS;
use jiff::tz::TimeZone;

/// A number of seconds as nanoseconds or as f64 fits i64 nanoseconds up to here (292 years).
const MAX_SECONDS: f64 = (i64::MAX / NANOS) as f64;

/// Units behind a number of seconds.
const TIME_UNITS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];

/// Units behind a number of bytes, those of 1024 first.
const BYTE_UNITS: [(&str, u64); 11] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

/// Reads `300`, `300.0`, `5m`, `250ms`, `1h` or `7d` as a positive number of seconds.
///
/// # Errors
/// What is wrong, with the text.
pub fn positive_seconds(text: &str) -> Result<f64, String> {
    seconds(text).filter(|&seconds| seconds > 0.0).ok_or_else(|| format!("must be a positive number of seconds, got {text:?}"))
}

/// As [`positive_seconds`], zero included.
///
/// # Errors
/// What is wrong, with the text.
pub fn seconds_from_zero(text: &str) -> Result<f64, String> {
    seconds(text).ok_or_else(|| format!("must be a number of seconds from 0, got {text:?}"))
}

fn seconds(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let factor = if unit.is_empty() { 1.0 } else { TIME_UNITS.iter().find(|(name, _)| *name == unit)?.1 };
    let seconds = decimal(digits.trim_end())? * factor;
    (0.0..=MAX_SECONDS).contains(&seconds).then_some(seconds)
}

/// A span in nanoseconds as it is read to people: `5 s`, `0.25 s`.
pub fn show_seconds(nanos: i64) -> String {
    format!("{} s", nanos as f64 / NANOS as f64)
}

/// Seconds as nanoseconds, rounded to the nearest.
pub fn nanos(seconds: f64) -> i64 {
    (seconds * NANOS as f64).round() as i64
}

/// Reads a size: `2GiB`, `500MB`, `64 KiB` or plain bytes; at least one byte.
///
/// # Errors
/// What is wrong, with the text.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let factor = BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
    let read = || {
        let factor = factor?;
        match whole(digits.trim_end()) {
            Some(n) => n.checked_mul(factor),
            None => decimal(digits.trim_end()).map(|n| n * factor as f64).filter(|&n| n < i64::MAX as f64).map(|n| n as u64),
        }
    };
    let bytes = read().filter(|bytes| (1..=i64::MAX as u64).contains(bytes));
    bytes.ok_or_else(|| format!("must be a size such as 2GiB, 500MB or a number of bytes, got {text:?}"))
}

/// As [`bytes()`], of what is held in memory at once.
///
/// # Errors
/// What is wrong, with the text.
pub fn bytes_in_memory(text: &str) -> Result<usize, String> {
    usize::try_from(bytes(text)?).map_err(|_| format!("must be at most {} bytes, got {text:?}", usize::MAX))
}

/// A size in the largest unit of 1024 that divides it: `2GiB`, `1000` where none does.
pub fn show_bytes(bytes: u64) -> String {
    let unit = BYTE_UNITS[..4].iter().rev().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

/// Reads a positive whole number; `_` and `,` may stand between digits.
///
/// # Errors
/// What is wrong, with the text.
pub fn count(text: &str) -> Result<u64, String> {
    let n = whole(text).filter(|n| (1..=i64::MAX as u64).contains(n));
    n.ok_or_else(|| format!("must be a positive whole number, got {text:?}"))
}

/// As [`count`], up to what 32 bits hold.
///
/// # Errors
/// What is wrong, with the text.
pub fn count32(text: &str) -> Result<u32, String> {
    u32::try_from(count(text)?).map_err(|_| format!("must be at most {}, got {text:?}", u32::MAX))
}

fn whole(text: &str) -> Option<u64> {
    let digits = text.replace(['_', ','], "");
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Reads a positive number.
///
/// # Errors
/// What is wrong, with the text.
pub fn positive(text: &str) -> Result<f64, String> {
    decimal(text).filter(|&n| n > 0.0).ok_or_else(|| format!("must be a positive number, got {text:?}"))
}

/// A finite number in digits: Rust also reads `inf` and `nan`, nobody means those.
fn decimal(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|n| n.is_finite())
}

/// Reads `true` or `false`; also `1`, `0`, `yes`, `no`, `on`, `off`, in any case.
///
/// # Errors
/// What is wrong, with the text.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("must be true or false, got {text:?}")),
    }
}

/// Reads one of a few words, in any case.
///
/// # Errors
/// What is wrong, with the text and the words.
pub fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
        format!("must be {}, got {text:?}", either(&names))
    })
}

/// `a`, `a or b`, `a, b or c`.
pub fn either(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Reads an IP address, or `localhost`.
///
/// # Errors
/// What is wrong, with the text.
pub fn address(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| format!("must be an IP address such as 127.0.0.1, 0.0.0.0 or ::1, or localhost, got {text:?}"))
}

/// Reads a TCP port.
///
/// # Errors
/// What is wrong, with the text.
pub fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("must be a port from 0 to 65535 (0: a free one), got {text:?}"))
}

/// Reads a time zone by its IANA name.
///
/// # Errors
/// What is wrong, with the text.
pub fn timezone(text: &str) -> Result<TimeZone, String> {
    if text.eq_ignore_ascii_case("UTC") {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(text).map_err(|_| format!("must be a time zone such as Europe/Berlin or UTC, got {text:?}"))
}

/// Reads a prefix of routes: `/anomaly`; a slash at the end is dropped, `/` alone is none.
///
/// # Errors
/// What is wrong, with the text.
pub fn base_path(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    let fine = path.is_empty() || path.starts_with('/') && !path.contains("//") && path.chars().all(is_plain);
    if fine { Ok(path.to_owned()) } else { Err(format!("must be a path such as /anomaly, got {text:?}")) }
}

/// Reads origins between commas: `https://grafana.example.org`, or `*`.
///
/// # Errors
/// What is wrong, with the origin at fault.
pub fn origins(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(str::trim).filter(|origin| !origin.is_empty()).map(origin).collect()
}

fn origin(text: &str) -> Result<String, String> {
    let origin = text.trim_end_matches('/');
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '*']));
    if is_origin || origin == "*" {
        return Ok(origin.to_ascii_lowercase());
    }
    Err(format!("must be origins such as https://grafana.example.org, between commas, or *, got {text:?}"))
}

/// Reads a detector's name.
///
/// # Errors
/// What is wrong, with the text and the names.
pub fn detector(text: &str) -> Result<DetectorKind, String> {
    let known = [DetectorKind::Zscore, DetectorKind::Percentile];
    word(text, &known.map(|kind| (kind.as_str(), kind)))
}
