//! The form in which nearly all events come, read in one straight pass.
//!
//! Known keys once each, strings without escapes, numbers without exponents, labels and meta without nesting, and nothing
//! wrong with any of it. Whatever else a text holds, right or wrong, is left to the general reader in `json.rs`, which alone
//! knows errors; a property test holds the two against each other. It halves what parsing an event costs.

use super::lexer::plain_len;
use super::time::{Forms, WrittenTime, parse_text};
use crate::event::{MAX_NAME_BYTES, is_metric};

/// Labels beyond which the general reader takes over.
const LABELS: usize = 8;
/// Members of meta likewise.
const MEMBERS: usize = 8;
/// Digits that surely fit a mantissa.
const DIGITS: usize = 18;

/// An event in plain form; its labels are beside it.
#[derive(Debug)]
pub(super) struct Plain<'a> {
    pub(super) metric: &'a str,
    pub(super) value: f64,
    pub(super) time: WrittenTime,
    pub(super) id: Option<&'a str>,
    /// Without white space.
    pub(super) meta: Option<&'a str>,
}

/// Where an event may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Where the text ends.
    Text,
    /// Where the first line ends; it may not go over it.
    Line,
}

impl<'a> Plain<'a> {
    /// Reads the event at the start of a text, its labels into `labels`, and returns how many bytes it takes, the line break
    /// included; `None` where it is not of the plain form.
    #[inline]
    pub(super) fn read(text: &'a str, end: End, forms: Forms, labels: &mut Vec<(&'a str, &'a str)>) -> Option<(Self, usize)> {
        let mut at = Place { text, bytes: text.as_bytes(), at: 0, end };
        let (mut metric, mut value, mut time, mut id, mut meta) = (None, None, None, None, None);
        let mut has_labels = false;
        labels.clear();
        at.expect(b'{')?;
        loop {
            at.space();
            // A key that comes twice finds its place taken, and is left to the general reader.
            match at.key()? {
                Key::Timestamp if time.is_none() => time = Some(at.time(forms)?),
                Key::Metric if metric.is_none() => metric = Some(at.string()?),
                Key::Value if value.is_none() => value = Some(at.number()?.to_f64()?),
                Key::Labels if !has_labels => {
                    at.labels(labels)?;
                    has_labels = true;
                }
                Key::Meta if meta.is_none() => meta = Some(at.flat_object()?),
                Key::Id if id.is_none() => id = Some(at.name()?),
                _ => return None,
            }
            at.space();
            match at.next() {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        at.end()?;
        let metric = metric.filter(|metric| is_metric(metric))?;
        Some((Self { metric, value: value?, time: time.unwrap_or(WrittenTime::Absent), id, meta }, at.at))
    }
}

/// The keys of the plain form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Timestamp,
    Metric,
    Value,
    Labels,
    Meta,
    Id,
}

/// The first bytes of a text as a word, so that a key is compared at once.
const fn word(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let mut i = 0;
    while i < text.len() && i < 8 {
        bytes[i] = text[i];
        i += 1;
    }
    u64::from_le_bytes(bytes)
}

/// A number as it is written: `mantissa / 10^fraction`.
#[derive(Clone, Copy, Debug)]
struct Number {
    negative: bool,
    mantissa: u64,
    fraction: usize,
}

impl Number {
    /// The nearest f64; `None` where that takes more than one rounding of two exact numbers.
    #[inline(always)]
    fn to_f64(self) -> Option<f64> {
        (self.mantissa < 1 << 53).then_some(())?;
        let magnitude = self.mantissa as f64 / EXACT[self.fraction];
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// Seconds as nanoseconds.
    #[inline(always)]
    fn to_nanos(self) -> Option<i64> {
        let nanos = self.mantissa.checked_mul(*TENS.get(9usize.checked_sub(self.fraction)?)?)?;
        i64::try_from(nanos).ok().filter(|_| !self.negative)
    }
}

/// A place in a text. Behind its end all bytes read as 0, which no rule takes.
struct Place<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    end: End,
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
        while self.peek() <= b' ' && self.is_space(self.peek()) {
            self.at += 1;
        }
    }

    fn is_space(&self, byte: u8) -> bool {
        matches!(byte, b' ' | b'\t') || self.end == End::Text && matches!(byte, b'\n' | b'\r')
    }

    /// The end of the event, its line break taken.
    #[inline(always)]
    fn end(&mut self) -> Option<()> {
        if self.end == End::Line {
            self.at += usize::from(self.peek() == b'\r');
            if self.peek() == b'\n' {
                self.at += 1;
                return Some(());
            }
        }
        (self.at == self.bytes.len()).then_some(())
    }

