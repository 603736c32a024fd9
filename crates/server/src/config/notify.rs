//! How people are told: channels, routes and how much of it they want. Secrets show neither in logs nor in answers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use anomaly_engine::{Glob, Severity};
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};

use super::value;
use crate::notify::channel::{self, Channel, PubSub};
use crate::notify::guard::HttpUrl;
use crate::silence::Subject;

/// Everything about alerting.
#[derive(Clone, Debug, PartialEq)]
pub struct NotifyConfig {
    /// Email, and the server that takes it.
    pub email: EmailConfig,
    /// Where webhooks are sent.
    pub webhook_url: Option<HttpUrl>,
    /// What they are signed with.
    pub webhook_secret: Option<Secret>,
    /// An incoming webhook of Slack.
    pub slack_webhook_url: Option<HttpUrl>,
    /// The integration key of a PagerDuty service.
    pub pagerduty_routing_key: Option<Secret>,
    /// Where PagerDuty takes events; tests give their own.
    pub pagerduty_url: HttpUrl,
    /// The address of an Alertmanager, without `/api/v2/alerts`.
    pub alertmanager_url: Option<HttpUrl>,
    /// Where incidents are published, for a processor on Redis; no setting.
    pub pubsub: Option<PubSub>,
    /// Where people reach the dashboard, without a slash at the end; `None`: where the server listens.
    pub public_url: Option<String>,
    /// The shortest time between two emails; zero: no limit.
    pub email_rate_limit: Duration,
    /// An incident whose last anomaly is older, in nanoseconds, is not sent; `None`: no limit.
    pub max_age: Option<i64>,
    /// How long incidents are gathered into one message.
    pub group_wait: Duration,
    /// After how long an open incident is told again; `None`: never.
    pub repeat: Option<Duration>,
    /// The most messages in a period; `None`: no limit.
    pub budget: Option<Budget>,
    /// Labels: incidents that agree in all of them are one message.
    pub group_by: Vec<String>,
    /// Who hears of what: the first that matches wins.
    pub routes: Vec<Route>,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        Self {
            email: EmailConfig::default(),
            webhook_url: None,
            webhook_secret: None,
            slack_webhook_url: None,
            pagerduty_routing_key: None,
            pagerduty_url: HttpUrl::pagerduty(),
            alertmanager_url: None,
            pubsub: None,
            public_url: None,
            email_rate_limit: Duration::from_secs(60),
            max_age: Some(3600 * anomaly_engine::NANOS),
            group_wait: Duration::from_secs(1),
            repeat: Some(Duration::from_secs(14_400)),
            budget: None,
            group_by: Vec::new(),
            routes: Vec::new(),
        }
    }
}

impl NotifyConfig {
    /// Whether charts are drawn for alerts.
    pub fn has_charts(&self) -> bool {
        self.is_configured(Channel::Email)
    }

    /// Whether anything can be sent over a channel.
    pub fn is_configured(&self, channel: Channel) -> bool {
        match channel {
            Channel::Email => self.email.enabled,
            Channel::Webhook => self.webhook_url.is_some(),
            Channel::Slack => self.slack_webhook_url.is_some(),
            Channel::Pagerduty => self.pagerduty_routing_key.is_some(),
            Channel::Alertmanager => self.alertmanager_url.is_some(),
            Channel::Redis => self.pubsub.is_some(),
        }
    }

    /// Who hears of what.
    pub fn routing(&self) -> Routing {
        let configured = Channel::ALL.into_iter().filter(|&channel| self.is_configured(channel)).collect();
        Routing { routes: self.routes.clone(), configured }
    }

    /// The channels over which an incident is told.
    pub fn channels_of(&self, subject: Subject<'_>) -> Vec<Channel> {
        channels_of(&self.routes, |channel| self.is_configured(channel), subject)
    }

