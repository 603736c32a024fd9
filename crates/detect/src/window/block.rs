//! A run of samples in the order of time.

use anomaly_prefetch::prefetch;

use crate::stat::Moments;

/// The most samples in a block. Larger blocks mean fewer sums a sample, smaller ones less to recompute when one changes.
pub(super) const BLOCK: usize = 32;

/// A block that is cut in two has room for so many more in each half: a late sample seldom comes alone.
const ROOM: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) time: i64,
    pub(super) value: f64,
}

/// 1 to [`BLOCK`] samples in the order of time, then of arrival, and two sums.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) samples: Vec<Sample>,
    /// The time of the last sample: at hand without going to the samples, which are seldom in a cache.
    last: i64,
    /// Of these samples; not kept up to date in the last block, which `tail` covers.
    pub(super) own: Moments,
    /// Before the split: of these samples and those of every later block before the split (a suffix). From the split on: of
    /// the samples between the split and this block (a prefix).
    pub(super) run: Moments,
}

impl Block {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { samples: Vec::with_capacity(capacity), last: i64::MIN, own: Moments::EMPTY, run: Moments::EMPTY }
    }

    /// Has fetched what tells where the samples are, and until when.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        prefetch(&self.samples);
        prefetch(&self.last);
    }

    pub(super) fn first_time(&self) -> i64 {
        self.samples.first().map_or(i64::MIN, |sample| sample.time)
    }

    pub(super) fn last_time(&self) -> i64 {
        self.last
    }

    /// Adds a sample that is not before the last.
    #[inline]
    pub(super) fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
        self.last = sample.time;
    }

    /// Puts a sample where its time says.
    pub(super) fn insert(&mut self, at: usize, sample: Sample) {
        self.samples.insert(at, sample);
        self.note_last();
    }

    fn note_last(&mut self) {
        self.last = self.samples.last().map_or(i64::MIN, |sample| sample.time);
    }

    /// How many samples are at or before `time`.
    pub(super) fn position(&self, time: i64) -> usize {
        self.samples.partition_point(|sample| sample.time <= time)
    }

    /// Makes room for one more, in a block that is not full: for twice as many when samples come in order, for a few more
    /// when a late one came.
    pub(super) fn grow(&mut self, late: bool) {
        let (len, capacity) = (self.samples.len(), self.samples.capacity());
        if len == capacity {
            let more = if late { ROOM } else { len.max(ROOM) };
            self.samples.reserve_exact(more.min(BLOCK - len));
        }
    }

    /// Cuts the later half off.
    pub(super) fn cut(&mut self) -> Self {
        let mut later = Self::with_capacity(BLOCK / 2 + ROOM);
        later.samples.extend(self.samples.drain(BLOCK / 2..));
        self.samples.shrink_to(BLOCK / 2 + ROOM);
        self.note_last();
        later.note_last();
        later
    }

    pub(super) fn sum(&mut self) {
        self.own = moments(&self.samples);
    }
}

pub(super) fn moments(samples: &[Sample]) -> Moments {
    Moments::of(samples, |sample| sample.value)
}
