//! The window that keeps every sample.

use std::collections::VecDeque;

use anomaly_prefetch::prefetch;

use super::block::{BLOCK, Block, Sample, moments};
use super::{Bounds, WindowShape};
use crate::stat::Moments;

/// No block: what was kept for one is to be found anew.
pub(super) const NONE: u32 = u32::MAX;

/// Every sample in blocks of up to 32, with two stacks over the blocks.
///
/// The two stacks are those of Tangwongsan, Hirzel and Schneider ("General incremental sliding-window aggregation", 2015;
/// "In-order sliding-window aggregation in worst-case constant time", 2021, section 3), with three deviations. A stack's element is a
/// block and not a sample, so the sums cost 2 to 5 bytes a sample and a late sample moves at most 32 others. The samples
/// of the one block in which the bounds begin have a suffix each (`front`), so a query is one merge. And the later stack
/// keeps its sum before each block, so bounds that end early cost no walk.
///
/// ```text
/// blocks   0 … stacked_from … edge … split … last
/// run      –   of this block to split     of split to this block
///                          front: of each sample to split
///                                       tail: all samples from split on
/// ```
///
/// Where the bounds begin in the last block their samples are summed directly. When they begin at or behind the split
/// (or before what is stacked), the stacks are flipped: everything closed goes to the first. Each block is flipped once, so
/// in order a query costs amortised constant time. Everything but `tail` and the prefixes is a function of the samples and
/// the block limits.
#[derive(Clone, Debug)]
pub(super) struct ExactWindow {
    pub(super) blocks: VecDeque<Block>,
    /// For each sample of block `front_block`, its time and the moments from it to the split.
    front: Option<Box<[Suffix; BLOCK]>>,
    /// Of the samples in `blocks[split..]`.
    pub(super) tail: Moments,
    /// Span + lateness: a sample so far behind the newest, or farther, is no longer wanted.
    keep: i64,
    /// The times of the oldest and the newest sample that `max_samples` cut; none while the first is the larger.
    pub(super) cut: (i64, i64),
    /// While `newest - keep` is before this, no block has to go. Reset where it may no longer hold.
    pub(super) expires_after: i64,
    /// Where the last bounds in order began: the first sample after `edge_after`, if `edge_block` is one.
    edge_after: i64,
    pub(super) edge_block: u32,
    pub(super) front_block: u32,
    /// Samples from the first of block `front_block` to the split.
    front_n: u32,
    pub(super) stacked_from: u32,
    pub(super) split: u32,
    pub(super) max_samples: u32,
    pub(super) len: u32,
    /// Samples for which the blocks have room.
    pub(super) room: u32,
    edge_index: u8,
    front_len: u8,
    /// Samples at the start of the first block that `max_samples` has cut; while there are any, `len` is `max_samples`.
    pub(super) hidden: u8,
}

/// A sample's time, and the mean and spread of the samples from it to the split; how many they are, its place tells.
#[derive(Clone, Copy, Debug, Default)]
struct Suffix {
    time: i64,
    mean: f64,
    m2: f64,
}

impl ExactWindow {
    pub(super) fn new(shape: WindowShape) -> Self {
        Self {
            blocks: VecDeque::new(),
            front: None,
            tail: Moments::EMPTY,
            keep: shape.span.saturating_add(shape.lateness),
            cut: (i64::MAX, i64::MIN),
            expires_after: i64::MIN,
            edge_after: 0,
            edge_block: NONE,
            front_block: NONE,
            front_n: 0,
            stacked_from: 0,
            split: 0,
            max_samples: shape.max_samples.max(1),
            len: 0,
            room: 0,
            edge_index: 0,
            front_len: 0,
            hidden: 0,
        }
    }

    #[inline]
    pub(super) fn newest(&self) -> Option<i64> {
        self.blocks.back().map(Block::last_time)
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.room as usize * size_of::<Sample>()
            + self.blocks.capacity() * size_of::<Block>()
            + self.front.as_ref().map_or(0, |front| size_of_val(&**front))
    }

