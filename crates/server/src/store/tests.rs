//! The store through its own door: what is committed, and what its readers then see.

use anomaly_engine::frame::Position;
use anomaly_engine::{SeriesHash, SeriesKey, Timestamp};

use super::sqlite::{Store, StoreReader};
use super::*;
use crate::data_dir::DataDir;
use crate::log::sqlite::Durability;

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn hash(metric: &str) -> SeriesHash {
    SeriesKey::new(metric, &[]).hash()
}

/// An anomaly of `metric` at `seconds`; critical from a strength of 2.
pub(super) fn row(id: &str, metric: &str, seconds: i64, strength: f64, incident: &str) -> AnomalyRow {
    AnomalyRow {
        id: id.into(),
        series: hash(metric),
        name: metric.into(),
        metric: metric.into(),
        labels: "{}".into(),
        timestamp: at(seconds),
        arrival: at(seconds),
        critical: strength >= 2.0,
        strength,
        height: 3.0 * strength,
        incident: incident.into(),
        body: format!("{{\"id\":\"{id}\"}}"),
    }
}

pub(super) fn commit(store: &mut Store, frame: u64, seconds: i64, rows: &[AnomalyRow]) -> Vec<Stored> {
    let changes = rows.iter().map(|row| Change::Anomaly(Box::new(AnomalyRow { arrival: at(seconds), ..row.clone() }))).collect();
    store.commit(&Commit { upto: Position { frame, row: 7 }, at: at(seconds), changes }).unwrap()
}

pub(super) fn memory() -> (Store, StoreReader) {
    let store = Store::open(&DataDir::memory(), Durability::Memory).unwrap();
    let reader = store.reader();
    (store, reader)
}

fn ids(items: &[Stored]) -> Vec<&str> {
    items.iter().map(|stored| stored.body[7..].trim_end_matches("\"}")).collect()
}

fn listed(reader: &StoreReader, filter: &Filter) -> Vec<String> {
    let page = reader.anomalies(filter, None, 1000).unwrap();
    ids(&page.items).into_iter().map(str::to_owned).collect()
}

fn seqs(items: &[Stored]) -> Vec<u64> {
    items.iter().map(|stored| stored.seq).collect()
}

#[test]
fn a_commit_is_there_after_a_kill_with_p_and_its_numbers() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let mut store = Store::open(&dir, Durability::Os).unwrap();
    assert_eq!(store.position(), Position::default());
    let stored = commit(&mut store, 5, 1, &[row("a", "m", 10, 1.0, "i"), row("b", "m", 11, 1.0, "i")]);
    assert_eq!((seqs(&stored), ids(&stored)), (vec![1, 2], vec!["a", "b"]));
    let copy = tempfile::tempdir().unwrap();
    for file in ["anomaly.db", "anomaly.db-wal"] {
        std::fs::copy(temp.path().join(file), copy.path().join(file)).unwrap();
    }
    let again = Store::open(&DataDir::open(copy.path()).unwrap(), Durability::Fsync).unwrap();
    assert_eq!(again.position(), Position { frame: 5, row: 7 });
    assert_eq!(listed(&again.reader(), &Filter::default()), ["b", "a"]);
    store.close().unwrap();
    assert_eq!(Store::open(&dir, Durability::Fsync).unwrap().position(), Position { frame: 5, row: 7 });
}

#[test]
fn an_id_that_is_stored_is_left_as_it_is() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 1, &[row("a", "m", 10, 1.0, "i")]);
    let again = commit(&mut store, 2, 2, &[row("a", "m", 10, 9.0, "i"), row("b", "m", 11, 1.0, "i"), row("b", "m", 11, 1.0, "i")]);
    assert_eq!((seqs(&again), ids(&again)), (vec![2], vec!["b"]));
    let incidents::Whole { incident, anomalies, .. } = reader.incident("i", 100, at(0)).unwrap().unwrap();
    assert_eq!((incident.count, incident.critical, ids(&anomalies)), (2, false, vec!["a", "b"]));
    assert_eq!(seqs(&reader.after(None, 10).unwrap()), [1, 2]);
}

#[test]
fn pages_are_stable_while_anomalies_arrive() {
    let (mut store, reader) = memory();
    for i in 0..10 {
        commit(&mut store, i, 1, &[row(&i.to_string(), "m", i as i64, 1.0, "i")]);
    }
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let page = reader.anomalies(&Filter::default(), cursor.as_deref(), 3).unwrap();
        seen.extend(seqs(&page.items));
        commit(&mut store, 20, 1, &[row(&format!("new{}", seen.len()), "m", 5, 1.0, "i")]);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (1..=10).rev().collect::<Vec<_>>());
    assert_eq!(reader.anomalies(&Filter::default(), Some("1"), 3).unwrap(), Page { items: vec![], next: None });
}

