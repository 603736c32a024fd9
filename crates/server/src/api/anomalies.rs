//! `/anomalies`: the list, one, and the overview.

use std::sync::Arc;

use anomaly_engine::parse::parse_time;
use anomaly_engine::{SeriesKey, Timestamp};
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::query::Params;
use super::schema;
use super::{Api, json, now};
use crate::problem::Problem;
use crate::store::{Cell, Lane};

/// How many samples before and behind an anomaly are shown with it: what led to it, and how it went on.
const POINTS_BEFORE: usize = 120;
const POINTS_BEHIND: usize = 60;
/// One day in nanoseconds.
pub(super) const DAY: i64 = 86_400 * anomaly_engine::NANOS;

/// Lists anomalies in the order of detection, newest first.
#[utoipa::path(get, path = "/anomalies", operation_id = "list_anomalies", tag = "anomalies",
    params(schema::Filters, schema::Paging),
    responses((status = 200, description = "A page; pass `next` back as `cursor` for older ones", body = schema::AnomalyPage,
        example = json!({"anomalies": [super::openapi::anomaly_example()], "next": "412"}))))]
pub(super) async fn list(State(api): State<Arc<Api>>, params: Params) -> Result<Response, Problem> {
    let (filter, limit) = (params.filter()?, params.limit()?);
    let cursor = params.cursor().map(str::to_owned);
    let page = api.fresh_store(move |store| store.anomalies(&filter, cursor.as_deref(), limit)).await?;
    let anomalies = json::array(page.items.iter().map(|stored| &stored.body));
    Ok(json::answer(format!("{{\"anomalies\":{anomalies},\"next\":{}}}", json::text_or_null(page.next.as_deref()))))
}

/// Tells one anomaly, with the samples around it.
#[utoipa::path(get, path = "/anomalies/{id}", operation_id = "get_anomaly", tag = "anomalies",
    params(("id" = String, Path, description = "The anomaly's `id`", example = "9f2c6c1be2f0a3d47e5b8f1a2c3d4e5f")),
    responses((status = 200, description = "The anomaly, and the samples around it in the order of time", body = schema::AnomalyWithPoints,
        example = json!({"anomaly": super::openapi::anomaly_example(), "points": [super::openapi::point_example()]}))))]
pub(super) async fn one(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let asked = id.clone();
    let stored = api.fresh_store(move |store| store.anomaly(&asked)).await?;
    let stored = stored.ok_or_else(|| Problem::not_found(format_args!("no anomaly has the id {id}")))?;
    let points = match place(&stored.body) {
        Some((key, at)) => api.app.points.around(key.hash(), at, POINTS_BEFORE, POINTS_BEHIND).await,
        None => Vec::new(),
    };
    let points = json::array(points.iter().map(json::point));
    Ok(json::answer(format!("{{\"anomaly\":{},\"points\":{points}}}", stored.body)))
}

/// Tells where anomalies are: a lane for each of the series that have most, cut into buckets of time.
#[utoipa::path(get, path = "/anomalies/heat", operation_id = "heat", tag = "anomalies",
    params(
        ("from" = Option<String>, Query, description = "Event time: epoch seconds or RFC 3339; default 24 hours before `to`", example = "2025-01-21T10:00:00Z"),
        ("to" = Option<String>, Query, description = "Event time; default now", example = "2025-01-22T10:00:00Z"),
        ("buckets" = Option<u16>, Query, description = "Buckets of a lane, 1–1000; default 48", minimum = 1, maximum = 1000, example = 48),
        ("top" = Option<u16>, Query, description = "Lanes, 1–100; default 7", minimum = 1, maximum = 100, example = 7)),
    responses((status = 200, description = "The lanes, those with most anomalies first; an empty bucket is null", body = schema::Heat,
        example = json!({"lanes": [{"series": "cpu_usage{dc=\"eu\"}", "metric": "cpu_usage", "labels": {"dc": "eu"}, "buckets": [null, {"count": 2, "max_z": 13.74, "severity": "critical"}]}]}))))]
pub(super) async fn heat(State(api): State<Arc<Api>>, params: Params) -> Result<Response, Problem> {
    let to = params.time("to")?.unwrap_or_else(now);
    let from = params.time("from")?.unwrap_or_else(|| to.plus(-DAY));
    if from >= to {
        return Err(Problem::parameter("from", format_args!("must be before to, got {from} and {to}")));
    }
    let (buckets, top) = (params.count("buckets", 48, 1000)?, params.count("top", 7, 100)?);
    let lanes = api.fresh_store(move |store| store.heat(from, to, buckets, top)).await?;
    Ok(json::answer(format!("{{\"lanes\":{}}}", json::array(lanes.iter().map(lane)))))
}

fn lane(lane: &Lane) -> String {
    let cell = |cell: &Option<Cell>| match cell {
        None => "null".to_owned(),
        Some(cell) => {
            let (height, severity) = (json::number(cell.height), json::severity(cell.critical));
            format!("{{\"count\":{},\"max_z\":{height},\"severity\":\"{severity}\"}}", cell.count)
        }
    };
    let (name, metric, buckets) = (json::text(&lane.name), json::text(&lane.metric), json::array(lane.cells.iter().map(cell)));
    format!("{{\"series\":{name},\"metric\":{metric},\"labels\":{},\"buckets\":{buckets}}}", lane.labels)
}

/// Series and time of a stored anomaly, to the digit.
fn place(body: &str) -> Option<(SeriesKey, Timestamp)> {
    #[derive(Deserialize)]
    struct Place<'a> {
        series: String,
        #[serde(borrow)]
        timestamp: &'a RawValue,
    }
    let place: Place<'_> = serde_json::from_str(body).ok()?;
    Some((SeriesKey::parse(&place.series)?, parse_time(place.timestamp.get()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_an_anomaly_is_exact() {
        let (key, at) = place(r#"{"id":"x","series":"m{a=\"1\"}","timestamp":1737453600.000000001,"value":1}"#).unwrap();
        assert_eq!((key, at.nanos()), (SeriesKey::new("m", &[("a", "1")]), 1_737_453_600_000_000_001));
    }
}
