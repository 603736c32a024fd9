//! Measuring contestants side by side.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// One way to do the work: prepares its input, does the work once, and returns the time that the work alone took.
pub type Contestant<'a> = Box<dyn FnMut() -> Duration + 'a>;

/// Lets the contestants take turns for some rounds and returns the least time of each, in nanoseconds a unit.
///
/// They take turns so that a machine that is slow for a while is slow for all of them. The least counts because whatever
/// else the machine does can only add to it.
pub fn cheapest<const N: usize>(rounds: usize, units: usize, mut contestants: [Contestant<'_>; N]) -> [f64; N] {
    let mut least = [Duration::MAX; N];
    for _ in 0..rounds {
        for (contestant, least) in contestants.iter_mut().zip(&mut least) {
            *least = contestant().min(*least);
        }
    }
    least.map(|time| time.as_nanos() as f64 / units as f64)
}

/// The processor time that `work` takes in this thread: other work of the machine counts only by the caches that it fills.
pub fn cpu_time(work: impl FnOnce()) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let start = now();
    work();
    now() - start
}

/// The time that `work` takes, waiting included.
pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