    /// What is missing or of no use, by the name of the setting at fault.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let EmailConfig { enabled, host, user, password, from, to, .. } = &self.email;
        let missing: Vec<_> = [("SMTP_HOST", host.is_none()), ("EMAIL_FROM", from.is_none()), ("EMAIL_TO", to.is_empty())]
            .into_iter()
            .filter_map(|(name, is_missing)| is_missing.then_some(name))
            .collect();
        if *enabled && !missing.is_empty() {
            let names = missing.join(", ");
            faults.push(("EMAIL_ENABLED", format!("email needs {names} as well: set what is missing, or EMAIL_ENABLED=false")));
        }
        if user.is_some() != password.is_some() {
            let (set, missing) = if user.is_some() { ("SMTP_USER", "SMTP_PASSWORD") } else { ("SMTP_PASSWORD", "SMTP_USER") };
            faults.push((set, format!("{missing} is not set: a server that wants one of them wants both")));
        }
        faults
    }

    /// What should be told at start.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let named = self.routes.iter().flat_map(|route| &route.channels);
        let mut unset: Vec<&str> = named.filter(|channel| !self.is_configured(**channel)).map(|channel| channel.name()).collect();
        unset.sort_unstable();
        unset.dedup();
        for channel in unset {
            warnings.push(format!("a route names the channel {channel}, which is not configured: nothing is sent there"));
        }
        if self.budget.is_some() && self.pagerduty_routing_key.is_some() {
            let words = "NOTIFY_BUDGET also holds back PagerDuty, which takes no digest: what is beyond it is seen only in GET /notifications?status=held";
            warnings.push(words.into());
        }
        if self.webhook_secret.is_some() && self.webhook_url.is_none() {
            warnings.push("WEBHOOK_SECRET is set, but WEBHOOK_URL is not: no webhook is sent".into());
        }
        warnings
    }
}

/// Email, and the server that takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct EmailConfig {
    /// Whether alerts are sent by email.
    pub enabled: bool,
    /// The server.
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// Whom we say we are.
    pub user: Option<String>,
    /// And prove it with.
    pub password: Option<Secret>,
    /// How the connection is secured.
    pub tls: SmtpTls,
    /// Certificates, as PEM, that are trusted besides the system's.
    pub ca: Option<String>,
    /// The sender.
    pub from: Option<Mailbox>,
    /// The recipients.
    pub to: Vec<Mailbox>,
}

impl Default for EmailConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            host: None,
            port: 587,
            user: None,
            password: None,
            tls: SmtpTls::Starttls,
            ca: None,
            from: None,
            to: Vec::new(),
        }
    }
}

/// How a connection to a mail server is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// It begins in the clear and must become TLS before anything is said (usually port 587).
    Starttls,
    /// TLS from the first byte (usually port 465).
    Tls,
    /// In the clear: for a relay on the same machine.
    None,
}

impl SmtpTls {
    /// All.
    pub const ALL: [Self; 3] = [Self::Starttls, Self::Tls, Self::None];

    /// As it is configured.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starttls => "starttls",
            Self::Tls => "tls",
            Self::None => "none",
        }
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself: for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// What stands for a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// The most messages in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Messages.
    pub limit: u32,
    /// How long they must do.
    pub period: Period,
}

/// Periods of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// 60 minutes.
    Hour,
    /// 24 hours.
    Day,
    /// 7 days.
    Week,
}

impl Period {
    const WORDS: [(&str, Self); 3] = [("hour", Self::Hour), ("day", Self::Day), ("week", Self::Week)];

    /// Its length.
    pub fn duration(self) -> Duration {
        let hours = match self {
            Self::Hour => 1,
            Self::Day => 24,
            Self::Week => 7 * 24,
        };
        Duration::from_secs(hours * 3600)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Period::WORDS.iter().find(|(_, period)| *period == self.period).map_or("", |(word, _)| word);
        write!(f, "{}/{word}", self.limit)
    }
}

/// Who hears of what, as a record may hold it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routing {
    /// The first that matches wins.
    pub routes: Vec<Route>,
    /// The channels over which anything can be sent.
    pub configured: Vec<Channel>,
}

impl Routing {
    /// The names of the channels over which an incident is told, between commas.
    pub fn names_of(&self, subject: Subject<'_>) -> String {
        channel::names(&channels_of(&self.routes, |channel| self.configured.contains(&channel), subject))
    }
}

/// The channels of the first route that matches, all where none does; in both cases only those that are configured.
fn channels_of(routes: &[Route], is_configured: impl Fn(Channel) -> bool, subject: Subject<'_>) -> Vec<Channel> {
    let route = routes.iter().find(|route| route.matches(subject));
    let wanted = |channel: Channel| route.is_none_or(|route| route.channels.contains(&channel));
    Channel::ALL.into_iter().filter(|&channel| is_configured(channel) && wanted(channel)).collect()
}

/// Who hears of what: a table under `[[routes]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Pattern of the metric; absent: every metric.
    pub metric: Option<String>,
    /// Patterns of labels that the series must have.
    pub labels: BTreeMap<String, String>,
    /// The severity; absent: both.
    pub severity: Option<Severity>,
    /// Over which channels such incidents are told; none: nobody is told.
    pub channels: Vec<Channel>,
}

