//! State at a position, in chunks: written while frames go on, restored before the rest of the log is replayed.
//!
//! ```text
//! chunk = 1 · format · frame · epoch · clock · configuration · sources      the head, first
//!       | 2 · frame · (series)*                                             series as they stand after `frame`
//!       | 3 · frame · totals                                                the tail, last
//! ```
//! Each chunk holds the last frame that was applied when it was taken. A recovery replays from the head's frame; a series
//! skips the frames that its chunk has seen, the totals those that the tail has. Results at frames up to the tail's are
//! in the store already (P has passed them), so the caller drops them. A series that was forgotten before its chunk was
//! taken is rebuilt in part and forgotten again by the replay. One that has left memory because it was idle would not be:
//! in part, it may have an incident that never was, and is not idle while that is open. So where such a series had an
//! arrival since the head, which takes a checkpoint that lasts longer than `SERIES_IDLE_SECONDS`, the checkpoint begins anew.
//!
//! Formats that are read too: 2 has no epoch, 1 does not tell resolved incidents from open ones, and each is open.

use crate::config::EngineConfig;
use crate::engine::{Engine, shard_of, source_bytes};
use crate::outputs::Totals;
use crate::series::Series;
use crate::shard::Shard;
use crate::timestamp::Timestamp;
use crate::varint::{DecodeError, put_bytes, put_varint, take_array, take_str, take_varint, undecodable};

const HEAD: u8 = 1;
const SERIES: u8 = 2;
const TAIL: u8 = 3;

/// The format of a checkpoint. Where builds of several versions take over from each other, all write the newest that all read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointFormat(u8);

impl CheckpointFormat {
    /// The newest that this build reads and writes. One with the feature `next-checkpoint-format` is as if of the next version, for
    /// tests: its head has one number more.
    pub const NEWEST: Self = Self(if cfg!(feature = "next-checkpoint-format") { 4 } else { 3 });
    /// The oldest that is written still, so that a build that knows none newer may take over.
    pub const OLDEST_WRITTEN: Self = Self(3);
    const OLDEST_READ: Self = Self(1);
    const WITH_EPOCH: Self = Self(3);
    const NEXT: Self = Self(4);

    /// The one to write where others read up to `newest`.
    pub fn agreed(newest: u8) -> Self {
        Self(newest).clamp(Self::OLDEST_WRITTEN, Self::NEWEST)
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }

    fn is_read(self) -> bool {
        (Self::OLDEST_READ..=Self::NEWEST).contains(&self)
    }
}

/// How far the writing of a checkpoint has come.
#[derive(Clone, Debug)]
pub struct CheckpointCursor {
    format: CheckpointFormat,
    stage: Stage,
    config: EngineConfig,
    /// The engine's time of arrival at the head.
    clock: Timestamp,
    lowest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Series { shard: usize, place: u32 },
    Tail,
    Done,
}

impl CheckpointCursor {
    /// The frame after which a recovery replays the log: it must be kept from there on.
    pub fn lowest(&self) -> u64 {
        self.lowest
    }
}

impl Engine {
    /// Begins a checkpoint at the frame applied last.
    pub fn begin_checkpoint(&self, format: CheckpointFormat) -> CheckpointCursor {
        CheckpointCursor { format, stage: Stage::Head, config: self.config.clone(), clock: self.clock, lowest: self.applied }
    }

    /// Writes the next chunk, of about `max_bytes` and at least one series, into `out`; frames may be applied between one and the next. `None`
    /// when the checkpoint is whole. A checkpoint during which the configuration changed, or a series came and was let go,
    /// begins anew: `Err`.
    ///
    /// # Errors
    /// [`Stale`]: drop what was written and begin again.
    pub fn next_chunk(&self, cursor: &mut CheckpointCursor, max_bytes: usize, out: &mut Vec<u8>) -> Result<Option<()>, Stale> {
        // What was let go before the head had come before it, too: at its clock or later, only what came behind it.
        let let_go = cursor.stage != Stage::Head && self.let_go >= Some(cursor.clock);
        if cursor.config != self.config || let_go || self.recovering > 0 {
            return Err(Stale);
        }
        out.clear();
        cursor.stage = match cursor.stage {
            Stage::Head => {
                self.write_head(cursor.format, out);
                (cursor.lowest, cursor.clock) = (self.applied, self.clock);
                Stage::Series { shard: 0, place: 0 }
            }
            Stage::Series { shard, place } => self.write_series(shard, place, max_bytes, out),
            Stage::Tail => {
                out.push(TAIL);
                put_varint(out, self.applied);
                self.totals.numbers().into_iter().for_each(|n| put_varint(out, n));
                Stage::Done
            }
            Stage::Done => return Ok(None),
        };
        Ok(Some(()))
    }

    fn write_head(&self, format: CheckpointFormat, out: &mut Vec<u8>) {
        out.extend_from_slice(&[HEAD, format.0]);
        put_varint(out, self.applied);
        put_varint(out, self.epoch);
        if format >= CheckpointFormat::NEXT {
            put_varint(out, self.series_len() as u64);
        }
        out.extend_from_slice(&self.clock.nanos().to_le_bytes());
        put_bytes(out, self.config.to_text().as_bytes());
        put_varint(out, self.sources.len() as u64);
        for (origin, (taken, at)) in &self.sources {
            put_bytes(out, origin.as_bytes());
            put_varint(out, *taken);
            out.extend_from_slice(&at.nanos().to_le_bytes());
        }
    }

