//! The window of bounded memory.

use std::collections::VecDeque;

use super::{Bounds, WindowShape};
use anomaly_prefetch::prefetch;

use crate::codec::{DecodeError, put_f64, put_i64, put_varint, take_array, take_count, take_finite, take_i64, take_varint, undecodable};
use crate::stat::Moments;

/// Panes across the span.
const PANES: i64 = 60;

/// The most panes that bounds can begin in and that no late sample can reach any more.
const OLD: usize = PANES as usize - 1;

/// The moments of panes in two stacks.
///
/// Pane number = time ÷ width, rounded down. The last `late + 1` panes, which late samples may reach and in which bounds
/// may end, keep their moments as they are (24 B). Older ones are only ever summed up to the newest, so they take 16 B, and
/// the first `stacked` of them hold in their own place the suffix from them to the split, as in two-stacks lite
/// (Tangwongsan, Hirzel and Schneider, "In-order sliding-window aggregation in worst-case constant time", 2021, section 4).
///
/// ```text
/// old      suffixes … | split: own …        recent   own … the pane of the newest sample
///                       tail: from the split to the newest pane, without it
///          head: from where the last bounds began to the newest pane, without it
/// ```
///
/// **Error**: as [`Moments`], and that of [`Slot`] (2^-21 of the variance) each time a pane is written: when it gets old, when
/// it is stacked, and once for each later flip while it is kept. With lateness of L panes a flip comes every 59 − L panes,
/// so at most 2 + 59 / (59 − L) times: 2e-6 of the variance while L ≤ 12. Where L ≥ 55 nothing much is stacked; at most 10
/// writings, 5e-6, hold for every L, since a flip of fewer than 8 old panes is left out and they are merged one by one.
#[derive(Clone, Debug)]
pub(super) struct PaneWindow {
    recent: VecDeque<Moments>,
    old: VecDeque<Slot>,
    tail: Moments,
    head: Moments,
    /// The first pane of `head`; `i64::MIN` while there is none.
    head_from: i64,
    /// The newest pane.
    pane: i64,
    /// The time of the newest sample; meaningless while `recent` is empty.
    newest: i64,
    width: i64,
    late: u32,
    stacked: u32,
}

impl PaneWindow {
    pub(super) fn new(shape: WindowShape) -> Self {
        let width = (shape.span.max(1) - 1) / PANES + 1;
        Self {
            recent: VecDeque::new(),
            old: VecDeque::new(),
            tail: Moments::EMPTY,
            head: Moments::EMPTY,
            head_from: i64::MIN,
            pane: 0,
            newest: 0,
            width,
            late: u32::try_from((shape.lateness.max(0) / width).saturating_add(i64::from(shape.lateness % width > 0)))
                .unwrap_or(u32::MAX - 1),
            stacked: 0,
        }
    }

    /// See [`super::Window::prefetch`].
    #[inline(always)]
    pub(super) fn prefetch(&self, depth: usize) {
        if depth == 0
            && let Some(current) = self.recent.back()
        {
            prefetch(current);
        }
    }

    pub(super) fn newest(&self) -> Option<i64> {
        (!self.recent.is_empty()).then_some(self.newest)
    }

    pub(super) fn len(&self) -> usize {
        let stacked = if self.stacked > 0 { self.old[0].count as usize } else { 0 };
        stacked + self.tail.count() as usize + self.current().count() as usize
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.recent.capacity() * size_of::<Moments>() + self.old.capacity() * size_of::<Slot>()
    }

    #[inline]
    pub(super) fn moments(&mut self, bounds: Bounds) -> Moments {
        let (from, upto) = self.panes(bounds);
        if upto < self.pane {
            return self.sum(from, upto);
        }
        if from > self.pane {
            return Moments::EMPTY;
        }
        if from != self.head_from {
            self.head = self.sum_head(from);
            self.head_from = from;
        }
        match self.recent.back() {
            Some(current) => self.head.merge(*current),
            None => Moments::EMPTY,
        }
    }

    pub(super) fn peek(&self, bounds: Bounds) -> Moments {
        let (from, upto) = self.panes(bounds);
        self.sum(from, upto.min(self.pane))
    }

    #[inline]
    pub(super) fn insert(&mut self, time: i64, value: f64) -> bool {
        let pane = self.pane_of(time, self.pane);
        if pane == self.pane
            && let Some(current) = self.recent.back_mut()
        {
            current.push(value);
            self.newest = self.newest.max(time);
            return true;
        }
        self.insert_moments(pane, time, Moments::one(value))
    }

    pub(super) fn reshape(&mut self, shape: WindowShape) {
        let mut other = Self::new(shape);
        if (other.width, other.late) == (self.width, self.late) {
            return;
        }
        let first = self.first_recent() - self.old.len() as i64;
        let own = self.old.iter().map(|slot| slot.moments()).chain(self.recent.iter().copied());
        for (pane, moments) in (first..).zip(own).skip(self.stacked as usize).filter(|(_, moments)| moments.count() > 0) {
            let time = if pane == self.pane { self.newest } else { (pane + 1).saturating_mul(self.width) - 1 };
            other.insert_moments(time.div_euclid(other.width), time, moments);
        }
        *self = other;
    }

