//! `/incidents`: anomalies of one series that follow each other within the window, and what people say of them.

use std::sync::Arc;

use anomaly_engine::{SeriesKey, Timestamp};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::notifications::{self, notification};
use super::query::Params;
use super::{Api, body, json, now, schema};
use crate::capsule;
use crate::problem::Problem;
use crate::store::handling::{Act, Acted, Entry, What, Word};
use crate::store::incidents::{LISTED, Whole};
use crate::store::{Incident, IncidentPage};
use crate::store::{Outcome, Write};

/// The most bytes of what people say.
const WORDS_BYTES: usize = 16 << 10;
/// The most characters of a name, and of a comment.
const BY_CHARS: usize = 100;
const COMMENT_CHARS: usize = 1000;

/// Lists incidents in the order in which they came to be, newest first.
///
/// A filter is met by an incident when any of its anomalies meets it; `totals` are those of the filter. With `cursor` as its
/// `after` the WebSocket goes on where this answer ends.
#[utoipa::path(get, path = "/incidents", operation_id = "list_incidents", tag = "incidents",
    params(schema::Filters, schema::Paging,
        ("state" = Option<String>, Query, description = "Only incidents in this state, or in one of these between commas: `open`, `acknowledged`, `silenced`, `resolved`", example = "open,acknowledged")),
    responses((status = 200, description = "A page; pass `next` back as `cursor` for older ones", body = schema::IncidentPage,
        example = json!({"incidents": [super::openapi::incident_example()], "next": null, "totals": {"incidents": 1, "anomalies": 3}, "cursor": "412"}))))]
pub(super) async fn list(State(api): State<Arc<Api>>, params: Params) -> Result<Response, Problem> {
    let (mut filter, limit) = (params.filter()?, params.limit()?);
    filter.states = params.states()?;
    let cursor = params.cursor().map(str::to_owned);
    let IncidentPage { page, totals, as_of } =
        api.fresh_store(move |store| store.incidents(&filter, cursor.as_deref(), limit, now())).await?;
    let (incidents, next) = (json::array(page.items.iter().map(incident)), json::text_or_null(page.next.as_deref()));
    let totals = format!("{{\"incidents\":{},\"anomalies\":{}}}", totals.incidents, totals.anomalies);
    Ok(json::answer(format!("{{\"incidents\":{incidents},\"next\":{next},\"totals\":{totals},\"cursor\":\"{as_of}\"}}")))
}

/// Tells one incident: its anomalies, its history, what was sent about it, and what began together with it.
#[utoipa::path(get, path = "/incidents/{id}", operation_id = "get_incident", tag = "incidents",
    params(("id" = String, Path, description = "The incident's `id`", example = "5b1f0c2d9a8e7f60"),
        ("limit" = Option<u16>, Query, description = "The most anomalies that are told with it, the latest; 1–10,000, all of these by default", minimum = 1, maximum = 10_000, example = 100)),
    responses((status = 200, description = "The incident, its anomalies in the order of detection, and its history, oldest first", body = schema::IncidentWhole,
        example = json!({"incident": super::openapi::incident_example(), "anomalies": [super::openapi::anomaly_example()],
            "history": [{"at": 1_234_567_891.2, "what": "opened", "by": null, "comment": null, "verdict": null}],
            "notifications": [super::openapi::notification_example()], "budget": {"limit": "2/week", "sent": 1, "held": 0}, "together": []}))))]
pub(super) async fn one(State(api): State<Arc<Api>>, Path(id): Path<String>, params: Params) -> Result<Response, Problem> {
    let asked = id.clone();
    let limit = params.count("limit", LISTED, LISTED)?;
    let found = api.fresh_store(move |store| store.incident(&asked, limit, now())).await?;
    let Whole { incident: one, anomalies, history, notifications, together } = found.ok_or_else(|| unknown(&id))?;
    let anomalies = json::array(anomalies.iter().map(|stored| &stored.body));
    let history = json::array(history.iter().map(entry));
    let notifications = json::array(notifications.iter().map(notification));
    let together = json::array(together.iter().map(incident));
    let budget = notifications::budget(&api).await?;
    Ok(json::answer(format!(
        "{{\"incident\":{},\"anomalies\":{anomalies},\"history\":{history},\"notifications\":{notifications},\"budget\":{budget},\
         \"together\":{together}}}",
        incident(&one)
    )))
}

