//! Samples points for drawing: every anomaly, and of the others the smallest and largest in each span of time.

use anomaly_engine::Timestamp;

use super::Point;

/// How many times more buckets are kept than returned: how many those may be is known when all anomalies are.
const FINER: usize = 8;

/// Takes points in any order and keeps no more than it will return.
#[derive(Debug)]
pub(super) struct Sampler {
    from: i64,
    /// Width of a bucket in nanoseconds.
    width: u128,
    max_points: usize,
    buckets: Vec<Option<(Taken, Taken)>>,
    anomalies: Vec<Taken>,
    offered: u64,
}

/// A point and its place in the order of arrival.
type Taken = (Point, u64);

impl Sampler {
    /// For points from `from` to `to`.
    pub(super) fn new(from: Timestamp, to: Timestamp, max_points: usize) -> Self {
        let n = (FINER * (max_points / 2)).max(1);
        let span = i128::from(to.nanos()) - i128::from(from.nanos()) + 1;
        let width = span.unsigned_abs().div_ceil(n as u128).max(1);
        Self { from: from.nanos(), width, max_points, buckets: vec![None; n], anomalies: Vec::new(), offered: 0 }
    }

    /// Takes a point; arrival is the order of these calls.
    pub(super) fn offer(&mut self, point: &Point) {
        let taken = (*point, self.offered);
        self.offered += 1;
        if point.verdict.is_anomaly() {
            self.anomalies.push(taken);
            return;
        }
        let from_start = (i128::from(point.timestamp.nanos()) - i128::from(self.from)).max(0) as u128;
        let i = ((from_start / self.width) as usize).min(self.buckets.len() - 1);
        self.buckets[i] = merge(self.buckets[i], Some((taken, taken)));
    }

    /// The sample, sorted by time.
    pub(super) fn finish(mut self) -> Vec<Point> {
        let n_fine = self.buckets.len();
        let n = (self.max_points.saturating_sub(self.anomalies.len()) / 2).clamp(1, n_fine);
        let mut buckets = vec![None; n];
        for (i, fine) in self.buckets.drain(..).enumerate() {
            let bucket = &mut buckets[i * n / n_fine];
            *bucket = merge(*bucket, fine);
        }
        let mut taken = self.anomalies;
        taken.extend(buckets.into_iter().flatten().flat_map(|(least, most)| [least, most]));
        sorted(taken)
    }
}

/// Points sorted by time and arrival, each once: after a crash the same points are offered again.
pub(super) fn sorted(mut taken: Vec<Taken>) -> Vec<Point> {
    taken.sort_by_key(|(point, order)| (point.timestamp, *order));
    taken.dedup_by_key(|(_, order)| *order);
    let mut points: Vec<Point> = Vec::with_capacity(taken.len());
    for (point, _) in taken {
        let again = points.iter().rev().take_while(|other| other.timestamp == point.timestamp).any(|other| *other == point);
        if !again {
            points.push(point);
        }
    }
    points
}

fn merge(a: Option<(Taken, Taken)>, b: Option<(Taken, Taken)>) -> Option<(Taken, Taken)> {
    let (Some(a), Some(b)) = (a, b) else { return a.or(b) };
    // Of equal values the earliest, however they came.
    let place = |(point, order): &Taken| (point.timestamp, *order);
    let less = |x: &Taken, y: &Taken| x.0.value.total_cmp(&y.0.value);
    let least = if less(&b.0, &a.0).then_with(|| place(&b.0).cmp(&place(&a.0))).is_lt() { b.0 } else { a.0 };
    let most = if less(&a.1, &b.1).then_with(|| place(&b.1).cmp(&place(&a.1))).is_lt() { b.1 } else { a.1 };
    Some((least, most))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::tests::point;
    use super::*;

    fn sample(points: &[Point], max_points: usize) -> Vec<Point> {
        let mut sampler = Sampler::new(points[0].timestamp, points[points.len() - 1].timestamp, max_points);
        points.iter().for_each(|point| sampler.offer(point));
        sampler.finish()
    }

    #[test]
    fn anomalies_peaks_and_dips_stay() {
        let mut points: Vec<_> = (0..10_000).map(|i| point(i, (i % 7) as f64)).collect();
        points[1234].value = 99.0;
        points[4321].value = -99.0;
        for i in [0, 77, 5555, 9999] {
            points[i].verdict = Verdict::Anomaly;
        }
        let sampled = sample(&points, 100);
        assert!(sampled.len() <= 100 && sampled.len() > 40, "{}", sampled.len());
        assert!(sampled.is_sorted_by_key(|point| point.timestamp));
        for i in [0, 77, 1234, 4321, 5555, 9999] {
            assert!(sampled.contains(&points[i]), "{i}");
        }
        let mut backwards = Sampler::new(points[0].timestamp, points[9999].timestamp, 100);
        points.iter().rev().for_each(|point| backwards.offer(point));
        assert_eq!(backwards.finish(), sampled, "the order of arrival does not show");
    }

    #[test]
    fn more_anomalies_than_asked_for_stay_all() {
        let mut points: Vec<_> = (0..100).map(|i| point(i, i as f64)).collect();
        points[..60].iter_mut().for_each(|point| point.verdict = Verdict::Critical);
        assert_eq!(sample(&points, 10).len(), 62);
        assert_eq!(sample(&points[..1], 0).len(), 1);
    }
}
