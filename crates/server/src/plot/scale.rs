//! From values and instants to places in a picture, and the ticks of their axes.

use anomaly_detect::text;
use anomaly_engine::NANOS;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// A place on an axis with its label.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick<T> {
    pub(crate) at: T,
    pub(crate) label: String,
}

/// Ticks of an axis of values at 1, 2 or 5 times a power of ten, about `n` of them, none beyond the ends.
pub(crate) fn value_ticks(low: f64, high: f64, n: usize) -> Vec<Tick<f64>> {
    let rough = (high - low) / n.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power);
    if !step.is_normal() {
        return Vec::new();
    }
    // An end that is a tick is one though it is not exact.
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    if first > last {
        return Vec::new();
    }
    let count = (last - first).min(100.0) as usize;
    (0..=count)
        .map(|i| ((first + i as f64) * step).clamp(low, high))
        .map(|at| Tick { at, label: value_label(at, step, low.abs().max(high.abs())) })
        .collect()
}

/// A value with the digits that a step needs: `0.25`, `1500`, `20k`, `1.5M`; all of an axis, whose largest is given, in one unit.
fn value_label(value: f64, step: f64, largest: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    if value.abs() < step / 2.0 {
        return "0".into();
    }
    if largest >= 1e15 || step < 1e-4 {
        return text::spread(value);
    }
    let fits = |(unit, _): &(f64, &str)| largest >= 1e4 && largest >= *unit && step >= unit / 1e3;
    let (unit, suffix) = UNITS.into_iter().find(fits).unwrap_or((1.0, ""));
    let digits = (-(step / unit).log10().floor()).clamp(0.0, 6.0) as usize;
    let number = format!("{:.digits$}", value.abs() / unit);
    format!("{}{number}{suffix}", if value < 0.0 { "−" } else { "" })
}

/// How far apart ticks of an axis of time may be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// Nanoseconds; divides a day.
    Nanos(i64),
    Days(i32),
    Months(i32),
    Years(i32),
}

const SECOND: i64 = NANOS;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

impl Step {
    /// From the shortest to the longest.
    const ALL: [Step; 42] = {
        use Step::{Days, Months, Nanos, Years};
        [
            Nanos(1_000_000),
            Nanos(2_000_000),
            Nanos(5_000_000),
            Nanos(10_000_000),
            Nanos(20_000_000),
            Nanos(50_000_000),
            Nanos(100_000_000),
            Nanos(200_000_000),
            Nanos(500_000_000),
            Nanos(SECOND),
            Nanos(2 * SECOND),
            Nanos(5 * SECOND),
            Nanos(10 * SECOND),
            Nanos(15 * SECOND),
            Nanos(30 * SECOND),
            Nanos(MINUTE),
            Nanos(2 * MINUTE),
            Nanos(5 * MINUTE),
            Nanos(10 * MINUTE),
            Nanos(15 * MINUTE),
            Nanos(30 * MINUTE),
            Nanos(HOUR),
            Nanos(2 * HOUR),
            Nanos(3 * HOUR),
            Nanos(6 * HOUR),
            Nanos(12 * HOUR),
            Days(1),
            Days(2),
            Days(4),
            Days(7),
            Days(14),
            Months(1),
            Months(2),
            Months(3),
            Months(6),
            Years(1),
            Years(2),
            Years(5),
            Years(10),
            Years(20),
            Years(50),
            Years(100),
        ]
    };

    fn nanos(self) -> i64 {
        match self {
            Self::Nanos(nanos) => nanos,
            Self::Days(days) => i64::from(days) * DAY,
            Self::Months(months) => i64::from(months) * 30 * DAY,
            Self::Years(years) => i64::from(years) * 365 * DAY,
        }
    }

    fn label(self, at: &DateTime) -> String {
        let midnight = at.time() == jiff::civil::Time::midnight();
        let format = match self {
            Self::Nanos(_) if midnight => "%b %-d",
            Self::Nanos(nanos) if nanos < SECOND => "%H:%M:%S%.3f",
            Self::Nanos(nanos) if nanos < MINUTE => "%H:%M:%S",
            Self::Nanos(_) => "%H:%M",
            Self::Days(_) => "%b %-d",
            Self::Months(_) => "%b %Y",
            Self::Years(_) => "%Y",
        };
        at.strftime(format).to_string()
    }

