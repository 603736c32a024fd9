//! How files are read whatever their form: in the order of time, in pieces, in little memory, without a panic.

use proptest::prelude::*;

use super::*;

#[test]
fn a_file_newest_first_is_read_in_time_order() {
    let mut lines = rows("{s},{m},{v}");
    lines.reverse();
    lines.extend((1..=20_000).map(|i| format!("{},cpu,{i}", T0 - 10 * i)));
    lines.insert(3, "x,cpu,1".into());
    let text = format!("timestamp,metric,value\n{}\nbad", lines.join("\n"));
    let newest = read_all("newest.csv", &text);
    assert_eq!((newest.report.accepted, errors(&newest).as_str()), (20_021, "5:timestamp:invalid_timestamp 20024::invalid_row"));
    assert!(newest.samples.is_sorted_by(|a, b| a.1 < b.1));
    assert_eq!(newest.warnings, ["sorted newest first: read in time order, from the last row to the first"]);
    let events: Vec<_> = (0..5000).map(|i| format!("{{\"ts\":{},\"name\":\"m\",\"value\":1}}", T0 - i)).collect();
    for (name, text) in [("n.json", format!("[{}]", events.join(", "))), ("n.ndjson", events.join("\n"))] {
        let read = read_all(name, text);
        assert!(read.samples.len() == 5000 && read.samples.is_sorted_by(|a, b| a.1 < b.1) && read.warnings.len() == 1, "{name}");
    }
    let quoted: Vec<_> = (0..300).map(|i| format!("{},m,{i},\"a\nb\"", T0 - i)).collect();
    let read = read_all("q.csv", format!("ts,metric,value,note\n{}\n", quoted.join("\n")));
    assert!(read.samples.len() == 300 && read.samples.is_sorted_by(|a, b| a.1 < b.1));
}

#[test]
fn other_orders_are_left_as_they_are() {
    let jitter: Vec<_> = (0..10).flat_map(|i| (0..10).rev().map(move |j| format!("{},m,1", T0 + 10 * i + j))).collect();
    let after: Vec<_> = ["a", "b"].iter().flat_map(|m| (0..50).map(move |i| format!("{},{m},1", T0 + i))).collect();
    let mut fallen = after.clone();
    fallen.push(format!("{},c,1", T0 - 5));
    for lines in [jitter, after, fallen] {
        let read = read_all("a.csv", format!("ts,metric,value\n{}", lines.join("\n")));
        let seconds: Vec<_> = lines.iter().map(|line| line.split(',').next().unwrap().parse::<f64>().unwrap()).collect();
        assert_eq!(read.samples.iter().map(|s| s.1).collect::<Vec<_>>(), seconds);
        assert!(read.warnings.is_empty());
    }
}

