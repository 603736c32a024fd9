//! `/series`: what is known, its recent points, why a point did or did not fire, and forgetting.

use std::fmt::Write as _;
use std::sync::Arc;

use anomaly_engine::SeriesInfo;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::anomalies::DAY;
use super::query::Params;
use super::schema;
use super::{Api, json, now};
use crate::points::Verdict;
use crate::problem::Problem;

/// Lists series by name.
#[utoipa::path(get, path = "/series", operation_id = "list_series", tag = "series",
    params(
        ("query" = Option<String>, Query, description = "Words that the name holds, in any order", example = "cpu eu"),
        schema::Paging),
    responses((status = 200, description = "A page; pass `next` back as `cursor` for the following ones", body = schema::SeriesPage,
        example = json!({"series": [{"series": "cpu_usage{dc=\"eu\"}", "metric": "cpu_usage", "labels": {"dc": "eu"}, "count": 86400,
            "last": {"timestamp": 1234567890.5, "value": 85.5}, "anomalies_24h": 2, "detector": "zscore"}], "next": null}))))]
pub(super) async fn list(State(api): State<Arc<Api>>, params: Params) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let after = params.cursor().map(name_of_cursor).transpose()?;
    api.fresh_series().await;
    let (found, next) = api.app.engine.series(params.text("query").unwrap_or_default(), after, limit).await?;
    let next = next.map(|name| cursor_of_name(&name));
    let (since, hashes) = (now().plus(-DAY), found.iter().map(|info| info.key.hash()).collect::<Vec<_>>());
    let counts =
        api.store(move |store| hashes.into_iter().map(|hash| store.anomalies_since(hash, since)).collect::<Result<Vec<_>, _>>()).await?;
    let series = json::array(found.iter().zip(counts).map(|(info, anomalies)| entry(info, anomalies)));
    Ok(json::answer(format!("{{\"series\":{series},\"next\":{}}}", json::text_or_null(next.as_deref()))))
}

/// Forgets a series: its state, points, anomalies and incidents.
#[utoipa::path(delete, path = "/series", operation_id = "forget_series", tag = "series",
    params(("series" = String, Query, description = "The series' name", example = "cpu_usage{dc=\"eu\"}")),
    responses((status = 204, description = "It is forgotten")))]
pub(super) async fn forget(State(api): State<Arc<Api>>, params: Params) -> Result<StatusCode, Problem> {
    let key = params.series()?;
    let series = key.hash();
    let position = api.app.log.forget(key).await?;
    api.app.engine.reached(position).await;
    api.app.engine.gone(series).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives recent points for drawing: down-sampled, anomalies never sampled away.
#[utoipa::path(get, path = "/series/points", operation_id = "series_points", tag = "series",
    params(
        ("series" = String, Query, description = "The series' name", example = "cpu_usage{dc=\"eu\"}"),
        ("from" = Option<String>, Query, description = "Event time, inclusive: epoch seconds or RFC 3339", example = "1234567890"),
        ("to" = Option<String>, Query, description = "Event time, inclusive", example = "1234571490"),
        ("max_points" = Option<u32>, Query, description = "About how many points, 1–10000; default 1000", minimum = 1, maximum = 10000, example = 500)),
    responses((status = 200, description = "The points in the order of time, best effort", body = schema::Points,
        example = json!({"points": [super::openapi::point_example()]}))))]
pub(super) async fn points(State(api): State<Arc<Api>>, params: Params) -> Result<Response, Problem> {
    let key = params.series()?;
    let (from, to, max_points) = (params.time("from")?, params.time("to")?, params.count("max_points", 1000, 10_000)?);
    api.fresh_series().await;
    match api.app.points.range(key.hash(), from, to, max_points).await {
        Some(points) => Ok(json::answer(format!("{{\"points\":{}}}", json::array(points.iter().map(json::point))))),
        // Points are best effort: a series may be known without any.
        None if api.app.engine.one(key.hash()).await?.is_some() => Ok(json::answer("{\"points\":[]}".to_owned())),
        None => Err(Problem::not_found(format_args!("no series is named {}", key.name()))),
    }
}

/// Explains any retained point, whether it fired or not.
#[utoipa::path(get, path = "/series/explain", operation_id = "explain_point", tag = "series",
    params(
        ("series" = String, Query, description = "The series' name", example = "cpu_usage{dc=\"eu\"}"),
        ("at" = String, Query, description = "The point's event time: epoch seconds or RFC 3339", example = "1234567890.5")),
    responses((status = 200, description = "The anomaly's shape, with `verdict`", body = schema::Explanation,
        example = json!(super::openapi::explanation_example()))))]
pub(super) async fn explain(State(api): State<Arc<Api>>, params: Params) -> Result<Response, Problem> {
    let key = params.series()?;
    let at = params.time("at")?.ok_or_else(|| Problem::parameter("at", "the point's time is needed"))?;
    let hash = key.hash();
    api.fresh_series().await;
    let Some(point) = api.app.points.at(hash, at).await else {
        let known = api.app.engine.one(hash).await?.is_some();
        let detail =
            if known { format!("no point of {} at {at} is retained", key.name()) } else { format!("no series is named {}", key.name()) };
        return Err(Problem::not_found(detail));
    };
    let at = point.timestamp;
    // What was found at the time is told as it was stored, with its id and incident.
    let stored = match point.verdict {
        Verdict::Anomaly | Verdict::Critical => api.store(move |store| store.anomaly_at(hash, at)).await?,
        Verdict::Normal | Verdict::TooFew | Verdict::Late => None,
    };
    let stored = stored.as_ref().and_then(|stored| stored.body.trim_end().strip_suffix('}'));
    Ok(json::answer(match stored {
        Some(open) => format!("{open},\"verdict\":\"anomaly\"}}"),
        None => api.app.engine.explain(&key, &point),
    }))
}

fn entry(info: &SeriesInfo, anomalies: u64) -> String {
    let (name, metric, labels) = (json::text(&info.name), json::text(info.key.metric()), json::labels(&info.key.labels()));
    let (at, value) = (info.last.0, json::number(info.last.1));
    let mut out = format!(
        "{{\"series\":{name},\"metric\":{metric},\"labels\":{labels},\"count\":{},\"last\":{{\"timestamp\":{at},\"value\":{value}}},\
         \"anomalies_24h\":{anomalies},\"detector\":{}",
        info.count,
        json::text(info.detector.as_str())
    );
    for (name, on) in [("sparse", info.sparse), ("truncated", info.truncated)] {
        if on {
            let _ = write!(out, ",\"{name}\":true");
        }
    }
    out.push('}');
    out
}

/// A cursor is the last name of the page, in hexadecimal so that it needs no escaping in a URL.
fn cursor_of_name(name: &str) -> String {
    name.bytes().fold(String::with_capacity(2 * name.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn name_of_cursor(cursor: &str) -> Result<String, Problem> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = cursor.as_bytes().chunks(2).map(byte).collect();
    let name = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    name.ok_or_else(|| Problem::bad_cursor(format_args!("the cursor {cursor:?} is not one that this server gave")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_carries_any_name() {
        for name in ["cpu", "m{a=\"1\"}", "日本 &+%"] {
            assert_eq!(name_of_cursor(&cursor_of_name(name)).unwrap(), name);
        }
        for bad in ["garbage", "-1", "abc", "ff", "💥", "+1+1"] {
            assert_eq!(name_of_cursor(bad).unwrap_err().code(), "bad_cursor", "{bad}");
        }
    }
}
