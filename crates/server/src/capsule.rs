//! An incident in a box: the samples that led to it, the configuration, and what was found, as one JSON file that gives the same
//! verdict anywhere.

use std::fmt::Write as _;

use anomaly_engine::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Record};
use anomaly_engine::parse::parse_time;
use anomaly_engine::{Engine, EngineConfig, Event, NANOS, Outputs, SeriesKey, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::points::Point;

/// What the first member says.
const FORMAT: &str = "anomaly-capsule/1";
/// The most samples of a capsule.
pub const MOST_SAMPLES: usize = 1_000_000;
/// By how much two numbers may differ, relative to the larger: sums over the same samples in another order do.
const TOLERANCE: f64 = 1e-9;
/// What an anomaly has of the place where it was found: a replay has others.
const OF_THE_PLACE: [&str; 6] = ["id", "incident_id", "event_id", "detected_at", "source", "meta"];

/// A capsule as it is read.
#[derive(Debug, Deserialize)]
pub struct Capsule {
    format: String,
    /// The version of anomaly that wrote it.
    pub version: String,
    config: EngineConfig,
    /// The series' name.
    pub series: String,
    /// Its incident's id.
    pub incident: String,
    samples: Vec<(Box<RawValue>, f64)>,
    anomalies: Vec<Value>,
}

/// Why a capsule cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum CapsuleError {
    #[error("it is no capsule of an incident (GET /incidents/ID/capsule writes one): {0}")]
    NotACapsule(serde_json::Error),
    #[error("it has the format {0:?}, this version of anomaly reads {FORMAT:?}: use a newer anomaly")]
    OtherFormat(String),
    #[error("{0:?} is not the name of a series")]
    BadSeries(String),
    #[error("sample {0} has no time that can be read: {1}")]
    BadTime(usize, String),
    #[error("its samples cannot be judged: {0}")]
    Engine(#[from] anomaly_engine::DecodeError),
}

/// A member in which a replay differs: its name, what was recorded, what was found.
pub type Difference = (String, Value, Value);

/// What a replay found.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// The recorded anomalies, each with where the replay differs.
    pub anomalies: Vec<(Value, Vec<Difference>)>,
    /// How many samples there were.
    pub samples: usize,
}

impl Replay {
    /// Whether every verdict is the same.
    pub fn is_same(&self) -> bool {
        !self.anomalies.is_empty() && self.anomalies.iter().all(|(_, differences)| differences.is_empty())
    }
}

/// From when on samples may bear on an anomaly at `first`: the window, its edge where it is made of panes, and late ones.
pub fn reach(config: &EngineConfig, key: &SeriesKey, first: Timestamp) -> Timestamp {
    let window = config.settings_of(key).window_seconds;
    let seconds = window * 1.05 + config.allowed_lateness_seconds;
    first.plus(-((seconds * NANOS as f64) as i64).saturating_add(1))
}

/// Writes a capsule: `anomalies` are those of the incident as the API writes them, `points` in the order of arrival.
pub fn write(config: &EngineConfig, key: &SeriesKey, incident: &str, anomalies: &[&str], points: &[Point], at: Timestamp) -> String {
    let text = |text: &str| Value::from(text).to_string();
    let mut out = String::new();
    let _ = write!(
        out,
        "{{\"format\":{},\"version\":{},\"exported_at\":{at},\"series\":{},\"incident\":{},\"config\":{},\n\"anomalies\":[{}],\n\"samples\":[",
        text(FORMAT),
        text(env!("CARGO_PKG_VERSION")),
        text(&key.name()),
        text(incident),
        config.to_text(),
        anomalies.join(",\n")
    );
    for (i, point) in points.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\n[{},{}]", point.timestamp, Value::from(point.value));
    }
    out.push_str("]}\n");
    out
}

/// Reads a capsule.
///
/// # Errors
/// Bytes that are none, or one of a newer version.
pub fn read(bytes: &[u8]) -> Result<Capsule, CapsuleError> {
    #[derive(Deserialize)]
    struct Format {
        format: String,
    }
    let Format { format } = serde_json::from_slice(bytes).map_err(CapsuleError::NotACapsule)?;
    if format != FORMAT {
        return Err(CapsuleError::OtherFormat(format));
    }
    serde_json::from_slice(bytes).map_err(CapsuleError::NotACapsule)
}

impl Capsule {
    /// Judges the samples anew, under the configuration of the capsule, and compares what is found with what was recorded.
    ///
    /// # Errors
    /// A capsule that was changed by hand, so that it makes no sense.
    pub fn replay(&self) -> Result<Replay, CapsuleError> {
        debug_assert_eq!(self.format, FORMAT, "`read` has looked");
        let key = SeriesKey::parse(&self.series).ok_or_else(|| CapsuleError::BadSeries(self.series.clone()))?;
        let (metric, labels) = (key.metric(), key.labels());
        let mut batch = BatchBuilder::new();
        let mut last = Timestamp::default();
        for (i, (time, value)) in self.samples.iter().enumerate() {
            let timestamp = parse_time(time.get()).map_err(|fault| CapsuleError::BadTime(i + 1, fault.to_string()))?;
            last = last.max(timestamp);
            batch.push(&Event { metric, labels: &labels, timestamp, value: *value, id: None, meta: None }, i as u64 + 1);
        }
        let mut engine = Engine::new(self.config.clone(), 1);
        let mut outputs = Outputs::default();
        let mut frame = FrameBuilder::new(last);
        frame.push(&Record::Events(batch.finish(Origin::http())));
        let bytes = frame.seal(1);
        engine.apply(&Frame::open(1, &bytes)?, &mut outputs)?;
        let found: Vec<Value> = outputs
            .anomalies
            .iter()
            .map(|anomaly| {
                let mut json = String::new();
                anomaly.write_json(&mut json, last);
                serde_json::from_str(&json).unwrap_or_default()
            })
            .collect();
        let same_sample = |a: &Value, b: &Value| a["timestamp"] == b["timestamp"] && a["value"] == b["value"];
        let anomalies = self.anomalies.iter().map(|recorded| {
            let differences = match found.iter().find(|one| same_sample(one, recorded)) {
                Some(one) => differences(recorded, one),
                None => vec![("verdict".to_owned(), "anomaly".into(), "no anomaly".into())],
            };
            (recorded.clone(), differences)
        });
        Ok(Replay { anomalies: anomalies.collect(), samples: self.samples.len() })
    }
}