/// Gives an incident in a box: its samples, its configuration and what was found, for `anomaly replay`.
#[utoipa::path(get, path = "/incidents/{id}/capsule", operation_id = "get_capsule", tag = "incidents",
    params(("id" = String, Path, description = "The incident's `id`", example = "5b1f0c2d9a8e7f60")),
    responses((status = 200, description = "A file; samples are in the order of their arrival, as far as they are still kept", body = Object,
        example = json!({"format": "anomaly-capsule/1", "version": "0.1.0", "exported_at": 1_234_568_000.5, "series": "cpu_usage{dc=\"eu\"}", "incident": "5b1f0c2d9a8e7f60",
            "config": {"window_seconds": 300.0}, "anomalies": [super::openapi::anomaly_example()], "samples": [[1_234_567_890.5, 95.0]]}))))]
pub(super) async fn capsule(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let asked = id.clone();
    let Whole { incident, anomalies, .. } =
        api.fresh_store(move |store| store.incident(&asked, LISTED, now())).await?.ok_or_else(|| unknown(&id))?;
    let key = SeriesKey::parse(&incident.name).ok_or_else(|| unknown(&id))?;
    let config = api.app.engine.config();
    let from = capsule::reach(&config, &key, incident.start);
    let points = api.app.points.arrivals(key.hash(), from, incident.end, capsule::MOST_SAMPLES).await;
    let bodies: Vec<_> = anomalies.iter().map(|stored| stored.body.as_str()).collect();
    let file = capsule::write(&config, &key, &id, &bodies, &points, now());
    let name = HeaderValue::from_str(&format!("attachment; filename=\"incident-{id}.json\"")).map_err(Problem::internal)?;
    let mut response = json::answer(file);
    response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

/// What somebody says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    by: Option<String>,
    comment: Option<String>,
}

/// What somebody found.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Found {
    verdict: String,
    by: Option<String>,
    comment: Option<String>,
}

/// Says that somebody looks after an incident: it is not told again.
#[utoipa::path(post, path = "/incidents/{id}/acknowledge", operation_id = "acknowledge", tag = "incidents",
    params(("id" = String, Path, description = "The incident's `id`", example = "5b1f0c2d9a8e7f60")),
    request_body(content = schema::Said, description = "Both may be missing", example = json!({"by": "ada", "comment": "looking at it"})),
    responses((status = 200, description = "The incident as it stands now", body = schema::Incident, example = json!(super::openapi::incident_example()))))]
pub(super) async fn acknowledge(State(api): State<Arc<Api>>, Path(id): Path<String>, request: Request<Body>) -> Result<Response, Problem> {
    let Said { by, comment } = words(request).await?;
    act(&api, id, Act::Acknowledge, word(by, comment)?).await
}

/// Says that an incident is over. An anomaly that joins it afterwards opens it again.
#[utoipa::path(post, path = "/incidents/{id}/resolve", operation_id = "resolve", tag = "incidents",
    params(("id" = String, Path, description = "The incident's `id`", example = "5b1f0c2d9a8e7f60")),
    request_body(content = schema::Said, description = "Both may be missing", example = json!({"by": "ada", "comment": "restarted the node"})),
    responses((status = 200, description = "The incident as it stands now", body = schema::Incident, example = json!(super::openapi::incident_example()))))]
pub(super) async fn resolve(State(api): State<Arc<Api>>, Path(id): Path<String>, request: Request<Body>) -> Result<Response, Problem> {
    let Said { by, comment } = words(request).await?;
    act(&api, id, Act::Close, word(by, comment)?).await
}

/// Says whether an incident was useful or a false alarm. The last word counts.
#[utoipa::path(post, path = "/incidents/{id}/feedback", operation_id = "give_feedback", tag = "incidents",
    params(("id" = String, Path, description = "The incident's `id`", example = "5b1f0c2d9a8e7f60")),
    request_body(content = schema::Found, example = json!({"verdict": "false_alarm", "by": "ada", "comment": "planned restart"})),
    responses((status = 200, description = "The incident as it stands now", body = schema::Incident, example = json!(super::openapi::incident_example()))))]
pub(super) async fn feedback(State(api): State<Arc<Api>>, Path(id): Path<String>, request: Request<Body>) -> Result<Response, Problem> {
    let Found { verdict, by, comment } = words(request).await?;
    let useful = match verdict.as_str() {
        "useful" => true,
        "false_alarm" => false,
        other => return Err(Problem::parameter("verdict", format_args!("must be useful or false_alarm, got {other:?}"))),
    };
    let said = word(by, comment)?;
    let asked = id.clone();
    let found = api.fresh_store(move |store| store.incident(&asked, 1, now())).await?.ok_or_else(|| unknown(&id))?;
    let key = SeriesKey::parse(&found.incident.name).ok_or_else(|| unknown(&id))?;
    let rule = api.app.engine.config().rule_name(&key);
    act(&api, id, Act::Feedback { useful, rule }, said).await
}

