//! Whole files of each form, as the black-box checks send them.

use std::io::Cursor;

use super::*;
use crate::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Record, RecordRef};
use crate::rejection::{Code, Report};
use crate::timestamp::{NANOS, Timestamp};

mod reading;

/// 2025-01-21T10:00:00Z.
const T0: i64 = 1_737_453_600;

/// Series, seconds, value, id and meta.
type Sample = (String, f64, f64, Option<String>, Option<String>);

struct Read {
    format: Format,
    report: Report,
    warnings: Vec<String>,
    samples: Vec<Sample>,
}

fn options(name: &str) -> FileOptions {
    FileOptions::new(name, Arrival { time: Timestamp::from_seconds(1_800_000_000), max_future: 60 * NANOS })
}

fn samples(batch: BatchBuilder) -> Vec<Sample> {
    let batch = batch.finish(Origin::http());
    let names: Vec<_> = (0..batch.n_series()).map(|i| batch.key(i).name()).collect();
    let mut frame = FrameBuilder::new(Timestamp::from_seconds(0));
    frame.push(&Record::Events(batch));
    let bytes = frame.seal(1);
    let Some(Ok((_, RecordRef::Events(batch)))) = Frame::open(1, &bytes).unwrap().records().next() else { panic!("no batch") };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    batch.rows().map(|r| (names[r.series as usize].clone(), r.timestamp.seconds(), r.value, owned(r.id), owned(r.meta))).collect()
}

fn read_with(bytes: &[u8], options: &FileOptions, size: usize, skip: u64) -> Result<Read, FileError> {
    let mut reader = FileReader::open(Cursor::new(bytes), options)?;
    reader.skip(skip);
    let mut all = Vec::new();
    loop {
        let mut batch = BatchBuilder::new();
        let more = reader.next_batch(&mut batch, size)?;
        all.extend(samples(batch));
        if more == More::End {
            break;
        }
    }
    assert_eq!(reader.accepted(), reader.report().accepted);
    Ok(Read { format: reader.format(), report: reader.report(), warnings: reader.warnings(), samples: all })
}

fn read_all(name: &str, text: impl AsRef<[u8]>) -> Read {
    let read = read_with(text.as_ref(), &options(name), 1000, 0).unwrap();
    assert_eq!(read.report.accepted as usize, read.samples.len());
    read
}

fn refused(name: &str, text: impl AsRef<[u8]>) -> String {
    match FileReader::open(Cursor::new(text.as_ref()), &options(name)) {
        Err(FileError::Refused(rejected)) => {
            assert!(matches!(rejected.code, Code::InvalidFile | Code::AmbiguousField | Code::InvalidJson));
            rejected.message
        }
        other => panic!("{name} is not refused: {other:?}"),
    }
}

/// Rows of one metric: the time on each as `{t}` seconds, `{s}` RFC 3339, `{d}` and `{c}` date and clock; `{v}` the value,
/// `{w}` with a decimal comma.
fn rows(form: &str) -> Vec<String> {
    (0..21)
        .map(|i| {
            let v = if i == 20 { "95.5".to_owned() } else { format!("{}.5", 50 + i % 3) };
            form.replace("{m}", "cpu")
                .replace("{w}", &v.replace('.', ","))
                .replace("{v}", &v)
                .replace("{t}", &(T0 + i).to_string())
                .replace("{s}", &format!("2025-01-21T10:00:{i:02}Z"))
                .replace("{d}", "2025-01-21")
                .replace("{c}", &format!("10:00:{i:02}"))
        })
        .collect()
}

fn table(header: &str, form: &str) -> String {
    std::iter::once(header.to_owned()).chain(rows(form)).collect::<Vec<_>>().join("\n") + "\n"
}

