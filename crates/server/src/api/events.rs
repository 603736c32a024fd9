//! `POST /events/raw` and `POST /events`: answered when the events are durable.

use std::sync::Arc;

use anomaly_engine::frame::{Batch, BatchBuilder, Origin};
use anomaly_engine::parse::{self, Context, parse_batch, parse_event};
use anomaly_engine::{Code, Report};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::Xxh3;

use super::body::{self, Coding};
use super::query::Params;
use super::schema;
use super::{Api, json, now};
use crate::log::{AnswerKey, Append, AppendError, Appended};
use crate::problem::Problem;

/// From this size on a body is parsed outside the threads that serve sockets.
const BLOCKING_BYTES: usize = 128 << 10;

/// Takes one event. Answered when it is durable.
///
/// The body is read as JSON whatever its content type, so `curl -d` works.
#[utoipa::path(post, path = "/events/raw", operation_id = "post_event", tag = "events",
    request_body(content = schema::Event, content_type = "application/json",
        example = json!({"timestamp": 1234567890.5, "metric": "cpu_usage", "value": 85.5, "labels": {"dc": "eu"}, "meta": {"host": "server-01"}})),
    responses((status = 202, description = "Durable, and queued for detection", body = schema::Queued, example = json!({"status": "queued", "id": "17-0"}))))]
pub(super) async fn raw(State(api): State<Arc<Api>>, request: Request<Body>) -> Result<Response, Problem> {
    let body = body::read(request, api.app.config.limits.max_event_bytes, "an event").await?;
    let mut batch = BatchBuilder::with_made_ids();
    if let Err(rejected) = parse_event(&body, &context(&api), &mut batch) {
        api.app.stats.rejected(rejected.code, 1);
        return Err(Problem::rejected(&rejected));
    }
    let batch = batch.finish(Origin::http());
    let id = batch.first_id().map(str::to_owned);
    let report = Report { accepted: 1, ..Report::default() };
    match api.app.log.append(Append { batch, report, atomic: false, key: None }).await {
        Ok(Appended::Taken { position, report }) => {
            api.app.stats.report(&report);
            let id = id.unwrap_or_else(|| position.made_id());
            Ok((StatusCode::ACCEPTED, json::answer(format!("{{\"status\":\"queued\",\"id\":{}}}", json::text(&id)))).into_response())
        }
        Ok(Appended::Repeated(_)) => Err(Problem::internal("an append without a key was answered as a repeated one")),
        Err(AppendError::Refused(report)) => {
            api.app.stats.report_rejected(&report);
            Err(report.errors.first().map_or_else(|| Problem::refused(&report, "the event was not accepted"), Problem::rejected))
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes a batch: a JSON array or NDJSON, optionally packed with gzip or zstd. Answered when it is durable.
///
/// A bad row does not stop the others unless `atomic=true`. With an `Idempotency-Key` a retry within 24 hours gets the same
/// answer, and nothing is taken twice.
#[utoipa::path(post, path = "/events", operation_id = "post_events", tag = "events",
    params(
        ("atomic" = Option<bool>, Query, description = "Take all rows or none", example = false),
        ("Idempotency-Key" = Option<String>, Header, description = "1–255 visible characters, new for each batch", example = "batch-0001"),
        ("Content-Encoding" = Option<String>, Header, description = "`gzip` or `zstd`", example = "gzip")),
    request_body(content(
        (Vec<schema::Event> = "application/json", example = json!([{"timestamp": 1234567890, "metric": "cpu_usage", "value": 85.5}])),
        (String = "application/x-ndjson", example = json!("{\"metric\":\"cpu_usage\",\"value\":85.5}\n{\"metric\":\"cpu_usage\",\"value\":86}\n")))),
    responses((status = 202, description = "Durable, and queued for detection", body = schema::Report,
        example = json!({"accepted": 1, "rejected": 1, "errors": [{"line": 2, "field": "value", "code": "invalid_type", "message": "value must be a number, got \"x\""}]}))))]
pub(super) async fn batch(
    State(api): State<Arc<Api>>,
    params: Params,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let config = &api.app.config;
    let (atomic, key, coding) = (params.flag("atomic")?, idempotency_key(&headers)?, Coding::of(&headers)?);
    if body::announced(&headers).is_some_and(|n| n > config.limits.max_batch_bytes as u64) {
        return Err(Problem::too_large("a batch", config.limits.max_batch_bytes as u64));
    }
    // Bodies of many clients at once share a bounded memory; who finds none waits.
    let room = api.room_for(body::announced(&headers), coding).await?;
    let body = body::read(request, config.limits.max_batch_bytes, "a batch").await?;
    let key = key.map(|key| AnswerKey { fingerprint: fingerprint("/events", atomic, &body), key });
    let origin = key.as_ref().map_or_else(Origin::http, |key| Origin { name: format!("key:{}", key.key), first: Some(0) });

    let (context, limit) = (context(&api), config.limits.max_batch_unpacked_bytes);
    let read = move || read_batch(coding, body, limit, &context, origin);
    let parsed = match coding {
        Coding::Identity if body_is_small(&headers) => read(),
        _ => tokio::task::spawn_blocking(read).await.map_err(Problem::internal)?,
    };
    drop(room);
    let (batch, report) = parsed.inspect_err(|problem| {
        if problem.code() == Code::InvalidJson.as_str() {
            api.app.stats.rejected(Code::InvalidJson, 1);
        }
    })?;
    if batch.is_empty() || atomic && report.rejected > 0 {
        api.app.stats.report_rejected(&report);
        return Err(refused(&report, atomic));
    }
    match api.app.log.append(Append { batch, report, atomic, key }).await {
        Ok(Appended::Taken { report, .. }) => {
            api.app.stats.report(&report);
            accepted(&report)
        }
        Ok(Appended::Repeated(report)) => accepted(&report),
        Err(AppendError::Refused(report)) => {
            api.app.stats.report_rejected(&report);
            Err(refused(&report, atomic))
        }
        Err(error) => Err(error.into()),
    }
}

/// An `Idempotency-Key`, where there is one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) => Ok(Some(key.to_owned())),
        _ => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_idempotency_key",
            format_args!("Idempotency-Key must be 1 to 255 visible ASCII characters, got {value:?}"),
        )),
    }
}

