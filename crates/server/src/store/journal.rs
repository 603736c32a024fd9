//! The store of several processes: every write is an entry of one stream on Redis, and each process does all of them, in order, to a
//! store of its own, from which it reads.
//!
//! ```text
//! write ─► script: is the lease ours? entry N ─► WAIT ─► our store ─► safe ≥ N ─► published
//!                                                other stores: entries up to safe, in order
//! ```
//! A write that only the owner may make (a commit, a decision) carries the token of its lease, and a script refuses it when the lease is
//! somebody else's. It counts when its `WAIT` has returned; readers go no further than `safe`, so what a fail-over could undo is
//! seen nowhere. Who falls behind what the stream keeps begins anew from a copy of the store ([`super::snapshot`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anomaly_engine::SeriesHash;
use anomaly_engine::frame::Position;
use redis::Value;
use redis::streams::StreamRangeReply;
use tokio::sync::watch;

use super::entry::{decode, encode, result_of};
use super::sqlite::{Applying, Store, StoreReader};
use super::{Change, Commit, Outcome, StoreError, Stored, Write};
use crate::data_dir::DataDir;
use crate::log::stream_reader::{Stride, number_of};
use crate::redis::keys::{self, field};
use crate::redis::{Anywhere, Link, Reconnecting, RedisError, RedisPlace, Script};

/// Anomalies that one script publishes, so that nobody else waits for long.
const PUBLISHED_AT_ONCE: usize = 256;

/// What both scripts do that write an entry.
macro_rules! entry_body {
    () => {
        "local n = tonumber(redis.call('HGET', KEYS[1], 'write') or '0') + 1
local text, before = string.format('%.0f', n), redis.call('HGET', KEYS[1], 'chain') or ''
local behind = redis.sha1hex(before .. string.sub(ARGV[1], 1, 17))
redis.call('XADD', KEYS[2], text .. '-0', 'w', ARGV[1], 'p', before, 'c', behind)
redis.call('HSET', KEYS[1], 'write', text, 'chain', behind)
if ARGV[2] == '1' then redis.call('HSET', KEYS[1], 'safe', text) end
"
    };
}

/// KEYS: state, journal. ARGV: entry, whether it is safe at once. Answers its number, and the chain before and behind it.
static SAY: Script = Script::new("writing to the journal", concat!("#!lua flags=allow-oom\n", entry_body!(), "return {n, before, behind}"));

/// KEYS: state, journal, what proves the owner. ARGV: entry, whether it is safe at once, token, then fields of the state and their values.
/// Answers as `SAY`; the number is 0 where it is not ours.
pub(super) static COMMIT: Script = Script::new(
    "committing",
    concat!(
        "#!lua flags=allow-oom
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return {0, '', ''} end
",
        entry_body!(),
        "if #ARGV > 3 then redis.call('HSET', KEYS[1], unpack(ARGV, 4)) end
return {n, before, behind}"
    ),
);

/// KEYS: state, what proves the owner. ARGV: token, then fields of the state and their values. Answers whether it is ours.
pub(crate) static NOTE: Script = Script::new(
    "noting how far it is",
    "#!lua flags=allow-oom
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1",
);

/// KEYS: state. ARGV: the number up to which everything is safe.
pub(super) static RAISE: Script = Script::new(
    "raising what is safe",
    "#!lua flags=allow-oom
if tonumber(redis.call('HGET', KEYS[1], 'safe') or '0') < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'safe', ARGV[1]) end
return 1",
);

/// KEYS: state, lease. ARGV: token, the last anomaly's number, channel, seconds to live, then for each anomaly its JSON, the key of
/// its hash (empty: none), and the number of fields and values that follow. What was published before is not published again.
static PUBLISH: Script = Script::new(
    "publishing",
    "#!lua flags=allow-oom
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if tonumber(redis.call('HGET', KEYS[1], 'published') or '0') >= tonumber(ARGV[2]) then return 1 end
local i = 5
while i <= #ARGV do
  local n = tonumber(ARGV[i + 2])
  if ARGV[i + 1] ~= '' then
    -- The name may be taken by something else of somebody's: that is no reason to stop.
    redis.pcall('HSET', ARGV[i + 1], unpack(ARGV, i + 3, i + 2 + n))
    redis.pcall('EXPIRE', ARGV[i + 1], ARGV[4])
  end
  redis.pcall('PUBLISH', ARGV[3], ARGV[i])
  i = i + 3 + n
end
redis.call('HSET', KEYS[1], 'published', ARGV[2])
return 1",
);

