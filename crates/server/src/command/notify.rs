//! `anomaly notify test`: whether people are told, tried with an incident that is made up.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anomaly_engine::Timestamp;

use crate::config::{Config, Sources};
use crate::notify::channel::{Channel, Channels, SendError};
use crate::notify::message::{Kind, Message};

/// Sends a made-up incident over one channel or over all that are configured, and prints a line for each. The exit code is 0
/// if all was sent, 1 if something was not, 2 if nothing is configured.
///
/// # Errors
/// A configuration with faults; no certificates to trust; nobody reads.
pub fn test(channel: Option<Channel>, config_file: Option<&Path>, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let loaded = Sources::of_process(Vec::new(), config_file, true)?.load()?;
    super::runtime()?.block_on(send(&loaded.config, channel, out))
}

async fn send(config: &Config, channel: Option<Channel>, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let channels = Channels::new(&config.notify)?;
    let wanted: Vec<Channel> = channels.configured().filter(|known| channel.is_none_or(|channel| channel == *known)).collect();
    if wanted.is_empty() {
        let what = channel.map_or_else(|| "no channel is".to_owned(), |channel| format!("{} is not", channel.name()));
        writeln!(out, "{what} configured; set in the environment, .env or anomaly.toml:")?;
        for known in Channel::ALL.into_iter().filter(|known| channel.is_none_or(|channel| channel == *known)) {
            writeln!(out, "  {:<13} {}", known.name(), known.settings())?;
        }
        return Ok(ExitCode::from(2));
    }
    let now = Timestamp::from_nanos(i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0));
    let message = Message::example(now, &config.public_url());
    let mut all_sent = true;
    for channel in wanted {
        let id = format!("test-{}-{}", channel.name(), now.nanos());
        let (word, said) = match one(&channels, channel, &message, &id).await {
            Ok(said) => ("sent", said),
            Err(error) => {
                all_sent = false;
                (if error.permanent { "refused" } else { "failed" }, error.message)
            }
        };
        writeln!(out, "{:<13} {word}: {said}", channel.name())?;
        out.flush()?;
    }
    Ok(ExitCode::from(u8::from(!all_sent)))
}

async fn one(channels: &Channels, channel: Channel, message: &Message, id: &str) -> Result<String, SendError> {
    debug_assert!(channel.takes(Kind::Test));
    let said = channels.send(channel, id, &channels.render(channel, message, id)).await?;
    if channel == Channel::Pagerduty {
        // Nobody should have to tidy up after a trial.
        channels.send(channel, id, &Channels::end_of_trial(id)).await?;
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(config: &Config, channel: Option<Channel>) -> (String, ExitCode) {
        let mut out = Vec::new();
        let code = send(config, channel, &mut out).await.unwrap();
        (String::from_utf8(out).unwrap(), code)
    }

    #[tokio::test]
    async fn without_a_channel_it_says_what_to_set() {
        let (said, code) = sent(&Config::default(), None).await;
        assert!(said.starts_with("no channel is configured; set in the environment, .env or anomaly.toml:\n  email "), "{said}");
        assert!(said.contains("\n  slack         SLACK_WEBHOOK_URL\n"), "{said}");
        assert_eq!(code, ExitCode::from(2));
        let (said, code) = sent(&Config::default(), Some(Channel::Slack)).await;
        assert_eq!(said, "slack is not configured; set in the environment, .env or anomaly.toml:\n  slack         SLACK_WEBHOOK_URL\n");
        assert_eq!(code, ExitCode::from(2));
    }

    #[tokio::test]
    async fn what_fails_is_told_and_is_the_exit_code() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let mut config = Config::default();
        config.notify.webhook_url = Some(crate::notify::guard::HttpUrl::parse(&url).unwrap());
        let (said, code) = sent(&config, None).await;
        assert!(said.starts_with("webhook       failed: ") && said.contains("refused") && said.lines().count() == 1, "{said}");
        assert_eq!(code, ExitCode::from(1));
    }
}
