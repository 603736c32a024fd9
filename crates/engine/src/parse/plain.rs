//! The form in which nearly all events come, read in one straight pass.
//!
//! Known keys once each, strings without escapes, numbers without exponents, labels and meta without nesting. Whatever else
//! a text holds, right or wrong, it is left to the general reader in `json.rs`, which alone knows errors; a property test
//! holds the two against each other. It halves what parsing an event costs.

use super::decimal::Decimal;
use super::lexer::plain_len;

/// Labels beyond which the general reader takes over.
const LABELS: usize = 8;
/// Members of meta likewise.
const MEMBERS: usize = 8;
/// Digits that surely fit a mantissa.
const DIGITS: usize = 18;

/// An event in plain form, its parts where they stand in the text.
#[derive(Debug)]
pub(super) struct Plain<'a> {
    pub(super) metric: &'a str,
    pub(super) value: (Decimal, &'a str),
    /// A number of seconds, or text.
    pub(super) timestamp: Option<PlainTime<'a>>,
    pub(super) id: Option<&'a str>,
    /// Without white space.
    pub(super) meta: Option<&'a str>,
    labels: [(&'a str, &'a str); LABELS],
    n_labels: usize,
}

/// A timestamp in plain form.
#[derive(Clone, Copy, Debug)]
pub(super) enum PlainTime<'a> {
    Seconds(Decimal, &'a str),
    Text(&'a str),
}

impl<'a> Plain<'a> {
    pub(super) fn labels(&self) -> &[(&'a str, &'a str)] {
        &self.labels[..self.n_labels]
    }

    /// Reads a text that is one event and nothing else; `None` where it is not of the plain form.
    #[inline]
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let mut at = Place { text, bytes: text.as_bytes(), at: 0 };
        let (mut metric, mut value, mut timestamp, mut id, mut meta) = (None, None, None, None, None);
        let (mut labels, mut n_labels, mut has_labels) = ([("", ""); LABELS], 0, false);
        at.expect(b'{')?;
        loop {
            at.space();
            // A key that comes twice finds its place taken, and is left to the general reader.
            if at.key(b"\"timestamp\"") && timestamp.is_none() {
                at.colon()?;
                timestamp = Some(if at.peek() == b'"' {
                    PlainTime::Text(at.string()?)
                } else {
                    let (decimal, written) = at.number()?;
                    PlainTime::Seconds(decimal, written)
                });
            } else if at.key(b"\"metric\"") && metric.is_none() {
                at.colon()?;
                metric = Some(at.string()?);
            } else if at.key(b"\"value\"") && value.is_none() {
                at.colon()?;
                value = Some(at.number()?);
            } else if at.key(b"\"labels\"") && !has_labels {
                at.colon()?;
                (n_labels, has_labels) = (at.labels(&mut labels)?, true);
            } else if at.key(b"\"meta\"") && meta.is_none() {
                at.colon()?;
                meta = Some(at.flat_object()?);
            } else if at.key(b"\"id\"") && id.is_none() {
                at.colon()?;
                id = Some(at.string()?);
            } else {
                return None;
            }
            at.space();
            match at.next() {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        (at.at == text.len()).then_some(())?;
        Some(Self { metric: metric?, value: value?, timestamp, id, meta, labels, n_labels })
    }
}

/// A place in a text. Behind its end all bytes read as 0, which no rule takes.
struct Place<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Place<'a> {
    #[inline(always)]
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn next(&mut self) -> u8 {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next() == byte).then_some(())
    }

    #[inline(always)]
    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn colon(&mut self) -> Option<()> {
        self.space();
        self.expect(b':')?;
        self.space();
        Some(())
    }

    /// Takes a key with its quotes, if it is the one here.
    #[inline(always)]
    fn key(&mut self, key: &[u8]) -> bool {
        let found = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(key));
        self.at += if found { key.len() } else { 0 };
        found
    }

    /// A string without escapes.
    #[inline(always)]
    fn string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let start = self.at;
        self.at += plain_len(self.bytes.get(start..)?);
        let text = self.text.get(start..self.at)?;
        self.expect(b'"')?;
        Some(text)
    }

    /// A number without an exponent, of few enough digits.
    #[inline(always)]
    fn number(&mut self) -> Option<(Decimal, &'a str)> {
        let start = self.at;
        let negative = self.peek() == b'-';
        self.at += usize::from(negative);
        let (whole, mut mantissa) = (self.at, 0u64);
        self.digits(&mut mantissa);
        let mut digits = self.at - whole;
        if digits == 0 || digits > 1 && self.bytes[whole] == b'0' {
            return None;
        }
        let mut fraction = 0;
        if self.peek() == b'.' {
            self.at += 1;
            let first = self.at;
            self.digits(&mut mantissa);
            fraction = self.at - first;
            digits += fraction;
            if fraction == 0 {
                return None;
            }
        }
        if digits > DIGITS || matches!(self.peek(), b'e' | b'E') {
            return None;
        }
        Some((Decimal::of_digits(negative, mantissa, fraction as i32), self.text.get(start..self.at)?))
    }

    #[inline(always)]
    fn digits(&mut self, mantissa: &mut u64) {
        while let digit @ 0..=9 = self.peek().wrapping_sub(b'0') {
            // More digits than fit are refused by their count.
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
    }

    /// An object of strings, their names different.
    fn labels(&mut self, labels: &mut [(&'a str, &'a str); LABELS]) -> Option<usize> {
        self.expect(b'{')?;
        let mut n = 0;
        loop {
            self.space();
            let name = self.string()?;
            self.colon()?;
            let value = self.string()?;
            if n == LABELS || labels[..n].iter().any(|(known, _)| *known == name) {
                return None;
            }
            labels[n] = (name, value);
            n += 1;
            self.space();
            match self.next() {
                b',' => {}
                b'}' => return Some(n),
                _ => return None,
            }
        }
    }

    /// An object of strings, numbers and words, without white space, its keys different: its text.
    fn flat_object(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.expect(b'{')?;
        let (mut keys, mut n) = ([""; MEMBERS], 0);
        loop {
            let key = self.string()?;
            if n == MEMBERS || keys[..n].contains(&key) {
                return None;
            }
            keys[n] = key;
            n += 1;
            self.expect(b':')?;
            match self.peek() {
                b'"' => _ = self.string()?,
                b't' if self.key(b"true") => {}
                b'f' if self.key(b"false") => {}
                b'n' if self.key(b"null") => {}
                _ => _ = self.number()?,
            }
            match self.next() {
                b',' => {}
                b'}' => return self.text.get(start..self.at),
                _ => return None,
            }
        }
    }
}
