//! Late samples in an exact window.

use super::block::{BLOCK, Sample};
use super::exact::{ExactWindow, NONE};

impl ExactWindow {
    /// Inserts a sample that is older than the newest; false where it would be the first to be cut.
    pub(super) fn insert_late(&mut self, sample: Sample) -> bool {
        self.expires_after = i64::MIN;
        let mut b = self.blocks.partition_point(|block| block.first_time() <= sample.time).saturating_sub(1);
        if b == 0 {
            self.remove_hidden();
        }
        let mut i = self.blocks[b].position(sample.time);
        if (b, i) == (0, 0) && self.len == self.max_samples {
            self.note_cut(sample.time);
            return false;
        }
        let touched = b;
        let mut upto = b;
        if self.blocks[b].samples.len() == BLOCK {
            self.cut_block(b);
            upto = b + 1;
            if i > self.blocks[b].samples.len() {
                i -= self.blocks[b].samples.len();
                b += 1;
            }
        }
        let block = &mut self.blocks[b];
        let before = block.samples.capacity();
        block.grow(true);
        self.room += (block.samples.capacity() - before) as u32;
        block.insert(i, sample);
        self.resum(touched, upto, sample.value);
        true
    }

    /// Cuts a full block in two.
    fn cut_block(&mut self, b: usize) {
        let before = self.blocks[b].samples.capacity();
        let later = self.blocks[b].cut();
        self.room = self.room + (self.blocks[b].samples.capacity() + later.samples.capacity()) as u32 - before as u32;
        self.reserve_block();
        self.blocks.insert(b + 1, later);
        for index in [&mut self.split, &mut self.stacked_from] {
            *index += u32::from(*index as usize > b);
        }
        if self.front_block != NONE && self.front_block as usize > b {
            self.front_block += 1;
        }
    }

    /// Brings the sums up to date where `value` came into one of the blocks from `touched` to `upto`.
    fn resum(&mut self, touched: usize, upto: usize, value: f64) {
        if touched <= self.edge_block as usize {
            self.edge_block = NONE;
        }
        let last = self.blocks.len() - 1;
        for block in self.blocks.range_mut(touched..=upto) {
            block.sum();
        }
        if touched < self.split as usize {
            self.sum_suffixes(upto);
            self.front_block = NONE;
        } else {
            self.tail.push(value);
            if upto > touched {
                self.blocks[upto].run = self.blocks[touched].run.merge(self.blocks[touched].own);
            }
            for block in self.blocks.range_mut((upto + 1).min(last + 1)..) {
                block.run.push(value);
            }
        }
    }
}
