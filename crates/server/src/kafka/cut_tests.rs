//! Messages and the steps that they become.

use anomaly_engine::Timestamp;

use super::*;

const GOOD: &str = r#"{"metric":"a","value":1}"#;

/// Cuts messages `offset=value`, `-` for none; each step as text.
fn steps(all: &[(i64, &str)], refused: &Refused) -> Vec<String> {
    let mut messages = Messages::default();
    for (offset, value) in all {
        messages.push(Message { offset: *offset, key: None, value: (*value != "-").then_some(value.as_bytes()) });
    }
    let context = Context { max_event_bytes: 100, ..Context::new(Timestamp::from_seconds(1_000_000), 0) };
    let shown = |report: &Report| {
        let errors = report.errors.iter().map(|error| format!("{}:{}:{}", error.line, error.field, error.code.as_str()));
        errors.collect::<Vec<_>>().join(",")
    };
    let steps = cut(&messages, messages.range(), "kafka:t/3", refused, &context);
    let first = |batch: &Batch| batch.origin.first.unwrap();
    steps
        .iter()
        .map(|step| match step {
            Step::Events { messages, batch } => {
                assert_eq!((batch.origin.name.as_str(), batch.len()), ("kafka:t/3", messages.len()));
                format!("{messages:?} at {}", first(batch))
            }
            Step::Array { message, batch, report } => {
                assert_eq!((batch.origin.name.as_str(), batch.len() as u64), ("kafka:t/3[]", report.accepted));
                let (offset, place) = (first(batch) / ARRAY_ROWS, first(batch) % ARRAY_ROWS);
                format!("{message} [{}] at {offset}+{place} {}", batch.len(), shown(report)).trim_end().to_owned()
            }
            Step::Bad { message, report } => format!("{message} bad {}", shown(report)),
        })
        .collect()
}

fn check(all: &[(i64, &str)], expected: &[&str]) {
    assert_eq!(steps(all, &Refused::new()), expected, "{all:?}");
}

#[test]
fn offsets_that_follow_each_other_are_one_batch() {
    check(&[], &[]);
    check(&[(7, GOOD)], &["0..1 at 7"]);
    check(&[(7, GOOD), (8, GOOD), (9, GOOD)], &["0..3 at 7"]);
}

#[test]
fn a_gap_begins_another_batch() {
    check(&[(7, GOOD), (9, GOOD), (10, GOOD), (12, GOOD)], &["0..1 at 7", "1..3 at 9", "3..4 at 12"]);
    check(&[(7, GOOD), (3, GOOD)], &["0..1 at 7", "1..2 at 3"]);
}

#[test]
fn a_bad_message_parts_its_neighbours() {
    for (value, error) in [
        ("-", ":invalid_json"),
        ("", ":invalid_json"),
        ("nonsense", ":invalid_json"),
        (r#"{"metric":"a"}"#, "value:missing_field"),
        (r#"{"metric":"a","value":"1"}"#, "value:invalid_type"),
        (r#"{"metric":"a","value":1,"timestamp":2000000}"#, "timestamp:future_timestamp"),
        (&format!("{:?}", "x".repeat(101)), ":too_large"),
        ("[1,", ":invalid_json"),
    ] {
        check(&[(1, GOOD), (2, value), (3, GOOD)], &["0..1 at 1", &format!("1 bad 1:{error}"), "2..3 at 3"]);
    }
}

#[test]
fn an_array_is_a_batch_of_its_own() {
    let two = format!("\u{feff} [{GOOD},{GOOD}]");
    check(&[(1, GOOD), (2, &two), (3, GOOD), (4, &two)], &["0..1 at 1", "1 [2] at 2+0", "2..3 at 3", "3 [2] at 4+0"]);
    check(&[(0, &format!("[{GOOD},7,{GOOD},{{}}]"))], &["0 [2] at 0+0 2::invalid_type,4:metric:missing_field"]);
    check(&[(0, "[7]")], &["0 bad 1::invalid_type"]);
    check(&[(0, "[]"), (1, GOOD)], &["1..2 at 1"]);
}

#[test]
fn what_the_writer_refused_is_left_out() {
    let full = |line| Rejected { line, field: "metric".into(), code: Code::SeriesLimit, message: "full".into() };
    let refused = Refused::from([(1, vec![full(1)]), (3, vec![full(1), full(3)]), (4, vec![full(1)])]);
    let three = format!("[{GOOD},{GOOD},{GOOD}]");
    assert_eq!(
        steps(&[(0, GOOD), (1, GOOD), (2, GOOD), (3, &three), (4, &format!("[{GOOD}]"))], &refused),
        [
            "0..1 at 0",
            "1 bad 1:metric:series_limit",
            "2..3 at 2",
            "3 [1] at 3+1 1:metric:series_limit,3:metric:series_limit",
            "4 bad 1:metric:series_limit"
        ]
    );
}
