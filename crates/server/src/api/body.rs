//! Bodies of requests: read up to a limit, and unpacked up to another.

use std::io::Read;

use axum::body::{Body, Bytes};
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::BytesMut;
use http_body_util::BodyExt as _;

use crate::problem::Problem;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    /// What `Content-Encoding` says.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
        let (first, more) = (codings.next(), codings.next().is_some());
        let name = first.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase());
        match name.as_deref() {
            None | Some("" | "identity") if !more => Ok(Self::Identity),
            Some("gzip" | "x-gzip") if !more => Ok(Self::Gzip),
            Some("zstd") if !more => Ok(Self::Zstd),
            _ => {
                let detail = format!("Content-Encoding may be gzip or zstd, got {:?}", name.unwrap_or_default());
                let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail);
                Err(problem.header(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd")).closing())
            }
        }
    }

    /// The bytes unpacked. Blocks for as long as that takes.
    pub(super) fn unpack(self, packed: Bytes, limit: usize) -> Result<Bytes, Problem> {
        let unpacked = match self {
            Self::Identity => return Ok(packed),
            Self::Gzip => read_up_to(flate2::read::MultiGzDecoder::new(&packed[..]), limit),
            Self::Zstd => zstd::stream::read::Decoder::with_buffer(&packed[..]).and_then(|mut decoder| {
                // A frame may ask for a window of gigabytes; none needs more than the limit, or the 8 MiB that RFC 8878 expects.
                decoder.window_log_max(limit.max(8 << 20).next_power_of_two().ilog2().min(27))?;
                read_up_to(decoder, limit)
            }),
        };
        match unpacked {
            Ok(bytes) if bytes.len() > limit => Err(Problem::too_large("an unpacked batch", limit as u64)),
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => {
                Err(Problem::new(StatusCode::BAD_REQUEST, "damaged_encoding", format_args!("the {self:?} data are damaged: {error}")))
            }
        }
    }
}

fn read_up_to(reader: impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The length that a request announces.
pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The whole body, unless it has more than `limit` bytes: a body that announces more is not read at all.
pub(super) async fn read(request: Request<Body>, limit: usize, what: &str) -> Result<Bytes, Problem> {
    let announced = announced(request.headers());
    if announced.is_some_and(|n| n > limit as u64) {
        return Err(Problem::too_large(what, limit as u64));
    }
    let mut body = request.into_body();
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
        read += data.len();
        if read > limit {
            return Err(Problem::too_large(what, limit as u64));
        }
        // Most bodies come in one piece, which is then not copied.
        if read == data.len() {
            first = Some(data);
            continue;
        }
        if let Some(first) = first.take() {
            all.reserve(announced.map_or(read, |n| n as usize));
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&data);
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

/// A body that ended before its end, or of which nothing came for too long.
pub(super) fn cut(error: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "incomplete_body", format_args!("the body did not arrive: {error}")).closing()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(data).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn gzip_of_several_members_and_zstd_are_unpacked() {
        let members = [gzip(b"one\n"), gzip(b"two\n")].concat();
        assert_eq!(Coding::Gzip.unpack(members.into(), 100).unwrap(), "one\ntwo\n");
        let packed = zstd::encode_all(&b"three"[..], 3).unwrap();
        assert_eq!(Coding::Zstd.unpack(packed.into(), 100).unwrap(), "three");
    }

    #[test]
    fn an_exploding_body_is_413_and_a_damaged_one_400() {
        let bomb = gzip(&vec![b' '; 1 << 20]);
        assert_eq!(Coding::Gzip.unpack(bomb.into(), 1000).unwrap_err().status(), 413);
        let exact = gzip(&[b' '; 1000]);
        assert_eq!(Coding::Gzip.unpack(exact.clone().into(), 1000).unwrap().len(), 1000);
        let mut wrong = exact.clone();
        let n = wrong.len();
        wrong[n - 5] ^= 1;
        let packed = zstd::encode_all(&[b'x'; 5000][..], 3).unwrap();
        for (coding, bad) in [
            (Coding::Gzip, b"no gzip".to_vec()),
            (Coding::Gzip, exact[..n - 6].to_vec()),
            (Coding::Gzip, wrong),
            (Coding::Zstd, packed[..packed.len() - 3].to_vec()),
        ] {
            assert_eq!(coding.unpack(bad.into(), 10_000).unwrap_err().status(), 400);
        }
    }

    #[test]
    fn an_unknown_coding_is_415() {
        let of = |value: &'static str| Coding::of(&HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(value))]));
        assert_eq!((of("gzip").unwrap(), of(" ZSTD").unwrap(), of("identity").unwrap()), (Coding::Gzip, Coding::Zstd, Coding::Identity));
        assert_eq!(Coding::of(&HeaderMap::new()).unwrap(), Coding::Identity);
        for unknown in ["br", "gzip, gzip", "deflate"] {
            assert_eq!(of(unknown).unwrap_err().status(), 415, "{unknown}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_whole_or_refused() {
        let chunks = |parts: Vec<&'static str>| {
            let stream = futures_util::stream::iter(parts.into_iter().map(|part| Ok::<_, std::io::Error>(Bytes::from(part))));
            Request::new(Body::from_stream(stream))
        };
        assert_eq!(read(chunks(vec!["ab", "cd", "e"]), 5, "it").await.unwrap(), "abcde");
        assert_eq!(read(chunks(vec!["abc", "def"]), 5, "it").await.unwrap_err().status(), 413);
        assert_eq!(read(chunks(vec![]), 5, "it").await.unwrap(), "");
        let announced = Request::builder()
            .header("content-length", "6")
            .body(Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>()));
        assert_eq!(read(announced.unwrap(), 5, "it").await.unwrap_err().status(), 413, "without reading it");
    }
}
