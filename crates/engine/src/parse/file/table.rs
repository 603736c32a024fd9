//! Events from the rows of a table.

use super::cells::Cells;
use super::header::{Layout, MetricColumn, TimeColumns, Values};
use crate::parse::decimal::Decimal;
use crate::parse::json::Draft;
use crate::parse::time::{Forms, WrittenTime, epoch_milliseconds, parse_date_and_clock, parse_text};
use crate::parse::{check_metric, check_name, reject, shown};
use crate::rejection::{Code, Rejected};
use crate::series_key::{MAX_LABELS, SeriesKey};

/// A table as its rows are read. Memory: that of the longest row.
#[derive(Debug)]
pub(super) struct Table {
    layout: Layout,
    cells: Cells,
    meta: String,
    /// The last text of a `series` column and what it means; neighbours are often the same.
    series: Option<(String, SeriesKey)>,
}

impl Table {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, cells: Cells::default(), meta: String::new(), series: None }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What a row says about its time; for looking at the order of rows.
    pub(super) fn time_of(&mut self, row: &str) -> Option<WrittenTime> {
        self.cells.split(row, self.layout.delimiter);
        self.time(row).ok()
    }

    /// Gives each sample of a row to `each`, or what is wrong with it.
    #[inline]
    pub(super) fn read(&mut self, row: &str, mut each: impl FnMut(Result<&Draft<'_>, Rejected>)) {
        self.cells.split(row, self.layout.delimiter);
        if let Err(rejected) = self.read_split(row, &mut each) {
            each(Err(rejected));
        }
    }

    #[inline]
    fn read_split(&mut self, row: &str, each: &mut impl FnMut(Result<&Draft<'_>, Rejected>)) -> Result<(), Rejected> {
        self.check_cells(row)?;
        if let Values::One { metric: MetricColumn::Series(column), .. } = self.layout.values {
            self.remember_series(row, column)?;
        }
        self.write_meta(row);
        let (layout, cells) = (&self.layout, &self.cells);
        let of_series = match (&layout.values, &self.series) {
            (Values::One { metric: MetricColumn::Series(_), .. }, Some((_, key))) => key.labels(),
            _ => Vec::new(),
        };
        if layout.labels.is_empty() && of_series.is_empty() {
            return self.samples(row, &[], each);
        }
        let mut pairs = [("", ""); MAX_LABELS];
        let n = collect_labels(&mut pairs, &of_series, layout, cells, row)?;
        self.samples(row, &pairs[..n], each)
    }

    /// The samples of a row whose labels are known.
    #[inline]
    fn samples(&self, row: &str, labels: &[(&str, &str)], each: &mut impl FnMut(Result<&Draft<'_>, Rejected>)) -> Result<(), Rejected> {
        let (layout, cells) = (&self.layout, &self.cells);
        let meta = (!self.meta.is_empty()).then_some(&*self.meta);
        let id = match layout.id.map(|column| cells.get(row, column)) {
            None | Some("") => None,
            Some(id) => check_name(id, "id", Code::InvalidId, "the id").map(|()| Some(id))?,
        };
        match &layout.values {
            Values::One { metric, value } => {
                let metric = match metric {
                    MetricColumn::Metric(column) => cells.get(row, *column),
                    MetricColumn::Series(_) => self.series.as_ref().map_or("", |(_, key)| key.metric()),
                    MetricColumn::File(name) => name,
                };
                check_metric(metric)?;
                let value = number(cells.get(row, *value), "value", layout.decimal_comma)?;
                each(Ok(&Draft { metric, labels, time: self.time(row)?, value, id, meta }));
            }
            Values::Wide(columns) => {
                let time = self.time(row)?;
                for (column, metric) in columns {
                    match cells.get(row, *column) {
                        "" => {}
                        cell => match number(cell, metric, layout.decimal_comma) {
                            Ok(value) => each(Ok(&Draft { metric, labels, time, value, id, meta })),
                            Err(rejected) => each(Err(rejected)),
                        },
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks the number of cells; empty ones behind the last column are left by spreadsheets and do not matter.
    #[inline]
    fn check_cells(&self, row: &str) -> Result<(), Rejected> {
        let (n, (fewest, most)) = (self.cells.len(), self.layout.n_cells);
        if (fewest..=most).contains(&n) || (n > most && (most..n).all(|i| self.cells.get(row, i).is_empty())) {
            return Ok(());
        }
        let wanted = if fewest == most { fewest.to_string() } else { format!("{fewest} or {most}") };
        Err(reject("", Code::InvalidRow, format!("{n} cells where {wanted} are expected")))
    }

    #[inline]
    fn time(&self, row: &str) -> Result<WrittenTime, Rejected> {
        let decimal_comma = self.layout.decimal_comma;
        let forms = Forms::File { decimal_comma };
        match self.layout.time {
            TimeColumns::None => Ok(WrittenTime::Absent),
            TimeColumns::One(column) => match self.cells.get(row, column) {
                "" => Ok(WrittenTime::Absent),
                cell => parse_text(cell, forms),
            },
            TimeColumns::Milliseconds(column) => match self.cells.get(row, column) {
                "" => Ok(WrittenTime::Absent),
                cell => epoch_milliseconds(cell, decimal_comma).map(WrittenTime::Instant),
            },
            TimeColumns::DateAndClock(date, clock) => match (self.cells.get(row, date), self.cells.get(row, clock)) {
                ("", "") => Ok(WrittenTime::Absent),
                (date, "") => parse_text(date, forms),
                (date, clock) => parse_date_and_clock(date, clock),
            },
        }
    }

    fn remember_series(&mut self, row: &str, column: usize) -> Result<(), Rejected> {
        let text = self.cells.get(row, column);
        if self.series.as_ref().is_some_and(|(known, _)| known == text) {
            return Ok(());
        }
        let Some(key) = SeriesKey::parse(text) else {
            let message = format!("{} is not a series such as cpu{{dc=\"eu\"}}", shown(text));
            return Err(reject("metric", Code::InvalidMetric, message));
        };
        check_metric(key.metric())?;
        for (label, _) in key.labels() {
            check_name(label, "labels", Code::InvalidLabels, "the label's name")?;
        }
        self.series = Some((text.to_owned(), key));
        Ok(())
    }

    /// The other columns as a JSON object of texts, empty cells left out; empty where there are none.
    #[inline]
    fn write_meta(&mut self, row: &str) {
        self.meta.clear();
        for (column, name) in &self.layout.meta {
            let cell = self.cells.get(row, *column);
            if cell.is_empty() {
                continue;
            }
            self.meta.push(if self.meta.is_empty() { '{' } else { ',' });
            self.meta.push_str(name);
            self.meta.push(':');
            push_json_text(&mut self.meta, cell);
        }
        if !self.meta.is_empty() {
            self.meta.push('}');
        }
    }
}

/// Collects a row's labels into `pairs` and returns how many there are; an empty cell is no label.
fn collect_labels<'r>(
    pairs: &mut [(&'r str, &'r str); MAX_LABELS],
    of_series: &[(&'r str, &'r str)],
    layout: &'r Layout,
    cells: &'r Cells,
    row: &'r str,
) -> Result<usize, Rejected> {
    let mut n = 0;
    let columns = layout.labels.iter().map(|(column, name)| (name.as_str(), cells.get(row, *column)));
    for (name, value) in of_series.iter().copied().chain(columns.filter(|(_, value)| !value.is_empty())) {
        check_name(name, "labels", Code::InvalidLabels, "the label's name")?;
        if pairs[..n].iter().any(|(known, _)| *known == name) {
            return Err(reject("labels", Code::InvalidLabels, format!("the label {} is given twice", shown(name))));
        }
        let message = || format!("more than {MAX_LABELS} labels, {} is one too many", shown(name));
        *pairs.get_mut(n).ok_or_else(|| reject("labels", Code::InvalidLabels, message()))? = (name, value);
        n += 1;
    }
    Ok(n)
}

#[inline]
fn number(cell: &str, field: &str, decimal_comma: bool) -> Result<f64, Rejected> {
    match Decimal::scan_cell(cell.as_bytes(), decimal_comma).map(|decimal| decimal.to_f64(cell.as_bytes())) {
        Some(value) if value.is_finite() => Ok(value),
        Some(_) => Err(reject(field, Code::InvalidValue, format!("{} is beyond the range of a double", shown(cell)))),
        None if cell.is_empty() => Err(reject(field, Code::MissingField, format!("{field} is empty"))),
        None => Err(reject(field, Code::InvalidValue, format!("{} is not a number", shown(cell)))),
    }
}

fn push_json_text(out: &mut String, text: &str) {
    if crate::parse::lexer::plain_len(text.as_bytes()) == text.len() {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}
