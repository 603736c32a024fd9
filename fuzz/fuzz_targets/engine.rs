//! The engine: whatever rows come, every number is one, and neither shards nor checkpoints show in the results.
#![no_main]

use anomaly_detect::{Direction, WindowKind};
use anomaly_engine::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Record};
use anomaly_engine::{
    CheckpointCursor, CheckpointFormat, DecodeError, DetectorKind, Engine, EngineConfig, Event, NANOS, Outputs, Point, Rule, SeriesKey,
    Timestamp, Verdict, write_explained,
};
use anomaly_fuzz::Choices;
use libfuzzer_sys::fuzz_target;

const METRICS: [&str; 5] = ["a", "b", "p1", "p2", "w"];

type Chunks = Vec<Vec<u8>>;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let first = config(&mut choices);
    let second = config(&mut choices);
    if !first.faults().is_empty() || !second.faults().is_empty() {
        return;
    }
    let pause = choices.byte() as usize % 8;
    let bytes_a_chunk = choices.of(&[1, 200, 1 << 20]);
    let shards = choices.of(&[[1, 2], [3, 1], [2, 2]]);
    let frames = frames(choices, &second);

    let (plain, out) = run(&first, &frames);
    out.points.iter().for_each(check);
    tell(&plain, &out);

    // The same with other shards, a checkpoint cut while frames go on, and a restart behind it.
    let mut engine = fresh(&first, shards[0]);
    let (mut sharded, mut writing): (_, Option<(CheckpointCursor, Chunks)>) = (Outputs::default(), None);
    let mut whole = None;
    for (i, frame) in frames.iter().enumerate() {
        apply(&mut engine, i as u64 + 1, frame, &mut sharded);
        if i == pause {
            writing = Some((engine.begin_checkpoint(CheckpointFormat::NEWEST), Vec::new()));
        }
        if let Some((cursor, chunks)) = &mut writing {
            let mut chunk = Vec::new();
            match engine.next_chunk(cursor, bytes_a_chunk, &mut chunk) {
                Ok(Some(())) => chunks.push(chunk),
                Ok(None) => whole = writing.take().map(|(_, chunks)| chunks),
                Err(_) => writing = None,
            }
        }
    }
    assert_eq!(sharded.anomalies, out.anomalies);
    assert_eq!(sharded.points, out.points);
    assert_eq!((&sharded.resolved, engine.open_incidents()), (&out.resolved, plain.open_incidents()));
    assert_eq!((engine.digest(), engine.totals()), (plain.digest(), plain.totals()));
    if let Some(chunks) = whole {
        let mut restored = restore(chunks, shards[1]);
        let (behind, stored) = (restored.applied(), restored.recovering().max(restored.applied()));
        let mut rest = Outputs::default();
        for n in behind + 1..=frames.len() as u64 {
            apply(&mut restored, n, &frames[n as usize - 1], &mut rest);
        }
        rest.points.retain(|point| point.position.frame > stored);
        rest.anomalies.retain(|anomaly| anomaly.position.frame > stored);
        assert!(rest.points.iter().eq(out.points.iter().filter(|point| point.position.frame > stored)));
        rest.resolved.retain(|resolved| resolved.position.frame > stored);
        assert!(rest.resolved.iter().eq(out.resolved.iter().filter(|resolved| resolved.position.frame > stored)));
        assert!(rest.anomalies.iter().eq(out.anomalies.iter().filter(|anomaly| anomaly.position.frame > stored)));
        assert_eq!((restored.digest(), restored.totals()), (plain.digest(), plain.totals()));
    }
    // A checkpoint at the end.
    let (mut cursor, mut chunks, mut chunk) = (plain.begin_checkpoint(CheckpointFormat::NEWEST), Vec::new(), Vec::new());
    while plain.next_chunk(&mut cursor, bytes_a_chunk, &mut chunk).expect("no configuration in between").is_some() {
        chunks.push(chunk.clone());
    }
    let restored = restore(chunks, shards[1]);
    assert_eq!((restored.digest(), restored.totals(), restored.applied()), (plain.digest(), plain.totals(), plain.applied()));
});

