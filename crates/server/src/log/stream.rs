//! The log on Redis: one stream that every role appends to, and what must be there with a frame beside it.
//!
//! A number is given by the script that appends, so it is used once however many append at a time. With replicas to wait for,
//! script and `WAIT` go in one piece on one connection, and an append whose `WAIT` counted too few is refused: it may be in the
//! log all the same.

use std::time::Duration;

use anomaly_engine::frame::{self, FrameBuilder};
use anomaly_engine::{Report, SeriesHash};
use redis::FromRedisValue;
use serde::{Deserialize, Serialize};

use super::error::LogError;
use super::side::{SealedFrame, Side};
use super::stream_beside::{Commands, read_json};
use super::uploads::{FileProgress, UploadRow, UploadState};
use crate::clock;
use crate::redis::keys;
use crate::redis::{Fence, Reconnecting, RedisPlace, Script};

/// How long what goes with another log may take, and when a Redis that was away is tried again.
const PATIENCE: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(5);

/// A frame is sealed under this number until the script has given it its own.
pub(crate) const UNNUMBERED: u64 = 0;

/// The text of both scripts that append.
macro_rules! append_body {
    () => {
        "for i = 3, #KEYS do
  local wanted = 0
  if i - 2 > tonumber(ARGV[4]) then wanted = 1 end
  if redis.call('EXISTS', KEYS[i]) ~= wanted then return {-2, i - 2} end
end
local number, waiting = 0, 0
if #ARGV[1] > 0 then
  local state = redis.call('HMGET', KEYS[2], 'frame', 'appended', 'judged')
  local appended, events = tonumber(state[2] or '0'), tonumber(ARGV[2])
  waiting = appended - tonumber(state[3] or '0')
  if events > 0 and waiting >= tonumber(ARGV[3]) then return {-1, waiting} end
  number = tonumber(state[1] or '0') + 1
  appended = appended + events
  local all = string.format('%.0f', appended)
  redis.call('XADD', KEYS[1], string.format('%.0f-0', number), 'f', ARGV[1], 'e', ARGV[2], 'a', all)
  redis.call('HSET', KEYS[2], 'frame', string.format('%.0f', number), 'appended', all)
  waiting = waiting + events
end
local i = 5
while i <= #ARGV do
  local n = tonumber(ARGV[i])
  redis.call(unpack(ARGV, i + 1, i + n))
  i = i + n + 1
end
redis.call('HINCRBY', KEYS[2], 'appends', 1)
return {number, waiting}"
    };
}

/// KEYS: log, state, then those that must be new, then those that must be there. ARGV: frame, its events, capacity, how many must be
/// new, then commands, each with the number of
/// its words before it. Answers the number and how many events wait.
static APPEND: Script = Script::new("appending to the log", concat!("#!lua\n", append_body!()));

/// As [`APPEND`], for an owner, whose key and token come last: what it appends is little, and makes room in the end; a
/// zombie's configuration or tick must not come behind its successor's.
static APPEND_ANYWAY: Script = Script::new(
    "appending to the log",
    concat!(
        "#!lua flags=allow-oom
if redis.call('GET', table.remove(KEYS)) ~= table.remove(ARGV) then return {-3, 0} end
",
        append_body!()
    ),
);

/// KEYS: state, what is asked for. It writes, so that the `WAIT` behind it proves that what it read is replicated.
static READ: Script = Script::new(
    "reading what was kept",
    "#!lua flags=allow-oom
redis.call('HINCRBY', KEYS[1], 'appends', 1)
return redis.call('GET', KEYS[2])",
);

/// KEYS: known, counts. ARGV: the most, the counter of new series, then hashes. Answers for each whether it may enter.
static REGISTER: Script = Script::new(
    "registering series",
    "#!lua
local out, room = {}, tonumber(ARGV[1]) - redis.call('SCARD', KEYS[1])
local new = 0
for i = 3, #ARGV do
  if redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 1 then out[i - 2] = 1
  elseif room > 0 then
    redis.call('SADD', KEYS[1], ARGV[i])
    room = room - 1
    new = new + 1
    out[i - 2] = 2
  else out[i - 2] = 0 end
end
if new > 0 then redis.call('HINCRBY', KEYS[2], ARGV[2], new) end
return out",
);

/// The log, as one role appends to it.
#[derive(Debug)]
pub struct RedisLog {
    connection: Reconnecting,
    capacity: u64,
    /// Whose uploads are resumed here.
    replica: String,
    /// An estimate of the next number: others append too.
    next: u64,
    /// Events that waited after the last append.
    waiting: u64,
    /// What proves its owner.
    fence: Option<Fence>,
}

