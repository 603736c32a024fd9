//! What people are told, as plain data, and the words for it that all channels share: what, where, since when, how far off,
//! and one link. No I/O. What is returned is as `words` makes it: no name of a metric breaks a line or turns the direction of
//! writing.

use std::fmt::Write as _;

use anomaly_detect::text;
use anomaly_engine::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::words::{clock, clock_seconds, counted, instant, lasting, number, plain_id, shortened, tame};
use crate::points::Point;
use crate::store::severity;

/// The most characters of a series' name in a sentence.
const NAME_CHARS: usize = 120;
/// The most characters of an explanation.
const EXPLANATION_CHARS: usize = 400;

/// Something to tell.
#[derive(Clone, Debug)]
pub struct Message {
    /// What has happened.
    pub kind: Kind,
    /// When it was decided to tell it.
    pub at: Timestamp,
    /// Of what, first mover first; at least one, but none in a digest.
    pub incidents: Vec<Fact>,
    /// The same in all messages that follow up one: the id of the incident that moved first in it. Empty in a digest.
    pub key: String,
    /// The account of a digest.
    pub digest: Option<Digest>,
    /// Where people reach the dashboard, without a slash at the end.
    pub base_url: String,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Incidents began.
    Opened,
    /// A warning became critical.
    Escalated,
    /// What was resolved has come back.
    Reopened,
    /// It still goes on.
    Repeated,
    /// Somebody looks after it.
    Acknowledged,
    /// It is over.
    Resolved,
    /// An account of what was not told one by one.
    Digest,
    /// Somebody tries whether a channel works.
    Test,
}

/// One incident.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Its id.
    pub id: String,
    /// Its series, as DESIGN §4 writes them.
    pub series: String,
    /// The series' metric.
    pub metric: String,
    /// The series' labels, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Event time of its first anomaly.
    pub start: Timestamp,
    /// Event time of its last one.
    pub end: Timestamp,
    /// Anomalies.
    pub count: u64,
    /// Whether any of them was critical.
    pub critical: bool,
    /// The strongest: an anomaly as the API writes it.
    pub peak: Value,
    /// The samples around it, for a chart; may be none.
    pub points: Vec<Point>,
}

/// An account of what was not told one by one.
#[derive(Clone, Debug)]
pub struct Digest {
    /// From when on.
    pub since: Timestamp,
    /// Incidents.
    pub incidents: u64,
    /// Their anomalies.
    pub anomalies: u64,
    /// Those of the incidents that were of data older than `NOTIFY_MAX_AGE_SECONDS`.
    pub old: u64,
    /// The worst series first, at most 10.
    pub series: Vec<Worst>,
    /// How many series there were in all.
    pub n_series: u64,
}

/// A series in a digest.
#[derive(Clone, Debug)]
pub struct Worst {
    /// Its name.
    pub series: String,
    /// Its incidents.
    pub incidents: u64,
    /// Their anomalies.
    pub anomalies: u64,
    /// Whether any of them was critical.
    pub critical: bool,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 8] =
        [Self::Opened, Self::Escalated, Self::Reopened, Self::Repeated, Self::Acknowledged, Self::Resolved, Self::Digest, Self::Test];

    /// As it is stored and answered.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Escalated => "escalated",
            Self::Reopened => "reopened",
            Self::Repeated => "repeated",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
            Self::Digest => "digest",
            Self::Test => "test",
        }
    }

    /// The kind of such a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The type of a webhook: `incident.opened`, `digest`, `test`.
    pub fn event(self) -> String {
        match self {
            Self::Digest | Self::Test => self.as_str().to_owned(),
            _ => format!("incident.{}", self.as_str()),
        }
    }
}

