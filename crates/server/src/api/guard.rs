//! What every request passes before it is routed, and every answer after: hosts, origins, CORS, panics, security headers.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;

use super::Api;
use crate::config::Config;
use crate::problem::Problem;

/// What a page of this server may load and do, where the route says nothing else.
const CONTENT_SECURITY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Guards a request and dresses its answer.
pub(super) async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    static REQUESTS: AtomicU64 = AtomicU64::new(1);
    let (number, started) = (REQUESTS.fetch_add(1, Relaxed), Instant::now());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let config = &api.app.config;
    let origin = request.headers().get(header::ORIGIN).cloned();
    let preflight = method == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);

    let mut response = match check(config, request.method(), request.uri(), request.version(), request.headers()) {
        Err(problem) => problem.into_response(),
        Ok(()) if preflight => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|panic| panicked(number, &path, &*panic)),
    };
    if method == Method::OPTIONS && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = options(&response);
    }
    allow_origin(config, origin.as_ref(), preflight, response.headers_mut());
    dress(number, response.headers_mut());
    api.app.stats.answered(response.status().as_u16());
    let status = response.status().as_u16();
    tracing::debug!(request = number, %method, path, status, micros = started.elapsed().as_micros() as u64, "answered");
    response
}

/// Whether a request may be served at all.
fn check(config: &Config, method: &Method, uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, more) = (hosts.next(), hosts.next().is_some());
    if more || host.is_none() && version == Version::HTTP_11 && uri.authority().is_none() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", "exactly one Host is needed").closing());
    }
    let host = host.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    if config.host.is_loopback() {
        // A name that was made to point here is how a web page reaches a server on its visitor's machine (DNS rebinding).
        for name in host.as_deref().into_iter().chain(uri.authority().map(Authority::as_str)) {
            if !is_this_machine(name) {
                let detail = format!(
                    "the host {name:?} is not localhost, 127.0.0.1 or [::1], and the server listens on loopback without authentication"
                );
                return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden_host", detail).closing());
            }
        }
    }
    let writes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    if writes || headers.contains_key(header::UPGRADE) {
        for origin in headers.get_all(header::ORIGIN) {
            let own = host.as_deref().is_some_and(|host| is_own_origin(origin, host));
            if !own && !is_listed(config, origin) {
                let detail = format!("the origin {origin:?} is neither this server's nor in CORS_ALLOWED_ORIGINS");
                return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden_origin", detail).closing());
            }
        }
    }
    Ok(())
}

/// Whether a `Host` is this machine's own name, at any port.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => {
            if !port.bytes().all(|b| b.is_ascii_digit()) {
                return false;
            }
            name
        }
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]"
}

/// Whether an `Origin` is that of the `Host` to which its request went.
fn is_own_origin(origin: &HeaderValue, host: &str) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    [("http://", ":80"), ("https://", ":443")].into_iter().any(|(scheme, port)| {
        let bare = |name: &str| name.strip_suffix(port).unwrap_or(name).to_ascii_lowercase();
        origin.strip_prefix(scheme).is_some_and(|authority| !authority.is_empty() && bare(authority) == bare(host))
    })
}

fn is_listed(config: &Config, origin: &HeaderValue) -> bool {
    config.cors_allowed_origins.iter().any(|listed| listed == "*" || listed.as_bytes() == origin.as_bytes())
}

/// Lets pages of listed origins read the answer.
fn allow_origin(config: &Config, origin: Option<&HeaderValue>, preflight: bool, headers: &mut HeaderMap) {
    if config.cors_allowed_origins.is_empty() {
        return;
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let Some(origin) = origin.filter(|origin| is_listed(config, origin)) else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after, x-request-id"));
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
        let names = "content-type, content-encoding, idempotency-key, authorization";
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(names));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

/// An OPTIONS request is answered with what the route allows.
fn options(refusal: &Response) -> Response {
    let allow = refusal.headers().get(header::ALLOW).and_then(|allow| allow.to_str().ok()).unwrap_or_default();
    let allow = if allow.is_empty() { "OPTIONS".to_owned() } else { format!("{allow},OPTIONS") };
    (StatusCode::NO_CONTENT, [(header::ALLOW, allow)]).into_response()
}

fn dress(number: u64, headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.insert(REQUEST_ID, HeaderValue::from(number));
}

/// A handler that panicked: the log says why, under the number that the client gets too.
fn panicked(number: u64, path: &str, panic: &(dyn Any + Send)) -> Response {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(request = number, path, panic = said.unwrap_or("no message"), "a handler panicked");
    let detail = format!("the server failed; its log says why under request {number}");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).closing().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    #[test]
    fn only_this_machines_names_are_its_hosts() {
        for host in ["localhost", "LocalHost:8000", "localhost:9", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example:8000",
            "localhost.evil.example",
            "evil-localhost",
            "10.0.0.1",
            "::1",
            "localhost:x",
            "localhost:8000:1",
            "[::1]x",
            "user@localhost",
            "127.0.0.1@evil.example",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn an_origin_is_own_when_it_is_that_of_the_host() {
        for (origin, host) in
            [("http://a:8000", "a:8000"), ("https://a", "a"), ("http://A", "a:80"), ("https://a:443", "a"), ("http://[::1]:9", "[::1]:9")]
        {
            assert!(is_own_origin(&value(origin), host), "{origin} {host}");
        }
        for (origin, host) in [
            ("null", "a"),
            ("http://a:8001", "a:8000"),
            ("http://a:8000.evil", "a:8000"),
            ("file://", ""),
            ("http://", ""),
            ("ftp://a", "a"),
            ("https://a", "a:80"),
        ] {
            assert!(!is_own_origin(&value(origin), host), "{origin} {host}");
        }
    }
}