/// How a series stands that asks to enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Refused,
    Known,
    New,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) fingerprint: u64,
    pub(super) report: Report,
}

impl RedisLog {
    /// A log that takes events while fewer than `capacity` wait; `replica` names this process across restarts.
    pub fn new(place: RedisPlace, capacity: u64, replica: String) -> Self {
        Self { connection: Reconnecting::new(place), capacity, replica, next: 1, waiting: 0, fence: None }
    }

    /// What goes with a log that is elsewhere, and must not wait for long: see [`super::kafka`].
    pub fn beside(place: RedisPlace, capacity: u64, replica: String) -> Self {
        let connection = Reconnecting::impatient(place.clone(), PATIENCE).trying_again_after(AGAIN);
        Self { connection, ..Self::new(place, capacity, replica) }
    }

    /// The log for an owner, whose few records are taken whatever waits and however full Redis is.
    pub fn of_owner(place: RedisPlace, fence: Fence) -> Self {
        let replica = format!("processor-{}", fence.token());
        Self { fence: Some(fence), ..Self::new(place, u64::MAX >> 12, replica) }
    }

    /// Where it is.
    pub(super) fn place(&self) -> &RedisPlace {
        self.connection.place()
    }

    /// About the number of the next frame.
    pub fn next_frame(&self) -> u64 {
        self.next
    }

    /// Events that waited for detection when it was appended to last.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Appends a frame, where it has rows, with what goes with it, all or nothing; durable when it returns, under its number.
    ///
    /// # Errors
    /// [`LogError::Away`], after which it may be in the log; [`LogError::QueueFull`], after which it is not.
    pub fn append(&mut self, frame: FrameBuilder, events: u64, sides: &[Side]) -> Result<Option<SealedFrame>, LogError> {
        let rows = frame.rows();
        let bytes = if rows == 0 { Vec::new() } else { frame.seal(UNNUMBERED) };
        let mut commands = Commands::default();
        for side in sides {
            commands.put(side, &self.replica)?;
        }
        let (events_text, capacity) = (events.to_string(), self.capacity.to_string());
        let n_new = commands.new_keys.len().to_string();
        let mut args: Vec<&[u8]> = vec![&bytes, events_text.as_bytes(), capacity.as_bytes(), n_new.as_bytes()];
        args.extend(commands.words.iter().map(Vec::as_slice));
        let mut keys: Vec<&[u8]> = vec![keys::LOG, keys::STATE];
        keys.extend(commands.new_keys.iter().chain(&commands.there_keys).map(Vec::as_slice));
        let script = match &self.fence {
            Some(fence) => {
                keys.push(fence.key());
                args.push(fence.token().as_bytes());
                &APPEND_ANYWAY
            }
            None => &APPEND,
        };
        let (number, waiting): (i64, i64) = self.connection.link()?.eval_durable(script, &keys, &args)?;
        match number {
            -1 => return Err(LogError::QueueFull { queued: waiting as u64, capacity: self.capacity }),
            -3 => return Err(LogError::Away("another processor has taken over".into())),
            -2 => return Err(LogError::Away("another process has just appended the same, under its key".into())),
            _ => {}
        }
        if rows == 0 {
            return Ok(None);
        }
        let number = number as u64;
        (self.next, self.waiting) = (number + 1, waiting as u64);
        let mut bytes = bytes;
        frame::renumber(&mut bytes, UNNUMBERED, number);
        Ok(Some(SealedFrame { number, rows, bytes }))
    }

    /// Lets series enter, as far as there is room for `max_series`.
    ///
    /// # Errors
    /// As for an append.
    pub fn register(&mut self, series: &[SeriesHash], max_series: u64) -> Result<Vec<Entry>, LogError> {
        let max_series = max_series.to_string();
        let hashes: Vec<_> = series.iter().map(|hash| hash.to_be_bytes()).collect();
        let counter = keys::new_series(keys::hour(clock::now()));
        let mut args: Vec<&[u8]> = vec![max_series.as_bytes(), counter.as_bytes()];
        args.extend(hashes.iter().map(|hash| &hash[..]));
        let entries: Vec<u8> = self.connection.link()?.eval::<Vec<u8>>(&REGISTER, &[keys::KNOWN, keys::COUNTS], &args)?;
        Ok(entries.into_iter().map(|entry| [Entry::Refused, Entry::Known, Entry::New][usize::from(entry.min(2))]).collect())
    }

