//! Events, batches, uploads and forgetting.

use std::io::Write as _;

use axum::http::Method;
use serde_json::json;

use axum::response::IntoResponse as _;

use super::*;
use crate::config::Limits;
use crate::log::AppendError;
use crate::problem::Problem;

fn gzip(text: &str) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(text.as_bytes()).unwrap();
    packer.finish().unwrap()
}

fn form(parts: &[(&str, Option<&str>, &str)]) -> String {
    let mut body = String::new();
    for (name, file, data) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body += &format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{data}\r\n");
    }
    body + "--XX--\r\n"
}

/// A file of one good row.
const GOOD: &str = "metric,value\nm,1\n";

fn limited(change: impl FnOnce(&mut Limits)) -> Config {
    let mut config = Config::default();
    change(&mut config.limits);
    config
}

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_queued_under_its_id_or_one_made_of_its_position() {
    let server = Server::new().await;
    let urlencoded = [("content-type", "application/x-www-form-urlencoded")];
    let answer = server.post("/events/raw", &urlencoded, r#"{"metric":"m","value":1}"#).await;
    let made = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!((answer.status.as_u16(), answer.json()), (202, json!({"status": "queued", "id": made})));
    assert!(made.split_once('-').is_some_and(|(frame, row)| frame.parse::<u64>().is_ok() && row == "0"), "{made}");
    let answer = server.post("/events/raw", &[], r#"{"metric":"m","value":1,"id":"my \"own\""}"#).await;
    assert_eq!(answer.json()["id"], "my \"own\"");
    assert_eq!(server.app.stats.totals().events, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_event_is_400_413_or_422_and_counted_by_code() {
    let server = Server::new().await;
    server.post("/events/raw", &[], "not json").await.problem(400, "invalid_json");
    server.post("/events/raw", &[], r#"{"metric":"m","value":NaN}"#).await.problem(400, "invalid_json");
    let missing = server.post("/events/raw", &[], r#"{"metric":"m"}"#).await.problem(422, "missing_field");
    assert_eq!(missing["field"], "value");
    let large = format!(r#"{{"metric":"m","value":1,"meta":{{"a":"{}"}}}}"#, "x".repeat(65_536));
    let answer = server.post("/events/raw", &[], large).await;
    answer.problem(413, "too_large");
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(server.app.stats.totals().rejected, 3);
    assert!(server.app.stats.exposition().contains("{code=\"missing_field\"} 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_announces_too_much_is_not_read() {
    let server = Server::new().await;
    let never = || Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    for path in ["/events/raw", "/events", "/upload"] {
        server.post(path, &[("content-length", "4294967296"), FORM], never()).await.problem(413, "too_large");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_tells_its_rows() {
    let server = Server::new().await;
    let answer = server.post("/events", &[], "{\"metric\":\"m\",\"value\":1}\n{\"metric\":5}\n\n{\"metric\":\"n\",\"value\":2}").await;
    assert_eq!(answer.status, 202);
    let body = answer.json();
    assert_eq!((&body["accepted"], &body["rejected"], &body["errors"][0]["line"]), (&json!(2), &json!(1), &json!(2)));
    assert_eq!((server.app.stats.totals().events, server.app.stats.totals().rejected), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_which_nothing_is_good_is_422_and_a_broken_array_400() {
    let server = Server::new().await;
    let body = server.post("/events", &[], "{}\n7\n").await.problem(422, "nothing_accepted");
    assert_eq!((&body["accepted"], &body["rejected"], body["errors"].as_array().map(Vec::len)), (&json!(0), &json!(2), Some(2)));
    server.post("/events", &[], "").await.problem(422, "nothing_accepted");
    server.post("/events", &[], "[]").await.problem(422, "nothing_accepted");
    let broken = server.post("/events", &[], "[{\"metric\":\"m\",\"value\":1},]").await.problem(400, "invalid_json");
    assert!(broken["element"].is_u64() && broken["byte"].is_u64(), "{broken}");
    assert_eq!(server.app.stats.totals().events, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn atomic_takes_all_or_nothing() {
    let server = Server::new().await;
    let rows = "{\"metric\":\"m\",\"value\":1}\n{}\n";
    server.post("/events?atomic=true", &[], rows).await.problem(422, "nothing_accepted");
    assert_eq!(server.app.stats.totals().events, 0);
    assert_eq!(server.post("/events?atomic=false", &[], rows).await.status, 202);
    let body = server.post("/events?atomic=maybe", &[], rows).await.problem(422, "invalid_parameter");
    assert_eq!(body["parameter"], "atomic");
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_batches_are_unpacked_within_their_limit() {
    let server = Server::with(limited(|limits| limits.max_batch_unpacked_bytes = 4096)).await;
    let rows = "{\"metric\":\"m\",\"value\":1}\n".repeat(3);
    assert_eq!(server.post("/events", &[("content-encoding", "gzip")], gzip(&rows)).await.json()["accepted"], 3);
    let zstd = zstd::encode_all(rows.as_bytes(), 1).unwrap();
    assert_eq!(server.post("/events", &[("content-encoding", "zstd")], zstd).await.json()["accepted"], 3);
    server.post("/events", &[("content-encoding", "gzip")], "no gzip").await.problem(400, "damaged_encoding");
    server.post("/events", &[("content-encoding", "br")], gzip(&rows)).await.problem(415, "unsupported_encoding");
    server.post("/events", &[("content-encoding", "gzip")], gzip(&" ".repeat(5000))).await.problem(413, "too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_a_retry_safe() {
    let server = Server::new().await;
    let (key, rows) = ([("idempotency-key", "k1")], "{\"metric\":\"m\",\"value\":1}\n{}\n");
    let first = server.post("/events", &key, rows).await;
    let again = server.post("/events", &key, rows).await;
    assert_eq!((first.status.as_u16(), first.body.as_str()), (202, again.body.as_str()));
    assert_eq!(server.app.stats.totals().events, 1, "the retry is not counted");
    server.post("/events", &key, "{\"metric\":\"m\",\"value\":2}").await.problem(422, "idempotency_key_reused");
    server.post("/events", &[("idempotency-key", "a b")], rows).await.problem(422, "invalid_idempotency_key");
}

#[test]
fn full_queues_answer_503_and_full_disks_507() {
    for (error, status, code) in [
        (AppendError::QueueFull { queued: 5, capacity: 5 }, 503, "queue_full"),
        (AppendError::MemoryFull { used: 5, limit: 5 }, 503, "memory_full"),
        (AppendError::Closing, 503, "stopping"),
        (AppendError::DiskFull("the reserve is in use".into()), 507, "disk_full"),
    ] {
        let problem = Problem::from(error);
        assert_eq!((problem.status().as_u16(), problem.code()), (status, code));
        let response = problem.into_response();
        assert_eq!(response.headers().contains_key("retry-after"), status == 503, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_series_beyond_the_limit_are_row_errors_and_memory_that_is_full_is_503() {
    let server = Server::with(Config { max_series: 1, ..Config::default() }).await;
    let rows = "{\"metric\":\"a\",\"value\":1}\n{\"metric\":\"b\",\"value\":1}\n{\"metric\":\"a\",\"value\":2}\n";
    let body = server.post("/events", &[], rows).await.json();
    assert_eq!((&body["accepted"], &body["rejected"]), (&json!(2), &json!(1)));
    assert_eq!((&body["errors"][0]["line"], &body["errors"][0]["code"]), (&json!(2), &json!("series_limit")));
    let server = Server::with(Config { memory_max_bytes: 1, ..Config::default() }).await;
    server.fill(r#"{"metric":"m","value":1}"#).await;
    server.post("/events/raw", &[], r#"{"metric":"m","value":1}"#).await.problem(503, "memory_full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_spooled_and_its_zone_may_stand_behind_it() {
    let server = Server::new().await;
    let rows = "metric,value,timestamp\nm,1,2024-07-15 10:00:00\n";
    let body = form(&[("file", Some("../../tmp/evil.csv"), rows), ("timezone", None, "Europe/Brussels"), ("other", None, "x")]);
    let answer = server.post("/upload", &[FORM], body).await;
    let file = &answer.json()["files"][0];
    assert_eq!((answer.status.as_u16(), &file["file"], &file["from"]), (200, &json!("../../tmp/evil.csv"), &json!(1721030400.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_not_right_leaves_nothing() {
    let server = Server::new().await;
    let file = ("file", Some("a.csv"), "x");
    for (parts, parameter) in [
        (vec![file, ("timezone", None, "Mars/Phobos")], "timezone"),
        (vec![("timezone", None, "Europe/../../etc/passwd"), file], "timezone"),
        (vec![("wrong_field", Some("a.csv"), "x")], "file"),
        (vec![file, file], "file"),
    ] {
        let body = server.post("/upload", &[FORM], form(&parts)).await.problem(422, "invalid_parameter");
        assert_eq!(body["parameter"], parameter);
    }
    let body = server.post("/upload/bulk", &[FORM], form(&[file])).await.problem(422, "invalid_parameter");
    assert_eq!(body["parameter"], "files");
    server.post("/upload", &[("content-type", "text/plain")], "plain").await.problem(415, "not_multipart");
    server
        .post("/upload", &[FORM], "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\ncut")
        .await
        .problem(400, "invalid_multipart");
    assert_eq!(server.app.stats.totals().events, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_files_are_taken_and_nothing_accepted_is_422_with_the_reports() {
    let server = Server::new().await;
    let answer = server.post("/upload/bulk", &[FORM], form(&[("files", Some("a.csv"), GOOD), ("files", Some("b.csv"), "bad")])).await;
    assert_eq!((answer.status.as_u16(), answer.json()["files"].as_array().map(Vec::len)), (200, Some(2)));
    let refused = server.post("/upload", &[FORM], form(&[("file", Some("b.csv"), "bad")])).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["files"][0]["accepted"]), (422, &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_repeated_by_its_key_and_found_by_its_id() {
    let server = Server::new().await;
    let body = form(&[("file", Some("a.csv"), GOOD)]);
    let first = server.post("/upload", &[FORM, ("idempotency-key", "u9")], body.clone()).await;
    let again = server.post("/upload", &[FORM, ("idempotency-key", "u9")], body).await;
    assert_eq!((first.status.as_u16(), &first.body), (200, &again.body));
    assert_eq!(server.app.stats.totals().events, 1, "taken once");
    let other = form(&[("file", Some("a.csv"), "metric,value\nm,2\n")]);
    server.post("/upload", &[FORM, ("idempotency-key", "u9")], other).await.problem(422, "idempotency_key_reused");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("/uploads/{id}")).await.body, first.body);
    server.get("/uploads/no-such-id").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_uploads_with_one_key_at_the_same_time_are_one() {
    let server = Server::new().await;
    let send = || server.post("/upload", &[FORM, ("idempotency-key", "twin")], form(&[("file", Some("a.csv"), GOOD)]));
    let (one, two) = tokio::join!(send(), send());
    assert_eq!((one.status.as_u16(), &one.json()["id"]), (200, &two.json()["id"]));
    assert_eq!(server.app.stats.totals().events, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_beyond_the_limit_is_413() {
    let server = Server::with(limited(|limits| limits.max_file_bytes = 100)).await;
    let answer = server.post("/upload", &[FORM], form(&[("file", Some("a.csv"), &"x".repeat(101))])).await;
    answer.problem(413, "too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_is_forgotten_once() {
    let server = Server::new().await;
    server.fill(r#"{"metric":"m","value":1,"labels":{"dc":"eu"}}"#).await;
    let path = "/series?series=m%7Bdc%3D%22eu%22%7D";
    let gone = server.send(Method::DELETE, path, &[], Body::empty()).await;
    assert_eq!((gone.status.as_u16(), gone.body.as_str()), (204, ""));
    server.send(Method::DELETE, path, &[], Body::empty()).await.problem(404, "not_found");
    server.send(Method::DELETE, "/series?series=m%7B", &[], Body::empty()).await.problem(404, "not_found");
    let body = server.send(Method::DELETE, "/series", &[], Body::empty()).await.problem(422, "invalid_parameter");
    assert_eq!(body["parameter"], "series");
}
