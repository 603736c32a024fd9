//! What the engine says of an event, and how it is written.

use std::fmt::Write as _;

use anomaly_detect::{Explanation, Judgement, Severity};
use xxhash_rust::xxh3::xxh3_128;

use crate::config::Settings;
use crate::frame::Position;
use crate::json_text::{push_f64, push_optional_f64, push_str};
use crate::series_key::{SeriesHash, SeriesKey};
use crate::timestamp::Timestamp;

/// The engine's word on one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It fired.
    Anomaly,
    /// It did not.
    Normal,
    /// The window before it holds too few samples.
    TooFew,
    /// It came too late to be judged.
    Late,
}

impl Verdict {
    /// As it is written: `anomaly`, `normal`, `too_few`, `late`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anomaly => "anomaly",
            Self::Normal => "normal",
            Self::TooFew => "too_few",
            Self::Late => "late",
        }
    }
}

impl From<anomaly_detect::Verdict> for Verdict {
    fn from(verdict: anomaly_detect::Verdict) -> Self {
        match verdict {
            anomaly_detect::Verdict::Anomaly => Self::Anomaly,
            anomaly_detect::Verdict::Normal => Self::Normal,
            anomaly_detect::Verdict::TooFew => Self::TooFew,
        }
    }
}

/// Any event with the numbers on which its verdict rests: enough to draw and to explain it. `Copy`, 120 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where it stands in the log.
    pub position: Position,
    /// Its series.
    pub series: SeriesHash,
    /// Event time.
    pub timestamp: Timestamp,
    /// Its value.
    pub value: f64,
    /// What was said of it.
    pub verdict: Verdict,
    /// On what it rests; of a late event all 0.
    pub judgement: Judgement,
}

/// An event that fired. All of it but `source` and `event_id` is the same offline, live and recovered.
#[derive(Clone, Debug, PartialEq)]
pub struct Anomaly {
    /// Where the event stands in the log; anomalies are numbered in this order.
    pub position: Position,
    /// The same after any replay: see [`anomaly_id`].
    pub id: u128,
    /// The series.
    pub key: SeriesKey,
    /// Event time.
    pub timestamp: Timestamp,
    /// The event's value.
    pub value: f64,
    /// On what the verdict rests.
    pub judgement: Judgement,
    /// What applied to the series.
    pub settings: Settings,
    /// How bad.
    pub severity: Severity,
    /// A JSON object, carried along.
    pub meta: Option<String>,
    /// The event's id, or the one made for it.
    pub event_id: Option<String>,
    /// The incident that it belongs to.
    pub incident: u128,
    /// Where it came from.
    pub source: String,
}

/// The id of an anomaly: a hash of its series, the timestamp of the first event since the series became known, the
/// ordinal of the event since then, its timestamp and value, and what applied to the series.
pub fn anomaly_id(key: &SeriesKey, first: Timestamp, ordinal: u64, at: Timestamp, value: f64, settings: &Settings) -> u128 {
    let mut bytes = Vec::with_capacity(key.as_bytes().len() + 128);
    bytes.extend_from_slice(key.as_bytes());
    for number in
        [first.nanos() as u64, ordinal, at.nanos() as u64, value.to_bits(), settings.shape.span as u64, settings.shape.kind as u64]
    {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    settings.params.encode(&mut bytes);
    xxh3_128(&bytes)
}

impl Anomaly {
    /// Appends the anomaly of DESIGN §6 as JSON on one line, without a line end.
    pub fn write_json(&self, out: &mut String, detected_at: Timestamp) {
        let told = Told {
            id: Some(self.id),
            verdict: None,
            severity: Some(self.severity),
            meta: self.meta.as_deref(),
            event_id: self.event_id.as_deref(),
            incident: Some(self.incident),
            detected_at: Some(detected_at),
            source: Some(&self.source),
        };
        let explanation = self.settings.params.explain(self.value, &self.judgement, self.settings.window_seconds);
        write(out, &self.key, &self.settings, (self.timestamp, self.value), &self.judgement, &explanation, &told);
    }
}

/// Appends what can be said of any point, fired or not: the anomaly's shape, null where only an anomaly has something,
/// and `verdict`.
pub fn write_explained(out: &mut String, key: &SeriesKey, settings: &Settings, point: &Point) {
    let told = Told {
        id: None,
        verdict: Some(point.verdict),
        severity: if point.verdict == Verdict::Anomaly { point.judgement.severity(&settings.params) } else { None },
        meta: None,
        event_id: None,
        incident: None,
        detected_at: None,
        source: None,
    };
    let explanation = match point.verdict {
        Verdict::Late => late_explanation(settings),
        _ => settings.params.explain(point.value, &point.judgement, settings.window_seconds),
    };
    write(out, key, settings, (point.timestamp, point.value), &point.judgement, &explanation, &told);
}

/// Why a late event has no verdict.
pub fn late_explanation(settings: &Settings) -> Explanation {
    let allowed = anomaly_detect::text::span(settings.shape.lateness as f64 / crate::NANOS as f64);
    Explanation {
        summary: "too late to be judged".into(),
        explanation: format!("it came more than {allowed} behind the newest event of its series, so it was not judged"),
        checks: vec![anomaly_detect::Check {
            name: "In time".into(),
            passed: false,
            detail: format!("more than the {allowed} of ALLOWED_LATENESS_SECONDS behind the newest event"),
        }],
    }
}

/// What an anomaly has and another point has not.
struct Told<'a> {
    id: Option<u128>,
    verdict: Option<Verdict>,
    severity: Option<Severity>,
    meta: Option<&'a str>,
    event_id: Option<&'a str>,
    incident: Option<u128>,
    detected_at: Option<Timestamp>,
    source: Option<&'a str>,
}

