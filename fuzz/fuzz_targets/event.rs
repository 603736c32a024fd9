//! One event: what is taken is an event, and JSON by the word of another parser.
#![no_main]

use anomaly_engine::frame::BatchBuilder;
use anomaly_engine::parse::{Context, parse_event};
use anomaly_engine::{Code, NANOS};
use anomaly_fuzz::{ARRIVAL, is_json, samples};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let context = Context::new(ARRIVAL, 60 * NANOS);
    let mut builder = BatchBuilder::with_made_ids();
    let result = parse_event(body, &context, &mut builder);
    assert_eq!(builder.len(), usize::from(result.is_ok()));
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let is_utf8 = std::str::from_utf8(text).is_ok();
    match result {
        Ok(()) => {
            let sample = &samples(builder)[0];
            assert!(sample.nanos <= ARRIVAL.nanos() + 60 * NANOS);
            assert_eq!(sample.made_id, sample.id.is_none());
            let theirs: serde_json::Value = match serde_json::from_slice(text) {
                Ok(value) => value,
                // A number beyond f64 in a field that does not count.
                Err(error) => return assert!(error.to_string().contains("out of range"), "taken, and no JSON: {error}"),
            };
            assert_eq!(theirs["value"].as_f64().map(f64::to_bits), Some(sample.bits));
            let metric = if theirs["metric"].is_null() { &theirs["name"] } else { &theirs["metric"] };
            assert_eq!(metric.as_str(), Some(sample.key.metric()));
            assert_eq!(theirs["labels"].as_object().map_or(0, |labels| labels.len()), sample.key.labels().len());
            for (name, value) in sample.key.labels() {
                assert_eq!(theirs["labels"][name].as_str(), Some(value));
            }
            assert_eq!(theirs["id"].as_str(), sample.id.as_deref());
            let meta = sample.meta.as_ref().map(|meta| serde_json::from_str::<serde_json::Value>(meta).expect("meta is JSON"));
            assert_eq!(meta.as_ref().unwrap_or(&serde_json::Value::Null), &theirs["meta"]);
        }
        Err(rejected) => {
            assert_eq!(rejected.line, 1);
            assert!(!rejected.message.is_empty());
            match rejected.code {
                Code::InvalidUtf8 => assert!(!is_utf8),
                Code::TooLarge => assert!(text.len() > context.max_event_bytes),
                code => assert_ne!(Some(code == Code::InvalidJson), is_json(text), "{rejected:?}"),
            }
        }
    }
});
