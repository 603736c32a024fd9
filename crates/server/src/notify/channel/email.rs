//! Email over SMTP: text, HTML and a picture of the series.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime};

use lettre::address::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, Message as Mail, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use tokio::time::{Instant, timeout, timeout_at};

use super::http::{CONNECT, WHOLE, chain, one_line};
use super::{ChannelsError, SendError};
use crate::config::notify::{EmailConfig, SmtpTls};
use crate::notify::message::{Fact, Kind, Message};
use crate::notify::words::plain_id;
use crate::plot::{self, escaped};

/// Incidents that are told one by one.
const LISTED: usize = 20;
/// For whatever the server says to QUIT.
const GOODBYE: Duration = Duration::from_secs(1);
/// Points from which on a series is drawn.
const DRAWN_FROM: usize = 10;

/// A mail server, and who writes to whom.
pub(super) struct Email {
    server: (String, u16),
    tls: SmtpTls,
    parameters: Option<TlsParameters>,
    credentials: Option<Credentials>,
    from: Mailbox,
    to: Vec<Mailbox>,
    hello: ClientId,
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Email").field("server", &self.server).field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Email {
    pub(super) fn new(config: &EmailConfig) -> Result<Self, ChannelsError> {
        let missing = |name: &str| ChannelsError::Email(format!("{name} is not set"));
        let host = config.host.clone().ok_or_else(|| missing("SMTP_HOST"))?;
        let from = config.from.clone().ok_or_else(|| missing("EMAIL_FROM"))?;
        if config.to.is_empty() {
            return Err(missing("EMAIL_TO"));
        }
        let parameters = match config.tls {
            SmtpTls::None => None,
            SmtpTls::Tls | SmtpTls::Starttls => {
                let mut builder = TlsParameters::builder(host.clone());
                if let Some(pem) = &config.ca {
                    let certificates = Certificate::from_pem(pem.as_bytes()).map_err(|error| ChannelsError::Email(chain(&error)))?;
                    builder = builder.add_root_certificate(certificates);
                }
                Some(builder.build().map_err(|error| ChannelsError::Email(chain(&error)))?)
            }
        };
        let credentials = match (&config.user, &config.password) {
            (Some(user), Some(password)) => Some(Credentials::new(user.clone(), password.reveal().to_owned())),
            _ => None,
        };
        let server = (host, config.port);
        Ok(Self { server, tls: config.tls, parameters, credentials, from, to: config.to.clone(), hello: ClientId::default() })
    }

