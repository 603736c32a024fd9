//! Instants as nanoseconds since 1970, and how they are written.

use std::fmt;

/// Nanoseconds in one second.
pub const NANOS: i64 = 1_000_000_000;

/// An instant in event time or in time of arrival: nanoseconds since 1970-01-01T00:00:00Z, UTC.
///
/// Domain: 1970 to the year 2262. Displays as decimal epoch seconds with as many digits as it has, so
/// nothing is lost in text: `1737453600.000000001`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// An instant from nanoseconds since 1970.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// An instant from whole seconds since 1970, saturating at the end of the domain.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(NANOS))
    }

    /// Nanoseconds since 1970.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Epoch seconds as the nearest f64 (about 240 ns apart in 2026): for arithmetic on screens, never for windows.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / NANOS as f64
    }

    /// This instant moved by a span in nanoseconds, saturating at the ends of the domain.
    pub const fn plus(self, span: i64) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// Nanoseconds from `earlier` to this instant, saturating; negative where `earlier` is later.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let (whole, fraction) = (magnitude / NANOS as u64, magnitude % NANOS as u64);
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{whole}")?;
        if fraction != 0 {
            let digits = format!("{fraction:09}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_with_the_digits_it_has() {
        for (nanos, text) in [(0, "0"), (1_500_000_000, "1.5"), (1_737_453_600_000_000_001, "1737453600.000000001"), (-1, "-0.000000001")] {
            assert_eq!(Timestamp::from_nanos(nanos).to_string(), text);
        }
    }
}
