//! Ids that nothing has had.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use anomaly_engine::hash_text;
use xxhash_rust::xxh3::xxh3_128;

use crate::clock;

/// An id of 32 hexadecimal digits: hashed from the time, the process, a count, and what the system gives at random, since processes
/// in containers all have the same number.
pub fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let random = RandomState::new().hash_one(0);
    let parts = [clock::now().nanos() as u64, u64::from(std::process::id()), COUNT.fetch_add(1, Ordering::Relaxed), random];
    hash_text(xxh3_128(&parts.map(u64::to_le_bytes).concat()))
}