    /// Whether a series is let in or listed.
    ///
    /// # Errors
    /// As for an append.
    pub fn knows(&mut self, series: SeriesHash) -> Result<bool, LogError> {
        let hash = series.to_be_bytes();
        Ok(self.query::<bool>(redis::cmd("SISMEMBER").arg(keys::KNOWN).arg(&hash[..]))?
            || self.query::<bool>(redis::cmd("HEXISTS").arg(keys::SERIES).arg(&hash[..]))?)
    }

    /// Series that were to enter have not. Best effort: one that stays takes a place until the owner finds it.
    pub fn unregister(&mut self, series: &[SeriesHash]) {
        if series.is_empty() {
            return;
        }
        let hashes: Vec<_> = series.iter().map(|hash| hash.to_be_bytes()).collect();
        let mut command = redis::cmd("SREM");
        command.arg(keys::KNOWN);
        for hash in &hashes {
            command.arg(&hash[..]);
        }
        if let Ok(link) = self.connection.link() {
            let _ = link.query::<u64>(&command);
        }
    }

    /// The fingerprint and the answer that are kept under a key.
    ///
    /// # Errors
    /// As for an append.
    pub fn answer(&mut self, key: &str) -> Result<Option<(u64, Report)>, LogError> {
        let text: Option<String> = self.connection.link()?.eval_durable(&READ, &[keys::STATE, &keys::answer(key)], &[])?;
        let Some(text) = text else { return Ok(None) };
        let Answer { fingerprint, report } = read_json(&text)?;
        Ok(Some((fingerprint, report)))
    }

    /// The upload of this id, with the progress of each file that has any.
    ///
    /// # Errors
    /// As for an append.
    pub fn upload(&mut self, id: &str) -> Result<Option<(UploadRow, Vec<FileProgress>)>, LogError> {
        let fields: Vec<(String, String)> = self.query(redis::cmd("HGETALL").arg(keys::upload(id)))?;
        let (mut row, mut replica, mut progress) = (None, None, Vec::new());
        for (name, text) in fields {
            match name.as_str() {
                "row" => row = Some(read_json::<UploadRow>(&text)?),
                "replica" => replica = Some(text),
                _ => progress.push(read_json::<FileProgress>(&text)?),
            }
        }
        progress.sort_by_key(|file| file.file);
        if let (Some(row), Some(replica)) = (&mut row, replica)
            && row.state == UploadState::Running
            && replica != self.replica
            && !self.query::<bool>(redis::cmd("EXISTS").arg(keys::alive(&replica)))?
        {
            // The replica that has its files is gone; should it come back, it goes on.
            row.state = UploadState::Interrupted;
        }
        Ok(row.map(|row| (row, progress)))
    }

    /// The upload that came with this `Idempotency-Key`.
    ///
    /// # Errors
    /// As for an append.
    pub fn upload_by_key(&mut self, key: &str) -> Result<Option<(UploadRow, Vec<FileProgress>)>, LogError> {
        let id: Option<String> = self.connection.link()?.eval_durable(&READ, &[keys::STATE, &keys::upload_by_key(key)], &[])?;
        id.map_or(Ok(None), |id| self.upload(&id))
    }

    /// The uploads of this replica that have not ended.
    ///
    /// # Errors
    /// As for an append.
    pub fn unfinished_uploads(&mut self) -> Result<Vec<(UploadRow, Vec<FileProgress>)>, LogError> {
        let ids: Vec<String> = self.query(redis::cmd("SMEMBERS").arg(keys::running(&self.replica)))?;
        let mut found = Vec::new();
        for id in ids {
            let owner: Option<String> = self.query(redis::cmd("HGET").arg(keys::upload(&id)).arg("replica"))?;
            if owner.as_deref() == Some(&self.replica) {
                found.extend(self.upload(&id)?);
            } else {
                // Another replica goes on with it, or it is forgotten.
                self.query::<u64>(redis::cmd("SREM").arg(keys::running(&self.replica)).arg(&id))?;
            }
        }
        found.sort_by(|(a, _), (b, _)| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(found)
    }

    /// A counter that all roles share.
    ///
    /// # Errors
    /// As for an append.
    pub fn counter(&mut self, name: &str) -> Result<u64, LogError> {
        Ok(self.query::<Option<u64>>(redis::cmd("HGET").arg(keys::COUNTS).arg(name))?.unwrap_or(0))
    }

    fn query<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, LogError> {
        Ok(self.connection.link()?.query(command)?)
    }
}
