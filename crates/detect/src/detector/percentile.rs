//! Outside the window's own percentiles, exactly.
//!
//! Percentiles are those of [`SortedValues::percentile`] (linear interpolation). Expected is the median, the band is from
//! the lower to the upper percentile, ends included. The measure is the distance from the median in units of the
//! distance from the median to the percentile on that side.

use super::{ANY_CHANGE, CONSTANT, ratio, reported_stddev};
use crate::explanation::{Check, Explanation, Words};
use crate::judgement::{Judgement, Verdict};
use crate::params::Params;
use crate::stat::SortedValues;
use crate::text::{number, spread};
use crate::window::{Bounds, Window, WindowKind};

/// A band without width reaches so far on each side, as part of the median: with a constant 50, 50.0001 is normal.
const REL_FLOOR: f64 = 1e-3;

/// So many samples put one beyond each percentile; an end of 0 or 100 is the smallest or largest value, which one sample has.
pub(crate) fn meaningful_count(low: f64, high: f64) -> u32 {
    [low, 100.0 - high].into_iter().filter(|&tail| tail > 0.0).map(count_for).max().unwrap_or(1)
}

fn count_for(tail: f64) -> u32 {
    // 100 − 99.9 is not 0.1: what is an integer but for rounding is one.
    let n = 100.0 / tail;
    let nearest = libm::round(n);
    (if (n - nearest).abs() < 1e-6 * n { nearest } else { n.ceil() }) as u32
}

/// The values of the samples of the window in `bounds`, in order of size. It follows from the window and the bounds, so it
/// is in no checkpoint.
#[derive(Clone, Debug)]
pub(super) struct PercentileState {
    values: SortedValues,
    bounds: Bounds,
}

impl Default for PercentileState {
    fn default() -> Self {
        Self { values: SortedValues::default(), bounds: Bounds { after: 0, upto: 0 } }
    }
}

impl PercentileState {
    pub(super) fn heap_bytes(&self) -> usize {
        self.values.heap_bytes()
    }

    pub(super) fn judge(&mut self, params: &Params, low: f64, high: f64, window: &mut Window, bounds: Bounds, value: f64) -> Judgement {
        self.move_to(window, bounds);
        let moments = window.moments(bounds);
        let (count, mean, stddev) = (self.values.len() as u64, moments.mean(), reported_stddev(moments));
        debug_assert!(count == moments.count() || window.kind() == WindowKind::Panes, "the sorted values are those of the window");
        if count < u64::from(params.enough()) {
            return Judgement::too_few(count, mean, stddev);
        }
        let [low, median, high] = [low, 50.0, high].map(|percent| self.values.percentile(percent));
        judge(params, Judgement { expected: median, lower: low, upper: high, ..Judgement::too_few(count, mean, stddev) }, value)
    }

    pub(super) fn observe(&mut self, window: &mut Window, time: i64, value: f64) {
        if window.kind() == WindowKind::Panes {
            // Not supported: never enough samples, rather than some of them.
            window.insert(time, value);
            return;
        }
        let Self { values, bounds } = self;
        if bounds.holds(time) {
            values.insert(value);
        }
        // What leaves the window before it has left the bounds (its oldest, where `max_samples` cuts) leaves here too.
        let taken = window.insert_evicting(time, value, |time, value| {
            if bounds.holds(time) {
                values.remove(value);
            }
        });
        if !taken && bounds.holds(time) {
            values.remove(value);
        }
    }

    /// Applies the difference between the last bounds and these, in either direction.
    fn move_to(&mut self, window: &Window, to: Bounds) {
        let from = self.bounds;
        self.bounds = to;
        if to.after >= from.upto || to.upto <= from.after || self.values.len() == 0 {
            let mut values = Vec::new();
            window.for_each(to, |_, value| values.push(value));
            self.values = SortedValues::from_unsorted(values);
            return;
        }
        self.remove(window, Bounds { after: from.after, upto: to.after });
        self.remove(window, Bounds { after: to.upto, upto: from.upto });
        self.insert(window, Bounds { after: to.after, upto: from.after });
        self.insert(window, Bounds { after: from.upto, upto: to.upto });
    }

    fn insert(&mut self, window: &Window, bounds: Bounds) {
        if bounds.after < bounds.upto {
            window.for_each(bounds, |_, value| self.values.insert(value));
        }
    }

