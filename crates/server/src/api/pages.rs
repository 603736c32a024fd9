//! The documentation: it works offline and under any prefix, since its links are relative.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_swagger_ui::Config as Swagger;

use super::{Api, json, openapi};
use crate::problem::Problem;

/// Swagger UI sets styles of its own and draws its icons from `data:`; its scripts are files.
const DOCS_SECURITY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; object-src 'none'";

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
