//! One recorded log, replayed in every way in which it might be: the same anomalies, resolved incidents, ids and order each time.

#![allow(clippy::unwrap_used, reason = "a test says by its line what failed")]

use std::collections::{BTreeMap, BTreeSet};

use anomaly_engine::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Record, RecordRef, base_of, partition_of_frame};
use anomaly_engine::{CheckpointFormat, DecodeError, Engine, EngineConfig, Event, Outputs, Rule, SeriesKey, Timestamp};

/// What happened, before it was cut into frames.
enum Happening {
    Event {
        series: usize,
        seconds: f64,
        value: f64,
        id: Option<String>,
    },
    Forget(usize),
    Configure(EngineConfig),
    /// So many seconds pass.
    Pause(i64),
    /// So many seconds pass, and a tick comes.
    Tick(i64),
}

/// A small generator, so that every run sees the same numbers.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn unit(&mut self) -> f64 {
        self.below(1 << 30) as f64 / (1u64 << 30) as f64
    }
}

const SERIES: usize = 23;
const EVENTS: usize = 18_000;
/// No other record is between the events from here on.
const PLAIN_FROM: usize = 12_000;

fn config(threshold: f64) -> EngineConfig {
    let percentile = Rule { metric: Some("m1*".into()), detector: Some(anomaly_engine::DetectorKind::Percentile), ..Rule::default() };
    let panes = Rule { metric: Some("m2*".into()), window: Some(anomaly_detect::WindowKind::Panes), ..Rule::default() };
    EngineConfig { threshold, series_idle_seconds: 1000.0, rules: vec![percentile, panes], ..EngineConfig::default() }
}

/// Twenty-three series with spikes, disorder, late events, repeated ids, a deletion, new thresholds and an idle time; ticks
/// all along, some soon behind an anomaly, some so much later that what is open resolves. At the end thousands of events
/// without a record between them, so that batches may be large enough for threads.
fn recorded() -> Vec<Happening> {
    let (mut rng, mut log) = (Lcg(7), Vec::new());
    let mut now = 0.0;
    for i in 0..EVENTS {
        now += rng.unit();
        let series = rng.below(SERIES as u64) as usize;
        let disorder = if rng.below(10) == 0 { rng.unit() * 90.0 } else { 0.0 };
        let spike = if rng.below(45) == 0 { 20.0 * rng.unit() + 6.0 } else { 0.0 };
        let id = (rng.below(4) == 0).then(|| format!("id{}", rng.below(400)));
        let value = 50.0 + 3.0 * rng.unit() + spike;
        log.push(Happening::Event { series, seconds: 10_000.0 + now - disorder, value, id });
        if i >= PLAIN_FROM {
            continue;
        }
        if spike > 0.0 && rng.below(4) == 0 || rng.below(150) == 0 {
            log.push(Happening::Tick(rng.below(20) as i64));
        }
        match i {
            3_000 => log.push(Happening::Configure(config(2.5))),
            5_000 | 5_001 | 7_000 => log.push(Happening::Forget(i % SERIES)),
            9_000 => log.push(Happening::Pause(2_000)),
            10_000 => log.push(Happening::Configure(config(3.5))),
            _ if i % 1000 == 500 => log.push(Happening::Tick(301)),
            _ => {}
        }
    }
    log.push(Happening::Tick(301));
    log
}

/// The frames of a log, with at most `rows` events each.
fn frames(log: &[Happening], rows: usize) -> Vec<Vec<u8>> {
    let (mut frames, mut batch, mut arrival) = (Vec::new(), BatchBuilder::new(), 50_000i64);
    let seal = |record: Record, arrival: i64, frames: &mut Vec<Vec<u8>>| {
        let mut frame = FrameBuilder::new(Timestamp::from_seconds(arrival));
        frame.push(&record);
        frames.push(frame.seal(frames.len() as u64 + 1));
    };
    let flush = |batch: &mut BatchBuilder, arrival: i64, frames: &mut Vec<Vec<u8>>| {
        if !batch.is_empty() {
            seal(Record::Events(std::mem::take(batch).finish(Origin::http())), arrival, frames);
        }
    };
    for happening in log {
        match happening {
            Happening::Event { series, seconds, value, id } => {
                let metric = format!("m{series}");
                let event = Event {
                    metric: &metric,
                    labels: &[("dc", "eu")],
                    timestamp: Timestamp::from_nanos((seconds * 1e9) as i64),
                    value: *value,
                    id: id.as_deref(),
                    meta: Some("{\"a\":1}"),
                };
                batch.push(&event, 1);
                if batch.len() >= rows {
                    flush(&mut batch, arrival, &mut frames);
                }
            }
            Happening::Forget(series) => {
                flush(&mut batch, arrival, &mut frames);
                seal(Record::Forget(key(*series)), arrival, &mut frames);
            }
            Happening::Configure(config) => {
                flush(&mut batch, arrival, &mut frames);
                seal(Record::Configure(config.to_text()), arrival, &mut frames);
            }
            Happening::Pause(seconds) => {
                flush(&mut batch, arrival, &mut frames);
                arrival += seconds;
            }
            Happening::Tick(seconds) => {
                flush(&mut batch, arrival, &mut frames);
                arrival += seconds;
                seal(Record::Tick, arrival, &mut frames);
            }
        }
    }
    flush(&mut batch, arrival, &mut frames);
    frames
}

