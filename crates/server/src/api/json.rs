//! JSON built around texts that are JSON already: an anomaly is stored as it is answered, and never written anew.

use std::fmt::Write as _;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::points::{Point, Verdict};

/// An answer whose body is JSON.
pub(super) fn answer(body: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// A text as a JSON string.
pub(super) fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A text as a JSON string, or null.
pub(super) fn text_or_null(value: Option<&str>) -> String {
    value.map_or_else(|| "null".to_owned(), text)
}

/// A number, or null where it is not finite.
pub(super) fn number(value: f64) -> String {
    serde_json::Value::from(value).to_string()
}

/// JSON texts as an array.
pub(super) fn array<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let mut out = String::from("[");
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(item.as_ref());
    }
    out.push(']');
    out
}

/// Labels as a JSON object.
pub(super) fn labels(labels: &[(&str, &str)]) -> String {
    let map: serde_json::Map<_, _> = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    serde_json::Value::Object(map).to_string()
}

pub(super) use crate::store::severity;

/// A point for drawing. Where it was not judged it has no band.
pub(super) fn point(point: &Point) -> String {
    let judged = !matches!(point.verdict, Verdict::TooFew | Verdict::Late);
    let band = |value: f64| if judged { number(value) } else { "null".to_owned() };
    let (severity, verdict) = match point.verdict {
        Verdict::Normal => ("null", "normal"),
        Verdict::Anomaly => ("\"warning\"", "anomaly"),
        Verdict::Critical => ("\"critical\"", "anomaly"),
        Verdict::TooFew => ("null", "too_few"),
        Verdict::Late => ("null", "late"),
    };
    let mut out = String::with_capacity(192);
    let _ = write!(
        out,
        "{{\"timestamp\":{},\"value\":{},\"expected\":{},\"lower\":{},\"upper\":{},\"z_score\":{},\"severity\":{severity},\"verdict\":\"{verdict}\"}}",
        point.timestamp,
        number(point.value),
        band(point.expected),
        band(point.lower),
        band(point.upper),
        point.z_score.filter(|_| judged).map_or_else(|| "null".to_owned(), number),
    );
    out
}

#[cfg(test)]
mod tests {
    use anomaly_engine::Timestamp;

    use super::*;

    #[test]
    fn texts_and_numbers_are_json() {
        assert_eq!(text("a\"b\n"), r#""a\"b\n""#);
        assert_eq!((number(95.0).as_str(), number(f64::NAN).as_str()), ("95.0", "null"));
        assert_eq!(array(["1", "{}"]), "[1,{}]");
        assert_eq!(array([""; 0]), "[]");
        assert_eq!(labels(&[("dc", "e\"u")]), r#"{"dc":"e\"u"}"#);
    }

    #[test]
    fn a_point_that_was_not_judged_has_no_band() {
        let mut drawn = Point {
            timestamp: Timestamp::from_nanos(1_500_000_000),
            value: 5.0,
            verdict: Verdict::Critical,
            count: 9,
            mean: 4.0,
            stddev: 1.0,
            expected: 4.0,
            lower: 1.0,
            upper: 7.0,
            z_score: Some(1.0),
            strength: 0.3,
        };
        let told = r#"{"timestamp":1.5,"value":5.0,"expected":4.0,"lower":1.0,"upper":7.0,"z_score":1.0,"severity":"critical","verdict":"anomaly"}"#;
        assert_eq!(point(&drawn), told);
        drawn.verdict = Verdict::TooFew;
        let told =
            r#"{"timestamp":1.5,"value":5.0,"expected":null,"lower":null,"upper":null,"z_score":null,"severity":null,"verdict":"too_few"}"#;
        assert_eq!(point(&drawn), told);
    }
}
