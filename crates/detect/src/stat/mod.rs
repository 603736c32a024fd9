//! The statistics, each in one place.

mod moments;
mod sorted;

pub use moments::Moments;
pub(crate) use sorted::SortedValues;
