//! The grammar of a JSON array of any size, in pieces.
//!
//! An array is refused as a whole where it is not JSON, so it is checked before its first element is taken. The scanner
//! does that without holding the array, and says where its elements begin and end.

use super::lexer::plain_len;

/// The most levels that the scanner can follow, one bit each. Beyond, the array is refused whatever it holds.
const MAX_SCANNED_LEVELS: usize = 1 << 23;

/// The words of JSON without their first letters.
const WORDS: &[u8] = b"rue alse ull ";

/// What a step has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An element begins with the byte before the place.
    Begin,
    /// An element has ended; the place is behind it.
    End,
    /// The piece is used up.
    More,
}

/// Text that is no JSON array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Reads an array of UTF-8 text piece by piece; pieces may end anywhere. Memory: one bit for each open level.
#[derive(Debug)]
pub(super) struct ArrayScanner {
    state: State,
    /// Whether each open level is an object.
    open: Vec<u64>,
    depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    /// Behind a value.
    Behind,
    Text {
        key: bool,
    },
    Escape {
        key: bool,
    },
    /// `left` digits of a `\u` are to come; `low` where it must be the second half of a pair.
    Hex {
        key: bool,
        left: u8,
        code: u16,
        low: bool,
    },
    /// Behind a first half of a pair: a backslash is to come, then a `u`.
    Pair {
        key: bool,
        backslash: bool,
    },
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// A letter of [`WORDS`] is to come, and what follows it up to the next space.
    Word {
        at: u8,
    },
    Done,
    Broken,
}

impl ArrayScanner {
    pub(super) fn new() -> Self {
        Self { state: State::Start, open: Vec::new(), depth: 0 }
    }

    /// A scanner that stands before an element of an array, not before the array.
    pub(super) fn at_element() -> Self {
        Self { state: State::Value, open: vec![0], depth: 1 }
    }

    /// Whether the array is complete, and nothing but white space has followed it.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Goes on in a piece from `at`, to the next begin or end of an element.
    ///
    /// # Errors
    /// At the byte at which this stops being JSON.
    pub(super) fn step(&mut self, piece: &[u8], at: &mut usize) -> Result<Step, Broken> {
        while *at < piece.len() {
            match self.state {
                State::Text { .. } => *at += plain_len(&piece[*at..]),
                State::Whole | State::Fraction => *at += piece[*at..].iter().take_while(|b| b.is_ascii_digit()).count(),
                _ => {}
            }
            let Some(&byte) = piece.get(*at) else { break };
            let (before, depth) = (self.state, self.depth);
            let Some(consumed) = self.take(byte) else {
                self.state = State::Broken;
                return Err(Broken);
            };
            *at += usize::from(consumed);
            // White space changes neither; the first element may be an array, which changes the depth alone.
            let moved = self.state != before || self.depth > depth;
            if depth == 1 && matches!(before, State::Value | State::ValueOrEnd) && moved && self.depth >= 1 {
                return Ok(Step::Begin);
            }
            if self.state == State::Behind && self.depth == 1 && (before != State::Behind || depth == 2) {
                return Ok(Step::End);
            }
        }
        Ok(Step::More)
    }