#[test]
fn a_cursor_that_is_none_of_ours_is_bad() {
    let (_store, reader) = memory();
    let nines = "9".repeat(400);
    for text in ["garbage", "-1", "\0", &nines, "💥", "", "+1", "01", " 1", "1.0", "0x1", "9223372036854775808"] {
        let filter = Filter::default();
        assert!(matches!(reader.anomalies(&filter, Some(text), 1), Err(StoreError::BadCursor(_))), "{text:?}");
        for text in [text, &format!("{text}-"), &format!("-{text}"), &format!("1-{text}"), &format!("{text}-1"), "5", "1-1-1"] {
            assert!(matches!(reader.incidents(&filter, Some(text), 1, at(0)), Err(StoreError::BadCursor(_))), "{text:?}");
        }
    }
}

#[test]
fn filters_hold_together_and_only_a_star_is_special() {
    let (mut store, reader) = memory();
    let rows = [
        row("a", "cpu_usage", 10, 1.0, "1"),
        row("b", "cpu_usage", 20, 2.5, "1"),
        row("c", "cpu.usage", 30, 1.0, "2"),
        row("d", "c[p]u?%", 40, 2.5, "3"),
        row("e", "CPU_USAGE", 50, 1.0, "4"),
    ];
    commit(&mut store, 1, 1, &rows);
    let metric = |metric: &str| Filter { metric: Some(metric.into()), ..Filter::default() };
    for (pattern, expected) in [
        ("cpu_usage", "ba"),
        ("cpu*", "cba"),
        ("c*u*", "dcba"),
        ("*usage", "cba"),
        ("cpu?usage", ""),
        ("cpu?*", ""),
        ("c[p]u*", "d"),
        ("*?%", "d"),
        ("*[p]*", "d"),
        ("c[a-z]u*", ""),
        ("*", "edcba"),
        ("**", "edcba"),
        ("", ""),
        ("cpu*\0", ""),
        ("cpu_usage\0", ""),
        ("unknown", ""),
    ] {
        assert_eq!(listed(&reader, &metric(pattern)).concat(), expected, "{pattern:?}");
    }
    let range = |from: Option<i64>, to: Option<i64>| Filter { from: from.map(at), to: to.map(at), ..Filter::default() };
    for (filter, expected) in [
        (range(Some(20), Some(30)), "cb"),
        (range(Some(20), None), "edcb"),
        (range(None, Some(20)), "ba"),
        (range(Some(31), Some(39)), ""),
        (Filter { critical: Some(true), ..Filter::default() }, "db"),
        (Filter { critical: Some(false), ..range(None, Some(30)) }, "ca"),
        (Filter { series: Some(hash("cpu_usage")), ..Filter::default() }, "ba"),
        (Filter { series: Some(hash("cpu_usage")), ..metric("*_usage") }, "ba"),
        (Filter { series: Some(hash("cpu_usage")), ..metric("mem*") }, ""),
        (Filter { series: Some(hash("nobody")), ..Filter::default() }, ""),
        (Filter { series: Some(hash("cpu_usage")), critical: Some(true), from: Some(at(20)), to: Some(at(20)), ..metric("c*") }, "b"),
    ] {
        assert_eq!(listed(&reader, &filter).concat(), expected, "{filter:?}");
        let IncidentPage { page, totals, .. } = reader.incidents(&filter, None, 100, at(0)).unwrap();
        assert_eq!((totals.anomalies, totals.incidents), (expected.len() as u64, page.items.len() as u64), "{filter:?}");
    }
}

#[test]
fn many_series_and_wide_ranges_take_the_other_index() {
    let (mut store, reader) = memory();
    let rows: Vec<_> = (0..6000).map(|i| row(&i.to_string(), &format!("m{}", i % 100), i, 1.0, "i")).collect();
    commit(&mut store, 1, 1, &rows);
    let wide = Filter { metric: Some("m*".into()), from: Some(at(0)), to: Some(at(5998)), ..Filter::default() };
    assert_eq!(ids(&reader.anomalies(&wide, None, 2).unwrap().items), ["5998", "5997"]);
    let narrow = Filter { from: Some(at(10)), to: Some(at(12)), ..wide };
    assert_eq!(listed(&reader, &narrow), ["12", "11", "10"]);
}