    /// See [`super::Window::prefetch`].
    #[inline(always)]
    pub(super) fn prefetch(&self, depth: usize) {
        let last = self.blocks.back();
        match depth {
            0 => {
                if let Some(last) = last {
                    last.prefetch();
                }
                if self.front_block != self.edge_block {
                    if let Some(edge) = self.blocks.get(self.edge_block as usize) {
                        edge.prefetch();
                    }
                } else if let Some(front) = &self.front {
                    let edge = usize::from(self.edge_index) % BLOCK;
                    prefetch(&front[edge].time);
                    prefetch(&front[(edge + 1) % BLOCK].m2);
                }
            }
            _ => {
                if let Some(newest) = last.and_then(|last| last.samples.last()) {
                    prefetch(newest);
                }
            }
        }
    }

    pub(super) fn is_truncated(&self, bounds: Bounds) -> bool {
        bounds.after < self.cut.1 && self.cut.0 <= bounds.upto
    }

    #[inline]
    pub(super) fn moments(&mut self, bounds: Bounds) -> Moments {
        match self.newest() {
            None => return Moments::EMPTY,
            Some(newest) if bounds.upto < newest => return self.peek(bounds),
            Some(_) => {}
        }
        if let Some(index) = self.edge_in_front(bounds.after) {
            return self.front(index).merge(self.tail);
        }
        let (block, index) = self.edge(bounds.after);
        if block + 1 == self.blocks.len() {
            return moments(&self.blocks[block].samples[index..]);
        }
        if block >= self.split as usize || block < self.stacked_from as usize {
            self.flip(block);
        }
        if self.front_block as usize != block {
            self.fill_front(block);
        }
        self.front(index).merge(self.tail)
    }

    pub(super) fn peek(&self, bounds: Bounds) -> Moments {
        let first = self.blocks.partition_point(|block| block.last_time() <= bounds.after);
        let ends = self.blocks.partition_point(|block| block.first_time() <= bounds.upto);
        let Some(last) = ends.checked_sub(1).filter(|&last| first <= last) else { return Moments::EMPTY };
        let (start, end) = (self.visible(first, self.blocks[first].position(bounds.after)), self.blocks[last].position(bounds.upto));
        if first == last {
            return self.blocks[first].samples.get(start..end).map_or(Moments::EMPTY, moments);
        }
        let mut sum = if start == 0 { self.blocks[first].own } else { moments(&self.blocks[first].samples[start..]) };
        let (next, split) = (first + 1, self.split as usize);
        if next >= self.stacked_from as usize && first < split && split <= last {
            sum = sum.merge(self.suffix(next)).merge(self.blocks[last].run);
        } else {
            sum = self.blocks.range(next..last).fold(sum, |sum, block| sum.merge(block.own));
        }
        sum.merge(moments(&self.blocks[last].samples[..end]))
    }

    pub(super) fn for_each(&self, bounds: Bounds, mut f: impl FnMut(i64, f64)) {
        let first = self.blocks.partition_point(|block| block.last_time() <= bounds.after);
        for (b, block) in self.blocks.iter().enumerate().skip(first) {
            let start = if b == first { self.visible(b, block.position(bounds.after)) } else { 0 };
            for sample in &block.samples[start..] {
                if sample.time > bounds.upto {
                    return;
                }
                f(sample.time, sample.value);
            }
        }
    }

    #[inline]
    pub(super) fn insert(&mut self, time: i64, value: f64, evicted: impl FnMut(i64, f64)) -> bool {
        match self.newest() {
            Some(newest) if time < newest => {
                if time <= newest.saturating_sub(self.keep) || !self.insert_late(Sample { time, value }) {
                    return false;
                }
            }
            _ => self.push(Sample { time, value }),
        }
        self.len += 1;
        self.expire(evicted);
        true
    }

    pub(super) fn reshape(&mut self, shape: WindowShape) {
        self.keep = shape.span.saturating_add(shape.lateness);
        self.max_samples = shape.max_samples.max(1);
        self.remove_hidden();
        self.expire(|_, _| {});
    }

    /// The first sample after `after`, where the front has it: in order that is nearly always so, and costs no look at the
    /// blocks. A front is kept only while its block is on the first stack.
    #[inline]
    fn edge_in_front(&mut self, after: i64) -> Option<usize> {
        if self.front_block == NONE || self.front_block != self.edge_block || after < self.edge_after {
            return None;
        }
        let front = &self.front.as_ref()?[..usize::from(self.front_len)];
        let edge = usize::from(self.edge_index);
        let index = edge + front.get(edge..)?.iter().position(|suffix| suffix.time > after)?;
        let index = self.visible(self.front_block as usize, index);
        (self.edge_after, self.edge_index) = (after, index as u8);
        Some(index)
    }

