//! Made-up production: metrics that behave as those of a small shop do, and faults at known times.
//!
//! Pure and seeded: the same seed and the same start give the same values and the same faults. It knows no clock and sends
//! nothing; `anomaly demo` ([`crate::command::demo`]) does.

mod faults;
mod random;
mod series;

use std::iter::Peekable;

pub use faults::{Fault, Kind, Schedule};
pub use series::{SERIES, Series};

/// Seconds of history before the live values: as much as the page shows at first.
pub const HISTORY_SECONDS: i64 = 3600;

/// The value of a series at a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Which of [`SERIES`].
    pub series: usize,
    /// Its value.
    pub value: f64,
    /// The fault that changed it.
    pub fault: Option<Fault>,
}

/// Makes the values of all series, second by second.
#[derive(Debug)]
pub struct Generator {
    seed: u64,
    schedule: Peekable<Schedule>,
    active: Vec<Fault>,
}

impl Generator {
    /// History begins [`HISTORY_SECONDS`] before `live`, in epoch seconds; from `live` on faults follow each other quickly.
    pub fn new(seed: u64, live: i64) -> Self {
        Self { seed, schedule: Schedule::new(seed, live).peekable(), active: Vec::new() }
    }

    /// The values at a second, and the faults that begin there. Seconds must be asked for in order.
    pub fn second(&mut self, at: i64) -> (Vec<Sample>, Vec<Fault>) {
        self.active.retain(|fault| at < fault.end());
        let mut begun = Vec::new();
        while let Some(fault) = self.schedule.next_if(|fault| fault.start <= at) {
            begun.push(fault);
        }
        self.active.extend(&begun);
        let sample = |(i, series): (usize, &Series)| {
            let fault = self.active.iter().find(|fault| fault.series == i && at < fault.end()).copied();
            let normal = series.normal(self.seed, i, at);
            let value = fault.map_or(normal, |fault| fault.apply(series, normal, at));
            Sample { series: i, value: series.rounded(value), fault }
        };
        (SERIES.iter().enumerate().map(sample).collect(), begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: i64 = 1_760_000_000;

    fn run(seed: u64, seconds: i64) -> (Vec<Sample>, Vec<Fault>) {
        let mut generator = Generator::new(seed, LIVE);
        let (mut samples, mut faults) = (Vec::new(), Vec::new());
        for at in LIVE - HISTORY_SECONDS..LIVE + seconds {
            let (now, begun) = generator.second(at);
            samples.extend(now);
            faults.extend(begun);
        }
        (samples, faults)
    }

    #[test]
    fn a_seed_gives_the_same_again_and_another_seed_something_else() {
        assert!(run(1, 60) == run(1, 60));
        assert!(run(1, 60).0 != run(2, 60).0);
    }

    #[test]
    fn each_second_has_each_series_and_values_are_possible_ones() {
        let (samples, _) = run(7, 600);
        assert_eq!(samples.len(), SERIES.len() * 4200);
        for sample in samples {
            let series = &SERIES[sample.series];
            assert!((0.0..=series.most).contains(&sample.value), "{} {}", series.metric, sample.value);
        }
    }

    #[test]
    fn a_sample_is_labelled_exactly_while_its_fault_lasts() {
        let mut generator = Generator::new(3, LIVE);
        let mut faults: Vec<Fault> = Vec::new();
        for at in LIVE - HISTORY_SECONDS..LIVE + 900 {
            let (samples, begun) = generator.second(at);
            faults.extend(begun);
            for sample in samples {
                let expected = faults.iter().find(|fault| fault.series == sample.series && (fault.start..fault.end()).contains(&at));
                assert_eq!(sample.fault.as_ref(), expected, "{at}");
            }
        }
        assert!(faults.len() > 60, "{}", faults.len());
    }
}
