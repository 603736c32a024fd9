//! `/incidents`: anomalies of one series that follow each other within the window.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;

use super::query::Params;
use super::schema;
use super::{Api, json};
use crate::problem::Problem;
use crate::store::{Incident, IncidentPage};

/// Lists incidents in the order in which they came to be, newest first.
///
/// A filter is met by an incident when any of its anomalies meets it; `totals` are those of the filter. With `cursor` as its
/// `after` the WebSocket goes on where this answer ends.
#[utoipa::path(get, path = "/incidents", operation_id = "list_incidents", tag = "incidents",
    params(schema::Filters, schema::Paging),
    responses((status = 200, description = "A page; pass `next` back as `cursor` for older ones", body = schema::IncidentPage,
        example = json!({"incidents": [super::openapi::incident_example()], "next": null, "totals": {"incidents": 1, "anomalies": 3}, "cursor": "412"}))))]
pub(super) async fn list(State(api): State<Arc<Api>>, params: Params) -> Result<Response, Problem> {
    let (filter, limit) = (params.filter()?, params.limit()?);
    let cursor = params.cursor().map(str::to_owned);
    let IncidentPage { page, totals, as_of } = api.store(move |store| store.incidents(&filter, cursor.as_deref(), limit)).await?;
    let (incidents, next) = (json::array(page.items.iter().map(incident)), json::text_or_null(page.next.as_deref()));
    let totals = format!("{{\"incidents\":{},\"anomalies\":{}}}", totals.incidents, totals.anomalies);
    Ok(json::answer(format!("{{\"incidents\":{incidents},\"next\":{next},\"totals\":{totals},\"cursor\":\"{as_of}\"}}")))
}

/// Tells one incident, with its anomalies.
#[utoipa::path(get, path = "/incidents/{id}", operation_id = "get_incident", tag = "incidents",
    params(("id" = String, Path, description = "The incident's `id`", example = "5b1f0c2d9a8e7f60")),
    responses((status = 200, description = "The incident, and its anomalies in the order of detection", body = schema::IncidentWithAnomalies,
        example = json!({"incident": super::openapi::incident_example(), "anomalies": [super::openapi::anomaly_example()]}))))]
pub(super) async fn one(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let asked = id.clone();
    let found = api.store(move |store| store.incident(&asked)).await?;
    let (one, anomalies) = found.ok_or_else(|| Problem::not_found(format_args!("no incident has the id {id}")))?;
    let anomalies = json::array(anomalies.iter().map(|stored| &stored.body));
    Ok(json::answer(format!("{{\"incident\":{},\"anomalies\":{anomalies}}}", incident(&one))))
}

fn incident(incident: &Incident) -> String {
    let Incident { id, name, metric, labels, start, end, count, critical, peak } = incident;
    let (id, name, metric, severity) = (json::text(id), json::text(name), json::text(metric), json::severity(*critical));
    format!(
        "{{\"id\":{id},\"series\":{name},\"metric\":{metric},\"labels\":{labels},\"start\":{start},\"end\":{end},\"count\":{count},\
         \"severity\":\"{severity}\",\"peak\":{peak}}}"
    )
}
