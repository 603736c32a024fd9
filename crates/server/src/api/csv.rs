//! `/anomalies.csv`: the same anomalies as a file, streamed page by page.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::value::RawValue;

use super::Api;
use super::query::Params;
use super::schema;
use crate::problem::Problem;
use crate::store::{Filter, Stored};

/// Anomalies read at a time: no read transaction outlives one page.
const PAGE: usize = 500;

/// The columns, named as the fields of an anomaly.
const COLUMNS: [&str; 22] = [
    "id",
    "series",
    "metric",
    "labels",
    "timestamp",
    "value",
    "detector",
    "score",
    "z_score",
    "expected",
    "lower",
    "upper",
    "mean",
    "stddev",
    "count",
    "direction",
    "severity",
    "explanation",
    "meta",
    "event_id",
    "incident_id",
    "detected_at",
];

/// Gives the anomalies as a CSV file, in the order of detection, newest first.
///
/// Text that a spreadsheet would take for a formula begins with an apostrophe.
#[utoipa::path(get, path = "/anomalies.csv", operation_id = "list_anomalies_csv", tag = "anomalies",
    params(schema::Filters),
    responses((status = 200, description = "A header, then an anomaly a line", body = String, content_type = "text/csv",
        example = json!("id,series,metric,…\r\n9f2c…,\"cpu_usage{dc=\"\"eu\"\"}\",cpu_usage,…\r\n"))))]
pub(super) async fn file(State(api): State<Arc<Api>>, params: Params) -> Result<Response, Problem> {
    let filter = params.filter()?;
    // The first page is read before the status is sent, so a store that fails is a 500.
    let first = page(&api, filter.clone(), None).await?;
    let header = format!("{}\r\n", COLUMNS.join(","));
    let rows = stream::try_unfold((Some(first), filter, api, header), |(read, filter, api, mut out)| async move {
        let Some((anomalies, next)) = read else { return Ok(None) };
        anomalies.iter().for_each(|stored| write_row(&mut out, &stored.body));
        let following = match next {
            None => None,
            Some(cursor) => Some(page(&api, filter.clone(), Some(cursor)).await.map_err(|problem| std::io::Error::other(problem.code()))?),
        };
        Ok::<_, std::io::Error>(Some((Bytes::from(out), (following, filter, api, String::new()))))
    });
    let headers =
        [(header::CONTENT_TYPE, "text/csv; charset=utf-8"), (header::CONTENT_DISPOSITION, "attachment; filename=\"anomalies.csv\"")];
    Ok((headers, Body::from_stream(rows)).into_response())
}

async fn page(api: &Api, filter: Filter, cursor: Option<String>) -> Result<(Vec<Stored>, Option<String>), Problem> {
    let page = api.fresh_store(move |store| store.anomalies(&filter, cursor.as_deref(), PAGE)).await?;
    Ok((page.items, page.next))
}

fn write_row(out: &mut String, body: &str) {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(body).unwrap_or_default();
    for (i, column) in COLUMNS.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match fields.get(*column).map_or("null", |value| value.get()) {
            "null" => {}
            text if text.starts_with('"') => push_text(out, &serde_json::from_str::<String>(text).unwrap_or_default()),
            object if object.starts_with('{') => push_text(out, if object == "{}" { "" } else { object }),
            number => out.push_str(number),
        }
    }
    out.push_str("\r\n");
}

/// A cell of text: quoted where it must be, and no formula to any spreadsheet.
fn push_text(out: &mut String, text: &str) {
    let guarded = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let quoted = guarded || text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ');
    if quoted {
        out.push('"');
    }
    if guarded {
        out.push('\'');
    }
    out.push_str(&if quoted { text.replace('"', "\"\"") } else { text.to_owned() });
    if quoted {
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_where_it_must_be_and_is_no_formula() {
        for (text, cell) in [
            ("cpu", "cpu"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("m{dc=\"eu\"}", "\"m{dc=\"\"eu\"\"}\""),
            ("two\nlines", "\"two\nlines\""),
            ("=SUM(A1)", "\"'=SUM(A1)\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@x", "\"'@x\""),
            ("\t=1", "\"'\t=1\""),
            ("a=b", "a=b"),
        ] {
            let mut out = String::new();
            push_text(&mut out, text);
            assert_eq!(out, cell, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_written_as_they_are_stored() {
        let mut out = String::new();
        write_row(
            &mut out,
            r#"{"id":"i","metric":"=m","labels":{"a":"1"},"timestamp":1.000000001,"value":-5.50,"z_score":null,"checks":[]}"#,
        );
        assert_eq!(out, "i,,\"'=m\",\"{\"\"a\"\":\"\"1\"\"}\",1.000000001,-5.50,,,,,,,,,,,,,,,,\r\n");
    }
}