#[test]
fn incidents_come_in_the_order_of_their_first_anomaly_and_stay_there() {
    let (mut store, reader) = memory();
    let rows = [
        row("a", "m", 100, 1.0, "early"),
        row("b", "n", 200, 1.0, "tie1"),
        row("c", "o", 200, 1.0, "tie2"),
        row("d", "p", 50, 1.0, "old"),
        // Both ends move, the place does not.
        row("e", "p", 900, 3.0, "old"),
        row("f", "p", 10, 3.0, "old"),
    ];
    commit(&mut store, 1, 1, &rows);
    let IncidentPage { page, totals, .. } = reader.incidents(&Filter::default(), None, 2, at(0)).unwrap();
    assert_eq!(totals, Totals { incidents: 4, anomalies: 6 });
    let names = |page: &Page<Incident>| page.items.iter().map(|incident| incident.id.clone()).collect::<Vec<_>>();
    assert_eq!(names(&page), ["tie2", "tie1"]);
    commit(&mut store, 2, 1, &[row("g", "m", 500, 1.0, "new"), row("h", "q", 150, 1.0, "between")]);
    let IncidentPage { page, .. } = reader.incidents(&Filter::default(), page.next.as_deref(), 10, at(0)).unwrap();
    assert_eq!((names(&page), page.next), (vec!["between".into(), "early".into(), "old".to_owned()], None));
    let old = &page.items[2];
    assert_eq!((old.start, old.end, old.count, old.critical), (at(10), at(900), 3, true));
    assert_eq!(old.peak, "{\"id\":\"e\"}", "the first of the strongest");
    // Met by any of its anomalies, and not by its span.
    let inside = Filter { from: Some(at(60)), to: Some(at(99)), ..Filter::default() };
    assert_eq!(reader.incidents(&inside, None, 10, at(0)).unwrap().page.items.len(), 0);
    let warnings = Filter { critical: Some(false), metric: Some("p".into()), ..Filter::default() };
    let IncidentPage { page, totals, .. } = reader.incidents(&warnings, None, 10, at(0)).unwrap();
    assert_eq!((names(&page), totals), (vec!["old".to_owned()], Totals { incidents: 1, anomalies: 1 }));
}

#[test]
fn the_overview_counts_in_event_time() {
    let (mut store, reader) = memory();
    let rows = [
        row("a", "few", 0, 1.0, "1"),
        row("b", "many", 0, 1.0, "2"),
        row("c", "many", 9, 2.5, "2"),
        row("d", "many", 10, 1.0, "2"),
        row("e", "many", 40, 1.0, "2"),
        row("f", "also", 39, 1.0, "3"),
        row("g", "many", 41, 9.0, "2"),
    ];
    commit(&mut store, 1, 1, &rows);
    let lanes = reader.heat(at(0), at(40), 4, 2).unwrap();
    assert_eq!(lanes.iter().map(|lane| &lane.name[..]).collect::<Vec<_>>(), ["many", "also"]);
    let cell = |count, height, critical| Some(Cell { count, height, critical });
    assert_eq!(lanes[0].cells, [cell(2, 7.5, true), cell(1, 3.0, false), None, cell(1, 3.0, false)]);
    assert_eq!(lanes[1].cells, [None, None, None, cell(1, 3.0, false)]);
    assert_eq!(reader.heat(at(5), at(4), 4, 2).unwrap(), []);
    assert_eq!(reader.heat(at(40), at(40), 3, 1).unwrap()[0].cells, [cell(1, 3.0, false), None, None]);
    assert_eq!(reader.counts_since(at(9)).unwrap(), (3, 2));
    assert_eq!(reader.anomalies_since(hash("many"), at(10)).unwrap(), 3);
    let hours = reader.hours(at(24 * 3600)).unwrap();
    assert_eq!((hours[0], hours.iter().sum::<u64>()), (5, 5), "what happened exactly 24 hours ago is no more");
    assert_eq!(reader.hours(at(40)).unwrap()[23], 6);
}

#[test]
fn one_anomaly_is_found_by_id_and_by_instant() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 1, &[row("a", "m", 10, 1.0, "i"), row("b", "m", 10, 1.0, "i"), row("c", "n", 10, 1.0, "j")]);
    assert_eq!(reader.anomaly("b").unwrap().unwrap().seq, 2);
    assert_eq!(reader.anomaly("x").unwrap(), None);
    assert_eq!(reader.anomaly_at(hash("m"), at(10)).unwrap().unwrap().seq, 2);
    assert_eq!(reader.anomaly_at(hash("m"), at(11)).unwrap(), None);
}

fn extent(reader: &StoreReader) -> (u64, u64) {
    let Extent { newest, oldest, .. } = reader.extent().unwrap();
    (oldest, newest)
}

#[test]
fn a_store_is_told_from_others_and_is_the_same_when_opened_again() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let open =
        |i: usize| Store::open(&DataDir::open(folders[i].path()).unwrap(), Durability::Fsync).unwrap().reader().extent().unwrap().store;
    let (first, second) = (open(0), open(1));
    assert_eq!((first.len(), &first), (16, &open(0)));
    assert_ne!(first, second);
}

