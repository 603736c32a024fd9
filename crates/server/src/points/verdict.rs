//! Points between the engine's form and the drawn one.

use anomaly_engine::frame::Position;
use anomaly_engine::{Judgement, SeriesHash, Severity};

use super::{Point, Verdict};

impl Point {
    /// The point of an event that the engine has judged, `severity` where it fired.
    pub fn from_engine(point: &anomaly_engine::Point, severity: Option<Severity>) -> Self {
        let Judgement { count, mean, stddev, expected, lower, upper, z_score, strength, .. } = point.judgement;
        let verdict = match (point.verdict, severity) {
            (anomaly_engine::Verdict::Late, _) => Verdict::Late,
            (anomaly_engine::Verdict::TooFew, _) => Verdict::TooFew,
            (anomaly_engine::Verdict::Normal, _) => Verdict::Normal,
            (anomaly_engine::Verdict::Anomaly, Some(Severity::Critical)) => Verdict::Critical,
            (anomaly_engine::Verdict::Anomaly, _) => Verdict::Anomaly,
        };
        Self { timestamp: point.timestamp, value: point.value, verdict, count, mean, stddev, expected, lower, upper, z_score, strength }
    }

    /// The engine's form again, so that it can be explained.
    pub fn to_engine(self, series: SeriesHash) -> anomaly_engine::Point {
        let (verdict, judged) = match self.verdict {
            Verdict::Normal => (anomaly_engine::Verdict::Normal, anomaly_detect::Verdict::Normal),
            Verdict::Anomaly | Verdict::Critical => (anomaly_engine::Verdict::Anomaly, anomaly_detect::Verdict::Anomaly),
            Verdict::TooFew => (anomaly_engine::Verdict::TooFew, anomaly_detect::Verdict::TooFew),
            Verdict::Late => (anomaly_engine::Verdict::Late, anomaly_detect::Verdict::TooFew),
        };
        let Self { timestamp, value, count, mean, stddev, expected, lower, upper, z_score, strength, .. } = self;
        let judgement = Judgement { verdict: judged, count, mean, stddev, expected, lower, upper, z_score, strength };
        anomaly_engine::Point { position: Position::default(), series, timestamp, value, verdict, judgement }
    }
}
