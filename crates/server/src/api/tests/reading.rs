//! Anomalies, incidents, series, points and statistics.

use anomaly_engine::EngineConfig;
use serde_json::json;

use super::*;
use crate::stats::Component;
use crate::store::Filter;

/// Fifty samples of 49 and 51 in turn before `seconds`, then `value` there: 53.5 is a warning, 90 critical.
fn rise(metric: &str, labels: &str, seconds: i64, value: f64) -> String {
    let row = |at: i64, value: f64| format!("{{\"metric\":\"{metric}\",\"labels\":{labels},\"timestamp\":{at},\"value\":{value}}}\n");
    (1..=50).rev().map(|i| row(seconds - i, 50.0 + f64::from(i as i32 % 2 * 2 - 1))).collect::<String>() + &row(seconds, value)
}

/// Three anomalies of `m{dc="eu"}` at 1000, 2000 (critical) and 3000; and a series that comes too seldom.
async fn filled() -> Server {
    let server = Server::new().await;
    let labels = r#"{"dc":"eu"}"#;
    let mut rows: String = [(1000, 53.5), (2000, 90.0), (3000, 54.0)].map(|(at, value)| rise("m", labels, at, value)).concat();
    rows.extend((0..20).map(|i| format!("{{\"metric\":\"sparse\",\"timestamp\":{},\"value\":1}}\n", i * 300)));
    server.fill(&rows).await;
    server
}