fn write(
    out: &mut String,
    key: &SeriesKey,
    settings: &Settings,
    (timestamp, value): (Timestamp, f64),
    judgement: &Judgement,
    explanation: &Explanation,
    told: &Told<'_>,
) {
    let params = &settings.params;
    let judged = judgement.verdict != anomaly_detect::Verdict::TooFew && told.verdict != Some(Verdict::Late);
    let any = judgement.count > 0;
    let number = |out: &mut String, name: &str, known: bool, x: f64| {
        out.push_str(name);
        push_optional_f64(out, known.then_some(x));
    };
    out.push_str("{\"id\":");
    push_hash(out, told.id);
    out.push_str(",\"series\":");
    push_str(out, &key.name());
    out.push_str(",\"metric\":");
    push_str(out, key.metric());
    out.push_str(",\"labels\":");
    push_labels(out, key);
    let _ = write!(out, ",\"timestamp\":{timestamp},\"value\":");
    push_f64(out, value);
    out.push_str(",\"detector\":");
    push_str(out, params.kind().as_str());
    number(out, ",\"score\":", true, if judged { judgement.score() } else { 0.0 });
    out.push_str(",\"z_score\":");
    push_optional_f64(out, judgement.z_score.filter(|_| judged));
    number(out, ",\"expected\":", judged, judgement.expected);
    number(out, ",\"lower\":", judged, judgement.lower);
    number(out, ",\"upper\":", judged, judgement.upper);
    number(out, ",\"mean\":", any, judgement.mean);
    number(out, ",\"stddev\":", any, judgement.stddev);
    let _ = write!(out, ",\"count\":{}", judgement.count);
    number(out, ",\"threshold\":", true, params.threshold());
    number(out, ",\"critical_from\":", true, params.critical_from());
    let _ = write!(out, ",\"min_count\":{}", params.enough());
    number(out, ",\"window_seconds\":", true, settings.window_seconds);
    out.push_str(",\"direction\":");
    push_optional_str(out, judged.then(|| judgement.direction(value).as_str()));
    out.push_str(",\"severity\":");
    push_optional_str(out, told.severity.map(Severity::as_str));
    out.push_str(",\"summary\":");
    push_str(out, &explanation.summary);
    out.push_str(",\"explanation\":");
    push_str(out, &explanation.explanation);
    out.push_str(",\"checks\":[");
    for (i, check) in explanation.checks.iter().enumerate() {
        out.push_str(if i == 0 { "{\"name\":" } else { ",{\"name\":" });
        push_str(out, &check.name);
        let _ = write!(out, ",\"passed\":{},\"detail\":", check.passed);
        push_str(out, &check.detail);
        out.push('}');
    }
    let _ = write!(out, "],\"meta\":{}", told.meta.unwrap_or("null"));
    out.push_str(",\"event_id\":");
    push_optional_str(out, told.event_id);
    out.push_str(",\"incident_id\":");
    push_hash(out, told.incident);
    match told.detected_at {
        Some(at) => _ = write!(out, ",\"detected_at\":{at}"),
        None => out.push_str(",\"detected_at\":null"),
    }
    out.push_str(",\"source\":");
    push_optional_str(out, told.source);
    if let Some(verdict) = told.verdict {
        out.push_str(",\"verdict\":");
        push_str(out, verdict.as_str());
    }
    out.push('}');
}

/// Appends the labels of a series as a JSON object.
pub fn push_labels(out: &mut String, key: &SeriesKey) {
    out.push('{');
    for (i, (name, value)) in key.labels().iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_str(out, name);
        out.push(':');
        push_str(out, value);
    }
    out.push('}');
}

fn push_optional_str(out: &mut String, text: Option<&str>) {
    match text {
        Some(text) => push_str(out, text),
        None => out.push_str("null"),
    }
}

fn push_hash(out: &mut String, hash: Option<u128>) {
    match hash {
        Some(hash) => _ = write!(out, "\"{}\"", hash_text(hash)),
        None => out.push_str("null"),
    }
}

/// A 128-bit hash as it is written in ids: 32 hexadecimal digits.
pub fn hash_text(hash: u128) -> String {
    format!("{hash:032x}")
}