impl Route {
    /// Whether it speaks of such an incident.
    pub fn matches(&self, subject: Subject<'_>) -> bool {
        self.metric.as_ref().is_none_or(|pattern| Glob::new(pattern).matches(subject.metric))
            && self.severity.is_none_or(|wanted| (wanted == Severity::Critical) == subject.critical)
            && self.labels.iter().all(|(name, pattern)| subject.label(name).is_some_and(|value| Glob::new(pattern).matches(value)))
    }
}

/// Reads `2/week`, `5/day` or `1/hour`.
pub(super) fn budget(text: &str) -> Result<Budget, String> {
    let read = || {
        let (limit, period) = text.split_once('/')?;
        let limit = value::count32(limit.trim()).ok()?;
        Some(Budget { limit, period: value::word(period.trim(), &Period::WORDS).ok()? })
    };
    read().ok_or_else(|| format!("must be a number of messages and hour, day or week, such as 2/week, got {text:?}"))
}

/// Reads an address of email, with or without a name: `ops@example.org`, `Alerts <alerts@example.org>`.
pub(super) fn mailbox(text: &str) -> Result<Mailbox, String> {
    let text = text.trim();
    // The parser reads as far as it can: what stands behind an address would be lost.
    let whole = if text.contains('<') { text.ends_with('>') } else { !text.contains(char::is_whitespace) };
    let plain = !text.contains(char::is_control) && text.rsplit('<').next().is_some_and(str::is_ascii);
    Mailbox::from_str(text)
        .ok()
        .filter(|_| whole && plain)
        .ok_or_else(|| format!("must be an address such as ops@example.org or Alerts <alerts@example.org>, got {text:?}"))
}

/// Reads addresses between commas, each once.
pub(super) fn mailboxes(text: &str) -> Result<Vec<Mailbox>, String> {
    let mut all: Vec<Mailbox> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let mailbox = mailbox(part)?;
        if all.iter().all(|known| known.email != mailbox.email) {
            all.push(mailbox);
        }
    }
    if all.is_empty() { Err("must be addresses between commas".into()) } else { Ok(all) }
}

/// Reads the name or address of a server.
pub(super) fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let fine = !bare.is_empty() && bare.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
    // One colon is a port; an IPv6 address has more.
    let fine = fine && bare.matches(':').count() != 1;
    if fine {
        Ok(bare.to_owned())
    } else {
        Err(format!("must be the name or address of a server such as mail.example.org (the port is SMTP_PORT), got {text:?}"))
    }
}

/// Reads certificates as PEM.
pub(super) fn certificates(text: &str) -> Result<String, String> {
    let read = lettre::transport::smtp::client::Certificate::from_pem(text.as_bytes());
    if text.contains("-----BEGIN CERTIFICATE-----") && read.is_ok() {
        Ok(text.to_owned())
    } else {
        Err("must be certificates as PEM (-----BEGIN CERTIFICATE-----): SMTP_CA_FILE names a file that holds them".into())
    }
}

/// Reads the address at which people reach the dashboard.
pub(super) fn public_url(text: &str) -> Result<String, String> {
    let url = plain_url(text);
    url.map(|text| text.trim_end_matches('/').to_owned())
        .ok_or_else(|| format!("must be an address such as https://anomaly.example.org or https://example.org/anomaly, got {text:?}"))
}

fn plain_url(text: &str) -> Option<String> {
    let url = reqwest::Url::parse(text).ok()?;
    let plain = ["http", "https"].contains(&url.scheme()) && url.host().is_some() && url.query().is_none() && url.fragment().is_none();
    (plain && url.username().is_empty() && url.password().is_none()).then(|| url.to_string())
}

/// Reads seconds as a duration, of which zero is allowed.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    // A century is never.
    value::seconds_from_zero(text).map(|seconds| Duration::from_secs_f64(seconds.min(3.2e9)))
}

/// As [`duration`], zero as none.
pub(super) fn duration_or_never(text: &str) -> Result<Option<Duration>, String> {
    duration(text).map(|duration| Some(duration).filter(|duration| !duration.is_zero()))
}

/// Reads the secret of webhooks: any text, or what Standard Webhooks calls one.
pub(super) fn webhook_secret(text: &str) -> Result<Secret, String> {
    match channel::webhook::key(text) {
        Some(_) => Ok(Secret::from(text)),
        None => Err("begins with whsec_, but what follows is not base64".into()),
    }
}

