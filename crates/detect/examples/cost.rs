//! What an event and a sample cost: `cargo run --release --example cost -p anomaly-detect`.
//!
//! One series at 1 Hz in a window of 300 s with 60 s of lateness, so 300 samples judge and 360 are kept; then 10,000 such
//! series in turn, where cache misses are the cost. In nanoseconds for a verdict and its insertion.
#![expect(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout, reason = "measuring is what it is for")]

use std::hint::black_box;
use std::time::Instant;

use anomaly_detect::{Bounds, Detector, DetectorKind, Params, Window, WindowKind, WindowShape};

const SECOND: i64 = 1_000_000_000;

fn main() {
    let cases = [
        ("zscore, exact", DetectorKind::Zscore, WindowKind::Exact, 300, 0),
        ("zscore, exact, 20 samples", DetectorKind::Zscore, WindowKind::Exact, 20, 0),
        ("zscore, exact, 100,000 samples", DetectorKind::Zscore, WindowKind::Exact, 100_000, 0),
        ("zscore, exact, one in 10 late by 30 s", DetectorKind::Zscore, WindowKind::Exact, 300, 10),
        ("zscore, exact, 100,000, one in 10 late", DetectorKind::Zscore, WindowKind::Exact, 100_000, 10),
        ("zscore, panes", DetectorKind::Zscore, WindowKind::Panes, 300, 0),
        ("zscore, panes, lateness = span", DetectorKind::Zscore, WindowKind::Panes, 60, 0),
        ("zscore, panes, one in 10 late by 30 s", DetectorKind::Zscore, WindowKind::Panes, 300, 10),
        ("percentile, exact", DetectorKind::Percentile, WindowKind::Exact, 300, 0),
        ("percentile, exact, 100,000 samples", DetectorKind::Percentile, WindowKind::Exact, 100_000, 0),
    ];
    println!("{:42} {:>9} {:>12} {:>10} {:>9}", "", "1 series", "10k series", "B a series", "B/sample");
    let filter = std::env::args().nth(1).unwrap_or_default();
    for (name, detector, kind, span, late_every) in cases.into_iter().filter(|case| case.0.contains(&filter)) {
        let shape = WindowShape { kind, span: span * SECOND, lateness: 60 * SECOND, max_samples: 200_000 };
        let params = Params::default_of(detector);
        // The best of a hundred short ones: the others were disturbed by the machine's other work.
        let runs: Vec<_> = (0..100).map(|_| run(&params, shape, 1, 20_000.max(span * 2), late_every)).collect();
        let (mut one, bytes, samples) = runs[0];
        one = runs.iter().fold(one, |best, run| best.min(run.0));
        let many = if span <= 300 && std::env::args().len() < 3 {
            format!("{:.1}", run(&params, shape, 10_000, 600, late_every).0)
        } else {
            String::new()
        };
        println!("{name:42} {one:>9.1} {many:>12} {bytes:>10} {:>9.1}", bytes as f64 / samples as f64);
    }
    println!("inline: Window {} B, Detector {} B", size_of::<Window>(), size_of::<Detector>());
}

/// Nanoseconds an event of the later half, bytes of the last series, its samples.
fn run(params: &Params, shape: WindowShape, n_series: usize, n: i64, late_every: i64) -> (f64, usize, usize) {
    let mut series: Vec<(Window, Detector)> = (0..n_series)
        .map(|_| {
            let window = Window::new(shape);
            let detector = Detector::new(params, &window);
            (window, detector)
        })
        .collect();
    let mut noise = 1u64;
    let mut start = Instant::now();
    for i in 0..n {
        if i == n / 2 {
            start = Instant::now();
        }
        for (window, detector) in &mut series {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = 50.0 + (noise >> 40) as f64 / (1 << 24) as f64;
            let late = if late_every > 0 && i % late_every == 0 { 30 } else { 0 };
            let time = (i - late) * SECOND;
            black_box(&detector.judge(params, window, Bounds { after: time - shape.span, upto: time }, value));
            detector.observe(params, window, time, value);
        }
    }
    let elapsed = start.elapsed();
    let (window, detector) = &series[n_series - 1];
    let bytes = window.heap_bytes() + detector.heap_bytes() + size_of::<(Window, Detector)>();
    (elapsed.as_nanos() as f64 / ((n - n / 2) * n_series as i64) as f64, bytes, window.len())
}
