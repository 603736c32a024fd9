//! Slack: an incoming webhook with [blocks](https://docs.slack.dev/reference/block-kit/blocks), and a line for notifications.

use serde_json::{Value, json};

use crate::notify::message::{Fact, Message};
use crate::notify::words::instant;

/// What Slack takes: characters of a header, of a section, and of the text beside the blocks.
const HEADER_CHARS: usize = 150;
const SECTION_CHARS: usize = 3000;
/// Sections of incidents: Slack takes 50 blocks, and nobody reads more than these.
const LISTED: usize = 20;

/// The body.
pub(super) fn render(message: &Message) -> Vec<u8> {
    let subject = message.subject();
    let mut blocks =
        vec![json!({"type": "header", "text": {"type": "plain_text", "text": escaped(&subject, HEADER_CHARS), "emoji": false}})];
    let lead = message.lead();
    if !lead.is_empty() {
        blocks.push(section(&escaped(&lead, SECTION_CHARS)));
    }
    for fact in message.incidents.iter().take(LISTED) {
        blocks.push(section(&incident(fact, &message.base_url)));
    }
    let unlisted = message.unlisted(LISTED);
    if let Some(digest) = &message.digest {
        blocks.push(section(&escaped(&digest.account(), SECTION_CHARS)));
        for worst in &digest.series {
            blocks.push(section(&format!("*{}*\n{}", escaped(&worst.name(), 600), escaped(&worst.counts(), 200))));
        }
    }
    if unlisted > 0 {
        blocks.push(context(&format!("and {unlisted} more")));
    }
    let link = escaped(&message.link(), 2000);
    blocks.push(context(&format!("<{link}|Open in anomaly> · {}", escaped(&instant(message.at), 100))));
    json!({"text": escaped(&subject, SECTION_CHARS), "blocks": blocks}).to_string().into_bytes()
}

/// An incident: its name leads to it, its time is said in the zone of who reads.
fn incident(fact: &Fact, base_url: &str) -> String {
    let link = escaped(&fact.link(base_url), 2000);
    // A bar would end the address.
    let (link, name) = (link.replace('|', "%7C"), escaped(&fact.name(), 600));
    let start = fact.start.nanos().div_euclid(anomaly_engine::NANOS);
    let when = format!("<!date^{start}^since {{date_short_pretty}} {{time_secs}}|since {}>", escaped(&instant(fact.start), 100));
    let explanation = fact.explanation();
    let explanation = if explanation.is_empty() { String::new() } else { format!("\n{}", escaped(&explanation, 1200)) };
    format!(
        "*<{link}|{name}>* ({})\n{}{explanation}\n{when} · {}",
        fact.severity(),
        escaped(&fact.deviation(), 200),
        escaped(&fact.course(), 100)
    )
}

fn section(text: &str) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": text}})
}

fn context(text: &str) -> Value {
    json!({"type": "context", "elements": [{"type": "mrkdwn", "text": text}]})
}

/// A text in which nothing is a mention, a link or a command, of at most so many characters.
fn escaped(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut n = 0;
    for c in text.chars() {
        let mut buffer = [0; 4];
        let written = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            c => c.encode_utf8(&mut buffer),
        };
        // Slack counts UTF-16.
        n += written.encode_utf16().count();
        if n > most - 1 {
            out.push('…');
            break;
        }
        out.push_str(written);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::Kind;
    use crate::notify::message::tests::{digest, fact, hostile, message};

    fn rendered(message: &Message) -> Value {
        let body: Value = serde_json::from_slice(&render(message)).unwrap();
        let blocks = body["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50 && body["text"].as_str().unwrap().chars().count() <= SECTION_CHARS);
        for block in blocks {
            let text = if block["type"] == "context" { &block["elements"][0]["text"] } else { &block["text"]["text"] };
            let most = if block["type"] == "header" { HEADER_CHARS } else { SECTION_CHARS };
            assert!((1..=most).contains(&text.as_str().unwrap().chars().count()), "{block}");
        }
        body
    }

    #[test]
    fn an_incident_is_a_header_a_section_and_a_link() {
        let body = rendered(&message(Kind::Opened, vec![fact("1c", "api_latency_ms", &[("dc", "eu")], true)]));
        assert_eq!(body["text"], "[critical] api_latency_ms{dc=\"eu\"}: 95, expected 54.5 ± 8.84");
        assert_eq!(body["blocks"][0]["text"]["text"], body["text"]);
        assert_eq!(
            body["blocks"][1]["text"]["text"],
            "*<https://anomaly.example.org/#incident=1c|api_latency_ms{dc=\"eu\"}>* (critical)\n95, expected 54.5 ± 8.84\n\
             95 is 13.7 standard deviations above the mean 54.5 of the last 20 samples (5 min)\n\
             <!date^1795749095^since {date_short_pretty} {time_secs}|since 2026-11-27 03:11:35 UTC> · 3 anomalies in 30 s"
        );
        assert_eq!(
            body["blocks"][2]["elements"][0]["text"],
            "<https://anomaly.example.org/#incident=1c|Open in anomaly> · 2026-11-27 03:12:05 UTC"
        );
    }

    #[test]
    fn many_incidents_and_a_digest_keep_to_the_limits() {
        let many = rendered(&message(Kind::Opened, (0..300).map(|i| fact(&i.to_string(), "m", &[], false)).collect()));
        assert!(many.to_string().contains("and 280 more"));
        let digest = rendered(&digest());
        assert!(
            digest["text"].as_str().unwrap().starts_with("[digest] 14 incidents of 5 series") && digest.to_string().contains("and 3 more")
        );
    }

    #[test]
    fn no_name_mentions_links_or_commands() {
        for kind in Kind::ALL {
            let body = rendered(&message(kind, hostile())).to_string();
            for harm in ["<!channel", "<script", "<https://evil", "<img", "\\u202e", "\u{202e}"] {
                assert!(!body.replace("\\\\u", "").contains(harm), "{harm} {body}");
            }
        }
        assert_eq!((escaped("a<b>&", 100).as_str(), escaped("<<<<", 10).as_str()), ("a&lt;b&gt;&amp;", "&lt;&lt;…"));
    }
}
