//! What a detector says about a value.

use crate::params::{DetectorParams, Params};

/// What came of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The window holds too few samples to judge by.
    TooFew,
    /// As expected, or a deviation that does not count.
    Normal,
    /// An anomaly.
    Anomaly,
}

impl Verdict {
    /// The name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooFew => "too_few",
            Self::Normal => "normal",
            Self::Anomaly => "anomaly",
        }
    }
}

/// How strong an anomaly is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Severity {
    /// From the threshold on.
    Warning,
    /// From [`Params::critical_from`] on.
    Critical,
}

impl Severity {
    /// The name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// The side of what is expected on which a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Above, or exactly there.
    High,
    /// Below.
    Low,
}

impl Side {
    /// The name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Low => "low",
        }
    }
}

/// The verdict on one value, and what it rests on. Every number is finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// What came of it.
    pub verdict: Verdict,
    /// The samples in the window; the value itself is not among them.
    pub count: u64,
    /// Their mean; 0 for none.
    pub mean: f64,
    /// Their standard deviation (n − 1), 0 where the window is constant (at most 1e-12 of the magnitude); 0 for fewer than two.
    pub stddev: f64,
    /// The value that was expected: the mean (`zscore`) or the median (`percentile`); of too few samples the mean.
    pub expected: f64,
    /// The lower end of the band in which a value is normal; `expected` of too few samples.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
    /// The deviation in standard deviations (or what stands for them), from a detector that works by them; clamped to ±`f64::MAX`.
    pub z_score: Option<f64>,
    /// The detector's measure divided by its threshold, 0 or more; 0 of too few samples. It does not say whether the
    /// deviation counts: `direction` and `min_deviation` show only in the verdict.
    pub strength: f64,
}

impl Judgement {
    /// `1 − 2^(−strength)`, in [0, 1]: 0.5 at the threshold, 0.75 at twice the threshold, whatever the detector.
    pub fn score(&self) -> f64 {
        1.0 - libm::exp2(-self.strength)
    }

    /// How strong the anomaly is; `None` for what is none.
    pub fn severity(&self, params: &Params) -> Option<Severity> {
        let critical = match (params.detector, self.z_score) {
            (DetectorParams::Zscore { .. }, Some(z)) => z.abs() >= params.critical_from(),
            _ => self.strength >= params.critical_factor,
        };
        (self.verdict == Verdict::Anomaly).then_some(if critical { Severity::Critical } else { Severity::Warning })
    }

    /// The side on which `value` lies.
    pub fn direction(&self, value: f64) -> Side {
        if value < self.expected { Side::Low } else { Side::High }
    }

    /// That of too few samples.
    pub(crate) const fn too_few(count: u64, mean: f64, stddev: f64) -> Self {
        Self { verdict: Verdict::TooFew, count, mean, stddev, expected: mean, lower: mean, upper: mean, z_score: None, strength: 0.0 }
    }
}
