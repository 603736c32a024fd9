//! A body of NDJSON or a JSON array: everything is counted, and each line gets the word that it would get alone.
#![no_main]

use anomaly_engine::frame::BatchBuilder;
use anomaly_engine::parse::{Context, MAX_EVENT_BYTES, parse_batch, parse_event};
use anomaly_engine::{LISTED_ERRORS, NANOS, Rejected, Report};
use anomaly_fuzz::{ARRIVAL, Choices, is_json, samples};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let max_event_bytes = choices.of(&[MAX_EVENT_BYTES, 40, 0, 1000]);
    let body = choices.rest();
    let context = Context { max_event_bytes, ..Context::new(ARRIVAL, 60 * NANOS) };
    let mut builder = BatchBuilder::new();
    let result = parse_batch(body, &context, &mut builder);
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let first = text.iter().find(|b| !b.is_ascii_whitespace());
    let Ok(report) = result else {
        assert!(builder.is_empty(), "nothing is pushed of what is no JSON");
        assert!(first == Some(&b'[') && (std::str::from_utf8(text).is_err() || is_json(text) != Some(true)));
        return;
    };
    let Report { accepted, rejected, errors } = &report;
    assert_eq!(*accepted as usize, builder.len());
    assert_eq!(errors.len(), (*rejected as usize).min(LISTED_ERRORS));
    assert!(errors.iter().all(|error| error.line >= 1 && !error.message.is_empty()));
    assert!(errors.is_sorted_by_key(|error| error.line));
    let rows = samples(builder);
    if first == Some(&b'[') {
        let elements: Vec<&serde_json::value::RawValue> = serde_json::from_slice(text).expect("an array that was taken is JSON");
        assert_eq!(elements.len() as u64, accepted + rejected);
        check_each(elements.iter().map(|element| element.get().as_bytes()).zip(1..), &context, &report, &rows);
    } else if !is_one_object(text) {
        let lines = text.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).zip(1..).filter(|(line, _)| !line.is_empty());
        check_each(lines, &context, &report, &rows);
    }
});

/// Whether the first line does not end what it opens, so that the body may be one object over several lines.
fn is_one_object(text: &[u8]) -> bool {
    let line = text.trim_ascii_start().split(|&b| b == b'\n').next().unwrap_or_default().trim_ascii_end();
    line.starts_with(b"{") && matches!(line.last(), Some(b'{' | b'[' | b',' | b':'))
}

/// Each event alone gets the same word as in the batch.
fn check_each<'a>(events: impl Iterator<Item = (&'a [u8], u64)>, context: &Context, report: &Report, rows: &[anomaly_fuzz::Sample]) {
    let (mut alone, mut errors, mut strange) = (BatchBuilder::new(), Vec::new(), false);
    for (event, line) in events {
        // Only at the beginning of a body a byte order mark is one.
        strange |= event.starts_with(b"\xef\xbb\xbf");
        if let Err(rejected) = parse_event(event, context, &mut alone) {
            errors.push(Rejected { line, ..rejected });
        }
    }
    if !strange {
        errors.truncate(LISTED_ERRORS);
        assert_eq!(errors, report.errors);
        assert_eq!(samples(alone), rows);
    }
}
