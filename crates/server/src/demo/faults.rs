//! What goes wrong, and when.

use super::HISTORY_SECONDS;
use super::random::unit;
use super::series::{SERIES, Series};

/// History without faults at its beginning, until the windows are full, and at its end, so that what is live begins calm.
const CALM_AT_FIRST: i64 = 400;
const CALM_AT_LAST: i64 = 90;
/// From the first live second to the first live fault: a newcomer should not wait.
const FIRST_AFTER: i64 = 4;
/// A step that has no divisor in common with the number of series: it meets each once a round, and neighbours far apart.
const STRIDE: usize = 7;

/// A way in which a metric goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Very high for a second or two.
    Spike,
    /// Higher from one second to the next, for a while.
    Shift,
    /// Lower from one second to the next, for a while.
    Drop,
    /// Nothing comes through.
    Outage,
    /// Higher each second, faster than a window forgets.
    Drift,
    /// The sensor reports this, whatever it measures.
    Stuck(f64),
}

impl Kind {
    /// As it is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spike => "spike",
            Self::Shift => "level shift",
            Self::Drop => "drop",
            Self::Outage => "outage",
            Self::Drift => "drift",
            Self::Stuck(_) => "stuck sensor",
        }
    }

    /// The shortest and the longest that it lasts, in seconds.
    fn seconds(self) -> (f64, f64) {
        match self {
            Self::Spike => (1.0, 2.0),
            Self::Shift | Self::Drop => (20.0, 40.0),
            Self::Outage | Self::Stuck(_) => (12.0, 25.0),
            Self::Drift => (18.0, 25.0),
        }
    }
}

/// One series going wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Which of [`SERIES`].
    pub series: usize,
    /// How it goes wrong.
    pub kind: Kind,
    /// Its first second, in epoch seconds.
    pub start: i64,
    /// How long it lasts.
    pub seconds: i64,
    /// By how many standard deviations of the noise a spike, a shift or a drop moves the value.
    size: f64,
}

impl Fault {
    /// The first second after it.
    pub fn end(&self) -> i64 {
        self.start + self.seconds
    }

    /// What becomes of a value at a second of it.
    pub(super) fn apply(&self, series: &Series, normal: f64, at: i64) -> f64 {
        match self.kind {
            Kind::Spike | Kind::Shift => normal + self.size * series.noise,
            Kind::Drop => normal - self.size * series.noise,
            Kind::Outage => 0.0,
            Kind::Drift => normal + 2.5 * series.noise * (at - self.start + 1) as f64,
            Kind::Stuck(value) => value,
        }
    }
}

/// All faults in the order of their start, without end: one of each series in the history, then one every 15 to 20 seconds,
/// and after a while every 20 to 40. The series take turns, so that one has calmed down before it goes wrong again.
#[derive(Debug)]
pub struct Schedule {
    seed: u64,
    live: i64,
    next: usize,
    last_start: i64,
}

impl Schedule {
    /// Values are live from `live` on, in epoch seconds.
    pub(super) fn new(seed: u64, live: i64) -> Self {
        Self { seed, live, next: 0, last_start: 0 }
    }

    /// When the `n`th begins.
    fn start(&self, n: usize) -> i64 {
        let of_history = SERIES.len();
        let chance = self.unit(n, 0);
        if n < of_history {
            let pause = (HISTORY_SECONDS - CALM_AT_FIRST - CALM_AT_LAST) as f64 / of_history as f64;
            return self.live - HISTORY_SECONDS + CALM_AT_FIRST + (pause * (n as f64 + 0.6 * chance)) as i64;
        }
        match n - of_history {
            0 => self.live + FIRST_AFTER,
            live if live <= 2 * of_history => self.last_start + 15 + (6.0 * chance) as i64,
            _ => self.last_start + 20 + (21.0 * chance) as i64,
        }
    }

    fn unit(&self, n: usize, what: u64) -> f64 {
        // Numbers of series are small: these purposes are not theirs.
        unit(self.seed, (1 << 32) + what, n as i64)
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let n = self.next;
        self.next += 1;
        let series = n * STRIDE % SERIES.len();
        let kinds = SERIES[series].kinds;
        let kind = kinds[n / SERIES.len() % kinds.len()];
        let (shortest, longest) = kind.seconds();
        let start = self.start(n);
        self.last_start = start;
        let seconds = (shortest + (longest - shortest + 1.0) * self.unit(n, 1)).min(longest) as i64;
        Some(Fault { series, kind, start, seconds, size: 8.0 + 18.0 * self.unit(n, 2) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: i64 = 1_760_000_000;

    fn first(n: usize) -> Vec<Fault> {
        Schedule::new(5, LIVE).take(n).collect()
    }

    #[test]
    fn history_has_one_of_each_series_and_leaves_its_ends_calm() {
        let faults = first(SERIES.len());
        let mut series: Vec<_> = faults.iter().map(|fault| fault.series).collect();
        series.sort_unstable();
        assert!(series.into_iter().eq(0..SERIES.len()));
        assert!(faults[0].start >= LIVE - HISTORY_SECONDS + CALM_AT_FIRST);
        assert!(faults.iter().all(|fault| fault.end() < LIVE - 30), "{faults:?}");
    }

    #[test]
    fn live_faults_come_every_15_to_20_seconds_and_later_every_20_to_40() {
        let n = SERIES.len();
        let faults = first(5 * n);
        let live = &faults[n..];
        assert_eq!(live[0].start, LIVE + FIRST_AFTER);
        let pauses: Vec<i64> = live.windows(2).map(|pair| pair[1].start - pair[0].start).collect();
        assert!(pauses[..2 * n].iter().all(|pause| (15..=20).contains(pause)), "{pauses:?}");
        assert!(pauses[2 * n..].iter().all(|pause| (20..=40).contains(pause)), "{pauses:?}");
    }

    #[test]
    fn a_series_has_calmed_down_before_it_goes_wrong_again() {
        let faults = first(200);
        for (i, fault) in faults.iter().enumerate() {
            let next = faults[i + 1..].iter().find(|other| other.series == fault.series);
            // The window of the demo is 300 s long: what is left of the last fault in it must not hide the next.
            assert!(next.is_none_or(|next| next.start >= fault.end() + 285), "{fault:?} {next:?}");
        }
    }

    #[test]
    fn every_kind_comes_in_the_first_minutes() {
        let mut kinds: Vec<&str> = first(2 * SERIES.len()).iter().map(|fault| fault.kind.as_str()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds, ["drift", "drop", "level shift", "outage", "spike", "stuck sensor"]);
    }

    #[test]
    fn faults_change_values_as_their_kind_says() {
        let series = &SERIES[0];
        let at = |kind, after: i64| Fault { series: 0, kind, start: 100, seconds: 30, size: 10.0 }.apply(series, 120.0, 100 + after);
        assert_eq!((at(Kind::Spike, 0), at(Kind::Shift, 9), at(Kind::Drop, 9)), (180.0, 180.0, 60.0));
        assert_eq!((at(Kind::Outage, 3), at(Kind::Stuck(85.0), 3)), (0.0, 85.0));
        assert_eq!((at(Kind::Drift, 0), at(Kind::Drift, 9)), (135.0, 270.0));
    }
}
