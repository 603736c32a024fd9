//! What the owner of one partition writes to the journal: what it has found, and how far it is.
//!
//! It has no store: who leads, and every API, does the entries of all partitions in the order of the journal.

use anomaly_engine::frame::{Position, base_of};

use super::entry::encode;
use super::journal::{COMMIT, Followed, NOTE, RAISE};
use super::{Outcome, StoreError, Write};
use crate::clock;
use crate::redis::keys::{self, field};
use crate::redis::{Fence, Link, Script, owner};
use crate::share::Share;

/// KEYS: state, owner. ARGV: the field of the epoch, the field of P, a nonce, the time, the field of what is noted. Answers the epoch, P, and that. The epoch is not below the
/// time in milliseconds, so that a Redis that was emptied gives none that the log has seen.
static OWN: Script = Script::new(
    "taking over a partition",
    "#!lua flags=allow-oom
local last = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
local epoch = string.format('%.0f', math.max(last + 1, tonumber(ARGV[4])))
redis.call('HSET', KEYS[1], ARGV[1], epoch)
redis.call('SET', KEYS[2], epoch .. ':' .. ARGV[3])
return {epoch, redis.call('HGET', KEYS[1], ARGV[2]), redis.call('HGET', KEYS[1], ARGV[5])}",
);

/// The journal, as the owner of a partition has it.
#[derive(Debug)]
pub struct PartitionJournal {
    link: Link,
    share: Share,
    fence: Fence,
    epoch: u64,
    position: Position,
    /// How far an owner has noted to be: a replay of what is before says nothing new.
    noted: u64,
}

impl PartitionJournal {
    /// Takes a partition over: from here on nobody who had it before writes anything, and all that was written is replicated. Kafka
    /// says whose it is. `checkpoints` goes to where those of the partition are.
    ///
    /// # Errors
    /// Redis is away, or another has taken it over meanwhile.
    pub fn take_over(mut link: Link, checkpoints: &mut Link, share: Share, nonce: &str) -> Result<Self, StoreError> {
        let key = keys::owner_of(share.partition);
        let (epochs, committed) = (share.field(field::EPOCH), share.field(field::COMMITTED));
        let now = (clock::now().nanos() / 1_000_000).to_string();
        let reached = share.field(field::REACHED);
        let args: [&[u8]; 5] = [epochs.as_bytes(), committed.as_bytes(), nonce.as_bytes(), now.as_bytes(), reached.as_bytes()];
        let (epoch, frame, noted): (u64, Option<u64>, Option<u64>) = link.eval_durable(&OWN, &[keys::STATE, &key], &args)?;
        let token = format!("{epoch}:{nonce}");
        if !owner::take(checkpoints, &keys::checkpoint_owner_of(share.partition), &token)? {
            return Err(StoreError::Deposed);
        }
        let position = Position { frame: frame.unwrap_or(base_of(share.partition)), row: u32::MAX };
        Ok(Self { link, share, fence: Fence::new(key, token), epoch, position, noted: noted.unwrap_or(0) })
    }

    /// P of the partition.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How far an owner has judged: at P, or further, where it found nothing.
    pub fn reached(&self) -> u64 {
        self.position.frame.max(self.noted)
    }

    /// What proves that it is ours.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// The same for its checkpoints, which lie elsewhere.
    pub fn checkpoint_fence(&self) -> Fence {
        Fence::new(keys::checkpoint_owner_of(self.share.partition), self.fence.token().to_owned())
    }

    /// Which owner this is; it rises.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Writes.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] where it is somebody else's; [`StoreError::Away`], after which it may be in the journal.
    pub fn write(&mut self, write: &Write) -> Result<(Outcome, Followed), StoreError> {
        let entry = encode(write)?;
        let replicas = self.link.wait_replicas();
        let at_once: &[u8] = if replicas == 0 { b"1" } else { b"0" };
        let mut position = self.position;
        if let Write::Commit(commit) = write {
            position = position.max(commit.upto);
        }
        let (committed, frame) = (self.share.field(field::COMMITTED), position.frame.to_string());
        let args: [&[u8]; 5] = [&entry, at_once, self.fence.token().as_bytes(), committed.as_bytes(), frame.as_bytes()];
        let (number, ..): (u64, String, String) =
            self.link.eval_durable(&COMMIT, &[keys::STATE, keys::JOURNAL, self.fence.key()], &args)?;
        if number == 0 {
            return Err(StoreError::Deposed);
        }
        if replicas > 0 {
            self.link.eval::<u8>(&RAISE, &[keys::STATE], &[number.to_string().as_bytes()])?;
        }
        self.position = position;
        Ok((Outcome::Done, Followed::default()))
    }

    /// Notes how far it is.
    ///
    /// # Errors
    /// As for a write.
    pub fn note(&mut self, frame: u64, counted: &[(&str, u64)]) -> Result<(), StoreError> {
        if frame < self.noted {
            return Ok(());
        }
        self.noted = frame;
        let fields: Vec<String> = counted.iter().flat_map(|(name, n)| [self.share.field(name), n.to_string()]).collect();
        let mut args: Vec<&[u8]> = vec![self.fence.token().as_bytes()];
        args.extend(fields.iter().map(String::as_bytes));
        let ours: u8 = self.link.eval(&NOTE, &[keys::STATE, self.fence.key()], &args)?;
        if ours == 1 { Ok(()) } else { Err(StoreError::Deposed) }
    }
}
