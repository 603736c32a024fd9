//! How a write lies in the journal, and the result of an anomaly in its hash.

use xxhash_rust::xxh3::xxh3_64;

use super::{StoreError, Write};

/// How an entry's bytes are to be read: version, length and checksum of what is packed behind them. The chain is made of these.
const VERSION: u8 = 1;
const HEAD: usize = 17;
const COMPRESSION: i32 = 1;

/// The hash under which the result of an anomaly's event is kept, where the event has an id: its key and its fields.
pub(super) fn result_of(body: &str) -> Option<(String, Vec<(&'static str, String)>)> {
    let anomaly: serde_json::Value = serde_json::from_str(body).ok()?;
    let id = anomaly.get("event_id")?.as_str()?;
    let text = |name: &str| match anomaly.get(name) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let mut fields: Vec<(&'static str, String)> =
        ["metric", "series", "timestamp", "value", "score", "z_score", "severity", "explanation"].map(|name| (name, text(name))).into();
    fields.push(("anomaly", "1".into()));
    fields.push(("anomaly_id", text("id")));
    fields.push(("data", body.to_owned()));
    Some((format!("event:{id}"), fields))
}

pub(super) fn encode(write: &Write) -> Result<Vec<u8>, StoreError> {
    let unreadable = |reason: String| StoreError::Unreadable { number: 0, reason };
    let json = serde_json::to_vec(write).map_err(|fault| unreadable(fault.to_string()))?;
    let packed = zstd::bulk::compress(&json, COMPRESSION).map_err(|fault| unreadable(fault.to_string()))?;
    let mut entry = Vec::with_capacity(packed.len() + HEAD);
    entry.push(VERSION);
    entry.extend_from_slice(&(json.len() as u64).to_le_bytes());
    entry.extend_from_slice(&xxh3_64(&json).to_le_bytes());
    entry.extend_from_slice(&packed);
    Ok(entry)
}

pub(super) fn decode(entry: &[u8]) -> Result<Write, StoreError> {
    let unreadable = |reason: String| StoreError::Unreadable { number: 0, reason };
    let (&version, rest) = entry.split_first().ok_or_else(|| unreadable("it is empty".into()))?;
    if version != VERSION {
        return Err(unreadable(format!("it has version {version}, this anomaly reads {VERSION}: use a newer one")));
    }
    let (length, packed) = rest.split_first_chunk::<8>().ok_or_else(|| unreadable("it is cut".into()))?;
    let length = u64::from_le_bytes(*length) as usize;
    let (checksum, packed) = packed.split_first_chunk::<8>().ok_or_else(|| unreadable("it is cut".into()))?;
    let json = zstd::bulk::decompress(packed, length).map_err(|fault| unreadable(fault.to_string()))?;
    if xxh3_64(&json).to_le_bytes() != *checksum {
        return Err(unreadable("its checksum does not match".into()));
    }
    serde_json::from_slice(&json).map_err(|fault| unreadable(fault.to_string()))
}

#[cfg(test)]
mod tests {
    use anomaly_engine::Timestamp;

    use super::*;
    use crate::store::handling::{Act, Word};

    #[test]
    fn a_write_is_read_as_it_was_written() {
        let write = Write::Act {
            incident: "i".into(),
            act: Act::Feedback { useful: true, rule: "default".into() },
            word: Word { by: Some("ada".into()), comment: None },
            at: Timestamp::from_seconds(7),
        };
        let entry = encode(&write).unwrap();
        assert_eq!(format!("{:?}", decode(&entry).unwrap()), format!("{write:?}"));
        assert!(decode(&entry[..entry.len() - 1]).is_err() && decode(&[]).is_err());
        let newer = [&[VERSION + 1], &entry[1..]].concat();
        assert!(decode(&newer).unwrap_err().to_string().contains("use a newer one"));
    }

    #[test]
    fn a_result_is_kept_under_the_id_of_its_event() {
        let (key, fields) = result_of(r#"{"id":"a1","event_id":"7-0","metric":"cpu","value":95.0,"z_score":null}"#).unwrap();
        assert_eq!(key, "event:7-0");
        assert!(fields.contains(&("metric", "cpu".into())) && fields.contains(&("value", "95.0".into())));
        assert!(fields.contains(&("anomaly", "1".into())) && fields.contains(&("anomaly_id", "a1".into())));
        assert_eq!(result_of(r#"{"id":"a1","event_id":null}"#), None);
    }
}
