//! Brings what Redis says of series in line with the engine, a little at a time.
//!
//! A process that dies between two writes leaves names behind: one that was let in for an append that never was, one that the engine
//! has forgotten and nobody was told of. Each would hold a place of `MAX_SERIES`, or be listed, for ever.
//!
//! A name that was let in may be about to be appended, so it goes only when two passes, a pause apart, have not found it with an
//! engine that had judged the whole log as it was when the pass began. Memory: 16 bytes for each name in doubt.

use std::time::{Duration, Instant};

use anomaly_engine::{ScanCursor, SeriesHash};
use hashbrown::HashSet;

use super::ShownBy;
use crate::engine_thread::{EngineHandle, EngineStage};
use crate::redis::keys::{self, field};
use crate::redis::{Fence, Link, RedisError, Script};

/// Between two passes: longer than any append takes from asking for a place to its answer.
const PAUSE: Duration = Duration::from_secs(15);
/// A pass takes at most this part of the time.
const PART: u32 = 20;
/// Names that are looked at in one step; a script can unpack 8000.
const STEP: u32 = 2000;

/// KEYS: what proves the owner, what is changed. ARGV: the token, then a command. Answers whether it is still one: a zombie takes nothing
/// away.
static IF_OWNER: Script = Script::new(
    "keeping series in line",
    "#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call(unpack(ARGV, 2))
return 1",
);

/// Runs `command` with `key` and `members`, for an owner who still is one.
///
/// # Errors
/// As [`Link::eval`].
pub(super) fn if_owner<T: AsRef<[u8]>>(link: &mut Link, fence: &Fence, command: &str, key: &[u8], members: &[T]) -> Result<(), RedisError> {
    let mut args = vec![fence.token().as_bytes(), command.as_bytes(), key];
    args.extend(members.iter().map(AsRef::as_ref));
    link.eval::<u8>(&IF_OWNER, &[fence.key(), key], &args).map(drop)
}

/// Where a pass stands.
#[derive(Debug)]
enum Step {
    /// The next one begins when this time is over.
    Pause(Instant, Duration),
    /// It begins when the engine has come to this frame.
    Await(u64),
    /// Over the names that were let in, by the server's cursor.
    LetIn(u64),
    /// Over what is listed, by the server's cursor.
    Listed(u64),
    /// Over what the engine holds.
    Held(ScanCursor),
}

/// The passes of one owner.
#[derive(Debug)]
pub(super) struct Reconcile {
    owner: ShownBy,
    step: Step,
    began: Instant,
    /// Names that the pass before has not found with the engine, and this one.
    doubted: HashSet<SeriesHash>,
    doubtful: HashSet<SeriesHash>,
}

impl Reconcile {
    pub(super) fn new(owner: ShownBy) -> Self {
        let now = Instant::now();
        Self { owner, step: Step::Pause(now, PAUSE), began: now, doubted: HashSet::new(), doubtful: HashSet::new() }
    }

    /// Goes on by one step. Returns series that are listed though the engine does not hold them.
    ///
    /// # Errors
    /// Redis is away: the step is tried again.
    pub(super) fn step(&mut self, link: &mut Link, engine: &EngineHandle) -> Result<Vec<SeriesHash>, RedisError> {
        let mut listed = Vec::new();
        self.step = match self.step {
            Step::Pause(since, pause) if since.elapsed() < pause => return Ok(listed),
            Step::Pause(..) => {
                self.began = Instant::now();
                self.doubted = std::mem::take(&mut self.doubtful);
                Step::Await(match &self.owner.ends {
                    Some(ends) => ends.of(self.owner.share.partition),
                    None => link.query::<Option<u64>>(redis::cmd("HGET").arg(keys::STATE).arg(field::FRAME))?.unwrap_or(0),
                })
            }
            Step::Await(frame) => match engine.ask_and_wait(|stage| stage.engine.applied()) {
                Some(applied) if applied >= frame => Step::LetIn(0),
                _ => return Ok(listed),
            },
            Step::LetIn(cursor) => {
                let (next, names): (u64, Vec<Vec<u8>>) =
                    link.query(redis::cmd("SSCAN").arg(keys::KNOWN).arg(cursor).arg("COUNT").arg(STEP))?;
                let Some(unheld) = unheld(engine, self.ours(names.iter())) else { return Ok(listed) };
                let (stale, doubtful): (Vec<_>, Vec<_>) = unheld.into_iter().partition(|series| self.doubted.contains(series));
                self.change(link, "SREM", &stale)?;
                self.doubtful.extend(doubtful);
                if next == 0 { Step::Listed(0) } else { Step::LetIn(next) }
            }
            Step::Listed(cursor) => {
                let (next, pairs): (u64, Vec<Vec<u8>>) =
                    link.query(redis::cmd("HSCAN").arg(keys::SERIES).arg(cursor).arg("COUNT").arg(STEP))?;
                let Some(unheld) = unheld(engine, self.ours(pairs.iter().step_by(2))) else {
                    return Ok(listed);
                };
                listed = unheld;
                if next == 0 { Step::Held(ScanCursor::default()) } else { Step::Listed(next) }
            }
            Step::Held(from) => {
                let held = move |stage: &mut EngineStage| {
                    let mut held = Vec::new();
                    let next = stage.engine.scan(from, STEP, |key, _| held.push(key.hash()));
                    (next, held)
                };
                let Some((next, held)) = engine.ask_and_wait(held) else { return Ok(listed) };
                self.change(link, "SADD", &held)?;
                match next {
                    Some(next) => Step::Held(next),
                    None => Step::Pause(Instant::now(), PAUSE.max(self.began.elapsed() * PART)),
                }
            }
        };
        Ok(listed)
    }

    /// The series of these names that are this owner's.
    fn ours<'a>(&self, names: impl Iterator<Item = &'a Vec<u8>>) -> Vec<SeriesHash> {
        names
            .filter_map(|name| name.as_slice().try_into().ok().map(SeriesHash::from_be_bytes))
            .filter(|series| self.owner.share.holds(*series))
            .collect()
    }

    fn change(&self, link: &mut Link, command: &str, series: &[SeriesHash]) -> Result<(), RedisError> {
        let members: Vec<_> = series.iter().map(|series| series.to_be_bytes()).collect();
        members.chunks(STEP as usize).try_for_each(|some| if_owner(link, &self.owner.fence, command, keys::KNOWN, some))
    }
}

/// Those that the engine does not hold; `None` when it has ended.
fn unheld(engine: &EngineHandle, mut series: Vec<SeriesHash>) -> Option<Vec<SeriesHash>> {
    engine.ask_and_wait(move |stage| {
        series.retain(|series| !stage.engine.holds(*series));
        series
    })
}
