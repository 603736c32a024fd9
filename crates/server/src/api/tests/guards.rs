//! Hosts, origins, CORS, methods, panics and headers.

use axum::body::Body;
use axum::http::Method;
use axum::routing::get;

use super::*;

const EVENT: &str = r#"{"metric":"m","value":1}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_is_refused_on_loopback() {
    let server = Server::new().await;
    for host in ["evil.example", "127.0.0.1.evil.example:8000", "10.0.0.1"] {
        server.send(Method::GET, "/anomalies", &[("host", host)], Body::empty()).await.problem(403, "forbidden_host");
        server.post("/events/raw", &[("host", host)], EVENT).await.problem(403, "forbidden_host");
    }
    server.send(Method::GET, "http://evil.example/anomalies", &[], Body::empty()).await.problem(403, "forbidden_host");
    for host in ["localhost", "127.0.0.1:9", "[::1]:8000"] {
        assert_eq!(server.send(Method::GET, "/anomalies", &[("host", host)], Body::empty()).await.status, 200, "{host}");
    }
    assert_eq!(server.app.stats.totals().events, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_host_is_served_on_an_address_that_others_reach() {
    let server = Server::with(Config { host: "0.0.0.0".parse().unwrap(), ..Config::default() }).await;
    assert_eq!(server.send(Method::GET, "/anomalies", &[("host", "metrics.example")], Body::empty()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_host_is_needed() {
    let server = Server::new().await;
    server.send(Method::GET, "/livez", &[("host", "localhost"), ("host", "localhost")], Body::empty()).await.problem(400, "bad_request");
    let none = Request::builder().uri("/livez").body(Body::empty()).unwrap();
    assert_eq!(server.router.clone().oneshot(none).await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_origin_may_read_and_not_write() {
    let server = Server::new().await;
    for origin in ["http://evil.example", "null", "http://localhost:8001", "http://localhost:8000.evil.example"] {
        for path in ["/events/raw", "/events", "/upload", "/upload/bulk"] {
            server.post(path, &[("origin", origin)], EVENT).await.problem(403, "forbidden_origin");
        }
        server.send(Method::DELETE, "/series?series=m", &[("origin", origin)], Body::empty()).await.problem(403, "forbidden_origin");
        let upgrade = [("origin", origin), ("upgrade", "websocket"), ("connection", "upgrade")];
        server.send(Method::GET, "/ws/anomalies", &upgrade, Body::empty()).await.problem(403, "forbidden_origin");
        let read = server.send(Method::GET, "/anomalies", &[("origin", origin)], Body::empty()).await;
        assert_eq!((read.status.as_u16(), read.header("access-control-allow-origin")), (200, ""));
    }
    assert_eq!(server.post("/events/raw", &[("origin", "http://localhost:8000")], EVENT).await.status, 202, "its own page");
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_is_closed_until_an_origin_is_listed() {
    let ask = [
        ("origin", "https://grafana.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let closed = Server::new().await.send(Method::OPTIONS, "/events/raw", &ask, Body::empty()).await;
    assert_eq!((closed.status.as_u16(), closed.header("access-control-allow-origin")), (204, ""));

    let server = Server::with(Config { cors_allowed_origins: vec!["https://grafana.example".into()], ..Config::default() }).await;
    let open = server.send(Method::OPTIONS, "/events/raw", &ask, Body::empty()).await;
    assert_eq!((open.status.as_u16(), open.header("access-control-allow-origin")), (204, "https://grafana.example"));
    assert!(
        open.header("access-control-allow-methods").contains("POST")
            && open.header("access-control-allow-headers").contains("content-type")
    );
    assert_eq!(open.header("access-control-allow-credentials"), "");
    let posted = server.post("/events/raw", &[("origin", "https://grafana.example")], EVENT).await;
    assert_eq!(
        (posted.status.as_u16(), posted.header("access-control-allow-origin"), posted.header("vary")),
        (202, "https://grafana.example", "origin")
    );
    server.post("/events/raw", &[("origin", "https://other.example")], EVENT).await.problem(403, "forbidden_origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_methods_are_problems() {
    let server = Server::new().await;
    let absent = server.get("/%3Cscript%3Ealert(1)%3C/script%3E").await;
    absent.problem(404, "not_found");
    for (method, path, allow) in [
        ("DELETE", "/events/raw", "POST"),
        ("GET", "/events/raw", "POST"),
        ("PUT", "/anomalies", "GET,HEAD"),
        ("POST", "/health", "GET,HEAD"),
    ] {
        let answer = server.send(method.parse().unwrap(), path, &[], Body::empty()).await;
        answer.problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
    let options = server.send(Method::OPTIONS, "/series", &[], Body::empty()).await;
    assert_eq!((options.status.as_u16(), options.header("allow")), (204, "GET,HEAD,DELETE,OPTIONS"));
    assert_eq!(server.send(Method::HEAD, "/livez", &[], Body::empty()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_500_and_its_words_stay_in_the_log() {
    let server = Server::new().await;
    let api = std::sync::Arc::new(super::super::Api::new(server.app.clone()));
    async fn panics() -> &'static str {
        panic!("secret")
    }
    let routes = Router::new().route("/", get(panics)).layer(axum::middleware::from_fn_with_state(api, super::super::guard::guard));
    let response = routes.oneshot(Request::builder().uri("/").header("host", "localhost").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 500);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"{") && !body.windows(6).any(|w| w == b"secret"), "{body:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_dressed() {
    let server = Server::new().await;
    for path in ["/", "/anomalies", "/nothing", "/docs/"] {
        let answer = server.get(path).await;
        assert_eq!((answer.header("x-content-type-options"), answer.header("referrer-policy")), ("nosniff", "no-referrer"), "{path}");
        assert!(answer.header("content-security-policy").starts_with("default-src 'self'; "), "{path}");
        assert!(answer.header("x-request-id").parse::<u64>().is_ok(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_html_and_hold_no_script_of_their_own() {
    let server = Server::new().await;
    let start = server.get("/").await;
    assert_eq!((start.status.as_u16(), start.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!((start.header("cache-control"), start.header("vary")), ("no-cache", "accept-encoding"));
    let tag = start.header("etag");
    assert!(tag.len() > 10, "{tag}");
    let again = server.send(Method::GET, "/", &[("if-none-match", tag)], Body::empty()).await;
    assert_eq!((again.status.as_u16(), again.body.as_str(), again.header("etag")), (304, "", tag));
    let build = tag.trim_matches('"');
    let style = server.get(&format!("/assets/{build}/style.css")).await;
    assert_eq!((style.header("content-type"), style.header("content-encoding")), ("text/css; charset=utf-8", ""));
    assert_eq!(style.header("cache-control"), "public, max-age=31536000, immutable");
    let path = format!("/assets/{build}/app.js");
    let packed = server.send(Method::GET, &path, &[("accept-encoding", "gzip, br")], Body::empty()).await;
    assert_eq!((packed.header("content-type"), packed.header("content-encoding")), ("text/javascript; charset=utf-8", "gzip"));
    assert_ne!(packed.header("etag"), tag);
    let head = server.send(Method::HEAD, &path, &[], Body::empty()).await;
    let whole = server.get(&path).await;
    assert_eq!((head.status.as_u16(), head.body.len(), head.header("content-type")), (200, 0, "text/javascript; charset=utf-8"));
    assert!(whole.body.starts_with("import "), "{}", whole.body);
    for path in [
        format!("/assets/{build}/nothing.js"),
        format!("/assets/{build}/index.html"),
        "/assets/0123456789abcdef/app.js".into(),
        "/assets/app.js".into(),
    ] {
        server.get(&path).await.problem(404, "not_found");
    }
    let docs = server.get("/docs").await;
    assert_eq!((docs.status.as_u16(), docs.header("location")), (307, "docs/"));
    let docs = server.get("/docs/").await;
    assert_eq!((docs.status.as_u16(), docs.header("content-type")), (200, "text/html"));
    assert_eq!(server.get("/docs/swagger-ui.css").await.status, 200);
    assert!(server.get("/docs/swagger-initializer.js").await.body.contains("../openapi.json"));
    server.get("/docs/nothing.js").await.problem(404, "not_found");
    assert!(server.get("/openapi.json").await.json()["openapi"].as_str().unwrap().starts_with("3.1."));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_moves_under_the_base_path() {
    let server = Server::with(Config { base_path: "/metrics/watch".into(), ..Config::default() }).await;
    let bare = server.get("/metrics/watch?a=1").await;
    assert_eq!((bare.status.as_u16(), bare.header("location")), (307, "/metrics/watch/?a=1"));
    for path in ["/", "/anomalies?limit=1", "/docs/", "/livez"] {
        assert_eq!(server.get(&format!("/metrics/watch{path}")).await.status, 200, "{path}");
    }
    assert_eq!(server.get("/metrics/watch/openapi.json").await.json()["servers"][0]["url"], "/metrics/watch");
    for path in ["/", "/anomalies", "/metrics/watchdog", "/metrics/watch/nothing"] {
        server.get(path).await.problem(404, "not_found");
    }
    let foreign = server.send(Method::GET, "/nothing", &[("host", "evil.example")], Body::empty()).await;
    foreign.problem(403, "forbidden_host");
}
