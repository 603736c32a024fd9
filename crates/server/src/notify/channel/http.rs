//! Posts JSON: with deadlines, without redirects or proxies, to where [`guard`](crate::notify::guard) lets it.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use super::{ChannelsError, SendError};
use crate::notify::guard::GuardedResolver;
use crate::notify::words::{shortened, tame};

/// Until a connection must stand.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Until all must be done.
pub(super) const WHOLE: Duration = Duration::from_secs(30);
/// The most that is read of an answer.
const ANSWER_BYTES: usize = 4096;
/// What stands for a secret.
pub(super) const HIDDEN: &str = "(hidden)";
/// Shorter parts of an address are words that anybody may say.
const SECRET_FROM: usize = 6;
/// The most that is told of it.
const ANSWER_CHARS: usize = 200;
/// The longest that another side may ask to be left alone.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// What posts.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
}

impl Http {
    /// A client. Whoever sends over http alone needs no certificates to trust.
    pub(super) fn new(over_https: bool) -> Result<Self, ChannelsError> {
        let builder = Client::builder()
            .user_agent(concat!("anomaly/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(GuardedResolver)
            // Where a redirect or a proxy of the environment leads nobody has judged.
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            // Messages are rare, and a connection that is kept is one whose address nobody judges again.
            .pool_max_idle_per_host(0);
        let builder = if over_https { builder } else { builder.tls_certs_only([]) };
        let client = builder.build().map_err(|error| ChannelsError::Http(chain(&error)))?;
        Ok(Self { client })
    }

    /// Posts JSON and returns what was answered, on one line.
    pub(super) async fn post(&self, url: Url, headers: &[(&'static str, String)], body: Vec<u8>) -> Result<String, SendError> {
        let secrets = secrets_of(&url);
        let mut request = self.client.post(url).header(CONTENT_TYPE, "application/json").body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send().await.map_err(|error| SendError::temporary(chain(&error.without_url())))?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        let answer = text_of(response, &secrets).await;
        let said = if answer.is_empty() { status.to_string() } else { format!("{status}: {answer}") };
        judge(status, retry_after, said)
    }
}

/// What an answer means.
fn judge(status: StatusCode, retry_after: Option<Duration>, said: String) -> Result<String, SendError> {
    let temporary =
        status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    match status {
        _ if status.is_success() => Ok(said),
        _ if temporary => Err(SendError { permanent: false, retry_after, message: said }),
        _ if status.is_redirection() => Err(SendError::permanent(format!("{said} (redirects are not followed: set the URL it leads to)"))),
        _ => Err(SendError::permanent(said)),
    }
}

/// What of an address whoever answers may repeat, and nobody else is to read: a path may be a password, as Slack's is.
fn secrets_of(url: &Url) -> Vec<String> {
    let segments = url.path_segments().into_iter().flatten().map(str::to_owned);
    let values = url.query_pairs().flat_map(|(name, value)| [name.into_owned(), value.into_owned()]);
    let user = [url.username().to_owned(), url.password().unwrap_or_default().to_owned()];
    let mut secrets: Vec<_> = segments.chain(values).chain(user).filter(|text| text.len() >= SECRET_FROM).collect();
    // The longest first: one may hold another.
    secrets.sort_by_key(|text| std::cmp::Reverse(text.len()));
    secrets
}

/// The beginning of a body, on one line, without secrets.
async fn text_of(mut response: Response, secrets: &[String]) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == ANSWER_BYTES {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    one_line(&secrets.iter().fold(text.into_owned(), |text, secret| text.replace(secret, HIDDEN)))
}

/// An answer as it is told.
pub(super) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    shortened(&tame(&words.join(" ")), ANSWER_CHARS)
}

/// Seconds or a date (RFC 9110 §10.2.3).
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(at.duration_since(jiff::Timestamp::now())).ok()?
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    // What only says that there is a cause.
    const HOLLOW: [&str; 4] = ["error sending request", "client error", "dns error", "error resolving DNS"];
    let mut told: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let text = error.to_string();
        let hollow = next.is_some() && HOLLOW.iter().any(|hollow| text.starts_with(hollow));
        // Some repeat their cause.
        if !hollow && !told.last().is_some_and(|last| last.ends_with(&text)) {
            told.push(text);
        }
    }
    let text = told.join(": ");
    shortened(&tame(&text), 2 * ANSWER_CHARS)
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    #[test]
    fn what_an_address_keeps_secret_is_hidden_wherever_it_is_repeated() {
        let secrets = secrets_of(&"https://hooks.example.org/services/T0001/B000123/hunter2hunter2?token=s3cr3t-s3cr3t".parse().unwrap());
        assert_eq!(secrets, ["hunter2hunter2", "s3cr3t-s3cr3t", "services", "B000123"]);
    }

    /// A server that takes one request and answers with what it is given; gives the request.
    pub(in super::super) async fn answering(answer: &'static str) -> (Url, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=hunter2", listener.local_addr().unwrap()).parse().unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 8192];
            loop {
                let n = socket.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..n]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let length =
                    text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
                if let (Some(end), Some(length)) = (text.find("\r\n\r\n"), length)
                    && request.len() >= end + 4 + length
                {
                    let _ = socket.write_all(answer.as_bytes()).await;
                    return text;
                }
            }
        });
        (url, server)
    }

    async fn posted(answer: &'static str) -> Result<String, SendError> {
        let (url, server) = answering(answer).await;
        let result = Http::new(false).unwrap().post(url, &[], b"{}".to_vec()).await;
        let request = server.await.unwrap();
        assert!(request.starts_with("POST /hook?token=hunter2 HTTP/1.1\r\n") && request.ends_with("\r\n\r\n{}"), "{request}");
        result
    }

    #[tokio::test]
    async fn answers_are_sent_later_or_never() {
        let ok = posted("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok\r\n\t").await;
        assert_eq!(ok, Ok("200 OK: ok".into()));
        for (answer, permanent, wait) in [
            ("HTTP/1.1 429 Slow Down\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", false, Some(7)),
            ("HTTP/1.1 503 Away\r\nretry-after: 9999999\r\ncontent-length: 0\r\n\r\n", false, Some(21_600)),
            ("HTTP/1.1 500 Oops\r\nretry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n", false, None),
            ("HTTP/1.1 408 Late\r\ncontent-length: 0\r\n\r\n", false, None),
            ("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", true, None),
            ("HTTP/1.1 400 Bad\r\ncontent-length: 3\r\n\r\nbad", true, None),
            ("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n", true, None),
        ] {
            let error = posted(answer).await.unwrap_err();
            assert_eq!((error.permanent, error.retry_after), (permanent, wait.map(Duration::from_secs)), "{answer}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_local_name_may_lead_inside() {
        let (mut url, server) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        url.set_host(Some("localhost")).unwrap();
        assert_eq!(Http::new(false).unwrap().post(url, &[], b"{}".to_vec()).await, Ok("200 OK".into()));
        server.await.unwrap();
    }

    #[tokio::test]
    async fn no_more_of_an_answer_is_read_than_is_told() {
        let answer: &'static str = Box::leak(format!("HTTP/1.1 400 Bad\r\n\r\n{}\u{202e}", "x\r\n".repeat(5000)).into_boxed_str());
        let error = posted(answer).await.unwrap_err();
        assert!(error.message.len() < 300 && error.message.starts_with("400 Bad Request: x x x"), "{error}");
    }

    #[tokio::test]
    async fn a_connection_that_fails_is_tried_again_and_its_url_not_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/hunter2", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let error = Http::new(false).unwrap().post(url, &[], vec![]).await.unwrap_err();
        assert!(!error.permanent && error.message.contains("refused") && !error.message.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn a_date_says_when_to_come_back() {
        let at = jiff::Timestamp::now() + Duration::from_secs(100);
        let date = at.strftime("%a, %d %b %Y %H:%M:%S GMT");
        let answer: &'static str =
            Box::leak(format!("HTTP/1.1 503 Away\r\nretry-after: {date}\r\ncontent-length: 0\r\n\r\n").into_boxed_str());
        let wait = posted(answer).await.unwrap_err().retry_after.unwrap();
        assert!((95..=100).contains(&wait.as_secs()), "{wait:?}");
    }
}