fn fresh(config: &EngineConfig, n_shards: usize) -> Engine {
    let mut engine = Engine::new(config.clone(), n_shards);
    engine.keep_points(true);
    engine
}

fn restore(chunks: Vec<Vec<u8>>, n_shards: usize) -> Engine {
    let mut engine = Engine::restore(chunks.into_iter().map(Ok::<_, DecodeError>), n_shards).expect("what was written is read");
    engine.keep_points(true);
    engine
}

fn apply(engine: &mut Engine, number: u64, bytes: &[u8], out: &mut Outputs) {
    engine.apply(&Frame::open(number, bytes).expect("it was sealed"), out).expect("it was built");
}

fn run(config: &EngineConfig, frames: &[Vec<u8>]) -> (Engine, Outputs) {
    let (mut engine, mut out) = (fresh(config, 1), Outputs::default());
    for (number, bytes) in (1..).zip(frames) {
        apply(&mut engine, number, bytes, &mut out);
    }
    (engine, out)
}

fn check(point: &Point) {
    let judgement = &point.judgement;
    let numbers = [judgement.mean, judgement.stddev, judgement.expected, judgement.lower, judgement.upper, judgement.strength];
    assert!(numbers.into_iter().chain(judgement.z_score).all(f64::is_finite), "{point:?}");
    assert!((0.0..=1.0).contains(&judgement.score()) && judgement.strength >= 0.0, "{point:?}");
    assert!(judgement.stddev >= 0.0 && judgement.lower <= judgement.upper, "{point:?}");
}

/// All that can be said in words can be said, and is JSON.
fn tell(engine: &Engine, out: &Outputs) {
    for anomaly in &out.anomalies {
        let mut text = String::new();
        anomaly.write_json(&mut text, Timestamp::default());
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    }
    let fired = out.points.iter().filter(|point| point.verdict == Verdict::Anomaly).count();
    assert_eq!(fired, out.anomalies.len());
    for point in out.points.iter().rev().take(20) {
        let Some(info) = engine.series(point.series) else { continue };
        let mut text = String::new();
        write_explained(&mut text, &info.key, &engine.config().settings_of(&info.key), point);
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    }
}

fn config(choices: &mut Choices<'_>) -> EngineConfig {
    let number = |choices: &mut Choices<'_>| match choices.byte() {
        n @ ..16 => [3.0, 0.0, 1e-300, 1e300, f64::MAX, 0.5, 1.0, 2.0, 50.0, 99.0, 100.0, 1e-9, 5e-324, 10.0, 97.5, 1.5][n as usize],
        _ => f64::from_bits(choices.u64()),
    };
    let seconds = |choices: &mut Choices<'_>| choices.of(&[300.0, 1.0, 10.0, 1e-9, 0.5, 86_400.0, 9.2e9, 60.0]);
    let base = EngineConfig {
        window_seconds: seconds(choices),
        allowed_lateness_seconds: choices.of(&[60.0, 0.0, 1.0, 600.0]),
        dedup_horizon_seconds: choices.of(&[3600.0, 0.0, 2.0, 9.2e9]),
        dedup_max_ids: choices.of(&[10_000, 0, 1, 2]),
        series_idle_seconds: choices.of(&[604_800.0, 1.0, 100.0, 9.2e9]),
        window_max_samples: choices.of(&[100_000, 2, 3, 10, 300]),
        min_count: choices.of(&[5, 1, 2, 3, 0, u32::MAX]),
        ..EngineConfig::default()
    };
    if choices.byte().is_multiple_of(4) {
        return base;
    }
    let percentile = Rule {
        metric: Some("p*".into()),
        detector: Some(DetectorKind::Percentile),
        low: Some(number(choices)),
        high: Some(100.0 - number(choices)),
        min_count: Some(1 + u32::from(choices.byte() % 4)),
        ..Rule::default()
    };
    let panes = Rule {
        metric: Some("w".into()),
        window: Some(WindowKind::Panes),
        window_seconds: Some(choices.of(&[300.0, 60.0, 3600.0, 9.2e9, 1000.0])),
        critical_factor: Some(1.0 + number(choices).abs()),
        ..Rule::default()
    };
    let strict = Rule {
        metric: Some("b".into()),
        threshold: Some(number(choices)),
        rel_floor: Some(number(choices)),
        min_stddev: Some(number(choices)),
        min_deviation: Some(number(choices)),
        direction: Some(choices.of(&[Direction::Both, Direction::High, Direction::Low])),
        min_count: Some(1 + u32::from(choices.byte() % 4)),
        ..Rule::default()
    };
    let rules = [percentile, panes, strict]
        .into_iter()
        .filter(|rule| EngineConfig { rules: vec![rule.clone()], ..base.clone() }.faults().is_empty());
    EngineConfig { rules: rules.collect(), ..base.clone() }
}

