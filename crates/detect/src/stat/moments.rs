//! Count, mean and sum of squared deviations, mergeable and never subtracted.

use crate::codec::{DecodeError, put_f64, take_finite, undecodable};

/// Below this the squares of deviations begin to underflow, above [`HUGE`] to overflow; there the spread is kept as a root.
const TINY: f64 = 1e-280;
/// See [`TINY`].
const HUGE: f64 = 1e300;

/// The fields of [`Moments`]. As a tuple of numbers they stay in registers across the rare call of [`merged_extremes`]; as a
/// struct they went through memory in every merge, at three times the cost.
pub(crate) type Parts = (f64, f64, f64);

/// The count, the mean and the sum of squared deviations of some samples; 24 bytes.
///
/// Two of them merge into those of both sets by the pairwise formula of Chan, Golub and LeVeque ("Updating formulae and
/// a pairwise algorithm for computing sample variances", 1979, eq. 1.5; "Algorithms for computing the sample variance",
/// 1983, eq. 2.1). Nothing is ever taken out again: a value of 1e15 that has left a window leaves no trace.
///
/// Domain: finite values, up to ±1.8e308 and down to the smallest. Results are never NaN or infinite. The mean and the
/// standard deviation hold their precision over the whole range; where a true result exceeds `f64::MAX` (the sample
/// deviation of ±`f64::MAX`), it is `f64::MAX`.
///
/// Accuracy: for n samples with standard deviation s and mean m, a relative error of the variance of about
/// `n · 1.1e-16 · max(1, |m| / s)` in the worst case, and of its square root's order in practice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// The count, as f64 so that a merge converts nothing; exact up to 2^53.
    n: f64,
    mean: f64,
    /// The sum of squared deviations where it is 0 or within [`TINY`, `HUGE`], else the root of its mean, negated.
    m2: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Moments {
    /// Those of no samples.
    pub const EMPTY: Self = Self { n: 0.0, mean: 0.0, m2: 0.0 };

    /// Those of one sample.
    pub const fn one(value: f64) -> Self {
        Self { n: 1.0, mean: value, m2: 0.0 }
    }

    /// Those of `items`, in two passes: the mean, then the deviations from it.
    ///
    /// Both passes work on the differences from the first value, which are exact for neighbours (1e9 + noise), and in four
    /// lanes in a fixed order, so the bits do not depend on the machine.
    pub fn of<T>(items: &[T], value: impl Fn(&T) -> f64) -> Self {
        let Some(first) = items.first().map(&value) else { return Self::EMPTY };
        let n = items.len() as f64;
        let shift = sum_in_lanes(items, |item| value(item) - first) / n;
        let m2 = sum_in_lanes(items, |item| {
            let d = value(item) - first - shift;
            d * d
        });
        let mean = first + shift;
        if (TINY..=HUGE).contains(&m2) { Self { n, mean, m2 } } else { Self::of_extremes(items, value) }
    }

    /// [`Moments::of`] where the squares overflow or underflow, or all values are equal.
    #[cold]
    #[inline(never)]
    fn of_extremes<T>(items: &[T], value: impl Fn(&T) -> f64) -> Self {
        let first = value(&items[0]);
        if items.iter().all(|item| value(item) == first) {
            return Self { n: items.len() as f64, mean: first, m2: 0.0 };
        }
        items.iter().fold(Self::EMPTY, |sum, item| sum.merge_extremes(Self::one(value(item))))
    }

    /// Takes one more sample in.
    #[inline]
    pub fn push(&mut self, value: f64) {
        *self = self.pushed(value);
    }

    /// With one more sample.
    #[inline]
    #[must_use]
    pub fn pushed(self, value: f64) -> Self {
        let Self { n, mean, m2 } = self;
        let more = n + 1.0;
        let part = 1.0 / more;
        let d = value - mean;
        let sum = m2 + d * d * (n * part);
        let short = m2 >= 0.0 && (TINY..=HUGE).contains(&sum);
        Self::from_parts(if short { (more, mean + d * part, sum) } else { merged_extremes((n, mean, m2), (1.0, value, 0.0)) })
    }

    /// Those of the samples of both.
    #[inline]
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let Self { n, mean, m2 } = self;
        let both = n + other.n;
        let part = other.n / both;
        let d = other.mean - mean;
        let sum = m2 + other.m2 + d * d * (n * part);
        let short = m2 >= 0.0 && other.m2 >= 0.0 && (TINY..=HUGE).contains(&sum) && n > 0.0;
        Self::from_parts(if short { (both, mean + d * part, sum) } else { merged_extremes((n, mean, m2), (other.n, other.mean, other.m2)) })
    }

    /// From what [`Moments::parts`] gave.
    #[inline]
    pub(crate) fn from_parts((n, mean, m2): Parts) -> Self {
        Self { n, mean, m2 }
    }

    /// The fields, for who keeps them otherwise.
    #[inline]
    pub(crate) fn parts(self) -> Parts {
        (self.n, self.mean, self.m2)
    }

    /// [`Moments::merge`] for everything the short formula cannot: nothing on one side, no spread, or squares that
    /// overflow or underflow. Works on roots, relative to the largest, so it is right over the whole range.
    fn merge_extremes(self, other: Self) -> Self {
        if self.n == 0.0 {
            return other;
        }
        if other.n == 0.0 {
            return self;
        }
        let n = self.n + other.n;
        if self.mean == other.mean && self.m2 == 0.0 && other.m2 == 0.0 {
            return Self { n, ..self };
        }
        let (mine, others) = (self.n / n, other.n / n);
        // A quarter of everything where the difference of the means would overflow (and only there: it costs small numbers bits).
        let scale = if (other.mean - self.mean).is_finite() { 1.0 } else { 0.25 };
        let d = other.mean * scale - self.mean * scale;
        let mean = ((self.mean * scale + d * others) / scale).clamp(-f64::MAX, f64::MAX);
        let (a, b) = (self.root() * scale, other.root() * scale);
        let largest = a.max(b).max(d.abs());
        let (a, b, d) = (a / largest, b / largest, d / largest);
        let root = (largest * (mine * a * a + others * b * b + mine * others * d * d).sqrt() / scale).min(f64::MAX);
        Self::from_root(n, mean, if largest == 0.0 { 0.0 } else { root })
    }

    /// From the root of the mean squared deviation.
    pub(crate) fn from_root(n: f64, mean: f64, root: f64) -> Self {
        let m2 = n * root * root;
        Self { n, mean, m2: if root == 0.0 || (TINY..=HUGE).contains(&m2) { m2 } else { -root } }
    }

    /// The root of the mean squared deviation: the population's standard deviation.
    pub(crate) fn root(self) -> f64 {
        if self.m2 < 0.0 {
            -self.m2
        } else if self.n > 0.0 {
            (self.m2 / self.n).sqrt()
        } else {
            0.0
        }
    }

    /// How many samples.
    #[inline]
    pub fn count(self) -> u64 {
        self.n as u64
    }

    /// The mean; 0 for none.
    #[inline]
    pub fn mean(self) -> f64 {
        self.mean
    }

    /// The sample's standard deviation (n − 1); 0 for fewer than two.
    #[inline]
    pub fn stddev(self) -> f64 {
        if self.n < 2.0 {
            0.0
        } else if self.m2 >= 0.0 {
            (self.m2 / (self.n - 1.0)).sqrt()
        } else {
            (-self.m2 * (self.n / (self.n - 1.0)).sqrt()).min(f64::MAX)
        }
    }

    /// The sample's variance (n − 1); 0 for fewer than two, at most `f64::MAX`.
    pub fn variance(self) -> f64 {
        if self.n < 2.0 {
            0.0
        } else if self.m2 >= 0.0 {
            self.m2 / (self.n - 1.0)
        } else {
            let stddev = self.stddev();
            (stddev * stddev).min(f64::MAX)
        }
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        put_f64(out, self.n);
        put_f64(out, self.mean);
        put_f64(out, self.m2);
    }

    pub(crate) fn decode(from: &mut &[u8]) -> Result<Self, DecodeError> {
        let (n, mean, m2) = (take_finite(from)?, take_finite(from)?, take_finite(from)?);
        if n < 0.0 || n.fract() != 0.0 {
            return Err(undecodable("moments of a part of a sample"));
        }
        Ok(Self { n, mean, m2 })
    }
}

