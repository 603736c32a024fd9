//! The identity of a series: a metric and its sorted labels, as bytes and as text.
//!
//! As text it is `cpu_usage{dc="eu",host="a"}`. So that two series never share a name, a metric that holds `{`
//! is written inside the braces, as Prometheus does (`{"odd{metric",dc="eu"}`), and so is a label name that is not
//! a plain word (`cpu{"a b"="1"}`).

use xxhash_rust::xxh3::xxh3_128;

use crate::varint::{DecodeError, put_bytes, put_varint, take_str, take_varint, undecodable, varint_len};

/// The most labels that a series may have.
pub const MAX_LABELS: usize = 32;

/// The 128-bit hash of a series' key: its number in the log's admission, in shards and in the points store.
pub type SeriesHash = u128;

/// A series' identity in its canonical bytes: the metric, then the labels in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey(Box<[u8]>);

impl SeriesKey {
    /// The key of a metric and its labels, in any order.
    pub fn new(metric: &str, labels: &[(&str, &str)]) -> Self {
        let mut bytes = Vec::with_capacity(metric.len() + 2);
        write_key(&mut bytes, metric, labels);
        Self(bytes.into())
    }

    /// A key from bytes that [`SeriesKey::as_bytes`] gave.
    ///
    /// # Errors
    /// Bytes that are no key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        parts(bytes)?;
        Ok(Self(bytes.into()))
    }

    /// Reads a series' name as text, in the form in which it is written (spaces between labels are allowed).
    ///
    /// A text without braces is a metric without labels. Returns `None` where the text is no name of a series.
    pub fn parse(text: &str) -> Option<Self> {
        parse_name(text)
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The hash by which the log, the shards and the points store know this series.
    pub fn hash(&self) -> SeriesHash {
        xxh3_128(&self.0)
    }

    /// The metric.
    pub fn metric(&self) -> &str {
        parts(&self.0).map_or("", |(metric, _)| metric)
    }

    /// The labels, sorted by name.
    pub fn labels(&self) -> Vec<(&str, &str)> {
        parts(&self.0).map_or_else(|_| Vec::new(), |(_, labels)| labels)
    }

    /// The name as text; unique to the series.
    pub fn name(&self) -> String {
        let (metric, labels) = (self.metric(), self.labels());
        let mut name = String::with_capacity(self.0.len() + 16);
        let inside = metric.contains('{');
        if inside {
            name.push('{');
            push_quoted(&mut name, metric);
        } else {
            name.push_str(metric);
            if labels.is_empty() {
                return name;
            }
            name.push('{');
        }
        for (i, (label, value)) in labels.iter().enumerate() {
            if i > 0 || inside {
                name.push(',');
            }
            if is_word(label) {
                name.push_str(label);
            } else {
                push_quoted(&mut name, label);
            }
            name.push('=');
            push_quoted(&mut name, value);
        }
        name.push('}');
        name
    }
}

/// Appends the canonical bytes of a key to `out`; `labels` in any order, their names different.
#[inline]
pub(crate) fn write_key(out: &mut Vec<u8>, metric: &str, labels: &[(&str, &str)]) {
    put_bytes(out, metric.as_bytes());
    put_varint(out, labels.len() as u64);
    let mut put = |(name, value): &(&str, &str)| {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    };
    if labels.is_sorted_by(|a, b| a.0 <= b.0) {
        labels.iter().for_each(&mut put);
    } else {
        let mut sorted = labels.to_vec();
        sorted.sort_unstable();
        sorted.iter().for_each(&mut put);
    }
}

/// Appends the length of a key and the key to `out`, and returns where the key begins.
#[inline]
pub(crate) fn put_key(out: &mut Vec<u8>, metric: &str, labels: &[(&str, &str)]) -> usize {
    let text = |text: &str| varint_len(text.len() as u64) + text.len();
    let labels_len: usize = labels.iter().map(|(name, value)| text(name) + text(value)).sum();
    put_varint(out, (text(metric) + varint_len(labels.len() as u64) + labels_len) as u64);
    let start = out.len();
    write_key(out, metric, labels);
    start
}

/// A metric and its labels.
type Parts<'a> = (&'a str, Vec<(&'a str, &'a str)>);

