//! Errors as RFC 9457 problems: the only error type that handlers return.

use std::fmt::Display;

use anomaly_engine::{Rejected, Report};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::desk::DeskError;
use crate::log::{AppendError, ForgetError};
use crate::redis::RedisError;
use crate::store::StoreError;
use crate::upload::UploadError;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error answer: a status, a stable code, what is wrong in words, and fields of its own.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    fields: Vec<(String, Value)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem; `code` never changes its meaning, `detail` is for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Display) -> Self {
        Self { status, code, detail: detail.to_string(), fields: Vec::new(), headers: Vec::new() }
    }

    /// 422 `invalid_parameter`: a query parameter or form field that cannot be used, by name.
    pub fn parameter(name: &str, detail: impl Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_parameter", format_args!("{name}: {detail}")).with("parameter", name)
    }

    /// 404 `not_found`.
    pub fn not_found(detail: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 413 `too_large`. The rest of the request is not read, so the connection ends with the answer.
    pub fn too_large(what: &str, limit: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format_args!("{what} may have at most {limit} bytes")).closing()
    }

    /// 500 `internal`: the cause goes to the log, not to the client.
    pub fn internal(cause: impl Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server failed; its log says why")
    }

    /// 503 with `Retry-After: 1`.
    pub fn unavailable(code: &'static str, detail: impl Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 422 (400 where it is not JSON at all) for a single event.
    pub fn rejected(rejected: &Rejected) -> Self {
        use anomaly_engine::Code::{InvalidJson, InvalidUtf8, TooLarge};
        let status = match rejected.code {
            InvalidJson | InvalidUtf8 => StatusCode::BAD_REQUEST,
            TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let problem = Self::new(status, rejected.code.as_str(), &rejected.message);
        if rejected.field.is_empty() { problem } else { problem.with("field", rejected.field.as_str()) }
    }

    /// 422 for a batch of which nothing was taken, with what a good answer would hold.
    pub fn refused(report: &Report, detail: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "nothing_accepted", detail)
            .with("accepted", 0)
            .with("rejected", report.rejected)
            .with("errors", json!(report.errors))
    }

    /// Adds a field of this problem's own.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Ends the connection with this answer.
    #[must_use]
    pub fn closing(self) -> Self {
        self.header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The body.
    pub fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("type".into(), "about:blank".into());
        body.insert("title".into(), self.status.canonical_reason().unwrap_or("Error").into());
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("code".into(), self.code.into());
        body.insert("detail".into(), self.detail.as_str().into());
        body.extend(self.fields.clone());
        Value::Object(body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.body().to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match &error {
            AppendError::Refused(report) => Self::refused(report, "no row was accepted"),
            AppendError::KeyReused => Self::key_reused(),
            AppendError::QueueFull { .. } => Self::unavailable("queue_full", error),
            AppendError::MemoryFull { .. } => Self::unavailable("memory_full", error),
            AppendError::DiskFull(_) => Self::disk_full(&error),
            AppendError::Away(_) => Self::unavailable("log_unavailable", error),
            AppendError::Closing => Self::unavailable("stopping", error).closing(),
        }
    }
}

impl From<ForgetError> for Problem {
    fn from(error: ForgetError) -> Self {
        match error {
            ForgetError::Unknown(_) => Self::not_found(error),
            ForgetError::Append(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::BadCursor(_) => Self::bad_cursor(error),
            StoreError::Away(_) => Self::unavailable("store_unavailable", error),
            _ => Self::internal(error),
        }
    }
}

impl From<RedisError> for Problem {
    fn from(error: RedisError) -> Self {
        Self::unavailable("store_unavailable", error)
    }
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Closing => Self::unavailable("stopping", error).closing(),
            DeskError::Store(StoreError::Full(fault)) => Self::disk_full(&fault),
            DeskError::Store(error) => error.into(),
        }
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooLarge { limit, .. } => Self::too_large("a file", limit),
            UploadError::KeyReused => Self::key_reused(),
            UploadError::Append(error) => error.into(),
            UploadError::Spool(fault) if fault.kind() == std::io::ErrorKind::StorageFull => Self::disk_full(&fault),
            UploadError::Spool(fault) => Self::internal(fault),
        }
    }
}

impl Problem {
    /// 400 `bad_cursor`.
    pub fn bad_cursor(detail: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_cursor", detail)
    }

    fn key_reused() -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", AppendError::KeyReused)
    }

    fn disk_full(detail: &dyn Display) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", detail)
    }
}

#[cfg(test)]
mod tests {
    use anomaly_engine::Code;

    use super::*;

    fn rejected(code: Code) -> Rejected {
        Rejected { line: 1, field: "value".into(), code, message: "value must be a number, got \"x\"".into() }
    }

    #[test]
    fn a_problem_has_the_fields_of_rfc_9457_and_a_code() {
        let body = Problem::parameter("limit", "must be from 1 to 1000, got 0").body();
        assert_eq!(
            body,
            json!({"type": "about:blank", "title": "Unprocessable Entity", "status": 422, "code": "invalid_parameter",
                   "detail": "limit: must be from 1 to 1000, got 0", "parameter": "limit"})
        );
    }

    #[test]
    fn an_event_that_is_no_json_is_400_and_a_wrong_field_422() {
        assert_eq!(Problem::rejected(&rejected(Code::InvalidJson)).status(), 400);
        assert_eq!(Problem::rejected(&rejected(Code::InvalidUtf8)).status(), 400);
        let problem = Problem::rejected(&rejected(Code::InvalidValue));
        assert_eq!((problem.status().as_u16(), problem.code()), (422, "invalid_value"));
        assert_eq!(problem.body()["field"], "value");
    }

    #[test]
    fn full_queues_say_when_to_come_back_and_a_full_disk_is_507() {
        for (error, status, code) in [
            (AppendError::QueueFull { queued: 9, capacity: 9 }, 503, "queue_full"),
            (AppendError::MemoryFull { used: 9, limit: 9 }, 503, "memory_full"),
            (AppendError::Away("redis is away".into()), 503, "log_unavailable"),
            (AppendError::Closing, 503, "stopping"),
            (AppendError::DiskFull("0 bytes left".into()), 507, "disk_full"),
            (AppendError::KeyReused, 422, "idempotency_key_reused"),
        ] {
            let problem = Problem::from(error);
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code));
            let response = problem.into_response();
            assert_eq!(response.headers().get("retry-after").is_some(), status == 503, "{code}");
            assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
        }
    }

    #[test]
    fn what_failed_inside_stays_in_the_log() {
        let problem = Problem::from(StoreError::Sqlite(rusqlite::Error::InvalidColumnName("secret".into())));
        assert_eq!(problem.status(), 500);
        assert!(!problem.body().to_string().contains("secret"), "{}", problem.body());
    }

    #[test]
    fn a_refused_batch_tells_its_rows() {
        let mut report = Report::default();
        report.reject(rejected(Code::InvalidValue));
        let body = Problem::from(AppendError::Refused(report)).body();
        assert_eq!((&body["accepted"], &body["rejected"], &body["errors"][0]["code"]), (&json!(0), &json!(1), &json!("invalid_value")));
    }
}
