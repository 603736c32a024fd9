//! Asks a running server: what `anomaly incidents` and `anomaly silence` go through.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, Method};
use serde_json::Value;

use crate::cli::AtServer;
use crate::config::Sources;

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    url: String,
    http: Client,
}

impl Server {
    /// The server that was named, else the one that the configuration of this place would start.
    pub(super) fn new(at: &AtServer) -> anyhow::Result<Self> {
        let url = match &at.server {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => url.trim_end_matches('/').to_owned(),
            Some(other) => bail!("--server must be an address such as http://127.0.0.1:8000, got {other:?}"),
            None => Sources::of_process(Vec::new(), at.config.as_deref(), false)?.load()?.config.own_url(),
        };
        let http = Client::builder().timeout(TIMEOUT).no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { url, http })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(body.to_string())).await
    }

    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::DELETE, path, None).await
    }

    /// The answer; null where it is empty.
    async fn ask(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<Value> {
        let text = self.text(method, path, body).await?;
        if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text).context("the server's answer is not JSON") }
    }

    /// The answer as it came.
    pub(super) async fn text(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<String> {
        let url = format!("{}{path}", self.url);
        let request = self.http.request(method, &url).body(body.unwrap_or_default());
        let answer = request
            .send()
            .await
            .with_context(|| format!("no server answers at {} (start one with `anomaly`, or name it with --server)", self.url))?;
        let status = answer.status();
        let text = answer.text().await.context("the server's answer was cut")?;
        if status.is_success() {
            return Ok(text);
        }
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        match problem["detail"].as_str() {
            Some(detail) => bail!("{detail} ({status})"),
            None => bail!("the server answered {status}; is {} an anomaly server?", self.url),
        }
    }
}
