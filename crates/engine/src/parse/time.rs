//! Times as they are written: epoch numbers, RFC 3339 and its looser relatives.

use super::decimal::Decimal;
use super::{reject, shown};
use crate::rejection::{Code, Rejected};
use crate::timestamp::{NANOS, Timestamp};

/// A number of seconds from which on a time looks like milliseconds: 1e11 s is the year 5138, 1e11 ms is 1973.
const LOOKS_LIKE_MILLISECONDS: u128 = 100_000_000_000;

/// When the bytes arrived, and how far ahead of that an event's time may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The time of arrival; it is the time of events that bring none.
    pub time: Timestamp,
    /// Nanoseconds; `MAX_FUTURE_SECONDS`.
    pub max_future: i64,
}

impl Arrival {
    /// The instant, unless it is too far ahead of arrival.
    #[inline]
    pub(super) fn check(self, nanos: i64) -> Result<Timestamp, Rejected> {
        let at = Timestamp::from_nanos(nanos);
        if at.since(self.time) <= self.max_future { Ok(at) } else { Err(self.too_far_ahead(at)) }
    }

    #[cold]
    fn too_far_ahead(self, at: Timestamp) -> Rejected {
        let (ahead, allowed) = (span(at.since(self.time)), span(self.max_future));
        reject("timestamp", Code::FutureTimestamp, format!("{at} is {ahead} ahead of arrival, at most {allowed} is taken"))
    }
}

fn span(nanos: i64) -> String {
    match nanos / NANOS {
        s @ ..120 => format!("{s} s"),
        s @ ..7200 => format!("{} min", s / 60),
        s @ ..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// What a row says about its time, before a zone or an arrival has been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WrittenTime {
    Absent,
    /// Nanoseconds since 1970.
    Instant(i64),
    /// No offset was given.
    Local(WallClock),
}

/// A date and a time of day somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WallClock {
    /// Seconds since 1970-01-01T00:00:00 on that clock.
    pub(super) seconds: i64,
    /// 0–999,999,999.
    pub(super) nanos: u32,
}

impl WallClock {
    /// The instant at which a clock `offset` seconds ahead of UTC shows this.
    #[inline]
    pub(super) fn at_offset(self, offset: i64) -> Result<i64, Rejected> {
        let nanos = i128::from(self.seconds - offset) * i128::from(NANOS) + i128::from(self.nanos);
        match i64::try_from(nanos) {
            Ok(nanos @ 0..) => Ok(nanos),
            _ => Err(out_of_domain(nanos < 0, "the time")),
        }
    }
}

/// Which forms of a text are times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forms {
    /// RFC 3339, also without offset, and a date alone.
    Strict,
    /// Also without seconds, with `/` in dates, one-digit hours, `+0200`, and epoch seconds.
    File { decimal_comma: bool },
}

/// A number of a `timestamp` field, in seconds.
#[inline]
pub(super) fn epoch_seconds(number: Decimal, written: &str) -> Result<i64, Rejected> {
    epoch(number, 9, written)
}

/// A cell of a column in milliseconds.
pub(super) fn epoch_milliseconds(cell: &str, decimal_comma: bool) -> Result<i64, Rejected> {
    let number = Decimal::scan_cell(cell.as_bytes(), decimal_comma)
        .ok_or_else(|| reject("timestamp", Code::InvalidTimestamp, format!("{} is not a number of milliseconds", shown(cell))))?;
    epoch(number, 6, cell)
}

#[inline]
fn epoch(number: Decimal, scale: i32, written: &str) -> Result<i64, Rejected> {
    let nanos = number.scaled(scale);
    match i64::try_from(nanos) {
        Ok(nanos) if !number.is_below_zero() => Ok(nanos),
        _ => Err(epoch_fault(number, scale, written)),
    }
}

#[cold]
fn epoch_fault(number: Decimal, scale: i32, written: &str) -> Rejected {
    let written = shorten(written);
    let finer = number.scaled(scale - 9) / LOOKS_LIKE_MILLISECONDS;
    if number.is_below_zero() || finer == 0 || finer >= 1_000_000_000 {
        return out_of_domain(number.is_below_zero(), &written);
    }
    let message = match finer {
        _ if scale == 6 => format!("{written} looks finer than milliseconds"),
        1..1_000 => format!("{written} looks like milliseconds: divide by 1000, timestamps are seconds"),
        1_000..1_000_000 => {
            format!("{written} looks like microseconds, finer than milliseconds: divide by 1000000, timestamps are seconds")
        }
        _ => format!("{written} looks like nanoseconds, finer than milliseconds: divide by 1000000000, timestamps are seconds"),
    };
    reject("timestamp", Code::MillisecondsTimestamp, message)
}