    /// The whole message as it goes over the wire. A receiver tells a repetition by its Message-ID.
    pub(super) fn render(&self, message: &Message, id: &str) -> Vec<u8> {
        let id = plain_id(id);
        let chart = message.incidents.first().filter(|fact| fact.points.len() >= DRAWN_FROM).and_then(|fact| plot::chart(&fact.points));
        let picture = format!("{id}.chart@anomaly");
        let html = html(message, chart.is_some().then_some(picture.as_str()));
        let date = SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(message.at.nanos()).unwrap_or(0));
        let mut mail = Mail::builder()
            .message_id(Some(format!("<{id}@anomaly>")))
            .date(date)
            .from(self.from.clone())
            .subject(message.subject())
            // No out-of-office note is to answer (RFC 3834).
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()));
        for mailbox in &self.to {
            mail = mail.to(mailbox.clone());
        }
        // Mail programs put what is about one incident below each other.
        if !message.key.is_empty() && message.kind != Kind::Test {
            mail = mail.references(format!("<incident.{}@anomaly>", plain_id(&message.key)));
        }
        let page = SinglePart::builder().content_type(ContentType::TEXT_HTML).body(html);
        // Boundaries are lettre's, which draws them at random: ours make the same bytes of the same message.
        let boundary = |part: &str| format!("----anomaly-{part}-{id}");
        let second = match chart {
            Some(png) => {
                let png_type = ContentType::parse("image/png").unwrap_or(ContentType::TEXT_PLAIN);
                let picture = Attachment::new_inline_with_name(picture, "chart.png".into()).body(png, png_type);
                MultiPart::related().boundary(boundary("related")).singlepart(page).singlepart(picture)
            }
            None => MultiPart::related().boundary(boundary("related")).singlepart(page),
        };
        let plain = SinglePart::builder().content_type(ContentType::TEXT_PLAIN).body(text(message));
        let body = MultiPart::alternative().boundary(boundary("alternative")).singlepart(plain).multipart(second);
        match mail.multipart(body) {
            Ok(mail) => mail.formatted(),
            Err(error) => {
                // There are a sender and recipients, and nothing else can be missing.
                tracing::error!(%error, "an email cannot be written");
                Vec::new()
            }
        }
    }

    /// Sends a message to all who are accepted; whoever is refused is named in the answer.
    pub(super) async fn send(&self, mail: &[u8]) -> Result<String, SendError> {
        let deadline = Instant::now() + WHOLE;
        let late = |_| SendError::temporary(format!("{} did not finish within {} s", self.server.0, WHOLE.as_secs()));
        let mut connection = timeout_at(deadline, self.open()).await.map_err(late)??;
        let result = timeout_at(deadline, self.converse(&mut connection, mail)).await.map_err(late)?;
        // Whatever the server makes of QUIT, what it said of the mail holds.
        let _ = timeout(GOODBYE, connection.abort()).await;
        result
    }

    /// A connection as secure as it is to be.
    async fn open(&self) -> Result<AsyncSmtpConnection, SendError> {
        let (host, port) = &self.server;
        let from_the_start = self.parameters.clone().filter(|_| self.tls == SmtpTls::Tls);
        let connect = AsyncSmtpConnection::connect_tokio1((host.as_str(), *port), Some(CONNECT), &self.hello, from_the_start, None);
        let mut connection = connect.await.map_err(failed)?;
        if let (SmtpTls::Starttls, Some(parameters)) = (self.tls, self.parameters.clone()) {
            if !connection.can_starttls() {
                let message = "the server offers no STARTTLS: set SMTP_TLS=tls if it speaks TLS from the start (usually SMTP_PORT=465)";
                return Err(SendError::temporary(message));
            }
            // Where this fails there is no stream any more: even QUIT would panic in lettre 0.11.
            connection.starttls(parameters, &self.hello).await.map_err(failed)?;
        }
        Ok(connection)
    }

    async fn converse(&self, connection: &mut AsyncSmtpConnection, mail: &[u8]) -> Result<String, SendError> {
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await.map_err(failed)?;
        }
        connection.command(MailFrom::new(Some(self.from.email.clone()), vec![])).await.map_err(failed)?;
        // One address that is no longer one must not keep the others from being told.
        let mut refused: Vec<(&Address, SendError)> = Vec::new();
        for Mailbox { email, .. } in &self.to {
            match connection.command(Rcpt::new(email.clone(), vec![])).await {
                Ok(_) => {}
                Err(error) if error.status().is_some() => refused.push((email, failed(error))),
                Err(error) => return Err(failed(error)),
            }
        }
        let said: Vec<String> = refused.iter().map(|(address, error)| format!("{address} refused: {error}")).collect();
        if refused.len() == self.to.len() {
            let permanent = refused.iter().all(|(_, error)| error.permanent);
            return Err(SendError { permanent, retry_after: None, message: said.join("; ") });
        }
        connection.command(Data).await.map_err(failed)?;
        let answer = told(&connection.message(mail).await.map_err(failed)?);
        Ok(if said.is_empty() { answer } else { format!("{answer}; {}", said.join("; ")) })
    }
}

/// An answer on one line.
fn told(response: &Response) -> String {
    let words: Vec<&str> = response.message().collect();
    one_line(&format!("{} {}", response.code(), words.join(" ")))
}

/// 5xx is the server's last word, all else may be better later.
#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn failed(error: lettre::transport::smtp::Error) -> SendError {
    SendError { permanent: error.is_permanent(), retry_after: None, message: chain(&error) }
}

