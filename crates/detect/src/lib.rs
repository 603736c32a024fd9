//! numbers in, scores out
mod codec;
mod stat;
mod window;
pub use codec::DecodeError;
pub use stat::Moments;
pub use window::{Bounds, Window, WindowKind, WindowShape};
