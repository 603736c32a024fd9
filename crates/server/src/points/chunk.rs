//! A chunk: some points of one series, in columns, each written as the difference from what the columns before suggest.
//!
//! ```text
//! chunk   = length of columns u32 (0: not compressed) · columns
//! columns = count of points varint · k f64 · ratio f64 · timestamps · verdicts · counts · 8 × words
//! ```
//! Timestamps are zigzag varints of the second difference, counts of the first. A word is a f64's bits xor those of its
//! prediction: the value, mean and deviation before it; the mean for `expected`; mean ± k·deviation for the band; value, mean
//! and deviation for `z_score`; ratio·|z| for `strength`. Words of a column are written byte by byte, so that zeros meet.

use anomaly_engine::Timestamp;
use zstd::bulk::{Compressor, Decompressor};

use super::{Point, Verdict};

/// Fewer points than this are not worth compressing.
const COMPRESSED_FROM: usize = 16;
const HAS_Z: u8 = 0x80;
const COLUMNS: usize = 8;
/// What buffers keep: a burst of one series must not stay.
const KEPT_BYTES: usize = 1 << 20;
/// More than any chunk of ours takes: a damaged length must not allocate.
const MAX_BYTES: usize = 1 << 22;

/// Encodes points; keeps its buffers.
pub(crate) struct Encoder {
    compressor: Option<Compressor<'static>>,
    columns: Vec<u8>,
    words: Vec<[u64; COLUMNS]>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { compressor: Compressor::new(1).ok(), columns: Vec::new(), words: Vec::new() }
    }

    pub(crate) fn encode(&mut self, points: &[Point]) -> Vec<u8> {
        self.columns.clear();
        let out = &mut self.columns;
        put(out, points.len() as u64);
        let shape = Shape::of(points);
        out.extend_from_slice(&shape.k.to_le_bytes());
        out.extend_from_slice(&shape.ratio.to_le_bytes());
        let (mut last, mut step) = (0i64, 0i64);
        for point in points {
            let now = point.timestamp.nanos();
            let next = now.wrapping_sub(last);
            put(out, zigzag(next.wrapping_sub(step)));
            (last, step) = (now, next);
        }
        out.extend(points.iter().map(|point| point.verdict as u8 | if point.z_score.is_some() { HAS_Z } else { 0 }));
        let mut last = 0;
        for point in points {
            put(out, zigzag((point.count as i64).wrapping_sub(last)));
            last = point.count as i64;
        }
        self.words.clear();
        let mut before = [0.0; 3];
        for point in points {
            let mut words = bits(point);
            let predicted = shape.predict(point, before);
            words.iter_mut().zip(predicted).for_each(|(word, predicted)| *word ^= predicted.to_bits());
            self.words.push(words);
            before = [point.value, point.mean, point.stddev];
        }
        let n = points.len();
        for column in 0..COLUMNS {
            let start = out.len();
            out.resize(start + 8 * n, 0);
            let bytes = &mut out[start..];
            // Most words of most columns are as predicted.
            for (i, words) in self.words.iter().enumerate().filter(|(_, words)| words[column] != 0) {
                for (row, byte) in words[column].to_be_bytes().into_iter().enumerate() {
                    bytes[row * n + i] = byte;
                }
            }
        }
        let compressed = (points.len() >= COMPRESSED_FROM).then(|| self.compressor.as_mut()?.compress(&self.columns).ok()).flatten();
        let (length, body) = compressed.as_ref().map_or((0, &self.columns), |compressed| (self.columns.len() as u32, compressed));
        let mut chunk = Vec::with_capacity(4 + body.len());
        chunk.extend_from_slice(&length.to_le_bytes());
        chunk.extend_from_slice(body);
        self.columns.shrink_to(KEPT_BYTES);
        self.words.shrink_to(KEPT_BYTES / size_of::<[u64; COLUMNS]>());
        chunk
    }
}

