//! When the rows of a file happened: zones, arrival, intervals.

use hashbrown::HashTable;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use xxhash_rust::xxh3::xxh3_128;

use super::FileOptions;
use crate::parse::json::Draft;
use crate::parse::reject;
use crate::parse::time::{Arrival, WallClock, WrittenTime};
use crate::rejection::{Code, Rejected};
use crate::series_key::{SeriesHash, SeriesKey, write_key};
use crate::timestamp::{NANOS, Timestamp};

/// No two offsets of a zone differ by more than this, so that far from a change of the clock no time is ambiguous.
const NEAR_A_CHANGE: i64 = 2 * 86_400;

/// Where a series' last row lies so far behind both occurrences of an hour, the series has begun again.
const BEGINS_AGAIN: i64 = 6 * 3600 * NANOS;

/// Settles the times of a file's rows, in their order. Memory: one instant for each series with times near a change of
/// the clock, or for each series where an interval supplies times.
#[derive(Debug)]
pub(super) struct Clock {
    arrival: Arrival,
    zone: Zone,
    interval: Option<i64>,
    require_timestamps: bool,
    last: LastInstants,
    key: Vec<u8>,
    assumed: Assumed,
}

/// What was assumed about times, with the first series that it concerned.
#[derive(Clone, Debug, Default)]
struct Assumed {
    zone: bool,
    arrival: bool,
    first_or_second: Option<String>,
    moved_on: Option<String>,
}

impl Clock {
    pub(super) fn new(options: &FileOptions) -> Self {
        Self {
            arrival: options.arrival,
            zone: Zone::new(options.zone.clone()),
            interval: options.interval,
            require_timestamps: options.require_timestamps,
            last: LastInstants::default(),
            key: Vec::new(),
            assumed: Assumed::default(),
        }
    }

    /// When the event of this draft happened.
    ///
    /// # Errors
    /// Times before 1970, beyond 2262 or too far ahead of arrival, and absent ones where they are required.
    #[inline]
    pub(super) fn settle(&mut self, draft: &Draft<'_>) -> Result<Timestamp, Rejected> {
        match draft.time {
            WrittenTime::Instant(nanos) if self.interval.is_none() => self.arrival.check(nanos),
            WrittenTime::Local(wall) if self.interval.is_none() => {
                self.assumed.zone = true;
                let nanos = match self.zone.fixed {
                    Some(offset) => wall.at_offset(offset)?,
                    None => self.local(wall, draft)?,
                };
                self.arrival.check(nanos)
            }
            WrittenTime::Absent if self.interval.is_none() && !self.require_timestamps => {
                self.assumed.arrival = true;
                Ok(self.arrival.time)
            }
            _ => self.settle_rarely(draft),
        }
    }

    #[cold]
    fn settle_rarely(&mut self, draft: &Draft<'_>) -> Result<Timestamp, Rejected> {
        let Some(interval) = self.interval else {
            return Err(reject("timestamp", Code::MissingTimestamp, "timestamp is missing".into()));
        };
        let series = self.series(draft);
        let nanos = match draft.time {
            WrittenTime::Instant(nanos) => nanos,
            WrittenTime::Local(wall) => {
                self.assumed.zone = true;
                self.local(wall, draft)?
            }
            WrittenTime::Absent => self.last.get(series).map_or(0, |last| last.saturating_add(interval)),
        };
        let at = self.arrival.check(nanos)?;
        self.last.insert(series, nanos);
        Ok(at)
    }

    fn series(&mut self, draft: &Draft<'_>) -> SeriesHash {
        self.key.clear();
        write_key(&mut self.key, draft.metric, draft.labels);
        xxh3_128(&self.key)
    }

    /// An instant of the zone. In an hour that occurs twice the order within the series decides: it is the first
    /// occurrence, unless that would go back before the series' last instant.
    fn local(&mut self, wall: WallClock, draft: &Draft<'_>) -> Result<i64, Rejected> {
        let name = || SeriesKey::new(draft.metric, draft.labels).name();
        let nanos = match self.zone.occurrences(wall) {
            Occurrences::Once { offset, near_a_change: false } => return wall.at_offset(offset),
            Occurrences::Once { offset, .. } => wall.at_offset(offset)?,
            Occurrences::Never { offset } => {
                self.assumed.moved_on.get_or_insert_with(name);
                wall.at_offset(offset)?
            }
            Occurrences::Twice { first, second } => {
                self.assumed.first_or_second.get_or_insert_with(name);
                let (first, second) = (wall.at_offset(first)?, wall.at_offset(second)?);
                let series = self.series(draft);
                match self.last.get(series) {
                    Some(last) if last > first && last.saturating_sub(second) <= BEGINS_AGAIN => second,
                    _ => first,
                }
            }
        };
        let series = self.series(draft);
        self.last.insert(series, nanos);
        Ok(nanos)
    }