/// The message for whoever reads text.
fn text(message: &Message) -> String {
    let mut out = format!("{}\n", message.subject());
    let lead = message.lead();
    if !lead.is_empty() {
        let _ = write!(out, "\n{lead}\n");
    }
    for fact in message.incidents.iter().take(LISTED) {
        let _ = write!(out, "\n{} ({})\n  {}\n", fact.name(), fact.severity(), fact.deviation());
        let explanation = fact.explanation();
        if !explanation.is_empty() {
            let _ = writeln!(out, "  {explanation}");
        }
        let _ = write!(out, "  since {}, {}\n  {}\n", fact.when(), fact.course(), fact.link(&message.base_url));
    }
    let unlisted = message.unlisted(LISTED);
    if let Some(digest) = &message.digest {
        let _ = write!(out, "\n{}\n", digest.account());
        for worst in &digest.series {
            let _ = write!(out, "\n{}\n  {}\n", worst.name(), worst.counts());
        }
    }
    if unlisted > 0 {
        let _ = write!(out, "\nand {unlisted} more\n");
    }
    // One incident has its link already.
    if message.incidents.len() != 1 {
        let _ = write!(out, "\n{}\n", message.link());
    }
    out
}

/// The message as a page. Mail programs know few styles, so each element carries its own; nothing is fetched from elsewhere.
fn html(message: &Message, picture: Option<&str>) -> String {
    let subject = escaped(&message.subject());
    let colour = match message.tag() {
        "critical" => "#c62828",
        "warning" => "#b26a00",
        "resolved" => "#2e7d32",
        _ => "#37474f",
    };
    let mut out = format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>{subject}</title></head>\
         <body style=\"margin:0;padding:16px;font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;color:#1a1a1a;background:#fff\">\
         <div style=\"max-width:640px;border-left:4px solid {colour};padding:2px 0 2px 16px\">\
         <p style=\"margin:0 0 8px;font-size:18px;font-weight:600;overflow-wrap:anywhere\">{subject}</p>"
    );
    let paragraph = |out: &mut String, text: &str| {
        let _ = write!(out, "<p style=\"margin:8px 0\">{}</p>", escaped(text));
    };
    let lead = message.lead();
    if !lead.is_empty() {
        paragraph(&mut out, &lead);
    }
    if let (Some(picture), Some(first)) = (picture, message.incidents.first()) {
        let _ = write!(
            out,
            "<p style=\"margin:12px 0\"><img src=\"cid:{picture}\" width=\"600\" alt=\"{}\" style=\"max-width:100%;height:auto;border:0\"></p>",
            escaped(&format!("{} with its expected band", first.name()))
        );
    }
    for fact in message.incidents.iter().take(LISTED) {
        incident(&mut out, fact, &message.base_url);
    }
    let unlisted = message.unlisted(LISTED);
    if let Some(digest) = &message.digest {
        paragraph(&mut out, &digest.account());
        for worst in &digest.series {
            let _ = write!(
                out,
                "<p style=\"margin:8px 0;overflow-wrap:anywhere\"><b>{}</b><br>{}</p>",
                escaped(&worst.name()),
                escaped(&worst.counts())
            );
        }
    }
    if unlisted > 0 {
        paragraph(&mut out, &format!("and {unlisted} more"));
    }
    let _ =
        write!(out, "<p style=\"margin:16px 0 4px\"><a href=\"{}\">Open in anomaly</a></p></div></body></html>", escaped(&message.link()));
    out
}