#[test]
fn what_is_forgotten_is_gone_and_no_gap() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 1, &[row("a", "m", 10, 1.0, "i"), row("b", "n", 10, 1.0, "j")]);
    let changes = vec![
        Change::Anomaly(Box::new(row("c", "m", 11, 1.0, "i"))),
        Change::Forget(hash("m")),
        Change::Anomaly(Box::new(row("d", "m", 12, 1.0, "k"))),
    ];
    let stored = store.commit(&Commit { upto: Position { frame: 2, row: 0 }, at: at(1), changes }).unwrap();
    assert_eq!(ids(&stored), ["d"]);
    assert_eq!(listed(&reader, &Filter::default()), ["d", "b"]);
    assert_eq!(reader.incidents(&Filter::default(), None, 10, at(0)).unwrap().totals, Totals { incidents: 2, anomalies: 2 });
    assert_eq!((seqs(&reader.after(Some(0), 10).unwrap()), extent(&reader)), (vec![2, 4], (1, 4)));
}

#[test]
fn retention_counts_from_detection_in_steps_and_numbers_are_not_reused() {
    let (mut store, reader) = memory();
    let old: Vec<_> = (0..1500).map(|i| row(&format!("o{i}"), "old", i, 3.0, "gone")).collect();
    commit(&mut store, 1, 10, &old);
    commit(&mut store, 2, 10, &[row("x", "m", 5, 3.0, "stays")]);
    commit(&mut store, 3, 20, &[row("y", "m", 1, 1.0, "stays"), row("z", "m", 9, 1.5, "stays")]);
    assert!(store.retain(at(20)).unwrap());
    assert!(!store.retain(at(20)).unwrap());
    assert_eq!(listed(&reader, &Filter::default()), ["z", "y"]);
    let incidents::Whole { incident, .. } = reader.incident("stays", 100, at(0)).unwrap().unwrap();
    assert_eq!(
        (incident.count, incident.start, incident.end, incident.critical, &incident.peak[..]),
        (2, at(1), at(9), false, "{\"id\":\"z\"}")
    );
    assert!(reader.incident("gone", 100, at(0)).unwrap().is_none());
    assert_eq!(extent(&reader), (1502, 1503));
    assert!(!store.retain(at(30)).unwrap());
    assert_eq!(extent(&reader), (1504, 1503));
    assert_eq!(commit(&mut store, 4, 40, &[row("n", "m", 1, 1.0, "n")])[0].seq, 1504);
}

#[test]
fn what_was_judged_of_an_upload_adds_up_and_the_last_warnings_count() {
    let (mut store, reader) = memory();
    let judged = |rows, warnings: &[&str]| UploadJudged {
        upload: "u".into(),
        file: 1,
        rows,
        late: 1,
        anomalies: 2,
        warnings: warnings.iter().map(|&warning| warning.to_owned()).collect(),
    };
    let changes = vec![Change::Judged(judged(5, &["a", "b"])), Change::Judged(judged(6, &["b"]))];
    store.commit(&Commit { upto: Position { frame: 1, row: 0 }, at: at(1), changes }).unwrap();
    assert_eq!(reader.upload_judged("u", 1).unwrap(), Some(UploadJudged { late: 2, anomalies: 4, ..judged(11, &["b"]) }));
    assert_eq!(reader.upload_judged("u", 0).unwrap(), None);
}

#[test]
fn a_full_disk_stores_nothing_of_a_commit() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let mut store = Store::open(&dir, Durability::Fsync).unwrap();
    store.limit_pages(60);
    let rows: Vec<_> = (0..2000).map(|i| row(&i.to_string(), "m", i, 1.0, "i")).collect();
    let changes: Vec<_> = rows.iter().map(|row| Change::Anomaly(Box::new(row.clone()))).collect();
    let big = Commit { upto: Position { frame: 9, row: 0 }, at: at(1), changes };
    assert!(matches!(store.commit(&big), Err(StoreError::Full(_))));
    assert_eq!((store.position(), extent(&store.reader())), (Position::default(), (1, 0)));
    store.limit_pages(100_000);
    assert_eq!(store.commit(&big).unwrap().len(), 2000);
}

#[test]
fn a_newer_file_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    drop(Store::open(&dir, Durability::Fsync).unwrap());
    rusqlite::Connection::open(temp.path().join("anomaly.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(&dir, Durability::Fsync).unwrap_err().to_string();
    assert!(
        error
            .ends_with("anomaly.db has schema version 99, this version of anomaly knows up to 4: use a newer anomaly, or another DATA_DIR")
    );
}

#[test]
fn readers_in_memory_and_the_writer_get_along() {
    let (mut store, reader) = memory();
    let done = &std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let reader = reader.clone();
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    reader.incidents(&Filter::default(), None, 10, at(0)).unwrap();
                }
            });
        }
        for i in 0..100 {
            commit(&mut store, i, 1, &[row(&i.to_string(), "m", 1, 1.0, "i")]);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(extent(&reader), (1, 100));
}