impl Message {
    /// The one line that must be enough: `[critical] api_latency_ms{dc="eu"}: 95, expected 54.5 ± 8.84`.
    pub fn subject(&self) -> String {
        let tag = self.tag();
        if let Some(digest) = self.digest.as_ref().filter(|_| self.kind == Kind::Digest) {
            return format!("[{tag}] {}", digest.headline());
        }
        let Some(first) = self.incidents.first() else { return format!("[{tag}] nothing") };
        let name = first.name();
        let lead = match self.kind {
            Kind::Escalated => "now critical: ",
            Kind::Reopened => "back again: ",
            Kind::Repeated => "still going on: ",
            Kind::Test => "a trial, all is well: ",
            _ => "",
        };
        let n = self.incidents.len() as u64;
        let ended = matches!(self.kind, Kind::Acknowledged | Kind::Resolved);
        match (n, ended) {
            (1, false) => format!("[{tag}] {lead}{name}: {}", first.deviation()),
            (1, true) => format!("[{tag}] {name}: {}", first.course()),
            (_, false) => format!("[{tag}] {lead}{} series since {}, first {name}", text::count(n), clock(self.start())),
            (_, true) => format!("[{tag}] {} series, first {name}", text::count(n)),
        }
    }

    /// What stands in brackets: the severity, or what has become of it.
    pub fn tag(&self) -> &'static str {
        match self.kind {
            Kind::Acknowledged | Kind::Resolved | Kind::Digest | Kind::Test => self.kind.as_str(),
            _ => self.severity(),
        }
    }

    /// The highest severity of what it tells.
    pub fn severity(&self) -> &'static str {
        let of_series = self.digest.iter().flat_map(|digest| &digest.series).any(|worst| worst.critical);
        severity(of_series || self.incidents.iter().any(|fact| fact.critical))
    }

    /// What is not told one by one where `listed` incidents are: the others, and the series that a digest does not name.
    pub fn unlisted(&self, listed: usize) -> u64 {
        self.incidents.len().saturating_sub(listed) as u64 + self.digest.as_ref().map_or(0, Digest::unlisted)
    }

    /// When the first of its incidents began; of a digest, from when on it counts.
    pub fn start(&self) -> Timestamp {
        let first = self.incidents.iter().map(|fact| fact.start).min();
        first.or(self.digest.as_ref().map(|digest| digest.since)).unwrap_or(self.at)
    }

    /// The one link: the incident that moved first; of a digest and of a trial the dashboard.
    pub fn link(&self) -> String {
        self.incidents
            .first()
            .filter(|_| self.kind != Kind::Test)
            .map_or_else(|| format!("{}/", self.base_url), |fact| fact.link(&self.base_url))
    }

    /// What is said of a message before its incidents, in a sentence; empty where the subject says it all.
    pub fn lead(&self) -> String {
        let n = self.incidents.len();
        let several = n > 1;
        match self.kind {
            Kind::Opened if several => {
                format!("{n} series went wrong together. {} moved first.", self.first_name())
            }
            Kind::Opened | Kind::Digest => String::new(),
            Kind::Escalated => "What began as a warning is critical now.".into(),
            Kind::Reopened => "It was over, and has come back.".into(),
            Kind::Repeated => "It still goes on, and nobody has acknowledged it.".into(),
            Kind::Acknowledged => "Somebody looks after it.".into(),
            Kind::Resolved => "It is over.".into(),
            Kind::Test => "Somebody tries whether messages arrive here: they do. Nothing is wrong; the incident below is made up.".into(),
        }
    }

    fn first_name(&self) -> String {
        self.incidents.first().map_or_else(String::new, Fact::name)
    }
}

impl Fact {
    /// Its series, in a sentence: short enough and without characters that do harm.
    pub fn name(&self) -> String {
        shortened(&tame(&self.series), NAME_CHARS)
    }

