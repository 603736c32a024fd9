//! The tokens of JSON (RFC 8259), borrowed from a text.

use std::borrow::Cow;

use super::decimal::Decimal;

/// Text that is not JSON, at a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) at: usize,
    pub(super) expected: &'static str,
}

/// A place in a text, and the tokens from there on.
///
/// Where a method fails the place does not matter any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexer<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

/// A string as it stands in the text, known to be valid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    /// What stands between the quotes.
    raw: &'a str,
    is_escaped: bool,
}

impl<'a> Text<'a> {
    /// What it means.
    #[inline]
    pub(super) fn unescape(self) -> Cow<'a, str> {
        if self.is_escaped { Cow::Owned(self.unescape_slowly()) } else { Cow::Borrowed(self.raw) }
    }

    #[cold]
    fn unescape_slowly(self) -> String {
        let mut meaning = String::with_capacity(self.raw.len());
        let mut lexer = Lexer::new(self.raw);
        while let Some(byte) = lexer.peek() {
            if byte == b'\\' {
                lexer.at += 1;
                // The escapes were validated when the string was read.
                meaning.extend(lexer.escape().ok());
            } else {
                let plain = plain_len(&self.raw.as_bytes()[lexer.at..]).max(1);
                meaning.push_str(&self.raw[lexer.at..lexer.at + plain]);
                lexer.at += plain;
            }
        }
        meaning
    }
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn fault(&self, expected: &'static str) -> Syntax {
        Syntax { at: self.at, expected }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space; whether there was some.
    #[inline]
    pub(super) fn space(&mut self) -> bool {
        let start = self.at;
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
        self.at > start
    }

    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// A string, its opening quote included.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Result<Text<'a>, Syntax> {
        if !self.take(b'"') {
            return Err(self.fault("a string"));
        }
        let start = self.at;
        self.at += plain_len(&self.text.as_bytes()[start..]);
        let is_escaped = self.peek() != Some(b'"');
        if is_escaped {
            self.rest_of_string()?;
        }
        self.at += 1;
        Ok(Text { raw: &self.text[start..self.at - 1], is_escaped })
    }

    /// Goes on from the first escape of a string to its closing quote.
    #[cold]
    fn rest_of_string(&mut self) -> Result<(), Syntax> {
        loop {
            match self.peek() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                _ => return Err(self.fault("the end of a string (control characters must be escaped)")),
            }
            self.at += plain_len(&self.text.as_bytes()[self.at..]);
        }
    }

    fn escape(&mut self) -> Result<char, Syntax> {
        let escape = self.peek().ok_or(self.fault("an escape"))?;
        let c = match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.fault("an escape")),
        };
        self.at += 1;
        Ok(c)
    }

    fn unicode_escape(&mut self) -> Result<char, Syntax> {
        let lone = "a surrogate pair, not half of one";
        let first = self.hex4()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !(self.take(b'\\') && self.take(b'u')) {
                    return Err(self.fault(lone));
                }
                let second = self.hex4()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(self.fault(lone));
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            code => code,
        };
        char::from_u32(code).ok_or(self.fault(lone))
    }

    fn hex4(&mut self) -> Result<u32, Syntax> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16)).ok_or(self.fault("four hexadecimal digits"))?;
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    /// A number, and its text.
    #[inline(always)]
    pub(super) fn number(&mut self) -> Result<(Decimal, &'a str), Syntax> {
        let start = self.at;
        let (decimal, length) = Decimal::scan_json(&self.text.as_bytes()[start..]).ok_or(self.fault("a value"))?;
        self.at += length;
        Ok((decimal, &self.text[start..self.at]))
    }

    /// `true`, `false` or `null`, whole.
    pub(super) fn word(&mut self, word: &'static str) -> Result<(), Syntax> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("a value"));
        }
        self.at += word.len();
        Ok(())
    }
}

/// How many bytes of a string come before its next quote, backslash or control character; eight at a time.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let equal = |byte: u64| {
            let difference = word ^ (ONES * byte);
            difference.wrapping_sub(ONES) & !difference
        };
        let found = (equal(u64::from(b'"')) | equal(u64::from(b'\\')) | (word.wrapping_sub(ONES * 0x20) & !word)) & HIGH;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + bytes[at..].iter().take_while(|&&b| b != b'"' && b != b'\\' && b >= 0x20).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings() {
        for (text, expected) in [
            (r#""""#, Some("")),
            (r#""abc""#, Some("abc")),
            (r#""a\"\\\/\b\f\n\r\t""#, Some("a\"\\/\u{8}\u{c}\n\r\t")),
            (r#""\u00e9\ud83d\ude00""#, Some("é😀")),
            (r#""é😀 and more than eight""#, Some("é😀 and more than eight")),
            (r#""\ud800""#, None),
            (r#""\ud800x""#, None),
            (r#""\udc00""#, None),
            (r#""\ud800\ud800""#, None),
            (r#""\x""#, None),
            (r#""\u12g4""#, None),
            ("\"a\nb\"", None),
            ("\"abc", None),
            ("\"abc\\", None),
        ] {
            assert_eq!(Lexer::new(text).string().ok().map(Text::unescape).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn eight_at_a_time_finds_what_one_at_a_time_finds(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(0x1f), Just(b'a'), Just(0x80), Just(0xa2)], 0..40)) {
            let simply = bytes.iter().take_while(|&&b| b != b'"' && b != b'\\' && b >= 0x20).count();
            prop_assert_eq!(plain_len(&bytes), simply);
        }
    }
}