fn parts(mut bytes: &[u8]) -> Result<Parts<'_>, DecodeError> {
    let metric = take_str(&mut bytes)?;
    let n = take_varint(&mut bytes)?;
    if n > MAX_LABELS as u64 {
        return Err(undecodable("a series with more than 32 labels"));
    }
    let mut labels = Vec::with_capacity(n as usize);
    for _ in 0..n {
        labels.push((take_str(&mut bytes)?, take_str(&mut bytes)?));
    }
    if bytes.is_empty() { Ok((metric, labels)) } else { Err(undecodable("a series key with bytes behind it")) }
}

fn is_word(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-/".contains(&b))
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
    out.push('"');
}

fn parse_name(text: &str) -> Option<SeriesKey> {
    let Some(open) = text.find('{') else {
        return (!text.is_empty()).then(|| SeriesKey::new(text, &[]));
    };
    let mut metric = text[..open].to_owned();
    let mut rest = text[open + 1..].trim_end().strip_suffix('}')?.trim();
    let mut labels: Vec<(String, String)> = Vec::new();
    if metric.is_empty() {
        metric = take_quoted(&mut rest)?;
        rest = rest.trim_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(',')?.trim_start();
        }
    }
    while !rest.is_empty() {
        let name = if rest.starts_with('"') {
            take_quoted(&mut rest)?
        } else {
            let (name, after) = rest.split_at(rest.find('=')?);
            rest = after;
            name.trim_end().to_owned()
        };
        rest = rest.trim_start().strip_prefix('=')?.trim_start();
        let value = take_quoted(&mut rest)?;
        if labels.iter().any(|(known, _)| *known == name) {
            return None;
        }
        labels.push((name, value));
        rest = rest.trim_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(',')?.trim_start();
        }
    }
    let borrowed: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    (!metric.is_empty() && borrowed.len() <= MAX_LABELS).then(|| SeriesKey::new(&metric, &borrowed))
}

fn take_quoted(rest: &mut &str) -> Option<String> {
    let inner = rest.strip_prefix('"')?;
    let mut text = String::new();
    let mut chars = inner.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => {
                *rest = &inner[i + 1..];
                return Some(text);
            }
            '\\' => match chars.next()?.1 {
                'n' => text.push('\n'),
                escaped @ ('"' | '\\') => text.push(escaped),
                _ => return None,
            },
            _ => text.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        let tricky: &[(&str, &[(&str, &str)])] = &[
            ("m", &[("a", "1")]),
            ("m{a=\"1\"}", &[]),
            ("m", &[("a", "1\",b=\"2")]),
            ("m", &[("a", "1"), ("b", "2")]),
            ("m", &[("a=\"1\",b", "2")]),
            ("m", &[("a", "1\n"), ("b", "2")]),
            ("m", &[("a", "1\\n"), ("b", "2")]),
            ("m", &[]),
            ("m", &[("a", "")]),
            ("m", &[("", "a")]),
            ("{\"m\"", &[]),
            ("m\"", &[("é ü", "{}")]),
        ];
        let keys: Vec<_> = tricky.iter().map(|(metric, labels)| SeriesKey::new(metric, labels)).collect();
        for (i, key) in keys.iter().enumerate() {
            assert_eq!(SeriesKey::parse(&key.name()).as_ref(), Some(key), "{}", key.name());
            assert!(keys[..i].iter().all(|other| other.name() != key.name() && other != key), "{}", key.name());
            assert_eq!((key.metric(), key.labels()), (tricky[i].0, tricky[i].1.to_vec()));
        }
        assert_eq!(keys[3].name(), r#"m{a="1",b="2"}"#);
    }

    #[test]
    fn the_order_of_labels_does_not_matter() {
        assert_eq!(SeriesKey::new("m", &[("b", "2"), ("a", "1")]), SeriesKey::new("m", &[("a", "1"), ("b", "2")]));
        assert_eq!(SeriesKey::parse(r#"m{ b="2", a = "1" }"#), Some(SeriesKey::new("m", &[("a", "1"), ("b", "2")])));
    }

    #[test]
    fn what_is_no_name_is_none() {
        for text in ["", "m{", "m{a}", "m{a=1}", "m{a=\"1\"", "{a=\"1\"}", "m{a=\"1\",a=\"2\"}", "m{a=\"\\x\"}"] {
            assert_eq!(SeriesKey::parse(text), None, "{text}");
        }
        assert!(SeriesKey::from_bytes(b"\x05ab").is_err());
    }
}