    /// A known key and its colon. A text so short that no eight bytes are left is left to the general reader.
    #[inline(always)]
    fn key(&mut self) -> Option<Key> {
        let next = u64::from_le_bytes(*self.bytes.get(self.at..)?.first_chunk()?);
        let is = |key: &[u8]| (next ^ word(key)) << (64 - 8 * key.len().min(8)) == 0;
        let (key, length) = if is(b"\"metric\"") {
            (Key::Metric, 8)
        } else if is(b"\"timesta") && self.bytes[self.at + 8..].starts_with(b"mp\"") {
            (Key::Timestamp, 11)
        } else if is(b"\"value\"") {
            (Key::Value, 7)
        } else if is(b"\"labels\"") {
            (Key::Labels, 8)
        } else if is(b"\"meta\"") {
            (Key::Meta, 6)
        } else if is(b"\"id\"") {
            (Key::Id, 4)
        } else {
            return None;
        };
        self.at += length;
        self.colon()?;
        Some(key)
    }

    #[inline(always)]
    fn colon(&mut self) -> Option<()> {
        self.space();
        self.expect(b':')?;
        self.space();
        Some(())
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

    /// A string of 1–255 bytes.
    #[inline(always)]
    fn name(&mut self) -> Option<&'a str> {
        self.string().filter(|name| (1..=MAX_NAME_BYTES).contains(&name.len()))
    }

    #[inline(always)]
    fn time(&mut self, forms: Forms) -> Option<WrittenTime> {
        if self.peek() == b'"' { parse_text(self.string()?, forms).ok() } else { self.number()?.to_nanos().map(WrittenTime::Instant) }
    }

    /// A number without an exponent, of few enough digits.
    #[inline(always)]
    fn number(&mut self) -> Option<Number> {
        let negative = self.peek() == b'-';
        self.at += usize::from(negative);
        let (first, mut mantissa) = (self.at, 0u64);
        let leading_zero = self.peek() == b'0';
        self.digits(&mut mantissa);
        let mut digits = self.at - first;
        if digits == 0 || digits > 1 && leading_zero {
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
        Some(Number { negative, mantissa, fraction })
    }

    #[inline(always)]
    fn digits(&mut self, mantissa: &mut u64) {
        // Up to eight at a time, while that many bytes are left. More digits than fit are refused by their count.
        while let Some(chunk) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let (value, n) = leading_digits(*chunk);
            *mantissa = mantissa.wrapping_mul(TENS[n]).wrapping_add(value);
            self.at += n;
            if n < 8 {
                return;
            }
        }
        while let digit @ 0..=9 = self.peek().wrapping_sub(b'0') {
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
    }

    /// An object of strings, their names different.
    fn labels(&mut self, labels: &mut Vec<(&'a str, &'a str)>) -> Option<()> {
        self.expect(b'{')?;
        loop {
            self.space();
            let name = self.name()?;
            self.colon()?;
            let value = self.string()?;
            if labels.len() == LABELS || labels.iter().any(|(known, _)| *known == name) {
                return None;
            }
            labels.push((name, value));
            self.space();
            match self.next() {
                b',' => {}
                b'}' => return Some(()),
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
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => _ = self.number()?,
            }
            match self.next() {
                b',' => {}
                b'}' => return self.text.get(start..self.at),
                _ => return None,
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(word).then_some(())?;
        self.at += word.len();
        Some(())
    }
}

const TENS: [u64; 10] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];
const EXACT: [f64; DIGITS + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];

/// The number that the digits at the start of eight bytes make, and how many they are.
///
/// All eight at once in one word, as Lemire describes ("Quickly parsing eight digits", 2018).
#[inline(always)]
fn leading_digits(bytes: [u8; 8]) -> (u64, usize) {
    // A digit becomes 0–9; any other byte has, with or without six more, a bit in its upper half.
    let word = u64::from_le_bytes(bytes) ^ 0x3030_3030_3030_3030;
    let other = (word | (word & 0x7f7f_7f7f_7f7f_7f7f).wrapping_add(0x0606_0606_0606_0606)) & 0xf0f0_f0f0_f0f0_f0f0;
    let n = (other.trailing_zeros() / 8) as usize;
    if n == 0 {
        return (0, 0);
    }
    // The first digit is in the lowest byte: moved up, so that zeros stand before it.
    let digits = word << (64 - 8 * n);
    let pairs = (digits & 0x00ff_00ff_00ff_00ff) * 10 + ((digits >> 8) & 0x00ff_00ff_00ff_00ff);
    let fours = (pairs & 0x0000_ffff_0000_ffff) * 100 + ((pairs >> 16) & 0x0000_ffff_0000_ffff);
    ((fours & 0xffff_ffff) * 10_000 + (fours >> 32), n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn eight_digits_at_once_are_what_one_by_one_makes(text in "[0-9]{0,8}[^0-9]?.{8}") {
            let bytes = *text.as_bytes().first_chunk::<8>().unwrap();
            let digits: Vec<u8> = bytes.into_iter().take_while(u8::is_ascii_digit).collect();
            let value = digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
            prop_assert_eq!(leading_digits(bytes), (value, digits.len()));
        }
    }
}