/// What people found of the incidents of each rule, and how often they were useful.
#[utoipa::path(get, path = "/feedback", operation_id = "list_feedback", tag = "incidents",
    responses((status = 200, description = "By rule: `default`, or its place in `anomaly.toml`; `precision` is the share that was useful", body = schema::Feedback,
        example = json!({"rules": [{"rule": "default", "useful": 3, "false_alarm": 1, "precision": 0.75}]}))))]
pub(super) async fn by_rule(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let rules = api.fresh_store(crate::store::sqlite::StoreReader::feedback).await?;
    let rule = |rule: &crate::store::handling::RuleFeedback| {
        let precision = rule.useful as f64 / (rule.useful + rule.false_alarms).max(1) as f64;
        let (name, useful, false_alarm) = (json::text(&rule.rule), rule.useful, rule.false_alarms);
        format!("{{\"rule\":{name},\"useful\":{useful},\"false_alarm\":{false_alarm},\"precision\":{}}}", json::number(precision))
    };
    Ok(json::answer(format!("{{\"rules\":{}}}", json::array(rules.iter().map(rule)))))
}

async fn act(api: &Api, id: String, act: Act, said: Word) -> Result<Response, Problem> {
    let again = id.clone();
    match api.app.desk.write(Write::Act { incident: id.clone(), act, word: said, at: now() }).await? {
        Outcome::Acted(Acted::Unknown) => return Err(unknown(&id)),
        Outcome::Acted(Acted::AlreadyResolved) => {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "already_resolved",
                "the incident is resolved already; another anomaly within its window opens it again",
            ));
        }
        _ => {}
    }
    let found = api.fresh_store(move |store| store.incident(&again, 1, now())).await?.ok_or_else(|| unknown(&id))?;
    Ok(json::answer(incident(&found.incident)))
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format_args!("no incident has the id {id}"))
}

/// The body of a request as JSON; an empty one is an empty object.
pub(super) async fn words<T: DeserializeOwned>(request: Request<Body>) -> Result<T, Problem> {
    let bytes = body::read(request, WORDS_BYTES, "what is said").await?;
    let bytes = if bytes.trim_ascii().is_empty() { &b"{}"[..] } else { &bytes[..] };
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", error),
        _ => Problem::new(StatusCode::BAD_REQUEST, "invalid_json", error),
    })
}

/// Checks what somebody says: control characters have no place in it, and an empty text says nothing.
pub(super) fn word(by: Option<String>, comment: Option<String>) -> Result<Word, Problem> {
    let check = |name: &str, text: Option<String>, most: usize| {
        // A tab comes with what is pasted from a terminal.
        let Some(text) = text.map(|text| text.replace('\t', " ").trim().to_owned()).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let n = text.chars().count();
        if n > most {
            return Err(Problem::parameter(name, format_args!("at most {most} characters are taken, got {n}")));
        }
        if text.chars().any(|c| c.is_control() && !(name == "comment" && c == '\n')) {
            return Err(Problem::parameter(name, "control characters are not taken"));
        }
        Ok(Some(text))
    };
    Ok(Word { by: check("by", by, BY_CHARS)?, comment: check("comment", comment, COMMENT_CHARS)? })
}

fn entry(entry: &Entry) -> String {
    let Entry { at, what, word: Word { by, comment } } = entry;
    let (what, verdict) = match what {
        What::Useful | What::FalseAlarm => ("feedback", Some(what.as_str())),
        _ => (what.as_str(), None),
    };
    let (by, comment) = (json::text_or_null(by.as_deref()), json::text_or_null(comment.as_deref()));
    format!("{{\"at\":{at},\"what\":\"{what}\",\"by\":{by},\"comment\":{comment},\"verdict\":{}}}", json::text_or_null(verdict))
}

pub(super) fn incident(incident: &Incident) -> String {
    let Incident { id, name, metric, labels, start, end, count, critical, peak, state, resolved, by, comment, useful } = incident;
    let (id, name, metric, severity) = (json::text(id), json::text(name), json::text(metric), json::severity(*critical));
    let resolved = resolved.as_ref().map_or_else(|| "null".to_owned(), Timestamp::to_string);
    let (by, comment) = (json::text_or_null(by.as_deref()), json::text_or_null(comment.as_deref()));
    let feedback = json::text_or_null(useful.map(|useful| if useful { What::Useful } else { What::FalseAlarm }).map(What::as_str));
    let state = state.as_str();
    format!(
        "{{\"id\":{id},\"series\":{name},\"metric\":{metric},\"labels\":{labels},\"start\":{start},\"end\":{end},\"count\":{count},\
         \"severity\":\"{severity}\",\"state\":\"{state}\",\"resolved_at\":{resolved},\"by\":{by},\"comment\":{comment},\
         \"feedback\":{feedback},\"peak\":{peak}}}"
    )
}
