//! The OpenAPI document: the routes' own descriptions, the problems they share, and the examples.

use serde_json::{Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{OpenApi, Ref, RefOr, ResponseBuilder};

use super::schema;
use crate::problem::{PROBLEM_JSON, Problem};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "anomaly", description = "Finds anomalies in streams of metrics as they arrive, by statistics alone, and tells people about them.\n\nErrors are RFC 9457 problems with a stable `code`.", license(name = "MIT", identifier = "MIT")),
    components(schemas(schema::ProblemDetails)),
    tags(
        (name = "events", description = "Sending events"),
        (name = "uploads", description = "Sending files"),
        (name = "anomalies", description = "What was found"),
        (name = "incidents", description = "Anomalies that belong together, and what people say of them"),
        (name = "silences", description = "For a while, nobody hears of what matches"),
        (name = "notifications", description = "What people were told"),
        (name = "series", description = "What is known of each series"),
        (name = "status", description = "How the server is")))]
struct Document;

/// The problems of an operation: status, and when.
type Problems = &'static [(u16, &'static str)];

const LISTS: Problems = &[(400, "A cursor that this server did not give"), (422, "A parameter that cannot be used")];
const UNKNOWN: Problems = &[(404, "It is not known")];
const SERIES: Problems = &[(404, "No such series or point"), (422, "A parameter that cannot be used")];
const PARAMETERS: Problems = &[(422, "A parameter that cannot be used")];
const WRITES: Problems = &[
    (400, "The body is not JSON, damaged or incomplete"),
    (403, "The origin may not write"),
    (413, "Too large"),
    (422, "Nothing was accepted; `errors` says why"),
    (503, "A queue or memory is full, or the server is stopping: try again"),
    (507, "The disk is full"),
];
const BATCHES: Problems = &[(415, "A content encoding other than gzip and zstd")];
const FORMS: Problems = &[
    (400, "The form is damaged or incomplete"),
    (403, "The origin may not write"),
    (413, "A file is too large"),
    (415, "The body is no form"),
    (503, "A queue or memory is full, or the server is stopping: try again"),
    (507, "The disk is full"),
];
const FORGETS: Problems = &[
    (403, "The origin may not write"),
    (404, "No such series"),
    (422, "A parameter that cannot be used"),
    (503, "The server is stopping: try again"),
    (507, "The disk is full"),
];
const SAYS: Problems = &[
    (400, "The body is not JSON"),
    (403, "The origin may not write"),
    (413, "Too large"),
    (422, "A member that cannot be used"),
    (503, "The server is stopping: try again"),
    (507, "The disk is full"),
];
const OF_OPEN: Problems = &[(404, "It is not known"), (409, "It is resolved already")];
const ENDS: Problems =
    &[(403, "The origin may not write"), (404, "It is not known"), (503, "The server is stopping: try again"), (507, "The disk is full")];
const UPGRADES: Problems =
    &[(400, "A cursor that this server did not give"), (403, "The origin may not listen"), (426, "The request is no WebSocket's")];

fn problems_of(operation: &str) -> [Problems; 2] {
    match operation {
        "post_event" => [WRITES, &[]],
        "post_events" => [WRITES, BATCHES],
        "upload_file" | "upload_files" => [FORMS, &[]],
        "list_anomalies" | "list_incidents" | "list_series" | "list_notifications" => [LISTS, &[]],
        "acknowledge" | "resolve" => [SAYS, OF_OPEN],
        "give_feedback" => [SAYS, UNKNOWN],
        "make_silence" => [SAYS, &[]],
        "end_silence" | "resend" => [ENDS, &[]],
        "list_anomalies_csv" | "heat" => [PARAMETERS, &[]],
        "get_incident" => [UNKNOWN, PARAMETERS],
        "get_anomaly" | "get_capsule" | "get_upload" => [UNKNOWN, &[]],
        "series_points" | "explain_point" => [SERIES, &[]],
        "forget_series" => [FORGETS, &[]],
        "readyz" => [&[(503, "They cannot; `detail` says why")], &[]],
        "follow_anomalies" => [UPGRADES, &[]],
        _ => [&[], &[]],
    }
}

/// The document of this version.
pub fn openapi() -> OpenApi {
    let (_, mut document) = super::documented().split_for_parts();
    let about = Document::openapi();
    document.info = about.info;
    document.tags = about.tags;
    if let (Some(all), Some(more)) = (document.components.as_mut(), about.components) {
        all.schemas.extend(more.schemas);
    }
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            for (status, when) in problems_of(operation.operation_id.as_deref().unwrap_or_default()).into_iter().flatten() {
                add_problem(operation, *status, when);
            }
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [item.get.as_mut(), item.post.as_mut(), item.delete.as_mut()].into_iter().flatten()
}

