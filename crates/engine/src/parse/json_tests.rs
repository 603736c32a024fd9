use proptest::prelude::*;

use super::*;

/// What an event says, as text: `metric{labels} @time = value #id meta`, or the field and code of its refusal.
fn read(text: &str) -> String {
    read_with(|reader, take| reader.read(text, take))
}

/// As [`read`], but not by the shortcut for the plain form.
fn read_generally(text: &str) -> String {
    read_with(|reader, take| reader.read_generally(text, take))
}

fn read_with<'a>(
    read: impl FnOnce(&mut EventReader<'a>, &mut dyn FnMut(&Draft<'_>) -> Result<(), Rejected>) -> Result<(), Rejected>,
) -> String {
    let mut said = String::new();
    let mut reader = EventReader::new(Forms::Strict);
    let result = read(&mut reader, &mut |draft| {
        said = format!("{}{:?} {:?} = {:?}", draft.metric, draft.labels, draft.time, draft.value);
        if let Some(id) = draft.id {
            said += &format!(" #{id}");
        }
        if let Some(meta) = draft.meta {
            said += &format!(" {meta}");
        }
        Ok(())
    });
    match result {
        Ok(()) => said,
        Err(rejected) => format!("{}: {}", rejected.field, rejected.code.as_str()),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(&read(text), expected, "{text}");
    }
}