/// Local times of Brussels, every ten seconds from 1:50 to 3:10 of the night in which the clock goes back.
fn night(form: &str) -> Vec<String> {
    let at = |i: i64| {
        let second = (6600 + 10 * i) - if i > 420 - 1 { 3600 } else { 0 };
        format!("2024-10-27 {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    };
    (0..841).map(|i| form.replace("{s}", &at(i)).replace("{i}", &i.to_string())).collect()
}

#[test]
fn the_hour_that_occurs_twice() {
    let change = 1_729_990_800;
    let mut options = options("night.csv");
    options.zone = TimeZone::get("Europe/Brussels").unwrap();
    let a = |m: &str| night(&format!("{{s}},{m},{{i}}"));
    let mix = |one: Vec<String>, two: Vec<String>| one.into_iter().zip(two).flat_map(|(x, y)| [x, y]).collect::<Vec<_>>();
    let csv = |rows: Vec<String>| format!("timestamp,metric,value\n{}", rows.join("\n"));
    let jitter = mix(night("{s}.5,a,{i}"), night("{s},b,{i}"));
    for (what, text) in [
        ("one series", csv(a("a"))),
        ("two in turn", csv(mix(a("a"), a("b")))),
        ("one after the other", csv([a("a"), a("b")].concat())),
        ("a second apart", csv(jitter)),
        ("txt", night("a\t{i}\t{s}").join("\n")),
        ("wide", format!("timestamp,a,b\n{}", night("{s},{i},{i}").join("\n"))),
        ("json", format!("[{}]", night("{\"ts\":\"{s}\",\"name\":\"a\",\"value\":{i}}").join(","))),
        ("newest first", csv(a("a").into_iter().rev().collect())),
    ] {
        let read = read_with(text.as_bytes(), &options, 100, 0).unwrap();
        assert_eq!(read.report.rejected, 0, "{what}");
        for (series, at, value, ..) in &read.samples {
            assert_eq!(at.floor() as i64, change - 4200 + 10 * *value as i64, "{what}: {series} {value}");
        }
        assert!(read.warnings.iter().any(|w| w == "times without an offset were read as Europe/Brussels"), "{what}: {:?}", read.warnings);
        assert!(read.warnings.iter().any(|w| w.contains("occurs twice") && w.ends_with("first for a")), "{what}: {:?}", read.warnings);
    }
}

#[test]
fn offline_rows_without_a_time() {
    let text = "metric,value,timestamp\na,1,\nb,2,\na,3,\n";
    let strict = FileOptions { require_timestamps: true, ..options("a.csv") };
    let read = read_with(text.as_bytes(), &strict, 10, 0).unwrap();
    assert_eq!(errors(&read), "2:timestamp:missing_timestamp 3:timestamp:missing_timestamp 4:timestamp:missing_timestamp");
    let stepped = FileOptions { interval: Some(NANOS / 2), ..strict };
    let read = read_with(text.as_bytes(), &stepped, 10, 0).unwrap();
    assert_eq!(read.samples.iter().map(|s| s.1).collect::<Vec<_>>(), [0.0, 0.0, 0.5]);
    let read = read_with(b"value\n5\n6\n", &stepped, 10, 0).unwrap();
    assert_eq!(read.samples.iter().map(|s| (s.0.as_str(), s.1)).collect::<Vec<_>>(), [("a", 0.0), ("a", 0.5)]);
}

#[test]
fn listed_errors_are_capped_and_counts_exact() {
    let text = format!("metric,value,timestamp\n{}m,1,{T0}\n", format!("m,x,{T0}\n").repeat(5000));
    let capped = read_all("cap.csv", text);
    assert_eq!((capped.report.accepted, capped.report.rejected), (1, 5000));
    assert_eq!(capped.report.errors.iter().map(|e| e.line).collect::<Vec<_>>(), (2..1002).collect::<Vec<_>>());
    let newest: String = (0..3000).map(|i| format!("{},m,{}\n", T0 - i, if i % 2 == 0 { "x" } else { "1" })).collect();
    let read = read_all("newest.csv", format!("ts,metric,value\n{newest}"));
    assert_eq!((read.report.accepted, read.report.rejected), (1500, 1500));
    assert_eq!(read.report.errors.iter().map(|e| e.line).collect::<Vec<_>>(), (0..1000).map(|i| 2 * i + 2).collect::<Vec<_>>());
}

#[test]
fn batches_and_skips_do_not_change_what_is_read() {
    let wide: String = (0..40).map(|i| format!("2025-01-21 10:00:{i:02},{i},{},x\n", if i % 7 == 0 { "bad" } else { "" })).collect();
    let newest: String = (0..3000).map(|i| format!("{},m,{i}\n", T0 - i)).collect();
    for (text, samples) in [
        (format!("time,a,b,c\n{wide}"), 40),
        (format!("ts,metric,value\n{newest}"), 3000),
        (table("metric,value,timestamp", "{m},{v},{s}"), 21),
    ] {
        let whole = read_with(text.as_bytes(), &options("x.csv"), 1_000_000, 0).unwrap();
        assert_eq!(whole.samples.len(), samples);
        for (size, skip) in [(1, 0), (7, 0), (1000, 1), (3, 20), (1, samples as u64), (5, 10_000)] {
            let part = read_with(text.as_bytes(), &options("x.csv"), size, skip).unwrap();
            assert!(part.samples == whole.samples[samples.min(skip as usize)..], "{size} {skip}");
            assert_eq!((part.report, part.warnings), (whole.report.clone(), whole.warnings.clone()));
        }
    }
}

#[test]
fn the_span_is_that_of_accepted_samples() {
    let text = format!("metric,value,timestamp\nm,1,{T0}\nm,x,1\nm,1,{}\nm,1,86400\n", T0 + 9);
    let mut reader = FileReader::open(Cursor::new(text), &options("a.csv")).unwrap();
    assert_eq!(reader.span(), None);
    assert_eq!(reader.next_batch(&mut BatchBuilder::new(), 10).unwrap(), More::End);
    assert_eq!(reader.span(), Some((Timestamp::from_seconds(86_400), Timestamp::from_seconds(T0 + 9))));
}

/// A table that is made as it is read.
struct Endless {
    at: u64,
    length: u64,
}

const ENDLESS_ROW: &[u8] = b"m,1,1737453600\n";

impl std::io::Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let header = b"metric,value,ts\n";
        let n = into.len().min((self.length - self.at) as usize);
        for (i, byte) in into[..n].iter_mut().enumerate() {
            let at = self.at as usize + i;
            *byte = if at < header.len() { header[at] } else { ENDLESS_ROW[(at - header.len()) % ENDLESS_ROW.len()] };
        }
        self.at += n as u64;
        Ok(n)
    }
}

