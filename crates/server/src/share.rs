//! Which series an owner is for: all of them, or those of one partition of the log.

use anomaly_engine::SeriesHash;
use anomaly_engine::frame::partition_of;
use serde::{Deserialize, Serialize};

/// One partition of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub partition: u32,
    pub of: u32,
}

impl Share {
    /// All series.
    pub const WHOLE: Self = Self { partition: 0, of: 1 };

    /// Every share of a log of so many partitions.
    pub fn all(of: u32) -> impl Iterator<Item = Self> {
        (0..of).map(move |partition| Self { partition, of })
    }

    /// Whether a series is in it.
    pub fn holds(self, series: SeriesHash) -> bool {
        partition_of(series, self.of) == self.partition
    }

    /// The name under which its owner notes what each notes for itself.
    pub fn field(self, name: &str) -> String {
        if self.of == 1 { name.to_owned() } else { format!("{name}:{}", self.partition) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_series_is_in_one_share() {
        assert!(Share::WHOLE.holds(7) && Share::WHOLE.field("late") == "late");
        for series in [0, 1 << 40, u128::MAX] {
            assert_eq!(Share::all(7).filter(|share| share.holds(series)).count(), 1);
        }
        assert_eq!(Share { partition: 3, of: 7 }.field("late"), "late:3");
    }
}