fn shorten(written: &str) -> String {
    shown(written).trim_matches('"').to_owned()
}

#[cold]
fn out_of_domain(before: bool, written: &str) -> Rejected {
    let message = if before { format!("{written} is before 1970") } else { format!("{written} is beyond the year 2262") };
    reject("timestamp", Code::InvalidTimestamp, message)
}

/// A text as a time.
///
/// # Errors
/// A text that is none of the forms, or an instant before 1970 or beyond 2262.
#[inline]
pub(super) fn parse_text(text: &str, forms: Forms) -> Result<WrittenTime, Rejected> {
    let bytes = text.as_bytes();
    if let Forms::File { decimal_comma } = forms
        && bytes.get(4).is_none_or(|&b| b != b'-' && b != b'/')
        && let Some(number) = Decimal::scan_cell(bytes, decimal_comma)
    {
        return epoch_seconds(number, text).map(WrittenTime::Instant);
    }
    let mut reader = Reader { bytes, at: 0, loose: forms != Forms::Strict };
    let (wall, offset) = reader.date_and_time().ok_or_else(|| not_a_time(text))?;
    match offset {
        Some(offset) => wall.at_offset(offset).map(WrittenTime::Instant),
        None => Ok(WrittenTime::Local(wall)),
    }
}

/// A cell with a date and one with a time of day, as one time.
pub(super) fn parse_date_and_clock(date: &str, clock: &str) -> Result<WrittenTime, Rejected> {
    let mut reader = Reader { bytes: date.as_bytes(), at: 0, loose: true };
    let day = reader.date().filter(|_| reader.at == date.len());
    let mut reader = Reader { bytes: clock.as_bytes(), at: 0, loose: true };
    let time = reader.clock().and_then(|time| Some((time, reader.offset()?))).filter(|_| reader.at == clock.len());
    match (day, time) {
        (None, _) => Err(reject("timestamp", Code::InvalidTimestamp, format!("{} is not a date such as 2025-01-21", shown(date)))),
        (_, None) => Err(reject("timestamp", Code::InvalidTimestamp, format!("{} is not a time of day such as 10:00:00", shown(clock)))),
        (Some(day), Some(((seconds, nanos), offset))) => {
            let wall = WallClock { seconds: day * 86_400 + seconds, nanos };
            offset.map_or(Ok(WrittenTime::Local(wall)), |offset| wall.at_offset(offset).map(WrittenTime::Instant))
        }
    }
}

/// Whether a cell without a header reads as a time: a date, or a number from 1e8.
pub(super) fn reads_as_time(cell: &str, decimal_comma: bool) -> bool {
    match Decimal::scan_cell(cell.as_bytes(), decimal_comma) {
        Some(number) => !number.is_below_zero() && number.scaled(0) >= 100_000_000,
        None => Reader { bytes: cell.as_bytes(), at: 0, loose: true }.date_and_time().is_some(),
    }
}

#[cold]
fn not_a_time(text: &str) -> Rejected {
    let message = format!("{} is not a time: give epoch seconds or RFC 3339, such as 2025-01-21T10:00:00Z", shown(text));
    reject("timestamp", Code::InvalidTimestamp, message)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    loose: bool,
}

