//! Alertmanager: [API v2](https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml). An alert lives until its
//! `endsAt`, so it is sent again while its incident is open.
//!
//! Labels are the identity of an alert. The severity is one of them although it may rise, since routes of Alertmanager match on
//! it: an incident that becomes critical is a second alert, and the message that says so ends the first. The incident's id is
//! none, so that a series that goes wrong again is the same alert firing again; it stands in the annotations.

use std::collections::BTreeMap;

use anomaly_engine::{NANOS, Timestamp};
use serde_json::{Value, json};

use crate::notify::message::{Fact, Kind, Message};
use crate::notify::words::{rfc3339, tame};
use crate::store::severity;

/// How long an alert lives without being sent again, in nanoseconds.
pub const LIFETIME: i64 = 600 * NANOS;
/// How often an active one should be sent, in nanoseconds: some may be lost.
pub const RESEND: i64 = 150 * NANOS;

/// The alerts of a message.
pub(super) fn render(message: &Message) -> Vec<u8> {
    let Message { kind, at, base_url, .. } = message;
    let end = match kind {
        Kind::Resolved => *at,
        // Long enough to be seen, and no longer.
        Kind::Test => at.plus(60 * NANOS),
        _ => at.plus(LIFETIME),
    };
    let mut alerts: Vec<Value> =
        message.incidents.iter().map(|fact| alert(fact, base_url, fact.critical, end, *kind == Kind::Test)).collect();
    if *kind == Kind::Escalated {
        // What is still a warning goes on as one.
        let critical = message.incidents.iter().filter(|fact| fact.critical);
        alerts.extend(critical.map(|fact| alert(fact, base_url, false, *at, false)));
    }
    Value::Array(alerts).to_string().into_bytes()
}

/// The body that keeps the alerts of open incidents alive until an instant: to be sent every [`RESEND`], with an instant
/// [`LIFETIME`] ahead.
pub fn alerts(facts: &[Fact], base_url: &str, active_until: Timestamp) -> Vec<u8> {
    let alerts = facts.iter().map(|fact| alert(fact, base_url, fact.critical, active_until, false));
    Value::Array(alerts.collect()).to_string().into_bytes()
}

fn alert(fact: &Fact, base_url: &str, critical: bool, end: Timestamp, test: bool) -> Value {
    let mut labels = labels(fact, severity(critical));
    if test {
        labels.insert("test".into(), "true".into());
    }
    let explanation = fact.explanation();
    let description = if explanation.is_empty() { fact.course() } else { format!("{explanation}; {}", fact.course()) };
    json!({
        "labels": labels,
        "annotations": {
            "summary": format!("{}: {}", fact.name(), fact.deviation()),
            "description": description,
            "incident": fact.id,
            "series": fact.series,
        },
        // An event may be a little ahead of its arrival, an alert must not begin behind its end.
        "startsAt": rfc3339(fact.start.min(end)),
        "endsAt": rfc3339(end),
        "generatorURL": fact.link(base_url),
    })
}

