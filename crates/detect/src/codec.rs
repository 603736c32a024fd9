//! The primitives in which states are written into checkpoints: LEB128 counts and little-endian numbers.

/// Bytes that end early or mean nothing, found while decoding a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be decoded")]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
}

/// An error for `what`.
pub(crate) const fn undecodable(what: &'static str) -> DecodeError {
    DecodeError { what }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub(crate) fn put_i64(out: &mut Vec<u8>, n: i64) {
    out.extend_from_slice(&n.to_le_bytes());
}

pub(crate) fn put_f64(out: &mut Vec<u8>, x: f64) {
    out.extend_from_slice(&x.to_bits().to_le_bytes());
}

pub(crate) fn take_array<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (taken, rest) = from.split_first_chunk::<N>().ok_or(undecodable("a number that is cut"))?;
    *from = rest;
    Ok(*taken)
}

pub(crate) fn take_byte(from: &mut &[u8]) -> Result<u8, DecodeError> {
    take_array::<1>(from).map(|[byte]| byte)
}

pub(crate) fn take_varint(from: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut n = 0u64;
    for (i, &byte) in from.iter().enumerate().take(10) {
        n |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *from = &from[i + 1..];
            return Ok(n);
        }
    }
    Err(undecodable("a count"))
}

/// A count of things that take at least `bytes_each` in what is left, so that a damaged count allocates nothing.
pub(crate) fn take_count(from: &mut &[u8], bytes_each: usize) -> Result<usize, DecodeError> {
    let n = usize::try_from(take_varint(from)?).map_err(|_| undecodable("a count"))?;
    if n.checked_mul(bytes_each).is_some_and(|bytes| bytes <= from.len()) { Ok(n) } else { Err(undecodable("a count beyond the end")) }
}

pub(crate) fn take_i64(from: &mut &[u8]) -> Result<i64, DecodeError> {
    take_array(from).map(i64::from_le_bytes)
}

pub(crate) fn take_f64(from: &mut &[u8]) -> Result<f64, DecodeError> {
    take_array(from).map(|bytes| f64::from_bits(u64::from_le_bytes(bytes)))
}

/// An f64 that must be finite: every value and every moment is.
pub(crate) fn take_finite(from: &mut &[u8]) -> Result<f64, DecodeError> {
    take_f64(from).and_then(|x| if x.is_finite() { Ok(x) } else { Err(undecodable("a number that is not finite")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back_and_damaged_ones_are_refused() {
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            let mut rest = &out[..];
            assert_eq!(take_varint(&mut rest), Ok(n));
            assert!(rest.is_empty());
        }
        assert!(take_varint(&mut &[0x80, 0x80][..]).is_err(), "cut");
        assert!(take_count(&mut &[200, 1, 5][..], 8).is_err(), "more than there is");
        assert!(take_finite(&mut &f64::NAN.to_bits().to_le_bytes()[..]).is_err());
    }
}
