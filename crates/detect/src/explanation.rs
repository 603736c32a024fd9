//! Verdicts in words. What is particular to a detector stands in its file.

use crate::judgement::{Judgement, Severity, Verdict};
use crate::params::{Direction, Params};
use crate::text::{number, samples, span, zed};

/// Why a value got its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// A few words: `13.7 standard deviations above the last 5 min`.
    pub summary: String,
    /// A sentence without its full stop, with the numbers.
    pub explanation: String,
    /// What was looked at, in that order, and how it turned out. Where there were too few samples only that.
    pub checks: Vec<Check>,
}

/// One condition of a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The condition.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// With the numbers.
    pub detail: String,
}

impl Check {
    pub(crate) fn new(name: impl Into<String>, passed: bool, detail: impl Into<String>) -> Self {
        Self { name: name.into(), passed, detail: detail.into() }
    }
}

/// The words that detectors share.
pub(crate) struct Words<'a> {
    params: &'a Params,
    value: f64,
    judgement: &'a Judgement,
    /// `5 min`
    pub(crate) window: String,
    /// `20 samples (5 min)`
    pub(crate) samples: String,
}

impl<'a> Words<'a> {
    pub(crate) fn new(params: &'a Params, value: f64, judgement: &'a Judgement, window_seconds: f64) -> Self {
        let window = span(window_seconds);
        Self { params, value, judgement, samples: format!("{} ({window})", samples(judgement.count)), window }
    }

    pub(crate) fn too_few(&self) -> Explanation {
        let enough = self.enough();
        Explanation {
            summary: format!("{} in the last {}, needs {}", samples(self.judgement.count), self.window, self.params.enough()),
            explanation: enough.detail.clone(),
            checks: vec![enough],
        }
    }

    pub(crate) fn enough(&self) -> Check {
        let (n, needs) = (self.judgement.count, self.params.enough());
        let detail = format!("{} in the {} before, needs {}", samples(n), self.window, crate::text::count(u64::from(needs)));
        Check::new("Enough samples", n >= u64::from(needs), detail)
    }

    /// Summary and explanation for a window that was constant at `at`; values within `allowed` of it are normal.
    pub(crate) fn constant(&self, at: f64, fires: bool, allowed: f64) -> (String, String) {
        let (value, constant) = (number(self.value), number(at));
        if self.value == at {
            return (
                format!("{constant}, as all of the last {}", self.window),
                format!("{value} is the constant {constant} of the last {}", self.samples),
            );
        }
        let differs = format!("{value} differs from the constant {constant} of the last {}", self.samples);
        if fires {
            (format!("{value} after a constant {constant} in the last {}", self.window), differs)
        } else {
            let by = (self.value - at).abs().min(f64::MAX);
            (
                format!("within {} of a constant {constant} in the last {}", number(allowed), self.window),
                format!("{differs} by {}, within the {} that are allowed", number(by), number(allowed)),
            )
        }
    }

    /// Why a measure that fires makes no anomaly: the end of a sentence, or nothing.
    pub(crate) fn why_not(&self, fires: bool) -> String {
        if !fires || self.judgement.verdict == Verdict::Anomaly {
            String::new()
        } else if self.params.direction_counts(self.value, self.judgement.expected) {
            format!(", but a deviation of less than {} does not count", number(self.params.min_deviation))
        } else {
            format!(", but only {} count", self.counted())
        }
    }

    fn counted(&self) -> &'static str {
        match self.params.direction {
            Direction::Both => "deviations",
            Direction::High => "deviations upwards",
            Direction::Low => "deviations downwards",
        }
    }

    /// The checks of `direction` and `min_deviation`, where they are set.
    pub(crate) fn filters(&self) -> Vec<Check> {
        let (value, expected) = (self.value, self.judgement.expected);
        let mut checks = Vec::new();
        if self.params.direction != Direction::Both {
            let side = if value < expected { "below" } else { "above" };
            let detail = format!("{} is {side} {}; only {} count", number(value), number(expected), self.counted());
            let name = if self.params.direction == Direction::High { "Above what is expected" } else { "Below what is expected" };
            checks.push(Check::new(name, self.params.direction_counts(value, expected), detail));
        }
        if self.params.min_deviation > 0.0 {
            let deviation = (value - expected).abs();
            let detail = format!("{} from {} is {}", number(value), number(expected), number(deviation.min(f64::MAX)));
            checks.push(Check::new(
                format!("Deviation at least {}", number(self.params.min_deviation)),
                deviation >= self.params.min_deviation,
                detail,
            ));
        }
        checks
    }

    /// The check of severity; none for what is no anomaly. `unit` is what strength counts.
    pub(crate) fn critical(&self, name: String, unit: &str) -> Option<Check> {
        let critical = self.judgement.severity(self.params)? == Severity::Critical;
        let &Judgement { lower, upper, strength, .. } = self.judgement;
        let detail = if !critical {
            "so it is a warning".to_owned()
        } else if lower == upper {
            // A band without width has no multiples: the strength only stands for infinity.
            "any change of a constant is".to_owned()
        } else {
            format!("{} × {unit}", zed(strength))
        };
        Some(Check::new(name, critical, detail))
    }
}