/// Decodes chunks; keeps what zstd works with, which takes longer to make than a small chunk to unpack.
pub(crate) struct Decoder(Option<Decompressor<'static>>);

impl Decoder {
    pub(crate) fn new() -> Self {
        Self(Decompressor::new().ok())
    }

    /// The points of a chunk; `None` where it is none.
    pub(crate) fn decode(&mut self, chunk: &[u8]) -> Option<Vec<Point>> {
        let (length, body) = chunk.split_first_chunk::<4>()?;
        match u32::from_le_bytes(*length) as usize {
            0 => points_of(body),
            length if length > MAX_BYTES => None,
            length => points_of(&self.0.as_mut()?.decompress(body, length).ok()?),
        }
    }
}

/// The points of a chunk that is read by itself; `None` where it is none.
pub(super) fn decode(chunk: &[u8]) -> Option<Vec<Point>> {
    Decoder::new().decode(chunk)
}

/// The points of unpacked columns.
fn points_of(mut rest: &[u8]) -> Option<Vec<Point>> {
    let n = usize::try_from(take(&mut rest)?).ok().filter(|&n| n <= MAX_BYTES / 64)?;
    let shape = Shape { k: take_f64(&mut rest)?, ratio: take_f64(&mut rest)? };
    let mut timestamps = Vec::with_capacity(n);
    let (mut last, mut step) = (0i64, 0i64);
    for _ in 0..n {
        step = step.wrapping_add(unzigzag(take(&mut rest)?));
        last = last.wrapping_add(step);
        timestamps.push(last);
    }
    let verdicts = rest.split_off(..n)?;
    let mut counts = Vec::with_capacity(n);
    let mut last = 0i64;
    for _ in 0..n {
        last = last.wrapping_add(unzigzag(take(&mut rest)?));
        counts.push(last as u64);
    }
    if rest.len() != n * COLUMNS * 8 {
        return None;
    }
    let word = |column: usize, i: usize| {
        let at = column * 8 * n + i;
        (0..8).fold(0, |word, byte| word << 8 | u64::from(rest[at + byte * n]))
    };
    let mut before = [0.0; 3];
    let mut points = Vec::with_capacity(n);
    for i in 0..n {
        let mut point = Point {
            timestamp: Timestamp::from_nanos(timestamps[i]),
            value: 0.0,
            verdict: verdict(verdicts[i] & !HAS_Z)?,
            count: counts[i],
            mean: 0.0,
            stddev: 0.0,
            expected: 0.0,
            lower: 0.0,
            upper: 0.0,
            z_score: None,
            strength: 0.0,
        };
        // In the order of the columns: each prediction uses those before it.
        let value = |column: usize, predicted: f64| f64::from_bits(word(column, i) ^ predicted.to_bits());
        point.value = value(0, before[0]);
        point.mean = value(1, before[1]);
        point.stddev = value(2, before[2]);
        point.expected = value(3, point.mean);
        point.upper = value(4, shape.upper(&point));
        point.lower = value(5, lower(&point));
        let z = value(6, z(&point));
        point.z_score = (verdicts[i] & HAS_Z != 0).then_some(z);
        point.strength = value(7, shape.strength(z));
        before = [point.value, point.mean, point.stddev];
        points.push(point);
    }
    Some(points)
}

/// What the band and the strength of a chunk have in common, so that most words are zero.
#[derive(Clone, Copy)]
struct Shape {
    k: f64,
    ratio: f64,
}

impl Shape {
    fn of(points: &[Point]) -> Self {
        let typical = points.iter().find(|point| point.stddev > 0.0 && point.strength > 0.0);
        typical.map_or(Self { k: 0.0, ratio: 0.0 }, |point| Self {
            k: finite((point.upper - point.mean) / point.stddev),
            ratio: finite(point.strength / point.z_score.unwrap_or(0.0).abs()),
        })
    }

    fn predict(self, point: &Point, before: [f64; 3]) -> [f64; COLUMNS] {
        let strength = self.strength(point.z_score.unwrap_or_else(|| z(point)));
        [before[0], before[1], before[2], point.mean, self.upper(point), lower(point), z(point), strength]
    }

    fn upper(self, point: &Point) -> f64 {
        finite(point.mean + self.k * point.stddev)
    }

    fn strength(self, z: f64) -> f64 {
        finite(z.abs() * self.ratio)
    }
}

fn lower(point: &Point) -> f64 {
    finite(point.mean - (point.upper - point.mean))
}

fn z(point: &Point) -> f64 {
    finite((point.value - point.mean) / point.stddev)
}

/// Predictions are plain numbers: the bits of a NaN differ between machines.
fn finite(x: f64) -> f64 {
    if x.is_finite() { x } else { 0.0 }
}

fn bits(point: &Point) -> [u64; COLUMNS] {
    // An absent z is written as its prediction, a word of zero.
    let z = point.z_score.unwrap_or_else(|| z(point));
    [point.value, point.mean, point.stddev, point.expected, point.upper, point.lower, z, point.strength].map(f64::to_bits)
}

fn verdict(byte: u8) -> Option<Verdict> {
    [Verdict::Normal, Verdict::Anomaly, Verdict::Critical, Verdict::TooFew, Verdict::Late]
        .into_iter()
        .find(|&verdict| verdict as u8 == byte)
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for i in 0..10 {
        let byte = *from.split_off_first()?;
        n |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

fn take_f64(from: &mut &[u8]) -> Option<f64> {
    let (bytes, rest) = from.split_first_chunk::<8>()?;
    *from = rest;
    Some(f64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{judged, point};
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_bit_by_bit() {
        let mut encoder = Encoder::new();
        let mut points: Vec<_> = (0..600).map(|i| judged(i, 50.0 + (i as f64 * 0.7).sin())).collect();
        points[3].z_score = None;
        points[4] = Point { z_score: Some(-0.0), value: f64::MAX, upper: f64::INFINITY, lower: f64::NEG_INFINITY, ..points[4] };
        points[5] = Point { stddev: 0.0, z_score: None, timestamp: Timestamp::from_nanos(i64::MAX), count: u64::MAX, ..points[5] };
        points[6] = Point { verdict: Verdict::Late, timestamp: Timestamp::from_nanos(i64::MIN), mean: -0.0, ..points[6] };
        let mut decoder = Decoder::new();
        for n in [0, 1, 5, 15, 16, 600] {
            let chunk = encoder.encode(&points[..n]);
            let decoded = decoder.decode(&chunk).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{:?}", &points[..n]));
            assert!((0..chunk.len()).all(|cut| decoder.decode(&chunk[..cut]).is_none()) || n == 0);
        }
    }

    #[test]
    fn a_judged_point_takes_less_than_thirty_bytes() {
        let points: Vec<_> = (0..512).map(|i| judged(i, 50.0 + (i as f64 * 0.7).sin())).collect();
        let bytes = Encoder::new().encode(&points).len();
        assert!(bytes < 30 * 512, "{bytes}");
        let constant: Vec<_> = (0..512).map(|i| point(i, 1.0)).collect();
        assert!(Encoder::new().encode(&constant).len() < 512);
    }
}