/// A store that follows the journal, and writes to it.
#[derive(Debug)]
pub struct Journal {
    view: Store,
    /// Locked for as long as the view is written.
    _dir: Arc<DataDir>,
    link: Connection,
    wait_replicas: u32,
    /// The last entry that was done to `view`.
    applied: u64,
    /// Told of it.
    told: Option<watch::Sender<u64>>,
    stride: Stride,
    /// What was done and nobody was told of: what failed behind it does not lose it.
    untold: Followed,
}

#[derive(Debug)]
enum Connection {
    /// Anybody's: made anew where it is lost.
    Anybody(Box<Reconnecting>),
    /// The owner's: lost once, it has owned for the last time.
    Owner(Box<Owner>),
}

/// What the owner of the lease writes with.
#[derive(Debug)]
pub struct Owner {
    /// On the server that gave the lease.
    pub link: Link,
    /// The lease's token.
    pub token: String,
    /// How many events were appended up to each frame.
    pub progress: Arc<Progress>,
    /// Where anomalies are published.
    pub publisher: Publisher,
    /// The number of the last anomaly that was published.
    pub published: u64,
    /// How far an owner has noted to be: a replay of what is before counts nothing anew, and must not count back.
    pub noted: u64,
    /// Where their results are written, if not beside all else.
    pub results: Option<Anywhere>,
}

/// Where anomalies are published, and for how long results are kept.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// `ALERTS_CHANNEL`.
    pub channel: String,
    /// `REDIS_RESULT_TTL_SECONDS`.
    pub ttl_seconds: u64,
}

/// How many events were appended up to the end of each frame that is not committed.
#[derive(Debug, Default)]
pub struct Progress {
    frames: Mutex<BTreeMap<u64, u64>>,
}

impl Progress {
    /// All events up to the end of a frame.
    pub fn appended(&self, frame: u64, events: u64) {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).insert(frame, events);
    }

    /// All events up to the end of `frame`, if that is known; those of frames before it are let go.
    fn upto(&self, frame: u64) -> Option<u64> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let later = frames.split_off(&(frame + 1));
        let upto = std::mem::replace(&mut *frames, later);
        upto.last_key_value().map(|(_, events)| *events)
    }
}

/// What entries have done to the store.
#[derive(Debug, Default)]
pub struct Followed {
    /// New anomalies, in order.
    pub stored: Vec<Stored>,
    /// Series that were forgotten.
    pub forgotten: Vec<SeriesHash>,
    /// Series that have left memory.
    pub idle: Vec<SeriesHash>,
    /// Incidents may stand otherwise.
    pub news: bool,
    /// There may be something to send.
    pub decisions: bool,
}

impl Journal {
    /// Follows the journal with a store that has done its entries up to `view.applied()`, and writes what anybody may.
    pub fn follower(view: Store, dir: Arc<DataDir>, place: RedisPlace) -> Self {
        let (wait_replicas, applied) = (place.wait_replicas, view.applied());
        Self {
            view,
            _dir: dir,
            link: Connection::Anybody(Box::new(Reconnecting::new(place))),
            wait_replicas,
            applied,
            told: None,
            stride: Stride::default(),
            untold: Followed::default(),
        }
    }

    /// As [`Journal::follower`], for the owner of the lease.
    pub fn owner(view: Store, dir: Arc<DataDir>, owner: Owner) -> Self {
        let (wait_replicas, applied) = (owner.link.wait_replicas(), view.applied());
        Self {
            view,
            _dir: dir,
            link: Connection::Owner(Box::new(owner)),
            wait_replicas,
            applied,
            told: None,
            stride: Stride::default(),
            untold: Followed::default(),
        }
    }

    /// The same, which tells how far it is.
    pub fn telling(self, told: watch::Sender<u64>) -> Self {
        Self { told: Some(told), ..self }
    }

    /// P, as far as the journal was followed.
    pub fn position(&self) -> Position {
        self.view.position()
    }

    /// A handle that reads.
    pub fn reader(&self) -> StoreReader {
        self.view.reader()
    }

