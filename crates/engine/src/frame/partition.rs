//! Partitions: a log in several parts, each numbered, kept and judged for itself.
//!
//! A series is in one of them for ever, so its events keep their order. The number of a frame says which partition it is in, so numbers,
//! positions and the ids made of them are unique in all.

use crate::series_key::SeriesHash;

/// The most partitions: numbers stay below 2^53, which JSON can tell.
pub const MAX_PARTITIONS: u32 = 1 << 13;
/// Frames of one partition.
const FRAMES: u64 = 1 << 40;

/// The partition of a series, of `of`. Fixed for ever, since it says where a series has been.
pub fn partition_of(series: SeriesHash, of: u32) -> u32 {
    // Other bits than those by which shards and tables divide series: what is in one partition is spread there.
    let mixed = (series as u64).rotate_left(32) ^ (series >> 64) as u64;
    ((u128::from(mixed) * u128::from(of)) >> 64) as u32
}

/// The number that a partition's frames follow.
pub fn base_of(partition: u32) -> u64 {
    u64::from(partition) * FRAMES
}

/// The partition that a frame is in.
pub fn partition_of_frame(number: u64) -> u32 {
    (number / FRAMES) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series_key::SeriesKey;

    #[test]
    fn series_are_spread_evenly_and_stay() {
        let mut counts = [0; 8];
        for i in 0..8000 {
            counts[partition_of(SeriesKey::new(&format!("cpu_{i}"), &[]).hash(), 8) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
        // What is written down somewhere must be found again.
        assert_eq!(["a", "b", "cpu_usage"].map(|name| partition_of(SeriesKey::new(name, &[]).hash(), 64)), [25, 19, 18]);
    }

    #[test]
    fn a_number_tells_its_partition() {
        for partition in [0, 1, 7, MAX_PARTITIONS - 1] {
            assert_eq!(
                (partition_of_frame(base_of(partition) + 1), partition_of_frame(base_of(partition) + FRAMES - 1)),
                (partition, partition)
            );
        }
        assert!(base_of(MAX_PARTITIONS) <= 1 << 53);
    }
}