fn values(answer: &Answer) -> Vec<f64> {
    answer.json()["anomalies"].as_array().unwrap().iter().map(|a| a["value"].as_f64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn anomalies_come_in_pages_and_as_they_are_stored() {
    let server = filled().await;
    let first = server.get("/anomalies?limit=2").await;
    assert_eq!((values(&first), first.header("content-type")), (vec![54.0, 90.0], "application/json"));
    let stored = server.app.store.anomalies(&Filter::default(), None, 1).unwrap();
    assert!(first.body.contains(&stored.items[0].body), "not written anew");
    let next = first.json()["next"].as_str().unwrap().to_owned();
    let second = server.get(&format!("/anomalies?limit=2&cursor={next}")).await;
    assert_eq!((values(&second), &second.json()["next"]), (vec![53.5], &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn anomalies_are_filtered() {
    let server = filled().await;
    for (query, expected) in [
        ("severity=critical", vec![90.0]),
        ("from=2000&to=1970-01-01T00:50:00Z", vec![54.0, 90.0]),
        ("series=m%7Bdc%3D%22eu%22%7D&to=1000", vec![53.5]),
        ("series=m", vec![]),
        ("metric=other", vec![]),
    ] {
        assert_eq!(values(&server.get(&format!("/anomalies?{query}")).await), expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_cannot_be_used_are_named() {
    let server = filled().await;
    for (path, name) in [
        ("/anomalies?limit=", "limit"),
        ("/anomalies?limit=1001", "limit"),
        ("/incidents?limit=0", "limit"),
        ("/series?limit=abc", "limit"),
        ("/anomalies?from=yesterday", "from"),
        ("/anomalies.csv?to=NaN", "to"),
        ("/anomalies?severity=mild", "severity"),
        ("/anomalies/heat?buckets=0", "buckets"),
        ("/anomalies/heat?top=x", "top"),
        ("/anomalies/heat?from=9&to=8", "from"),
        ("/series/points", "series"),
        ("/series/points?series=m&max_points=0", "max_points"),
        ("/series/explain?series=m", "at"),
        ("/series/explain?series=m&at=yesterday", "at"),
    ] {
        let body = server.get(path).await.problem(422, "invalid_parameter");
        assert_eq!(body["parameter"], name, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_cursor_is_400_everywhere() {
    let server = filled().await;
    for cursor in ["garbage", "-1", "%00", "%F0%9F%92%A5", &"9".repeat(400)] {
        server.get(&format!("/anomalies?cursor={cursor}")).await.problem(400, "bad_cursor");
        server.get(&format!("/ws/anomalies?after={cursor}")).await.problem(400, "bad_cursor");
    }
    server.get("/series?cursor=garbage").await.problem(400, "bad_cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anomaly_is_told_with_the_points_around_it() {
    let server = filled().await;
    let id = server.get("/anomalies?to=1000").await.json()["anomalies"][0]["id"].as_str().unwrap().to_owned();
    let body = server.get(&format!("/anomalies/{id}")).await.json();
    assert_eq!((&body["anomaly"]["value"], &body["anomaly"]["id"]), (&json!(53.5), &json!(id)));
    let points: Vec<_> =
        body["points"].as_array().unwrap().iter().map(|p| (p["timestamp"].as_f64().unwrap(), p["severity"].clone())).collect();
    let around = [(998.0, Value::Null), (999.0, Value::Null), (1000.0, json!("warning"))];
    assert!(points.windows(3).any(|three| three == around) && points.is_sorted_by(|a, b| a.0 <= b.0), "{points:?}");
    server.get("/anomalies/no-such-id").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_has_a_lane_a_series() {
    let server = filled().await;
    let body = server.get("/anomalies/heat?from=1000&to=1999&buckets=4&top=3").await.json();
    assert_eq!(body["lanes"][0]["series"], "m{dc=\"eu\"}");
    let buckets = &body["lanes"][0]["buckets"];
    assert_eq!((&buckets[0]["count"], &buckets[0]["severity"], &buckets[1]), (&json!(1), &json!("warning"), &Value::Null));
    assert!((3.0..4.0).contains(&buckets[0]["max_z"].as_f64().unwrap()), "{buckets}");
    assert_eq!(server.get("/anomalies/heat").await.json(), json!({"lanes": []}), "the last 24 hours by default");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_csv_in_which_text_is_no_formula() {
    let server = filled().await;
    server.fill(&rise("=cmd", "{}", 4000, -5.0)).await;
    let answer = server.get("/anomalies.csv?from=3000").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/csv; charset=utf-8"));
    assert!(answer.header("content-disposition").contains("anomalies.csv"));
    let lines: Vec<_> = answer.body.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("id,series,metric,labels,timestamp,value,"));
    assert!(lines[1].contains(",\"'=cmd\",") && lines[1].contains(",4000,-5.0,"), "{}", lines[1]);
    assert!(lines[2].contains("\"m{dc=\"\"eu\"\"}\""), "{}", lines[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_file_is_streamed_page_by_page() {
    let engine = EngineConfig { threshold: 1e-6, min_count: 1, ..EngineConfig::default() };
    let server = Server::with(Config { engine, ..Config::default() }).await;
    let rows: String = (0..=1201).map(|i| format!("{{\"metric\":\"m\",\"timestamp\":{i},\"value\":{}}}\n", i * i)).collect();
    server.fill(&rows).await;
    let lines: Vec<_> = server.get("/anomalies.csv").await.body.split_terminator("\r\n").map(str::to_owned).collect();
    assert_eq!(lines.len(), 1202);
    assert!(lines[1].contains(",1201,1442401.0,") && lines[1201].contains(",1,1.0,"), "{} {}", lines[1], lines[1201]);
}

#[tokio::test(flavor = "multi_thread")]
async fn incidents_are_listed_and_told() {
    let server = filled().await;
    let body = server.get("/incidents?metric=m").await.json();
    assert_eq!((&body["totals"], &body["next"]), (&json!({"incidents": 3, "anomalies": 3}), &Value::Null));
    assert_eq!(body["cursor"], "3", "where the WebSocket goes on");
    let incident = &body["incidents"][1];
    assert_eq!((&incident["severity"], &incident["start"], &incident["count"]), (&json!("critical"), &json!(2000), &json!(1)));
    assert_eq!((&incident["labels"], &incident["peak"]["value"]), (&json!({"dc": "eu"}), &json!(90.0)));
    let one = server.get(&format!("/incidents/{}", incident["id"].as_str().unwrap())).await.json();
    assert_eq!((&one["incident"], one["anomalies"].as_array().map(Vec::len)), (incident, Some(1)));
    server.get("/incidents/none").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn series_are_listed_in_pages_and_marked() {
    let server = filled().await;
    let first = server.get("/series?limit=1").await.json();
    let entry = &first["series"][0];
    assert_eq!((&entry["series"], &entry["labels"], &entry["detector"]), (&json!("m{dc=\"eu\"}"), &json!({"dc": "eu"}), &json!("zscore")));
    assert_eq!(
        (&entry["last"], &entry["count"], &entry["anomalies_24h"]),
        (&json!({"timestamp": 3000, "value": 54.0}), &json!(153), &json!(0))
    );
    assert!(entry.get("sparse").is_none());
    let next = first["next"].as_str().unwrap();
    let second = server.get(&format!("/series?limit=1&cursor={next}")).await.json();
    assert_eq!((&second["series"][0]["sparse"], &second["next"]), (&json!(true), &Value::Null));
    assert_eq!(server.get("/series?query=absent").await.json(), json!({"series": [], "next": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_given_and_an_unknown_series_is_404() {
    let server = filled().await;
    let body = server.get("/series/points?series=m%7Bdc%3D%22eu%22%7D&from=998.5&to=1001&max_points=10").await.json();
    let times: Vec<_> = body["points"].as_array().unwrap().iter().map(|p| p["timestamp"].as_f64().unwrap()).collect();
    assert_eq!(times, [999.0, 1000.0]);
    server.get("/series/points?series=unknown").await.problem(404, "not_found");
    server.get("/series/points?series=m%7B").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_is_explained_by_the_stored_anomaly_or_the_engine() {
    let server = filled().await;
    let series = "series=m%7Bdc%3D%22eu%22%7D";
    let fired = server.get(&format!("/series/explain?{series}&at=1000")).await.json();
    assert_eq!((&fired["verdict"], &fired["value"]), (&json!("anomaly"), &json!(53.5)));
    assert!(fired["incident_id"].is_string());
    let calm = server.get(&format!("/series/explain?{series}&at=1970-01-01T00:16:39Z")).await.json();
    assert_eq!(calm["verdict"], "normal");
    server.get(&format!("/series/explain?{series}&at=5")).await.problem(404, "not_found");
    // As a client has it that reads times as doubles, and not further off.
    server.fill(&rise("m", r#"{"dc":"eu"}"#, 1_700_000_000, 50.0)).await;
    server.fill("{\"metric\":\"m\",\"labels\":{\"dc\":\"eu\"},\"timestamp\":\"2023-11-14T22:13:21.725779671Z\",\"value\":90}").await;
    let fired = server.get(&format!("/series/explain?{series}&at=1700000001.7257798")).await.json();
    assert_eq!((&fired["verdict"], &fired["value"]), (&json!("anomaly"), &json!(90.0)));
    assert!(fired["incident_id"].is_string());
    server.get(&format!("/series/explain?{series}&at=1700000001.725781")).await.problem(404, "not_found");
    server.get("/series/explain?series=unknown&at=1000").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_statistics() {
    let server = filled().await;
    assert_eq!(server.get("/livez").await.json(), json!({"status": "ok"}));
    assert_eq!(server.get("/readyz").await.status, 200);
    server.app.stats.component("engine", Component::Recovering("replaying frame 3 of 9".into()));
    let unready = server.get("/readyz").await;
    let body = unready.problem(503, "not_ready");
    assert_eq!((body["detail"].as_str(), unready.header("retry-after")), (Some("engine: replaying frame 3 of 9"), "1"));
    let health = server.get("/health").await.json();
    assert_eq!(
        (&health["status"], &health["queue_size"], &health["version"]),
        (&json!("degraded"), &json!(0), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(server.get("/livez").await.status, 200, "it lives while it recovers");

    let stats = server.get("/stats").await.json();
    assert_eq!((&stats["series"], &stats["anomalies_24h"]), (&json!(2), &json!({"warning": 0, "critical": 0})));
    assert_eq!(stats["history"]["anomalies_per_hour"].as_array().map(Vec::len), Some(24));
    let metrics = server.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4") && metrics.body.contains("\nanomaly_series 2\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_get_on_the_websocket_is_told_to_upgrade() {
    let answer = filled().await.get("/ws/anomalies").await;
    answer.problem(426, "upgrade_required");
    assert_eq!(answer.header("upgrade"), "websocket");
}
