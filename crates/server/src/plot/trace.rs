//! What is kept of one series for its panel: few numbers, however many rows it has.
//!
//! Rows fall into buckets of equal width in time. When there are too many buckets their width doubles, so memory is bounded
//! and nobody needs to know the length of a file. A bucket keeps its first, last, smallest and largest row: drawn as a line
//! they look as all of its rows would. Anomalies are kept apart, each of them.

use std::collections::BTreeMap;

use anomaly_engine::Severity;

/// A value at an instant, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Dot {
    pub(crate) at: i64,
    pub(crate) value: f64,
}

/// What was expected, and the band in which nothing would have been said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Band {
    pub(crate) expected: f64,
    pub(crate) lower: f64,
    pub(crate) upper: f64,
}

/// An anomaly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mark {
    pub(crate) dot: Dot,
    pub(crate) severity: Severity,
    pub(crate) z_score: Option<f64>,
    /// The detector's measure ÷ its threshold.
    pub(crate) strength: f64,
}

/// The rows of a span of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    pub(crate) first: Dot,
    pub(crate) last: Dot,
    pub(crate) low: Dot,
    pub(crate) high: Dot,
    /// Sums over the judged rows, and how many those are.
    sums: Band,
    judged: u32,
}

/// One series.
#[derive(Debug)]
pub(crate) struct Trace {
    /// By their number: time ÷ `width`, rounded down.
    buckets: BTreeMap<i64, Bucket>,
    /// Nanoseconds, a power of two.
    width: i64,
    marks: Vec<Mark>,
}

impl Bucket {
    fn new(dot: Dot, band: Option<Band>) -> Self {
        let zero = Band { expected: 0.0, lower: 0.0, upper: 0.0 };
        Self { first: dot, last: dot, low: dot, high: dot, sums: band.unwrap_or(zero), judged: u32::from(band.is_some()) }
    }

    fn merge(&mut self, other: &Self) {
        if other.first.at < self.first.at {
            self.first = other.first;
        }
        if other.last.at >= self.last.at {
            self.last = other.last;
        }
        if other.low.value < self.low.value {
            self.low = other.low;
        }
        if other.high.value > self.high.value {
            self.high = other.high;
        }
        self.sums.expected += other.sums.expected;
        self.sums.lower += other.sums.lower;
        self.sums.upper += other.sums.upper;
        self.judged += other.judged;
    }

    /// Its mean band; nothing where no row of it was judged.
    pub(crate) fn band(&self) -> Option<Band> {
        let n = f64::from(self.judged);
        let Band { expected, lower, upper } = self.sums;
        (self.judged > 0).then(|| Band { expected: expected / n, lower: lower / n, upper: upper / n })
    }

    /// Its four rows in the order of time, each once.
    pub(crate) fn dots(&self) -> Vec<Dot> {
        in_time_order(vec![self.first, self.low, self.high, self.last])
    }

    /// Its smallest and its largest row in the order of time; one, where they are the same.
    pub(crate) fn extremes(&self) -> Vec<Dot> {
        in_time_order(vec![self.low, self.high])
    }
}

fn in_time_order(mut dots: Vec<Dot>) -> Vec<Dot> {
    dots.sort_by_key(|dot| dot.at);
    dots.dedup();
    dots
}

impl Trace {
    /// No rows yet.
    pub(crate) fn new() -> Self {
        Self { buckets: BTreeMap::new(), width: 1, marks: Vec::new() }
    }

    /// Takes a row; afterwards there are at most `most` buckets.
    pub(crate) fn push(&mut self, dot: Dot, band: Option<Band>, most: usize) {
        let bucket = Bucket::new(dot, band);
        let number = dot.at.div_euclid(self.width);
        match self.buckets.last_entry() {
            Some(mut last) if *last.key() == number => last.get_mut().merge(&bucket),
            _ => {
                self.buckets.entry(number).and_modify(|known| known.merge(&bucket)).or_insert(bucket);
                if self.buckets.len() > most {
                    self.coarsen(most);
                }
            }
        }
    }

    /// Takes an anomaly; its row was pushed.
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.marks.push(mark);
    }

    /// Doubles the width until at most half of `most` buckets are left, so that it is not to be done again soon.
    fn coarsen(&mut self, most: usize) {
        while self.buckets.len() > (most / 2).max(1) {
            self.width = self.width.saturating_mul(2);
            let mut wider: BTreeMap<i64, Bucket> = BTreeMap::new();
            for (number, bucket) in std::mem::take(&mut self.buckets) {
                let into = number.div_euclid(2);
                wider.entry(into).and_modify(|known| known.merge(&bucket)).or_insert(bucket);
            }
            self.buckets = wider;
        }
    }

    /// Leaves at most so many buckets.
    pub(crate) fn shrink(&mut self, most: usize) {
        if self.buckets.len() > most {
            self.coarsen(most);
        }
    }

    /// The buckets in the order of time.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.buckets.values()
    }

    /// All anomalies, in the order in which they were found.
    pub(crate) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The strongest anomaly.
    pub(crate) fn strongest(&self) -> Option<&Mark> {
        self.marks.iter().max_by(|a, b| a.strength.total_cmp(&b.strength))
    }

    /// The first and the last instant; of a series without rows nothing.
    pub(crate) fn span(&self) -> Option<(i64, i64)> {
        let first = self.buckets.values().next()?.first.at;
        Some((first, self.buckets.values().next_back()?.last.at))
    }

    /// The smallest and the largest value.
    pub(crate) fn range(&self) -> Option<(f64, f64)> {
        let least = self.buckets.values().map(|bucket| bucket.low.value).min_by(f64::total_cmp)?;
        Some((least, self.buckets.values().map(|bucket| bucket.high.value).max_by(f64::total_cmp)?))
    }

    /// Rows of the buckets as a line, broken where the series has a gap far longer than its usual step.
    pub(crate) fn lines(&self, dots_of: fn(&Bucket) -> Vec<Dot>) -> Vec<Vec<Dot>> {
        let dots: Vec<Dot> = self.buckets.values().flat_map(dots_of).collect();
        let mut steps: Vec<i64> = dots.windows(2).map(|pair| pair[1].at - pair[0].at).filter(|step| *step > 0).collect();
        steps.sort_unstable();
        let (Some(&usual), Some((first, last))) = (steps.get(steps.len() / 2), self.span()) else { return vec![dots] };
        let gap = usual.saturating_mul(12).max((last - first) / 60);
        let mut lines: Vec<Vec<Dot>> = vec![Vec::new()];
        for (i, dot) in dots.iter().enumerate() {
            if i > 0 && dot.at - dots[i - 1].at > gap {
                lines.push(Vec::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push(*dot);
            }
        }
        lines
    }
}

