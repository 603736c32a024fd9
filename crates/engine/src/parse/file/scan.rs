//! The first look at a file: what it is, where its rows begin, whether it can be read at all.

use std::io::{Cursor, Read, Seek};

use super::cells::Cells;
use super::header::{Layout, MetricColumn, TimeColumns, Values, known_names, refused, with_header, without_header};
use super::order::{Backwards, Order};
use super::rows::{Division, Place, RowReader};
use super::source::Source;
use super::table::Table;
use super::{FileError, FileOptions, Format};
use crate::parse::batch::is_one_value;
use crate::parse::json::EventReader;
use crate::parse::time::{Forms, WrittenTime};
use crate::rejection::{Code, Rejected};

/// How much of a file is looked at to tell what it is.
const HEAD: usize = 256 << 10;
/// How many rows tell which columns of a wide table hold numbers.
const SAMPLE: usize = 200;
/// How many rows without a header are tried before a file is given up.
const TRIED: usize = 20;

/// What a file is.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) format: Format,
    pub(super) division: Division,
    pub(super) start: Place,
    pub(super) content: Content,
    /// Where the file is sorted newest first.
    pub(super) backwards: Option<Backwards>,
    /// What was assumed.
    pub(super) warnings: Vec<String>,
}

/// How a row becomes events.
#[derive(Debug)]
pub(super) enum Content {
    Table(Box<Table>),
    Json,
}

impl Content {
    /// A number by which rows can be ordered: their time, a clock without offset read as UTC.
    fn time_of(&mut self, row: &[u8]) -> Option<i64> {
        let text = std::str::from_utf8(row).ok()?;
        let mut time = None;
        match self {
            Self::Table(table) => time = table.time_of(text),
            Self::Json => {
                let reading = EventReader::new(Forms::File { decimal_comma: false }).read(text, |draft| {
                    time = Some(draft.time);
                    Ok(())
                });
                reading.ok()?;
            }
        }
        match time? {
            WrittenTime::Instant(nanos) => Some(nanos),
            WrittenTime::Local(wall) => wall.at_offset(0).ok(),
            WrittenTime::Absent => None,
        }
    }
}

/// Looks at a file and returns its rows, at the first.
///
/// # Errors
/// A file that is empty or binary, has no needed column, or is an array that is not JSON to its end.
pub(super) fn scan<R: Read + Seek>(mut file: R, options: &FileOptions) -> Result<(RowReader<R>, Plan), FileError> {
    let (start, head, is_whole) = head(&mut file)?;
    let mut plan = match head[0] {
        b'[' => json(Format::Json, Division::Elements, start),
        b'{' => objects(&head, is_whole, start, options),
        _ => table(&head, is_whole, start, options)?,
    };
    let mut rows = RowReader::new(file, plan.division, plan.start, options.max_event_bytes);
    rows.seek(plan.start, false)?;
    match plan.division {
        Division::Elements => check_array(&mut rows, &mut plan)?,
        _ => check_order(&mut rows, &mut plan)?,
    }
    rows.seek(plan.start, false)?;
    Ok((rows, plan))
}

/// The first bytes that are not blank, where they stand, and whether they are all.
fn head<R: Read + Seek>(file: &mut R) -> Result<(Place, Vec<u8>, bool), FileError> {
    let mut source = Source::new(file, 0);
    source.seek(0)?;
    let mut line = 0;
    loop {
        source.fill(1)?;
        let bytes = source.bytes();
        if bytes.is_empty() {
            return Err(refused("the file is empty".into()).into());
        }
        let blank = bytes.iter().take_while(|b| b.is_ascii_whitespace()).count();
        line += memchr::memchr_iter(b'\n', &bytes[..blank]).count() as u64;
        let all = blank == bytes.len();
        source.consume(blank);
        if !all {
            break;
        }
    }
    source.fill(HEAD)?;
    let head = source.bytes();
    let control = head.iter().filter(|&&b| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c)).count();
    if memchr::memchr(0, head).is_some() || control * 20 > head.len() {
        let advice = "save a spreadsheet as CSV, unpack a .zip (gzip and zstd are read)";
        return Err(refused(format!("the file is binary, not text (UTF-16 needs a byte order mark); {advice}")).into());
    }
    Ok((Place { offset: source.offset(), line }, head.to_vec(), source.is_last()))
}

fn json(format: Format, division: Division, start: Place) -> Plan {
    Plan { format, division, start, content: Content::Json, backwards: None, warnings: Vec::new() }
}