    /// Takes a byte, or only moves on (false) where it ended a number; `None` where it cannot stand here.
    #[inline]
    fn take(&mut self, byte: u8) -> Option<bool> {
        use State::{
            Behind, Colon, Done, Escape, Exponent, ExponentDigits, ExponentSign, Fraction, Hex, Key, KeyOrEnd, Minus, Pair, Point, Start,
            Text, Value, ValueOrEnd, Whole, Word, Zero,
        };
        let next = match (self.state, byte) {
            (Start | Value | ValueOrEnd | Key | KeyOrEnd | Colon | Behind | Done, b' ' | b'\t' | b'\n' | b'\r') => return Some(true),
            (Text { key }, b'"') => {
                if key {
                    Colon
                } else {
                    Behind
                }
            }
            (Text { key }, b'\\') => Escape { key },
            (Text { key }, 0x20..) => Text { key },
            (Behind, b',') => {
                if self.in_object() {
                    Key
                } else {
                    Value
                }
            }
            (Behind | KeyOrEnd, b'}') if self.in_object() => self.close(),
            (Behind | ValueOrEnd, b']') if !self.in_object() => self.close(),
            (Key | KeyOrEnd, b'"') => Text { key: true },
            (Colon, b':') => Value,
            (Start, b'[') => self.enter(false)?,
            (Value | ValueOrEnd, _) => self.value(byte)?,
            (Escape { key }, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Text { key },
            (Escape { key }, b'u') => Hex { key, left: 4, code: 0, low: false },
            (Hex { key, left, code, low }, _) => hex(key, left, code << 4 | char::from(byte).to_digit(16)? as u16, low)?,
            (Pair { key, backslash: false }, b'\\') => Pair { key, backslash: true },
            (Pair { key, backslash: true }, b'u') => Hex { key, left: 4, code: 0, low: true },
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Whole, b'0'..=b'9') => Whole,
            (Zero | Whole, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Whole | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            (Zero | Whole | Fraction | ExponentDigits, _) => {
                self.state = Behind;
                return Some(false);
            }
            (Word { at }, _) if WORDS[usize::from(at)] == byte => {
                if WORDS[usize::from(at) + 1] == b' ' {
                    Behind
                } else {
                    Word { at: at + 1 }
                }
            }
            _ => return None,
        };
        self.state = next;
        Some(true)
    }

    fn value(&mut self, byte: u8) -> Option<State> {
        Some(match byte {
            b'"' => State::Text { key: false },
            b'{' => self.enter(true)?,
            b'[' => self.enter(false)?,
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Whole,
            b't' => State::Word { at: 0 },
            b'f' => State::Word { at: 4 },
            b'n' => State::Word { at: 9 },
            _ => return None,
        })
    }

    fn in_object(&self) -> bool {
        let top = self.depth.wrapping_sub(1);
        self.open.get(top / 64).is_some_and(|bits| self.depth > 0 && bits >> (top % 64) & 1 == 1)
    }

    fn enter(&mut self, object: bool) -> Option<State> {
        if self.depth == MAX_SCANNED_LEVELS {
            return None;
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.open.len() {
            self.open.push(0);
        }
        self.open[word] = self.open[word] & !(1 << bit) | u64::from(object) << bit;
        self.depth += 1;
        Some(if object { State::KeyOrEnd } else { State::ValueOrEnd })
    }

    fn close(&mut self) -> State {
        self.depth -= 1;
        if self.depth == 0 { State::Done } else { State::Behind }
    }
}

/// The state behind a hexadecimal digit; `None` for half of a surrogate pair alone.
fn hex(key: bool, left: u8, code: u16, low: bool) -> Option<State> {
    if left > 1 {
        return Some(State::Hex { key, left: left - 1, code, low });
    }
    match (code, low) {
        (0xdc00..=0xdfff, true) => Some(State::Text { key }),
        (0xd800..=0xdbff, false) => Some(State::Pair { key, backslash: false }),
        (0xdc00..=0xdfff, false) | (_, true) => None,
        (_, false) => Some(State::Text { key }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The elements of an array given in pieces of `size` bytes.
    fn elements(text: &str, size: usize) -> Option<Vec<String>> {
        let (mut scanner, mut found, mut start) = (ArrayScanner::new(), Vec::new(), 0);
        for (i, piece) in text.as_bytes().chunks(size).enumerate() {
            let mut at = 0;
            loop {
                match scanner.step(piece, &mut at).ok()? {
                    Step::Begin => start = i * size + at - 1,
                    Step::End => found.push(text[start..i * size + at].to_owned()),
                    Step::More => break,
                }
            }
        }
        scanner.is_done().then_some(found)
    }

    #[test]
    fn elements_are_found_whatever_the_pieces() {
        let text = " [ {\"a\":[1,{\"b\":\"]\\\"\"}]},5 , \"x,y\",[ ],{ },true,-1.5e+3,null, \"\\ud83d\\ude00\" ] \n";
        let expected = ["{\"a\":[1,{\"b\":\"]\\\"\"}]}", "5", "\"x,y\"", "[ ]", "{ }", "true", "-1.5e+3", "null", "\"\\ud83d\\ude00\""];
        for size in 1..text.len() {
            assert_eq!(elements(text, size).unwrap(), expected, "{size}");
        }
        assert_eq!(elements("[]", 1), Some(vec![]));
        assert_eq!(elements("[[ ],1]", 1).unwrap(), ["[ ]", "1"], "the first may be an array");
        assert_eq!(elements(" [ [[1]]]", 3).unwrap(), ["[[1]]"]);
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for text in [
            "",
            "[",
            "{}",
            "5",
            "[1",
            "[1,]",
            "[,1]",
            "[1] x",
            "[][]",
            "[NaN]",
            "[1}",
            "[{\"a\":1]",
            "[{\"a\"}]",
            "[{\"a\":1,}]",
            "[01]",
            "[1.]",
            "[tru]",
            "[\"a\n\"]",
            "[\"\\ud800\"]",
            "[\"\\ud800\\n\"]",
            "[\"\\udc00\"]",
            "[{1:2}]",
            "[.5]",
            "[+1]",
            "[1 2]",
        ] {
            for size in [1, 2, 100] {
                assert_eq!(elements(text, size), None, "{text}");
            }
        }
    }

    #[test]
    fn depth_costs_a_bit_and_no_stack() {
        let text = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(elements(&text, 4096).unwrap().len(), 1);
        assert_eq!(elements(&text[..text.len() - 1], 4096), None);
        assert_eq!(elements(&"[".repeat(MAX_SCANNED_LEVELS + 1), 1 << 20), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn accepts_what_serde_json_accepts(text in "[\\[\\]{},:\"\\\\ua0d8 1.5e+tru-]{0,24}", size in 1usize..30) {
            let text = format!("[{text}");
            let theirs = serde_json::from_str::<Vec<serde_json::Value>>(&text);
            // serde_json refuses numbers beyond f64, which are JSON all the same.
            if theirs.as_ref().err().is_none_or(|e| !e.to_string().contains("out of range")) {
                prop_assert_eq!(elements(&text, size).map(|e| e.len()), theirs.ok().map(|v| v.len()), "{}", text);
            }
        }
    }
}