    /// The last entry that was done.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Does all entries that are safe.
    ///
    /// # Errors
    /// Redis is away; the journal is not kept from here on ([`StoreError::Behind`]); the store itself.
    pub fn follow(&mut self) -> Result<Followed, StoreError> {
        let (written, safe, chain) = self.ends()?;
        // After a fail-over `safe` may be a little behind what was done here, and rises again; what was written does not go back.
        if written < self.applied || written == self.applied && chain != self.view.chain() {
            return Err(StoreError::Replaced);
        }
        let upto = if written > safe && self.is_owner() { self.prove(written)? } else { safe };
        self.follow_to(upto)?;
        Ok(std::mem::take(&mut self.untold))
    }

    /// Writes, and does it and what came before it to the store; returns what came of it, and what the others' entries did.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] where the lease is somebody else's; [`StoreError::Away`], after which it may be in the journal.
    pub fn write(&mut self, write: &Write) -> Result<(Outcome, Followed), StoreError> {
        let entry = encode(write)?;
        let at_once: &[u8] = if self.wait_replicas == 0 { b"1" } else { b"0" };
        let judged = match (write, &self.link) {
            (Write::Commit(commit), Connection::Owner(owner)) => owner.progress.upto(commit.upto.frame).map(|events| events.to_string()),
            _ => None,
        };
        let (number, before, behind): (u64, String, String) = match &mut self.link {
            Connection::Owner(owner) => {
                let mut args: Vec<&[u8]> = vec![&entry, at_once, owner.token.as_bytes()];
                if let Some(judged) = &judged {
                    args.extend([field::JUDGED.as_bytes(), judged.as_bytes()]);
                }
                owner.link.eval_durable(&COMMIT, &[keys::STATE, keys::JOURNAL, keys::LEASE], &args)?
            }
            Connection::Anybody(connection) => connection.link()?.eval_durable(&SAY, &[keys::STATE, keys::JOURNAL], &[&entry, at_once])?,
        };
        if number == 0 {
            return Err(StoreError::Deposed);
        }
        self.follow_to(number - 1)?;
        let outcome = self.apply(Place { number, before, behind }, write)?;
        if self.wait_replicas > 0 {
            let number = number.to_string();
            self.link()?.eval::<u8>(&RAISE, &[keys::STATE], &[number.as_bytes()])?;
        }
        Ok((outcome, std::mem::take(&mut self.untold)))
    }

    /// Notes how far the owner is, where nothing was found that is worth a write.
    ///
    /// # Errors
    /// As for a write.
    pub fn note(&mut self, frame: u64, counted: &[(&str, u64)]) -> Result<(), StoreError> {
        let Connection::Owner(owner) = &mut self.link else { return Ok(()) };
        let is_new = frame >= owner.noted;
        owner.noted = owner.noted.max(frame);
        let mut fields: Vec<(&str, String)> = counted.iter().filter(|_| is_new).map(|(name, n)| (*name, n.to_string())).collect();
        fields.extend(owner.progress.upto(frame).map(|events| (field::JUDGED, events.to_string())));
        if fields.is_empty() {
            return Ok(());
        }
        let mut args: Vec<&[u8]> = vec![owner.token.as_bytes()];
        fields.iter().for_each(|(name, value)| args.extend([name.as_bytes(), value.as_bytes()]));
        let ours: u8 = owner.link.eval(&NOTE, &[keys::STATE, keys::LEASE], &args)?;
        if ours == 1 { Ok(()) } else { Err(StoreError::Deposed) }
    }

    /// Publishes anomalies that are safe, in order, each once; those of an owner that died between writing and publishing too.
    ///
    /// # Errors
    /// As for a write.
    pub fn publish(&mut self, stored: &[Stored]) -> Result<(), StoreError> {
        let Connection::Owner(owner) = &self.link else { return Ok(()) };
        // What was done at the take-over is published already, and told again with the next.
        let new = &stored[stored.partition_point(|anomaly| anomaly.seq <= owner.published)..];
        new.chunks(PUBLISHED_AT_ONCE).try_for_each(|some| self.publish_some(some))
    }