    fn write_series(&self, shard: usize, mut place: u32, max_bytes: usize, out: &mut Vec<u8>) -> Stage {
        out.push(SERIES);
        put_varint(out, self.applied);
        let Some(owner) = self.shards.get(shard) else {
            return Stage::Tail;
        };
        let first = place;
        while place < owner.places() && (place == first || out.len() < max_bytes) {
            if let Some((series, _)) = owner.at(place) {
                out.push(1);
                series.encode(out);
            }
            place += 1;
        }
        if place < owner.places() {
            Stage::Series { shard, place }
        } else if shard + 1 < self.shards.len() {
            Stage::Series { shard: shard + 1, place: 0 }
        } else {
            Stage::Tail
        }
    }

    /// Restores an engine from the chunks of a checkpoint, in their order; then replay the log from the frame after
    /// [`Engine::applied`].
    ///
    /// # Errors
    /// Chunks that cannot be decoded, are of a newer version, or lack head or tail.
    pub fn restore<E>(chunks: impl IntoIterator<Item = Result<Vec<u8>, E>>, n_shards: usize) -> Result<Self, E>
    where
        E: From<DecodeError>,
    {
        let mut chunks = chunks.into_iter();
        let head = chunks.next().ok_or(undecodable("a checkpoint without chunks"))??;
        let mut engine = Self::from_head(&head, n_shards)?;
        engine.shards.iter_mut().for_each(Shard::begin_recovery);
        let mut tail = None;
        for chunk in chunks {
            if tail.is_some() {
                return Err(undecodable("a checkpoint that goes on after its tail").into());
            }
            tail = engine.restore_chunk(&chunk?)?;
        }
        let tail = tail.ok_or(undecodable("a checkpoint without a tail"))?;
        if tail > engine.applied {
            engine.recovering = tail;
        } else {
            engine.shards.iter_mut().for_each(Shard::end_recovery);
        }
        Ok(engine)
    }

    /// The frame up to which outputs are in the store already while a recovery replays; 0 when it has caught up.
    pub fn recovering(&self) -> u64 {
        self.recovering
    }

    fn from_head(mut head: &[u8], n_shards: usize) -> Result<Self, DecodeError> {
        let [kind, format] = take_array(&mut head)?;
        let format = CheckpointFormat(format);
        if kind != HEAD || !format.is_read() {
            return Err(undecodable("a checkpoint of another version"));
        }
        let applied = take_varint(&mut head)?;
        let epoch = if format < CheckpointFormat::WITH_EPOCH { 0 } else { take_varint(&mut head)? };
        if format >= CheckpointFormat::NEXT {
            take_varint(&mut head)?;
        }
        let clock = Timestamp::from_nanos(i64::from_le_bytes(take_array(&mut head)?));
        let config = EngineConfig::from_text(take_str(&mut head)?).map_err(|_| undecodable("the configuration of a checkpoint"))?;
        let mut engine = Self::new(config, n_shards);
        (engine.applied, engine.epoch, engine.clock) = (applied, epoch, clock);
        for _ in 0..take_varint(&mut head)? {
            let origin = take_str(&mut head)?.to_owned();
            let taken = take_varint(&mut head)?;
            engine.source_bytes += source_bytes(&origin);
            engine.sources.insert(origin, (taken, Timestamp::from_nanos(i64::from_le_bytes(take_array(&mut head)?))));
        }
        Ok(engine)
    }

    /// Restores a chunk; returns the tail's frame where it is that.
    fn restore_chunk(&mut self, mut chunk: &[u8]) -> Result<Option<u64>, DecodeError> {
        let rest = &mut chunk;
        let kind = take_array::<1>(rest)?[0];
        let frame = take_varint(rest)?;
        match kind {
            SERIES => {
                let table = self.config.table();
                while !rest.is_empty() {
                    take_array::<1>(rest)?;
                    let series = Series::decode(rest, |key| {
                        let rule = self.config.rule_of(key);
                        (rule, &table[rule])
                    })?;
                    let hash = series.key.hash();
                    let owner = shard_of(hash, self.shards.len());
                    self.shards[owner].restore(hash, series, frame)?;
                }
                Ok(None)
            }
            TAIL => {
                let mut numbers = [0; 5];
                for number in &mut numbers {
                    *number = take_varint(rest)?;
                }
                self.totals = Totals::from_numbers(numbers);
                Ok(Some(frame))
            }
            _ => Err(undecodable("a chunk of an unknown kind")),
        }
    }

    /// The state of all series as bytes, independent of shards: for tests that compare. Idle series count as forgotten,
    /// whether they have left memory or not.
    pub fn digest(&self) -> Vec<u8> {
        let mut states: Vec<Vec<u8>> = Vec::new();
        for shard in &self.shards {
            for (series, _) in (0..shard.places()).filter_map(|place| shard.at(place)) {
                if series.is_idle(self.clock, &self.config.limits()) {
                    continue;
                }
                let mut state = Vec::new();
                series.encode(&mut state);
                states.push(state);
            }
        }
        states.sort_unstable();
        let mut all = states.concat();
        self.totals.numbers().into_iter().for_each(|n| put_varint(&mut all, n));
        all
    }
}

/// The configuration changed while a checkpoint was written, or a series came and was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration changed, or a series came and was let go, while the checkpoint was written")]
pub struct Stale;