impl Reader<'_> {
    fn date_and_time(&mut self) -> Option<(WallClock, Option<i64>)> {
        let day = self.date()?;
        if self.at == self.bytes.len() {
            return Some((WallClock { seconds: day * 86_400, nanos: 0 }, None));
        }
        if !(self.take(b'T') || self.take(b't') || self.take(b' ')) {
            return None;
        }
        let (seconds, nanos) = self.clock()?;
        let offset = self.offset()?;
        (self.at == self.bytes.len()).then_some((WallClock { seconds: day * 86_400 + seconds, nanos }, offset))
    }

    /// Days since 1970.
    fn date(&mut self) -> Option<i64> {
        let year = self.number(4, 4)?;
        let slash = self.loose && self.bytes.get(self.at) == Some(&b'/');
        let separator = if slash { b'/' } else { b'-' };
        let shortest = if self.loose { 1 } else { 2 };
        let month = self.take(separator).then(|| self.number(shortest, 2))??;
        let day = self.take(separator).then(|| self.number(shortest, 2))??;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        (1..=length).contains(&day).then(|| days_since_1970(year, month, day))
    }

    /// Seconds and nanoseconds of the day. A leap second is the first of the next minute, as in POSIX time.
    fn clock(&mut self) -> Option<(i64, u32)> {
        let hours = self.number(if self.loose { 1 } else { 2 }, 2)?;
        let minutes = self.take(b':').then(|| self.number(2, 2))??;
        let (mut seconds, mut nanos) = (0, 0);
        if self.take(b':') {
            seconds = self.number(2, 2)?;
            if self.take(b'.') || (self.loose && self.take(b',')) {
                nanos = self.fraction()?;
            }
        } else if !self.loose {
            return None;
        }
        (hours < 24 && minutes < 60 && seconds <= 60).then_some((hours * 3600 + minutes * 60 + seconds, nanos))
    }

    /// Nanoseconds; digits beyond the ninth are cut.
    fn fraction(&mut self) -> Option<u32> {
        let start = self.at;
        let mut nanos = 0;
        while let Some(digit) = self.digit() {
            if self.at - start < 9 {
                nanos = nanos * 10 + digit as u32;
            }
            self.at += 1;
        }
        let digits = (self.at - start).min(9) as u32;
        (digits > 0).then(|| nanos * 10u32.pow(9 - digits))
    }

    /// Seconds ahead of UTC, `Some(None)` where none is given, `None` where it is not an offset.
    fn offset(&mut self) -> Option<Option<i64>> {
        if self.at == self.bytes.len() {
            return Some(None);
        }
        if self.take(b'Z') || self.take(b'z') {
            return Some(Some(0));
        }
        if self.loose && self.bytes[self.at..].eq_ignore_ascii_case(b" utc") {
            self.at += 4;
            return Some(Some(0));
        }
        if self.loose {
            self.take(b' ');
        }
        let negative = self.take(b'-');
        if !negative && !self.take(b'+') {
            return None;
        }
        let hours = self.number(2, 2)?;
        let minutes = if self.take(b':') {
            self.number(2, 2)?
        } else if self.loose {
            if self.at == self.bytes.len() { 0 } else { self.number(2, 2)? }
        } else {
            return None;
        };
        let seconds = hours * 3600 + minutes * 60;
        (hours < 24 && minutes < 60).then_some(Some(if negative { -seconds } else { seconds }))
    }

    #[inline]
    fn digit(&self) -> Option<i64> {
        self.bytes.get(self.at).map(|b| b.wrapping_sub(b'0')).filter(|&d| d < 10).map(i64::from)
    }

    #[inline]
    fn number(&mut self, shortest: usize, longest: usize) -> Option<i64> {
        let (start, mut n) = (self.at, 0);
        while self.at - start < longest
            && let Some(digit) = self.digit()
        {
            n = n * 10 + digit;
            self.at += 1;
        }
        (self.at - start >= shortest).then_some(n)
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }
}

