//! `anomaly detect` on small files: what it writes, what it says, and what it does about files that it cannot read.

#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped fails its test")]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anomaly_server::cli::Format;
use anomaly_server::command::detect::{Options, Summary, run};
use anomaly_server::config::Config;

const HEADER: &str = "timestamp,series,value,score,expected,lower,upper,z_score,anomaly,verdict,detector,explanation";

/// A folder with files, and what to do with them.
struct Case {
    folder: tempfile::TempDir,
    options: Options,
    config: Config,
}

struct Ran {
    out: String,
    notes: String,
    summary: Summary,
}

impl Case {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = files.iter().map(|(name, bytes)| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        });
        let options = Options { files: paths.collect(), ..Options::default() };
        Self { folder, options, config: Config { shards: 2, ..Config::default() } }
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    fn run(&self) -> Ran {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let summary = run(&self.options, self.config.clone(), &mut out, &mut notes).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        // The folder has another name in each run.
        let notes = text(notes).replace(&format!("{}/", self.folder.path().display()), "");
        Ran { out: text(out), notes, summary }
    }
}

/// 20 values from 50 to 59 a second apart, then 95.
fn twenty_and_95(metric: &str) -> String {
    let values = (0..20).map(|i| 50 + i % 10).chain([95]);
    let rows: String = values.enumerate().map(|(i, value)| format!("{},{metric},{value}\n", 1_700_000_000 + i)).collect();
    format!("timestamp,metric,value\n{rows}")
}

/// The columns of a line without quotes.
fn columns(line: &str) -> Vec<&str> {
    line.splitn(12, ',').collect()
}

#[test]
fn a_table_has_a_line_an_anomaly_and_the_notes_close_with_the_counts() {
    let ran = Case::new(&[("a.csv", twenty_and_95("cpu").as_bytes())]).run();
    assert_eq!(
        ran.out,
        "time (UTC)           series  value     expected      z  severity\n\
         2023-11-14 22:13:40  cpu        95  54.5 ± 8.84  +13.7  ◆ critical\n"
    );
    assert_eq!(ran.notes, "1 anomaly in 1 series; 21 rows from 1 file, 0 rejected, 0 late\n");
}

#[test]
fn without_an_anomaly_a_table_is_empty() {
    let ran = Case::new(&[("a.csv", b"timestamp,value\n1700000000,1\n1700000001,1\n")]).run();
    assert_eq!((ran.out.as_str(), ran.summary.anomalies), ("", 0));
    assert!(ran.notes.ends_with("no anomalies; 2 rows from 1 file, 0 rejected, 0 late\n"), "{}", ran.notes);
}

#[test]
fn colours_are_written_only_where_they_are_asked_for() {
    let case = Case::new(&[("a.csv", twenty_and_95("cpu").as_bytes())]);
    assert!(!case.run().out.contains('\x1b'));
    assert!(case.with(|options| options.colour = true).run().out.contains("\x1b[31m◆ critical\x1b[0m"));
}

#[test]
fn json_is_the_anomaly_of_the_api_on_a_line() {
    let ran = Case::new(&[("a.csv", twenty_and_95("cpu").as_bytes())]).with(|options| options.format = Some(Format::Json)).run();
    let lines: Vec<serde_json::Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["series"], &lines[0]["value"], &lines[0]["source"]), (&"cpu".into(), &95.0.into(), &"file:a.csv".into()));
    assert_eq!(lines[0]["timestamp"].to_string(), "1700000020");
    assert!((lines[0]["z_score"].as_f64().unwrap() - 13.74).abs() < 0.005);
}

#[test]
fn csv_has_the_columns_of_the_contract() {
    let ran = Case::new(&[("a.csv", twenty_and_95("cpu").as_bytes())]).with(|options| options.format = Some(Format::Csv)).run();
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, HEADER));
    let row = columns(lines[1]);
    assert_eq!(
        (row[0], row[1], row[2], row[4], row[8], row[9], row[10]),
        ("1700000020", "cpu", "95.0", "54.5", "true", "anomaly", "zscore")
    );
}