/// `alertname`, `severity`, and the series' labels under names that Prometheus takes; where two become the same the later ones
/// are numbered.
fn labels(fact: &Fact, severity: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([("alertname".to_owned(), tame(&fact.metric)), ("severity".to_owned(), severity.to_owned())]);
    for (name, value) in fact.labels.iter().filter(|(_, value)| !value.is_empty()) {
        let name = match valid_name(name) {
            // The route of a test, and what Prometheus keeps for itself.
            name if name == "test" || name.starts_with("__") || labels.contains_key(&name) => format!("label_{name}"),
            name => name,
        };
        let numbered = (2..).map(|n| format!("{name}_{n}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !labels.contains_key(name));
        labels.insert(free.unwrap_or(name), value.clone());
    }
    labels
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, other characters as `_`.
fn valid_name(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if plain.starts_with(|c: char| c.is_ascii_digit()) || plain.is_empty() { format!("_{plain}") } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::tests::{AT, fact, hostile, message};

    fn rendered(message: &Message) -> Vec<Value> {
        serde_json::from_slice(&render(message)).unwrap()
    }

    fn incident() -> Fact {
        fact("1c", "api_latency_ms", &[("dc", "eu")], true)
    }

    #[test]
    fn an_incident_is_an_alert_until_it_is_resolved() {
        let alerts = rendered(&message(Kind::Opened, vec![incident()]));
        assert_eq!(alerts.len(), 1);
        assert_eq!(alerts[0]["labels"], json!({"alertname": "api_latency_ms", "dc": "eu", "severity": "critical"}));
        assert_eq!(alerts[0]["annotations"]["summary"], "api_latency_ms{dc=\"eu\"}: 95, expected 54.5 ± 8.84");
        assert_eq!((&alerts[0]["startsAt"], &alerts[0]["endsAt"]), (&"2026-11-27T03:11:35Z".into(), &"2026-11-27T03:22:05Z".into()));
        assert_eq!(alerts[0]["generatorURL"], "https://anomaly.example.org/#incident=1c");
        let resolved = rendered(&message(Kind::Resolved, vec![incident()]));
        assert_eq!((&resolved[0]["labels"], &resolved[0]["endsAt"]), (&alerts[0]["labels"], &"2026-11-27T03:12:05Z".into()));
    }

    #[test]
    fn an_escalation_ends_the_warning() {
        let alerts = rendered(&message(Kind::Escalated, vec![incident()]));
        let of = |i: usize| (alerts[i]["labels"]["severity"].as_str().unwrap(), alerts[i]["endsAt"].as_str().unwrap());
        assert_eq!((of(0), of(1)), (("critical", "2026-11-27T03:22:05Z"), ("warning", "2026-11-27T03:12:05Z")));
    }

    #[test]
    fn it_is_kept_alive_under_the_same_labels() {
        let first = rendered(&message(Kind::Opened, vec![incident()]));
        let again: Vec<Value> =
            serde_json::from_slice(&alerts(&[incident()], "https://anomaly.example.org", AT.plus(2 * LIFETIME))).unwrap();
        assert_eq!((&again[0]["labels"], &again[0]["startsAt"]), (&first[0]["labels"], &first[0]["startsAt"]));
        assert_eq!(again[0]["endsAt"], "2026-11-27T03:32:05Z");
        assert_eq!(alerts(&[], "", AT), b"[]");
    }

    #[test]
    fn label_names_are_made_valid_and_none_is_lost() {
        let odd = [
            ("a.b", "1"),
            ("a_b", "2"),
            ("a-b", "3"),
            ("9x", "4"),
            ("severity", "5"),
            ("alertname", "6"),
            ("סדרה", "7"),
            ("__x", "8"),
            ("e", ""),
        ];
        let labels = labels(&fact("1", "m", &odd, false), "warning");
        let expected = [
            ("_9x", "4"),
            ("_____", ""),
            ("a_b", ""),
            ("label_a_b", ""),
            ("label_a_b_2", ""),
            ("alertname", "m"),
            ("label___x", "8"),
            ("label_alertname", "6"),
            ("label_severity", "5"),
            ("severity", "warning"),
        ];
        for (name, value) in expected.iter().filter(|(_, value)| !value.is_empty()) {
            assert_eq!(labels.get(*name).map(String::as_str), Some(*value), "{name} {labels:?}");
        }
        let values = |labels: &BTreeMap<String, String>| {
            let mut values: Vec<String> = labels.values().filter(|value| value.len() == 1 && *value != "m").cloned().collect();
            values.sort_unstable();
            values.concat()
        };
        assert_eq!(values(&labels), "12345678");
        let valid =
            |name: &str| !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        for fact in hostile() {
            assert!(super::labels(&fact, "warning").keys().all(|name| valid(name)));
        }
        assert!(labels.keys().all(|name| valid(name)));
    }

    #[test]
    fn an_event_ahead_of_its_arrival_begins_no_later_than_it_ends() {
        let mut ahead = incident();
        ahead.start = AT.plus(30 * NANOS);
        let alerts = rendered(&message(Kind::Resolved, vec![ahead]));
        assert_eq!(alerts[0]["startsAt"], alerts[0]["endsAt"]);
    }
}