impl std::io::Seek for Endless {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.at = match to {
            std::io::SeekFrom::Start(at) => at,
            std::io::SeekFrom::End(back) => self.length.saturating_add_signed(back),
            std::io::SeekFrom::Current(by) => self.at.saturating_add_signed(by),
        };
        Ok(self.at)
    }
}

#[test]
fn ordinary_files_are_read_once_and_do_not_stay_in_memory() {
    let rows = 1_000_000;
    let file = Endless { at: 0, length: 16 + rows * ENDLESS_ROW.len() as u64 };
    let mut reader = FileReader::open(file, &options("a.csv")).unwrap();
    let mut n = 0;
    loop {
        let mut batch = BatchBuilder::new();
        let more = reader.next_batch(&mut batch, 10_000).unwrap();
        n += batch.len();
        if more == More::End {
            break;
        }
    }
    assert_eq!((n as u64, reader.report().accepted), (rows, rows));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        text in "(metric|value|ts|date|time|series|[,;\t\n\"=é0-9.{}\\[\\]:]){0,60}",
        which in 0usize..5, at in any::<proptest::sample::Index>(), byte in any::<u8>(), zone in any::<bool>(),
    ) {
        let seeds = [
            "sep=;\nmetric;value;timestamp\n\"a \"\"b\"\"\";0,5;2024-10-27 02:30\n",
            "date,time,cpu,mem\n2025-01-21,10:00,1,\n2025-01-20,10:00,x,2\n",
            "[{\"ts\":1,\"name\":\"m\",\"value\":1},{\"ts\":0,\"name\":\"m\",\"value\":1}]",
            "{\"ts\":\"2024-10-27 02:30:00\",\"name\":\"m\",\"value\":1}\n{\"value\":1}\n",
            "2025-01-21 10:00,5\n2025-01-20,6\n",
        ];
        let mut mutated = seeds[which].as_bytes().to_vec();
        let index = at.index(mutated.len());
        mutated[index] = byte;
        let mut options = FileOptions { max_event_bytes: 50, ..options("x.csv") };
        if zone {
            options.zone = TimeZone::get("Europe/Brussels").unwrap();
        }
        for file in [&bytes[..], text.as_bytes(), &mutated[..], &mutated[..index]] {
            if let Ok(read) = read_with(file, &options, 3, 0) {
                prop_assert_eq!(read.report.accepted as usize, read.samples.len());
                let resumed = read_with(file, &options, 1000, 1).unwrap();
                prop_assert_eq!(read.report, resumed.report);
            }
        }
    }
}