    /// What was assumed so far, as sentences.
    pub(super) fn warnings(&self) -> Vec<String> {
        let Assumed { zone, arrival, first_or_second, moved_on } = &self.assumed;
        let mut said = Vec::new();
        if *zone {
            said.push(format!("times without an offset were read as {}", self.zone.name()));
        }
        if let Some(series) = first_or_second {
            said.push(format!("in the hour that occurs twice in {} the order of the rows decided, first for {series}", self.zone.name()));
        }
        if let Some(series) = moved_on {
            said.push(format!("times in the hour that does not exist in {} were moved on, first for {series}", self.zone.name()));
        }
        if *arrival {
            said.push("rows without a time were given the time of arrival".to_owned());
        }
        said
    }
}

/// The last instant of each series, by the hash of its key.
#[derive(Debug, Default)]
struct LastInstants(HashTable<(SeriesHash, i64)>);

impl LastInstants {
    fn get(&self, series: SeriesHash) -> Option<i64> {
        self.0.find(series as u64, |(known, _)| *known == series).map(|(_, nanos)| *nanos)
    }

    fn insert(&mut self, series: SeriesHash, nanos: i64) {
        match self.0.find_mut(series as u64, |(known, _)| *known == series) {
            Some((_, last)) => *last = nanos,
            None => {
                self.0.insert_unique(series as u64, (series, nanos), |(known, _)| *known as u64);
            }
        }
    }
}

/// How often a clock shows a time, and how many seconds it is ahead of UTC then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occurrences {
    Once { offset: i64, near_a_change: bool },
    Twice { first: i64, second: i64 },
    Never { offset: i64 },
}

#[derive(Debug)]
struct Zone {
    zone: TimeZone,
    /// Seconds ahead of UTC where that never changes.
    fixed: Option<i64>,
    /// Seconds of the wall clock, from and to, between which the offset is known and no change is near.
    calm: (i64, i64, i64),
}

impl Zone {
    fn new(zone: TimeZone) -> Self {
        let fixed = zone.to_fixed_offset().ok().map(|offset| i64::from(offset.seconds()));
        Self { zone, fixed, calm: (0, 0, 0) }
    }

    fn name(&self) -> String {
        match (self.zone.iana_name(), self.fixed) {
            (Some(name), _) => name.to_owned(),
            (None, Some(0)) => "UTC".to_owned(),
            (None, Some(offset)) => {
                Offset::from_seconds(offset as i32).map_or_else(|_| "a fixed offset".into(), |offset| offset.to_string())
            }
            (None, None) => "the given time zone".to_owned(),
        }
    }

    fn occurrences(&mut self, wall: WallClock) -> Occurrences {
        if let Some(offset) = self.fixed {
            return Occurrences::Once { offset, near_a_change: false };
        }
        let (from, to, offset) = self.calm;
        if (from..to).contains(&wall.seconds) {
            return Occurrences::Once { offset, near_a_change: false };
        }
        // Beyond what jiff can hold the domain of timestamps ends anyway.
        let Ok(as_utc) = jiff::Timestamp::from_second(wall.seconds) else { return Occurrences::Once { offset: 0, near_a_change: false } };
        let seconds = |offset: Offset| i64::from(offset.seconds());
        match self.zone.to_ambiguous_timestamp(Offset::UTC.to_datetime(as_utc)).offset() {
            AmbiguousOffset::Unambiguous { offset } => {
                let offset = seconds(offset);
                self.remember_calm(wall.seconds, offset);
                let near_a_change = !(self.calm.0..self.calm.1).contains(&wall.seconds);
                Occurrences::Once { offset, near_a_change }
            }
            AmbiguousOffset::Gap { before, .. } => Occurrences::Never { offset: seconds(before) },
            AmbiguousOffset::Fold { before, after } => Occurrences::Twice { first: seconds(before), second: seconds(after) },
        }
    }

    fn remember_calm(&mut self, wall_seconds: i64, offset: i64) {
        let Ok(at) = jiff::Timestamp::from_second(wall_seconds - offset) else { return };
        let before = self.zone.preceding(at).next().map_or(i64::MIN / 2, |change| change.timestamp().as_second());
        let after = self.zone.following(at).next().map_or(i64::MAX / 2, |change| change.timestamp().as_second());
        self.calm = (before + offset + NEAR_A_CHANGE, after + offset - NEAR_A_CHANGE, offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::time::{Forms, parse_text};

    fn clock(zone: &str) -> Clock {
        let arrival = Arrival { time: Timestamp::from_seconds(4_000_000_000), max_future: 0 };
        Clock::new(&FileOptions { zone: TimeZone::get(zone).unwrap(), ..FileOptions::new("x", arrival) })
    }

    fn draft<'a>(metric: &'a str, time: &str) -> Draft<'a> {
        let time = if time.is_empty() { WrittenTime::Absent } else { parse_text(time, Forms::File { decimal_comma: false }).unwrap() };
        Draft { metric, labels: &[], time, value: 1.0, id: None, meta: None }
    }

