//! Webhooks as [Standard Webhooks](https://www.standardwebhooks.com) have them: an id, a time and a signature over both and the
//! body, so that a receiver knows who sent it, that it is not an old one, and whether it has it already.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::{Value, json};

use super::SendError;
use super::http::Http;
use crate::config::notify::Secret;
use crate::notify::guard::HttpUrl;
use crate::notify::message::Message;
use crate::notify::words::{number, rfc3339, tame};

/// Incidents that are told with everything; of more, the ids.
const COMPLETE: usize = 100;

/// Where webhooks go, and what they are signed with.
#[derive(Debug)]
pub(super) struct Webhook {
    url: reqwest::Url,
    key: Option<hmac::Key>,
}

impl Webhook {
    pub(super) fn new(url: &HttpUrl, secret: Option<&Secret>) -> Self {
        let key = secret.and_then(|secret| key(secret.reveal())).map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        Self { url: url.url().clone(), key }
    }

    pub(super) async fn send(&self, http: &Http, id: &str, body: &[u8]) -> Result<String, SendError> {
        // Receivers refuse what is some minutes old: the time is that of this attempt.
        let timestamp = jiff::Timestamp::now().as_second();
        let mut headers = vec![("webhook-id", id.to_owned()), ("webhook-timestamp", timestamp.to_string())];
        if let Some(key) = &self.key {
            headers.push(("webhook-signature", signature(key, id, timestamp, body)));
        }
        http.post(self.url.clone(), &headers, body.to_vec()).await
    }
}

/// The bytes that a secret stands for: what follows `whsec_` is base64, any other text is itself. Nothing where it is not base64.
pub fn key(secret: &str) -> Option<Vec<u8>> {
    // People copy secrets with and without padding.
    let either = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    match secret.strip_prefix("whsec_") {
        Some(text) => GeneralPurpose::new(&base64::alphabet::STANDARD, either).decode(text).ok().filter(|bytes| !bytes.is_empty()),
        None => Some(secret.as_bytes().to_vec()),
    }
}

fn signature(key: &hmac::Key, id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

/// The body: `{"type":…,"timestamp":…,"data":{…}}`.
pub(super) fn render(message: &Message) -> Vec<u8> {
    let complete: Vec<Value> = message.incidents.iter().take(COMPLETE).map(|fact| fact.to_json(&message.base_url)).collect();
    let mut data = json!({
        "subject": message.subject(),
        "severity": message.severity(),
        "url": message.link(),
        "incidents": complete,
    });
    if let Some(more) = message.incidents.get(COMPLETE..).filter(|more| !more.is_empty()) {
        data["more"] = more.iter().map(|fact| fact.id.as_str()).collect();
    }
    if let Some(digest) = &message.digest {
        let worst = digest.series.iter().map(|worst| {
            json!({
                "series": worst.series,
                "incidents": worst.incidents,
                "anomalies": worst.anomalies,
                "severity": crate::store::severity(worst.critical),
            })
        });
        data["digest"] = json!({
            "since": number(digest.since),
            "incidents": digest.incidents,
            "anomalies": digest.anomalies,
            "old": digest.old,
            "n_series": digest.n_series,
            "series": worst.collect::<Vec<_>>(),
            "text": tame(&digest.account()),
        });
    }
    json!({"type": message.kind.event(), "timestamp": rfc3339(message.at), "data": data}).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::answering;
    use super::*;
    use crate::notify::message::Kind;
    use crate::notify::message::tests::{digest, fact, hostile, message};

    fn rendered(message: &Message) -> Value {
        serde_json::from_slice(&render(message)).unwrap()
    }

    #[test]
    fn the_signature_is_that_of_the_specification() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_base64_behind_its_prefix_and_else_itself() {
        assert_eq!(key("plain text").unwrap(), b"plain text");
        assert_eq!(
            (key("whsec_YWJj").unwrap(), key("whsec_YWI").unwrap(), key("whsec_YWI=").unwrap()),
            (b"abc".to_vec(), b"ab".to_vec(), b"ab".to_vec())
        );
        assert!(key("whsec_not base64").is_none() && key("whsec_").is_none());
    }

    #[test]
    fn the_body_has_the_facts_of_each_incident() {
        let message = message(Kind::Opened, vec![fact("1c", "api_latency_ms", &[("dc", "eu")], true), fact("2d", "cpu", &[], false)]);
        let body = rendered(&message);
        assert_eq!((&body["type"], &body["timestamp"]), (&"incident.opened".into(), &"2026-11-27T03:12:05Z".into()));
        let data = &body["data"];
        assert_eq!(data["severity"], "critical");
        assert_eq!(data["url"], "https://anomaly.example.org/#incident=1c");
        let first = &data["incidents"][0];
        assert_eq!((&first["id"], &first["series"]), (&"1c".into(), &"api_latency_ms{dc=\"eu\"}".into()));
        assert_eq!((&first["labels"]["dc"], &first["start"], &first["count"]), (&"eu".into(), &1_795_749_095.into(), &3.into()));
        assert_eq!(first["peak"]["explanation"], "95 is 13.7 standard deviations above the mean 54.5 of the last 20 samples (5 min)");
        assert_eq!(data["incidents"][1]["severity"], "warning");
        assert!(data.get("digest").is_none() && data.get("more").is_none());
    }

    #[test]
    fn a_digest_and_more_incidents_than_are_told_are_counted() {
        let body = rendered(&digest());
        assert_eq!((&body["type"], &body["data"]["digest"]["old"]), (&"digest".into(), &10.into()));
        assert_eq!(body["data"]["digest"]["series"][0]["severity"], "critical");
        let many = message(Kind::Opened, (0..130).map(|i| fact(&i.to_string(), "m", &[], false)).collect());
        let body = rendered(&many);
        assert_eq!((body["data"]["incidents"].as_array().unwrap().len(), body["data"]["more"].as_array().unwrap().len()), (100, 30));
    }

    #[test]
    fn names_of_any_kind_are_told_as_they_are() {
        let body = rendered(&message(Kind::Opened, hostile()));
        for (fact, told) in hostile().iter().zip(body["data"]["incidents"].as_array().unwrap()) {
            assert_eq!((&told["metric"], &told["series"]), (&fact.metric.clone().into(), &fact.series.clone().into()));
        }
    }

    #[tokio::test]
    async fn it_is_sent_with_id_time_and_signature() {
        for (secret, signed) in [(Some(Secret::from("s3cret")), true), (None, false)] {
            let (url, server) = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
            let webhook = Webhook::new(&HttpUrl::parse(url.as_str()).unwrap(), secret.as_ref());
            let answer = webhook.send(&Http::new(false).unwrap(), "n-1", b"{\"a\":1}").await;
            assert_eq!(answer, Ok("204 No Content".into()));
            let request = server.await.unwrap();
            let header = |name: &str| request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            assert_eq!((header("webhook-id"), header("content-type")), (Some("n-1"), Some("application/json")));
            let timestamp: i64 = header("webhook-timestamp").unwrap().parse().unwrap();
            let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
            let expected = signed.then(|| signature(&key, "n-1", timestamp, b"{\"a\":1}"));
            assert_eq!(header("webhook-signature"), expected.as_deref());
        }
    }
}
