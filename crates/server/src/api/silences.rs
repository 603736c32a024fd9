//! `/silences`: for a while, nobody hears of what matches.

use std::sync::Arc;

use anomaly_engine::Timestamp;
use anomaly_engine::parse::parse_time;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::incidents::{word, words};
use super::{Api, json, now, schema};
use crate::ids::new_id;
use crate::problem::Problem;
use crate::silence::{MOST_SILENCES, MatcherSpec, Silence, compile};
use crate::store::Write;
use crate::store::handling::Word;

/// Lists the silences that hold, those that will, and those that ended within a week.
#[utoipa::path(get, path = "/silences", operation_id = "list_silences", tag = "silences",
    responses((status = 200, description = "Those that end last first", body = schema::Silences,
        example = json!({"silences": [super::openapi::silence_example()]}))))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let silences = api.fresh_store(|store| store.silences(now())).await?;
    Ok(json::answer(format!("{{\"silences\":{}}}", json::array(silences.iter().map(silence)))))
}

/// A silence as it is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    matchers: Vec<MatcherSpec>,
    from: Option<Box<RawValue>>,
    to: Box<RawValue>,
    by: Option<String>,
    comment: Option<String>,
}

/// Makes a silence. Its matchers must all hold; a label that a series does not have is the empty text.
#[utoipa::path(post, path = "/silences", operation_id = "make_silence", tag = "silences",
    request_body(content = schema::NewSilence, description = "`op` is `=`, `!=`, `=~` or `!~` (the whole value must match); `metric` and `severity` are names too; times are epoch seconds or RFC 3339",
        example = json!({"matchers": [{"name": "metric", "op": "=", "value": "cpu_usage"}, {"name": "dc", "op": "=~", "value": "eu-.*"}],
            "from": 1_234_567_890, "to": 1_234_571_490, "by": "ada", "comment": "maintenance"})),
    responses((status = 201, description = "The silence", body = schema::Silence, example = json!(super::openapi::silence_example()))))]
pub(super) async fn make(State(api): State<Arc<Api>>, request: Request<Body>) -> Result<Response, Problem> {
    let Asked { matchers, from, to, by, comment } = words(request).await?;
    let matchers = compile(matchers).map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_silence", error))?;
    let Word { by, comment } = word(by, comment)?;
    let at = now();
    let (from, to) = (from.map_or(Ok(at), |from| time("from", &from))?, time("to", &to)?);
    if to <= from || to <= at {
        let detail = format_args!("must be later than from and than now, got {to} after {from}").to_string();
        return Err(Problem::parameter("to", detail));
    }
    let made = Silence { id: new_id(), matchers, from, to, by, comment };
    if !api.app.desk.write(Write::Silence { silence: made.to_stored(), at }).await?.is_yes() {
        let detail = format_args!("there are {MOST_SILENCES} that are not over; end some, or match more with one").to_string();
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too_many_silences", detail));
    }
    Ok((StatusCode::CREATED, json::answer(silence(&made))).into_response())
}

/// Ends a silence now.
#[utoipa::path(delete, path = "/silences/{id}", operation_id = "end_silence", tag = "silences",
    params(("id" = String, Path, description = "The silence's `id`", example = "0f9e8d7c6b5a4938")),
    responses((status = 204, description = "It has ended; what it held back and is still open is told now")))]
pub(super) async fn end(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let ended = api.app.desk.write(Write::EndSilence { id: id.clone(), at: now() }).await?;
    if ended.is_yes() {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found(format_args!("no silence with the id {id} holds or will")))
    }
}

fn time(name: &str, written: &RawValue) -> Result<Timestamp, Problem> {
    let text: String = serde_json::from_str(written.get()).unwrap_or_else(|_| written.get().to_owned());
    parse_time(&text).map_err(|fault| Problem::parameter(name, fault))
}

fn silence(silence: &Silence) -> String {
    let Silence { id, matchers, from, to, by, comment } = silence;
    let specs: Vec<_> = matchers.iter().map(|matcher| &matcher.spec).collect();
    let at = now();
    let state = match (*from <= at, at < *to) {
        (true, true) => "active",
        (false, _) => "pending",
        (true, false) => "expired",
    };
    let (id, by, comment) = (json::text(id), json::text_or_null(by.as_deref()), json::text_or_null(comment.as_deref()));
    let matchers = serde_json::to_string(&specs).unwrap_or_default();
    format!("{{\"id\":{id},\"matchers\":{matchers},\"from\":{from},\"to\":{to},\"by\":{by},\"comment\":{comment},\"state\":\"{state}\"}}")
}