    fn publish_some(&mut self, stored: &[Stored]) -> Result<(), StoreError> {
        let (Connection::Owner(owner), Some(last)) = (&mut self.link, stored.last()) else { return Ok(()) };
        let Publisher { channel, ttl_seconds } = &owner.publisher;
        let (last, ttl) = (last.seq.to_string(), ttl_seconds.to_string());
        let mut words: Vec<Vec<u8>> = Vec::new();
        let mut elsewhere = redis::pipe();
        for anomaly in stored {
            let mut fields = result_of(&anomaly.body);
            if let Some((key, fields)) = fields.take_if(|_| owner.results.is_some()) {
                elsewhere.cmd("HSET").arg(&key).arg(fields).ignore();
                elsewhere.cmd("EXPIRE").arg(&key).arg(*ttl_seconds).ignore();
            }
            words.push(anomaly.body.clone().into_bytes());
            words.push(fields.as_ref().map(|(key, _)| key.clone().into_bytes()).unwrap_or_default());
            let fields = fields.map(|(_, fields)| fields).unwrap_or_default();
            words.push((2 * fields.len()).to_string().into_bytes());
            words.extend(fields.into_iter().flat_map(|(name, value)| [name.as_bytes().to_vec(), value.into_bytes()]));
        }
        if let Some(results) = &mut owner.results
            && !elsewhere.is_empty()
        {
            // Best effort: they are for a look.
            let _ = results.pipe(&elsewhere);
        }
        let mut args: Vec<&[u8]> = vec![owner.token.as_bytes(), last.as_bytes(), channel.as_bytes(), ttl.as_bytes()];
        args.extend(words.iter().map(Vec::as_slice));
        let ours: u8 = owner.link.eval(&PUBLISH, &[keys::STATE, keys::LEASE], &args)?;
        if ours == 0 {
            return Err(StoreError::Deposed);
        }
        owner.published = stored.last().map_or(owner.published, |last| last.seq);
        Ok(())
    }

    /// What an owner before has written and not published.
    ///
    /// # Errors
    /// Redis is away, or the store.
    pub fn publish_the_rest(&mut self) -> Result<(), StoreError> {
        let mut published = self.number(field::PUBLISHED)?;
        if let Connection::Owner(owner) = &mut self.link {
            owner.published = published;
        }
        loop {
            let page = self.view.reader().after(Some(published), PUBLISHED_AT_ONCE)?;
            let Some(last) = page.last() else { return Ok(()) };
            published = last.seq;
            self.publish(&page)?;
        }
    }

    /// Does everything that is in the journal, for a new owner: an entry behind it, whose `WAIT` has returned, proves that nothing can
    /// undo what was there before. From then on it is safe.
    ///
    /// # Errors
    /// As for a write.
    pub fn take_over(&mut self) -> Result<(), StoreError> {
        let (written, ..) = self.ends()?;
        let noted = self.number(field::REACHED)?;
        if let Connection::Owner(owner) = &mut self.link {
            owner.noted = noted;
        }
        let proven = self.prove(written)?;
        self.follow_to(proven)
    }

    /// Proves that nothing can undo the entries up to `written`, and makes them safe: a refused word of somebody's may have left them
    /// open. Only the owner may.
    fn prove(&mut self, written: u64) -> Result<u64, StoreError> {
        let Connection::Owner(owner) = &mut self.link else { return Err(StoreError::Deposed) };
        let wait_replicas = owner.link.wait_replicas().to_string();
        let args: [&[u8]; 5] =
            [owner.token.as_bytes(), b"owner", owner.token.as_bytes(), field::WAIT_REPLICAS.as_bytes(), wait_replicas.as_bytes()];
        if owner.link.eval_durable::<u8>(&NOTE, &[keys::STATE, keys::LEASE], &args)? == 0 {
            return Err(StoreError::Deposed);
        }
        let number = written.to_string();
        owner.link.eval::<u8>(&RAISE, &[keys::STATE], &[number.as_bytes()])?;
        Ok(written)
    }

