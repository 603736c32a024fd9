//! The ways to tell people: a file each. A channel renders a message to bytes, which are stored, and sends those bytes, again
//! and again if need be, under the same id.

pub mod alertmanager;
mod email;
mod http;
mod pagerduty;
mod pubsub;
mod slack;
pub mod webhook;

use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::guard::HttpUrl;
use super::message::{Kind, Message};
use crate::config::NotifyConfig;
use email::Email;
use http::Http;
use pagerduty::Pagerduty;
pub use pubsub::PubSub;
use pubsub::Publisher;
use webhook::Webhook;

/// A way to tell people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Channel {
    /// SMTP.
    Email,
    /// Standard Webhooks.
    Webhook,
    /// An incoming webhook of Slack.
    Slack,
    /// PagerDuty's Events API v2.
    Pagerduty,
    /// An Alertmanager's API v2.
    Alertmanager,
    /// Pub/Sub of Redis.
    Redis,
}

/// Channels as they are stored: their names, between commas.
pub fn names(channels: &[Channel]) -> String {
    channels.iter().map(|channel| channel.name()).collect::<Vec<_>>().join(",")
}

impl Channel {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 6] = [Self::Email, Self::Webhook, Self::Slack, Self::Pagerduty, Self::Alertmanager, Self::Redis];

    /// As it is configured, stored and answered.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::Pagerduty => "pagerduty",
            Self::Alertmanager => "alertmanager",
            Self::Redis => "redis",
        }
    }

    /// The channel of this name, in whatever case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.name().eq_ignore_ascii_case(name))
    }

    /// Whether it is told such things. PagerDuty and Alertmanager have a life of an incident of their own, and no place for a digest.
    pub const fn takes(self, kind: Kind) -> bool {
        match self {
            Self::Email => matches!(kind, Kind::Opened | Kind::Escalated | Kind::Reopened | Kind::Repeated | Kind::Digest | Kind::Test),
            Self::Slack => matches!(
                kind,
                Kind::Opened | Kind::Escalated | Kind::Reopened | Kind::Repeated | Kind::Resolved | Kind::Digest | Kind::Test
            ),
            Self::Webhook => true,
            // Who listens hears what happens now.
            Self::Redis => !matches!(kind, Kind::Digest),
            Self::Pagerduty => {
                matches!(kind, Kind::Opened | Kind::Escalated | Kind::Reopened | Kind::Acknowledged | Kind::Resolved | Kind::Test)
            }
            Self::Alertmanager => {
                matches!(kind, Kind::Opened | Kind::Escalated | Kind::Reopened | Kind::Repeated | Kind::Resolved | Kind::Test)
            }
        }
    }

    /// The settings without which it is not configured.
    pub const fn settings(self) -> &'static str {
        match self {
            Self::Email => "EMAIL_ENABLED=true, SMTP_HOST, EMAIL_FROM and EMAIL_TO",
            Self::Webhook => "WEBHOOK_URL",
            Self::Slack => "SLACK_WEBHOOK_URL",
            Self::Pagerduty => "PAGERDUTY_ROUTING_KEY",
            Self::Alertmanager => "ALERTMANAGER_URL",
            Self::Redis => "REDIS_URL, and run anomaly processor",
        }
    }
}

/// Why something was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// Whether it would fail again: the other side understood and refused.
    pub permanent: bool,
    /// How long the other side asks to be left alone.
    pub retry_after: Option<Duration>,
    /// What went wrong, on one line, without secrets.
    pub message: String,
}

impl SendError {
    fn temporary(message: impl Into<String>) -> Self {
        Self { permanent: false, retry_after: None, message: message.into() }
    }

    fn permanent(message: impl Into<String>) -> Self {
        Self { permanent: true, retry_after: None, message: message.into() }
    }
}

/// Why channels cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ChannelsError {
    /// TLS or HTTP cannot be had.
    #[error("no messages can be sent over HTTPS: {0}. It needs certificates to trust: install ca-certificates, or set SSL_CERT_FILE")]
    Http(String),
    /// The mail server's TLS cannot be had.
    #[error("no email can be sent: {0}")]
    Email(String),
}

/// What is configured.
#[derive(Debug)]
pub struct Channels {
    http: Http,
    email: Option<Email>,
    webhook: Option<Webhook>,
    slack: Option<reqwest::Url>,
    pagerduty: Option<Pagerduty>,
    alertmanager: Option<reqwest::Url>,
    pubsub: Option<Publisher>,
}

