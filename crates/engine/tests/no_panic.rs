//! No bytes make a parser panic: frames, checkpoints and names, as `parse` has it for events, batches and files.

use anomaly_engine::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Record, RecordRef};
use anomaly_engine::parse::{Arrival, Context, FileOptions, FileReader, More, parse_batch, parse_event, series_name, unpack};
use anomaly_engine::{CheckpointFormat, DecodeError, Engine, EngineConfig, Event, NANOS, Outputs, SeriesKey, Timestamp};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const ARRIVAL: Timestamp = Timestamp::from_seconds(1_737_504_000);

/// A frame of twenty rows in two series, with ids, labels and meta.
fn frame(number: u64) -> Vec<u8> {
    let mut batch = BatchBuilder::with_made_ids();
    for i in 0..20 {
        let event = Event {
            metric: if i % 2 == 0 { "a" } else { "b" },
            labels: &[("dc", "eu")],
            timestamp: Timestamp::from_seconds(1000 + i),
            value: i as f64,
            id: (i % 3 == 0).then_some("id"),
            meta: (i % 4 == 0).then_some("{\"a\":1}"),
        };
        batch.push(&event, 1);
    }
    let mut frame = FrameBuilder::new(ARRIVAL);
    frame.push(&Record::Events(batch.finish(Origin { name: "upload:1".into(), first: Some(0) })));
    frame.push(&Record::Forget(SeriesKey::new("a", &[])));
    frame.push(&Record::Configure(EngineConfig::default().to_text()));
    frame.seal(number)
}

fn chunks() -> Vec<Vec<u8>> {
    let mut engine = Engine::new(EngineConfig::default(), 1);
    engine.apply(&Frame::open(1, &frame(1)).expect("it was sealed"), &mut Outputs::default()).expect("it was built");
    let (mut cursor, mut chunks, mut chunk) = (engine.begin_checkpoint(CheckpointFormat::NEWEST), Vec::new(), Vec::new());
    while engine.next_chunk(&mut cursor, 100, &mut chunk).expect("no configuration in between").is_some() {
        chunks.push(chunk.clone());
    }
    chunks
}

/// Bytes in place of some others.
fn change() -> impl Strategy<Value = (Index, Index, Vec<u8>)> {
    (any::<Index>(), any::<Index>(), proptest::collection::vec(any::<u8>(), 0..6))
}

fn replace(bytes: &mut Vec<u8>, at: Index, length: Index, new: &[u8]) {
    let start = at.index(bytes.len() + 1);
    let end = start + length.index((bytes.len() - start).min(8) + 1);
    bytes.splice(start..end, new.iter().copied());
}

/// A series must not be known under a hash that its key does not have: nobody would find it again.
#[test]
fn a_series_under_a_hash_that_is_not_its_own_is_passed_over() {
    let mut bytes = frame(1);
    let hash = SeriesKey::new("a", &[("dc", "eu")]).hash().to_le_bytes();
    let at = bytes.windows(hash.len()).position(|bytes| bytes == hash).expect("the frame names its series by their hashes");
    bytes[at] ^= 1;
    let body = bytes.len() - 8;
    let checksum = xxh3_64_with_seed(&bytes[..body], 1);
    bytes[body..].copy_from_slice(&checksum.to_le_bytes());
    let mut engine = Engine::new(EngineConfig::default(), 1);
    engine.apply(&Frame::open(1, &bytes).expect("it was sealed"), &mut Outputs::default()).expect("it was built");
    assert_eq!(engine.series_len(), 1, "only the other one");
}

proptest! {
    // The same cases every time: the fuzz targets look for new ones.
    #![proptest_config(ProptestConfig { cases: 1000, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), start in 0usize..6) {
        let start: &[u8] = [&b""[..], b"[", b"{\"metric\":", b"time,value\n", b"\x1f\x8b\x08\0", b"\xff\xfe"][start];
        let bytes = [start, &bytes].concat();
        let (context, mut builder) = (Context::new(ARRIVAL, NANOS), BatchBuilder::new());
        let _ = parse_event(&bytes, &context, &mut builder);
        let _ = parse_batch(&bytes, &context, &mut builder);
        let mut plain = Vec::new();
        if unpack(&bytes[..], 10_000, &mut plain).is_ok() {
            let options = FileOptions::new("x", Arrival { time: ARRIVAL, max_future: NANOS });
            if let Ok(mut reader) = FileReader::open(std::io::Cursor::new(&plain), &options) {
                while reader.next_batch(&mut builder, 3).unwrap() == More::Rows {}
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let _ = (SeriesKey::parse(&text), SeriesKey::from_bytes(&bytes), series_name(&text));
    }

    #[test]
    fn no_frame_panics_under_a_right_checksum(changes in proptest::collection::vec(change(), 1..4), raw in any::<bool>(), noise in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = frame(1);
        prop_assert!(Frame::open(1, &noise).is_err());
        bytes.truncate(bytes.len() - 8);
        if raw {
            bytes.truncate(9);
            bytes.extend_from_slice(&noise);
        }
        for (at, length, new) in changes {
            replace(&mut bytes, at, length, &new);
        }
        let checksum = xxh3_64_with_seed(&bytes, 1);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        let Ok(frame) = Frame::open(1, &bytes) else { return Ok(()) };
        for record in frame.records() {
            if let Ok((_, RecordRef::Events(batch))) = record {
                prop_assert!(batch.rows().all(|row| (row.series as usize) < batch.series.len()));
            }
        }
    }

    #[test]
    fn no_checkpoint_panics(changes in proptest::collection::vec((any::<Index>(), change()), 1..4), shards in 1usize..3) {
        let mut chunks = chunks();
        for (which, (at, length, new)) in changes {
            let which = which.index(chunks.len());
            replace(&mut chunks[which], at, length, &new);
        }
        if let Ok(engine) = Engine::restore(chunks.into_iter().map(Ok::<_, DecodeError>), shards) {
            prop_assert!(engine.state_bytes() < 10 << 20);
            let _ = engine.digest();
        }
    }
}
