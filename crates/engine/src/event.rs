//! One event as the parsers give it: borrowed, checked, its time resolved.

use crate::timestamp::Timestamp;

/// The most bytes of a metric, an id or a label's name.
pub const MAX_NAME_BYTES: usize = 255;

/// A checked event: a finite value of one series at an instant.
///
/// Parsers make it ([`crate::parse`]), [`crate::frame::BatchBuilder`] takes it. Nothing here is owned, so an event on the
/// hot path costs no allocation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event<'a> {
    /// 1–255 bytes without control characters.
    pub metric: &'a str,
    /// At most 32, names different, in any order.
    pub labels: &'a [(&'a str, &'a str)],
    /// Event time; the time of arrival where the source gave none.
    pub timestamp: Timestamp,
    /// Finite.
    pub value: f64,
    /// 1–255 bytes, where the source gave one.
    pub id: Option<&'a str>,
    /// A JSON object without white space between its tokens, carried along to the anomaly.
    pub meta: Option<&'a str>,
}

/// Whether `metric` may name a metric: 1–255 bytes, no control characters (C0, DEL, C1).
#[inline]
pub fn is_metric(metric: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&metric.len()) && (is_printable_ascii(metric.as_bytes()) || !metric.chars().any(char::is_control))
}

/// Whether all bytes are in 0x20–0x7e; sixteen at a time, without a branch among them.
#[inline]
fn is_printable_ascii(bytes: &[u8]) -> bool {
    let all = |bytes: &[u8]| bytes.iter().fold(true, |all, &b| all & (0x20..0x7f).contains(&b));
    let (chunks, rest) = bytes.as_chunks::<16>();
    // The last sixteen overlap the chunk before them, which costs less than going on one by one.
    let end = bytes.last_chunk::<16>().map_or(rest, |end| end);
    chunks.iter().fold(true, |plain, chunk| plain & all(chunk)) & all(end)
}

#[cfg(test)]
mod tests {
    use super::is_metric;

    #[test]
    fn metrics_have_255_bytes_and_no_control_characters() {
        assert!(is_metric("cpu_usage") && is_metric("température") && is_metric(&"x".repeat(255)) && is_metric("a\u{a0}b"));
        for bad in ["", "a\nb", "a\0", "a\u{7f}", "a\u{85}b", &"é".repeat(128)] {
            assert!(!is_metric(bad), "{bad:?}");
        }
    }
}
