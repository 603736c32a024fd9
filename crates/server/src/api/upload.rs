//! `POST /upload`, `POST /upload/bulk`, `GET /uploads/{id}`: files are streamed to the spool as they arrive.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest as _, Path, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;

use super::body;
use super::events::idempotency_key;
use super::schema;
use super::{Api, json};
use crate::problem::Problem;
use crate::upload::{Spool, UploadView};

/// What a form takes beside its file: boundaries, headers, other fields.
const FORM_BYTES: u64 = 64 << 10;
/// The most bytes of a form field that is not a file.
const FIELD_BYTES: usize = 1024;

/// Which form it is.
#[derive(Clone, Copy, Debug)]
struct Form {
    route: &'static str,
    field: &'static str,
    many: bool,
}

/// Takes a file: CSV, JSON, NDJSON or TXT, also packed with gzip or zstd.
///
/// It is ingested when it has arrived whole; `late` and `anomalies` are null until its rows have been judged.
#[utoipa::path(post, path = "/upload", operation_id = "upload_file", tag = "uploads",
    params(("Idempotency-Key" = Option<String>, Header, description = "1–255 visible characters, new for each upload", example = "upload-0001")),
    request_body(content = schema::FileForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "What became of the file", body = schema::Upload, example = json!(super::openapi::upload_example())),
              (status = 422, description = "Nothing was accepted: the same body; or the form is not right: a problem", body = schema::Upload)))]
pub(super) async fn one(State(api): State<Arc<Api>>, request: Request<Body>) -> Result<Response, Problem> {
    let limit = api.app.config.limits.max_file_bytes;
    if body::announced(request.headers()).is_some_and(|n| n > limit.saturating_add(FORM_BYTES)) {
        return Err(Problem::too_large("a file", limit));
    }
    receive(&api, Form { route: "/upload", field: "file", many: false }, request).await
}

/// Takes several files; a bad one does not stop the others.
#[utoipa::path(post, path = "/upload/bulk", operation_id = "upload_files", tag = "uploads",
    params(("Idempotency-Key" = Option<String>, Header, description = "1–255 visible characters, new for each upload", example = "upload-0002")),
    request_body(content = schema::FilesForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "What became of the files", body = schema::Upload, example = json!(super::openapi::upload_example())),
              (status = 422, description = "Nothing was accepted in any file: the same body; or the form is not right: a problem", body = schema::Upload)))]
pub(super) async fn bulk(State(api): State<Arc<Api>>, request: Request<Body>) -> Result<Response, Problem> {
    receive(&api, Form { route: "/upload/bulk", field: "files", many: true }, request).await
}

/// Tells the progress of an upload, and its final numbers and warnings.
#[utoipa::path(get, path = "/uploads/{id}", operation_id = "get_upload", tag = "uploads",
    params(("id" = String, Path, description = "As the upload was answered", example = "u-17")),
    responses((status = 200, description = "How the upload stands", body = schema::Upload, example = json!(super::openapi::upload_example()))))]
pub(super) async fn view(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let view = api.app.uploads.view(&id).await;
    view.map(|view| json::answer(view.body)).ok_or_else(|| Problem::not_found(format_args!("no upload has the id {id}")))
}

async fn receive(api: &Api, form: Form, request: Request<Body>) -> Result<Response, Problem> {
    // Spooled first and compared then: the same key with other files is an error.
    let key = idempotency_key(request.headers())?;
    let mut parts = Multipart::from_request(request, &()).await.map_err(|rejection| {
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_multipart",
            format_args!("{} takes multipart/form-data: {rejection}", form.route),
        )
        .closing()
    })?;
    let spool = api.app.uploads.begin(key).await.map_err(|error| Problem::from(error).closing())?;
    let view = store(&mut parts, form, spool).await?;
    let UploadView { body, any_accepted, .. } = view;
    let status = if any_accepted { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok((status, json::answer(body)).into_response())
}

/// Streams the files to the spool. A return by error drops the spool, and with it what had arrived.
async fn store(parts: &mut Multipart, form: Form, mut spool: Spool) -> Result<UploadView, Problem> {
    let (mut zone, mut files) = (None, 0);
    while let Some(mut field) = parts.next_field().await.map_err(|error| broken(&error))? {
        match field.name().unwrap_or_default() {
            "timezone" => zone = time_zone(&mut field).await?.or(zone),
            name if name == form.field => {
                files += 1;
                if files > 1 && !form.many {
                    return Err(Problem::parameter("file", "one file is taken here; /upload/bulk takes several").closing());
                }
                // The name is data: it is told in the report and names a series, and never a file of ours.
                let name = field.file_name().filter(|name| !name.is_empty()).unwrap_or("upload").to_owned();
                let mut file = spool.file(&name).await.map_err(|error| Problem::from(error).closing())?;
                while let Some(bytes) = field.chunk().await.map_err(|error| broken(&error))? {
                    file.write(&bytes).await.map_err(|error| Problem::from(error).closing())?;
                }
                file.end().await?;
            }
            _ => while field.chunk().await.map_err(|error| broken(&error))?.is_some() {},
        }
    }
    if files == 0 {
        return Err(Problem::parameter(form.field, format_args!("the form holds no file in the field {:?}", form.field)).closing());
    }
    Ok(spool.finish(zone).await?)
}

async fn time_zone(field: &mut Field<'_>) -> Result<Option<TimeZone>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        if bytes.len() + chunk.len() > FIELD_BYTES {
            return Err(Problem::parameter("timezone", format_args!("may have at most {FIELD_BYTES} bytes")).closing());
        }
        bytes.extend_from_slice(&chunk);
    }
    let name = String::from_utf8_lossy(&bytes);
    let name = name.trim();
    if name.is_empty() {
        return Ok(None);
    }
    let unknown =
        |_| Problem::parameter("timezone", format_args!("{name:?} is not a time zone; one is named like Europe/Brussels or UTC")).closing();
    TimeZone::get(name).map(Some).map_err(unknown)
}

fn broken(error: &MultipartError) -> Problem {
    if error.status().is_client_error() {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_multipart", format_args!("the form cannot be read: {}", error.body_text())).closing()
    } else {
        body::cut(error.body_text())
    }
}
