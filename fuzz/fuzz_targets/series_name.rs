//! The name of a series: read and written, it is the same series, and its name is no other's.
#![no_main]

use anomaly_engine::SeriesKey;
use anomaly_fuzz::Choices;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(key) = SeriesKey::parse(text)
    {
        round_trip(&key);
    }
    if let Ok(key) = SeriesKey::from_bytes(data) {
        let (_, labels) = (key.name(), key.labels());
        let again = SeriesKey::new(key.metric(), &labels);
        assert_eq!((again.metric(), again.labels().len()), (key.metric(), labels.len()));
    }
    // A metric and labels of any text, each with a byte for its length.
    let mut choices = Choices(data);
    let mut text = || {
        let n = choices.byte() as usize % 24;
        String::from_utf8_lossy(choices.take(n)).into_owned()
    };
    let metric = text();
    let mut labels: Vec<(String, String)> = (0..4).map(|_| (text(), text())).collect();
    labels.sort();
    labels.dedup_by(|a, b| a.0 == b.0);
    let pairs: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if !metric.is_empty() {
        let keys: Vec<_> = (0..=pairs.len()).map(|n| SeriesKey::new(&metric, &pairs[..n])).collect();
        keys.iter().for_each(round_trip);
        assert!(keys.windows(2).all(|pair| pair[0].name() != pair[1].name()));
        assert_eq!(keys[pairs.len()].labels(), pairs);
    }
});

fn round_trip(key: &SeriesKey) {
    let name = key.name();
    assert_eq!(SeriesKey::parse(&name).as_ref(), Some(key), "{name}");
    assert_eq!(SeriesKey::from_bytes(key.as_bytes()).as_ref(), Ok(key));
}