/// What a key stands for: another request under the same key is an error.
pub(super) fn fingerprint(route: &str, atomic: bool, body: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(route.as_bytes());
    hash.update(&[0, u8::from(atomic)]);
    hash.update(body);
    hash.digest()
}

fn body_is_small(headers: &HeaderMap) -> bool {
    body::announced(headers).is_some_and(|n| n < BLOCKING_BYTES as u64)
}

fn context(api: &Api) -> Context {
    let config = &api.app.config;
    Context { max_event_bytes: config.limits.max_event_bytes, ..Context::new(now(), config.max_future) }
}

fn read_batch(coding: Coding, body: Bytes, limit: usize, context: &Context, origin: Origin) -> Result<(Batch, Report), Problem> {
    let body = coding.unpack(body, limit)?;
    let mut batch = BatchBuilder::new();
    let report = parse_batch(&body, context, &mut batch).map_err(|fault: parse::NotJson| {
        Problem::new(StatusCode::BAD_REQUEST, Code::InvalidJson.as_str(), fault).with("element", fault.element).with("byte", fault.byte)
    })?;
    Ok((batch.finish(origin).at_lines(), report))
}

fn accepted(report: &Report) -> Result<Response, Problem> {
    let body = serde_json::to_string(report).map_err(Problem::internal)?;
    Ok((StatusCode::ACCEPTED, json::answer(body)).into_response())
}

fn refused(report: &Report, atomic: bool) -> Problem {
    let detail = match (report.rejected, atomic) {
        (0, _) => "the batch holds no event".to_owned(),
        (n, true) => format!("{n} rows were rejected and atomic=true takes all or none"),
        (n, false) => format!("all {n} rows were rejected"),
    };
    Problem::refused(report, &detail)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_key_has_visible_characters() {
        let of = |value: &[u8]| {
            idempotency_key(&HeaderMap::from_iter([("idempotency-key".parse().unwrap(), HeaderValue::from_bytes(value).unwrap())]))
        };
        assert_eq!(of(b"a-1").unwrap().as_deref(), Some("a-1"));
        for bad in [&b""[..], b"a b", b"\xff", &[b'x'; 256]] {
            assert_eq!(of(bad).unwrap_err().code(), "invalid_idempotency_key");
        }
    }

    #[test]
    fn a_fingerprint_knows_route_body_and_atomic() {
        let prints = [
            fingerprint("/events", false, b"a"),
            fingerprint("/events", true, b"a"),
            fingerprint("/upload", false, b"a"),
            fingerprint("/events", false, b"b"),
        ];
        assert!(prints.iter().enumerate().all(|(i, print)| !prints[..i].contains(print)));
    }
}