fn add_problem(operation: &mut Operation, status: u16, when: &str) {
    let status_code = axum::http::StatusCode::from_u16(status).unwrap_or_default();
    let example = Problem::new(status_code, code_of(status), when).body();
    let schema = RefOr::Ref(Ref::from_schema_name("ProblemDetails"));
    let content = ContentBuilder::new().schema(Some(schema)).example(Some(example)).build();
    let response = ResponseBuilder::new().description(when).content(PROBLEM_JSON, content).build();
    operation.responses.responses.insert(status.to_string(), response.into());
}

/// A code that goes with a status, for the example.
fn code_of(status: u16) -> &'static str {
    match status {
        400 => "bad_cursor",
        403 => "forbidden_origin",
        404 => "not_found",
        409 => "already_resolved",
        413 => "too_large",
        415 => "unsupported_encoding",
        422 => "invalid_parameter",
        426 => "upgrade_required",
        503 => "queue_full",
        _ => "disk_full",
    }
}

pub(super) fn anomaly_example() -> Value {
    json!({
        "id": "9f2c6c1be2f0a3d47e5b8f1a2c3d4e5f", "series": "cpu_usage{dc=\"eu\"}", "metric": "cpu_usage", "labels": {"dc": "eu"},
        "timestamp": 1_234_567_890.5, "value": 95.0, "detector": "zscore", "score": 0.958, "z_score": 13.74, "expected": 54.5, "lower": 45.66,
        "upper": 63.34, "mean": 54.5, "stddev": 2.947, "count": 20, "threshold": 3.0, "critical_from": 6.0, "min_count": 5,
        "window_seconds": 300.0, "direction": "high", "severity": "critical", "summary": "13.7 standard deviations above the last 5 min",
        "explanation": "95 is 13.7 standard deviations above the mean 54.5 of the last 20 samples (5 min)",
        "checks": [{"name": "Enough samples", "passed": true, "detail": "20 samples in the 5 min before, needs 5"}],
        "meta": {"host": "server-01"}, "event_id": null, "incident_id": "5b1f0c2d9a8e7f60", "detected_at": 1_234_567_891.2, "source": "http",
    })
}

pub(super) fn incident_example() -> Value {
    json!({
        "id": "5b1f0c2d9a8e7f60", "series": "cpu_usage{dc=\"eu\"}", "metric": "cpu_usage", "labels": {"dc": "eu"}, "start": 1_234_567_890.5,
        "end": 1_234_567_920.5, "count": 3, "severity": "critical", "state": "acknowledged", "resolved_at": null, "by": "ada",
        "comment": "looking at it", "feedback": null, "peak": anomaly_example(),
    })
}

pub(super) fn silence_example() -> Value {
    json!({"id": "0f9e8d7c6b5a4938", "matchers": [{"name": "metric", "op": "=", "value": "cpu_usage"}], "from": 1_234_567_890.0,
           "to": 1_234_571_490.0, "by": "ada", "comment": "maintenance", "state": "active"})
}

pub(super) fn notification_example() -> Value {
    json!({"id": "c0ffee00c0ffee00c0ffee00c0ffee00", "channel": "email", "kind": "opened", "incidents": ["5b1f0c2d9a8e7f60"],
           "status": "sent", "attempts": 1, "last_error": null, "created_at": 1_234_567_892.2, "sent_at": 1_234_567_892.4})
}

pub(super) fn point_example() -> Value {
    json!({"timestamp": 1_234_567_890.5, "value": 95.0, "expected": 54.5, "lower": 45.66, "upper": 63.34, "z_score": 13.74,
           "severity": "critical", "verdict": "anomaly"})
}

pub(super) fn explanation_example() -> Value {
    json!({
        "verdict": "normal", "series": "cpu_usage{dc=\"eu\"}", "metric": "cpu_usage", "labels": {"dc": "eu"}, "timestamp": 1_234_567_890.5,
        "value": 55.0, "detector": "zscore", "score": 0.04, "z_score": 0.17, "severity": null,
        "explanation": "55 is 0.2 standard deviations above the mean 54.5 of the last 20 samples (5 min)",
        "checks": [{"name": "Beyond the threshold", "passed": false, "detail": "0.17 standard deviations, fires from 3"}],
    })
}

pub(super) fn upload_example() -> Value {
    json!({"id": "u-17", "files": [{
        "file": "cpu.csv", "format": "csv", "from": 1_234_567_890.0, "to": 1_234_654_290.0, "warnings": ["times without an offset are UTC"],
        "accepted": 1440, "rejected": 1, "late": null, "anomalies": null,
        "errors": [{"line": 7, "field": "value", "code": "invalid_value", "message": "value must be a number, got \"n/a\""}],
    }]})
}

