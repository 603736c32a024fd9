//! Reads the log on Redis beside those who append to it.

use std::sync::Arc;

use anomaly_engine::frame;
use redis::streams::{StreamId, StreamRangeReply};
use redis::{Value, from_redis_value};

use super::error::LogError;
use super::stream::UNNUMBERED;
use crate::redis::keys::{self, field};
use crate::redis::{Reconnecting, RedisPlace};
use crate::store::journal::Progress;

/// Entries that are read at a time: few at first, then as many as make about so many bytes.
const FEW_ENTRIES: usize = 4;
const MOST_ENTRIES: usize = 256;
const STEP_BYTES: usize = 4 << 20;

/// How many entries of a stream to read at a time, by how large they were: Redis and we hold an answer whole.
#[derive(Clone, Copy, Debug)]
pub struct Stride(usize);

impl Default for Stride {
    fn default() -> Self {
        Self(FEW_ENTRIES)
    }
}

impl Stride {
    /// As many as to ask for.
    pub fn count(self) -> usize {
        self.0
    }

    /// So many entries of so many bytes have come.
    pub fn learn(&mut self, entries: usize, bytes: usize) {
        let Some(mean) = bytes.checked_div(entries) else { return };
        // Grows step by step: those to come may be larger.
        self.0 = (STEP_BYTES / mean.max(1)).min(2 * self.0).clamp(1, MOST_ENTRIES);
    }
}

/// A frame of the stream.
#[derive(Clone, Debug)]
pub struct StreamFrame {
    pub number: u64,
    pub bytes: Vec<u8>,
    /// Its events.
    pub events: u64,
    /// All events up to its end.
    pub appended: u64,
}

/// Reads frames beside those who append.
#[derive(Debug)]
pub struct RedisReader {
    connection: Reconnecting,
    /// Told of the frames that are read.
    progress: Option<Arc<Progress>>,
    stride: Stride,
}

impl RedisReader {
    /// A reader with a connection of its own.
    pub fn new(place: RedisPlace) -> Self {
        Self { connection: Reconnecting::new(place), progress: None, stride: Stride::default() }
    }

    /// The same, which tells how many events were appended up to each frame that it reads.
    pub fn telling(self, progress: Arc<Progress>) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// The server that it reads from: `host:port`.
    ///
    /// # Errors
    /// Redis is away.
    pub fn at(&mut self) -> Result<String, LogError> {
        Ok(self.connection.link()?.at().to_owned())
    }

    /// Frames from number `from` on, in order, until they make `max_bytes`; at least one, where there is one.
    ///
    /// # Errors
    /// Redis is away.
    pub fn read(&mut self, from: u64, max_bytes: usize) -> Result<Vec<StreamFrame>, LogError> {
        let (mut frames, mut bytes, mut from) = (Vec::new(), 0, from);
        while bytes < max_bytes {
            let mut command = redis::cmd("XRANGE");
            command.arg(keys::LOG).arg(format!("{from}-0")).arg("+").arg("COUNT").arg(self.stride.count());
            let asked = self.stride.count();
            let reply: StreamRangeReply = self.connection.link()?.query(&command)?;
            let (n, before) = (reply.ids.len(), bytes);
            for entry in reply.ids {
                let Some(frame) = frame_of(entry) else { continue };
                bytes += frame.bytes.len();
                from = frame.number + 1;
                if let Some(progress) = &self.progress {
                    progress.appended(frame.number, frame.appended);
                }
                frames.push(frame);
            }
            self.stride.learn(n, bytes - before);
            if n < asked {
                break;
            }
        }
        Ok(frames)
    }

    /// The number of the last frame that was appended, kept or not; 0 before any was.
    ///
    /// # Errors
    /// Redis is away.
    pub fn last(&mut self) -> Result<u64, LogError> {
        let mut command = redis::cmd("HGET");
        command.arg(keys::STATE).arg(field::FRAME);
        Ok(self.connection.link()?.query::<Option<u64>>(&command)?.unwrap_or(0))
    }

    /// The number of the first frame that is kept.
    ///
    /// # Errors
    /// Redis is away.
    pub fn first(&mut self) -> Result<Option<u64>, LogError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(keys::LOG).arg("-").arg("+").arg("COUNT").arg(1);
        let reply: StreamRangeReply = self.connection.link()?.query(&command)?;
        Ok(reply.ids.first().and_then(|entry| number_of(&entry.id)))
    }

    /// Where the log goes on, if frame `from` was in it and is kept no more.
    ///
    /// # Errors
    /// Redis is away.
    pub fn next_kept(&mut self, from: u64) -> Result<Option<u64>, LogError> {
        let next = match self.first()? {
            Some(first) => first,
            None => self.last()? + 1,
        };
        if next <= from {
            return Ok(None);
        }
        // What is gone waits no more.
        let appended = self.appended_upto(next - 1)?;
        if let Some(progress) = &self.progress {
            progress.appended(next - 1, appended);
        }
        Ok(Some(next))
    }

    /// Events of all frames up to number `frame`.
    ///
    /// # Errors
    /// Redis is away.
    pub fn appended_upto(&mut self, frame: u64) -> Result<u64, LogError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(keys::LOG).arg(format!("{}-0", frame + 1)).arg("+").arg("COUNT").arg(1);
        let reply: StreamRangeReply = self.connection.link()?.query(&command)?;
        if let Some(next) = reply.ids.into_iter().next().and_then(frame_of) {
            return Ok(next.appended - next.events);
        }
        let mut command = redis::cmd("HGET");
        command.arg(keys::STATE).arg(field::APPENDED);
        Ok(self.connection.link()?.query::<Option<u64>>(&command)?.unwrap_or(0))
    }
}

/// The frame of an entry; `None` where it is none of ours.
pub fn frame_of(mut entry: StreamId) -> Option<StreamFrame> {
    let number = number_of(&entry.id)?;
    let Value::BulkString(mut bytes) = entry.map.remove("f")? else { return None };
    let mut count = |name: &str| entry.map.remove(name).and_then(|value| from_redis_value::<u64>(value).ok());
    // What is damaged stays as it is: whoever opens it finds that out, and says so.
    frame::renumber(&mut bytes, UNNUMBERED, number);
    Some(StreamFrame { number, bytes, events: count("e")?, appended: count("a")? })
}

/// The number of an entry's id, `N-0`.
pub fn number_of(id: &str) -> Option<u64> {
    id.strip_suffix("-0")?.parse().ok()
}