/// One event over all of the file, or one a line.
fn objects(head: &[u8], is_whole: bool, start: Place, options: &FileOptions) -> Plan {
    let is_one = is_whole && std::str::from_utf8(head).is_ok_and(is_one_value);
    let name = options.name.to_ascii_lowercase();
    let named_lines = [".ndjson", ".jsonl"].iter().any(|ending| name.contains(ending));
    match (is_one, named_lines) {
        (true, false) => json(Format::Json, Division::Whole, start),
        (true, true) => json(Format::Ndjson, Division::Whole, start),
        (false, _) => json(Format::Ndjson, Division::Lines, start),
    }
}

/// A table: the delimiter with which most names of the header are known, else with which rows read as rows.
fn table(head: &[u8], is_whole: bool, mut start: Place, options: &FileOptions) -> Result<Plan, Rejected> {
    let mut head = head;
    let mut delimiters = &[b',', b';', b'\t'][..];
    if let Some((delimiter, length)) = separator_line(head) {
        delimiters = delimiter;
        start = Place { offset: start.offset + length as u64, line: start.line + 1 };
        head = &head[length..];
    }
    let samples: Vec<_> = delimiters.iter().map(|&delimiter| (delimiter, sample(head, is_whole, delimiter))).collect();
    let with_names =
        samples.iter().map(|(delimiter, rows)| (rows.first().map_or(0, |row| known_names(&row.cells, *delimiter)), *delimiter, rows));
    // Of equals the first: commas before semicolons before tabs.
    let best = with_names.rev().max_by_key(|(names, _, rows)| (*names, rows.first().map_or(0, |row| row.cells.len())));
    if let Some((1.., delimiter, rows)) = best {
        let cells: Vec<_> = rows[1..].iter().map(|row| row.cells.clone()).collect();
        let at_header = |rejected| Rejected { line: start.line + rows[0].line, ..rejected };
        let layout = with_header(&rows[0].cells, &cells, delimiter, options).map_err(at_header)?;
        let Some(first) = rows.get(1) else { return Err(refused("the file has a header and no rows".into())) };
        let start = Place { offset: start.offset + first.offset, line: start.line + first.line - 1 };
        let warnings = assumed(&layout, true);
        return Ok(table_plan(Format::Csv, start, layout, warnings));
    }
    // A tab or semicolon says more than a comma, which may be a decimal one.
    for (delimiter, rows) in samples.iter().rev() {
        if let Some(layout) = rows.iter().take(TRIED).find_map(|row| without_header(&row.cells, *delimiter, options)) {
            let warnings = assumed(&layout, false);
            return Ok(table_plan(Format::Txt, start, layout, warnings));
        }
    }
    let first = String::from_utf8_lossy(head.split(|&b| b == b'\n').next().unwrap_or_default()).trim().to_owned();
    Err(refused(format!(
        "neither JSON nor a table: {} is no header with metric and value, nor a row of metric,value[,timestamp] or timestamp,value",
        crate::parse::shown(&first)
    )))
}

fn table_plan(format: Format, start: Place, layout: Layout, warnings: Vec<String>) -> Plan {
    let division = Division::Records { delimiter: layout.delimiter };
    Plan { format, division, start, content: Content::Table(Box::new(Table::new(layout))), backwards: None, warnings }
}

fn assumed(layout: &Layout, has_header: bool) -> Vec<String> {
    match &layout.values {
        Values::One { metric: MetricColumn::File(name), .. } => {
            let why = if has_header { "it has no column for the metric" } else { "its first column reads as a time, and it has no header" };
            vec![format!("read as one series named {name:?} after the file: {why}")]
        }
        Values::One { .. } if !has_header => vec!["no header: read as metric, value and, where there is one, timestamp".to_owned()],
        Values::One { .. } => Vec::new(),
        Values::Wide(columns) => vec![format!("read as a wide table: {} series, one a column", columns.len())],
    }
}

/// The delimiter of a first line such as `sep=;`, and that line's length.
fn separator_line(head: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', head)?;
    let line = head[..end].trim_ascii_end();
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    let is_sep = line.len() == 5 && line[..4].eq_ignore_ascii_case(b"sep=") && b",;|".contains(&line[4]);
    let is_tab = head[..end].strip_suffix(b"\r").unwrap_or(&head[..end]).eq_ignore_ascii_case(b"sep=\t");
    if is_sep { Some((&line[4..], end + 1)) } else { is_tab.then_some((&b"\t"[..], end + 1)) }
}

