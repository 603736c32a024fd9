//! A file as it was sent: any bytes, and packed ones that were damaged or not.
//!
//! The first two bytes choose: how the rest is packed, and how many changes come behind the packing.
#![no_main]

use std::io::{Read, Write};

use anomaly_engine::parse::{UnpackError, Unpacked, unpack};
use anomaly_fuzz::{Choices, mutate};
use libfuzzer_sys::fuzz_target;

const LIMIT: u64 = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let packing = choices.of(&[0, 1, 2, 3, 4, 5]);
    let changes = choices.of(&[0, 1, 2, 3]);
    let mut damage = Choices(choices.take(changes * 8));
    let plain = choices.rest();
    let mut raw = match packing {
        1 => gzip(plain),
        2 => zstd::stream::encode_all(plain, 1).unwrap(),
        3 => utf16(plain, false),
        4 => gzip(&utf16(plain, true)),
        5 => [gzip(&plain[..plain.len() / 2]), gzip(&plain[plain.len() / 2..])].concat(),
        _ => plain.to_vec(),
    };
    let mut changed = false;
    for _ in 0..changes {
        changed |= mutate(&mut raw, &mut damage);
    }
    let (result, out) = run(&raw[..]);
    let (slowly, again) = run(Slow(&raw));
    assert_eq!((result.is_ok(), &out), (slowly.is_ok(), &again), "in pieces");
    if let Ok(unpacked) = &result {
        assert_eq!(unpacked.bytes, out.len() as u64);
    }
    if changed || packing == 0 {
        return;
    }
    // What was packed whole comes out whole, but for a mark of its own.
    let text = match packing {
        3 | 4 => String::from_utf8_lossy(plain).into_owned().into_bytes(),
        _ => plain.to_vec(),
    };
    if text.len() as u64 <= LIMIT && !matches!(text.get(..2), Some(b"\xff\xfe" | b"\xfe\xff" | b"\xef\xbb")) {
        assert_eq!(out, text, "{result:?}");
        assert_eq!(result.unwrap().packed, packing != 3);
    }
});

fn run(raw: impl Read) -> (Result<Unpacked, UnpackError>, Vec<u8>) {
    let mut out = Vec::new();
    let result = unpack(raw, LIMIT, &mut out);
    assert!(out.len() as u64 <= LIMIT);
    assert!(!matches!(result, Err(UnpackError::Io(_))), "{result:?}");
    (result, out)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn utf16(bytes: &[u8], big_endian: bool) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let units = std::iter::once(0xfeff).chain(text.encode_utf16());
    units.flat_map(|unit: u16| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

/// Gives three bytes at a time.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = into.len().min(3);
        self.0.read(&mut into[..n])
    }
}