pub(super) fn stats_example() -> Value {
    json!({
        "events_total": 86_400, "rejected_total": 12, "late_total": 3, "duplicates_total": 0, "redelivered_total": 0, "events_per_second": 120.4,
        "rejected_last_minute": 0, "late_last_minute": 0, "queue_depth": 0, "queue_capacity": 1_000_000, "series": 40, "series_new_24h": 2,
        "anomalies_24h": {"warning": 5, "critical": 1}, "websocket_clients": 1,
        "history": {"events_per_second": [120], "queue_depth": [0], "anomalies_per_hour": [1]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        serde_json::to_value(openapi()).unwrap()
    }

    fn each_operation(document: &Value) -> Vec<(String, Value)> {
        let paths = document["paths"].as_object().unwrap();
        let all =
            paths.iter().flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(m, o)| (format!("{m} {path}"), o.clone())));
        all.collect()
    }

    #[test]
    fn the_document_is_openapi_3_1_and_lists_the_routes() {
        let document = document();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        assert_eq!((&document["info"]["title"], &document["info"]["version"]), (&json!("anomaly"), &json!(env!("CARGO_PKG_VERSION"))));
        let operations: Vec<_> = each_operation(&document).into_iter().map(|(name, _)| name).collect();
        for route in [
            "get /health",
            "get /livez",
            "get /readyz",
            "post /events/raw",
            "post /events",
            "post /upload",
            "post /upload/bulk",
            "get /anomalies",
            "get /anomalies/{id}",
            "get /anomalies/heat",
            "get /anomalies.csv",
            "get /incidents",
            "get /incidents/{id}",
            "get /incidents/{id}/capsule",
            "post /incidents/{id}/acknowledge",
            "post /incidents/{id}/resolve",
            "post /incidents/{id}/feedback",
            "get /feedback",
            "get /silences",
            "post /silences",
            "delete /silences/{id}",
            "get /notifications",
            "post /notifications/{id}/resend",
            "get /series",
            "delete /series",
            "get /uploads/{id}",
            "get /series/points",
            "get /series/explain",
            "get /stats",
            "get /metrics",
            "get /ws/anomalies",
        ] {
            assert!(operations.iter().any(|name| name == route), "{route} is missing in {operations:?}");
        }
    }

    #[test]
    fn every_operation_has_an_id_of_its_own_a_description_and_examples() {
        let operations = each_operation(&document());
        let ids: Vec<_> = operations.iter().map(|(_, o)| o["operationId"].as_str().unwrap()).collect();
        assert!(ids.iter().enumerate().all(|(i, id)| !ids[..i].contains(id)), "{ids:?}");
        for (name, operation) in &operations {
            assert!(operation["summary"].is_string(), "{name} has no summary");
            let responses = operation["responses"].as_object().unwrap();
            let good = responses.iter().find(|(status, _)| status.starts_with('2') || *status == "101").unwrap_or_else(|| panic!("{name}"));
            let content = good.1["content"].as_object();
            assert!(good.0 == "204" || content.is_some_and(|c| c.values().all(|c| c.get("example").is_some())), "{name} has no example");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{name}: {parameter}");
            }
        }
    }

    #[test]
    fn references_lead_somewhere() {
        fn walk(node: &Value, document: &Value) {
            if let Some(target) = node.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
            }
            match node {
                Value::Object(map) => map.values().for_each(|value| walk(value, document)),
                Value::Array(items) => items.iter().for_each(|value| walk(value, document)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
    }

    #[test]
    fn the_examples_have_the_fields_of_their_schemas() {
        let document = document();
        for (name, example) in [
            ("Anomaly", anomaly_example()),
            ("Incident", incident_example()),
            ("Silence", silence_example()),
            ("Notification", notification_example()),
            ("Point", point_example()),
            ("Explanation", explanation_example()),
            ("FileReport", upload_example()["files"][0].clone()),
            ("Stats", stats_example()),
        ] {
            let schema = &document["components"]["schemas"][name];
            let fields = schema["properties"].as_object().unwrap();
            let shown = example.as_object().unwrap();
            // What is only sometimes there need not be shown.
            let required = schema["required"].as_array().unwrap().iter().map(|field| field.as_str().unwrap());
            assert!(shown.keys().all(|field| fields.contains_key(field)), "{name}: {example}");
            assert!(required.into_iter().all(|field| shown.contains_key(field)), "{name}: {example}");
        }
    }
}