impl Channels {
    /// Everything that sends.
    ///
    /// # Errors
    /// TLS cannot be had: no certificates to trust, say.
    pub fn new(config: &NotifyConfig) -> Result<Self, ChannelsError> {
        let pagerduty = config.pagerduty_routing_key.as_ref().map(|key| Pagerduty::new(&config.pagerduty_url, key));
        let urls = [&config.webhook_url, &config.slack_webhook_url, &config.alertmanager_url];
        let over_https = urls.into_iter().flatten().any(HttpUrl::is_https) || pagerduty.is_some() && config.pagerduty_url.is_https();
        Ok(Self {
            http: Http::new(over_https)?,
            email: if config.email.enabled { Some(Email::new(&config.email)?) } else { None },
            webhook: config.webhook_url.as_ref().map(|url| Webhook::new(url, config.webhook_secret.as_ref())),
            slack: config.slack_webhook_url.as_ref().map(|url| url.url().clone()),
            pagerduty,
            alertmanager: config.alertmanager_url.as_ref().map(|url| url.join("api/v2/alerts")),
            pubsub: config.pubsub.as_ref().map(Publisher::new),
        })
    }

    /// Whether anything can be sent over a channel.
    pub fn is_configured(&self, channel: Channel) -> bool {
        match channel {
            Channel::Email => self.email.is_some(),
            Channel::Webhook => self.webhook.is_some(),
            Channel::Slack => self.slack.is_some(),
            Channel::Pagerduty => self.pagerduty.is_some(),
            Channel::Alertmanager => self.alertmanager.is_some(),
            Channel::Redis => self.pubsub.is_some(),
        }
    }

    /// Those that are configured.
    pub fn configured(&self) -> impl Iterator<Item = Channel> {
        Channel::ALL.into_iter().filter(|&channel| self.is_configured(channel))
    }

    /// A message as the bytes that are stored and sent, the same at each retry. They hold no secret.
    pub fn render(&self, channel: Channel, message: &Message, id: &str) -> Vec<u8> {
        match channel {
            Channel::Email => self.email.as_ref().map_or_else(Vec::new, |email| email.render(message, id)),
            Channel::Webhook => webhook::render(message),
            Channel::Slack => slack::render(message),
            Channel::Pagerduty => pagerduty::render(message, id),
            Channel::Alertmanager => alertmanager::render(message),
            Channel::Redis => pubsub::render(message, id),
        }
    }

    /// What ends the trial of this id at PagerDuty, so that nobody has to.
    pub fn end_of_trial(id: &str) -> Vec<u8> {
        pagerduty::end_of_trial(id)
    }

    /// Sends what [`Channels::render`] made, and returns what the other side answered, on one line.
    ///
    /// # Errors
    /// Why it was not sent, and whether to try again. Takes 30 s at most.
    pub async fn send(&self, channel: Channel, id: &str, body: &[u8]) -> Result<String, SendError> {
        if let (Channel::Redis, Some(pubsub)) = (channel, &self.pubsub) {
            return pubsub.send(body).await;
        }
        let Self { http, email, webhook, slack, pagerduty, alertmanager, .. } = self;
        match (channel, email, webhook, slack, pagerduty, alertmanager) {
            (Channel::Email, Some(email), ..) => email.send(body).await,
            (Channel::Webhook, _, Some(webhook), ..) => webhook.send(http, id, body).await,
            (Channel::Slack, _, _, Some(url), ..) => http.post(url.clone(), &[], body.to_vec()).await,
            (Channel::Pagerduty, .., Some(pagerduty), _) => pagerduty.send(http, body).await,
            (Channel::Alertmanager, .., Some(url)) => http.post(url.clone(), &[], body.to_vec()).await,
            _ => Err(SendError::permanent(format!("{} is not configured: set {}", channel.name(), channel.settings()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_have_names() {
        for channel in Channel::ALL {
            assert_eq!(Channel::named(channel.name()), Some(channel));
        }
        assert_eq!(Channel::named("mail"), None);
    }

    #[test]
    fn each_channel_takes_what_it_can_show() {
        use Kind::{Acknowledged, Digest, Escalated, Opened, Reopened, Repeated, Resolved, Test};
        let table: [(Channel, &[Kind]); 6] = [
            (Channel::Email, &[Opened, Escalated, Reopened, Repeated, Digest, Test]),
            (Channel::Webhook, &Kind::ALL),
            (Channel::Slack, &[Opened, Escalated, Reopened, Repeated, Resolved, Digest, Test]),
            (Channel::Pagerduty, &[Opened, Escalated, Reopened, Acknowledged, Resolved, Test]),
            (Channel::Alertmanager, &[Opened, Escalated, Reopened, Repeated, Resolved, Test]),
            (Channel::Redis, &[Opened, Escalated, Reopened, Repeated, Acknowledged, Resolved, Test]),
        ];
        for (channel, kinds) in table {
            for kind in Kind::ALL {
                assert_eq!(channel.takes(kind), kinds.contains(&kind), "{channel:?} {kind:?}");
            }
        }
    }
}