#[test]
fn all_points_has_every_row_in_the_order_of_the_input() {
    let mut text = twenty_and_95("b");
    text.push_str("1700000000,a,1\n1700001000,b,50\n1700000100,b,50\n");
    let ran = Case::new(&[("a.csv", text.as_bytes())]).with(|options| options.all_points = true).run();
    let rows: Vec<_> = ran.out.lines().skip(1).map(columns).collect();
    let input: Vec<_> = text.lines().skip(1).collect();
    let written: Vec<_> = rows.iter().map(|row| format!("{},{},{}", row[0], row[1], row[2].trim_end_matches(".0"))).collect();
    assert_eq!(written, input);
    let verdicts: Vec<_> = rows.iter().map(|row| row[9]).collect();
    let expected = [vec!["too_few"; 5], vec!["normal"; 15], vec!["anomaly", "too_few", "too_few", "late"]].concat();
    assert_eq!(verdicts, expected);
    for row in rows {
        let judged = ["normal", "anomaly"].contains(&row[9]);
        assert_eq!(judged, row[4..8].iter().all(|cell| !cell.is_empty()), "{row:?}");
        assert!(judged || row[3] == "0.0", "{row:?}");
        assert!(!row[11].is_empty());
    }
}

#[test]
fn a_row_whose_id_came_before_is_written_as_a_duplicate() {
    let text = b"timestamp,metric,value,id\n1700000000,m,1,x\n1700000001,m,2,x\n1700000002,m,3,y\n";
    let ran = Case::new(&[("a.csv", text)]).with(|options| options.all_points = true).run();
    let verdicts: Vec<_> = ran.out.lines().skip(1).map(|line| columns(line)[9]).collect();
    assert_eq!(verdicts, ["too_few", "duplicate", "too_few"]);
    assert!(ran.notes.ends_with("0 late, 1 duplicate\n"), "{}", ran.notes);
}

