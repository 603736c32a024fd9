//! One JSON event.
//!
//! A single pass over the text: the fields that count are kept as tokens, everything else is validated and left. Faults of
//! grammar win over faults of meaning, so `{"metric": 5, "value": NaN}` is no JSON.

use std::borrow::Cow;

use super::decimal::Decimal;
use super::lexer::{Lexer, Syntax, Text};
use super::plain::{End, Plain};
use super::time::{Forms, WrittenTime, epoch_seconds, parse_text};
use super::{MAX_LEVELS, check_metric, check_name, reject, shown};
use crate::rejection::{Code, Rejected};
use crate::series_key::MAX_LABELS;

/// An event as it is written, checked but for its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Draft<'a> {
    pub(super) metric: &'a str,
    pub(super) labels: &'a [(&'a str, &'a str)],
    pub(super) time: WrittenTime,
    pub(super) value: f64,
    pub(super) id: Option<&'a str>,
    pub(super) meta: Option<&'a str>,
}

/// Reads events; keeps its buffers from one to the next. Memory: that of the largest event.
#[derive(Debug)]
pub(super) struct EventReader<'a> {
    forms: Forms,
    /// What the fields of this event hold, by [`Field`].
    fields: [Token<'a>; FIELDS],
    /// The first fault of this event that is not one of grammar.
    fault: Option<Rejected>,
    labels: Vec<(Text<'a>, Text<'a>)>,
    /// Those of an event in plain form.
    plain_labels: Vec<(&'a str, &'a str)>,
    /// The keys of all open objects that are not known fields.
    keys: Vec<Cow<'a, str>>,
    /// Whether each open level is an object, and where its keys begin.
    open: Vec<(bool, usize)>,
}

#[derive(Clone, Copy, Debug)]
enum Token<'a> {
    Absent,
    Null,
    True,
    False,
    Text(Text<'a>),
    Number(Decimal, &'a str),
    Array,
    /// Its text, and whether it holds white space between its tokens.
    Object(&'a str, bool),
}

impl Token<'_> {
    fn is_given(&self) -> bool {
        !matches!(self, Self::Absent | Self::Null)
    }

    #[cold]
    fn kind(&self) -> String {
        match self {
            Self::Absent => "nothing".into(),
            Self::Null => "null".into(),
            Self::True => "true".into(),
            Self::False => "false".into(),
            Self::Text(text) => format!("the text {}", shown(&text.unescape())),
            Self::Number(_, text) => format!("the number {}", shown(text).trim_matches('"')),
            Self::Array => "an array".into(),
            Self::Object(..) => "an object".into(),
        }
    }
}

/// The fields that are known, synonyms by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Timestamp,
    Time,
    Ts,
    Metric,
    Name,
    Value,
    Labels,
    Meta,
    Id,
}

const FIELDS: usize = 9;

impl Field {
    #[inline]
    fn of(key: &str) -> Option<Self> {
        Some(match key {
            "timestamp" => Self::Timestamp,
            "metric" => Self::Metric,
            "value" => Self::Value,
            "labels" => Self::Labels,
            "meta" => Self::Meta,
            "id" => Self::Id,
            "time" => Self::Time,
            "ts" => Self::Ts,
            "name" => Self::Name,
            _ => return None,
        })
    }

    /// The contract's name.
    fn name(self) -> &'static str {
        match self {
            Self::Timestamp | Self::Time | Self::Ts => "timestamp",
            Self::Metric | Self::Name => "metric",
            Self::Value => "value",
            Self::Labels => "labels",
            Self::Meta => "meta",
            Self::Id => "id",
        }
    }
}