    /// `warning` or `critical`.
    pub fn severity(&self) -> &'static str {
        severity(self.critical)
    }

    /// How far off it was: `95, expected 54.5 ± 8.84`, `95, expected 12 to 63.3`.
    pub fn deviation(&self) -> String {
        let number = |name: &str| self.peak.get(name).and_then(Value::as_f64);
        let Some(value) = number("value").map(text::number) else { return self.course() };
        let (Some(expected), Some(lower), Some(upper)) = (number("expected"), number("lower"), number("upper")) else { return value };
        let (below, above) = (expected - lower, upper - expected);
        let even = below.is_finite() && above.is_finite() && (below - above).abs() <= 1e-6 * (below.abs() + above.abs());
        if even {
            format!("{value}, expected {} ± {}", text::number(expected), text::spread(above))
        } else {
            format!("{value}, expected {} to {}", text::number(lower), text::number(upper))
        }
    }

    /// The detector's sentence on the strongest anomaly.
    pub fn explanation(&self) -> String {
        let sentence = self.peak.get("explanation").and_then(Value::as_str).unwrap_or_default();
        shortened(&tame(sentence), EXPLANATION_CHARS)
    }

    /// How long it went on and how much of it there was: `14 anomalies in 12 min`.
    pub fn course(&self) -> String {
        let many = counted(self.count, "anomaly", "anomalies");
        let nanos = self.end.since(self.start);
        if nanos > 0 { format!("{many} in {}", lasting(nanos)) } else { many }
    }

    /// When it began: `2026-11-27 03:12:05 UTC`, and where it has a course, until when.
    pub fn when(&self) -> String {
        let start = instant(self.start);
        if self.end > self.start { format!("{start}, last at {}", clock_seconds(self.start, self.end)) } else { start }
    }

    /// Where it is seen.
    pub fn link(&self, base_url: &str) -> String {
        format!("{base_url}/#incident={}", plain_id(&self.id))
    }

    /// What is known of its source: the `host` of its labels or of what came along.
    pub fn host(&self) -> Option<String> {
        const NAMES: [&str; 3] = ["host", "instance", "service"];
        let label = |name: &str| self.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let meta = |name: &str| self.peak.get("meta").and_then(|meta| meta.get(name)).and_then(Value::as_str).map(str::to_owned);
        NAMES.iter().find_map(|name| label(name).or_else(|| meta(name))).map(|host| shortened(&tame(&host), NAME_CHARS))
    }

    /// As JSON, complete but for its points, its times in epoch seconds as everywhere in the API.
    pub fn to_json(&self, base_url: &str) -> Value {
        let labels: serde_json::Map<_, _> = self.labels.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        serde_json::json!({
            "id": self.id,
            "series": self.series,
            "metric": self.metric,
            "labels": labels,
            "start": number(self.start),
            "end": number(self.end),
            "count": self.count,
            "severity": self.severity(),
            "peak": self.peak,
            "url": self.link(base_url),
        })
    }
}

impl Digest {
    /// `120 incidents of 5 series since 03:12 UTC, most in api_latency_ms{dc="eu"}`.
    pub fn headline(&self) -> String {
        let incidents = counted(self.incidents, "incident", "incidents");
        let mut line = format!("{incidents} of {} series since {}", text::count(self.n_series), clock(self.since));
        if let Some(worst) = self.series.first() {
            let _ = write!(line, ", worst {}", worst.name());
        }
        line
    }

    /// The account in full sentences.
    pub fn account(&self) -> String {
        let be = if self.incidents == 1 { "was" } else { "were" };
        let incidents = counted(self.incidents, "incident", "incidents");
        let anomalies = counted(self.anomalies, "anomaly", "anomalies");
        let mut out = format!(
            "Since {} there {be} {incidents} with {anomalies} in {} series that you were not told of one by one.",
            instant(self.since),
            text::count(self.n_series)
        );
        if self.old > 0 {
            let _ = write!(out, " {} of them are of data that was old when it arrived.", text::count(self.old));
        }
        out
    }

    /// How many series are not listed.
    pub fn unlisted(&self) -> u64 {
        self.n_series.saturating_sub(self.series.len() as u64)
    }
}

impl Worst {
    /// Its series, in a sentence.
    pub fn name(&self) -> String {
        shortened(&tame(&self.series), NAME_CHARS)
    }