struct SampleRow {
    line: u64,
    offset: u64,
    cells: Vec<String>,
}

/// The first rows as cells.
fn sample(head: &[u8], is_whole: bool, delimiter: u8) -> Vec<SampleRow> {
    let mut reader = RowReader::new(Cursor::new(head), Division::Records { delimiter }, Place { offset: 0, line: 0 }, HEAD);
    let mut cells = Cells::default();
    let mut rows = Vec::new();
    while rows.len() <= SAMPLE
        && let Ok(Some(row)) = reader.next()
    {
        let bytes = row.range.map_or(&b""[..], |range| &reader.bytes()[range]);
        let text = String::from_utf8_lossy(bytes);
        cells.split(&text, delimiter);
        rows.push(SampleRow { line: row.line, offset: row.offset, cells: cells.all(&text).map(str::to_owned).collect() });
    }
    // The last row of a head may be cut; of a header and one row nothing is lost by that.
    if !is_whole && rows.len() > 2 && rows.len() <= SAMPLE {
        rows.pop();
    }
    rows
}

fn not_json(element: u64, message: String) -> Rejected {
    Rejected { line: element, code: Code::InvalidJson, ..refused(message) }
}

/// Reads an array to its end: all of it must be JSON.
fn check_array<R: Read + Seek>(rows: &mut RowReader<R>, plan: &mut Plan) -> Result<(), FileError> {
    let (mut first, mut last, mut elements) = (None, Vec::new(), 0);
    while let Some(row) = rows.next()? {
        elements = row.line;
        if let Ok(range) = row.range {
            let bytes = &rows.bytes()[range];
            if std::str::from_utf8(bytes).is_err() {
                return Err(not_json(elements, format!("the array is not JSON: element {elements} is not UTF-8")).into());
            }
            first.get_or_insert_with(|| bytes.to_vec());
            last.clear();
            last.extend_from_slice(bytes);
        }
    }
    if !rows.is_complete() {
        let message = match elements {
            0 => "the array is not JSON: nothing of it can be read; see how it begins".to_owned(),
            n => format!(
                "the array is not JSON: it is cut or broken after element {n}, so none of it was taken; mend it, or send one object a line"
            ),
        };
        return Err(not_json(elements + 1, message).into());
    }
    if elements == 0 {
        return Err(refused("the array is empty".into()).into());
    }
    let first = first.and_then(|row| plan.content.time_of(&row));
    if plan.content.time_of(&last) < first {
        turn_round(rows, plan)?;
    }
    Ok(())
}

/// Compares the first time with the last, and only where that is earlier looks at all rows.
fn check_order<R: Read + Seek>(rows: &mut RowReader<R>, plan: &mut Plan) -> Result<(), FileError> {
    if matches!(&plan.content, Content::Table(table) if table.layout().time == TimeColumns::None) || plan.division == Division::Whole {
        return Ok(());
    }
    let mut first = None;
    for _ in 0..TRIED {
        let Some(row) = rows.next()? else { break };
        first = row.range.ok().and_then(|range| plan.content.time_of(&rows.bytes()[range]));
        if first.is_some() {
            break;
        }
    }
    // The last lines; a row whose cells hold line ends is not found there, and then all rows are looked at.
    let source = rows.source();
    let length = source.len()?;
    let tail = length.saturating_sub(HEAD as u64 / 2).max(plan.start.offset);
    source.seek(tail)?;
    source.fill(HEAD)?;
    let mut last = None;
    for line in source.bytes().trim_ascii_end().rsplit(|&b| b == b'\n').take(TRIED) {
        last = plan.content.time_of(line.trim_ascii());
        if last.is_some() {
            break;
        }
    }
    if last.is_none() || last < first {
        turn_round(rows, plan)?;
    }
    Ok(())
}

/// Looks at all rows, and plans to read them backwards where they are sorted newest first.
fn turn_round<R: Read + Seek>(rows: &mut RowReader<R>, plan: &mut Plan) -> Result<(), FileError> {
    rows.seek(plan.start, false)?;
    let mut order = Order::default();
    while let Some(row) = rows.next()? {
        order.place(Place { offset: row.offset, line: row.line - 1 });
        if let Some(time) = row.range.ok().and_then(|range| plan.content.time_of(&rows.bytes()[range])) {
            order.time(time);
        }
    }
    if order.is_newest_first() {
        plan.warnings.push("sorted newest first: read in time order, from the last row to the first".to_owned());
        plan.backwards = Some(order.backwards());
    }
    Ok(())
}