/// The members in which two anomalies differ, with the values of both.
fn differences(recorded: &Value, found: &Value) -> Vec<Difference> {
    let (Some(recorded), Some(found)) = (recorded.as_object(), found.as_object()) else { return Vec::new() };
    let null = Value::Null;
    let pairs = recorded.iter().map(|(name, value)| (name, value, found.get(name).unwrap_or(&null)));
    pairs
        .filter(|(name, a, b)| !OF_THE_PLACE.contains(&name.as_str()) && !is_same(a, b))
        .map(|(name, a, b)| (name.clone(), a.clone(), b.clone()))
        .collect()
}

fn is_same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::points::Verdict;

    fn point(seconds: f64, value: f64) -> Point {
        let timestamp = Timestamp::from_nanos((seconds * 1e9) as i64);
        let (count, mean, stddev, expected, lower, upper, z_score, strength) = (0, 0.0, 0.0, 0.0, 0.0, 0.0, None, 0.0);
        Point { timestamp, value, verdict: Verdict::Normal, count, mean, stddev, expected, lower, upper, z_score, strength }
    }

    /// A capsule of ordinary samples, one of them out of order, and then one that fires.
    fn capsule() -> (String, usize) {
        let key = SeriesKey::new("cpu", &[("dc", "e\"u")]);
        let config = EngineConfig::default();
        let mut points: Vec<_> = (0..20).map(|i| point(100.0 + f64::from(i), 50.0 + f64::from(i % 5) / 3.0)).collect();
        points.swap(10, 11);
        points.push(point(120.5, 95.0));
        let samples: Vec<_> = points.iter().map(|point| format!("[{},{:?}]", point.timestamp, point.value)).collect();
        let empty = write(&config, &key, "i", &[r#"{"timestamp":120.5,"value":95.0}"#], &points, Timestamp::from_seconds(1));
        let replay = read(empty.as_bytes()).unwrap().replay().unwrap();
        assert!(replay.is_same(), "what was not recorded cannot differ: {replay:?}");
        // What the engine says of them, as it was recorded.
        let mut engine = Engine::new(config.clone(), 1);
        let mut batch = BatchBuilder::new();
        for (line, point) in (1..).zip(&points) {
            let event =
                Event { metric: "cpu", labels: &[("dc", "e\"u")], timestamp: point.timestamp, value: point.value, id: None, meta: None };
            batch.push(&event, line);
        }
        let mut frame = FrameBuilder::new(Timestamp::from_seconds(500));
        frame.push(&Record::Events(batch.finish(Origin::http())));
        let mut outputs = Outputs::default();
        engine.apply(&Frame::open(1, &frame.seal(1)).unwrap(), &mut outputs).unwrap();
        let mut body = String::new();
        outputs.anomalies[0].write_json(&mut body, Timestamp::from_seconds(500));
        (write(&config, &key, "i", &[&body], &points, Timestamp::from_seconds(1)), samples.len())
    }

    #[test]
    fn a_capsule_gives_the_same_verdict() {
        let (text, n) = capsule();
        let replay = read(text.as_bytes()).unwrap().replay().unwrap();
        assert!(replay.is_same(), "{replay:?}");
        assert_eq!((replay.samples, replay.anomalies.len()), (n, 1));
    }

    #[test]
    fn what_was_changed_is_told() {
        let (text, _) = capsule();
        let told = |text: &str| {
            let replay = read(text.as_bytes()).unwrap().replay().unwrap();
            assert!(!replay.is_same());
            replay.anomalies[0].1.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>()
        };
        let names = told(&text.replace("\n[100,50.0],", ""));
        assert!(names.contains(&"count".to_owned()) && names.contains(&"explanation".to_owned()), "{names:?}");
        assert_eq!(told(&text.replace("[120.5,95.0]", "[120.5,51.0]")), ["verdict"]);
        assert_eq!(
            told(&text.replace("\"threshold\":3.0,\"min_count\":5,\"detector\"", "\"threshold\":300.0,\"min_count\":5,\"detector\"")),
            ["verdict"]
        );
    }

    #[test]
    fn what_is_no_capsule_is_refused() {
        for text in ["", "{}", "[1]", "{\"format\":\"anomaly-capsule/1\"}"] {
            assert!(matches!(read(text.as_bytes()), Err(CapsuleError::NotACapsule(_))), "{text}");
        }
        let (text, _) = capsule();
        let newer = read(text.replace("capsule/1", "capsule/2").as_bytes()).unwrap_err();
        assert!(newer.to_string().contains("anomaly-capsule/2"), "{newer}");
        let bad = read(text.replace("[100,50.0]", "[\"x\",50.0]").as_bytes()).unwrap().replay().unwrap_err();
        assert!(bad.to_string().starts_with("sample 1 "), "{bad}");
    }
}
