use proptest::prelude::*;

use super::*;
use crate::frame::{Frame, FrameBuilder, Origin, Record, RecordRef};
use crate::timestamp::NANOS;

const CONTEXT: Context = Context::new(Timestamp::from_seconds(2_000_000_000), 60 * NANOS);
const GOOD: &str = r#"{"metric":"m","value":1,"timestamp":5}"#;

fn rows(batch: BatchBuilder) -> Vec<(String, i64, f64)> {
    let batch = batch.finish(Origin::http());
    let names: Vec<_> = (0..batch.n_series()).map(|i| batch.key(i).name()).collect();
    let mut frame = FrameBuilder::new(Timestamp::from_seconds(0));
    frame.push(&Record::Events(batch));
    let bytes = frame.seal(1);
    let Some(Ok((_, RecordRef::Events(batch)))) = Frame::open(1, &bytes).unwrap().records().next() else { panic!("no batch") };
    batch.rows().map(|row| (names[row.series as usize].clone(), row.timestamp.nanos(), row.value)).collect()
}

/// Accepted, then each refused line with its code; or the element and byte at which an array broke.
fn check(body: impl AsRef<[u8]>, expected: &str) {
    let mut batch = BatchBuilder::new();
    let said = match parse_batch(body.as_ref(), &CONTEXT, &mut batch) {
        Ok(report) => {
            assert_eq!(report.accepted as usize, batch.len());
            let errors: Vec<_> = report.errors.iter().map(|e| format!(" {}:{}:{}", e.line, e.field, e.code.as_str())).collect();
            format!("{}{}", report.accepted, errors.concat())
        }
        Err(error) => {
            assert!(batch.is_empty(), "rows of a broken array were taken");
            format!("element {} byte {}", error.element, error.byte)
        }
    };
    assert_eq!(said, expected, "{}", String::from_utf8_lossy(&body.as_ref()[..body.as_ref().len().min(200)]));
}

#[test]
fn lines_are_taken_one_by_one() {
    check(GOOD, "1");
    check(format!("{GOOD}\r\n{GOOD}\n"), "2");
    check(format!("\u{feff}{GOOD}\n{GOOD}"), "2");
    check(format!("\n \n{GOOD}\n\n{{oops\n{GOOD}\n"), "2 5::invalid_json");
    check("{\"metric\": 5}\n{\"value\": 1}\n", "0 1:metric:invalid_type 2:metric:missing_field");
    check(format!("{GOOD}\n{{\"metric\": \"m\", \"value\": NaN}}\n{GOOD}"), "2 2::invalid_json");
    check(&GOOD[..GOOD.len() - 5], "0 1::invalid_json");
    check("hello", "0 1::invalid_json");
    check("5", "0 1::invalid_type");
    check("", "0");
    check("\n \n", "0");
    check(format!("{GOOD} {GOOD}"), "0 1::invalid_json");
}

#[test]
fn one_event_may_go_over_many_lines() {
    check("{\n \"metric\": \"m\",\n \"value\": 1\n}\n", "1");
    check("{\"metric\": \"m\",\n \"value\": \"x\"\n}\n", "0 1:value:invalid_type");
    check(format!("{{\n{GOOD}\n"), "1 1::invalid_json");
}

#[test]
fn invalid_utf8_spoils_one_line() {
    let mut body = format!("{GOOD}\n").into_bytes();
    body.extend_from_slice(b"{\"metric\": \"\xff\xfe\", \"value\": 1}\n");
    body.extend_from_slice(GOOD.as_bytes());
    check(&body, "2 2::invalid_utf8");
    check(b"[\xff\xfe]", "element 0 byte 2");
    check((0..=255).collect::<Vec<u8>>(), "0 1::invalid_json 2::invalid_utf8");
}

#[test]
fn arrays_are_json_as_a_whole_or_not_at_all() {
    check(format!("[{GOOD},\n {GOOD}]"), "2");
    check(format!(" \n\u{20}[{GOOD}]\n"), "1");
    check("[]", "0");
    check("[{\"metric\": 5}, 7]", "0 1:metric:invalid_type 2::invalid_type");
    check(format!("[{GOOD}, {{\"metric\":\"m\",\"value\":1,\"value\":2}}, {GOOD}]"), "2 2:value:duplicate_key");
    check(format!("[{GOOD}, [[{GOOD}]], {GOOD}]"), "2 2::invalid_type");
    for (broken, element) in [
        ("", 2),
        (",", 2),
        (",]", 2),
        ("] x", 2),
        ("][]", 2),
        ("}", 2),
        (", {\"metric\":\"x\",\"value\":NaN}]", 3),
        (", oops]", 2),
        (",{\"metric\": \"cpu_us", 3),
    ] {
        let body = format!("[{GOOD},{GOOD}{broken}");
        let mut batch = BatchBuilder::new();
        let error = parse_batch(body.as_bytes(), &CONTEXT, &mut batch).unwrap_err();
        assert!(batch.is_empty() && error.element == element, "{broken}: {error}");
    }
    check("[", "element 0 byte 2");
}