/// All 21 rows are taken, in order, and the last is where it should be.
fn check_as(name: &str, text: impl AsRef<[u8]>, format: Format, series: &str, fraction: f64) -> Read {
    let read = read_all(name, text);
    assert_eq!((read.report.accepted, read.report.rejected, read.format), (21, 0, format), "{name}: {:?}", read.report.errors);
    let last = &read.samples[20];
    assert_eq!((last.0.as_str(), last.2), (series, 95.5), "{name}");
    assert!((last.1 - (T0 + 20) as f64 - fraction).abs() < 1e-6, "{name}: {}", last.1);
    assert!(read.samples.is_sorted_by(|a, b| a.1 < b.1));
    read
}

fn check(text: impl AsRef<[u8]>) -> Read {
    check_as("a.csv", text, Format::Csv, "cpu", 0.0)
}

fn errors(read: &Read) -> String {
    read.report.errors.iter().map(|e| format!("{}:{}:{}", e.line, e.field, e.code.as_str())).collect::<Vec<_>>().join(" ")
}

#[test]
fn columns_in_any_order_and_extra_ones_are_meta() {
    for (header, form) in [
        ("metric,value,timestamp", "{m},{v},{s}"),
        ("timestamp,metric,value", "{s},{m},{v}"),
        ("value,timestamp,metric", "{v},{t},{m}"),
        ("Name,VALUE,ts", "{m},{v},{s}"),
        ("NAME,value,Date", "{m},{v},{s}"),
    ] {
        let read = check(table(header, form));
        assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    }
    let read = check(table("host,timestamp,metric,unit,value,id", "h\"1,{t},{m},,{v},i{t}"));
    assert_eq!(read.samples[20].4.as_deref(), Some("{\"host\":\"h\\\"1\"}"), "empty cells are left out, texts escaped");
    assert_eq!(read.samples[20].3.as_deref(), Some("i1737453620"));
}

#[test]
fn labels_and_series_columns() {
    let text = table("labels.dc,ts,name,labels.rack,value,host", "eu,{t},{m},r 1,{v},h1");
    assert_eq!(check_as("a.csv", text, Format::Csv, "cpu{dc=\"eu\",rack=\"r 1\"}", 0.0).samples[0].4.as_deref(), Some("{\"host\":\"h1\"}"));
    check_as("a.csv", table("labels.dc,ts,name,labels.rack,value", ",{t},{m},1,{v}"), Format::Csv, "cpu{rack=\"1\"}", 0.0);
    check_as("a.csv", table("created_at,series,value", "{s},{m},{v}"), Format::Csv, "cpu", 0.0);
    check_as("a.csv", table("ts,series,value", "{t},\"cpu{dc=\"\"eu\"\"}\",{v}"), Format::Csv, "cpu{dc=\"eu\"}", 0.0);
    check_as("a.csv", table("ts,series,value,labels.x", "{t},\"cpu{dc=\"\"eu\"\"}\",{v},1"), Format::Csv, "cpu{dc=\"eu\",x=\"1\"}", 0.0);
    let read = read_all("a.csv", "ts,series,value,labels.dc\n1,m{,1,\n2,\"m{dc=\"\"a\"\"}\",1,b\n3,\"{\"\"a\\nb\"\"}\",1,\n4,m,1,\n");
    assert_eq!(
        (errors(&read).as_str(), read.report.accepted),
        ("2:metric:invalid_metric 3:labels:invalid_labels 4:metric:invalid_metric", 1)
    );
}