impl<'a> EventReader<'a> {
    pub(super) fn new(forms: Forms) -> Self {
        Self {
            forms,
            fields: [Token::Absent; FIELDS],
            fault: None,
            labels: Vec::new(),
            plain_labels: Vec::new(),
            keys: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Reads a text that should be one event and nothing else, and gives it to `take`.
    ///
    /// # Errors
    /// Text that is no JSON ([`Code::InvalidJson`]), no event, or what `take` refuses.
    #[inline]
    pub(super) fn read(&mut self, text: &'a str, take: impl FnOnce(&Draft<'_>) -> Result<(), Rejected>) -> Result<(), Rejected> {
        match Plain::read(text, End::Text, self.forms, &mut self.plain_labels) {
            Some((plain, _)) => take(&self.draft(&plain)),
            None => self.read_generally(text, take),
        }
    }

    /// Reads the first line of a text if it is an event in plain form of at most `max_bytes`, and nothing otherwise. Returns
    /// how many bytes the line takes, and what `take` says.
    #[inline]
    pub(super) fn read_plain_line(
        &mut self,
        text: &'a str,
        max_bytes: usize,
        take: impl FnOnce(&Draft<'_>) -> Result<(), Rejected>,
    ) -> Option<(usize, Result<(), Rejected>)> {
        let read = Plain::read(text, End::Line, self.forms, &mut self.plain_labels);
        let (plain, bytes) = read.filter(|(_, bytes)| *bytes <= max_bytes)?;
        Some((bytes, take(&self.draft(&plain))))
    }

    #[inline]
    fn draft<'d>(&'d self, plain: &Plain<'d>) -> Draft<'d> {
        let Plain { metric, value, time, id, meta } = *plain;
        Draft { metric, labels: &self.plain_labels, time, value, id, meta }
    }

    /// Reads any text; the only reader that knows errors of grammar.
    fn read_generally(&mut self, text: &'a str, take: impl FnOnce(&Draft<'_>) -> Result<(), Rejected>) -> Result<(), Rejected> {
        let mut lexer = Lexer::new(text);
        let syntax = match self.value_of_event(&mut lexer) {
            Ok(()) if lexer.at == text.len() => return self.event(take),
            Ok(()) => lexer.fault("nothing more"),
            Err(syntax) => syntax,
        };
        Err(not_json(text, syntax))
    }

    /// Reads the JSON value at `at` and returns where it and the white space behind it end; the event goes to `take`.
    #[inline]
    pub(super) fn read_at(
        &mut self,
        text: &'a str,
        at: usize,
        take: impl FnOnce(&Draft<'_>) -> Result<(), Rejected>,
    ) -> Result<(usize, Result<(), Rejected>), Syntax> {
        let mut lexer = Lexer { text, at };
        self.value_of_event(&mut lexer)?;
        Ok((lexer.at, self.event(take)))
    }

    /// Reads a value and the white space around it; one that is no object is a fault.
    #[inline]
    fn value_of_event(&mut self, lexer: &mut Lexer<'a>) -> Result<(), Syntax> {
        lexer.space();
        self.fields.iter_mut().for_each(|token| *token = Token::Absent);
        self.fault = None;
        self.labels.clear();
        self.keys.clear();
        self.open.clear();
        if lexer.take(b'{') {
            self.known_fields(lexer)?;
        } else {
            let token = self.value(lexer, "", 0)?;
            self.fault(|| reject("", Code::InvalidType, format!("{} is not an event: it must be an object", token.kind())));
        }
        lexer.space();
        Ok(())
    }

    /// Keeps the first fault.
    #[cold]
    fn fault(&mut self, fault: impl FnOnce() -> Rejected) {
        self.fault.get_or_insert_with(fault);
    }

    #[inline]
    fn known_fields(&mut self, lexer: &mut Lexer<'a>) -> Result<(), Syntax> {
        lexer.space();
        if lexer.take(b'}') {
            return Ok(());
        }
        loop {
            lexer.space();
            let key = lexer.string()?.unescape();
            lexer.space();
            if !lexer.take(b':') {
                return Err(lexer.fault("a colon"));
            }
            lexer.space();
            let Some(field) = Field::of(&key) else {
                self.value(lexer, &key, 1)?;
                self.keys.push(key);
                if end_of_object(lexer)? {
                    break;
                }
                continue;
            };
            let again = !matches!(self.fields[field as usize], Token::Absent);
            let token = if field == Field::Labels && !again && lexer.peek() == Some(b'{') {
                self.labels(lexer)?
            } else {
                self.value(lexer, field.name(), 1)?
            };
            self.fields[field as usize] = token;
            if again {
                self.fault(|| given_twice(field.name(), &key));
            }
            if end_of_object(lexer)? {
                break;
            }
        }
        if self.keys.len() > 1
            && let Some(key) = repeated(&mut self.keys)
        {
            self.fault(|| given_twice(&key, &key));
        }
        Ok(())
    }

    /// A value inside `level` open levels; what is wrong with its meaning is kept as the fault.
    #[inline(always)]
    fn value(&mut self, lexer: &mut Lexer<'a>, field: &str, level: usize) -> Result<Token<'a>, Syntax> {
        Ok(match lexer.peek() {
            Some(b'"') => Token::Text(lexer.string()?),
            Some(b'{' | b'[') => self.nested(lexer, field, level)?,
            Some(b't') => lexer.word("true").map(|()| Token::True)?,
            Some(b'f') => lexer.word("false").map(|()| Token::False)?,
            Some(b'n') => lexer.word("null").map(|()| Token::Null)?,
            _ => lexer.number().map(|(decimal, text)| Token::Number(decimal, text))?,
        })
    }

    /// An array or object, without recursion: any depth of brackets is validated in a vector.
    fn nested(&mut self, lexer: &mut Lexer<'a>, field: &str, level: usize) -> Result<Token<'a>, Syntax> {
        let (start, outside, first_key) = (lexer.at, self.open.len(), self.keys.len());
        let is_object = lexer.peek() == Some(b'{');
        let mut spaces = false;
        loop {
            // At a value; what it opened, unless that is closed at once.
            let opened = match lexer.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    let object = bracket == b'{';
                    lexer.at += 1;
                    self.open.push((object, self.keys.len()));
                    if level + self.open.len() - outside > MAX_LEVELS {
                        self.fault(|| too_deep(field));
                    }
                    spaces |= lexer.space();
                    let empty = lexer.take(if object { b'}' } else { b']' });
                    if empty {
                        self.open.pop();
                    }
                    (!empty).then_some(object)
                }
                Some(b'"') => lexer.string().map(|_| None)?,
                Some(b't') => lexer.word("true").map(|()| None)?,
                Some(b'f') => lexer.word("false").map(|()| None)?,
                Some(b'n') => lexer.word("null").map(|()| None)?,
                _ => lexer.number().map(|_| None)?,
            };
            let at_key = match opened {
                Some(object) => object,
                None => match self.behind_value(lexer, outside, field, &mut spaces)? {
                    Some(at_key) => at_key,
                    None => break,
                },
            };
            if at_key {
                let key = lexer.string()?;
                if self.fault.is_none() {
                    self.keys.push(key.unescape());
                }
                spaces |= lexer.space();
                if !lexer.take(b':') {
                    return Err(lexer.fault("a colon"));
                }
                spaces |= lexer.space();
            }
        }
        self.keys.truncate(first_key);
        Ok(if is_object { Token::Object(&lexer.text[start..lexer.at], spaces) } else { Token::Array })
    }

    /// Closes levels until the next value (false) or key (true); `None` when the outermost has closed.
    fn behind_value(&mut self, lexer: &mut Lexer<'a>, outside: usize, field: &str, spaces: &mut bool) -> Result<Option<bool>, Syntax> {
        while self.open.len() > outside {
            let Some(&(object, first_key)) = self.open.last() else { break };
            *spaces |= lexer.space();
            if lexer.take(b',') {
                *spaces |= lexer.space();
                return Ok(Some(object));
            }
            if !lexer.take(if object { b'}' } else { b']' }) {
                return Err(lexer.fault(if object { "a comma or }" } else { "a comma or ]" }));
            }
            self.open.pop();
            if object && self.fault.is_none() && self.keys.len() > first_key + 1 {
                self.fault = repeated(&mut self.keys[first_key..]).map(|key| given_twice(field, &key));
            }
            if object {
                self.keys.truncate(first_key);
            }
        }
        Ok(None)
    }

    /// The labels' object.
    fn labels(&mut self, lexer: &mut Lexer<'a>) -> Result<Token<'a>, Syntax> {
        let start = lexer.at;
        lexer.at += 1;
        lexer.space();
        if lexer.take(b'}') {
            return Ok(Token::Object("{}", false));
        }
        loop {
            lexer.space();
            let key = lexer.string()?;
            lexer.space();
            if !lexer.take(b':') {
                return Err(lexer.fault("a colon"));
            }
            lexer.space();
            let value = self.value(lexer, "labels", 2)?;
            if self.fault.is_none() {
                self.fault = match value {
                    Token::Text(text) => self.label(key, text),
                    other => Some(invalid_labels(format!("the label {} must be text, not {}", shown(&key.unescape()), other.kind()))),
                };
            }
            if end_of_object(lexer)? {
                break;
            }
        }
        Ok(Token::Object(&lexer.text[start..lexer.at], false))
    }

    #[inline]
    fn label(&mut self, key: Text<'a>, text: Text<'a>) -> Option<Rejected> {
        let name = key.unescape();
        if let Err(rejected) = check_name(&name, "labels", Code::InvalidLabels, "the label's name") {
            return Some(rejected);
        }
        if self.labels.iter().any(|(known, _)| known.unescape() == name) {
            return Some(given_twice("labels", &name));
        }
        if self.labels.len() == MAX_LABELS {
            return Some(invalid_labels(format!("more than {MAX_LABELS} labels, {} is one too many", shown(&name))));
        }
        self.labels.push((key, text));
        None
    }

    #[inline]
    fn event(&mut self, take: impl FnOnce(&Draft<'_>) -> Result<(), Rejected>) -> Result<(), Rejected> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let field = |field: Field| self.fields[field as usize];
        let metric = match field(Field::Metric) {
            Token::Absent => field(Field::Name),
            own => own,
        };
        let metric = &*metric_field(metric)?;
        check_metric(metric)?;
        let value = value_field(field(Field::Value))?;
        let time = self.time()?;
        let labels = field(Field::Labels);
        if labels.is_given() && !matches!(labels, Token::Object(..)) {
            return Err(invalid_labels(format!("labels must be an object of texts, not {}", labels.kind())));
        }
        let minified: String;
        let meta = match field(Field::Meta) {
            Token::Absent | Token::Null => None,
            Token::Object(text, false) => Some(text),
            Token::Object(text, true) => {
                minified = minify(text);
                Some(&*minified)
            }
            other => return Err(reject("meta", Code::InvalidMeta, format!("meta must be an object, not {}", other.kind()))),
        };
        let id = match field(Field::Id) {
            Token::Absent | Token::Null => None,
            Token::Text(id) => Some(id.unescape()),
            other => return Err(reject("id", Code::InvalidId, format!("the id must be text, not {}", other.kind()))),
        };
        if let Some(id) = &id {
            check_name(id, "id", Code::InvalidId, "the id")?;
        }
        let draft = Draft { metric, labels: &[], time, value, id: id.as_deref(), meta };
        if self.labels.is_empty() { take(&draft) } else { self.with_labels(&draft, take) }
    }

    fn with_labels(&self, draft: &Draft<'_>, take: impl FnOnce(&Draft<'_>) -> Result<(), Rejected>) -> Result<(), Rejected> {
        let n = self.labels.len();
        let mut pairs = [("", ""); MAX_LABELS];
        let mut all_plain = true;
        for (pair, (name, value)) in pairs.iter_mut().zip(&self.labels) {
            match (name.unescape(), value.unescape()) {
                (Cow::Borrowed(name), Cow::Borrowed(value)) => *pair = (name, value),
                _ => all_plain = false,
            }
        }
        if all_plain {
            return take(&Draft { labels: &pairs[..n], ..*draft });
        }
        let meanings: Vec<_> = self.labels.iter().map(|(name, value)| (name.unescape(), value.unescape())).collect();
        let pairs: Vec<_> = meanings.iter().map(|(name, value)| (&**name, &**value)).collect();
        take(&Draft { labels: &pairs, ..*draft })
    }

    #[inline]
    fn time(&self) -> Result<WrittenTime, Rejected> {
        let [own, time, ts] = [Field::Timestamp, Field::Time, Field::Ts].map(|field| self.fields[field as usize]);
        let token = match (own.is_given(), time.is_given(), ts.is_given()) {
            (true, ..) => own,
            (false, true, true) => {
                let message = "both time and ts are given, and not timestamp".to_owned();
                return Err(reject("timestamp", Code::AmbiguousField, message));
            }
            (false, true, false) => time,
            (false, false, _) => ts,
        };
        match token {
            Token::Absent | Token::Null => Ok(WrittenTime::Absent),
            Token::Number(decimal, text) => epoch_seconds(decimal, text).map(WrittenTime::Instant),
            Token::Text(text) => parse_text(&text.unescape(), self.forms),
            other => Err(reject("timestamp", Code::InvalidType, format!("a timestamp must be a number or text, not {}", other.kind()))),
        }
    }
}

#[inline]
fn metric_field(token: Token<'_>) -> Result<Cow<'_, str>, Rejected> {
    match token {
        Token::Text(text) => Ok(text.unescape()),
        Token::Absent => Err(reject("metric", Code::MissingField, "metric is missing".into())),
        other => Err(reject("metric", Code::InvalidType, format!("metric must be text, not {}", other.kind()))),
    }
}

#[inline]
fn value_field(token: Token<'_>) -> Result<f64, Rejected> {
    match token {
        Token::Number(decimal, text) => finite((decimal, text)),
        Token::Absent => Err(reject("value", Code::MissingField, "value is missing".into())),
        Token::Text(text) => {
            Err(reject("value", Code::InvalidType, format!("{} is text, value must be a number", shown(&text.unescape()))))
        }
        other => Err(reject("value", Code::InvalidType, format!("value must be a number, not {}", other.kind()))),
    }
}

#[inline]
fn finite((decimal, written): (Decimal, &str)) -> Result<f64, Rejected> {
    match decimal.to_f64(written.as_bytes()) {
        value if value.is_finite() => Ok(value),
        _ => Err(reject("value", Code::InvalidValue, format!("{} is beyond the range of a double", shown(written).trim_matches('"')))),
    }
}

#[inline]
fn end_of_object(lexer: &mut Lexer<'_>) -> Result<bool, Syntax> {
    lexer.space();
    if lexer.take(b',') {
        Ok(false)
    } else if lexer.take(b'}') {
        Ok(true)
    } else {
        Err(lexer.fault("a comma or }"))
    }
}

/// A key that occurs twice; sorts the keys where there are many.
fn repeated(keys: &mut [Cow<'_, str>]) -> Option<String> {
    if keys.len() <= 8 {
        return keys.iter().enumerate().find(|(i, key)| keys[..*i].contains(key)).map(|(_, key)| key.to_string());
    }
    keys.sort_unstable();
    keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_string())
}

/// A valid JSON text without the white space between its tokens.
fn minify(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped, mut kept_from) = (false, false, 0);
    for (i, byte) in text.bytes().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte == b'"' {
            in_string = true;
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            out.push_str(&text[kept_from..i]);
            kept_from = i + 1;
        }
    }
    out.push_str(&text[kept_from..]);
    out
}

#[cold]
fn given_twice(field: &str, key: &str) -> Rejected {
    reject(field, Code::DuplicateKey, format!("the key {} is given twice", shown(key)))
}

#[cold]
fn too_deep(field: &str) -> Rejected {
    reject(field, Code::TooDeep, format!("nested more than {MAX_LEVELS} levels deep"))
}

#[cold]
fn invalid_labels(message: String) -> Rejected {
    reject("labels", Code::InvalidLabels, message)
}

#[cold]
pub(super) fn not_json(text: &str, syntax: Syntax) -> Rejected {
    let found = match text.get(syntax.at..).and_then(|rest| rest.chars().next()) {
        Some(c) => format!("found {}", shown(&c.to_string())),
        None => "found the end".into(),
    };
    reject("", Code::InvalidJson, format!("not JSON at byte {}: expected {}, {found}", syntax.at + 1, syntax.expected))
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
