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
}

/// A timestamp in plain form.
#[derive(Clone, Copy, Debug)]
pub(super) enum PlainTime<'a> {
    Seconds(Decimal, &'a str),
    Text(&'a str),
}

impl<'a> Plain<'a> {
    /// Reads a text that is one event and nothing else, its labels into `labels`; `None` where it is not of the plain form.
    #[inline]
    pub(super) fn read(text: &'a str, labels: &mut Vec<(&'a str, &'a str)>) -> Option<Self> {
        let mut at = Place { text, bytes: text.as_bytes(), at: 0 };
        let (mut metric, mut value, mut timestamp, mut id, mut meta) = (None, None, None, None, None);
        let mut has_labels = false;
        labels.clear();
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
                at.labels(labels)?;
                has_labels = true;
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
        Some(Self { metric: metric?, value: value?, timestamp, id, meta })
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
            let name = self.string()?;
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

const TENS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

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
