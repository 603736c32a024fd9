//! What is written to Redis beside a frame, in the script that appends it.

use serde::{Deserialize, Serialize};

use super::error::LogError;
use super::side::Side;
use super::stream::Answer;
use crate::redis::keys;

/// For how long answers to an `Idempotency-Key`, and uploads that have ended, are kept.
const KEPT_SECONDS: &str = "86400";
/// For how long an upload is known that never ends, since the replica that has its files is gone.
const LONGEST_SECONDS: &str = "604800";

/// What is to be written beside a frame, as words of commands.
#[derive(Default)]
pub(super) struct Commands {
    pub(super) words: Vec<Vec<u8>>,
    /// Keys that must not be there yet.
    pub(super) new_keys: Vec<Vec<u8>>,
    /// Keys that must still be there.
    pub(super) there_keys: Vec<Vec<u8>>,
}

impl Commands {
    fn push(&mut self, words: &[&[u8]]) {
        self.words.push(words.len().to_string().into_bytes());
        self.words.extend(words.iter().map(|word| word.to_vec()));
    }

    pub(super) fn put(&mut self, side: &Side, replica: &str) -> Result<(), LogError> {
        match side {
            Side::Answer { key, fingerprint, report, at: _ } => {
                let answer = write_json(&Answer { fingerprint: *fingerprint, report: report.clone() })?;
                let key = keys::answer(key);
                self.push(&[b"SET", &key, &answer, b"EX", KEPT_SECONDS.as_bytes()]);
                self.new_keys.push(key);
            }
            Side::Upload(row) | Side::UploadAgain(row) => {
                self.push(&[b"HSET", &keys::upload(&row.id), b"row", &write_json(row)?, b"replica", replica.as_bytes()]);
                self.push(&[b"EXPIRE", &keys::upload(&row.id), LONGEST_SECONDS.as_bytes()]);
                self.push(&[b"SADD", &keys::running(replica), row.id.as_bytes()]);
                self.push(&[b"EXPIRE", &keys::running(replica), LONGEST_SECONDS.as_bytes()]);
                if let Some(key) = row.key.as_ref().map(|key| keys::upload_by_key(key)) {
                    self.push(&[b"SET", &key, row.id.as_bytes(), b"EX", LONGEST_SECONDS.as_bytes()]);
                    if matches!(side, Side::Upload(_)) {
                        self.new_keys.push(key);
                    }
                }
            }
            Side::Progress(progress) => {
                let file = progress.file.to_string();
                self.push(&[b"HSET", &keys::upload(&progress.upload), file.as_bytes(), &write_json(progress)?]);
                self.push(&[b"EXPIRE", &keys::upload(&progress.upload), LONGEST_SECONDS.as_bytes()]);
            }
            Side::UploadEnded { row } => {
                let key = keys::upload(&row.id);
                self.push(&[b"HSET", &key, b"row", &write_json(row)?]);
                self.push(&[b"EXPIRE", &key, KEPT_SECONDS.as_bytes()]);
                self.push(&[b"SREM", &keys::running(replica), row.id.as_bytes()]);
                if let Some(of_key) = &row.key {
                    self.push(&[b"EXPIRE", &keys::upload_by_key(of_key), KEPT_SECONDS.as_bytes()]);
                }
            }
            Side::Moved { taken } => {
                let key = keys::taken(*taken);
                self.push(&[b"DEL", &key]);
                self.there_keys.push(key);
            }
            Side::Count { name, by } => self.push(&[b"HINCRBY", keys::COUNTS, name.as_bytes(), by.to_string().as_bytes()]),
        }
        Ok(())
    }
}

pub(super) fn write_json(value: &impl Serialize) -> Result<Vec<u8>, LogError> {
    serde_json::to_vec(value).map_err(|fault| LogError::Away(format!("what goes with a frame cannot be written as JSON: {fault}")))
}

pub(super) fn read_json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, LogError> {
    serde_json::from_str(text).map_err(|fault| LogError::Away(format!("redis holds JSON that cannot be read: {fault}")))
}
