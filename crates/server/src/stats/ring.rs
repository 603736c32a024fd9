//! The last seconds (or hours) of a counter or a gauge. Nothing runs while nothing happens: slots are cleared when the
//! clock has passed them, on the next touch.

/// Sums of the last `N` steps of time; the newest is the step that is still running.
#[derive(Clone, Debug)]
pub(super) struct Sums<const N: usize> {
    slots: [u64; N],
    newest: u64,
}

impl<const N: usize> Default for Sums<N> {
    fn default() -> Self {
        Self { slots: [0; N], newest: 0 }
    }
}

impl<const N: usize> Sums<N> {
    /// Adds to the step `at`; a step older than the newest counts as the newest (clocks of two threads may differ by one).
    pub(super) fn add(&mut self, at: u64, n: u64) {
        self.advance(at);
        self.slots[(self.newest % N as u64) as usize] += n;
    }

    /// The `n` steps before `at`, oldest first, without the one that is running.
    pub(super) fn completed(&mut self, at: u64, n: usize) -> Vec<u64> {
        self.advance(at);
        let end = self.newest;
        (1..=n as u64).rev().map(|back| end.checked_sub(back).map_or(0, |step| self.slots[(step % N as u64) as usize])).collect()
    }

    /// The sum of the last `n` steps, the running one included.
    pub(super) fn recent(&mut self, at: u64, n: usize) -> u64 {
        self.advance(at);
        (0..n as u64).filter_map(|back| self.newest.checked_sub(back)).map(|step| self.slots[(step % N as u64) as usize]).sum()
    }

    fn advance(&mut self, at: u64) {
        let passed = at.saturating_sub(self.newest);
        for step in 1..=passed.min(N as u64) {
            self.slots[((self.newest + step) % N as u64) as usize] = 0;
        }
        self.newest = self.newest.max(at);
    }
}

/// A gauge at the end of each of the last `N` seconds.
#[derive(Clone, Debug)]
pub(super) struct Levels<const N: usize> {
    slots: [u64; N],
    newest: u64,
    level: u64,
}

impl<const N: usize> Default for Levels<N> {
    fn default() -> Self {
        Self { slots: [0; N], newest: 0, level: 0 }
    }
}

impl<const N: usize> Levels<N> {
    /// Sets the level from the second `at` on.
    pub(super) fn set(&mut self, at: u64, level: u64) {
        self.advance(at);
        self.level = level;
        self.slots[(self.newest % N as u64) as usize] = level;
    }

    /// The level at the end of the last `n` seconds, oldest first; the newest is the level now.
    pub(super) fn history(&mut self, at: u64, n: usize) -> Vec<u64> {
        self.advance(at);
        let end = self.newest;
        (0..n as u64).rev().map(|back| end.checked_sub(back).map_or(0, |second| self.slots[(second % N as u64) as usize])).collect()
    }

    fn advance(&mut self, at: u64) {
        for second in (self.newest + 1).max((at + 1).saturating_sub(N as u64))..=at {
            self.slots[(second % N as u64) as usize] = self.level;
        }
        self.newest = self.newest.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_told_by_second_and_forgotten_after_the_ring() {
        let mut sums = Sums::<4>::default();
        sums.add(10, 1);
        sums.add(10, 2);
        sums.add(12, 5);
        assert_eq!(sums.completed(13, 3), [3, 0, 5]);
        assert_eq!((sums.recent(13, 2), sums.recent(13, 4)), (5, 8));
        sums.add(9, 1);
        assert_eq!(sums.recent(13, 1), 1, "an older second counts as the running one");
        assert_eq!(sums.completed(1_000_000, 3), [0, 0, 0]);
    }

    #[test]
    fn a_level_lasts_until_it_changes() {
        let mut levels = Levels::<5>::default();
        levels.set(3, 7);
        levels.set(3, 8);
        levels.set(5, 1);
        assert_eq!(levels.history(6, 4), [8, 8, 1, 1]);
        assert_eq!(levels.history(1_000_003, 4), [1, 1, 1, 1]);
    }
}