fn incident(out: &mut String, fact: &Fact, base_url: &str) {
    let explanation = fact.explanation();
    let explanation = if explanation.is_empty() { String::new() } else { format!("{}<br>", escaped(&explanation)) };
    let _ = write!(
        out,
        "<p style=\"margin:12px 0;overflow-wrap:anywhere\"><b><a href=\"{}\" style=\"color:inherit\">{}</a></b> ({})<br>{}<br>{explanation}\
         <span style=\"color:#5f6368\">since {}, {}</span></p>",
        escaped(&fact.link(base_url)),
        escaped(&fact.name()),
        fact.severity(),
        escaped(&fact.deviation()),
        escaped(&fact.when()),
        escaped(&fact.course())
    );
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::notify::message::tests::{digest, fact, hostile, message};

    fn email(port: u16) -> Email {
        let config = EmailConfig {
            enabled: true,
            host: Some("127.0.0.1".into()),
            port,
            tls: SmtpTls::None,
            from: Some("Alerts <alerts@example.org>".parse().unwrap()),
            to: vec!["ops@example.org".parse().unwrap(), "Boss <boss@example.org>".parse().unwrap()],
            ..EmailConfig::default()
        };
        Email::new(&config).unwrap()
    }

    fn rendered(message: &Message) -> String {
        String::from_utf8(email(1).render(message, "n-1")).unwrap()
    }

    fn headers(mail: &str) -> Vec<String> {
        let head = mail.split("\r\n\r\n").next().unwrap();
        head.replace("\r\n ", " ").split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn a_mail_has_id_date_text_page_and_picture() {
        let message = message(Kind::Opened, vec![fact("1c", "api_latency_ms", &[("dc", "eu")], true)]);
        let mail = rendered(&message);
        let headers = headers(&mail);
        for header in [
            "Message-ID: <n-1@anomaly>",
            "Date: Fri, 27 Nov 2026 03:12:05 +0000",
            "From: Alerts <alerts@example.org>",
            "To: ops@example.org, Boss <boss@example.org>",
            "Auto-Submitted: auto-generated",
            "References: <incident.1c@anomaly>",
        ] {
            assert!(headers.iter().any(|line| line == header), "{header}: {headers:#?}");
        }
        for part in
            ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png", "Content-ID: <n-1.chart@anomaly>"]
        {
            assert!(mail.contains(part), "{part}");
        }
        assert_eq!(mail, rendered(&message), "a retry sends the same bytes");
        assert!(mail.is_ascii() && mail.lines().all(|line| line.len() < 998));
    }

    #[test]
    fn without_points_there_is_no_picture() {
        let mut few = fact("1c", "m", &[], true);
        few.points.truncate(DRAWN_FROM - 1);
        let mail = rendered(&message(Kind::Opened, vec![few]));
        assert!(!mail.contains("image/png") && !mail.contains("cid:"));
    }

    #[test]
    fn the_text_says_what_where_since_when_and_how_far_off() {
        let message = message(Kind::Opened, vec![fact("1c", "api_latency_ms", &[("dc", "eu")], true)]);
        assert_eq!(
            text(&message),
            "[critical] api_latency_ms{dc=\"eu\"}: 95, expected 54.5 ± 8.84\n\napi_latency_ms{dc=\"eu\"} (critical)\n  95, expected 54.5 ± 8.84\n  \
             95 is 13.7 standard deviations above the mean 54.5 of the last 20 samples (5 min)\n  \
             since 2026-11-27 03:11:35 UTC, last at 03:12:05, 3 anomalies in 30 s\n  https://anomaly.example.org/#incident=1c\n"
        );
        let digest = text(&digest());
        assert!(digest.contains("14 incidents with 1440 anomalies in 5 series") && digest.contains("and 3 more"), "{digest}");
    }

    #[test]
    fn a_name_adds_no_header_and_no_markup() {
        for kind in Kind::ALL {
            for fact in hostile() {
                let message = message(kind, vec![fact]);
                let mail = rendered(&message);
                let allowed =
                    ["Message-ID", "Date", "From", "To", "Subject", "Auto-Submitted", "References", "MIME-Version", "Content-Type"];
                for line in headers(&mail) {
                    assert!(allowed.contains(&line.split(':').next().unwrap()), "{line:?}");
                }
                let page = html(&message, Some("x"));
                for harm in ["<script", "<img src=x", "<!channel", "<https"] {
                    assert!(!page.contains(harm), "{page}");
                }
            }
        }
        assert_eq!(escaped("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
    }

    /// A server that answers each line by what it begins with; gives what it was told.
    async fn server(answers: &'static [(&'static str, &'static str)]) -> (u16, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = BufReader::new(socket);
            socket.write_all(b"220 here\r\n").await.unwrap();
            let (mut lines, mut in_data) = (Vec::new(), false);
            let mut line = String::new();
            while socket.read_line(&mut line).await.unwrap_or(0) > 0 {
                let text = std::mem::take(&mut line).trim_end().to_owned();
                let found = answers.iter().find(|(start, _)| text.starts_with(start)).map(|(_, answer)| *answer);
                let answer = match text.as_str() {
                    "." if in_data => {
                        in_data = false;
                        Some(found.unwrap_or("250 2.0.0 queued as 42"))
                    }
                    _ if in_data => None,
                    "DATA" => {
                        in_data = found.is_none();
                        Some(found.unwrap_or("354 go on"))
                    }
                    _ => Some(found.unwrap_or("250 fine")),
                };
                lines.push(text);
                if let Some(answer) = answer {
                    socket.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
                }
            }
            lines
        });
        (port, told)
    }

    #[tokio::test]
    async fn a_mail_is_delivered_to_all() {
        let (port, told) = server(&[]).await;
        let email = email(port);
        let mail = email.render(&message(Kind::Opened, vec![fact("1c", "m", &[], true)]), "n-1");
        assert_eq!(email.send(&mail).await, Ok("250 2.0.0 queued as 42".into()));
        let told = told.await.unwrap();
        for line in
            ["MAIL FROM:<alerts@example.org>", "RCPT TO:<ops@example.org>", "RCPT TO:<boss@example.org>", "Message-ID: <n-1@anomaly>"]
        {
            assert!(told.iter().any(|known| known == line), "{line}");
        }
    }

    #[tokio::test]
    async fn who_is_refused_is_named_and_the_others_are_told() {
        let (port, told) = server(&[("RCPT TO:<boss", "550 5.1.1 gone")]).await;
        let answer = email(port).send(b"Subject: x\r\n\r\ny").await.unwrap();
        assert!(answer.starts_with("250 2.0.0 queued as 42; boss@example.org refused: ") && answer.contains("gone"), "{answer}");
        assert!(told.await.unwrap().iter().any(|line| line == "y"));
    }

    #[tokio::test]
    async fn what_the_server_refuses_for_good_is_permanent_and_all_else_is_not() {
        for (answers, permanent) in [
            (&[("MAIL", "451 4.3.0 later")][..], false),
            (&[("MAIL", "550 5.7.1 never")][..], true),
            (&[("RCPT", "550 5.1.1 gone")][..], true),
            (&[("RCPT TO:<ops", "450 grey"), ("RCPT", "550 gone")][..], false),
            (&[("DATA", "554 no")][..], true),
            (&[(".", "452 full")][..], false),
            (&[("EHLO", "421 busy")][..], false),
        ] {
            let (port, _told) = server(answers).await;
            let error = email(port).send(b"Subject: x\r\n\r\ny").await.unwrap_err();
            assert_eq!(error.permanent, permanent, "{answers:?} {error}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert!(!email(port).send(b"x").await.unwrap_err().permanent);
    }

    #[tokio::test]
    async fn a_mail_that_was_taken_is_sent_whatever_becomes_of_the_farewell() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = BufReader::new(socket);
            socket.write_all(b"220 here\r\n").await.unwrap();
            let mut line = String::new();
            while socket.read_line(&mut line).await.unwrap_or(0) > 0 && !line.starts_with("QUIT") {
                let answer = match line.as_str() {
                    "DATA\r\n" => "354 go on\r\n",
                    "Subject: x\r\n" | "\r\n" | "y\r\n" => "",
                    _ => "250 fine\r\n",
                };
                socket.write_all(answer.as_bytes()).await.unwrap();
                line.clear();
            }
            std::future::pending::<()>().await;
        });
        assert_eq!(email(port).send(b"Subject: x\r\n\r\ny").await, Ok("250 fine".into()));
        silent.abort();
    }

    #[tokio::test]
    async fn without_starttls_nothing_is_said() {
        let (port, told) = server(&[]).await;
        let config = EmailConfig {
            enabled: true,
            host: Some("127.0.0.1".into()),
            port,
            user: Some("me".into()),
            password: Some("hunter2".into()),
            from: Some("a@example.org".parse().unwrap()),
            to: vec!["b@example.org".parse().unwrap()],
            ..EmailConfig::default()
        };
        let email = Email::new(&config).unwrap();
        let error = email.send(b"x").await.unwrap_err();
        assert!(error.message.contains("offers no STARTTLS"), "{error}");
        assert!(!told.await.unwrap().iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL")));
        assert!(!format!("{email:?}").contains("hunter2"));
    }
}