#[test]
fn a_file_sorted_newest_first_is_written_in_its_own_order() {
    let text = twenty_and_95("cpu");
    let mut lines: Vec<_> = text.lines().collect();
    lines[1..].reverse();
    let backwards = Case::new(&[("a.csv", lines.join("\n").as_bytes())]).with(|options| options.all_points = true).run();
    let forwards = Case::new(&[("a.csv", text.as_bytes())]).with(|options| options.all_points = true).run();
    let mut expected: Vec<_> = forwards.out.lines().collect();
    expected[1..].reverse();
    assert_eq!(backwards.out.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn all_points_as_json_has_a_verdict_on_each_line_and_as_a_table_is_refused() {
    let case = Case::new(&[("a.csv", twenty_and_95("cpu").as_bytes())]).with(|options| options.all_points = true);
    let case = case.with(|options| options.format = Some(Format::Json));
    let ran = case.run();
    assert_eq!(ran.out.lines().count(), 21);
    assert!(ran.out.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["verdict"].is_string()));
    let case = case.with(|options| options.format = Some(Format::Table));
    let refused = run(&case.options, case.config.clone(), &mut Vec::new(), &mut Vec::new()).unwrap_err();
    assert_eq!(refused.to_string(), "--all-points writes no table: add --format csv or --format json");
}

#[test]
fn rows_that_are_wrong_are_told_and_the_others_judged() {
    let mut text = twenty_and_95("cpu");
    (0..7).for_each(|_| text.push_str("1700000020,cpu,many\n"));
    let ran = Case::new(&[("a.csv", text.as_bytes())]).run();
    let told: Vec<_> = ran.notes.lines().collect();
    assert!(told[0].starts_with("rejected: a.csv line 23: value: "), "{told:?}");
    assert_eq!((told[5], told[6]), ("rejected: a.csv: and 2 more", "1 anomaly in 1 series; 21 rows from 1 file, 7 rejected, 0 late"));
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_the_others_are_read() {
    let case = Case::new(&[("a.csv", twenty_and_95("cpu").as_bytes()), ("bad.csv", &[0, 255, 1, 254, 0, 7, 3, 200])]);
    let ran = case.with(|options| options.files.insert(0, PathBuf::from("/absent.csv"))).run();
    let told: Vec<_> = ran.notes.lines().collect();
    assert_eq!(told[0], "error: /absent.csv: is not there");
    assert!(told[1].starts_with("error: bad.csv: "), "{told:?}");
    assert_eq!(told[2], "1 anomaly in 1 series; 21 rows from 1 file, 0 rejected, 0 late; 2 files could not be read");
    assert_eq!((ran.summary.failed, ran.summary.anomalies), (2, 1));
}

#[test]
fn rows_without_a_time_need_an_interval() {
    let text: String = twenty_and_95("cpu").lines().map(|line| format!("{}\n", line.split_once(',').unwrap().1)).collect();
    let case = Case::new(&[("a.csv", text.as_bytes())]);
    let ran = case.run();
    assert_eq!((ran.summary.rows, ran.summary.failed), (0, 1));
    assert!(ran.notes.contains("--interval") && ran.notes.contains("error: a.csv: no row was accepted"), "{}", ran.notes);
    let ran = case.with(|options| options.interval = Some(1_000_000_000)).run();
    assert_eq!((ran.summary.rows, ran.summary.anomalies), (21, 1));
}

#[test]
fn packed_files_give_what_plain_ones_give() {
    let text = twenty_and_95("cpu");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let (gzip, zstd) = (gzip.finish().unwrap(), zstd::encode_all(text.as_bytes(), 1).unwrap());
    let utf16: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let with_mark = [&b"\xef\xbb\xbf"[..], text.as_bytes()].concat();
    let plain = Case::new(&[("a.csv", text.as_bytes())]).run();
    for (name, bytes) in [("a.csv.gz", &gzip), ("a.csv.zst", &zstd), ("a.csv", &utf16), ("a.csv", &with_mark)] {
        assert_eq!(Case::new(&[(name, bytes)]).run().out, plain.out, "{name}");
    }
    let cut = Case::new(&[("a.csv.gz", &gzip[..gzip.len() - 9])]).run();
    assert!(cut.notes.starts_with("error: a.csv.gz: the gzip data are cut or damaged"), "{}", cut.notes);
}

#[test]
fn a_series_that_comes_too_seldom_for_its_window_is_told() {
    let rows: String = (0..40).map(|i| format!("{},{}\n", 1_700_000_000 + 300 * i, 50 + i % 3)).collect();
    let ran = Case::new(&[("disk.csv", format!("timestamp,value\n{rows}").as_bytes())]).run();
    let expected =
        "warning: disk.csv: disk: samples every 5 min; a window of 5 min cannot hold 5 before each: set WINDOW_SECONDS to 1800 or more";
    assert!(ran.notes.lines().any(|line| line == expected), "{}", ran.notes);
}

#[test]
fn the_series_of_several_files_go_on_from_file_to_file() {
    let text = twenty_and_95("cpu");
    let (first, last) = text.split_at(text.find("1700000010").unwrap());
    let rest = format!("timestamp,metric,value\n{last}");
    let both = Case::new(&[("a.csv", first.as_bytes()), ("b.csv", rest.as_bytes())]).run();
    assert_eq!(both.out, Case::new(&[("a.csv", text.as_bytes())]).run().out);
    assert!(both.notes.ends_with("21 rows from 2 files, 0 rejected, 0 late\n"), "{}", both.notes);
}

#[test]
fn batches_and_shards_show_in_no_result() {
    // More rows than a batch holds, in many series, one in a hundred of them odd.
    let mut text = String::from("timestamp,metric,value\n");
    for i in 0..40_000_u32 {
        let value = if i % 100 == 99 { 500 } else { 50 + i.wrapping_mul(2_654_435_761) % 10 };
        text.push_str(&format!("{},m{},{value}\n", 1_700_000_000 + i / 37, i % 37));
    }
    let ids = |shards| {
        let mut case = Case::new(&[("a.csv", text.as_bytes())]).with(|options| options.format = Some(Format::Json));
        case.config.shards = shards;
        let ran = case.run();
        let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        ran.out.lines().map(id).collect::<Vec<_>>()
    };
    let one = ids(1);
    assert!(one.len() > 300, "{}", one.len());
    assert_eq!(ids(7), one);
}

#[test]
fn a_time_zone_holds_for_times_that_name_none_and_for_the_table() {
    let rows: String = (0..10).map(|i| format!("2025-01-21 12:00:0{i},{}\n", if i == 9 { 90 } else { 50 })).collect();
    let mut case = Case::new(&[("a.csv", format!("timestamp,value\n{rows}").as_bytes())]);
    case.config.timezone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    let ran = case.run();
    assert!(ran.out.starts_with("time (Europe/Berlin)") && ran.out.contains("\n2025-01-21 12:00:09   a "), "{}", ran.out);
    let csv = case.with(|options| options.format = Some(Format::Csv)).run();
    assert!(csv.out.contains("\n1737457209,a,90.0,"), "{}", csv.out);
}

#[test]
fn the_samples_in_the_repository_hold_an_anomaly_each() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for (name, rows) in [("sample_data.csv", 15), ("sample_data.json", 10), ("sample_data.txt", 11)] {
        let case = Case::new(&[]).with(|options| options.files = vec![folder.join(name)]);
        let ran = case.run();
        assert_eq!((ran.summary.rows, ran.summary.rejected, ran.summary.anomalies), (rows, 0, 1), "{name}: {}", ran.notes);
    }
}

/// The content of the file that a run with `--plot` wrote.
fn plotted(case: Case, name: &str) -> (Ran, Vec<u8>) {
    let path = case.folder.path().join(name);
    let case = case.with(|options| options.plot = Some(path.clone()));
    let ran = case.run();
    (ran, std::fs::read(path).unwrap())
}

#[test]
fn a_plot_is_written_in_the_format_of_its_name_beside_the_usual_output() {
    let text = twenty_and_95("cpu");
    let case = || Case::new(&[("a.csv", text.as_bytes())]);
    let plain = case().run();
    for (name, start) in [("a.svg", &b"<svg "[..]), ("a.PNG", b"\x89PNG\r\n\x1a\n"), ("a.html", b"<!doctype html>")] {
        let (ran, bytes) = plotted(case(), name);
        assert!(bytes.starts_with(start), "{name}");
        assert_eq!((ran.out, ran.notes), (plain.out.clone(), format!("{}plot: {name}\n", plain.notes)));
    }
}

#[test]
fn an_svg_has_a_mark_an_anomaly_and_says_what_it_is() {
    let (_, bytes) = plotted(Case::new(&[("a.csv", twenty_and_95("cpu").as_bytes())]), "a.svg");
    let svg = String::from_utf8(bytes).unwrap();
    assert_eq!(svg.matches("<title>2023-11-14 22:13:40: 95, z +13.7</title>").count(), 1);
    for said in
        ["1 anomaly in 1 series", "21 rows from 1 file · zscore with a window of 5 min, threshold 3", "1 critical · strongest +13.7 σ"]
    {
        assert!(svg.contains(said), "{said}");
    }
    assert!(svg.contains("prefers-color-scheme:dark") && !svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn a_page_has_every_row_and_every_anomaly_as_data() {
    let (_, bytes) = plotted(Case::new(&[("a.csv", twenty_and_95("cpu").as_bytes())]), "a.html");
    let page = String::from_utf8(bytes).unwrap();
    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let panel = &serde_json::from_str::<serde_json::Value>(data).unwrap()["panels"][0];
    assert_eq!(panel["marks"], serde_json::json!({"t": [20000], "v": [95], "z": [13.7], "critical": [1]}));
    let values: Vec<f64> = panel["lines"][0]["v"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(values, (0..20).map(|i| f64::from(50 + i % 10)).chain([95.0]).collect::<Vec<_>>());
    assert_eq!((panel["band"]["expected"][4].is_null(), panel["band"]["expected"][20].as_f64()), (true, Some(54.5)));
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing may come from elsewhere");
}

#[test]
fn names_of_series_are_text_in_every_plot() {
    let hostile = "</script><script>alert(1)</script>&\u{202e}<b x=\"1\">";
    let text = twenty_and_95(&format!("\"{}\"", hostile.replace('"', "\"\"")));
    for name in ["a.svg", "a.html", "a.png"] {
        let (ran, bytes) = plotted(Case::new(&[("a.csv", text.as_bytes())]), name);
        assert_eq!(ran.summary.anomalies, 1, "{}", ran.notes);
        let written = String::from_utf8_lossy(&bytes);
        assert!(!written.contains("<script>alert") && !written.contains("<b x"), "{name}");
    }
}

#[test]
fn a_plot_whose_name_says_no_format_is_refused_before_anything_is_read() {
    for name in ["plot", "plot.pdf", "plot.svg.gz"] {
        let case = Case::new(&[("a.csv", twenty_and_95("cpu").as_bytes())]).with(|options| options.plot = Some(name.into()));
        let mut out = Vec::new();
        let refused = run(&case.options, case.config.clone(), &mut out, &mut Vec::new()).unwrap_err();
        assert_eq!(refused.to_string(), format!("--plot writes .svg, .png and .html, got {name:?}: name it plot.svg, say"));
        assert!(out.is_empty());
    }
}

#[test]
fn a_plot_that_cannot_be_written_is_told_with_its_name_and_without_rows_there_is_none() {
    let case = Case::new(&[("a.csv", twenty_and_95("cpu").as_bytes())]).with(|options| options.plot = Some("/absent/a.svg".into()));
    let mut out = Vec::new();
    let refused = run(&case.options, case.config.clone(), &mut out, &mut Vec::new()).unwrap_err();
    assert_eq!(format!("{refused:#}"), "cannot write /absent/a.svg: No such file or directory (os error 2)");
    assert!(out.is_empty(), "told before the rows are read");
    let case = Case::new(&[("a.csv", b"timestamp,metric,value\n1,m,x\n")]);
    let path = case.folder.path().join("a.svg");
    let ran = case.with(|options| options.plot = Some(path.clone())).run();
    assert!(ran.notes.ends_with("plot: none was written, as no row was accepted\n") && !path.exists(), "{}", ran.notes);
}

#[test]
fn of_more_series_than_fit_the_plot_says_which_are_left_out() {
    let rows = (0..15).map(|k| twenty_and_95(&format!("m{k}")).split_once('\n').unwrap().1.to_owned());
    let text = format!("timestamp,metric,value\n{}", rows.collect::<String>());
    let (ran, bytes) = plotted(Case::new(&[("a.csv", text.as_bytes())]), "a.svg");
    let sentence = "12 of 15 series are drawn, those with the strongest anomalies; left out: m12, m13, m14 (3 of them have anomalies)";
    assert!(ran.notes.ends_with(&format!("plot: a.svg\nplot: {sentence}\n")), "{}", ran.notes);
    assert!(String::from_utf8(bytes).unwrap().contains(sentence));
}

#[test]
fn on_a_narrow_terminal_names_are_cut_in_their_middle_and_lines_fit() {
    let name = "api_latency_ms_of_a_service_with_a_very_long_name_in_the_region_eu_west_1";
    let case = Case::new(&[("a.csv", twenty_and_95(name).as_bytes())]);
    assert!(case.run().out.contains(name), "a file has the whole name");
    let ran = case.with(|options| options.columns = Some(80)).run();
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{}", ran.out);
    assert!(lines[1].contains("  api_lat") && lines[1].contains('…') && lines[1].ends_with("◆ critical"), "{}", ran.out);
}

#[test]
fn wide_letters_are_aligned_and_control_characters_do_not_reach_the_terminal() {
    let row = |i: usize, host: &str, value: f64| {
        format!(r#"{{"timestamp":{},"metric":"m","labels":{{"host":"{host}"}},"value":{value}}}"#, 1_700_000_000 + i)
    };
    let rows = |host: &str| (0..21).map(|i| row(i, host, if i == 20 { 95.0 } else { 50.0 + (i % 10) as f64 }) + "\n").collect::<String>();
    let ran = Case::new(&[("a.ndjson", (rows("温度") + &rows(r"\u001b[31m")).as_bytes())]).run();
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[1].contains(r#"m{host="温度"}      95"#), "{}", ran.out);
    assert!(lines[2].contains("m{host=\"\u{fffd}[31m\"}") && !ran.out.contains('\x1b'), "{}", ran.out);
}

#[test]
fn notes_stand_out_and_a_person_is_told_what_else_there_is() {
    let case = Case::new(&[("a.csv", twenty_and_95("cpu").as_bytes())]).with(|options| {
        options.files.push("/absent.csv".into());
        (options.colour_notes, options.hints) = (true, true);
    });
    let ran = case.run();
    assert!(ran.notes.contains("\x1b[31merror:\x1b[0m /absent.csv: is not there\n"), "{}", ran.notes);
    assert!(ran.notes.contains("\x1b[1m1 anomaly in 1 series; 21 rows"), "{}", ran.notes);
    let hint = "\x1b[36mhint:\x1b[0m --plot anomalies.html shows them, --format json says the reason of each\n";
    assert!(ran.notes.ends_with(hint), "{}", ran.notes);
    assert!(!ran.out.contains('\x1b'), "the output is not coloured with the notes");
}
