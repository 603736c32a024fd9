//! From a file as it was sent to plain UTF-8: gzip and zstd unpacked, UTF-16 and byte order marks gone.

use std::io::{self, BufReader, ErrorKind, Read, Write};

const PIECE: usize = 64 << 10;

/// What [`unpack`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes written.
    pub bytes: u64,
    /// Whether the file was packed.
    pub packed: bool,
}

/// Why a file could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The packed data are cut or damaged.
    #[error("the {format} data are cut or damaged: {source}")]
    Damaged {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// What the decoder says.
        source: io::Error,
    },
    /// More bytes come out than are allowed; what was written is to be thrown away.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Text that says it is UTF-16 and is not.
    #[error("not UTF-16 at byte {at}")]
    NotUtf16 {
        /// The byte of the unpacked file, from 1.
        at: u64,
    },
    /// The file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes the plain text of a file to `out`: gzip (several members too) and zstd by their first bytes, UTF-16 by its byte
/// order mark, which is left out as that of UTF-8 is. Other bytes pass as they are.
///
/// Memory: 64 KiB, and for zstd its window of at most 128 MiB.
///
/// # Errors
/// Packed data that are cut or damaged, more than `limit` bytes of text, or a read or write that fails.
pub fn unpack(raw: impl Read, limit: u64, out: &mut impl Write) -> Result<Unpacked, UnpackError> {
    let mut raw = BufReader::with_capacity(PIECE, raw);
    let mut start = [0; 4];
    let n = read_up_to(&mut raw, &mut start)?;
    let whole = (&start[..n]).chain(raw);
    let mut text = Text { limit, written: 0, seen: 0, encoding: Encoding::Unknown, pending: Vec::new(), out };
    let packed = if start[..n].starts_with(&[0x1f, 0x8b]) {
        text.copy(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(PIECE, whole)), Some("gzip"))?;
        true
    } else if n == 4 && (start == [0x28, 0xb5, 0x2f, 0xfd] || (start[0] & 0xf0 == 0x50 && start[1..] == [0x2a, 0x4d, 0x18])) {
        let decoder = zstd::stream::read::Decoder::new(whole).map_err(|source| UnpackError::Damaged { format: "zstd", source })?;
        text.copy(decoder, Some("zstd"))?;
        true
    } else {
        text.copy(whole, None)?;
        false
    };
    Ok(Unpacked { bytes: text.written, packed })
}

