//! Which column of a table is what.

use super::FileOptions;
use super::name::series_name;
use crate::event::is_metric;
use crate::parse::decimal::Decimal;
use crate::parse::time::reads_as_time;
use crate::parse::{reject, shown};
use crate::rejection::{Code, Rejected};

/// How the columns of a table are read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    pub(super) delimiter: u8,
    /// Whether `0,48` is a number: between semicolons and tabs.
    pub(super) decimal_comma: bool,
    /// The fewest and the most cells of a row.
    pub(super) n_cells: (usize, usize),
    pub(super) time: TimeColumns,
    pub(super) values: Values,
    /// Column and name of each label.
    pub(super) labels: Vec<(usize, String)>,
    /// Column and name, as a JSON text, of what goes to `meta`.
    pub(super) meta: Vec<(usize, String)>,
    pub(super) id: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeColumns {
    None,
    One(usize),
    Milliseconds(usize),
    DateAndClock(usize, usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// One sample a row.
    One { metric: MetricColumn, value: usize },
    /// A series a column.
    Wide(Vec<(usize, String)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MetricColumn {
    Metric(usize),
    /// A series as it is written, labels included.
    Series(usize),
    /// All rows are of one series, named after the file.
    File(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role<'h> {
    Time { milliseconds: bool },
    Metric,
    Name,
    Series,
    Value,
    Label(&'h str),
    Id,
    Other,
}

fn role(header: &str) -> Role<'_> {
    let lower = header.to_ascii_lowercase();
    let (stem, milliseconds) = lower.strip_suffix("_ms").map_or((&*lower, false), |stem| (stem, true));
    match (stem, &*lower) {
        ("timestamp" | "time" | "ts" | "datetime" | "date" | "created_at" | "event_time", _) => Role::Time { milliseconds },
        (_, "metric") => Role::Metric,
        (_, "name") => Role::Name,
        (_, "series") => Role::Series,
        (_, "value") => Role::Value,
        (_, "id") => Role::Id,
        _ if lower.starts_with("labels.") && header.len() > 7 => Role::Label(&header[7..]),
        _ => Role::Other,
    }
}

pub(super) fn is_number(cell: &str, decimal_comma: bool) -> bool {
    Decimal::scan_cell(cell.as_bytes(), decimal_comma).is_some()
}

/// Whether numbers may have a decimal comma between cells of this delimiter.
pub(super) fn has_decimal_comma(delimiter: u8) -> bool {
    delimiter != b','
}

/// How many of the cells name something that an event needs: 0 where the row is no header.
pub(super) fn known_names(cells: &[String], delimiter: u8) -> usize {
    let role_at = |i: usize| cells.get(i).map_or(Role::Other, |cell| role(cell));
    let looks_like_row = (2..=3).contains(&cells.len()) && is_number(&cells[1], has_decimal_comma(delimiter));
    if looks_like_row && !matches!(role_at(0), Role::Time { .. }) {
        return 0;
    }
    (0..cells.len()).filter(|&i| matches!(role_at(i), Role::Time { .. } | Role::Metric | Role::Name | Role::Series | Role::Value)).count()
}

/// The layout of a table with a header; `sample` holds some of its rows.
///
/// # Errors
/// A needed column that is missing, or one that is there twice.
pub(super) fn with_header(header: &[String], sample: &[Vec<String>], delimiter: u8, options: &FileOptions) -> Result<Layout, Rejected> {
    let roles: Vec<_> = header.iter().map(|name| role(name)).collect();
    let only = |wanted: Role<'_>, what: &str| {
        let mut found = roles.iter().enumerate().filter(|(_, role)| **role == wanted).map(|(i, _)| i);
        let first = found.next();
        if found.next().is_none() { Ok(first) } else { Err(refused(format!("there are two columns {what:?}"))) }
    };
    let (metric, name, series) = (only(Role::Metric, "metric")?, only(Role::Name, "name")?, only(Role::Series, "series")?);
    let (value, id) = (only(Role::Value, "value")?, only(Role::Id, "id")?);
    let time = time_columns(header, &roles);
    let decimal_comma = has_decimal_comma(delimiter);
    let metric = match (metric, name, series) {
        (Some(metric), ..) | (None, Some(metric), None) => Some(MetricColumn::Metric(metric)),
        (None, None, Some(series)) => Some(MetricColumn::Series(series)),
        (None, Some(_), Some(_)) => {
            let message = "both a column \"name\" and a column \"series\", and no \"metric\"".to_owned();
            return Err(reject("", Code::AmbiguousField, message));
        }
        (None, None, None) => None,
    };
    let is_time = |i: usize| match time {
        TimeColumns::None => false,
        TimeColumns::One(at) | TimeColumns::Milliseconds(at) => i == at,
        TimeColumns::DateAndClock(date, clock) => i == date || i == clock,
    };
    let values = match (metric, value) {
        (Some(metric), Some(value)) => Values::One { metric, value },
        (None, Some(value)) => {
            let others = (0..header.len()).filter(|&i| !is_time(i) && i != value && !header[i].is_empty()).count();
            if others > 0 || (time == TimeColumns::None && options.interval.is_none()) {
                return Err(lacks("metric", header));
            }
            Values::One { metric: MetricColumn::File(series_name(&options.name)), value }
        }
        (None, None) if time != TimeColumns::None => Values::Wide(wide_columns(header, &roles, sample, is_time, decimal_comma)?),
        _ => return Err(lacks("value", header)),
    };
    let is_value = |i: usize| match &values {
        Values::One { metric: MetricColumn::Metric(at) | MetricColumn::Series(at), value } => i == *at || i == *value,
        Values::One { value, .. } => i == *value,
        Values::Wide(columns) => columns.iter().any(|(at, _)| *at == i),
    };
    let mut layout = Layout {
        delimiter,
        decimal_comma,
        n_cells: (header.len(), header.len()),
        time,
        labels: vec![],
        meta: vec![],
        id,
        values: Values::Wide(vec![]),
    };
    for (i, name) in header.iter().enumerate() {
        match roles[i] {
            _ if is_time(i) || is_value(i) || id == Some(i) || name.is_empty() => {}
            Role::Label(label) if layout.labels.iter().any(|(_, known)| known == label) => {
                return Err(refused(format!("there are two columns {name:?}")));
            }
            Role::Label(label) => layout.labels.push((i, label.to_owned())),
            _ => layout.meta.push((i, serde_json::Value::from(name.as_str()).to_string())),
        }
    }
    let twice = layout.meta.iter().enumerate().find(|(i, (_, name))| layout.meta[..*i].iter().any(|(_, known)| known == name));
    if let Some((_, (_, name))) = twice {
        return Err(refused(format!("there are two columns {name}")));
    }
    layout.values = values;
    Ok(layout)
}

/// The columns that tell the time: `timestamp`, else the leftmost, a date and a time of day being one.
fn time_columns(header: &[String], roles: &[Role<'_>]) -> TimeColumns {
    let is = |i: usize, name: &str| header[i].eq_ignore_ascii_case(name);
    let find = |name: &str| (0..header.len()).find(|&i| is(i, name));
    if let Some(own) = find("timestamp") {
        return TimeColumns::One(own);
    }
    if let Some(own) = find("timestamp_ms") {
        return TimeColumns::Milliseconds(own);
    }
    let Some(leftmost) = roles.iter().position(|role| matches!(role, Role::Time { .. })) else { return TimeColumns::None };
    if (is(leftmost, "date") || is(leftmost, "time"))
        && let (Some(date), Some(clock)) = (find("date"), find("time"))
    {
        return TimeColumns::DateAndClock(date, clock);
    }
    match roles[leftmost] {
        Role::Time { milliseconds: true } => TimeColumns::Milliseconds(leftmost),
        _ => TimeColumns::One(leftmost),
    }
}

/// The columns behind the time that hold numbers: more numbers than other text in the sample, or nothing at all.
fn wide_columns(
    header: &[String],
    roles: &[Role<'_>],
    sample: &[Vec<String>],
    is_time: impl Fn(usize) -> bool,
    decimal_comma: bool,
) -> Result<Vec<(usize, String)>, Rejected> {
    let behind = (0..header.len()).find(|&i| is_time(i)).unwrap_or(0);
    let mut columns: Vec<(usize, String)> = Vec::new();
    let mut numbers_seen = false;
    for i in behind + 1..header.len() {
        if roles[i] != Role::Other || is_time(i) || header[i].is_empty() {
            continue;
        }
        let cells = || sample.iter().filter_map(|row| row.get(i)).filter(|cell| !cell.is_empty());
        let numbers = cells().filter(|cell| is_number(cell, decimal_comma)).count();
        if 2 * numbers < cells().count() {
            continue;
        }
        numbers_seen |= numbers > 0;
        if !is_metric(&header[i]) {
            return Err(refused(format!("the column {} cannot name a series", shown(&header[i]))));
        }
        if columns.iter().any(|(_, known)| *known == header[i]) {
            return Err(refused(format!("there are two columns {}", shown(&header[i]))));
        }
        columns.push((i, header[i].clone()));
    }
    if columns.is_empty() || !numbers_seen { Err(lacks("value", header)) } else { Ok(columns) }
}

/// Whether a row without a header reads as `metric,value[,timestamp]` or `timestamp,value`; how it is laid out then.
pub(super) fn without_header(cells: &[String], delimiter: u8, options: &FileOptions) -> Option<Layout> {
    let decimal_comma = has_decimal_comma(delimiter);
    if !(2..=3).contains(&cells.len()) || cells[0].is_empty() || !is_number(&cells[1], decimal_comma) {
        return None;
    }
    let bare = cells.len() == 2 && reads_as_time(&cells[0], decimal_comma);
    let (time, metric, n_cells) = if bare {
        (TimeColumns::One(0), MetricColumn::File(series_name(&options.name)), (2, 2))
    } else {
        (TimeColumns::One(2), MetricColumn::Metric(0), (2, 3))
    };
    let values = Values::One { metric, value: 1 };
    Some(Layout { delimiter, decimal_comma, n_cells, time, values, labels: vec![], meta: vec![], id: None })
}

pub(super) fn refused(message: String) -> Rejected {
    reject("", Code::InvalidFile, message)
}

fn lacks(column: &str, header: &[String]) -> Rejected {
    let message = format!("no column {column:?}: the header has {}", shown(&header.join(", ")).trim_matches('"'));
    Rejected { field: column.to_owned(), ..refused(message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Arrival;
    use crate::timestamp::Timestamp;

    fn options() -> FileOptions {
        FileOptions::new("dir/x.csv", Arrival { time: Timestamp::from_seconds(0), max_future: 0 })
    }

    fn split(row: &str) -> Vec<String> {
        row.split(',').map(str::to_owned).collect()
    }

    /// Time, values, labels, meta and id columns of a header over rows.
    fn layout(header: &str, rows: &[&str]) -> String {
        let rows: Vec<_> = rows.iter().map(|row| split(row)).collect();
        match with_header(&split(header), &rows, b',', &options()) {
            Ok(l) => format!("{:?} {:?} {:?} {:?} {:?}", l.time, l.values, l.labels, l.meta, l.id),
            Err(rejected) => format!("{}: {}", rejected.code.as_str(), rejected.message),
        }
    }

    fn check(cases: &[(&str, &[&str], &str)]) {
        for (header, rows, expected) in cases {
            assert_eq!(&layout(header, rows), expected, "{header}");
        }
    }

    #[test]
    fn columns_have_any_order_and_case_and_many_names() {
        let one = |time: &str, metric: usize, value: usize| format!("{time} One {{ metric: Metric({metric}), value: {value} }} [] [] None");
        for (header, time, metric, value) in [
            ("metric,value,timestamp", "One(2)", 0, 1),
            ("TimeStamp,METRIC,Value", "One(0)", 1, 2),
            ("name,value,time", "One(2)", 0, 1),
            ("Name,VALUE,ts", "One(2)", 0, 1),
            ("metric,value,datetime", "One(2)", 0, 1),
            ("NAME,value,Date", "One(2)", 0, 1),
            ("created_at,name,value", "One(0)", 1, 2),
            ("name,TS_MS,value", "Milliseconds(1)", 0, 2),
            ("event_time_ms,name,value", "Milliseconds(0)", 1, 2),
            ("date,time,metric,value", "DateAndClock(0, 1)", 2, 3),
            ("Time,Value,Name,Date", "DateAndClock(3, 0)", 2, 1),
            ("metric,value", "None", 0, 1),
        ] {
            assert_eq!(layout(header, &[]), one(time, metric, value), "{header}");
        }
    }

    #[test]
    fn of_several_times_and_names_the_own_wins_and_the_others_are_meta() {
        check(&[
            ("created_at,timestamp,metric,value", &[], "One(1) One { metric: Metric(2), value: 3 } [] [(0, \"\\\"created_at\\\"\")] None"),
            (
                "date,time,timestamp,metric,value",
                &[],
                "One(2) One { metric: Metric(3), value: 4 } [] [(0, \"\\\"date\\\"\"), (1, \"\\\"time\\\"\")] None",
            ),
            ("event_time,created_at,metric,value", &[], "One(0) One { metric: Metric(2), value: 3 } [] [(1, \"\\\"created_at\\\"\")] None"),
            ("name,metric,value", &[], "None One { metric: Metric(1), value: 2 } [] [(0, \"\\\"name\\\"\")] None"),
            ("name,series,value", &[], "ambiguous_field: both a column \"name\" and a column \"series\", and no \"metric\""),
        ]);
    }

    #[test]
    fn other_columns_are_labels_id_and_meta() {
        check(&[
            (
                "labels.dc,ts,name,LABELS.Rack,value,host,ID",
                &[],
                "One(1) One { metric: Metric(2), value: 4 } [(0, \"dc\"), (3, \"Rack\")] [(5, \"\\\"host\\\"\")] Some(6)",
            ),
            ("ts,series,value,", &[], "One(0) One { metric: Series(1), value: 2 } [] [] None"),
            ("ts,metric,value,labels.", &[], "One(0) One { metric: Metric(1), value: 2 } [] [(3, \"\\\"labels.\\\"\")] None"),
        ]);
    }

    #[test]
    fn a_time_and_a_value_are_one_series_named_after_the_file() {
        check(&[
            ("timestamp,value", &[], "One(0) One { metric: File(\"x\"), value: 1 } [] [] None"),
            ("Value,date,time", &[], "DateAndClock(1, 2) One { metric: File(\"x\"), value: 0 } [] [] None"),
            ("value", &[], "invalid_file: no column \"metric\": the header has value"),
        ]);
    }

    #[test]
    fn a_time_and_numbers_are_a_wide_table() {
        check(&[
            ("timestamp,cpu,mem", &["0,1,2"], "One(0) Wide([(1, \"cpu\"), (2, \"mem\")]) [] [] None"),
            ("date,time,cpu", &["0,0,1"], "DateAndClock(0, 1) Wide([(2, \"cpu\")]) [] [] None"),
            (
                ",timestamp,cpu,host,empty,labels.dc",
                &["0,0,1,h1,,eu", "1,0,x,h2,,eu", "2,0,3,h3,,eu"],
                "One(1) Wide([(2, \"cpu\"), (4, \"empty\")]) [(5, \"dc\")] [(3, \"\\\"host\\\"\")] None",
            ),
            ("timestamp,host", &["0,a"], "invalid_file: no column \"value\": the header has timestamp, host"),
            ("cpu,timestamp", &["1,2"], "invalid_file: no column \"value\": the header has cpu, timestamp"),
            ("timestamp,cpu,cpu", &["0,1,2"], "invalid_file: there are two columns \"cpu\""),
        ]);
    }

    #[test]
    fn a_needed_column_that_is_missing_or_there_twice_is_told() {
        check(&[
            ("metric,timestamp", &["5,2"], "invalid_file: no column \"value\": the header has metric, timestamp"),
            ("value,timestamp,host", &["5,2,3"], "invalid_file: no column \"metric\": the header has value, timestamp, host"),
            ("value,labels.dc,timestamp", &["5,2,3"], "invalid_file: no column \"metric\": the header has value, labels.dc, timestamp"),
            ("metric,value,VALUE", &[], "invalid_file: there are two columns \"value\""),
            ("metric,value,labels.a,labels.a", &[], "invalid_file: there are two columns \"labels.a\""),
            ("metric,value,x,x", &[], "invalid_file: there are two columns \"x\""),
        ]);
    }

    #[test]
    fn headers_are_told_from_rows() {
        for (row, names) in [
            ("metric,value,timestamp", 3),
            ("a,b,c", 0),
            ("name,5", 0),
            ("timestamp,5", 1),
            ("value,1,2025-01-01", 0),
            ("time,cpu,mem", 1),
            ("m,5,2025-01-01", 0),
        ] {
            assert_eq!(known_names(&split(row), b','), names, "{row}");
        }
    }

    #[test]
    fn rows_without_a_header() {
        let form = |row: &str| without_header(&split(row), b',', &options()).map(|l| (l.time, l.values));
        let named = Values::One { metric: MetricColumn::Metric(0), value: 1 };
        let bare = Values::One { metric: MetricColumn::File("x".into()), value: 1 };
        for (row, expected) in [
            ("cpu,5", Some((TimeColumns::One(2), &named))),
            ("cpu,5,2025-01-01", Some((TimeColumns::One(2), &named))),
            ("99999999,5", Some((TimeColumns::One(2), &named))),
            ("100000000,5", Some((TimeColumns::One(0), &bare))),
            ("2025-01-01 10:00,5", Some((TimeColumns::One(0), &bare))),
            ("1737453600,5,1737453600", Some((TimeColumns::One(2), &named))),
            ("cpu,x", None),
            ("cpu", None),
            (",5", None),
            ("a,1,2,3", None),
        ] {
            assert_eq!(form(row), expected.map(|(time, values)| (time, values.clone())), "{row}");
        }
    }
}