/// A line for a picture: of the rows of a line that fall into the same column, the first, the last, the smallest and the
/// largest.
pub(crate) fn by_column(line: &[Dot], column: impl Fn(i64) -> i64) -> Vec<Dot> {
    let mut kept = Vec::new();
    for rows in line.chunk_by(|a, b| column(a.at) == column(b.at)) {
        let mut bucket = Bucket::new(rows[0], None);
        rows[1..].iter().for_each(|dot| bucket.merge(&Bucket::new(*dot, None)));
        kept.extend(bucket.dots());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times with jitter and a few out of order, values without a pattern.
    fn rows(n: i64) -> Vec<Dot> {
        let hash = |i: i64| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        (0..n).map(|i| Dot { at: 1_000_000_007 * i + (hash(i) as i64 % 2_000_000_000), value: hash(i * 31) as f64 }).collect()
    }

    fn trace(rows: &[Dot], most: usize) -> Trace {
        let mut trace = Trace::new();
        rows.iter().for_each(|dot| trace.push(*dot, None, most));
        trace
    }

    #[test]
    fn each_bucket_keeps_the_smallest_and_the_largest_of_its_rows() {
        for n in [1, 2, 99, 100, 101, 5000] {
            let rows = rows(n);
            let trace = trace(&rows, 100);
            assert!(trace.buckets.len() <= 100);
            let mut numbers: Vec<i64> = rows.iter().map(|dot| dot.at.div_euclid(trace.width)).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(trace.buckets.keys().copied().collect::<Vec<_>>(), numbers);
            for (number, bucket) in &trace.buckets {
                let of = || rows.iter().filter(|dot| dot.at.div_euclid(trace.width) == *number);
                let values = |best: fn(f64, f64) -> f64| of().map(|dot| dot.value).reduce(best).unwrap();
                assert_eq!((bucket.low.value, bucket.high.value), (values(f64::min), values(f64::max)));
                assert_eq!(Some(bucket.first.at), of().map(|dot| dot.at).min());
                assert_eq!(Some(bucket.last.at), of().map(|dot| dot.at).max());
                assert!(bucket.dots().is_sorted_by_key(|dot| dot.at));
            }
        }
    }

    #[test]
    fn every_column_of_a_picture_keeps_its_smallest_and_largest_row() {
        let mut rows = rows(5000);
        rows.sort_by_key(|dot| dot.at);
        let column = |at: i64| at / 50_000_000_000;
        let kept = by_column(&rows, column);
        assert!(kept.len() < 4 * 120);
        for chunk in rows.chunk_by(|a, b| column(a.at) == column(b.at)) {
            let best = |best: fn(f64, f64) -> f64| chunk.iter().map(|dot| dot.value).reduce(best).unwrap();
            for value in [best(f64::min), best(f64::max), chunk[0].value, chunk[chunk.len() - 1].value] {
                assert!(kept.iter().any(|dot| dot.value == value && column(dot.at) == column(chunk[0].at)));
            }
        }
    }

    #[test]
    fn no_anomaly_is_sampled_away() {
        let mut trace = trace(&rows(5000), 10);
        for dot in rows(700) {
            trace.mark(Mark { dot, severity: Severity::Warning, z_score: None, strength: dot.value });
        }
        trace.shrink(4);
        assert!(trace.buckets.len() <= 4);
        assert!(trace.marks().iter().map(|mark| mark.dot).eq(rows(700)));
        let strongest = rows(700).iter().map(|dot| dot.value).reduce(f64::max);
        assert_eq!(trace.strongest().map(|mark| mark.strength), strongest);
    }

    #[test]
    fn bands_of_a_bucket_are_averaged_over_what_was_judged() {
        let mut trace = Trace::new();
        let band = |expected: f64| Band { expected, lower: expected - 1.0, upper: expected + 3.0 };
        for (at, band) in [(0, None), (1, Some(band(10.0))), (2, Some(band(20.0)))] {
            trace.push(Dot { at, value: 0.0 }, band, 1);
        }
        let found: Vec<_> = trace.buckets().map(|bucket| bucket.band().unwrap()).collect();
        assert_eq!(found, [Band { expected: 15.0, lower: 14.0, upper: 18.0 }]);
    }

    #[test]
    fn a_line_is_broken_at_a_gap() {
        let dots: Vec<Dot> = (0..100).chain(1000..1100).map(|at| Dot { at, value: 1.0 }).collect();
        let lines = trace(&dots, 1000).lines(Bucket::dots);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100]);
        assert_eq!(trace(&dots[..1], 10).lines(Bucket::dots), [vec![dots[0]]]);
    }
}