/// Names between commas.
pub(super) fn names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_a_number_and_a_period() {
        for (text, limit, period, written) in [
            ("2/week", 2, Period::Week, "2/week"),
            (" 10 / Day", 10, Period::Day, "10/day"),
            ("1/hour", 1, Period::Hour, "1/hour"),
            ("1_000/week", 1000, Period::Week, "1000/week"),
        ] {
            let read = budget(text).unwrap();
            assert_eq!(read, Budget { limit, period });
            assert_eq!(read.to_string(), written);
        }
        for text in ["", "2", "week", "0/week", "-1/day", "2/month", "2/week/day", "1.5/day", "x/day"] {
            assert!(budget(text).unwrap_err().ends_with(&format!("got {text:?}")), "{text}");
        }
        assert_eq!(Period::Week.duration(), Duration::from_secs(604_800));
    }

    #[test]
    fn addresses_are_read_whole_or_refused() {
        assert_eq!(mailbox("ops@example.org").unwrap().to_string(), "ops@example.org");
        assert_eq!(mailbox(" Alerts <a@example.org> ").unwrap().name.as_deref(), Some("Alerts"));
        for text in [
            "ops",
            "@example.org",
            "a@b c@d",
            "a@example.org\r\nBcc: x@example.org",
            "a@example.org junk",
            "A <a@b> x",
            "ö@example.org",
            "",
        ] {
            assert!(mailbox(text).is_err(), "{text:?}");
        }
        let read = mailboxes("a@example.org, B <b@example.org>,, a@example.org").unwrap();
        assert_eq!(read.iter().map(|mailbox| mailbox.email.to_string()).collect::<Vec<_>>(), ["a@example.org", "b@example.org"]);
        assert!(mailboxes(" , ").is_err() && mailboxes("a@example.org, nobody").unwrap_err().ends_with("got \"nobody\""));
    }

    #[test]
    fn a_server_is_named_without_its_port() {
        for (text, read) in [("mail.example.org", "mail.example.org"), ("[::1]", "::1"), ("::1", "::1"), ("10.0.0.1", "10.0.0.1")] {
            assert_eq!(host(text).unwrap(), read);
        }
        for text in ["mail:587", "smtp://mail", "a b", "[]"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_route_that_matches_decides_and_only_what_is_configured_is_used() {
        let mut config = NotifyConfig {
            webhook_url: Some(HttpUrl::parse("http://localhost:1").unwrap()),
            slack_webhook_url: Some(HttpUrl::parse("http://localhost:2").unwrap()),
            ..NotifyConfig::default()
        };
        let of = |config: &NotifyConfig, metric: &str, severity| {
            let labels = [("dc".to_owned(), "eu-1".to_owned())];
            config.channels_of(Subject { series: "", metric, labels: &labels, critical: severity == Severity::Critical })
        };
        assert_eq!(of(&config, "cpu", Severity::Warning), [Channel::Webhook, Channel::Slack]);
        let labels = |pattern: &str| BTreeMap::from([("dc".to_owned(), pattern.to_owned())]);
        config.routes = vec![
            Route { labels: labels("us*"), ..Route::default() },
            Route { metric: Some("cpu*".into()), severity: Some(Severity::Critical), channels: vec![Channel::Slack], ..Route::default() },
            Route { metric: Some("noise".into()), ..Route::default() },
            Route { labels: labels("eu*"), channels: vec![Channel::Email, Channel::Webhook], ..Route::default() },
        ];
        assert_eq!(of(&config, "cpu_usage", Severity::Critical), [Channel::Slack]);
        assert_eq!(of(&config, "cpu_usage", Severity::Warning), [Channel::Webhook]);
        assert_eq!(of(&config, "noise", Severity::Critical), []);
        assert_eq!(config.warnings(), ["a route names the channel email, which is not configured: nothing is sent there"]);
    }

    #[test]
    fn no_secret_is_shown() {
        let config = NotifyConfig {
            webhook_url: Some(HttpUrl::parse("https://user:hunter2@hooks.example.org/hunter2?token=hunter2").unwrap()),
            webhook_secret: Some("hunter2".into()),
            slack_webhook_url: Some(HttpUrl::parse("https://hooks.slack.com/services/hunter2").unwrap()),
            pagerduty_routing_key: Some("hunter2".into()),
            email: EmailConfig { password: Some("hunter2".into()), ..EmailConfig::default() },
            ..NotifyConfig::default()
        };
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2") && shown.contains("hooks.example.org"), "{shown}");
    }
}