    /// The moments from sample `index` of the front's block to the split.
    #[inline]
    fn front(&self, index: usize) -> Moments {
        let Suffix { mean, m2, .. } = self.front.as_ref().map_or_else(Suffix::default, |front| front[index % BLOCK]);
        Moments::from_parts((f64::from(self.front_n - index as u32), mean, m2))
    }

    /// The first sample after `after`, or the end of the last block; there must be a block.
    #[inline]
    fn edge(&mut self, after: i64) -> (usize, usize) {
        let (mut block, mut index) = if self.edge_block != NONE && after >= self.edge_after {
            (self.edge_block as usize, self.edge_index as usize)
        } else {
            (self.blocks.partition_point(|block| block.last_time() <= after).min(self.blocks.len() - 1), 0)
        };
        let last = self.blocks.len() - 1;
        while block < last && self.blocks[block].last_time() <= after {
            (block, index) = (block + 1, 0);
        }
        let samples = &self.blocks[block].samples;
        while index < samples.len() && samples[index].time <= after {
            index += 1;
        }
        index = self.visible(block, index);
        (self.edge_after, self.edge_block, self.edge_index) = (after, block as u32, index as u8);
        (block, index)
    }

    /// `index` in `block`, or behind what is hidden.
    fn visible(&self, block: usize, index: usize) -> usize {
        if block == 0 { index.max(self.hidden as usize) } else { index }
    }

    /// The moments of the blocks from `block` to the split.
    fn suffix(&self, block: usize) -> Moments {
        if block < self.split as usize { self.blocks[block].run } else { Moments::EMPTY }
    }

    /// Puts every block from `from` to the one before the last on the first stack.
    fn flip(&mut self, from: usize) {
        self.restack();
        self.stacked_from = from as u32;
        self.sum_suffixes(self.blocks.len() - 2);
    }

    /// Leaves only the last block on the second stack, and none on the first.
    fn restack(&mut self) {
        let Some(last) = self.blocks.len().checked_sub(1) else { return };
        self.split = last as u32;
        self.stacked_from = last as u32;
        self.tail = moments(&self.blocks[last].samples);
        self.blocks[last].run = Moments::EMPTY;
        self.front_block = NONE;
    }

    /// Sums the suffixes of `upto` and the blocks before it anew.
    pub(super) fn sum_suffixes(&mut self, upto: usize) {
        let mut sum = self.suffix(upto + 1);
        for b in (self.stacked_from as usize..=upto).rev() {
            let block = &mut self.blocks[b];
            sum = block.own.merge(sum);
            block.run = sum;
        }
    }

    fn fill_front(&mut self, block: usize) {
        let mut sum = self.suffix(block + 1);
        let samples = &self.blocks[block].samples;
        let front = self.front.get_or_insert_with(|| Box::new([Suffix::default(); BLOCK]));
        for (suffix, sample) in front[..samples.len()].iter_mut().zip(samples).rev() {
            sum.push(sample.value);
            let (_, mean, m2) = sum.parts();
            *suffix = Suffix { time: sample.time, mean, m2 };
        }
        self.front_len = samples.len() as u8;
        self.front_n = sum.count() as u32;
        self.front_block = block as u32;
    }

    #[inline]
    fn push(&mut self, sample: Sample) {
        if self.blocks.back().is_none_or(|block| block.samples.len() == BLOCK) {
            self.open();
        }
        if let Some(last) = self.blocks.back_mut() {
            if last.samples.len() == last.samples.capacity() {
                let before = last.samples.capacity();
                last.grow(false);
                self.room += (last.samples.capacity() - before) as u32;
            }
            last.push(sample);
            self.tail.push(sample.value);
        }
    }

