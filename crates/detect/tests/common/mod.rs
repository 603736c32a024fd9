//! What the tests compare with: everything computed anew from a sorted list.
#![allow(dead_code, reason = "each test file uses its part")]

use anomaly_detect::{Bounds, Window, WindowKind, WindowShape};
use proptest::prelude::*;

pub(crate) const SECOND: i64 = 1_000_000_000;

pub(crate) fn shape(kind: WindowKind, span: i64, lateness: i64, max_samples: u32) -> WindowShape {
    WindowShape { kind, span: span * SECOND, lateness: lateness * SECOND, max_samples }
}

/// Count, mean and sample variance in two passes with Neumaier's compensated sums.
pub(crate) fn oracle(values: &[f64]) -> (u64, f64, f64) {
    let n = values.len() as f64;
    let Some(&first) = values.first() else { return (0, 0.0, 0.0) };
    let offset = neumaier(values.iter().map(|v| v - first)) / n;
    let m2 = neumaier(values.iter().map(|v| (v - first - offset) * (v - first - offset)));
    (values.len() as u64, first + offset, if n < 2.0 { 0.0 } else { m2 / (n - 1.0) })
}

fn neumaier(terms: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0f64, 0.0f64);
    for x in terms {
        let next = sum + x;
        lost += if sum.abs() >= x.abs() { (sum - next) + x } else { (x - next) + sum };
        sum = next;
    }
    sum + lost
}

pub(crate) fn relative(a: f64, b: f64) -> f64 {
    if a == b { 0.0 } else { (a - b).abs() / b.abs().max(a.abs()) }
}

/// The samples that a window should hold, in the order of time, then of arrival.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) shape: WindowShape,
    pub(crate) samples: Vec<(i64, f64)>,
    pub(crate) cut: Vec<i64>,
}

impl Model {
    pub(crate) fn new(shape: WindowShape) -> Self {
        Self { shape, samples: Vec::new(), cut: Vec::new() }
    }

    pub(crate) fn newest(&self) -> i64 {
        self.samples.last().map_or(i64::MIN, |sample| sample.0)
    }

    pub(crate) fn insert(&mut self, time: i64, value: f64) {
        let at = self.samples.partition_point(|sample| sample.0 <= time);
        self.samples.insert(at, (time, value));
        while self.shape.kind == WindowKind::Exact && self.samples.len() > self.shape.max_samples as usize {
            self.cut.push(self.samples.remove(0).0);
        }
    }

    pub(crate) fn within(&self, bounds: Bounds) -> Vec<f64> {
        let inside = |time: i64| match self.shape.kind {
            WindowKind::Exact => bounds.holds(time),
            WindowKind::Panes => {
                let width = (self.shape.span + 59) / 60;
                let pane = time.div_euclid(width);
                bounds.after.div_euclid(width) < pane && pane <= bounds.upto.div_euclid(width)
            }
        };
        self.samples.iter().filter(|sample| inside(sample.0)).map(|sample| sample.1).collect()
    }

    pub(crate) fn bounds(&self, upto: i64) -> Bounds {
        Bounds { after: upto - self.shape.span, upto }
    }
}

/// An arrival: nanoseconds since the newest (negative: late), and a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) step: i64,
    pub(crate) value: f64,
}

/// Mostly regular arrivals with ties, gaps of several windows and late ones, in units of a twentieth of the span and lateness.
pub(crate) fn arrivals(
    shape: WindowShape,
    values: impl Strategy<Value = f64>,
    n: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Arrival>> {
    let (span, late) = (shape.span, shape.lateness);
    let step = prop_oneof![
        12 => 0..=span / 20,
        3 => Just(0i64),
        1 => span / 2..=span * 3,
        6 => -late..=0,
        3 => -(late / 10)..=0,
    ];
    prop::collection::vec((step, values).prop_map(|(step, value)| Arrival { step, value }), n)
}

pub(crate) fn after_decode(window: &Window, shape: WindowShape) -> Window {
    let mut bytes = Vec::new();
    window.encode(&mut bytes);
    let mut rest = &bytes[..];
    let decoded = Window::decode(shape, &mut rest).expect("a state that encode wrote");
    assert!(rest.is_empty());
    decoded
}