#[test]
fn times_in_milliseconds_and_in_two_columns() {
    check_as("a.csv", table("timestamp_ms,metric,value", "{t}250,{m},{v}"), Format::Csv, "cpu", 0.25);
    check_as("a.csv", table("name,TS_MS,value", "{m},{t}000.5,{v}"), Format::Csv, "cpu", 0.0005);
    check_as("a.csv", table("event_time_ms,name,value", "{t}000,{m},{v}"), Format::Csv, "cpu", 0.0);
    check_as("a.csv", table("date,time,metric,value", "{d},{c},{m},{v}"), Format::Csv, "cpu", 0.0);
    check_as("a.csv", table("Time\tValue\tName\tDate", "{c}.5\t{v}\t{m}\t{d}"), Format::Csv, "cpu", 0.5);
    let read = read_all("ms.csv", format!("timestamp_ms,metric,value\n{T0}000,m,1\n9{T0}000,m,1\n-1,m,1\nx,m,1\n1900000000000,m,1\n"));
    assert_eq!(
        (read.report.accepted, errors(&read).as_str()),
        (1, "3:timestamp:invalid_timestamp 4:timestamp:invalid_timestamp 5:timestamp:invalid_timestamp 6:timestamp:future_timestamp")
    );
    let short = read_all("a.csv", "date,time,metric,value\n2025-01-21,,m,1\n2025-01-21,10:00,m,1\n");
    assert_eq!(short.samples.iter().map(|s| s.1 as i64 - T0).collect::<Vec<_>>(), [-36_000, 0]);
    let both = read_all("a.csv", format!("created_at,timestamp,metric,value\n{},{T0},m,1\n", T0 + 500));
    assert_eq!((both.samples[0].1 as i64, both.samples[0].4.as_deref()), (T0, Some("{\"created_at\":\"1737454100\"}")));
}

#[test]
fn separator_lines_are_obeyed_and_count() {
    let body = table("metric;value;timestamp", "{m};{w};{s}");
    for lead in ["sep=;\n", "sep=;\r\n", "", "SEP=;\n", "\"sep=;\"\n"] {
        check(format!("{lead}{body}"));
    }
    check(table("metric\tvalue\ttimestamp", "{m}\t{w}\t{s}"));
    check(table("metric;value;timestamp", "\"{m}\";\"{w}\";\"{s}\"").replace('\n', "\r\n"));
    let read = check(format!("sep=;\n{}", table("metric,value,timestamp,x;metric;value;timestamp", "a, b;{m};{w};{s}")));
    assert_eq!(read.samples[0].4.as_deref(), Some("{\"metric,value,timestamp,x\":\"a, b\"}"));
    check(format!("sep=|\n{}", table("metric|value|timestamp", "{m}|{w}|{s}")));
}

#[test]
fn decimal_commas_between_semicolons() {
    let text = format!(
        "sep=;\nmetric;value;timestamp\na;0,48;{T0}\nb;-12,5;{T0}\nc;1,5e3;{T0}\nd;0.48;{T0}\ne;7;{T0}\nf;1,234;{T0},5\nm;1,2,3;{T0}\nm;,;{T0}\nm;1.234,56;{T0}\n"
    );
    let read = read_all("numbers.csv", text);
    assert_eq!(read.samples.iter().map(|s| s.2).collect::<Vec<_>>(), [0.48, -12.5, 1500.0, 0.48, 7.0, 1.234]);
    assert_eq!(
        (read.samples[5].1, errors(&read).as_str()),
        (T0 as f64 + 0.5, "9:value:invalid_value 10:value:invalid_value 11:value:invalid_value")
    );
    let commas = read_all("a.csv", format!("metric,value,timestamp\nm,\"0,48\",{T0}\nm,1,{T0}\n"));
    assert_eq!(errors(&commas), "2:value:invalid_value", "between commas it is no number");
}

#[test]
fn dialects() {
    let form = "{m},{v},{s}";
    let text = table("metric,value,timestamp", form);
    check(text.replace('\n', "\r\n"));
    check(text.trim_end());
    check(text.replace('\n', "\n\n"));
    check(table("\"metric\",\"value\",\"timestamp\"", "\"{m}\",\"{v}\",\"{s}\""));
    check(table("metric;value;timestamp", "{m};{v};{s}"));
    check_as("tab.txt", table("timestamp\tmetric\tvalue", "{s}\t{m}\t{v}"), Format::Csv, "cpu", 0.0);
    let spaced = check(text.replace('T', " ").replace('Z', ""));
    assert_eq!(spaced.warnings, ["times without an offset were read as UTC"]);
    check(table("metric,value,timestamp,", "{m},{v},{s},"));
    check(table("metric,value,timestamp", "{m},{v},{s},,"));
    check(table(" metric , value , timestamp ", " {m} , {v} , {s} "));
}

