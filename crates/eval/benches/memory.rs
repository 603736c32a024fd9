//! Goal 5: bytes a series and bytes a retained sample, everything included.
//!
//! Measured from outside, as the growth of the process's resident memory while an engine takes series in: what the allocator
//! rounds up and the index over-allocates counts. Each case runs in a process of its own (this program calls itself), since
//! memory that one case has freed would serve the next. The buffers of a batch, 2 MB, count as well.

use std::process::Command;

use anomaly_engine::{EngineConfig, NANOS};
use anomaly_eval::{Fleet, Need, Order, Pipeline, Row, exact, panes};

const BATCH: usize = 10_000;

/// Name in the table, configuration, series, seconds between samples, samples that a window keeps.
type Case = (&'static str, fn() -> EngineConfig, u32, i64, i64);

const CASES: [Case; 4] = [
    // 72 panes of five seconds: 300 s of span and 60 s of lateness.
    ("panes", panes, 100_000, 5, 73),
    ("panes", panes, 1_000_000, 5, 73),
    ("exact, a sample a second", exact, 10_000, 1, 360),
    ("exact, a sample in ten seconds", exact, 100_000, 10, 36),
];

fn main() {
    match std::env::var("MEMORY_CASE").ok().and_then(|case| case.parse::<usize>().ok()) {
        Some(case) => report(case),
        None => {
            let program = std::env::current_exe().expect("the path of this program");
            for case in 0..CASES.len() {
                let status = Command::new(&program).env("MEMORY_CASE", case.to_string()).status().expect("this program runs");
                assert!(status.success());
            }
        }
    }
}

fn report(case: usize) {
    let (name, config, n_series, seconds, kept) = CASES[case];
    let mut pipeline = Pipeline::new(config());
    let mut fleet = Fleet::new(n_series, seconds * NANOS, Order::Steady);
    let before = resident();
    while fleet.now().since(fleet.start()) < (kept + 5) * seconds * NANOS {
        pipeline.take_named(&fleet.named(BATCH));
    }
    let grown = (resident() - before) as f64 / f64::from(n_series);
    let counted = pipeline.engine().state_bytes() as f64 / f64::from(n_series);
    let series = anomaly_eval::grouped(n_series.into());
    let (measured, beside) = (format!("{grown:.0} B a series"), format!("as the engine counts: {counted:.0} B"));
    if name == "panes" {
        let what = format!("{name}, {series} series, index included");
        Row { goal: 5, what, measured, beside, ratio: grown / 1536.0, need: Need::AtMost(1.0) }.print();
    } else {
        let what = format!("{name}, {series} series of {kept} retained samples");
        let need = if kept >= 300 { Need::AtMost(1.0) } else { Need::Nothing };
        let measured = format!("{measured}, {:.1} B a sample", grown / kept as f64);
        Row { goal: 5, what, measured, beside, ratio: grown / kept as f64 / 34.0, need }.print();
    }
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of resident memory");
    line.trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}
