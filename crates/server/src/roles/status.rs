//! How a role without an API is, for probes and Prometheus.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::problem::Problem;
use crate::serve;
use crate::stats::Stats;

/// Serves `/livez`, `/readyz`, `/health` and `/metrics` at `STATUS_PORT`, where it is set, until the process ends.
///
/// # Errors
/// The port is in use.
pub(super) async fn start(config: &Config, stats: Arc<Stats>) -> anyhow::Result<()> {
    let Some(port) = config.status_port else { return Ok(()) };
    let address = SocketAddr::new(config.host, port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} (STATUS_PORT)"))?;
    tracing::info!("health and metrics on http://{}/health", listener.local_addr()?);
    let router = Router::new()
        .route("/livez", get(async || Json(json!({"status": "ok"}))))
        .route("/readyz", get(ready))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(stats);
    tokio::spawn(serve::serve(listener, router, serve::Limits::default(), std::future::pending()));
    Ok(())
}

async fn health(State(stats): State<Arc<Stats>>) -> Json<serde_json::Value> {
    Json(stats.health())
}

async fn ready(State(stats): State<Arc<Stats>>) -> Response {
    match stats.unready() {
        None => Json(json!({"status": "ok"})).into_response(),
        Some(reason) => Problem::unavailable("not_ready", reason).into_response(),
    }
}

async fn metrics(State(stats): State<Arc<Stats>>) -> impl IntoResponse {
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], stats.exposition())
}