    /// The last instant of the step's grid that is not after `at`.
    fn before(self, at: DateTime) -> Option<DateTime> {
        let date = at.date();
        let start_of = |date: Date| Some(date.to_datetime(jiff::civil::Time::midnight()));
        match self {
            Self::Nanos(step) => {
                let midnight = start_of(date)?;
                let since = i64::try_from(at.since(midnight).ok()?.total(jiff::Unit::Nanosecond).ok()? as i128).ok()?;
                midnight.checked_add(Span::new().nanoseconds(since / step * step)).ok()
            }
            // Counted from a Monday, so that weeks begin with it.
            Self::Days(step) => {
                let monday = jiff::civil::date(1970, 1, 5);
                let days = date.since(monday).ok()?.get_days();
                start_of(date.checked_sub(Span::new().days(days.rem_euclid(step))).ok()?)
            }
            Self::Months(step) => {
                let month = i32::from(date.month()) - 1;
                start_of(Date::new(date.year(), i8::try_from(month - month % step + 1).ok()?, 1).ok()?)
            }
            Self::Years(step) => start_of(Date::new(date.year() - date.year().rem_euclid(i16::try_from(step).ok()?), 1, 1).ok()?),
        }
    }

    fn after(self, at: DateTime) -> Option<DateTime> {
        let span = match self {
            Self::Nanos(nanos) => Span::new().nanoseconds(nanos),
            Self::Days(days) => Span::new().days(days),
            Self::Months(months) => Span::new().months(months),
            Self::Years(years) => Span::new().years(years),
        };
        at.checked_add(span).ok()
    }
}

/// Ticks of an axis of time, in nanoseconds since 1970, at round times of the zone; at most `n` of them.
pub(crate) fn time_ticks(from: i64, to: i64, n: usize, zone: &TimeZone) -> Vec<Tick<i64>> {
    let rough = (to - from) / n.max(1) as i64;
    let step = Step::ALL.into_iter().find(|step| step.nanos() >= rough).unwrap_or(Step::Years(100));
    let civil = |at: i64| Timestamp::from_nanosecond(at.into()).ok().map(|at| at.to_zoned(zone.clone()).datetime());
    let mut ticks: Vec<Tick<i64>> = Vec::new();
    let mut next = civil(from).and_then(|from| step.before(from));
    while let Some(local) = next {
        let Some(at) = local.to_zoned(zone.clone()).ok().and_then(|at| i64::try_from(at.timestamp().as_nanosecond()).ok()) else { break };
        if at > to {
            break;
        }
        // Where clocks are put back or forward an instant may come twice.
        if at >= from && ticks.last().is_none_or(|last| last.at < at) {
            ticks.push(Tick { at, label: step.label(&local) });
        }
        next = step.after(local);
    }
    ticks
}

/// An instant to the second, with the fraction that it has.
pub(crate) fn instant_text(at: i64, zone: &TimeZone) -> String {
    let at = Timestamp::from_nanosecond(at.into()).unwrap_or_default();
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.f").to_string()
}