fn read_up_to(reader: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < into.len() {
        match reader.read(&mut into[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Unknown,
    Utf8,
    Utf16 { big_endian: bool },
}

struct Text<'o, W> {
    limit: u64,
    written: u64,
    /// Unpacked bytes that were decoded.
    seen: u64,
    encoding: Encoding,
    /// Bytes of a mark or of UTF-16 that is not complete yet.
    pending: Vec<u8>,
    out: &'o mut W,
}

impl<W: Write> Text<'_, W> {
    fn copy(&mut self, mut from: impl Read, packed: Option<&'static str>) -> Result<(), UnpackError> {
        let mut piece = vec![0; PIECE];
        loop {
            let n = match (read_up_to(&mut from, &mut piece), packed) {
                (Ok(n), _) => n,
                (Err(source), Some(format)) => return Err(UnpackError::Damaged { format, source }),
                (Err(error), None) => return Err(error.into()),
            };
            self.put(&piece[..n], n < PIECE)?;
            if n < PIECE {
                return Ok(());
            }
        }
    }

    fn put(&mut self, piece: &[u8], last: bool) -> Result<(), UnpackError> {
        let mut piece = piece;
        if self.encoding == Encoding::Unknown {
            // Pieces are full but for the last, so the mark is whole.
            let (encoding, mark) = match piece {
                [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
                [0xff, 0xfe, ..] => (Encoding::Utf16 { big_endian: false }, 2),
                [0xfe, 0xff, ..] => (Encoding::Utf16 { big_endian: true }, 2),
                _ => (Encoding::Utf8, 0),
            };
            self.encoding = encoding;
            self.seen += mark as u64;
            piece = &piece[mark..];
        }
        match self.encoding {
            Encoding::Utf16 { big_endian } => self.put_utf16(piece, big_endian, last),
            _ => self.write(piece),
        }
    }

    fn put_utf16(&mut self, piece: &[u8], big_endian: bool, last: bool) -> Result<(), UnpackError> {
        let mut bytes = std::mem::take(&mut self.pending);
        bytes.extend_from_slice(piece);
        let unit = |pair: &[u8; 2]| if big_endian { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) };
        let (mut pairs, mut odd) = bytes.as_chunks::<2>();
        let halved = pairs.last().map(unit).is_some_and(|unit| (0xd800..0xdc00).contains(&unit));
        if halved && !last {
            odd = &bytes[pairs.len() * 2 - 2..];
            pairs = &pairs[..pairs.len() - 1];
        }
        let mut text = String::with_capacity(pairs.len() + pairs.len() / 2);
        for c in char::decode_utf16(pairs.iter().map(unit)) {
            let c = c.map_err(|_| UnpackError::NotUtf16 { at: self.seen + 1 })?;
            self.seen += 2 * c.len_utf16() as u64;
            text.push(c);
        }
        if last && !odd.is_empty() {
            return Err(UnpackError::NotUtf16 { at: self.seen + 1 });
        }
        self.pending = odd.to_vec();
        self.write(text.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), UnpackError> {
        self.written += bytes.len() as u64;
        if self.written > self.limit {
            return Err(UnpackError::TooLarge { limit: self.limit });
        }
        Ok(self.out.write_all(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zst(bytes: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(bytes, 3).unwrap()
    }

    fn utf16(text: &str, big_endian: bool) -> Vec<u8> {
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        units.flat_map(|unit: u16| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    }

    fn plain(raw: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        unpack(raw, 1 << 20, &mut out).map(|unpacked| assert_eq!(unpacked.bytes as usize, out.len())).map_err(|e| e.to_string())?;
        Ok(out)
    }

    #[test]
    fn packed_and_marked_files_become_plain_text() {
        let text = "metric,value\ntempérature 😀,1\n".repeat(5000);
        let (head, tail) = text.as_bytes().split_at(1001);
        let marked = [b"\xef\xbb\xbf", text.as_bytes()].concat();
        for (what, raw) in [
            ("plain", text.as_bytes().to_vec()),
            ("bom", marked.clone()),
            ("gzip", gz(text.as_bytes())),
            ("gzip, several members", [gz(head), gz(tail)].concat()),
            ("zstd", zst(text.as_bytes())),
            ("zstd, several frames", [zst(head), zst(tail)].concat()),
            ("utf-16 le", utf16(&text, false)),
            ("utf-16 be", utf16(&text, true)),
            ("utf-16 in gzip", gz(&utf16(&text, false))),
            ("bom in zstd", zst(&marked)),
        ] {
            assert!(plain(&raw).unwrap() == text.as_bytes(), "{what}");
        }
        assert_eq!((plain(b""), plain(b"x"), plain(b"\x1f"), plain(&gz(b""))), (Ok(vec![]), Ok(b"x".to_vec()), Ok(vec![0x1f]), Ok(vec![])));
    }

    #[test]
    fn pairs_of_surrogates_may_lie_across_pieces() {
        for shift in 0..4 {
            let text = "x".repeat(shift) + &"😀".repeat(40_000);
            assert!(plain(&utf16(&text, false)).unwrap() == text.as_bytes());
        }
        assert_eq!(plain(b"\xff\xfea\0\x00\xd8"), Err("not UTF-16 at byte 5".into()));
        assert_eq!(plain(b"\xff\xfea\0b"), Err("not UTF-16 at byte 5".into()));
    }

    #[test]
    fn cut_and_damaged_files_are_errors() {
        let text: Vec<u8> = (0..50_000u32).flat_map(|i| format!("m,{},{i}\n", i.wrapping_mul(2_654_435_761) % 1000).into_bytes()).collect();
        for (format, packed) in [("gzip", gz(&text)), ("zstd", zst(&text))] {
            for cut in [1, 4, 8, 12, packed.len() / 2, packed.len() - 5] {
                let error = plain(&packed[..packed.len() - cut]).unwrap_err();
                assert!(error.starts_with(&format!("the {format} data are cut or damaged")), "{cut}: {error}");
            }
        }
        let mut wrong = gz(&text);
        let n = wrong.len();
        wrong[n - 5] ^= 1;
        assert!(plain(&wrong).is_err() && plain(b"\x1f\x8b\x08\x00noise and more noise").is_err());
        assert!(plain(&[gz(b"a"), b"junk".to_vec()].concat()).is_err());
    }

    #[test]
    fn the_limit_holds_for_what_comes_out() {
        for bomb in [gz(&vec![b' '; 5 << 20]), zst(&vec![b' '; 5 << 20])] {
            let mut out = Vec::new();
            assert!(matches!(unpack(&bomb[..], 1 << 20, &mut out), Err(UnpackError::TooLarge { limit: 1_048_576 })));
            assert!(out.len() <= 1 << 20);
        }
        assert!(unpack(&[b'x'; 100][..], 100, &mut Vec::new()).is_ok());
        assert!(unpack(&[b'x'; 101][..], 100, &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0usize..5) {
            let start: &[u8] = [&b""[..], b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"\xfe\xff"][kind];
            bytes.splice(0..0, start.iter().copied());
            let _ = unpack(&bytes[..], 10_000, &mut Vec::new());
        }
    }
}