    fn seconds(clock: &mut Clock, metric: &str, time: &str) -> i64 {
        clock.settle(&draft(metric, time)).unwrap().nanos() / NANOS
    }

    #[test]
    fn only_times_without_offset_are_of_the_zone() {
        let mut brussels = clock("Europe/Brussels");
        for (time, expected) in [
            ("2024-01-15 10:00:00", 1_705_309_200),
            ("2024-07-15T10:00:00", 1_721_030_400),
            ("2024-07-15T10:00:00Z", 1_721_037_600),
            ("2024-07-15T10:00:00+05:00", 1_721_019_600),
            ("1721037600", 1_721_037_600),
            ("2024-07-15", 1_720_994_400),
            ("2024-03-31 02:30:00", 1_711_848_600),
            ("2024-03-31 03:00:00", 1_711_846_800),
        ] {
            assert_eq!(seconds(&mut brussels, "m", time), expected, "{time}");
        }
        let said = brussels.warnings();
        assert_eq!(said[0], "times without an offset were read as Europe/Brussels");
        assert!(said[1].contains("does not exist") && said[1].ends_with("first for m"), "{said:?}");
        let mut utc = clock("UTC");
        assert!(utc.warnings().is_empty());
        assert_eq!(seconds(&mut utc, "m", "2024-07-15 10:00:00"), 1_721_037_600);
        assert_eq!(utc.warnings(), ["times without an offset were read as UTC"]);
    }

    #[test]
    fn where_the_clock_goes_back_the_order_of_each_series_decides() {
        let change = 1_729_990_800;
        let mut brussels = clock("Europe/Brussels");
        for (metric, time, after_change) in [
            ("a", "2024-10-27 01:59:00", -3660),
            ("a", "2024-10-27 02:00:00", -3600),
            ("a", "2024-10-27 02:59:00", -60),
            ("b", "2024-10-27 02:59:30", -30),
            ("a", "2024-10-27 02:00:00", 0),
            ("b", "2024-10-27 02:59:30", -30),
            ("a", "2024-10-27 02:59:00", 3540),
            ("a", "2024-10-27 03:00:00", 3600),
            ("b", "2024-10-27 02:10:00", 600),
            ("c", "2024-11-20 10:00:00", 2_102_400),
            ("c", "2024-10-27 02:10:00", -3000),
        ] {
            assert_eq!(seconds(&mut brussels, metric, time), change + after_change, "{metric} {time}");
        }
        assert!(brussels.warnings()[1].contains("occurs twice") && brussels.warnings()[1].ends_with("first for a"));
    }

    #[test]
    fn a_series_that_begins_again_has_both_hours() {
        let mut brussels = clock("Europe/Brussels");
        let night = [
            "2024-10-27 01:50:00",
            "2024-10-27 02:20:00",
            "2024-10-27 02:50:00",
            "2024-10-27 02:20:00",
            "2024-10-27 02:50:00",
            "2024-10-28 03:00:00",
        ];
        let first: Vec<_> = night.iter().map(|time| seconds(&mut brussels, "m", time)).collect();
        let again: Vec<_> = night.iter().map(|time| seconds(&mut brussels, "m", time)).collect();
        assert!(first == again && first.is_sorted());
    }

    #[test]
    fn calm_times_agree_with_jiff() {
        for name in ["Europe/Brussels", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia", "Africa/Casablanca"] {
            let mut clock = clock(name);
            let zone = TimeZone::get(name).unwrap();
            for i in 0..20_000i64 {
                let at = jiff::Timestamp::from_second(100_000_000 + i * 86_399 + i % 7).unwrap();
                let civil = zone.to_datetime(at);
                let theirs = zone.to_ambiguous_timestamp(civil).compatible().unwrap();
                assert_eq!(seconds(&mut clock, &i.to_string(), &civil.to_string()), theirs.as_second(), "{civil} in {name}");
            }
        }
    }

    #[test]
    fn absent_times_are_arrival_an_interval_or_refused() {
        let mut plain = clock("UTC");
        assert_eq!(seconds(&mut plain, "m", ""), 4_000_000_000);
        assert_eq!(plain.warnings(), ["rows without a time were given the time of arrival"]);
        let mut strict = Clock { require_timestamps: true, ..clock("UTC") };
        assert_eq!(strict.settle(&draft("m", "")).unwrap_err().code, Code::MissingTimestamp);
        let mut stepped = Clock { interval: Some(2 * NANOS), require_timestamps: true, ..clock("UTC") };
        let times = [("a", ""), ("a", ""), ("b", ""), ("a", "2025-01-21"), ("a", ""), ("b", "")].map(|(m, t)| seconds(&mut stepped, m, t));
        assert_eq!(times, [0, 2, 0, 1_737_417_600, 1_737_417_602, 2]);
    }
}
