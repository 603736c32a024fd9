//! A multiset of numbers in order, from which percentiles are read exactly.

/// A chunk is cut in two beyond this many values. With n values there are about n / 380 chunks: at the default limit of
/// 100,000 samples that is the square root, where moving within a chunk and walking over the chunks cost the same.
const CHUNK: usize = 512;

/// Two neighbours are joined when both fit into one chunk with as much room again, so chunks stay few when values leave.
const JOINED: usize = CHUNK / 2;

/// Values in ascending order (`total_cmp`, so −0 comes before 0), in chunks.
///
/// Insert and remove cost a search and a move within one chunk; a percentile costs a walk over the chunks. About 8 bytes a
/// value, up to twice that after growth.
#[derive(Clone, Debug, Default)]
pub(crate) struct SortedValues {
    /// None is empty.
    chunks: Vec<Vec<f64>>,
    len: usize,
    heap_bytes: usize,
}

impl SortedValues {
    pub(crate) fn from_unsorted(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let chunks: Vec<Vec<f64>> = values.chunks(CHUNK * 3 / 4).map(<[f64]>::to_vec).collect();
        let mut sorted = Self { chunks, len: values.len(), heap_bytes: 0 };
        sorted.heap_bytes = sorted.chunks.iter().map(|chunk| chunk.capacity() * 8).sum();
        sorted
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes on the heap, in constant time.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.heap_bytes + self.chunks.capacity() * size_of::<Vec<f64>>()
    }

    pub(crate) fn insert(&mut self, value: f64) {
        self.len += 1;
        if self.chunks.is_empty() {
            self.chunks.push(Vec::new());
        }
        let at = self.chunk_of(value).min(self.chunks.len() - 1);
        let chunk = &mut self.chunks[at];
        let before = chunk.capacity();
        chunk.insert(chunk.partition_point(|x| x.total_cmp(&value).is_lt()), value);
        self.heap_bytes += (chunk.capacity() - before) * 8;
        if chunk.len() > CHUNK {
            let upper = chunk.split_off(chunk.len() / 2);
            self.heap_bytes += upper.capacity() * 8;
            self.chunks.insert(at + 1, upper);
        }
    }

    /// Removes one value that equals `value` bit for bit; false where there is none.
    pub(crate) fn remove(&mut self, value: f64) -> bool {
        let at = self.chunk_of(value);
        let Some(chunk) = self.chunks.get_mut(at) else { return false };
        let Ok(i) = chunk.binary_search_by(|x| x.total_cmp(&value)) else { return false };
        chunk.remove(i);
        self.len -= 1;
        let len = chunk.len();
        if len == 0 {
            self.heap_bytes -= self.chunks.remove(at).capacity() * 8;
        } else if self.chunks.get(at + 1).is_some_and(|next| len + next.len() <= JOINED) {
            let next = self.chunks.remove(at + 1);
            let before = self.chunks[at].capacity();
            self.chunks[at].extend_from_slice(&next);
            self.heap_bytes = self.heap_bytes + self.chunks[at].capacity() * 8 - before * 8 - next.capacity() * 8;
        }
        true
    }

    /// The `percent`-th percentile by linear interpolation: with n values in order, the one at position
    /// (n − 1) · percent / 100, counted from 0, and between two neighbours their weighted mean (Hyndman and Fan 1996,
    /// type 7; numpy's and Excel's default). 0 where there are no values. Never leaves the range of its neighbours.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let Some(last) = self.len.checked_sub(1) else { return 0.0 };
        let position = (last as f64 * (percent / 100.0)).clamp(0.0, last as f64);
        let (below, part) = (position as usize, position.fract());
        let a = self.nth(below);
        if part == 0.0 {
            return a;
        }
        let b = self.nth(below + 1);
        let between = if (b - a).is_finite() { a + part * (b - a) } else { a * (1.0 - part) + b * part };
        between.clamp(a, b)
    }

    fn nth(&self, mut n: usize) -> f64 {
        for chunk in &self.chunks {
            if n < chunk.len() {
                return chunk[n];
            }
            n -= chunk.len();
        }
        0.0
    }

    /// The first chunk whose largest value is not below `value`.
    fn chunk_of(&self, value: f64) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|largest| largest.total_cmp(&value).is_lt()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percentile_of(values: &[f64], percent: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let position = (sorted.len() - 1) as f64 * (percent / 100.0);
        let (a, b) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
        if a == b { a } else { a + position.fract() * (b - a) }
    }

    #[test]
    fn known_percentiles() {
        let values = SortedValues::from_unsorted((1..=5).rev().map(f64::from).collect());
        assert_eq!([0.0, 25.0, 50.0, 60.0, 100.0].map(|p| values.percentile(p)), [1.0, 2.0, 3.0, 3.4, 5.0]);
        assert_eq!(SortedValues::default().percentile(50.0), 0.0);
        let widest = SortedValues::from_unsorted(vec![f64::MIN, f64::MAX]);
        assert_eq!(widest.percentile(50.0), 0.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn percentiles_equal_those_of_the_sorted_list(steps in prop::collection::vec((any::<bool>(), -40i32..40, any::<u16>()), 1..2500)) {
            let (mut sorted, mut model) = (SortedValues::default(), Vec::<f64>::new());
            for (i, &(keep, coarse, fine)) in steps.iter().enumerate() {
                if keep || model.is_empty() || i < 900 {
                    let value = f64::from(coarse) / 4.0 + if fine % 3 == 0 { f64::from(fine) / 65536.0 } else { 0.0 };
                    model.push(value);
                    sorted.insert(value);
                } else {
                    prop_assert!(sorted.remove(model.swap_remove(usize::from(fine) % model.len())));
                }
                prop_assert!(!sorted.remove(0.123));
                if i % 97 == 0 && !model.is_empty() {
                    for percent in [0.0, 1.0, 12.5, 50.0, 99.0, 100.0] {
                        prop_assert_eq!(sorted.percentile(percent), percentile_of(&model, percent));
                    }
                }
            }
            prop_assert_eq!(sorted.len(), model.len());
            prop_assert_eq!(sorted.heap_bytes, sorted.chunks.iter().map(|chunk| chunk.capacity() * 8).sum::<usize>());
            prop_assert!(sorted.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK));
            prop_assert!(sorted.chunks.len() <= 1 + 2 * model.len() / (JOINED / 2), "{} chunks", sorted.chunks.len());
        }
    }
}
