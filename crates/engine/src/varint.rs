//! The few primitives in which frames and checkpoints are written: LEB128 counts, little-endian numbers, bytes with a length.

/// Text that ends early or does not mean what it should, found while decoding.
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

/// How many bytes [`put_varint`] writes.
#[inline]
pub(crate) const fn varint_len(n: u64) -> usize {
    ((64 - (n | 1).leading_zeros()) as usize).div_ceil(7)
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[inline]
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

#[inline]
pub(crate) fn take<'a>(from: &mut &'a [u8], n: usize) -> Result<&'a [u8], DecodeError> {
    let (taken, rest) = from.split_at_checked(n).ok_or(undecodable("a field that is cut"))?;
    *from = rest;
    Ok(taken)
}

#[inline]
pub(crate) fn take_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let n = usize::try_from(take_varint(from)?).map_err(|_| undecodable("a length"))?;
    take(from, n)
}

pub(crate) fn take_str<'a>(from: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(take_bytes(from)?).map_err(|_| undecodable("text that is not UTF-8"))
}

#[inline]
pub(crate) fn take_array<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (taken, rest) = from.split_first_chunk::<N>().ok_or(undecodable("a number that is cut"))?;
    *from = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back() {
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            assert_eq!(out.len(), varint_len(n), "{n}");
            let mut rest = &out[..];
            assert_eq!(take_varint(&mut rest), Ok(n));
            assert!(rest.is_empty());
        }
        assert!(take_varint(&mut &[0x80, 0x80][..]).is_err(), "cut");
        assert!(take_bytes(&mut &[200, 1, 5][..]).is_err(), "shorter than its length");
    }
}
