//! What a detector is told to do.

use serde::{Deserialize, Serialize};

use crate::codec::put_f64;
use crate::detector::percentile;
use crate::window::WindowKind;

/// The detectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DetectorKind {
    /// The distance from the window's mean in standard deviations.
    Zscore,
    /// Outside the window's percentiles.
    Percentile,
}

impl DetectorKind {
    /// The name in configuration and in anomalies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zscore => "zscore",
            Self::Percentile => "percentile",
        }
    }

    /// The detector of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Zscore, Self::Percentile].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Which deviations count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Those above and those below what is expected.
    #[default]
    Both,
    /// Only those above.
    High,
    /// Only those below.
    Low,
}

impl Direction {
    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::High => "high",
            Self::Low => "low",
        }
    }

    /// The direction of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Both, Self::High, Self::Low].into_iter().find(|direction| direction.as_str() == name)
    }
}

/// The parameters of one detector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DetectorParams {
    /// [`DetectorKind::Zscore`].
    Zscore {
        /// An anomaly is so many standard deviations from the mean, or more. Positive; default 3.
        threshold: f64,
        /// In a constant window the deviation is divided by this part of the mean. 0 or more; default 1e-3.
        rel_floor: f64,
        /// The deviation is divided by no less, in the values' unit. 0 or more; default 0.
        min_stddev: f64,
    },
    /// [`DetectorKind::Percentile`].
    Percentile {
        /// An anomaly is below this percentile. 0 (the smallest value) or from 0.001 to below 50; default 1.
        low: f64,
        /// Or above this one. Above 50, to 99.999, or 100 (the largest value); default 99.
        high: f64,
    },
}

impl DetectorParams {
    /// A detector's defaults.
    pub const fn default_of(kind: DetectorKind) -> Self {
        match kind {
            DetectorKind::Zscore => Self::Zscore { threshold: 3.0, rel_floor: 1e-3, min_stddev: 0.0 },
            DetectorKind::Percentile => Self::Percentile { low: 1.0, high: 99.0 },
        }
    }
}

/// What one series is judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// The detector and its own parameters.
    pub detector: DetectorParams,
    /// With fewer samples in the window nothing is judged. At least 1; default 5. See [`Params::enough`].
    pub min_count: u32,
    /// Which deviations count; default both.
    pub direction: Direction,
    /// A value nearer than this to what is expected never fires; in the values' unit, 0 or more, default 0.
    pub min_deviation: f64,
    /// An anomaly is critical from so many times the threshold. At least 1; default 2.
    pub critical_factor: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self::default_of(DetectorKind::Zscore)
    }
}

/// A parameter outside its domain.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ParamError {
    /// See [`DetectorParams::Zscore`].
    #[error("threshold must be a positive number, got {0}")]
    Threshold(f64),
    /// See [`DetectorParams::Zscore`].
    #[error("rel_floor must be 0 or a positive number, got {0}")]
    RelFloor(f64),
    /// See [`DetectorParams::Zscore`].
    #[error("min_stddev must be 0 or a positive number, got {0}")]
    MinStddev(f64),
    /// See [`DetectorParams::Percentile`].
    #[error("low must be 0 or from 0.001 to below 50, got {0}")]
    Low(f64),
    /// See [`DetectorParams::Percentile`].
    #[error("high must be above 50, to 99.999, or 100, got {0}")]
    High(f64),
    /// See [`Params::min_count`].
    #[error("min_count must be at least 1, got {0}")]
    MinCount(u32),
    /// See [`Params::min_deviation`].
    #[error("min_deviation must be 0 or a positive number, got {0}")]
    MinDeviation(f64),
    /// See [`Params::critical_factor`].
    #[error("critical_factor must be a number from 1 on, got {0}")]
    CriticalFactor(f64),
}

impl Params {
    /// The defaults with that detector.
    pub const fn default_of(kind: DetectorKind) -> Self {
        Self {
            detector: DetectorParams::default_of(kind),
            min_count: 5,
            direction: Direction::Both,
            min_deviation: 0.0,
            critical_factor: 2.0,
        }
    }

    /// Checks every domain.
    ///
    /// # Errors
    /// The first parameter outside its domain. A detector given such parameters does not panic, but what it says is worth nothing.
    pub fn validate(&self) -> Result<(), ParamError> {
        let not_negative = |x: f64| x >= 0.0 && x.is_finite();
        match self.detector {
            DetectorParams::Zscore { threshold, rel_floor, min_stddev } => {
                check(threshold > 0.0 && threshold.is_finite(), ParamError::Threshold(threshold))?;
                check(not_negative(rel_floor), ParamError::RelFloor(rel_floor))?;
                check(not_negative(min_stddev), ParamError::MinStddev(min_stddev))?;
            }
            DetectorParams::Percentile { low, high } => {
                check(low == 0.0 || (0.001..50.0).contains(&low), ParamError::Low(low))?;
                check(high == 100.0 || (high > 50.0 && high <= 99.999), ParamError::High(high))?;
            }
        }
        check(self.min_count >= 1, ParamError::MinCount(self.min_count))?;
        check(not_negative(self.min_deviation), ParamError::MinDeviation(self.min_deviation))?;
        check(self.critical_factor >= 1.0 && self.critical_factor.is_finite(), ParamError::CriticalFactor(self.critical_factor))
    }