    /// `critical, 3 incidents, 1,440 anomalies`.
    pub fn counts(&self) -> String {
        let incidents = counted(self.incidents, "incident", "incidents");
        let anomalies = counted(self.anomalies, "anomaly", "anomalies");
        format!("{}, {incidents}, {anomalies}", severity(self.critical))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use anomaly_engine::NANOS;

    use super::*;
    use crate::notify::words::{harmful, rfc3339};

    /// 2026-11-27 03:12:05 UTC.
    pub(crate) const AT: Timestamp = Timestamp::from_seconds(1_795_749_125);

    /// An incident of such a series.
    pub(crate) fn fact(id: &str, metric: &str, labels: &[(&str, &str)], critical: bool) -> Fact {
        let mut fact = Fact::example(AT);
        let key = anomaly_engine::SeriesKey::new(metric, labels);
        fact.id = id.into();
        fact.series = key.name();
        fact.metric = metric.into();
        fact.labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        fact.critical = critical;
        fact
    }

    /// A message of such incidents.
    pub(crate) fn message(kind: Kind, incidents: Vec<Fact>) -> Message {
        let key = incidents.first().map_or_else(String::new, |fact| fact.id.clone());
        Message { kind, at: AT, incidents, key, digest: None, base_url: "https://anomaly.example.org".into() }
    }

    /// A digest.
    pub(crate) fn digest() -> Message {
        let worst = |series: &str, incidents, critical| Worst { series: series.into(), incidents, anomalies: 40 * incidents, critical };
        let series = vec![worst("api_latency_ms{dc=\"eu\"}", 3, true), worst("cpu", 1, false)];
        let digest = Digest { since: AT.plus(-3600 * NANOS), incidents: 14, anomalies: 1440, old: 10, series, n_series: 5 };
        Message {
            kind: Kind::Digest,
            at: AT,
            incidents: vec![],
            key: String::new(),
            digest: Some(digest),
            base_url: "https://anomaly.example.org".into(),
        }
    }

    /// Names with which somebody wants something else than to name.
    pub(crate) fn hostile() -> Vec<Fact> {
        let long = "x".repeat(255);
        vec![
            fact(
                "1",
                "cpu\r\nBcc: everybody@example.org\r\n\r\n<script>alert(1)</script>",
                &[("dc", "\"><img src=x onerror=alert(1)>")],
                true,
            ),
            fact("2", "<!channel> *bold* <https://evil.example|click> & `code`", &[("a\nb", "c\u{2028}d\0")], false),
            fact("3", "\u{202e}gnp.exe\u{2066}\u{200b}", &[("סדרה", "قيمة")], true),
            fact("4", &long, &[("l", &"y".repeat(255))], false),
        ]
    }

    fn one(kind: Kind) -> Message {
        message(kind, vec![fact("1c", "api_latency_ms", &[("dc", "eu")], true)])
    }

    #[test]
    fn a_subject_says_what_where_and_how_far_off() {
        for (kind, subject) in [
            (Kind::Opened, "[critical] api_latency_ms{dc=\"eu\"}: 95, expected 54.5 ± 8.84"),
            (Kind::Escalated, "[critical] now critical: api_latency_ms{dc=\"eu\"}: 95, expected 54.5 ± 8.84"),
            (Kind::Reopened, "[critical] back again: api_latency_ms{dc=\"eu\"}: 95, expected 54.5 ± 8.84"),
            (Kind::Repeated, "[critical] still going on: api_latency_ms{dc=\"eu\"}: 95, expected 54.5 ± 8.84"),
            (Kind::Acknowledged, "[acknowledged] api_latency_ms{dc=\"eu\"}: 3 anomalies in 30 s"),
            (Kind::Resolved, "[resolved] api_latency_ms{dc=\"eu\"}: 3 anomalies in 30 s"),
            (Kind::Test, "[test] a trial, all is well: api_latency_ms{dc=\"eu\"}: 95, expected 54.5 ± 8.84"),
        ] {
            assert_eq!(one(kind).subject(), subject);
        }
        let mut several = message(Kind::Opened, (0..4).map(|i| fact(&i.to_string(), &format!("m{i}"), &[], i == 2)).collect());
        assert_eq!(several.subject(), "[critical] 4 series since 03:11 UTC, first m0");
        assert_eq!(several.lead(), "4 series went wrong together. m0 moved first.");
        several.kind = Kind::Resolved;
        assert_eq!(several.subject(), "[resolved] 4 series, first m0");
        assert_eq!(digest().subject(), "[digest] 14 incidents of 5 series since 02:12 UTC, worst api_latency_ms{dc=\"eu\"}");
    }

    #[test]
    fn a_band_that_is_not_even_is_told_by_its_ends_and_what_is_missing_is_left_out() {
        let mut fact = fact("1", "m", &[], false);
        fact.peak = serde_json::json!({"value": 95.0, "expected": 50.0, "lower": 12.0, "upper": 63.3});
        assert_eq!(fact.deviation(), "95, expected 12 to 63.3");
        fact.peak = serde_json::json!({"value": 1.5e9, "expected": null});
        assert_eq!((fact.deviation().as_str(), fact.explanation().as_str()), ("1.5e9", ""));
        fact.peak = Value::Null;
        assert_eq!(fact.deviation(), "3 anomalies in 30 s");
    }

    #[test]
    fn links_lead_to_the_incident() {
        assert_eq!(one(Kind::Opened).link(), "https://anomaly.example.org/#incident=1c");
        assert_eq!(
            (digest().link().as_str(), one(Kind::Test).link().as_str()),
            ("https://anomaly.example.org/", "https://anomaly.example.org/")
        );
        let odd = fact("a\"><b>\r\n", "m", &[], true);
        assert_eq!(odd.link("http://x"), "http://x/#incident=ab");
    }

    #[test]
    fn no_name_breaks_a_line_or_turns_the_writing() {
        for kind in Kind::ALL {
            for fact in hostile() {
                let message = message(kind, vec![fact]);
                for text in [message.subject(), message.lead(), message.incidents[0].name(), message.incidents[0].explanation()] {
                    assert!(!text.chars().any(harmful), "{text:?}");
                }
                assert!(message.subject().chars().count() < 300, "{}", message.subject());
            }
        }
        assert_eq!(tame("a\r\nb\u{202e}c\td"), "a\\r\\nb\\u{202e}c\\td");
        assert_eq!(tame("größe 数 קצב"), "größe 数 קצב");
    }

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!((shortened("abcdefgh", 8).as_str(), shortened("abcdefghi", 8).as_str()), ("abcdefgh", "abcd…ghi"));
        assert_eq!(hostile()[3].name().chars().count(), NAME_CHARS);
    }

