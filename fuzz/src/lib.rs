//! What the targets share: how a batch is looked at, and a reader of choices from bytes.

use anomaly_engine::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Record, RecordRef};
use anomaly_engine::{MAX_LABELS, MAX_NAME_BYTES, SeriesKey, Timestamp, is_metric};
use serde::de::IgnoredAny;

/// 2025-01-22T00:00:00Z, when everything arrives.
pub const ARRIVAL: Timestamp = Timestamp::from_seconds(1_737_504_000);

/// One row of a frame, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub key: SeriesKey,
    pub nanos: i64,
    pub bits: u64,
    pub id: Option<String>,
    pub made_id: bool,
    pub meta: Option<String>,
}

/// The rows of a batch as the frame has them that is made of it, each of them checked.
pub fn samples(builder: BatchBuilder) -> Vec<Sample> {
    let pushed = builder.len();
    let mut frame = FrameBuilder::new(ARRIVAL);
    frame.push(&Record::Events(builder.finish(Origin { name: "fuzz".into(), first: Some(3) })));
    assert_eq!(frame.rows() as usize, pushed);
    let bytes = frame.seal(7);
    let frame = Frame::open(7, &bytes).expect("a frame that was sealed opens");
    let mut records = frame.records();
    let Some(Ok((0, RecordRef::Events(batch)))) = records.next() else { panic!("not one batch") };
    assert!(records.next().is_none());
    assert_eq!((batch.origin, batch.first, batch.n_rows as usize), ("fuzz", Some(3), pushed));
    let keys: Vec<_> = batch.series.iter().map(|series| SeriesKey::from_bytes(series.key).expect("a key")).collect();
    for (i, (key, series)) in keys.iter().zip(batch.series.iter()).enumerate() {
        assert_eq!(key.hash(), series.hash);
        assert!(!keys[..i].contains(key), "a series is named twice: {key:?}");
        check_key(key);
    }
    let rows: Vec<_> = batch
        .rows()
        .map(|row| Sample {
            key: keys[row.series as usize].clone(),
            nanos: row.timestamp.nanos(),
            bits: row.value.to_bits(),
            id: row.id.map(str::to_owned),
            made_id: row.made_id,
            meta: row.meta.map(str::to_owned),
        })
        .collect();
    assert_eq!(rows.len(), pushed, "as many rows come out as went in");
    rows.iter().for_each(check_sample);
    rows
}

fn check_key(key: &SeriesKey) {
    assert!(is_metric(key.metric()), "{key:?}");
    let labels = key.labels();
    assert!(labels.len() <= MAX_LABELS);
    assert!(labels.iter().all(|(name, _)| (1..=MAX_NAME_BYTES).contains(&name.len())), "{key:?}");
    assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted, each once: {key:?}");
    assert_eq!(SeriesKey::parse(&key.name()).as_ref(), Some(key));
}

fn check_sample(sample: &Sample) {
    assert!(sample.nanos >= 0, "{sample:?}");
    assert!(f64::from_bits(sample.bits).is_finite(), "{sample:?}");
    assert!(sample.id.as_ref().is_none_or(|id| (1..=MAX_NAME_BYTES).contains(&id.len())), "{sample:?}");
    if let Some(meta) = &sample.meta {
        assert!(meta.starts_with('{') && is_json(meta.as_bytes()) != Some(false), "{sample:?}");
    }
}

/// Whether bytes are one JSON value by the word of serde_json; `None` where it does not know: its strict reading refuses
/// large numbers and great depth, its loose one takes halves of surrogate pairs and what is no UTF-8.
pub fn is_json(bytes: &[u8]) -> Option<bool> {
    let strict = serde_json::from_slice::<serde_json::Value>(bytes).is_ok();
    let loose = serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    (strict == loose).then_some(strict)
}

/// Reads choices from the front of bytes; behind their end everything is 0.
#[derive(Debug)]
pub struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// One of `all`; the digit `0` and the byte 0 choose the first (48 and 0 are equal so in seeds that are text).
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        let byte = self.byte();
        let n = if byte >= b'0' { byte - b'0' } else { byte };
        all[n as usize % all.len()]
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Changes bytes in one of a few ways; says whether they are different now.
pub fn mutate(bytes: &mut Vec<u8>, choices: &mut Choices<'_>) -> bool {
    let before = bytes.clone();
    let at = choices.u16() as usize % (bytes.len() + 1);
    match choices.byte() % 5 {
        0 => bytes.truncate(at),
        1 if at < bytes.len() => bytes[at] ^= choices.byte(),
        2 => {
            let n = choices.byte() as usize % 12;
            bytes.splice(at..at, choices.take(n).iter().copied());
        }
        3 => {
            let end = (at + 1 + choices.byte() as usize % 12).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let n = choices.byte() as usize % 12;
            let new = choices.take(n);
            let end = (at + new.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&new[..end - at]);
        }
    }
    *bytes != before
}
