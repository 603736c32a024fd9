//! All stages over a data directory: what was acknowledged is there once, after a clean stop and after a crash.

#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped fails its test")]

use std::path::Path;

use anomaly_engine::SeriesKey;
use anomaly_engine::frame::{BatchBuilder, Origin, Position};
use anomaly_engine::parse::{Context, parse_batch};
use anomaly_server::clock;
use anomaly_server::config::Config;
use anomaly_server::fatal::Fatal;
use anomaly_server::log::{AnswerKey, Append, Appended};
use anomaly_server::run::{Running as _, Stages};
use anomaly_server::stats::Totals;
use anomaly_server::store::Filter;
use serde_json::Value;

async fn start(folder: &Path) -> Stages {
    // A small disk has a small reserve.
    let config = Config { data_dir: folder.into(), disk_max_bytes: Some(256 << 20), shards: 2, ..Config::default() };
    Stages::start(config, Fatal::new().0).await.unwrap()
}

/// Appends rows as the API does, under a key where one is given; returns when they are durable.
async fn send(stages: &Stages, rows: &str, key: Option<&str>) -> Appended {
    let mut batch = BatchBuilder::new();
    let report = parse_batch(rows.as_bytes(), &Context::new(clock::now(), 0), &mut batch).unwrap();
    let origin = key.map_or_else(Origin::http, |key| Origin { name: format!("key:{key}"), first: Some(0) });
    let key = key.map(|key| AnswerKey { key: key.into(), fingerprint: 1 });
    let appended = stages.app.log.append(Append { batch: batch.finish(origin), report, atomic: false, key }).await.unwrap();
    if let Appended::Taken { report, .. } = &appended {
        stages.app.stats.report(report);
    }
    appended
}

fn position(appended: &Appended) -> Position {
    match appended {
        Appended::Taken { position, .. } => *position,
        Appended::Repeated(_) => panic!("it was taken before"),
    }
}

fn row(metric: &str, second: i64, value: f64) -> String {
    format!("{{\"metric\":\"{metric}\",\"timestamp\":{second},\"value\":{value:?}}}\n")
}

/// Twenty calm samples and an anomaly behind them, a window and more from those of the block before.
fn block(metric: &str, number: i64) -> String {
    let values = (0..20).map(|i| (50 + i % 10) as f64).chain([95.0 + number as f64]);
    (0..).zip(values).fold(String::new(), |rows, (i, value)| rows + &row(metric, 1000 * (number + 1) + i, value))
}

/// What a user sees, apart from the times of detection.
#[derive(Debug, PartialEq)]
struct Seen {
    anomalies: Vec<Value>,
    /// Name and count of each.
    series: Vec<(String, u64)>,
    totals: Totals,
    queued: u64,
}

async fn seen(stages: &Stages) -> Seen {
    let page = stages.app.store.anomalies(&Filter::default(), None, 1000).unwrap();
    let anomalies = page.items.iter().map(|stored| {
        let mut body: Value = serde_json::from_str(&stored.body).unwrap();
        assert!(body.as_object_mut().unwrap().remove("detected_at").is_some());
        body
    });
    let (series, _) = stages.app.engine.series("", None, 1000).await.unwrap();
    Seen {
        anomalies: anomalies.collect(),
        series: series.into_iter().map(|info| (info.name, info.count)).collect(),
        totals: stages.app.stats.totals(),
        queued: stages.app.stats.queue_depth(),
    }
}

/// Something of everything: blocks of two series, a key, ids that repeat, a late and a rejected row, a series forgotten.
async fn fill(stages: &Stages) {
    send(stages, &block("cpu", 0), None).await;
    send(stages, &block("mem", 0), Some("k1")).await;
    send(stages, &(block("cpu", 1) + &row("cpu", 1005, 1.0) + "{}\n"), None).await;
    let twice = "{\"metric\":\"ids\",\"timestamp\":1000,\"value\":1,\"id\":\"a\"}\n".repeat(2);
    send(stages, &twice, None).await;
    send(stages, &block("gone", 0), None).await;
    let forgotten = stages.app.log.forget(SeriesKey::new("gone", &[])).await.unwrap();
    stages.app.engine.reached(forgotten).await;
}

fn expected_of_fill() -> (Vec<(String, u64)>, Totals) {
    let series = [("cpu", 43), ("ids", 1), ("mem", 21)].map(|(name, count)| (name.to_owned(), count));
    (series.into(), Totals { events: 87, rejected: 1, late: 1, duplicates: 1, redelivered: 0 })
}

#[tokio::test]
async fn a_clean_stop_and_start_shows_the_same_and_replays_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let stages = start(folder.path()).await;
    fill(&stages).await;
    let before = seen(&stages).await;
    assert_eq!((&before.series, before.totals), (&expected_of_fill().0, expected_of_fill().1));
    assert_eq!((before.anomalies.len(), before.queued), (3, 0));
    stages.stop().await;

    for _ in 0..2 {
        let stages = start(folder.path()).await;
        assert_eq!(stages.replayed, 0);
        assert_eq!(seen(&stages).await, before);
        assert_eq!(stages.app.stats.health()["status"], "ok");
        stages.stop().await;
    }

    // It goes on where it was: the window of the last block still holds, and the series are known.
    let stages = start(folder.path()).await;
    let appended = send(&stages, &row("cpu", 2021, 97.0), None).await;
    stages.app.engine.reached(position(&appended)).await;
    let after = seen(&stages).await;
    assert_eq!((after.anomalies.len(), &after.anomalies[0]["count"]), (4, &Value::from(21)), "{:?}", after.anomalies[0]);
    assert_eq!(after.anomalies[0]["incident_id"], after.anomalies[1]["incident_id"], "the incident goes on");
    assert_eq!(after.totals.events, before.totals.events + 1);
    assert!(matches!(send(&stages, &block("mem", 0), Some("k1")).await, Appended::Repeated(_)), "the answer to a key is kept");
    stages.stop().await;
}