    /// Which detector.
    pub const fn kind(&self) -> DetectorKind {
        match self.detector {
            DetectorParams::Zscore { .. } => DetectorKind::Zscore,
            DetectorParams::Percentile { .. } => DetectorKind::Percentile,
        }
    }

    /// Whether the detector can work on such a window: percentiles need every sample.
    pub const fn supports(&self, kind: WindowKind) -> bool {
        matches!((self.kind(), kind), (DetectorKind::Zscore, _) | (_, WindowKind::Exact))
    }

    /// The detector's measure from which on a value is an anomaly: standard deviations for `zscore`; 1 for `percentile`,
    /// whose measure is the distance from the median in units of the percentile's.
    pub const fn threshold(&self) -> f64 {
        match self.detector {
            DetectorParams::Zscore { threshold, .. } => threshold,
            DetectorParams::Percentile { .. } => 1.0,
        }
    }

    /// The measure from which on an anomaly is critical.
    pub fn critical_from(&self) -> f64 {
        (self.threshold() * self.critical_factor).min(f64::MAX)
    }

    /// The count of samples from which on the detector judges: `min_count`, and for `percentile` at least as many as put
    /// one sample beyond each percentile (100 for the 1st and the 99th).
    pub fn enough(&self) -> u32 {
        match self.detector {
            DetectorParams::Zscore { .. } => self.min_count,
            DetectorParams::Percentile { low, high } => self.min_count.max(percentile::meaningful_count(low, high)),
        }
    }

    /// Appends the parameters in canonical bytes: equal parameters, equal bytes. They are hashed into anomalies' ids, so
    /// they never change for a detector that exists.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self.detector {
            DetectorParams::Zscore { threshold, rel_floor, min_stddev } => {
                out.push(0);
                [threshold, rel_floor, min_stddev].iter().for_each(|x| put_f64(out, x + 0.0));
            }
            DetectorParams::Percentile { low, high } => {
                out.push(1);
                [low, high].iter().for_each(|x| put_f64(out, x + 0.0));
            }
        }
        out.extend_from_slice(&self.min_count.to_le_bytes());
        out.push(match self.direction {
            Direction::Both => 0,
            Direction::High => 1,
            Direction::Low => 2,
        });
        // Plus 0 turns −0 into 0.
        put_f64(out, self.min_deviation + 0.0);
        put_f64(out, self.critical_factor);
    }
}

fn check(holds: bool, error: ParamError) -> Result<(), ParamError> {
    if holds { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_faults_name_the_value() {
        let zscore = Params::default();
        let percentile = Params::default_of(DetectorKind::Percentile);
        assert_eq!((zscore.validate(), percentile.validate()), (Ok(()), Ok(())));
        assert_eq!((zscore.enough(), percentile.enough(), zscore.critical_from()), (5, 100, 6.0));
        assert!(!percentile.supports(WindowKind::Panes) && zscore.supports(WindowKind::Panes) && percentile.supports(WindowKind::Exact));
        let faulty = [
            (Params { min_count: 0, ..zscore }, "min_count must be at least 1, got 0"),
            (Params { critical_factor: 0.5, ..zscore }, "critical_factor must be a number from 1 on, got 0.5"),
            (Params { min_deviation: f64::NAN, ..zscore }, "min_deviation must be 0 or a positive number, got NaN"),
            (
                Params { detector: DetectorParams::Zscore { threshold: 0.0, rel_floor: 0.0, min_stddev: 0.0 }, ..zscore },
                "threshold must be a positive number, got 0",
            ),
            (
                Params { detector: DetectorParams::Percentile { low: 60.0, high: 99.0 }, ..zscore },
                "low must be 0 or from 0.001 to below 50, got 60",
            ),
        ];
        for (params, message) in faulty {
            assert_eq!(params.validate().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn every_parameter_shows_in_the_bytes() {
        let bytes = |params: Params| {
            let mut out = Vec::new();
            params.encode(&mut out);
            out
        };
        let p = Params::default();
        let others = [
            Params { min_count: 6, ..p },
            Params { direction: Direction::High, ..p },
            Params { min_deviation: 1.0, ..p },
            Params { critical_factor: 3.0, ..p },
            Params { detector: DetectorParams::Zscore { threshold: 3.5, rel_floor: 1e-3, min_stddev: 0.0 }, ..p },
            Params::default_of(DetectorKind::Percentile),
        ];
        assert!(others.iter().all(|other| bytes(*other) != bytes(p)));
        assert_eq!(bytes(Params { min_deviation: -0.0, ..p }), bytes(p));
    }
}