#[test]
fn an_event_with_all_its_fields() {
    check(&[
        (
            r#"{"timestamp": 1234567890.5, "metric": "cpu_usage", "value": 85.5, "labels": {"dc": "eu"}, "meta": {"host": "server-01"}, "id": "x"}"#,
            r#"cpu_usage[("dc", "eu")] Instant(1234567890500000000) = 85.5 #x {"host":"server-01"}"#,
        ),
        (r#"{"metric":"m","value":1}"#, "m[] Absent = 1.0"),
        ("\t{ \"value\" :\r\n-0 , \"metric\":\"m\" } \n", "m[] Absent = -0.0"),
        (r#"{"metric":"m","value":1,"x":[{"y":null}],"z":{},"w":[]}"#, "m[] Absent = 1.0"),
        (r#"{"metric":"m","value":1,"labels":{}}"#, "m[] Absent = 1.0"),
        (r#"{"metric":"m","value":1,"labels":null,"timestamp":null,"id":null,"meta":null}"#, "m[] Absent = 1.0"),
    ]);
}

#[test]
fn the_contracts_own_name_wins_and_two_synonyms_are_an_error() {
    check(&[
        (r#"{"time":5,"name":"m","value":1}"#, "m[] Instant(5000000000) = 1.0"),
        (r#"{"ts":5,"metric":"m","value":1}"#, "m[] Instant(5000000000) = 1.0"),
        (r#"{"ts":5,"timestamp":6,"time":"x","name":7,"metric":"m","value":1}"#, "m[] Instant(6000000000) = 1.0"),
        (r#"{"ts":5,"timestamp":null,"metric":"m","value":1}"#, "m[] Instant(5000000000) = 1.0"),
        (r#"{"ts":5,"time":5,"metric":"m","value":1}"#, "timestamp: ambiguous_field"),
        (r#"{"ts":-1,"metric":"m","value":1}"#, "timestamp: invalid_timestamp"),
        (r#"{"time":"yesterday","metric":"m","value":1}"#, "timestamp: invalid_timestamp"),
        (r#"{"name":5,"value":1}"#, "metric: invalid_type"),
        (r#"{"name":"","value":1}"#, "metric: invalid_metric"),
        (r#"{"name":"n","metric":null,"value":1}"#, "metric: invalid_type"),
    ]);
}

#[test]
fn only_the_grammars_numbers_are_json() {
    for number in ["NaN", "Infinity", "-Infinity", "+1", "01", ".5", "0x10", "1.", "1e", "-", "1_0", "1f", "'1'"] {
        for text in [
            format!(r#"{{"metric":"m","value":{number}}}"#),
            format!(r#"{{"metric":"m","value":1,"timestamp":{number}}}"#),
            format!(r#"{{"metric":5,"value":"x","y":[{number}]}}"#),
        ] {
            assert_eq!(read(&text), ": invalid_json", "{text}");
        }
    }
}

#[test]
fn what_is_not_json_is_told_with_its_place() {
    for text in [
        "",
        " ",
        "x",
        "{",
        "{}x",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\":1 \"b\":2}",
        "[",
        "[1,]",
        "[1 2]",
        "nul",
        "\"",
        "{\"a\":[1}}",
        "{\"a\":tru}",
        "{\"metric\":\"a\\ud800b\",\"value\":1}",
        "{\"x\":\"\u{1}\"}",
        "{'a':1}",
        "{\"a\":{\"b\":1,}}",
        "{\"labels\":{\"a\" 1}}",
        "{\"labels\":{,}}",
    ] {
        assert_eq!(read(text), ": invalid_json", "{text}");
    }
    let rejected = EventReader::new(Forms::Strict).read("{\"a\": NaN}", |_| Ok(())).unwrap_err();
    assert_eq!(rejected.message, "not JSON at byte 7: expected a value, found \"N\"");
    let rejected = EventReader::new(Forms::Strict).read("{\"a\"", |_| Ok(())).unwrap_err();
    assert_eq!(rejected.message, "not JSON at byte 5: expected a colon, found the end");
}

#[test]
fn json_that_is_no_event() {
    for text in ["[]", "5", "\"x\"", "null", "true", "[{\"metric\":\"m\",\"value\":1}]"] {
        assert_eq!(read(text), ": invalid_type", "{text}");
    }
    check(&[(r#"{"value":1}"#, "metric: missing_field"), (r#"{"metric":"m"}"#, "value: missing_field"), ("{}", "metric: missing_field")]);
}

#[test]
fn duplicate_keys_at_any_depth() {
    for text in [
        r#"{"metric":"m","value":1,"value":2}"#,
        r#"{"metric":"m","metric":"m","value":1}"#,
        r#"{"metric":"m","value":1,"\u0076alue":2}"#,
        r#"{"metric":"m","value":1,"labels":{"a":"1","a":"2"}}"#,
        r#"{"metric":"m","value":1,"labels":{"a":"1","\u0061":"2"}}"#,
        r#"{"metric":"m","value":1,"labels":{"a":"1"},"labels":{"b":"1"}}"#,
        r#"{"metric":"m","value":1,"meta":{"x":[{"a":1,"a":2}]}}"#,
        r#"{"metric":"m","value":1,"meta":{"x":1,"y":{"a":1},"x":2}}"#,
        r#"{"metric":"m","value":1,"x":{"b":[{"a":{},"b":1,"a":2}]}}"#,
        r#"{"metric":"m","value":1,"x":1,"\u0078":2}"#,
        r#"{"metric":"m","value":1,"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"a":2}"#,
    ] {
        assert!(read(text).ends_with(": duplicate_key"), "{text}: {}", read(text));
    }
    assert_eq!(
        read(r#"{"metric":"m","value":1,"meta":{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}}"#),
        r#"m[] Absent = 1.0 {"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#
    );
    assert_eq!(read(r#"{"metric":"m","value":1,"value":2,"x":NaN}"#), ": invalid_json", "grammar wins");
}

#[test]
fn sixteen_levels_and_no_more() {
    let nested =
        |levels: usize| format!(r#"{{"metric":"m","value":1,"meta":{{"a":{}{}}}}}"#, "[".repeat(levels - 2), "]".repeat(levels - 2));
    assert!(read(&nested(16)).starts_with("m[]"));
    for levels in [17, 18, 64, 1000, 100_000] {
        assert_eq!(read(&nested(levels)), "meta: too_deep", "{levels}");
        assert_eq!(read(&nested(levels).replace("]}}", "}}")), ": invalid_json", "{levels}");
    }
    assert_eq!(read(&format!(r#"{{"metric":"m","value":1,"x":{}{}}}"#, "[".repeat(40), "]".repeat(40))), "x: too_deep");
    assert_eq!(read(&(r#"{"a": "#.repeat(1000) + "1" + &"}".repeat(1000))), "a: too_deep");
    assert_eq!(read(&"[".repeat(100_000)), ": invalid_json");
    assert_eq!(read(&("[".repeat(100_000) + &"]".repeat(100_000))), ": too_deep");
    assert_eq!(read(&format!(r#"{{"metric":"m","value":1,"labels":{{"a":{}{}}}}}"#, "[".repeat(15), "]".repeat(15))), "labels: too_deep");
}

#[test]
fn values_are_finite_json_numbers() {
    for (number, value) in
        [("123456789012345678", "1.2345678901234568e17"), ("5e-324", "5e-324"), ("-0.0", "-0.0"), ("1E+2", "100.0"), ("0.1", "0.1")]
    {
        assert_eq!(read(&format!(r#"{{"metric":"m","value":{number}}}"#)), format!("m[] Absent = {value}"));
    }
    for (value, code) in [
        ("1e999", "invalid_value"),
        ("-1e999", "invalid_value"),
        ("\"5\"", "invalid_type"),
        ("null", "invalid_type"),
        ("true", "invalid_type"),
        ("[]", "invalid_type"),
        ("{}", "invalid_type"),
    ] {
        assert_eq!(read(&format!(r#"{{"metric":"m","value":{value}}}"#)), format!("value: {code}"));
    }
}

#[test]
fn metrics_labels_ids_and_meta_are_checked() {
    for metric in [r#""""#, r#""a\nb""#, r#""a\u0000""#, r#""\u007f""#, r#""\u0085""#] {
        assert_eq!(read(&format!(r#"{{"metric":{metric},"value":1}}"#)), "metric: invalid_metric", "{metric}");
    }
    assert_eq!(read(&format!(r#"{{"metric":"{}","value":1}}"#, "x".repeat(256))), "metric: invalid_metric");
    let labels = |n: usize| (0..n).map(|i| format!(r#""l{i}":"x""#)).collect::<Vec<_>>().join(",");
    for bad in [
        "5",
        "\"a=b\"",
        "[\"a\"]",
        "{\"a\":1}",
        "{\"a\":null}",
        "{\"a\":{\"b\":\"c\"}}",
        "{\"\":\"x\"}",
        &format!("{{{}}}", labels(33)),
        &format!("{{\"{}\":\"\"}}", "x".repeat(256)),
    ] {
        assert_eq!(read(&format!(r#"{{"metric":"m","value":1,"labels":{bad}}}"#)), "labels: invalid_labels", "{bad}");
    }
    assert!(read(&format!(r#"{{"metric":"m","value":1,"labels":{{{}}}}}"#, labels(32))).contains("(\"l31\", \"x\")"));
    for (id, expected) in [
        ("5", "id: invalid_id"),
        ("\"\"", "id: invalid_id"),
        (&*format!("\"{}\"", "x".repeat(256)), "id: invalid_id"),
        ("\"a\\u0062\"", "m[] Absent = 1.0 #ab"),
    ] {
        assert_eq!(read(&format!(r#"{{"metric":"m","value":1,"id":{id}}}"#)), expected);
    }
    for meta in ["5", "[]", "\"x\"", "true"] {
        assert_eq!(read(&format!(r#"{{"metric":"m","value":1,"meta":{meta}}}"#)), "meta: invalid_meta");
    }
}

#[test]
fn meta_is_minified_and_otherwise_as_it_was_sent() {
    for (meta, expected) in [
        ("{}", "{}"),
        ("{ }", "{}"),
        ("{\n \"a b\" : [ 1 , \"x \\\" y\" , { } ] }", "{\"a b\":[1,\"x \\\" y\",{}]}"),
        ("{\"n\":1.50,\"s\":\"\\u00e9\\\\\"}", "{\"n\":1.50,\"s\":\"\\u00e9\\\\\"}"),
    ] {
        assert_eq!(read(&format!(r#"{{"metric":"m","value":1,"meta":{meta}}}"#)), format!("m[] Absent = 1.0 {expected}"));
    }
}

#[test]
fn timestamps_are_exact_and_of_the_right_kind() {
    check(&[
        (r#"{"metric":"m","value":1,"timestamp":1737453600.123456789}"#, "m[] Instant(1737453600123456789) = 1.0"),
        (r#"{"metric":"m","value":1,"timestamp":1.737453600123456789e9}"#, "m[] Instant(1737453600123456789) = 1.0"),
        (r#"{"metric":"m","value":1,"timestamp":"2025-01-21T10:00:00.000000001Z"}"#, "m[] Instant(1737453600000000001) = 1.0"),
        (r#"{"metric":"m","value":1,"timestamp":1737453600000}"#, "timestamp: milliseconds_timestamp"),
        (r#"{"metric":"m","value":1,"timestamp":1e999}"#, "timestamp: invalid_timestamp"),
        (r#"{"metric":"m","value":1,"timestamp":-0.5}"#, "timestamp: invalid_timestamp"),
        (r#"{"metric":"m","value":1,"timestamp":""}"#, "timestamp: invalid_timestamp"),
        (r#"{"metric":"m","value":1,"timestamp":"1737453600"}"#, "timestamp: invalid_timestamp"),
        (r#"{"metric":"m","value":1,"timestamp":true}"#, "timestamp: invalid_type"),
        (r#"{"metric":"m","value":1,"timestamp":[]}"#, "timestamp: invalid_type"),
        (r#"{"metric":"m","value":1,"timestamp":{}}"#, "timestamp: invalid_type"),
    ]);
}

/// Any JSON value as text, with white space here and there.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?",
        "\"[a-zé 0-9]{0,10}(\\\\n|\\\\u00e9|\\\\\"|\\\\\\\\)?\"",
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[ {}]", items.join(" ,"))),
            proptest::collection::vec(("[a-d]{1,2}", inner), 0..5)
                .prop_map(|items| format!("{{{}}}", items.iter().map(|(k, v)| format!("\n\"{k}\": {v}")).collect::<Vec<_>>().join(","))),
        ]
    })
}

fn depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(items) => 1 + items.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A member of an event, mostly as it is usual, sometimes odd.
fn member() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,9})(\\.[0-9]{1,6})?",
        "-?[0-9]{1,22}\\.?[0-9]{0,22}([eE][+-]?[0-9]{0,3})?",
        Just("1e999".to_owned()),
        Just("NaN".to_owned()),
    ];
    let text = prop_oneof![
        "\"[a-zé0-9_. ]{0,12}\"",
        "\"[a-z]{0,3}(\\\\n|\\\\u00e9|\n|\\\\x)[a-z]{0,3}\"",
        Just("\"2025-01-21T10:00:00Z\"".to_owned())
    ];
    let key = prop_oneof![
        4 => Just("timestamp"), 4 => Just("metric"), 4 => Just("value"), 2 => Just("labels"), 2 => Just("meta"), 2 => Just("id"),
        1 => Just("time"), 1 => Just("other"), 1 => Just("m\\u0065tric")
    ];
    let flat = proptest::collection::vec(
        ("[a-d]{1,2}", prop_oneof![text.clone(), number.clone(), Just("[{}]".to_owned()), Just("true".to_owned())]),
        0..10,
    )
    .prop_map(|pairs| format!("{{{}}}", pairs.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect::<Vec<_>>().join(",")));
    (key, prop_oneof![3 => number, 3 => text, 2 => flat, 1 => json()], " {0,1}")
        .prop_map(|(key, value, space)| format!("{space}\"{key}\"{space}:{space}{value}{space}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_plain_form_means_what_the_general_reader_says(members in proptest::collection::vec(member(), 0..6), end in prop_oneof![8 => Just("}"), 1 => Just("},"), 1 => Just("")]) {
        let usual = r#""timestamp": 1.5,"metric":"m","value":2"#.to_owned();
        for start in ["", &format!("{usual},")] {
            let text = format!("{{{start}{}{end}", members.join(","));
            prop_assert_eq!(read(&text), read_generally(&text), "{}", text);
        }
    }

    #[test]
    fn accepts_the_grammar_that_serde_json_accepts(text in json(), cut in any::<proptest::sample::Index>(), noise in "[\\[\\]{},:\"\\\\0-9eE+.tn -]{0,2}") {
        let at = cut.index(text.len() + 1);
        let at = (0..=at).rev().find(|&i| text.is_char_boundary(i)).unwrap();
        for text in [text.clone(), format!("{}{noise}{}", &text[..at], &text[at..]), text[..at].to_owned()] {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            if theirs.as_ref().is_err_and(|e| e.to_string().contains("out of range")) {
                continue;
            }
            prop_assert_eq!(read(&text) != ": invalid_json", theirs.is_ok(), "{}: {}", text, read(&text));
        }
    }

    #[test]
    fn gives_the_numbers_strings_and_meta_that_serde_json_gives(meta in json(), text in "\"(metric|value|[a-zé]{0,9}|\\\\u00e9|\\\\\"|\\\\t| )*\"", bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        let event = format!("{{\"meta\": {{\"x\": {meta}}}, \"value\": {value:e}, \"labels\": {{\"k\": {text}}}, \"metric\": \"m\"}}");
        let theirs: serde_json::Value = serde_json::from_str(&event).unwrap();
        let mut taken = None;
        let result = EventReader::new(Forms::Strict).read(&event, |draft| {
            taken = Some((draft.value, draft.labels[0].1.to_owned(), draft.meta.unwrap().to_owned()));
            Ok(())
        });
        match result {
            Ok(()) => {
                let (number, label, meta) = taken.unwrap();
                prop_assert_eq!(number.to_bits(), value.to_bits());
                prop_assert_eq!(Some(&*label), theirs["labels"]["k"].as_str());
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&meta).unwrap(), &theirs["meta"]);
                prop_assert!(depth(&theirs) <= MAX_LEVELS);
            }
            Err(rejected) => prop_assert!(matches!(rejected.code, Code::DuplicateKey | Code::TooDeep), "{:?}", rejected),
        }
    }
}

#[test]
fn the_usual_events_take_the_shortcut() {
    for text in [
        r#"{"timestamp": 1234567890.5, "metric": "cpu_usage", "value": 85.5, "labels": {"dc": "eu"}, "meta": {"host":"server-01"}, "id": "x"}"#,
        r#"{"metric":"m","value":-1}"#,
        r#"{"value":0.25,"metric":"température","timestamp":"2025-01-21T10:00:00Z"}"#,
    ] {
        assert!(Plain::read(text).is_some(), "{text}");
    }
}