/// Rows cut into frames, with records of the other kinds between them.
fn frames(mut choices: Choices<'_>, other: &EngineConfig) -> Vec<Vec<u8>> {
    let (mut frames, mut batch) = (Vec::new(), BatchBuilder::new());
    let (mut arrival, mut now, mut value, mut taken) = (20_000 * NANOS, 10_000 * NANOS, 1.0, 0);
    let seal = |record: Record, arrival: i64, frames: &mut Vec<Vec<u8>>| {
        let mut frame = FrameBuilder::new(Timestamp::from_nanos(arrival));
        frame.push(&record);
        frames.push(frame.seal(frames.len() as u64 + 1));
    };
    while !choices.is_empty() && frames.len() < 200 {
        let kind = choices.byte();
        let record = match kind {
            ..224 => {
                let step = choices.byte();
                now = match step {
                    ..64 => now.saturating_add(NANOS),
                    64..96 => now,
                    96..128 => now.saturating_add(i64::from(step - 95) * 7 * NANOS),
                    128..144 => now - i64::from(step - 127) * 6 * NANOS,
                    144..160 => now.saturating_add(1),
                    160..176 => now.saturating_add(1 << (step - 160 + 40)),
                    176..192 => now - 1,
                    _ => (choices.u64() & i64::MAX as u64) as i64,
                }
                .max(0);
                value = match choices.byte() {
                    ..32 => value,
                    n @ 32..160 => f64::from(n) - 90.0,
                    n @ 160..200 => {
                        [0.0, -0.0, f64::MAX, f64::MIN, 5e-324, -5e-324, f64::MIN_POSITIVE, 1e154, 1e-154, 1e16][n as usize % 10]
                    }
                    n @ 200..220 => value * (1.0 + f64::from(n) * f64::EPSILON),
                    220..230 => -value,
                    _ => f64::from_bits(choices.u64()),
                };
                if !value.is_finite() {
                    value = 0.25;
                }
                let id = ["i", "j", "k"].get(kind as usize / 5 % 16);
                let event = Event {
                    metric: METRICS[kind as usize % METRICS.len()],
                    labels: if kind < 200 { &[] } else { &[("dc", "eu")] },
                    timestamp: Timestamp::from_nanos(now),
                    value,
                    id: id.copied(),
                    meta: None,
                };
                batch.push(&event, 1);
                continue;
            }
            224..244 => None,
            244..248 => Some(Record::Tick),
            248..252 => Some(Record::Forget(SeriesKey::new(METRICS[choices.byte() as usize % METRICS.len()], &[]))),
            _ => Some(Record::Configure(other.to_text())),
        };
        arrival = match choices.byte() {
            ..200 => arrival.saturating_add(NANOS / 8),
            n @ 200..250 => arrival.saturating_add(1 << (n - 200)),
            _ => arrival - NANOS,
        };
        if !batch.is_empty() {
            let n = batch.len() as u64;
            let origin = match kind % 4 {
                0 => Origin { name: "upload:1".into(), first: Some(taken) },
                1 => Origin { name: "key:1".into(), first: Some(u64::from(kind)) },
                _ => Origin::http(),
            };
            taken += n;
            seal(Record::Events(std::mem::take(&mut batch).finish(origin)), arrival, &mut frames);
        }
        if let Some(record) = record {
            seal(record, arrival, &mut frames);
        }
    }
    if !batch.is_empty() {
        seal(Record::Events(batch.finish(Origin::http())), arrival, &mut frames);
    }
    frames
}