/// A span of time in words, without what its ends share: `2014-02-14 14:30 – 15:10`.
pub(crate) fn span_text(from: i64, to: i64, zone: &TimeZone) -> String {
    let civil = |at: i64| Timestamp::from_nanosecond(at.into()).map(|at| at.to_zoned(zone.clone()).datetime()).unwrap_or_default();
    let (first, last) = (civil(from), civil(to));
    let time = if to - from < 10 * MINUTE { "%H:%M:%S" } else { "%H:%M" };
    let full = format!("%Y-%m-%d {time}");
    let end = if first.date() == last.date() { time } else { &full };
    format!("{} – {}", first.strftime(&full), last.strftime(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        value_ticks(low, high, 4).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn values_have_round_ticks_with_the_digits_that_they_need() {
        assert_eq!(labels(0.0, 100.0), ["0", "50", "100"]);
        assert_eq!(labels(-3.0, 3.0), ["−2", "0", "2"]);
        assert_eq!(labels(49.9, 50.3), ["49.9", "50.0", "50.1", "50.2", "50.3"]);
        assert_eq!(labels(0.0, 30_000.0), ["0", "10k", "20k", "30k"]);
        assert_eq!(labels(9500.0, 10_500.0), ["9.5k", "10.0k", "10.5k"]);
        assert_eq!(labels(1e6, 1.8e6), ["1.0M", "1.2M", "1.4M", "1.6M", "1.8M"]);
        assert_eq!(labels(0.0, 4e-7), ["0", "1e−7", "2e−7", "3e−7", "4e−7"]);
        assert_eq!((labels(5.0, 5.0).len(), labels(f64::MIN, f64::MAX).len()), (0, 0));
    }

    #[test]
    fn ticks_lie_within_the_axis_and_are_not_too_many() {
        for (low, high) in [(0.0, 1.0), (-1e9, 1e9), (0.123, 0.124), (1e15, 1.1e15), (-5e-3, 1e-9), (99.99, 100.01)] {
            let ticks = value_ticks(low, high, 4);
            assert!((2..=6).contains(&ticks.len()), "{low} {high} {ticks:?}");
            assert!(ticks.iter().all(|tick| (low..=high).contains(&tick.at)));
            let labels: Vec<_> = ticks.iter().map(|tick| &tick.label).collect();
            assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{labels:?}");
        }
    }

    fn times(from: &str, to: &str, zone: &str) -> Vec<String> {
        let zone = TimeZone::get(zone).unwrap();
        let nanos = |text: &str| text.parse::<Timestamp>().unwrap().as_nanosecond() as i64;
        time_ticks(nanos(from), nanos(to), 8, &zone).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn times_have_ticks_at_round_times_of_the_zone() {
        assert_eq!(times("2024-01-01T10:00:00Z", "2024-01-01T10:00:04Z", "UTC")[1], "10:00:00.500");
        assert_eq!(times("2024-01-01T22:10:00Z", "2024-01-02T03:00:00Z", "UTC"), ["23:00", "Jan 2", "01:00", "02:00", "03:00"]);
        assert_eq!(times("2024-01-01T22:10:00Z", "2024-01-02T03:00:00Z", "Europe/Berlin")[..2], ["Jan 2", "01:00"]);
        assert_eq!(times("2014-02-14T14:30:00Z", "2014-02-28T14:25:00Z", "UTC")[..3], ["Feb 15", "Feb 17", "Feb 19"]);
        assert_eq!(times("2020-01-01T00:00:00Z", "2023-12-01T00:00:00Z", "UTC")[..2], ["Jan 2020", "Jul 2020"]);
        assert_eq!(times("1970-01-01T00:00:00Z", "2030-01-01T00:00:00Z", "UTC")[..2], ["1970", "1980"]);
    }

    #[test]
    fn a_day_on_which_clocks_change_has_ticks_in_order_without_repetition() {
        for day in ["2024-03-31", "2024-10-27"] {
            let labels = times(&format!("{day}T00:00:00Z"), &format!("{day}T06:00:00Z"), "Europe/Berlin");
            assert!(labels.windows(2).all(|pair| pair[0] < pair[1]), "{labels:?}");
        }
    }

    #[test]
    fn an_instant_alone_and_the_ends_of_time_have_ticks_or_none() {
        assert!(time_ticks(0, 0, 8, &TimeZone::UTC).len() <= 1);
        assert!(time_ticks(i64::MIN / 2, i64::MAX / 2, 8, &TimeZone::UTC).len() <= 9);
    }

    #[test]
    fn a_span_says_a_common_date_once() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_nanosecond() as i64;
        let (a, b) = (at("2014-02-14T14:30:00Z"), at("2014-02-14T15:10:00Z"));
        assert_eq!(span_text(a, b, &TimeZone::UTC), "2014-02-14 14:30 – 15:10");
        assert_eq!(span_text(a, a + DAY, &TimeZone::UTC), "2014-02-14 14:30 – 2014-02-15 14:30");
        assert_eq!(span_text(a, a + SECOND, &TimeZone::UTC), "2014-02-14 14:30:00 – 14:30:01");
    }
}