    /// Closes the last block and opens another.
    fn open(&mut self) {
        if let Some(last) = self.blocks.back_mut() {
            last.sum();
        }
        // A series with few samples should cost little; one that has filled two blocks will fill a third.
        let mut block = Block::with_capacity(if self.blocks.len() < 2 { 3 } else { BLOCK });
        block.run = self.tail;
        self.room += block.samples.capacity() as u32;
        self.reserve_block();
        self.blocks.push_back(block);
    }

    /// Room for one more block, and for a quarter as many at most (a deque by itself doubles).
    pub(super) fn reserve_block(&mut self) {
        if self.blocks.len() == self.blocks.capacity() {
            self.blocks.reserve_exact(1 + self.blocks.len() / 4);
        }
    }

    #[inline]
    fn expire(&mut self, mut evicted: impl FnMut(i64, f64)) {
        let horizon = self.newest().map_or(i64::MIN, |newest| newest.saturating_sub(self.keep));
        if horizon < self.expires_after && self.len <= self.max_samples {
            return;
        }
        let mut from_tail = false;
        while self.blocks.len() > 1 && self.blocks[0].last_time() <= horizon {
            from_tail |= self.pop_block(&mut evicted);
        }
        while self.len > self.max_samples {
            let Sample { time, value } = self.blocks[0].samples[self.hidden as usize];
            evicted(time, value);
            self.note_cut(time);
            self.len -= 1;
            self.hidden += 1;
            if self.hidden as usize == self.blocks[0].samples.len() {
                from_tail |= self.pop_block(&mut evicted);
            }
        }
        if from_tail {
            self.restack();
        }
        self.expires_after = if self.blocks.len() > 1 { self.blocks[0].last_time() } else { i64::MIN };
    }

    /// Drops the first block, of several; returns whether it was on the second stack.
    fn pop_block(&mut self, evicted: &mut impl FnMut(i64, f64)) -> bool {
        let Some(block) = self.blocks.pop_front() else { return false };
        for sample in &block.samples[self.hidden as usize..] {
            evicted(sample.time, sample.value);
        }
        self.len -= block.samples.len() as u32 - u32::from(self.hidden);
        self.room -= block.samples.capacity() as u32;
        self.hidden = 0;
        let from_tail = self.split == 0;
        self.split = self.split.saturating_sub(1);
        self.stacked_from = self.stacked_from.saturating_sub(1);
        for index in [&mut self.front_block, &mut self.edge_block] {
            *index = if *index == NONE { NONE } else { index.checked_sub(1).unwrap_or(NONE) };
        }
        from_tail
    }

    pub(super) fn note_cut(&mut self, time: i64) {
        self.cut = (self.cut.0.min(time), self.cut.1.max(time));
    }

    /// Removes the hidden samples from the first block. Its own sum is that of what is left; sums that it was part of are not
    /// asked for while the bounds can only begin in it.
    pub(super) fn remove_hidden(&mut self) {
        if self.hidden > 0 {
            self.blocks[0].samples.drain(..self.hidden as usize);
            self.blocks[0].sum();
            self.hidden = 0;
            self.front_block = NONE;
            self.edge_block = NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::WindowKind;
    use super::*;

    proptest! {
        /// Counted, not timed: what a query did shows in which sums it replaced.
        #[test]
        fn a_query_in_order_costs_amortised_constant(steps in prop::collection::vec(prop_oneof![20 => 0i64..20, 1 => 0i64..5000, 1 => Just(0)], 1..4000), span in 1i64..20_000, lateness in 0i64..50_000) {
            let shape = WindowShape { kind: WindowKind::Exact, span, lateness, max_samples: 100_000 };
            let mut window = ExactWindow::new(shape);
            let (mut time, mut work) = (0, 0usize);
            for step in &steps {
                time += step;
                let (split, from, front) = (window.split, window.stacked_from, window.front_block);
                window.moments(Bounds { after: time - span, upto: time });
                if (window.split, window.stacked_from) != (split, from) {
                    work += BLOCK + (window.split - window.stacked_from) as usize;
                }
                if window.front_block != front {
                    work += BLOCK;
                }
                window.insert(time, 1.0, |_, _| {});
            }
            // A block of 32 samples is flipped once, fills the front once, and is the one behind the split once.
            prop_assert!(work <= 3 * steps.len() + 4 * BLOCK, "{work} for {}", steps.len());
        }
    }
}
