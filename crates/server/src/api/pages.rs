//! The first page, and the documentation: both work offline and under any prefix, since their links are relative.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use utoipa_swagger_ui::Config as Swagger;

use super::{Api, json, openapi};
use crate::problem::Problem;

/// Swagger UI sets styles of its own and draws its icons from `data:`; its scripts are files.
const DOCS_SECURITY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; object-src 'none'";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:4rem auto;padding:0 1rem;color:#1c2530;background:#fff}\
    h1{font-size:1.6rem}pre{background:#f1f4f7;padding:1rem;overflow-x:auto;border-radius:.4rem}a{color:#0b5cad}\
    @media(prefers-color-scheme:dark){body{color:#dfe6ee;background:#12171d}pre{background:#1c242d}a{color:#7db7f5}}";

/// `GET /`.
pub(super) async fn start(State(api): State<Arc<Api>>) -> Html<String> {
    let base = format!("http://localhost:{}{}", api.app.config.port, escaped(&api.app.config.base_path));
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>anomaly</title><link rel=\"stylesheet\" href=\"assets/start.css\"><link rel=\"icon\" href=\"data:,\"></head>\n<body>\n\
         <h1>anomaly {}</h1>\n<p>Finds anomalies in streams of metrics as they arrive. It is running.</p>\n<p>Send it an event:</p>\n\
         <pre>curl -d '{{\"metric\": \"cpu_usage\", \"value\": 85.5}}' {base}/events/raw</pre>\n\
         <p><a href=\"docs/\">API documentation</a> · <a href=\"anomalies\">anomalies</a> · <a href=\"series\">series</a> · \
         <a href=\"stats\">statistics</a> · <a href=\"health\">health</a></p>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    ))
}

/// `GET /assets/start.css`.
pub(super) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

/// `GET /docs`: its files are beside the page, so it ends with a slash.
pub(super) async fn to_docs() -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "docs/")]).into_response()
}

/// `GET /docs/`.
pub(super) async fn docs() -> Result<Response, Problem> {
    docs_file(Path(String::new())).await
}

/// `GET /docs/{*file}`.
pub(super) async fn docs_file(Path(file): Path<String>) -> Result<Response, Problem> {
    let config = Arc::new(Swagger::new(["../openapi.json"]));
    let found = utoipa_swagger_ui::serve(&file, config).map_err(Problem::internal)?;
    let found = found.ok_or_else(|| Problem::not_found(format_args!("the documentation has no file {file:?}")))?;
    let mut response = found.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, found.content_type.parse().map_err(Problem::internal)?);
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(DOCS_SECURITY));
    if found.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// `GET /openapi.json`.
pub(super) async fn document(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let mut document = openapi();
    if !api.app.config.base_path.is_empty() {
        document.servers = Some(vec![utoipa::openapi::Server::new(&api.app.config.base_path)]);
    }
    document.to_json().map(json::answer).map_err(Problem::internal)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