#[test]
fn quotes_keep_the_metric() {
    check_as("a.csv", table("metric,value,timestamp", "\"cpu, \"\"total\"\" é\",{v},{s}"), Format::Csv, "cpu, \"total\" é", 0.0);
}

#[test]
fn line_numbers_are_physical() {
    let text = format!("metric,value,timestamp\n\"a\nb\",1,{T0}\nm,1,{T0}\nm,x,{T0}\n\nm,2,{T0}\nm,3\n");
    let read = read_all("multi.csv", text);
    assert_eq!((read.report.accepted, errors(&read).as_str()), (2, "2:metric:invalid_metric 5:value:invalid_value 8::invalid_row"));
}

#[test]
fn what_is_wrong_with_a_row_is_its_error() {
    let text = [
        format!("metric,value,timestamp,id,labels.{}\nm,1,{T0},,\n", "l").into_bytes(),
        b"caf\xe9,1,1,,\n".to_vec(),
        format!(
            "m,,1,,\nm,nan,1,,\nm,1e999,1,,\n,1,1,,\nm,1,yesterday,,\nm,1,{T0}000,,\nm,1,1900000000,,\nm,1,1,{},\nm,1,1,,,6\n",
            "x".repeat(256)
        )
        .into_bytes(),
        format!("m,1,1,,\"x\nm,1,{T0},,\n{},1,{T0},,\nm,1,{T0},,\n", "x".repeat(70_000)).into_bytes(),
    ];
    let read = read_all("bad.csv", text.concat());
    assert_eq!(read.report.accepted, 3);
    assert_eq!(
        errors(&read),
        "3::invalid_utf8 4:value:missing_field 5:value:invalid_value 6:value:invalid_value 7:metric:invalid_metric \
         8:timestamp:invalid_timestamp 9:timestamp:milliseconds_timestamp 10:timestamp:future_timestamp 11:id:invalid_id 12::invalid_row \
         13::invalid_row 15::too_large"
    );
    assert_eq!(read.report.errors[2].message, "\"nan\" is not a number");
}

#[test]
fn an_unclosed_quote_spoils_one_line_of_a_large_file() {
    let text = format!("metric,value,timestamp\nm,1,{T0}\n\"m,2,{T0}\n{}", format!("m,3,{T0}\n").repeat(20_000));
    let read = read_all("quote.csv", text);
    assert_eq!((read.report.accepted, errors(&read).as_str()), (20_001, "3::invalid_row"));
}

#[test]
fn too_many_labels_are_that_rows_error() {
    let header: String = (0..33).map(|i| format!(",labels.l{i}")).collect();
    let row = |n: usize| (0..33).map(|i| if i < n { ",x" } else { "," }).collect::<String>();
    let read = read_all("a.csv", format!("metric,value{header}\nm,1{}\nm,1{}\n", row(32), row(33)));
    assert_eq!((read.report.accepted, errors(&read).as_str()), (1, "3:labels:invalid_labels"));
}

#[test]
fn a_time_and_a_value_alone_are_one_series_named_after_the_file() {
    for (name, form, end, fraction) in [
        ("bare.csv", "{s},{v}", "\n", 0.0),
        ("bare.txt", "{t},{v}", "\n", 0.0),
        ("bare.txt", "{s}\t{v}", "\r\n", 0.0),
        ("bare.csv", "\"{d} {c}\",\"{v}\"", "\r\n", 0.0),
        ("bare.txt", "\"{t}.5\"\t\"{v}\"", "\n", 0.5),
        ("bare.dat", "{d} {c}, {v}", "\n", 0.0),
    ] {
        let read = check_as(name, rows(form).join(end), Format::Txt, "bare", fraction);
        assert!(read.warnings[0].starts_with("read as one series named \"bare\""), "{:?}", read.warnings);
    }
    let read = check_as("dir/packed.csv.gz", table("timestamp,value", "{s},{v}"), Format::Csv, "packed", 0.0);
    assert_eq!(read.warnings, ["read as one series named \"packed\" after the file: it has no column for the metric"]);
    let read = read_all("bare.csv", "2025-01-21,5\nyesterday,5\n2025-01-21,x\n2025-01-21,6\n");
    assert_eq!((read.report.accepted, errors(&read).as_str()), (2, "2:timestamp:invalid_timestamp 3:value:invalid_value"));
}