    /// The first and the last pane of `bounds`.
    #[inline]
    fn panes(&self, bounds: Bounds) -> (i64, i64) {
        (self.pane_of(bounds.after, self.head_from.wrapping_sub(1)) + 1, self.pane_of(bounds.upto, self.pane))
    }

    /// The pane of `time`, without a division where it is the one expected.
    #[inline]
    fn pane_of(&self, time: i64, expected: i64) -> i64 {
        let inside = expected
            .checked_mul(self.width)
            .and_then(|start| time.checked_sub(start))
            .is_some_and(|since| (0..self.width).contains(&since));
        if inside { expected } else { time.div_euclid(self.width) }
    }

    fn current(&self) -> Moments {
        self.recent.back().copied().unwrap_or_default()
    }

    fn first_recent(&self) -> i64 {
        self.pane + 1 - self.recent.len() as i64
    }

    fn insert_moments(&mut self, pane: i64, time: i64, moments: Moments) -> bool {
        if self.recent.is_empty() {
            self.start(pane);
        } else if pane < self.pane {
            return self.insert_late(pane, moments);
        } else if pane > self.pane {
            self.move_to(pane);
        }
        self.newest = if self.current().count() == 0 { time } else { self.newest.max(time) };
        if let Some(current) = self.recent.back_mut() {
            *current = current.merge(moments);
        }
        true
    }

    fn insert_late(&mut self, pane: i64, moments: Moments) -> bool {
        if pane < self.pane - i64::from(self.late) {
            return false;
        }
        // Only a series that is younger than its lateness has panes within it that are not there yet.
        while pane < self.first_recent() {
            self.reserve_recent();
            self.recent.push_front(Moments::EMPTY);
        }
        let i = (pane - self.first_recent()) as usize;
        self.recent[i] = self.recent[i].merge(moments);
        self.tail = self.tail.merge(moments);
        if pane >= self.head_from {
            self.head = self.head.merge(moments);
        }
        true
    }

    fn start(&mut self, pane: i64) {
        self.pane = pane;
        self.recent.clear();
        self.old.clear();
        self.stacked = 0;
        self.head_from = i64::MIN;
        self.tail = Moments::EMPTY;
        self.reserve_recent();
        self.recent.push_back(Moments::EMPTY);
    }

    /// Begins the panes up to `pane`.
    fn move_to(&mut self, pane: i64) {
        if pane.saturating_sub(self.pane) > PANES + i64::from(self.late) {
            return self.start(pane);
        }
        while self.pane < pane {
            self.make_room();
            let current = self.current();
            self.tail = self.tail.merge(current);
            if self.head_from != i64::MIN {
                self.head = self.head.merge(current);
            }
            if self.recent.len() > self.late as usize
                && let Some(moments) = self.recent.pop_front()
            {
                self.make_old(moments);
            }
            self.reserve_recent();
            self.recent.push_back(Moments::EMPTY);
            self.pane += 1;
        }
    }

    /// Drops the oldest pane where the next one to get old finds no room. It must not be part of `tail` then.
    fn make_room(&mut self) {
        if self.old.len() == OLD && self.recent.len() > self.late as usize {
            if self.stacked == 0 {
                self.flip();
            }
            self.old.pop_front();
            self.stacked -= 1;
        }
    }

    /// Takes a pane in that `recent` has just given up.
    fn make_old(&mut self, moments: Moments) {
        if self.old.len() == self.old.capacity() {
            self.old.reserve_exact(self.old.len().max(4).min(OLD - self.old.len()));
        }
        self.old.push_back(Slot::new(moments));
    }

    fn reserve_recent(&mut self) {
        let len = self.recent.len();
        if len == self.recent.capacity() {
            self.recent.reserve_exact(if len == 0 { 1 } else { len.max(3).min((self.late as usize + 1).saturating_sub(len).max(1)) });
        }
    }

    /// The sum from `from` to the newest pane, without it.
    fn sum_head(&mut self, from: i64) -> Moments {
        let first_recent = self.first_recent();
        if from >= first_recent || self.old.is_empty() {
            return self.sum(from, self.pane - 1);
        }
        let i = (from - first_recent + self.old.len() as i64).max(0) as usize;
        if i >= self.stacked as usize {
            if self.old.len() - i < 8 {
                return self.sum(from, self.pane - 1);
            }
            self.flip();
        }
        self.old[i].moments().merge(self.tail)
    }

    /// Stacks every old pane.
    fn flip(&mut self) {
        let own = self.stacked as usize;
        let mut sum = Moments::EMPTY;
        for slot in self.old.range_mut(own..).rev() {
            sum = slot.moments().merge(sum);
            *slot = Slot::new(sum);
        }
        // Suffixes up to the last split reach the new one by what lies between.
        for slot in self.old.range_mut(..own) {
            *slot = Slot::new(slot.moments().merge(sum));
        }
        self.stacked = self.old.len() as u32;
        let closed = self.recent.len().saturating_sub(1);
        self.tail = self.recent.range(..closed).fold(Moments::EMPTY, |sum, moments| sum.merge(*moments));
    }

