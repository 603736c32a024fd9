//! The routes as a client sees them, over the real stages, in memory.

mod guards;
mod reading;
mod writing;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::app::App;
use crate::config::Config;
use crate::fatal::Fatal;
use crate::log::sqlite::Durability;
use crate::problem::PROBLEM_JSON;
use crate::run::Stages;

/// A server without sockets.
struct Server {
    router: Router,
    app: App,
    // Its threads end with the handles.
    _stages: Stages,
}

/// An answer, read whole.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Server {
    async fn new() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let config = Config { durability: Durability::Memory, shards: 1, ..config };
        let stages = Stages::start(config, Fatal::new().0).await.unwrap();
        let app = stages.app.clone();
        Self { router: super::router(app.clone()), app, _stages: stages }
    }

    /// Takes NDJSON of which every row is good, and waits until it is judged.
    async fn fill(&self, rows: &str) {
        let answer = self.post("/events", &[], rows.to_owned()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["rejected"]), (202, &Value::from(0)), "{answer:?}");
        while self.app.stats.queue_depth() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:8000");
        }
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Body::empty()).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.send(Method::POST, path, headers, body).await
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// That it is a problem of this status and code; its body.
    fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.header("content-type")), (status, PROBLEM_JSON), "{self:?}");
        let body = self.json();
        assert_eq!((&body["code"], &body["status"]), (&Value::from(code), &Value::from(status)), "{self:?}");
        assert!(body["title"].is_string() && body["detail"].is_string(), "{self:?}");
        body
    }
}