    fn remove(&mut self, window: &Window, bounds: Bounds) {
        if bounds.after < bounds.upto {
            window.for_each(bounds, |_, value| {
                self.values.remove(value);
            });
        }
    }
}

/// The judgement on `value` where there are enough samples; `raw` holds the percentiles as they are.
fn judge(params: &Params, raw: Judgement, value: f64) -> Judgement {
    let median = raw.expected;
    let floor = REL_FLOOR * median.abs();
    let (mut lower, mut upper) = (raw.lower, raw.upper);
    if upper - lower <= CONSTANT * median.abs() {
        (lower, upper) = ((median - floor).max(f64::MIN), (median + floor).min(f64::MAX));
    }
    let fires = value < lower || value > upper;
    let (bound, other) = if value < median { (lower, upper) } else { (upper, lower) };
    // On a side where the percentile is the median itself the floor stands for the distance, or the other side's.
    let reach = [ratio(bound, median, 1.0).abs(), floor, ratio(other, median, 1.0).abs()].into_iter().find(|&reach| reach > 0.0);
    let measure = match reach {
        Some(reach) => ratio(value, median, reach).abs(),
        None if value == median => 0.0,
        None => ANY_CHANGE,
    };
    let strength = if fires { measure.max(1.0) } else { measure.min(1.0) };
    Judgement { verdict: params.verdict(fires, value, median), lower, upper, strength, ..raw }
}

pub(super) fn explain(params: &Params, low: f64, high: f64, value: f64, judgement: &Judgement, window_seconds: f64) -> Explanation {
    let words = Words::new(params, value, judgement, window_seconds);
    if judgement.verdict == Verdict::TooFew {
        return words.too_few();
    }
    let &Judgement { expected: median, stddev, lower, upper, .. } = judgement;
    let fires = value < lower || value > upper;
    let half = upper / 2.0 - lower / 2.0;
    let (low, high) = (ordinal(low), ordinal(high));
    let (summary, mut explanation) = if stddev == 0.0 {
        words.constant(median, fires, half)
    } else if fires {
        let (side, bound, name) = if value < lower { ("below", lower, &low) } else { ("above", upper, &high) };
        let middle = format!("the median is {}", number(median));
        (
            format!("{side} the {name} percentile of the last {}", words.window),
            format!("{} is {side} {}, the {name} percentile of the last {}; {middle}", number(value), number(bound), words.samples),
        )
    } else {
        let between = format!("between the {low} and the {high} percentile");
        (
            format!("{between} of the last {}", words.window),
            format!("{} is {between}, {} and {}, of the last {}", number(value), number(lower), number(upper), words.samples),
        )
    };
    explanation.push_str(&words.why_not(fires));
    let band = if stddev == 0.0 {
        format!("{} against {} ± {}", number(value), number(median), spread(half))
    } else {
        format!("{} against {} to {}", number(value), number(lower), number(upper))
    };
    let mut checks = vec![words.enough(), Check::new("Outside the expected band", fires, band)];
    checks.extend(words.filters());
    let critical = format!("Critical from {} × the percentile's distance from the median", number(params.critical_factor));
    checks.extend(words.critical(critical, "the distance"));
    Explanation { summary, explanation, checks }
}

/// `1st`, `99th`, `99.5th`.
fn ordinal(percent: f64) -> String {
    let text = number(percent);
    let ending = match (percent as u32 % 10, percent as u32 % 100, percent.fract() == 0.0) {
        (1, hundred, true) if hundred != 11 => "st",
        (2, hundred, true) if hundred != 12 => "nd",
        (3, hundred, true) if hundred != 13 => "rd",
        _ => "th",
    };
    text + ending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_makes_the_percentiles_meaningful() {
        let cases = [
            (1.0, 99.0, 100),
            (0.1, 99.9, 1000),
            (5.0, 99.0, 100),
            (0.0, 100.0, 1),
            (0.0, 95.0, 20),
            (0.001, 100.0, 100_000),
            (3.0, 97.0, 34),
        ];
        for (low, high, n) in cases {
            assert_eq!(meaningful_count(low, high), n, "{low} {high}");
        }
        assert_eq!([1.0, 2.0, 3.0, 11.0, 50.0, 99.0, 99.5].map(ordinal), ["1st", "2nd", "3rd", "11th", "50th", "99th", "99.5th"]);
    }
}
