//! PagerDuty: [Events API v2](https://developer.pagerduty.com/docs/send-alert-event). What belongs together has one
//! `dedup_key`, the id of the incident that moved first, so that trigger, acknowledge and resolve meet.

use serde_json::{Value, json};

use super::SendError;
use super::http::{HIDDEN, Http};
use crate::config::notify::Secret;
use crate::notify::guard::HttpUrl;
use crate::notify::message::{Fact, Kind, Message};
use crate::notify::words::{plain_id, rfc3339, shortened};

/// The most characters of a summary.
const SUMMARY_CHARS: usize = 1024;
/// Incidents in the details: an event may have 512 KiB, and nobody reads more than these.
const LISTED: usize = 20;

/// Where events go, and whose they are.
#[derive(Debug)]
pub(super) struct Pagerduty {
    url: reqwest::Url,
    key: Secret,
}

impl Pagerduty {
    pub(super) fn new(url: &HttpUrl, key: &Secret) -> Self {
        Self { url: url.url().clone(), key: key.clone() }
    }

    /// Posts an event. The key is put in only now, as what is rendered is stored.
    pub(super) async fn send(&self, http: &Http, body: &[u8]) -> Result<String, SendError> {
        let key = self.key.reveal();
        // Whoever answers may repeat it.
        let hide = |text: String| if key.is_empty() { text } else { text.replace(key, HIDDEN) };
        let sent = http.post(self.url.clone(), &[], with_key(body, key)).await;
        sent.map(hide).map_err(|error| SendError { message: hide(error.message), ..error })
    }
}

fn with_key(body: &[u8], key: &str) -> Vec<u8> {
    let rest = body.strip_prefix(b"{").unwrap_or(body);
    [format!("{{\"routing_key\":{},", Value::from(key)).as_bytes(), rest].concat()
}

/// The event without its key.
pub(super) fn render(message: &Message, id: &str) -> Vec<u8> {
    // A trial must not meet an incident.
    let key = if message.kind == Kind::Test { format!("anomaly-test-{}", plain_id(id)) } else { plain_id(&message.key) };
    let action = match message.kind {
        Kind::Acknowledged => "acknowledge",
        Kind::Resolved => "resolve",
        _ => "trigger",
    };
    let mut event = json!({"event_action": action, "dedup_key": shortened(&key, 255)});
    if action == "trigger" {
        event["payload"] = payload(message);
        event["links"] = json!([{"href": message.link(), "text": "Open in anomaly"}]);
        event["client"] = "anomaly".into();
        event["client_url"] = message.base_url.clone().into();
    }
    event.to_string().into_bytes()
}

/// What ends the trial of this id again, so that nobody has to.
pub(super) fn end_of_trial(id: &str) -> Vec<u8> {
    json!({"event_action": "resolve", "dedup_key": format!("anomaly-test-{}", plain_id(id))}).to_string().into_bytes()
}

fn payload(message: &Message) -> Value {
    let first = message.incidents.first();
    // PagerDuty shows the severity beside the summary.
    let severity = if message.kind == Kind::Test { "info" } else { message.severity() };
    let mut details = serde_json::Map::new();
    if let Some(first) = first {
        details.insert("explanation".into(), first.explanation().into());
        details.insert("deviation".into(), first.deviation().into());
        details.insert("course".into(), first.course().into());
    }
    details.insert("incidents".into(), message.incidents.iter().take(LISTED).map(|fact| fact.to_json(&message.base_url)).collect());
    let more = message.incidents.len().saturating_sub(LISTED);
    if more > 0 {
        details.insert("more".into(), format!("and {more} more").into());
    }
    let mut payload = json!({
        "summary": shortened(&message.subject(), SUMMARY_CHARS),
        "source": first.and_then(Fact::host).unwrap_or_else(|| "anomaly".to_owned()),
        "severity": severity,
        "timestamp": rfc3339(message.start()),
        "class": message.kind.as_str(),
        "custom_details": details,
    });
    if let Some(first) = first {
        payload["component"] = crate::notify::words::tame(&first.metric).into();
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::answering;
    use super::*;
    use crate::notify::message::tests::{fact, hostile, message};

    fn rendered(kind: Kind, incidents: Vec<Fact>) -> Value {
        serde_json::from_slice(&render(&message(kind, incidents), "n-1")).unwrap()
    }

    fn one(kind: Kind) -> Value {
        rendered(kind, vec![fact("1c", "api_latency_ms", &[("dc", "eu"), ("host", "web-1")], true)])
    }

    #[test]
    fn an_incident_is_triggered_acknowledged_and_resolved_under_one_key() {
        for (kind, action) in [
            (Kind::Opened, "trigger"),
            (Kind::Escalated, "trigger"),
            (Kind::Reopened, "trigger"),
            (Kind::Acknowledged, "acknowledge"),
            (Kind::Resolved, "resolve"),
        ] {
            let event = one(kind);
            assert_eq!((&event["event_action"], &event["dedup_key"]), (&action.into(), &"1c".into()));
            assert_eq!(event.get("payload").is_some(), action == "trigger");
        }
        let payload = &one(Kind::Opened)["payload"];
        assert_eq!(payload["summary"], "[critical] api_latency_ms{dc=\"eu\",host=\"web-1\"}: 95, expected 54.5 ± 8.84");
        assert_eq!(
            (&payload["severity"], &payload["source"], &payload["component"]),
            (&"critical".into(), &"web-1".into(), &"api_latency_ms".into())
        );
        assert_eq!(payload["timestamp"], "2026-11-27T03:11:35Z");
        assert_eq!(payload["custom_details"]["incidents"][0]["labels"]["dc"], "eu");
    }

    #[test]
    fn a_trial_meets_no_incident_and_can_be_ended() {
        let event = one(Kind::Test);
        assert_eq!((&event["dedup_key"], &event["payload"]["severity"]), (&"anomaly-test-n-1".into(), &"info".into()));
        let end: Value = serde_json::from_slice(&end_of_trial("n-1")).unwrap();
        assert_eq!((&end["dedup_key"], &end["event_action"]), (&"anomaly-test-n-1".into(), &"resolve".into()));
    }

    #[test]
    fn a_summary_is_one_short_line() {
        for fact in hostile() {
            let event = rendered(Kind::Opened, vec![fact]);
            let summary = event["payload"]["summary"].as_str().unwrap();
            assert!(summary.chars().count() <= SUMMARY_CHARS && !summary.contains(char::is_control), "{summary:?}");
        }
        let many = rendered(Kind::Opened, (0..30).map(|i| fact(&i.to_string(), "m", &[], false)).collect());
        assert_eq!(many["payload"]["custom_details"]["more"], "and 10 more");
    }

    #[tokio::test]
    async fn the_key_is_sent_but_not_rendered() {
        let body = render(&message(Kind::Opened, vec![fact("1c", "m", &[], true)]), "n-1");
        let (url, server) = answering("HTTP/1.1 202 Accepted\r\ncontent-length: 20\r\n\r\n{\"status\":\"success\"}").await;
        let pagerduty = Pagerduty::new(&HttpUrl::parse(url.as_str()).unwrap(), &"R0\"KEY".into());
        let answer = pagerduty.send(&Http::new(false).unwrap(), &body).await;
        assert_eq!(answer, Ok("202 Accepted: {\"status\":\"success\"}".into()));
        let request = server.await.unwrap();
        let sent: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&sent["routing_key"], &sent["dedup_key"]), (&"R0\"KEY".into(), &"1c".into()));
        assert!(!String::from_utf8(body).unwrap().contains("routing_key"));
    }
}