fn key(series: usize) -> SeriesKey {
    SeriesKey::new(&format!("m{series}"), &[("dc", "eu")])
}

fn apply(engine: &mut Engine, number: usize, bytes: &[u8], out: &mut Outputs) {
    let frame = Frame::open(number as u64, bytes).unwrap();
    engine.apply(&frame, out).unwrap();
}

/// What was told, in the order of positions, and the final state.
fn told(engine: &Engine, out: &Outputs) -> (Vec<String>, Vec<u8>) {
    (lines(out), engine.digest())
}

/// The anomalies as bytes, among them the incidents that are resolved: at the same position ahead of the anomaly.
fn lines(out: &Outputs) -> Vec<String> {
    assert!(out.resolved.is_sorted_by_key(|resolved| (resolved.position, resolved.incident)));
    let resolved = out.resolved.iter().map(|resolved| {
        let line = format!("resolved {:032x} of {:032x}", resolved.incident, resolved.series);
        (resolved.position, line)
    });
    let mut lines: Vec<_> = resolved.chain(out.anomalies.iter().map(|anomaly| (anomaly.position, line(anomaly)))).collect();
    lines.sort_by_key(|(position, _)| *position);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn line(anomaly: &anomaly_engine::Anomaly) -> String {
    let mut line = String::new();
    anomaly.write_json(&mut line, Timestamp::default());
    line
}

fn run(frames: &[Vec<u8>], shards: usize) -> (Vec<String>, Vec<u8>) {
    let mut engine = Engine::new(config(3.0), shards);
    let mut out = Outputs::default();
    for (i, bytes) in frames.iter().enumerate() {
        apply(&mut engine, i + 1, bytes, &mut out);
    }
    told(&engine, &out)
}

#[test]
fn neither_shards_nor_batches_show_in_the_results() {
    let log = recorded();
    let expected = run(&frames(&log, 100), 1);
    for shards in [1, 2, 7] {
        for rows in [1, 7, 1000, 20_000] {
            let found = run(&frames(&log, rows), shards);
            assert_eq!(found.0, expected.0, "{shards} shards, {rows} rows a batch");
            assert!(found.1 == expected.1, "the final state differs with {shards} shards, {rows} rows a batch");
        }
    }
}

#[test]
fn the_log_of_these_tests_has_teeth() {
    let frames = frames(&recorded(), 100);
    let (mut engine, mut out) = (Engine::new(config(3.0), 1), Outputs::default());
    let (mut anomalies, mut superseded, mut silent, mut going_on, mut most_open) = (0, 0, 0, 0, 0);
    let (mut resolved, mut reopened) = (BTreeSet::new(), BTreeSet::new());
    let mut last_of = BTreeMap::new();
    for (i, bytes) in frames.iter().enumerate() {
        out.clear();
        apply(&mut engine, i + 1, bytes, &mut out);
        for told in &out.resolved {
            let series = engine.series(told.series).unwrap();
            match out.batches.len() {
                1 => superseded += 1,
                // 300 s is the window.
                _ if series.last.0.since(last_of[&told.incident]) > 300_000_000_000 => going_on += 1,
                _ => silent += 1,
            }
            resolved.insert(told.incident);
        }
        for anomaly in &out.anomalies {
            let last: &mut Timestamp = last_of.entry(anomaly.incident).or_default();
            *last = anomaly.timestamp.max(*last);
            reopened.extend(resolved.take(&anomaly.incident));
        }
        anomalies += out.anomalies.len();
        most_open = most_open.max(engine.open_incidents());
    }
    let reopened = reopened.len();
    let told = format!(
        "{anomalies} anomalies; resolved: {superseded} superseded, {silent} silent, {going_on} going on; {reopened} opened again, at \
         most {most_open} open"
    );
    assert!(anomalies > 100 && superseded > 3 && silent > 20 && going_on > 20 && reopened > 5 && most_open > 10, "{told}");
}

/// What a process leaves behind: the log is all there, the store up to P, the last whole checkpoint.
#[derive(Clone, Default)]
struct Disk {
    checkpoint: Option<Vec<Vec<u8>>>,
    stored: Vec<String>,
    position: usize,
}

/// Runs from what is on disk until it is killed after `life` steps, or to the end; a step is one write of the machinery:
/// a commit, a chunk, the end of a checkpoint.
fn live(disk: &mut Disk, frames: &[Vec<u8>], shards: usize, rng: &mut Lcg, mut life: u64) -> Option<Engine> {
    let mut engine = match &disk.checkpoint {
        Some(chunks) => Engine::restore(chunks.iter().cloned().map(Ok::<_, DecodeError>), shards).unwrap(),
        None => Engine::new(config(3.0), shards),
    };
    let (mut pending, mut applied) = (Vec::new(), engine.applied() as usize);
    let mut writing: Option<(anomaly_engine::CheckpointCursor, Vec<Vec<u8>>)> = None;
    let mut step = move || {
        life = life.saturating_sub(1);
        life > 0
    };
    while applied < frames.len() || !pending.is_empty() {
        if applied < frames.len() {
            let mut out = Outputs::default();
            apply(&mut engine, applied + 1, &frames[applied], &mut out);
            applied += 1;
            if applied > disk.position {
                pending.extend(lines(&out));
            }
        }
        if rng.below(3) == 0 || applied == frames.len() {
            if !step() {
                return None;
            }
            disk.stored.append(&mut pending);
            disk.position = disk.position.max(applied);
        }
        if rng.below(4) == 0 {
            let (cursor, chunks) = writing.get_or_insert_with(|| (engine.begin_checkpoint(CheckpointFormat::NEWEST), Vec::new()));
            let mut chunk = Vec::new();
            match engine.next_chunk(cursor, 6000, &mut chunk) {
                Err(_) => writing = None,
                Ok(Some(())) => {
                    if !step() {
                        return None;
                    }
                    chunks.push(chunk);
                }
                Ok(None) => {
                    // The manifest waits for P, as the server's does.
                    disk.stored.append(&mut pending);
                    disk.position = disk.position.max(applied);
                    if !step() {
                        return None;
                    }
                    disk.checkpoint = writing.take().map(|(_, chunks)| chunks);
                }
            }
        }
    }
    Some(engine)
}

#[test]
fn a_crash_between_any_two_writes_changes_nothing() {
    let frames = frames(&recorded(), 40);
    let expected = run(&frames, 1);
    let mut restored = 0;
    for seed in 0..40 {
        let (mut rng, mut disk, mut deaths) = (Lcg(seed), Disk::default(), 0);
        let engine = loop {
            let life = if deaths < 12 { 1 + rng.below(120) } else { u64::MAX };
            let shards = [1, 2, 7][rng.below(3) as usize];
            if let Some(engine) = live(&mut disk, &frames, shards, &mut rng, life) {
                break engine;
            }
            deaths += 1;
            restored += u32::from(disk.checkpoint.is_some());
        };
        assert_eq!(disk.stored, expected.0, "seed {seed}, {deaths} deaths");
        assert!(engine.digest() == expected.1, "the final state differs: seed {seed}, {deaths} deaths");
    }
    assert!(restored > 50, "only {restored} lives began with a checkpoint: the rig has no teeth");
}

#[test]
fn a_checkpoint_that_is_damaged_or_cut_is_refused() {
    let frames = frames(&recorded(), 1000);
    let mut engine = Engine::new(config(3.0), 2);
    let mut out = Outputs::default();
    apply(&mut engine, 1, &frames[0], &mut out);
    let (mut cursor, mut chunks, mut chunk) = (engine.begin_checkpoint(CheckpointFormat::NEWEST), Vec::new(), Vec::new());
    while engine.next_chunk(&mut cursor, 2000, &mut chunk).unwrap().is_some() {
        chunks.push(chunk.clone());
    }
    let restore = |chunks: Vec<Vec<u8>>| Engine::restore(chunks.into_iter().map(Ok::<_, DecodeError>), 1);
    assert_eq!(restore(chunks.clone()).unwrap().digest(), engine.digest());
    assert!(restore(chunks[..chunks.len() - 1].to_vec()).is_err(), "without its tail");
    assert!(restore(chunks[1..].to_vec()).is_err(), "without its head");
    assert!(restore(Vec::new()).is_err(), "without anything");
    let mut cut = chunks.clone();
    let half = cut[1].len() / 2;
    cut[1].truncate(half);
    assert!(restore(cut).is_err(), "a chunk that ends early");
}

#[test]
fn chunks_of_any_size_come_to_an_end() {
    let frames = frames(&recorded(), 1000);
    let mut engine = Engine::new(config(3.0), 2);
    apply(&mut engine, 1, &frames[0], &mut Outputs::default());
    for max_bytes in [0, 1, 300] {
        let (mut cursor, mut chunks, mut chunk) = (engine.begin_checkpoint(CheckpointFormat::NEWEST), Vec::new(), Vec::new());
        while engine.next_chunk(&mut cursor, max_bytes, &mut chunk).unwrap().is_some() {
            chunks.push(Ok::<_, DecodeError>(chunk.clone()));
            assert!(chunks.len() < 100, "chunks of {max_bytes} bytes do not end");
        }
        assert_eq!(Engine::restore(chunks, 1).unwrap().digest(), engine.digest());
    }
}

#[test]
fn a_damaged_frame_is_skipped_and_the_rest_is_judged() {
    let frames = frames(&recorded(), 1000);
    let mut engine = Engine::new(config(3.0), 1);
    let (mut out, mut lost) = (Outputs::default(), 0u32);
    for (i, bytes) in frames.iter().enumerate() {
        if i == 2 {
            let frame = Frame::open(3, bytes).unwrap();
            lost = frame.records().map(|record| if let RecordRef::Events(batch) = record.unwrap().1 { batch.n_rows } else { 0 }).sum();
            engine.skip(3);
        } else {
            apply(&mut engine, i + 1, bytes, &mut out);
        }
    }
    assert_eq!(engine.applied(), frames.len() as u64);
    assert!(lost > 0);
    assert_eq!(engine.totals().events, EVENTS as u64 - u64::from(lost), "the events of one frame are lost, and no other");
}

#[test]
fn more_patience_brings_back_no_series_that_was_idle_before() {
    // Sweeps come a second apart, so whether one came between 64 s and the configuration depends on when the engine was restored.
    let impatient = EngineConfig { series_idle_seconds: 64.0, ..EngineConfig::default() };
    let patient = EngineConfig { series_idle_seconds: 1000.0, ..EngineConfig::default() };
    let event = |series: usize| {
        let mut batch = BatchBuilder::new();
        let metric = format!("m{series}");
        let timestamp = Timestamp::from_seconds(50_000);
        batch.push(&Event { metric: &metric, labels: &[], timestamp, value: 1.0, id: None, meta: None }, 1);
        Record::Events(batch.finish(Origin::http()))
    };
    let records = [
        (0, event(0)),
        (63_000, event(1)),
        (63_500, event(1)),
        (64_100, event(1)),
        (64_100, Record::Configure(patient.to_text())),
        (64_200, event(0)),
    ];
    let frames: Vec<_> = (1..)
        .zip(records)
        .map(|(number, (millis, record))| {
            let mut frame = FrameBuilder::new(Timestamp::from_seconds(50_000).plus(millis * 1_000_000));
            frame.push(&record);
            frame.seal(number)
        })
        .collect();
    let mut engine = Engine::new(impatient, 1);
    let (mut out, mut chunks, mut chunk) = (Outputs::default(), Vec::new(), Vec::new());
    for (i, bytes) in frames.iter().enumerate() {
        apply(&mut engine, i + 1, bytes, &mut out);
        if i == 1 {
            let mut cursor = engine.begin_checkpoint(CheckpointFormat::NEWEST);
            while engine.next_chunk(&mut cursor, 1 << 20, &mut chunk).unwrap().is_some() {
                chunks.push(Ok::<_, DecodeError>(chunk.clone()));
            }
        }
    }
    let mut restored = Engine::restore(chunks, 1).unwrap();
    for (i, bytes) in frames.iter().enumerate().skip(2) {
        apply(&mut restored, i + 1, bytes, &mut Outputs::default());
    }
    assert_eq!(engine.series(SeriesKey::new("m0", &[]).hash()).unwrap().count, 1);
    assert_eq!(restored.digest(), engine.digest());
}

#[test]
fn partitions_find_what_one_log_finds_although_parts_are_delivered_again() {
    const PARTITIONS: u32 = 5;
    let batches = || {
        let mut batches = vec![BatchBuilder::new()];
        for happening in recorded() {
            let Happening::Event { series, seconds, value, id } = happening else { continue };
            if batches.last().unwrap().len() == 60 {
                batches.push(BatchBuilder::new());
            }
            let (metric, timestamp) = (format!("m{series}"), Timestamp::from_nanos((seconds * 1e9) as i64));
            let event = Event { metric: &metric, labels: &[("dc", "eu")], timestamp, value, id: id.as_deref(), meta: None };
            batches.last_mut().unwrap().push(&event, 1);
        }
        let origin = |i: usize| Origin { name: "kafka:events/0".into(), first: Some(60 * i as u64) };
        batches.into_iter().enumerate().map(move |(i, batch)| batch.finish(origin(i))).collect::<Vec<_>>()
    };
    let push = |engine: &mut Engine, number: u64, batch, out: &mut Outputs| {
        let mut frame = FrameBuilder::new(Timestamp::from_seconds(50_000));
        frame.push(&Record::Events(batch));
        engine.apply(&Frame::open(number, &frame.seal(number)).unwrap(), out).unwrap();
    };
    let (mut whole, mut out) = (Engine::new(config(3.0), 1), Outputs::default());
    (1..).zip(batches()).for_each(|(number, batch)| push(&mut whole, number, batch, &mut out));
    let sorted = |mut lines: Vec<String>| {
        lines.sort_unstable();
        lines
    };
    let expected = sorted(out.anomalies.iter().map(line).collect());
    assert!(expected.len() > 100);

    let (mut rng, mut redelivered, mut found) = (Lcg(3), 0, Vec::new());
    let mut engines: Vec<_> = (0..PARTITIONS).map(|_| Engine::new(config(3.0), 2)).collect();
    engines.iter_mut().zip(0..).for_each(|(engine, partition)| engine.skip(base_of(partition)));
    // A batch comes again where it was not known of one of its parts whether it was taken.
    let again: Vec<bool> = (0..batches().len()).map(|_| rng.below(3) == 0).collect();
    let twice = batches().into_iter().zip(batches()).zip(again);
    for batch in twice.flat_map(|((batch, same), again)| std::iter::once(batch).chain(again.then_some(same))) {
        for (partition, part) in batch.split(PARTITIONS) {
            let (engine, mut out) = (&mut engines[partition as usize], Outputs::default());
            let number = engine.applied() + 1;
            assert_eq!(partition_of_frame(number), partition);
            push(engine, number, part, &mut out);
            redelivered += out.batches.iter().map(|batch| batch.redelivered).sum::<u32>();
            found.extend(out.anomalies.iter().map(line));
        }
    }
    assert!(redelivered > 2000, "{redelivered}");
    assert_eq!(sorted(found), expected);
}

#[test]
fn what_a_former_owner_says_is_not_heard_also_after_a_checkpoint() {
    let push = |engine: &mut Engine, epoch: u64, threshold: f64| {
        let mut frame = FrameBuilder::new(Timestamp::from_seconds(50_000));
        frame.push(&Record::Owner(epoch));
        frame.push(&Record::Configure(config(threshold).to_text()));
        let number = engine.applied() + 1;
        engine.apply(&Frame::open(number, &frame.seal(number)).unwrap(), &mut Outputs::default()).unwrap();
        engine.config().threshold
    };
    let mut engine = Engine::new(config(3.0), 1);
    assert_eq!(
        [(1, 4.0), (1, 5.0), (3, 6.0), (2, 7.0)].map(|(epoch, threshold)| push(&mut engine, epoch, threshold)),
        [4.0, 5.0, 6.0, 6.0]
    );
    let (mut cursor, mut chunks, mut chunk) = (engine.begin_checkpoint(CheckpointFormat::NEWEST), Vec::new(), Vec::new());
    while engine.next_chunk(&mut cursor, 2000, &mut chunk).unwrap().is_some() {
        chunks.push(chunk.clone());
    }
    let mut engine = Engine::restore(chunks.into_iter().map(Ok::<_, DecodeError>), 1).unwrap();
    assert_eq!([(2, 8.0), (3, 9.0)].map(|(epoch, threshold)| push(&mut engine, epoch, threshold)), [6.0, 9.0]);
}