/// [`Moments::merge_extremes`], out of the way.
#[inline(never)]
fn merged_extremes((n, mean, m2): Parts, (other_n, other_mean, other_m2): Parts) -> Parts {
    let merged = Moments { n, mean, m2 }.merge_extremes(Moments { n: other_n, mean: other_mean, m2: other_m2 });
    (merged.n, merged.mean, merged.m2)
}

fn sum_in_lanes<T>(items: &[T], term: impl Fn(&T) -> f64) -> f64 {
    let mut lanes = [0.0f64; 4];
    let chunks = items.chunks_exact(4);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, item) in lanes.iter_mut().zip(chunk) {
            *lane += term(item);
        }
    }
    for (lane, item) in lanes.iter_mut().zip(rest) {
        *lane += term(item);
    }
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Moments {
        Moments::of(values, |v| *v)
    }

    fn pushed(values: &[f64]) -> Moments {
        values.iter().fold(Moments::EMPTY, |sum, &v| sum.pushed(v))
    }

    #[test]
    fn one_by_one_all_at_once_and_merged_agree() {
        let values: Vec<f64> = (0..97).map(|i| f64::from(i * 37 % 101) / 7.0 - 3.0).collect();
        let (all, single) = (of(&values), pushed(&values));
        let halves = of(&values[..40]).merge(of(&values[40..]));
        for other in [single, halves] {
            assert_eq!(other.count(), 97);
            assert!((other.mean() - all.mean()).abs() < 1e-14 && (other.variance() / all.variance() - 1.0).abs() < 1e-14);
        }
        assert_eq!(of(&[1.0, 2.0, 3.0, 6.0]).variance(), 14.0 / 3.0);
        assert_eq!((of(&[5.0]).stddev(), of(&[]).stddev(), of(&[]).mean(), of(&[5.0]).mean()), (0.0, 0.0, 0.0, 5.0));
    }

    #[test]
    fn equal_values_have_no_spread_and_exactly_their_mean() {
        for value in [0.1, 0.0, -50.0, 1e-320, f64::MAX, f64::MIN] {
            for moments in [of(&[value; 30]), pushed(&[value; 30]), of(&[value; 7]).merge(pushed(&[value; 23]))] {
                assert_eq!((moments.mean(), moments.stddev(), moments.count()), (value, 0.0, 30));
            }
        }
    }

    #[test]
    fn the_whole_range_of_numbers_is_covered() {
        for scale in [1e-320, 1e-300, 1e-170, 1e-145, 1.0, 1e145, 1e160, 1e300, 1e307] {
            let values = [1.0 * scale, 2.0 * scale, 4.0 * scale, 8.0 * scale];
            for moments in
                [of(&values), pushed(&values), of(&values[..1]).merge(of(&values[1..])), of(&values[..2]).merge(pushed(&values[2..]))]
            {
                let tolerance = if scale < 1e-310 { 1e-2 } else { 1e-14 };
                assert!((moments.mean() / scale / 3.75 - 1.0).abs() < tolerance, "{scale}: {moments:?}");
                assert!((moments.stddev() / scale / 3.095_695_936_834_452 - 1.0).abs() < tolerance, "{scale}: {moments:?}");
                assert!(moments.variance().is_finite());
            }
        }
        let widest = of(&[f64::MAX, f64::MIN, f64::MAX, f64::MIN]);
        assert_eq!((widest.mean(), widest.stddev(), widest.variance()), (0.0, f64::MAX, f64::MAX));
    }

    #[test]
    fn after_an_extreme_the_ordinary_is_exact_again() {
        let mut moments = pushed(&[1e-170, 3e-170]);
        moments = moments.merge(pushed(&[1.0, 2.0, 3.0]));
        let expected = pushed(&[0.0, 0.0, 1.0, 2.0, 3.0]);
        assert!((moments.stddev() / expected.stddev() - 1.0).abs() < 1e-14);
    }
}