    #[test]
    fn times_are_said_as_people_and_programs_read_them() {
        assert_eq!((instant(AT).as_str(), rfc3339(AT).as_str()), ("2026-11-27 03:12:05 UTC", "2026-11-27T03:12:05Z"));
        assert_eq!(rfc3339(AT.plus(250_000_000)), "2026-11-27T03:12:05.25Z");
        assert_eq!(number(AT.plus(500_000_000)).to_string(), "1795749125.5");
        let mut fact = fact("1", "m", &[], true);
        assert_eq!(fact.when(), "2026-11-27 03:11:35 UTC, last at 03:12:05");
        fact.end = AT.plus(86_400 * NANOS);
        assert_eq!(fact.when(), "2026-11-27 03:11:35 UTC, last at 2026-11-28 03:12:05 UTC");
        for (seconds, words) in [(0, "less than 1 s"), (90, "90 s"), (720, "12 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")] {
            assert_eq!(lasting(seconds * NANOS), words);
        }
    }

    #[test]
    fn kinds_have_names() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.as_str()), Some(kind));
        }
        assert_eq!((Kind::Opened.event().as_str(), Kind::Digest.event().as_str()), ("incident.opened", "digest"));
    }

    #[test]
    fn a_digest_accounts_for_what_was_not_sent() {
        let message = digest();
        let digest = message.digest.unwrap();
        assert_eq!(
            digest.account(),
            "Since 2026-11-27 02:12:05 UTC there were 14 incidents with 1440 anomalies in 5 series that you were not told of one by one. \
             10 of them are of data that was old when it arrived."
        );
        assert_eq!((digest.unlisted(), digest.series[0].counts().as_str()), (3, "critical, 3 incidents, 120 anomalies"));
    }
}
