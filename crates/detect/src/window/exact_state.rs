//! The state of an exact window as bytes.

use super::block::{BLOCK, Block, Sample};
use super::exact::ExactWindow;
use super::{Bounds, WindowShape};
use crate::codec::{DecodeError, put_f64, put_i64, put_varint, take_count, take_finite, take_i64, take_varint, undecodable};
use crate::stat::Moments;

impl ExactWindow {
    /// Writes the samples by block, and those sums that depend on the order in which samples came. The rest follows from them.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.blocks.len() as u64);
        for n in [self.stacked_from, self.split, u32::from(self.hidden)] {
            put_varint(out, u64::from(n));
        }
        put_i64(out, self.cut.0);
        put_i64(out, self.cut.1);
        self.tail.encode(out);
        let mut time = 0i64;
        for (b, block) in self.blocks.iter().enumerate() {
            put_varint(out, block.samples.len() as u64);
            for sample in &block.samples {
                put_varint(out, sample.time.wrapping_sub(time) as u64);
                put_f64(out, sample.value);
                time = sample.time;
            }
            if b >= self.split as usize {
                block.run.encode(out);
            }
        }
    }

    pub(super) fn decode(shape: WindowShape, from: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut window = Self::new(shape);
        let n_blocks = take_count(from, 10)?;
        let mut small = || take_varint(from).and_then(|n| u32::try_from(n).map_err(|_| undecodable("a window's limits")));
        let hidden;
        (window.stacked_from, window.split, hidden) = (small()?, small()?, small()?);
        window.hidden = u8::try_from(hidden).map_err(|_| undecodable("a window's limits"))?;
        window.cut = (take_i64(from)?, take_i64(from)?);
        window.tail = Moments::decode(from)?;
        window.blocks.reserve_exact(n_blocks);
        let mut time = 0i64;
        for b in 0..n_blocks {
            let block = decode_block(&mut time, b == 0, from, b >= window.split as usize)?;
            window.len += block.samples.len() as u32;
            window.room += block.samples.capacity() as u32;
            window.blocks.push_back(block);
        }
        let first = window.blocks.front().map_or(0, |block| block.samples.len());
        let limits = window.stacked_from <= window.split && (window.split as usize) < n_blocks.max(1);
        if !limits || window.hidden as usize >= first.max(1) {
            return Err(undecodable("a window's limits"));
        }
        window.len -= hidden;
        for block in window.blocks.iter_mut().take(n_blocks.saturating_sub(1)) {
            block.sum();
        }
        if let Some(upto) = window.split.checked_sub(1) {
            window.sum_suffixes(upto as usize);
        }
        debug_assert!(window.peek(Bounds { after: i64::MIN, upto: i64::MAX }).count() <= u64::from(window.len));
        Ok(window)
    }
}

fn decode_block(time: &mut i64, first: bool, from: &mut &[u8], with_run: bool) -> Result<Block, DecodeError> {
    let n = take_count(from, 9)?;
    if n == 0 || n > BLOCK {
        return Err(undecodable("a block of samples"));
    }
    let mut block = Block::with_capacity(n.max(3));
    for i in 0..n {
        let step = take_varint(from)?;
        let next = time.wrapping_add(step as i64);
        if next < *time && !(first && i == 0) {
            return Err(undecodable("samples that are not in the order of time"));
        }
        *time = next;
        block.push(Sample { time: next, value: take_finite(from)? });
    }
    if with_run {
        block.run = Moments::decode(from)?;
    }
    Ok(block)
}
