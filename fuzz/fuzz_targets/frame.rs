//! Frames: damage is found by the checksum, and where the checksum is right nothing panics.
#![no_main]

use anomaly_engine::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Record, RecordRef};
use anomaly_engine::{Event, SeriesKey, Timestamp};
use anomaly_fuzz::{ARRIVAL, Choices, mutate};
use cap::Cap;
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::xxh3_64_with_seed;

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, 256 << 20);

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    match choices.byte() % 4 {
        0 => {
            if let Ok(frame) = Frame::open(1, choices.rest()) {
                look(&frame);
            }
        }
        1 => {
            let sealed = build(&mut choices).seal(9);
            let (body, checksum) = sealed.split_at(sealed.len() - 8);
            let (mut body, mut checksum) = (body.to_vec(), checksum.to_vec());
            let changed = if choices.byte() % 4 > 0 { mutate(&mut body, &mut choices) } else { mutate(&mut checksum, &mut choices) };
            let damaged = [body, checksum].concat();
            assert_eq!(Frame::open(9, &damaged).is_err(), changed && damaged != sealed);
            assert!(Frame::open(8, &sealed).is_err());
            look(&Frame::open(9, &sealed).unwrap());
        }
        2 => {
            let mut bytes = build(&mut choices).seal(9);
            bytes.truncate(bytes.len() - 8);
            while !choices.is_empty() {
                mutate(&mut bytes, &mut choices);
            }
            open_sealed(bytes);
        }
        _ => open_sealed([&[1][..], &ARRIVAL.nanos().to_le_bytes(), choices.rest()].concat()),
    }
});

fn open_sealed(mut bytes: Vec<u8>) {
    let checksum = xxh3_64_with_seed(&bytes, 9);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    if let Ok(frame) = Frame::open(9, &bytes) {
        look(&frame);
    }
}

/// Reads all that is there.
fn look(frame: &Frame<'_>) {
    for record in frame.records() {
        let Ok((_, record)) = record else { break };
        match record {
            RecordRef::Events(batch) => {
                let n = batch.series.len() as u32;
                let rows = batch.rows().inspect(|row| assert!(row.series < n)).count();
                let _ = (rows, batch.series.iter().filter(|series| SeriesKey::from_bytes(series.key).is_ok()).count());
            }
            RecordRef::Forget(key) => {
                let _ = SeriesKey::from_bytes(key).map(|key| key.name());
            }
            RecordRef::Configure(_) | RecordRef::Tick | RecordRef::Owner(_) => {}
        }
    }
}

fn build(choices: &mut Choices<'_>) -> FrameBuilder {
    let mut frame = FrameBuilder::new(ARRIVAL);
    for _ in 0..choices.byte() % 4 {
        let record = match choices.byte() % 6 {
            0 => Record::Tick,
            1 => Record::Forget(SeriesKey::new("a", &[("x", "1")])),
            2 => Record::Configure("{\"threshold\":4}".into()),
            _ => {
                let mut batch = if choices.byte().is_multiple_of(2) { BatchBuilder::new() } else { BatchBuilder::with_made_ids() };
                for _ in 0..choices.byte() % 8 {
                    let kind = choices.byte();
                    batch.push(
                        &Event {
                            metric: ["a", "b", "long metric"][kind as usize % 3],
                            labels: if kind & 4 == 0 { &[] } else { &[("x", "1"), ("a", "")] },
                            timestamp: Timestamp::from_nanos(choices.u64() as i64),
                            value: f64::from_bits(choices.u64()),
                            id: (kind & 8 == 0).then_some("id"),
                            meta: (kind & 16 == 0).then_some("{\"a\":1}"),
                        },
                        1,
                    );
                }
                Record::Events(batch.finish(Origin { name: "http".into(), first: choices.byte().is_multiple_of(2).then_some(5) }))
            }
        };
        let first = frame.rows();
        assert_eq!(frame.push(&record), first);
    }
    frame
}
