//! What the benchmarks share: seeded data, interleaved measuring, and the table that they print.
//!
//! The benchmarks are in `benches/`, one for each group of goals; `make bench` runs them and what needs a running server.
//! Peers that are not Rust are in `peers/`. Nothing here is asserted in a test: the table says what was met.

mod fleet;
mod measure;
mod peer;
mod pipeline;
mod report;
mod rng;

pub use fleet::{Fleet, Named, Order, Sample};
pub use measure::{Contestant, cheapest, cpu_time, timed};
pub use peer::peer;
pub use pipeline::{Pipeline, exact, panes};
pub use report::{Need, Row, grouped};
pub use rng::Rng;

/// The allocator of the server, so that what is measured here allocates as it does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