    /// The sum of the panes from `from` to `upto`, both included; none where `upto` cuts
    /// the old ones.
    fn sum(&self, from: i64, upto: i64) -> Moments {
        let first_recent = self.first_recent();
        let mut sum = Moments::EMPTY;
        if upto < first_recent - 1 {
            return sum;
        }
        if from < first_recent && !self.old.is_empty() {
            let (i, own) = ((from.saturating_sub(first_recent) + self.old.len() as i64).max(0) as usize, self.stacked as usize);
            if i < own {
                sum = self.old[i].moments();
            }
            sum = self.old.range(i.max(own)..).fold(sum, |sum, slot| sum.merge(slot.moments()));
        }
        let start = (from.max(first_recent) - first_recent) as usize;
        let end = (upto - first_recent + 1) as usize;
        if start < end { self.recent.range(start..end).fold(sum, |sum, moments| sum.merge(*moments)) } else { sum }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.recent.len() as u64);
        self.recent.iter().for_each(|moments| moments.encode(out));
        put_varint(out, self.old.len() as u64);
        for slot in &self.old {
            put_f64(out, slot.mean);
            out.extend_from_slice(&slot.root.to_le_bytes());
            out.extend_from_slice(&slot.count.to_le_bytes());
        }
        put_varint(out, u64::from(self.stacked));
        self.tail.encode(out);
        self.head.encode(out);
        for n in [self.head_from, self.pane, self.newest] {
            put_i64(out, n);
        }
    }

    pub(super) fn decode(shape: WindowShape, from: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut window = Self::new(shape);
        let n_recent = take_count(from, 24)?;
        window.recent.reserve_exact(n_recent);
        for _ in 0..n_recent {
            window.recent.push_back(Moments::decode(from)?);
        }
        let n_old = take_count(from, 16)?;
        window.old.reserve_exact(n_old);
        for _ in 0..n_old {
            let (mean, root, count) = (take_finite(from)?, u32::from_le_bytes(take_array(from)?), u32::from_le_bytes(take_array(from)?));
            window.old.push_back(Slot { mean, root: root.min(LARGEST_ROOT), count });
        }
        window.stacked = u32::try_from(take_varint(from)?).map_err(|_| undecodable("stacked panes"))?;
        window.tail = Moments::decode(from)?;
        window.head = Moments::decode(from)?;
        (window.head_from, window.pane, window.newest) = (take_i64(from)?, take_i64(from)?, take_i64(from)?);
        let fits = n_recent <= window.late as usize + 1 && n_old <= OLD && (n_recent > 0 || n_old == 0) && window.stacked as usize <= n_old;
        if fits && window.newest.div_euclid(window.width) <= window.pane { Ok(window) } else { Err(undecodable("a window's panes")) }
    }
}

/// The upper 32 of the 63 bits of the largest finite f64.
const LARGEST_ROOT: u32 = (f64::MAX.to_bits() >> 31) as u32;

/// The moments of a pane that no late sample reaches any more, in 16 bytes.
///
/// The spread is kept as the root of the mean squared deviation, in the sign-less upper 32 bits of an f64: the whole range
/// of numbers, with 21 bits behind the point. So it is off by at most 2^-22 relatively, the variance by 2^-21 (4.8e-7); below
/// 2e-308 by 5e-315. Of more than 4.29e9 samples the count stays there.
#[derive(Clone, Copy, Debug)]
struct Slot {
    mean: f64,
    root: u32,
    count: u32,
}

impl Slot {
    fn new(moments: Moments) -> Self {
        // Rounded to the nearest; no sign bit, so 63 bits come in.
        let root = ((moments.root().to_bits() + (1 << 30)) >> 31) as u32;
        Self { mean: moments.mean(), root: root.min(LARGEST_ROOT), count: moments.count().min(u64::from(u32::MAX)) as u32 }
    }

    fn moments(self) -> Moments {
        Moments::from_root(f64::from(self.count), self.mean, f64::from_bits(u64::from(self.root) << 31))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_the_spread_within_their_bound() {
        for exponent in -1020..1023 {
            for k in 0..50 {
                let root = f64::from_bits(((exponent + 1023) as u64) << 52) * (1.0 + f64::from(k) * 0.019_937);
                let back = Slot::new(Moments::from_root(7.0, 3.0, root)).moments();
                assert!((back.root() / root - 1.0).abs() <= 2.0f64.powi(-22) * 1.000_001, "{root}");
                assert_eq!((back.count(), back.mean()), (7, 3.0));
            }
        }
        assert!(Slot::new(Moments::from_root(2.0, 0.0, f64::MAX)).moments().root().is_finite());
        assert_eq!(Slot::new(Moments::one(0.1)).moments(), Moments::one(0.1));
    }
}