    /// The last entry, the last that is safe, and the chain behind the last.
    fn ends(&mut self) -> Result<(u64, u64, String), StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(keys::STATE).arg(field::WRITE).arg(field::SAFE).arg(field::CHAIN);
        let (written, safe, chain): (Option<u64>, Option<u64>, Option<String>) = self.link()?.query(&command)?;
        Ok((written.unwrap_or(0), safe.unwrap_or(0), chain.unwrap_or_default()))
    }

    /// A number of the state.
    fn number(&mut self, name: &str) -> Result<u64, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(keys::STATE).arg(name);
        Ok(self.link()?.query::<Option<u64>>(&command)?.unwrap_or(0))
    }

    /// Whether one failed write is no reason to stop. Who owned the lease when a write failed does not know what is replicated: it
    /// begins anew from what is.
    pub fn may_go_on_after(&self, fault: &StoreError) -> bool {
        match fault {
            StoreError::Away(_) | StoreError::Full(_) => !self.is_owner(),
            // What fails here alone must not be left out: the owner begins anew, others try again.
            StoreError::Sqlite(_) => fault.is_everywhere() || !self.is_owner(),
            StoreError::BadCursor(_) => true,
            _ => false,
        }
    }

    /// Ends the store's writing cleanly.
    ///
    /// # Errors
    /// The store's.
    pub fn close(self) -> Result<(), StoreError> {
        self.view.close()
    }

    fn is_owner(&self) -> bool {
        matches!(self.link, Connection::Owner(_))
    }

    fn link(&mut self) -> Result<&mut Link, RedisError> {
        match &mut self.link {
            Connection::Owner(owner) => Ok(&mut owner.link),
            Connection::Anybody(connection) => connection.link(),
        }
    }

    fn follow_to(&mut self, upto: u64) -> Result<(), StoreError> {
        while self.applied < upto {
            let mut command = redis::cmd("XRANGE");
            let (from, to) = (self.applied + 1, upto);
            command.arg(keys::JOURNAL).arg(format!("{from}-0")).arg(format!("{to}-0")).arg("COUNT").arg(self.stride.count());
            let reply: StreamRangeReply = self.link()?.query(&command)?;
            let first = reply.ids.first().and_then(|entry| number_of(&entry.id));
            if first != Some(from) {
                return Err(StoreError::Behind { wanted: from, first });
            }
            let (n, mut bytes) = (reply.ids.len(), 0);
            for entry in reply.ids {
                let number = number_of(&entry.id).unwrap_or(0);
                let write = match entry.map.get("w") {
                    Some(Value::BulkString(entry)) => {
                        bytes += entry.len();
                        decode(entry)?
                    }
                    _ => return Err(StoreError::Unreadable { number, reason: "it has no field w".into() }),
                };
                let chain = |name: &str| entry.get(name).unwrap_or_default();
                match self.apply(Place { number, before: chain("p"), behind: chain("c") }, &write) {
                    // Whoever wrote it was told; it does the same everywhere.
                    Ok(_) => {}
                    Err(fault) if fault.is_everywhere() => {
                        tracing::warn!(number, "an entry of the journal failed, as it does everywhere: {fault}");
                    }
                    Err(fault) => return Err(fault),
                }
            }
            self.stride.learn(n, bytes);
        }
        Ok(())
    }

    fn apply(&mut self, place: Place, write: &Write) -> Result<Outcome, StoreError> {
        let Place { number, before, behind } = place;
        // Entries that were not written behind ours are of another journal: Redis was emptied, restored, or has failed over.
        if number != self.applied + 1 || before != self.view.chain() {
            return Err(StoreError::Replaced);
        }
        let done = self.view.apply_numbered(Applying { number, chain: behind }, write);
        if done.as_ref().err().is_none_or(StoreError::is_everywhere) {
            self.applied = number;
            if let Some(told) = &self.told {
                told.send_replace(number);
            }
        }
        let outcome = done?;
        let followed = &mut self.untold;
        if let Outcome::Stored(stored) = &outcome {
            followed.stored.extend(stored.iter().cloned());
        }
        if let Write::Commit(Commit { changes, .. }) = write {
            for change in changes {
                match change {
                    Change::Forget(series) => followed.forgotten.push(*series),
                    Change::Idle(series) => followed.idle.extend(series),
                    _ => {}
                }
            }
        }
        followed.news |= write.is_news();
        followed.decisions |= write.is_decision();
        Ok(outcome)
    }
}

/// Where an entry stands in the journal: its number, and the chain before and behind it.
struct Place {
    number: u64,
    before: String,
    behind: String,
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        Self::Away(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_known_up_to_a_frame_and_let_go() {
        let progress = Progress::default();
        progress.appended(1, 10);
        progress.appended(2, 15);
        progress.appended(4, 40);
        assert_eq!((progress.upto(3), progress.upto(3), progress.upto(9)), (Some(15), None, Some(40)));
    }
}