#[test]
fn too_deep_is_an_error_of_its_row() {
    let nested =
        |levels: usize| format!(r#"{{"metric":"m","value":1,"meta":{{"a":{}{}}}}}"#, "[".repeat(levels - 2), "]".repeat(levels - 2));
    check(format!("[{}, {}, {}]", nested(16), nested(64), nested(15)), "2 2:meta:too_deep");
    check(format!("{}\n{}\n{}\n{}\n{}", nested(16), nested(17), nested(16), nested(5000), nested(3)), "3 2:meta:too_deep 4:meta:too_deep");
    check(format!("[{GOOD},{}]", nested(100_000)), "1 2::too_large");
}

#[test]
fn an_event_is_at_most_64_kib() {
    let exact = |n: usize| {
        let empty = r#"{"metric":"m","value":1,"meta":{"a":""}}"#;
        empty.replace("\"\"", &format!("\"{}\"", "x".repeat(n - empty.len())))
    };
    assert_eq!(exact(65_536).len(), 65_536);
    check(format!("{}\n{}\n{GOOD}", exact(65_536), exact(65_537)), "2 2::too_large");
    check(format!("[{},{},{GOOD}]", exact(65_536), exact(65_537)), "2 2::too_large");
    let mut batch = BatchBuilder::new();
    assert!(parse_event(exact(65_536).as_bytes(), &CONTEXT, &mut batch).is_ok());
    assert_eq!(parse_event(exact(65_537).as_bytes(), &CONTEXT, &mut batch).unwrap_err().code, Code::TooLarge);
}

#[test]
fn raw_bodies_tell_no_json_from_no_event() {
    for (body, code) in [
        ("x", Code::InvalidJson),
        ("", Code::InvalidJson),
        ("{\"metric\":\"m\",\"value\":NaN}", Code::InvalidJson),
        ("{\"metric\":\"m\",\"value\":1}{}", Code::InvalidJson),
        ("[]", Code::InvalidType),
        ("5", Code::InvalidType),
        ("\"x\"", Code::InvalidType),
        ("{\"value\":1}", Code::MissingField),
        ("{\"metric\":\"m\",\"value\":1,\"timestamp\":2000000080}", Code::FutureTimestamp),
        ("{\"metric\":\"m\",\"value\":1,\"timestamp\":\"2033-05-18T03:34:40Z\"}", Code::FutureTimestamp),
        ("{\"metric\":\"m\",\"value\":1,\"timestamp\":1737453600000}", Code::MillisecondsTimestamp),
    ] {
        let mut batch = BatchBuilder::new();
        let rejected = parse_event(body.as_bytes(), &CONTEXT, &mut batch).unwrap_err();
        assert_eq!((rejected.code, rejected.line, batch.len()), (code, 1, 0), "{body}");
    }
    let mut batch = BatchBuilder::new();
    assert_eq!(parse_event(b"\"\xff\"", &CONTEXT, &mut batch).unwrap_err().code, Code::InvalidUtf8);
    parse_event(
        "\u{feff}{\"name\":\"m\",\"value\":1,\"ts\":\"2025-01-21\",\"labels\":{\"b\":\"2\",\"a\":\"1\"}}".as_bytes(),
        &CONTEXT,
        &mut batch,
    )
    .unwrap();
    parse_event(b"{\"metric\":\"m\",\"value\":1.5}", &CONTEXT, &mut batch).unwrap();
    assert_eq!(rows(batch), [("m{a=\"1\",b=\"2\"}".into(), 1_737_417_600 * NANOS, 1.0), ("m".into(), 2_000_000_000 * NANOS, 1.5)]);
}

#[test]
fn listed_errors_are_capped_and_counts_exact() {
    let body = "{}\n".repeat(1500) + GOOD;
    let report = parse_batch(body.as_bytes(), &CONTEXT, &mut BatchBuilder::new()).unwrap();
    assert_eq!((report.accepted, report.rejected, report.errors.len(), report.errors[999].line), (1, 1500, 1000, 1000));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\[{\"a:1,}\\]\n\\\\u é]{0,60}", cut in 0usize..80, flip in 0usize..80) {
        let event = "[{\"timestamp\":1.5e9,\"metric\":\"cpu\",\"value\":-85.5,\"labels\":{\"dc\":\"é\"},\"meta\":{\"h\":[1,{}]},\"id\":\"x\\u00e9\"}]";
        let mut mutated = event.as_bytes()[..event.len() - cut].to_vec();
        if let Some(byte) = mutated.get_mut(flip) {
            *byte ^= 1 << (flip % 8);
        }
        for body in [&bytes[..], text.as_bytes(), &mutated[..], mutated.get(1..).unwrap_or(&[])] {
            let _ = parse_event(body, &CONTEXT, &mut BatchBuilder::new());
            let mut batch = BatchBuilder::new();
            if let Ok(report) = parse_batch(body, &CONTEXT, &mut batch) {
                prop_assert_eq!(report.accepted as usize, batch.len());
            }
        }
    }
}
