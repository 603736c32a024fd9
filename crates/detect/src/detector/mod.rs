//! The detectors: one file each, and what they share.

pub(crate) mod percentile;
mod zscore;

use percentile::PercentileState;

use crate::codec::{DecodeError, take_byte, undecodable};
use crate::explanation::Explanation;
use crate::judgement::{Judgement, Verdict};
use crate::params::{DetectorParams, Direction, Params};
use crate::stat::Moments;
use crate::window::{Bounds, Window};

/// A standard deviation, or a band, of at most this part of the magnitude is rounding: the window is constant.
const CONSTANT: f64 = 1e-12;

/// What stands for the measure of a change where every floor is 0: finite, and its score is 1.
const ANY_CHANGE: f64 = 1e300;

/// A detector's state for one series, beside the window.
///
/// | | zscore | percentile |
/// |---|---|---|
/// | memory | none | 8 to 16 B a sample in the window |
/// | a verdict in order | the window's moments and some 10 operations | and a search and a move within 512 values, for each sample that comes or goes |
/// | a late verdict | the window's | and as much for each sample by which its window differs from the last |
/// | works on | any window | exact windows |
///
/// An enum and not a trait: the engine holds a million of them, and the set is closed.
#[derive(Clone, Debug)]
pub struct Detector(State);

#[derive(Clone, Debug)]
enum State {
    Zscore,
    Percentile(Box<PercentileState>),
}

impl Detector {
    /// A detector afresh, which knows what the window holds. `params` decide which; it is for the caller to see that they
    /// are valid and [support][Params::supports] the window.
    pub fn new(params: &Params, window: &Window) -> Self {
        let _ = window; // Both detectors read the window when they judge.
        Self(match params.detector {
            DetectorParams::Zscore { .. } => State::Zscore,
            DetectorParams::Percentile { .. } => State::Percentile(Box::default()),
        })
    }

    /// Judges `value` by the samples of `window` in `bounds`. Neither inserts it nor counts it among them.
    ///
    /// May be asked for any bounds; in order (`bounds` that only move on) is the fast path.
    #[inline]
    pub fn judge(&mut self, params: &Params, window: &mut Window, bounds: Bounds, value: f64) -> Judgement {
        match (&mut self.0, params.detector) {
            (State::Percentile(state), DetectorParams::Percentile { low, high }) => state.judge(params, low, high, window, bounds, value),
            _ => zscore::judge(params, window.moments(bounds), value),
        }
    }

    /// Takes in a sample, in nanoseconds and the series' unit: into the window and the detector's own state. To be called once for
    /// each accepted event that is not too late, in the order of arrival, behind its verdict.
    #[inline]
    pub fn observe(&mut self, params: &Params, window: &mut Window, time: i64, value: f64) {
        let _ = params;
        match &mut self.0 {
            State::Zscore => {
                window.insert(time, value);
            }
            State::Percentile(state) => state.observe(window, time, value),
        }
    }

    /// Bytes on the heap, in constant time. May differ after a decode.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            State::Zscore => 0,
            State::Percentile(state) => size_of::<PercentileState>() + state.heap_bytes(),
        }
    }

    /// Appends the state that does not follow from the window's.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.0 {
            State::Zscore => 0,
            State::Percentile(_) => 1,
        });
    }

    /// Reads a state that a detector with these parameters wrote beside this window; every later judgement has the bits it
    /// would have had.
    ///
    /// # Errors
    /// Bytes that are no such state.
    pub fn decode(params: &Params, window: &Window, from: &mut &[u8]) -> Result<Self, DecodeError> {
        match (take_byte(from)?, params.detector) {
            (0, DetectorParams::Zscore { .. }) | (1, DetectorParams::Percentile { .. }) => Ok(Self::new(params, window)),
            _ => Err(undecodable("a detector of another kind")),
        }
    }
}

impl Params {
    /// Says in words, with numbers, why `value` got that judgement.
    ///
    /// `window_seconds` is the window's length. The parameters must be those that the judgement was made by.
    pub fn explain(&self, value: f64, judgement: &Judgement, window_seconds: f64) -> Explanation {
        match self.detector {
            DetectorParams::Zscore { .. } => zscore::explain(self, value, judgement, window_seconds),
            DetectorParams::Percentile { low, high } => percentile::explain(self, low, high, value, judgement, window_seconds),
        }
    }

    /// The verdict where the measure `fires`: whether a deviation to that side and of that size counts.
    #[inline]
    fn verdict(&self, fires: bool, value: f64, expected: f64) -> Verdict {
        let counts = self.direction_counts(value, expected) && (value - expected).abs() >= self.min_deviation;
        if fires && counts { Verdict::Anomaly } else { Verdict::Normal }
    }

    pub(crate) fn direction_counts(&self, value: f64, expected: f64) -> bool {
        match self.direction {
            Direction::Both => true,
            Direction::High => value >= expected,
            Direction::Low => value < expected,
        }
    }
}

/// The standard deviation as it is reported: 0 of a constant window.
#[inline]
fn reported_stddev(moments: Moments) -> f64 {
    let stddev = moments.stddev();
    if stddev <= CONSTANT * moments.mean().abs() { 0.0 } else { stddev }
}

/// `(a − b) ÷ divisor`, clamped where that is beyond f64; `divisor` positive.
#[inline]
fn ratio(a: f64, b: f64, divisor: f64) -> f64 {
    let d = a - b;
    let ratio = if d.is_finite() { d / divisor } else { (a * 0.25 - b * 0.25) / (divisor * 0.25) };
    ratio.clamp(-f64::MAX, f64::MAX)
}