#[tokio::test]
async fn after_a_crash_at_any_time_what_was_acknowledged_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let stages = start(folder.path()).await;
    fill(&stages).await;
    let mut copies = Vec::new();
    for number in 0..6 {
        let appended = send(&stages, &block("disk", number), Some(&format!("b{number}"))).await;
        if number % 2 == 0 {
            // Half of the crashes come when the verdicts are committed, the others when they may not be.
            stages.app.engine.reached(position(&appended)).await;
        }
        copies.push(copy_of(folder.path()));
    }
    stages.app.engine.reached(position(&send(&stages, &block("disk", 6), None).await)).await;
    let whole = seen(&stages).await;
    assert_eq!(whole.anomalies.len(), 10);
    stages.stop().await;

    for (number, copy) in (0..).zip(&copies) {
        let stages = start(copy.path()).await;
        assert!(stages.replayed > 0, "there was no checkpoint yet");
        let crashed = seen(&stages).await;
        let blocks = number + 1;
        assert_eq!(crashed.anomalies, whole.anomalies[6 - number..], "crash {number}: each once, with the same id, in the same order");
        assert_eq!(crashed.totals.events, expected_of_fill().1.events + 21 * blocks as u64);
        assert_eq!((crashed.totals.rejected, crashed.totals.late, crashed.totals.duplicates), (1, 1, 1));
        assert!(crashed.series.contains(&("disk".into(), 21 * blocks as u64)) && crashed.queued == 0, "{:?}", crashed.series);
        assert!(!crashed.series.iter().any(|(name, _)| name == "gone"), "what was forgotten stays forgotten");
        assert_eq!(stages.app.stats.health()["status"], "ok", "{}", stages.app.stats.health());

        // The client did not hear the answer and sends again; then the rest comes, and all is as if nothing had happened.
        let again = send(&stages, &block("disk", number as i64), Some(&format!("b{number}"))).await;
        assert!(matches!(again, Appended::Repeated(_)), "{again:?}");
        for rest in blocks..7 {
            let key = (rest < 6).then(|| format!("b{rest}"));
            let appended = send(&stages, &block("disk", rest as i64), key.as_deref()).await;
            stages.app.engine.reached(position(&appended)).await;
        }
        assert_eq!(seen(&stages).await, whole, "crash {number}");
        stages.stop().await;
    }
}

/// The last frame applied, and how many incidents are open.
async fn applied(stages: &Stages) -> (u64, usize) {
    stages.app.engine.ask(|stage| (stage.engine.applied(), stage.engine.open_incidents())).await.unwrap()
}

/// Asks for a tick, which is the next frame; the incidents that are open behind it.
async fn tick(stages: &Stages) -> usize {
    let (frame, _) = applied(stages).await;
    stages.app.log.hints().tick();
    stages.app.engine.reached(Position { frame: frame + 1, row: 0 }).await;
    let (ticked, open) = applied(stages).await;
    assert_eq!(ticked, frame + 1);
    open
}

#[tokio::test]
async fn a_tick_resolves_an_incident_and_a_clean_stop_with_an_open_one_replays_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let stages = start(folder.path()).await;
    stages.app.engine.reached(position(&send(&stages, &block("cpu", 0), None).await)).await;
    assert_eq!(tick(&stages).await, 1, "the anomaly is fresh");
    let (frame, _) = applied(&stages).await;
    // One that is still on its way when the stop begins.
    stages.app.log.hints().tick();
    stages.stop().await;

    let stages = start(folder.path()).await;
    assert_eq!((stages.replayed, applied(&stages).await), (0, (frame + 1, 1)));
    // Its own time goes on beyond the window.
    stages.app.engine.reached(position(&send(&stages, &row("cpu", 2000, 50.0), None).await)).await;
    assert_eq!(tick(&stages).await, 0);
    let crashed = copy_of(folder.path());
    stages.stop().await;

    for folder in [&folder, &crashed] {
        let stages = start(folder.path()).await;
        assert_eq!(applied(&stages).await, (frame + 3, 0));
        stages.stop().await;
    }
}

/// A copy of a data directory that is in use: what a crash would leave. The log comes last, so that it may be ahead of what
/// was made of it and never behind.
fn copy_of(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_into(folder, copy.path(), &|name| !name.starts_with("events.db"));
    copy_into(folder, copy.path(), &|name| name.starts_with("events.db"));
    copy
}

fn copy_into(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) {
    let mut entries: Vec<_> = std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()).collect();
    // A database before its WAL.
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().into_string().unwrap();
        let (from, to) = (entry.path(), to.join(&name));
        if from.is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy_into(&from, &to, wanted);
        } else if wanted(&name) && name != "LOCK" && name != "reserve" && !name.ends_with("-shm") {
            std::fs::copy(from, to).unwrap();
        }
    }
}