/// Days of the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Forms = Forms::File { decimal_comma: false };

    fn instant(text: &str, forms: Forms) -> Result<i64, Code> {
        match parse_text(text, forms) {
            Ok(WrittenTime::Instant(nanos)) => Ok(nanos),
            Ok(WrittenTime::Local(wall)) => wall.at_offset(0).map_err(|r| r.code),
            Ok(WrittenTime::Absent) => panic!("absent"),
            Err(rejected) => Err(rejected.code),
        }
    }

    #[test]
    fn rfc_3339_and_its_looser_forms() {
        let base = 1_737_453_600_000_000_000;
        for (text, more) in [
            ("2025-01-21T10:00:00Z", 0),
            ("2025-01-21T12:00:00+02:00", 0),
            ("2025-01-21T04:30:00-05:30", 0),
            ("2025-01-21T10:00:00.250Z", 250_000_000),
            ("2025-01-21T10:00:00.123456789Z", 123_456_789),
            ("2025-01-21T10:00:00.1234567899999Z", 123_456_789),
            ("2025-01-21t10:00:00z", 0),
            ("2025-01-21 10:00:00Z", 0),
            ("2025-01-21 12:00:00.5+02:00", 500_000_000),
            ("2025-01-21T10:00:00", 0),
            ("2025-01-21 10:00:00.25", 250_000_000),
            ("2025-01-21", -36_000_000_000_000),
            ("2025-01-21T09:59:60Z", 0),
        ] {
            assert_eq!(instant(text, Forms::Strict), Ok(base + more), "{text}");
            assert_eq!(instant(text, FILE), Ok(base + more), "{text} in a file");
        }
        for text in [
            "2025-01-21 10:00",
            "2025/01/21 10:00:00",
            "2025-1-21 10:00",
            "2025-01-21T12:00:00+0200",
            "2025-01-21 12:00+02",
            "2025-01-21 10:00:00 UTC",
            "1737453600",
            "1.7374536e9",
        ] {
            assert_eq!(instant(text, FILE), Ok(base), "{text}");
            assert_eq!(instant(text, Forms::Strict), Err(Code::InvalidTimestamp), "{text} is for files");
        }
        assert_eq!(instant("1737453600,5", Forms::File { decimal_comma: true }), Ok(base + 500_000_000));
    }

    #[test]
    fn what_is_no_time_is_told() {
        for text in [
            "",
            "yesterday",
            "2025-13-01T00:00:00Z",
            "2025-02-30T00:00:00Z",
            "2023-02-29",
            "2025-01-01T25:00:00Z",
            "2025-01-01T00:60:00Z",
            "2025-01-01T00:00:61Z",
            "2025-01-01T00:00:00.Z",
            "2025-01-01T00:00:00+24:00",
            "2025-01-01T",
            "2025-01-01x",
            "21.01.2025",
            "1969-12-31T23:59:59Z",
            "2263-01-01T00:00:00Z",
            "9999-12-31",
            "0000-01-01",
            "2025-01-01T00:00:00ZZ",
        ] {
            for forms in [Forms::Strict, FILE] {
                assert_eq!(instant(text, forms), Err(Code::InvalidTimestamp), "{text}");
            }
        }
        let rejected = parse_text("yesterday", Forms::Strict).unwrap_err();
        assert!(rejected.message.starts_with("\"yesterday\" is not a time") && rejected.field == "timestamp", "{rejected:?}");
    }

    #[test]
    fn numbers_that_look_finer_than_seconds_say_so() {
        for (text, code, word) in [
            ("100000000000", Code::MillisecondsTimestamp, "milliseconds"),
            ("1737453600000", Code::MillisecondsTimestamp, "divide by 1000,"),
            ("1737453600000000", Code::MillisecondsTimestamp, "microseconds"),
            ("1737453600000000000", Code::MillisecondsTimestamp, "nanoseconds"),
            ("99999999999", Code::InvalidTimestamp, "beyond the year 2262"),
            ("1e300", Code::InvalidTimestamp, "beyond the year 2262"),
            ("-1", Code::InvalidTimestamp, "before 1970"),
            ("-0.5", Code::InvalidTimestamp, "before 1970"),
            ("-0.0000000000001", Code::InvalidTimestamp, "before 1970"),
        ] {
            let rejected = parse_text(text, FILE).unwrap_err();
            assert!(rejected.code == code && rejected.message.contains(word), "{text}: {rejected:?}");
        }
        assert_eq!(instant("-0", FILE), Ok(0));
    }

    #[test]
    fn milliseconds_columns() {
        for (cell, expected) in [
            ("1737453600250", Ok(1_737_453_600_250_000_000)),
            ("1737453600000.5", Ok(1_737_453_600_000_500_000)),
            ("-1", Err(Code::InvalidTimestamp)),
            ("x", Err(Code::InvalidTimestamp)),
            ("1737453600000000", Err(Code::MillisecondsTimestamp)),
        ] {
            assert_eq!(epoch_milliseconds(cell, false).map_err(|r| r.code), expected, "{cell}");
        }
    }

    #[test]
    fn a_date_and_a_time_of_day_make_one() {
        let at = |date, clock| match parse_date_and_clock(date, clock) {
            Ok(WrittenTime::Local(wall)) => wall.at_offset(0).unwrap() / NANOS,
            Ok(WrittenTime::Instant(nanos)) => nanos / NANOS,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (at("2025-01-21", "10:00"), at("2025-01-21", "10:00:00.5"), at("2025/1/21", "12:00:00+02:00")),
            (1_737_453_600, 1_737_453_600, 1_737_453_600)
        );
        assert!(parse_date_and_clock("21.1.2025", "10:00").unwrap_err().message.contains("is not a date"));
        assert!(parse_date_and_clock("2025-01-21", "ten").unwrap_err().message.contains("\"ten\" is not a time of day"));
    }

    #[test]
    fn the_future_is_refused_with_how_far() {
        let arrival = Arrival { time: Timestamp::from_seconds(1000), max_future: 60 * NANOS };
        assert!(arrival.check(1060 * NANOS).is_ok());
        let rejected = arrival.check(1060 * NANOS + 1).unwrap_err();
        assert_eq!(
            (rejected.code, rejected.message.as_str()),
            (Code::FutureTimestamp, "1060.000000001 is 60 s ahead of arrival, at most 60 s is taken")
        );
        assert!(arrival.check(i64::MAX).unwrap_err().message.contains("days ahead"));
    }

    #[test]
    fn headerless_times_are_dates_and_numbers_from_1e8() {
        for (cell, expected) in [
            ("2025-01-21", true),
            ("2025-01-21 10:00", true),
            ("100000000", true),
            ("99999999", false),
            ("cpu", false),
            ("", false),
            ("-100000000", false),
        ] {
            assert_eq!(reads_as_time(cell, false), expected, "{cell}");
        }
    }

    #[test]
    fn days_agree_with_jiff() {
        for days in (-719_000..80_000).step_by(37) {
            let date = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(days)).unwrap();
            assert_eq!(days_since_1970(date.year().into(), date.month().into(), date.day().into()), days);
        }
    }
}
