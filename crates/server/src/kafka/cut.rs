//! Cuts messages into what is appended at once, and what is bad. A pure function.

use std::collections::BTreeMap;
use std::ops::Range;

use anomaly_engine::frame::{Batch, BatchBuilder, Origin};
use anomaly_engine::parse::{Context, parse_batch, parse_event_at};
use anomaly_engine::{Code, Rejected, Report};

use super::SOURCE;
use super::messages::{Message, Messages};

/// The most events in one message: each has a position of its own in the source of arrays.
const ARRAY_ROWS: u64 = 1 << 20;

/// What is done next with a partition's messages, in their order.
#[derive(Debug)]
pub(super) enum Step {
    /// Messages of one event each, whose offsets follow each other by one. The line of a row is its message's number, from 1.
    Events { messages: Range<usize>, batch: Batch },
    /// The events of a message that holds an array, and what is said of its bad ones.
    Array { message: usize, batch: Batch, report: Report },
    /// A message of which nothing can be taken.
    Bad { message: usize, report: Report },
}

/// Rows that the log's writer has refused, by their message.
pub(super) type Refused = BTreeMap<usize, Vec<Rejected>>;

/// Cuts the messages in `range`. The positions of single events are their offsets, so that a gap begins another batch.
///
/// An array is a batch of its own in a source of its own, `kafka:TOPIC/PARTITION[]`. Its message has `2^20` positions there, and each
/// event the one of its place in the array.
pub(super) fn cut(messages: &Messages, range: Range<usize>, source: &str, refused: &Refused, context: &Context) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut events = Events::default();
    for i in range {
        let message = messages.get(i);
        let rejected = match (refused.get(&i), message.value) {
            (None, Some(value)) if !is_array(value) => {
                if events.next != Some(message.offset) {
                    events.end(source, &mut steps);
                }
                match parse_event_at(value, i as u64 + 1, context, &mut events.batch) {
                    Ok(()) => {
                        events.taken(i, message.offset);
                        continue;
                    }
                    Err(rejected) => vec![Rejected { line: 1, ..rejected }],
                }
            }
            (refused, Some(value)) if is_array(value) => {
                events.end(source, &mut steps);
                steps.extend(array(i, message, value, source, refused.map_or(&[], |refused| refused), context));
                continue;
            }
            (Some(refused), _) => refused.iter().map(|rejected| Rejected { line: 1, ..rejected.clone() }).collect(),
            (None, _) => vec![bad(Code::InvalidJson, "the message has no value".into())],
        };
        events.end(source, &mut steps);
        let mut report = Report::default();
        rejected.into_iter().for_each(|rejected| report.reject(rejected));
        steps.push(Step::Bad { message: i, report });
    }
    events.end(source, &mut steps);
    steps
}

/// The name of a partition as a source of events.
pub(super) fn source(topic: &str, partition: i32) -> String {
    format!("{SOURCE}{topic}/{partition}")
}

/// A batch of single events as it grows.
#[derive(Default)]
struct Events {
    batch: BatchBuilder,
    messages: Range<usize>,
    first: i64,
    /// The offset that may follow.
    next: Option<i64>,
}

impl Events {
    fn taken(&mut self, i: usize, offset: i64) {
        if self.batch.len() == 1 {
            (self.first, self.messages.start) = (offset, i);
        }
        self.messages.end = i + 1;
        self.next = Some(offset + 1);
    }

    /// Ends the batch, if there is one.
    fn end(&mut self, source: &str, steps: &mut Vec<Step>) {
        let Self { batch, messages, first, .. } = std::mem::take(self);
        if !batch.is_empty() {
            let origin = Origin { name: source.to_owned(), first: u64::try_from(first).ok() };
            steps.push(Step::Events { messages, batch: batch.finish(origin) });
        }
    }
}

/// A message with an array; none where it is empty.
fn array(i: usize, message: Message<'_>, value: &[u8], source: &str, refused: &[Rejected], context: &Context) -> Option<Step> {
    let mut batch = BatchBuilder::new();
    let mut report = match parse_batch(value, context, &mut batch) {
        Ok(report) => report,
        Err(fault) => return Some(whole(i, bad(Code::InvalidJson, fault.to_string()))),
    };
    let rows = report.accepted + report.rejected;
    if rows > ARRAY_ROWS {
        return Some(whole(i, bad(Code::TooLarge, format!("an array of {rows} events, at most {ARRAY_ROWS} are taken in one message"))));
    }
    let first = u64::try_from(message.offset).unwrap_or(0).saturating_mul(ARRAY_ROWS);
    let mut batch = batch.finish(Origin { name: format!("{source}[]"), first: Some(first) }).at_lines();
    if !refused.is_empty() {
        batch.leave_out(|line| refused.iter().any(|refused| refused.line == line));
        report.withdraw(refused.to_vec());
    }
    match (batch.is_empty(), report.rejected) {
        (true, 0) => None,
        (true, _) => Some(Step::Bad { message: i, report }),
        (false, _) => Some(Step::Array { message: i, batch, report }),
    }
}

fn whole(message: usize, rejected: Rejected) -> Step {
    let mut report = Report::default();
    report.reject(rejected);
    Step::Bad { message, report }
}

fn bad(code: Code, message: String) -> Rejected {
    Rejected { line: 1, field: String::new(), code, message }
}

fn is_array(value: &[u8]) -> bool {
    let text = value.strip_prefix(b"\xef\xbb\xbf").unwrap_or(value);
    text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