#[test]
fn rows_without_a_header() {
    for (name, form, end) in [
        ("c.txt", "{m},{v},{s}", "\n"),
        ("t.txt", "{m}\t{v}\t{s}", "\n"),
        ("r.txt", "{m}\t{v}\t{t}", "\r\n"),
        ("s.csv", "{m}, {v}, {s}", "\n"),
        ("s.txt", "{m};{w};{s}", "\n"),
    ] {
        check_as(name, rows(form).join(end), Format::Txt, "cpu", 0.0);
    }
    let read = read_all("no_time.txt", rows("{m},{v}").join("\n"));
    assert_eq!((read.report.accepted, read.samples[3].1), (21, 1.8e9));
    assert!(read.warnings.contains(&"rows without a time were given the time of arrival".to_owned()));
    let bad = read_all("bad.txt", format!("\nm,1,{T0}\n\nm,y,{T0}\nm,2\n"));
    assert_eq!((bad.format, bad.report.accepted, errors(&bad).as_str()), (Format::Txt, 2, "4:value:invalid_value"));
    let first = read_all("bad.txt", format!("m,y,{T0}\nm,1,{T0}\n"));
    assert_eq!((first.format, first.report.accepted, errors(&first).as_str()), (Format::Txt, 1, "1:value:invalid_value"));
}

#[test]
fn wide_tables_have_a_series_a_column() {
    let read = read_all(
        "wide.csv",
        format!(
            "date;time;cpu;mem;host\n2025-01-21;10:00:00;0,5;1;h1\n2025-01-21;10:00:01;;x;h2\n2025-01-21;10:00:02;2;3;\nx;y;1;2;\n{T0};;;;\n"
        ),
    );
    let found: Vec<_> = read.samples.iter().map(|s| (s.0.as_str(), s.1 as i64 - T0, s.2)).collect();
    assert_eq!(found, [("cpu", 0, 0.5), ("mem", 0, 1.0), ("cpu", 2, 2.0), ("mem", 2, 3.0)]);
    assert_eq!(
        (read.report.accepted, read.report.rejected, errors(&read).as_str()),
        (4, 2, "3:mem:invalid_value 5:timestamp:invalid_timestamp")
    );
    assert_eq!(
        (read.samples[0].4.as_deref(), &*read.warnings[0]),
        (Some("{\"host\":\"h1\"}"), "read as a wide table: 2 series, one a column")
    );
    check_as("w.csv", table("timestamp,cpu", "{s},{v}"), Format::Csv, "cpu", 0.0);
    let labelled = read_all("w.csv", "ts,cpu,labels.dc,id\n1,2,eu,x\n");
    assert_eq!(labelled.samples, [("cpu{dc=\"eu\"}".to_owned(), 1.0, 2.0, Some("x".to_owned()), None)]);
}

#[test]
fn json_in_all_its_forms() {
    let event = "{\"timestamp\":\"{s}\",\"metric\":\"{m}\",\"value\":{v}}";
    let (array, lines) = (format!("[{}]", rows(event).join(",\n ")), rows(event).join("\n"));
    for (name, text, format) in [
        ("a.json", array.as_str(), Format::Json),
        ("really.csv", &array, Format::Json),
        ("c.json", &lines, Format::Ndjson),
        ("d.ndjson", &lines, Format::Ndjson),
        ("really.txt", &format!("\n{lines}\n\n"), Format::Ndjson),
        ("synonyms.json", &array.replace("timestamp", "ts").replace("metric", "name"), Format::Json),
    ] {
        assert!(check_as(name, text, format, "cpu", 0.0).warnings.is_empty());
    }
    check_as("really_csv.json", table("metric,value,timestamp", "{m},{v},{s}"), Format::Csv, "cpu", 0.0);
    for (name, text, format) in [
        ("one.json", "{\n \"metric\": \"m\",\n \"value\": 1\n}\n", Format::Json),
        ("one", "{\"metric\":\"m\",\"value\":1}", Format::Json),
        ("one.ndjson", "{\"metric\":\"m\",\"value\":1}", Format::Ndjson),
    ] {
        let read = read_all(name, text);
        assert_eq!((read.format, read.report.accepted, read.report.rejected), (format, 1, 0), "{name}");
    }
}

