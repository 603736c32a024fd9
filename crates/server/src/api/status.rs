//! Health, statistics, and what Prometheus reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::anomalies::DAY;
use super::schema;
use super::{Api, now};
use crate::problem::Problem;

/// How long what the store counted is told again: many dashboards ask at once.
const COUNTS_FRESH: Duration = Duration::from_millis(250);

/// What the store counts for `/stats`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    at: Instant,
    anomalies_24h: (u64, u64),
    per_hour: [u64; 24],
}

/// Tells how the server and its components are.
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "status",
    responses((status = 200, description = "`status` is `ok` or `degraded`", body = schema::Health,
        example = json!({"status": "ok", "queue_size": 0, "version": "0.1.0", "uptime_seconds": 12.5, "components": {"log": {"status": "ok"}, "store": {"status": "ok"}}}))))]
pub(super) async fn health(State(api): State<Arc<Api>>) -> Json<Value> {
    api.app.stats.recent_counts().await;
    Json(api.app.stats.health())
}

/// Whether the process answers.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "status",
    responses((status = 200, description = "It does", body = schema::Status, example = json!({"status": "ok"}))))]
pub(super) async fn livez() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether events can be accepted.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "status",
    responses((status = 200, description = "They can", body = schema::Status, example = json!({"status": "ok"}))))]
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Result<Json<Value>, Problem> {
    match api.app.stats.unready() {
        None => Ok(Json(json!({"status": "ok"}))),
        Some(reason) => Err(Problem::unavailable("not_ready", reason)),
    }
}

/// Tells what was counted, and its recent history.
#[utoipa::path(get, path = "/stats", operation_id = "stats", tag = "status",
    responses((status = 200, description = "Totals are kept across restarts; histories are oldest first", body = schema::Stats,
        example = json!(super::openapi::stats_example()))))]
pub(super) async fn stats(State(api): State<Arc<Api>>) -> Result<Json<Value>, Problem> {
    api.app.stats.recent_counts().await;
    let counts = counts(&api).await?;
    Ok(Json(api.app.stats.snapshot(counts.anomalies_24h, counts.per_hour)))
}

/// Everything counted, for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "status",
    responses((status = 200, description = "Exposition format 0.0.4", body = String, content_type = "text/plain",
        example = json!("# TYPE anomaly_events_total counter\nanomaly_events_total 17\n"))))]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.app.stats.exposition())
}

async fn counts(api: &Api) -> Result<Counts, Problem> {
    // Held while the store is asked, so that those who come meanwhile get the same answer and do not ask too.
    let mut cached = api.counts.lock().await;
    if let Some(counts) = cached.filter(|counts| counts.at.elapsed() < COUNTS_FRESH) {
        return Ok(counts);
    }
    let at = now();
    let (anomalies_24h, per_hour) = api.store(move |store| Ok((store.counts_since(at.plus(-DAY))?, store.hours(at)?))).await?;
    Ok(*cached.insert(Counts { at: Instant::now(), anomalies_24h, per_hour }))
}
