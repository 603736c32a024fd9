//! Query parameters: read leniently (unknown ones are ignored), checked strictly.

use anomaly_engine::parse::parse_time;
use anomaly_engine::{SeriesKey, Timestamp};
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use crate::problem::Problem;
use crate::store::{Filter, State};

/// The most rows of a page.
const MAX_LIMIT: usize = 1000;

/// The query parameters of a request; of one that is repeated the last counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        query.map(|Query(pairs)| Self(pairs)).map_err(|error| Problem::parameter("query", error))
    }
}

impl Params {
    /// A parameter as it was sent, also an empty one.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is not empty: forms send empty fields.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    pub(super) fn cursor(&self) -> Option<&str> {
        self.text("cursor")
    }

    /// A whole number in 1..=`max`.
    pub(super) fn count(&self, name: &str, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse()
            .ok()
            .filter(|n| (1..=max).contains(n))
            .ok_or_else(|| Problem::parameter(name, format_args!("must be a whole number from 1 to {max}, got {text:?}")))
    }

    pub(super) fn limit(&self) -> Result<usize, Problem> {
        self.count("limit", 100, MAX_LIMIT)
    }

    /// An instant: epoch seconds or RFC 3339.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // In a query an unescaped + is a space: 2025-01-21T12:00:00+02:00.
        let plus = text.rsplit_once(' ').map(|(time, offset)| format!("{time}+{offset}"));
        let again = |fault| plus.as_deref().and_then(|text| parse_time(text).ok()).ok_or(fault);
        parse_time(text).or_else(again).map(Some).map_err(|fault| Problem::parameter(name, fault))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(other) => Err(Problem::parameter(name, format_args!("must be true or false, got {other:?}"))),
        }
    }

    /// The series that a route needs.
    pub(super) fn series(&self) -> Result<SeriesKey, Problem> {
        let name = self.text("series").ok_or_else(|| Problem::parameter("series", "the series' name is needed"))?;
        SeriesKey::parse(name).ok_or_else(|| Problem::not_found(format_args!("no series is named {name}")))
    }

    /// States of incidents, between commas.
    pub(super) fn states(&self) -> Result<Vec<State>, Problem> {
        let state = |name: &str| {
            let found = State::ALL.into_iter().find(|state| state.as_str() == name);
            found.ok_or_else(|| Problem::parameter("state", format_args!("must be open, acknowledged, silenced or resolved, got {name:?}")))
        };
        self.text("state").into_iter().flat_map(|names| names.split(',')).map(|name| state(name.trim())).collect()
    }

    /// The filters of `/anomalies` and `/incidents`.
    pub(super) fn filter(&self) -> Result<Filter, Problem> {
        let series = match self.text("series") {
            None => None,
            Some(name) => {
                let key = SeriesKey::parse(name);
                Some(key.ok_or_else(|| Problem::parameter("series", format_args!("{name:?} is not the name of a series")))?.hash())
            }
        };
        let critical = match self.text("severity") {
            None => None,
            Some("warning") => Some(false),
            Some("critical") => Some(true),
            Some(other) => return Err(Problem::parameter("severity", format_args!("must be warning or critical, got {other:?}"))),
        };
        let metric = self.text("metric").map(str::to_owned);
        Ok(Filter { metric, series, from: self.time("from")?, to: self.time("to")?, critical, states: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn params(query: &str) -> Params {
        let uri = format!("/?{query}").parse().unwrap();
        Params(Query::try_from_uri(&uri).unwrap().0)
    }

    #[test]
    fn a_limit_is_a_whole_number_from_1_to_1000() {
        for bad in ["0", "-1", "1001", "abc", "1.5", "", "%20"] {
            let problem = params(&format!("limit={bad}")).limit().unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (422, "invalid_parameter"), "{bad:?}");
        }
        assert_eq!(
            (params("").limit().unwrap(), params("limit=1").limit().unwrap(), params("limit=1000").limit().unwrap()),
            (100, 1, 1000)
        );
    }

    #[test]
    fn times_are_epoch_seconds_or_rfc_3339() {
        let at = Some(Timestamp::from_seconds(1_737_453_600));
        for text in
            ["1737453600", "2025-01-21T10:00:00Z", "2025-01-21T12:00:00%2B02:00", "2025-01-21T12:00:00+02:00", "2025-01-21+10:00:00"]
        {
            assert_eq!(params(&format!("from={text}")).time("from").unwrap(), at, "{text}");
        }
        assert_eq!(params("from=").time("from").unwrap(), None);
        for bad in ["yesterday", "NaN", "-1"] {
            assert_eq!(params(&format!("to={bad}")).filter().unwrap_err().code(), "invalid_parameter", "{bad}");
        }
    }

    #[test]
    fn filters_are_read_and_others_ignored() {
        let filter = params("metric=cpu*&series=cpu%7Bdc%3D%22eu%22%7D&severity=critical&colour=red").filter().unwrap();
        assert_eq!((filter.metric.as_deref(), filter.critical), (Some("cpu*"), Some(true)));
        assert_eq!(filter.series, Some(SeriesKey::new("cpu", &[("dc", "eu")]).hash()));
        assert_eq!(params("metric=&series=&severity=").filter().unwrap(), Filter::default());
        assert_eq!(params("severity=mild").filter().unwrap_err().code(), "invalid_parameter");
    }

    #[tokio::test]
    async fn the_last_of_a_repeated_parameter_counts() {
        let (mut parts, ()) = Request::builder().uri("/?limit=5&limit=6").body(()).unwrap().into_parts();
        assert_eq!(Params::from_request_parts(&mut parts, &()).await.unwrap().limit().unwrap(), 6);
    }
}
