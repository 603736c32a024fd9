//! Checkpoints: whatever the chunks, restoring takes bounded memory and does not panic, nor does what follows it.
#![no_main]

use std::sync::OnceLock;

use anomaly_engine::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Record};
use anomaly_engine::{CheckpointFormat, DecodeError, DetectorKind, Engine, EngineConfig, Event, Outputs, Rule, Timestamp};
use anomaly_fuzz::{Choices, mutate};
use cap::Cap;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

/// A page of 256 series, and what a byte of a chunk may become: a spacing, an id in a queue and a table, a sample.
const A_PAGE: usize = 256 << 10;
const A_BYTE: usize = 64;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let kind = choices.byte();
    let n_shards = 1 + kind as usize / 64;
    let mut chunks = written()[kind as usize / 8 % 2].clone();
    match kind % 8 {
        0 => chunks = split(choices.rest()),
        1 => {
            // Between a head and a tail.
            let middle = split(choices.rest()).into_iter().map(|chunk| [&[2, 5], &chunk[..]].concat());
            chunks.splice(1..chunks.len() - 1, middle);
        }
        2 => {
            // Only one of several, and any configuration.
            let config = choices.rest();
            chunks[0] = [&[1, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, config.len().min(127) as u8], &config[..config.len().min(127)], &[0]].concat();
        }
        _ => {
            while !choices.is_empty() {
                let n = chunks.len();
                let at = choices.byte() as usize;
                match (at / 64, at % 8) {
                    (0, 0) => chunks.swap(at % n, at / 8 % n),
                    (0, 1) => chunks.insert(at / 8 % n, chunks[at % n].clone()),
                    (0, 2) if n > 1 => drop(chunks.remove(at / 8 % n)),
                    _ => _ = mutate(&mut chunks[at % n], &mut choices),
                }
            }
        }
    }
    let bytes: usize = chunks.iter().map(Vec::len).sum();
    let allowed = n_shards * A_PAGE + A_BYTE * bytes;
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + allowed).expect("a limit above what is in use");
    let restored = Engine::restore(chunks.into_iter().map(Ok::<_, DecodeError>), n_shards);
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
    let Ok(mut engine) = restored else { return };
    assert!(engine.state_bytes() <= allowed);
    let _ = engine.digest();
    let next = engine.applied().checked_add(1);
    if let Some(next) = next {
        let bytes = rows(40).seal(next);
        let mut out = Outputs::default();
        let _ = engine.apply(&Frame::open(next, &bytes).unwrap(), &mut out);
    }
});

/// Chunks with their lengths before them, each in two bytes.
fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut choices, mut chunks) = (Choices(bytes), Vec::new());
    while !choices.is_empty() {
        let n = choices.u16() as usize % 4096;
        chunks.push(choices.take(n).to_vec());
    }
    chunks
}

/// Two checkpoints with windows, panes, percentiles, ids, incidents and sources.
fn written() -> &'static [Vec<Vec<u8>>; 2] {
    static WRITTEN: OnceLock<[Vec<Vec<u8>>; 2]> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        [600, 60].map(|bytes| {
            let percentile = Rule { metric: Some("p*".into()), detector: Some(DetectorKind::Percentile), ..Rule::default() };
            let panes = Rule { metric: Some("w*".into()), window: Some(anomaly_detect::WindowKind::Panes), ..Rule::default() };
            let mut engine = Engine::new(EngineConfig { rules: vec![percentile, panes], ..EngineConfig::default() }, 1);
            let mut out = Outputs::default();
            for (n, start) in (1..).zip([0, 10, 20]) {
                let bytes = rows(start).seal(n);
                engine.apply(&Frame::open(n, &bytes).unwrap(), &mut out).unwrap();
            }
            assert!(!out.anomalies.is_empty());
            let (mut cursor, mut chunks, mut chunk) = (engine.begin_checkpoint(CheckpointFormat::NEWEST), Vec::new(), Vec::new());
            while engine.next_chunk(&mut cursor, bytes, &mut chunk).unwrap().is_some() {
                chunks.push(chunk.clone());
            }
            chunks
        })
    })
}

/// Ten rows for each of four series, with ids, an outlier and a late one.
fn rows(start: i64) -> FrameBuilder {
    let mut batch = BatchBuilder::new();
    for i in start..start + 10 {
        for metric in ["a", "p", "w", "b"] {
            let id = format!("id{i}");
            let event = Event {
                metric,
                labels: &[("dc", "eu")],
                timestamp: Timestamp::from_seconds(10_000 + if i % 10 == 7 { i - 3 } else { 5 * i }),
                value: if i % 20 == 9 { 1e6 } else { (i % 3) as f64 },
                id: (metric != "a").then_some(&id),
                meta: None,
            };
            batch.push(&event, 1);
        }
    }
    let mut frame = FrameBuilder::new(Timestamp::from_seconds(20_000 + start));
    frame.push(&Record::Events(batch.finish(Origin { name: "upload:1".into(), first: Some(start as u64) })));
    frame
}