#[test]
fn bad_elements_and_lines_are_rows() {
    let good = format!("{{\"metric\":\"m\",\"value\":1,\"timestamp\":{T0}}}");
    let ahead = good.replace(&T0.to_string(), "1800000120");
    let ms = good.replace(&T0.to_string(), "1737453600000");
    let loose = good.replace(&T0.to_string(), "\"2025-01-21 10:00\"");
    let bad = read_all("bad.ndjson", format!("{good}\n\n{{oops\n{ahead}\n{ms}\n{loose}"));
    assert_eq!(
        (bad.report.accepted, errors(&bad).as_str()),
        (2, "3::invalid_json 4:timestamp:future_timestamp 5:timestamp:milliseconds_timestamp")
    );
    assert_eq!(bad.warnings, ["times without an offset were read as UTC"]);
    let bad = read_all(
        "bad.json",
        format!(
            "[{good},{{\"metric\":\"m\"}}, 7,{ahead},{good}, {{\"metric\":\"m\",\"value\":1,\"meta\":{}{}}}]",
            "[".repeat(40),
            "]".repeat(40)
        ),
    );
    assert_eq!(
        (bad.report.accepted, errors(&bad).as_str()),
        (2, "2:value:missing_field 3::invalid_type 4:timestamp:future_timestamp 6:meta:too_deep")
    );
    let large = read_all("large.json", format!("[{good},{{\"metric\":\"{}\"}},{good}]", "x".repeat(100_000)));
    assert_eq!((large.report.accepted, errors(&large).as_str()), (2, "2::too_large"));
    let broken = read_all("broken.json", "{\"metric\": ");
    assert_eq!(errors(&broken), "1::invalid_json");
}

#[test]
fn a_broken_array_is_refused_whole() {
    let event = "{\"timestamp\":\"{s}\",\"metric\":\"{m}\",\"value\":{v}}";
    let body = format!("[{}", [rows(event).join(",\n").as_str(); 200].join(",\n"));
    for end in ["", ",\n{\"metric\": \"cpu_us", ",]", ", {\"metric\": \"x\", \"value\": NaN}]", "}", "] x", "][]", ", oops]"] {
        let message = refused("broken.json", format!("{body}{end}"));
        assert!(message.starts_with("the array is not JSON"), "{end}: {message}");
    }
    assert!(refused("a.json", b"[{\"metric\":\"\xff\"}]").contains("element 1 is not UTF-8"));
    assert_eq!(refused("a.json", "[]"), "the array is empty");
    assert_eq!(read_all("a.json", format!("{body}]")).report.accepted, 4200);
}

#[test]
fn files_that_cannot_be_read_say_why() {
    for (text, word) in [
        (&b""[..], "the file is empty"),
        (b" \n\t\n ", "the file is empty"),
        (b"a\0b", "binary"),
        (b"\x01\x02\x03\x04\x05\x06\x07", "binary"),
        (b"metric,timestamp\n5,2\n", "no column \"value\""),
        (b"value,timestamp,host\n5,2,3\n", "no column \"metric\""),
        (b"value,labels.dc,timestamp\n5,2,3\n", "no column \"metric\""),
        (b"metric,value,timestamp\n", "a header and no rows"),
        (b"hello\nworld\n", "neither JSON nor a table"),
        (b"\"x\"", "neither JSON nor a table"),
        (b"name,series,value\na,b,1\n", "both a column"),
    ] {
        let message = refused("a.csv", text);
        assert!(message.contains(word), "{}: {message}", String::from_utf8_lossy(text));
    }
    assert!(refused("blank.csv", " ".repeat(3 << 20)).contains("empty"));
}
