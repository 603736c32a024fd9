//! Brings what Redis says of series in line with the engine, a little at a time.
//!
//! A process that dies between two writes leaves series behind: one that was let in for an append that never was, one that the engine
//! has forgotten and nobody was told of. Each would hold a place of `MAX_SERIES`, or be listed, for ever.
//!
//! What was let in may be about to be appended, so it goes only when two passes, a pause apart, have not found it with an engine that had
//! judged the whole log as it was when the pass began. What is listed was once held, and goes at once. Memory: 16 bytes for each series in
//! doubt.

use std::time::{Duration, Instant};

use anomaly_engine::{ScanCursor, SeriesHash};
use hashbrown::HashSet;
use tracing::{info, warn};

use super::ShownBy;
use crate::engine_thread::{EngineHandle, EngineStage};
use crate::redis::keys::{self, field};
use crate::redis::{Link, RedisError, Script};

/// Between two passes: longer than any append takes from asking for a place to its answer.
const PAUSE: Duration = Duration::from_secs(15);
/// A pass works at most this part of the time.
const PART: u32 = 20;
/// Series that are looked at in one step; a script can unpack 8000.
const STEP: u32 = 2000;

/// KEYS: what proves the owner, who is let in. ARGV: the token, then a command. Answers whether it is the owner: a zombie changes nothing.
static CHANGE: Script = Script::new(
    "keeping series in line",
    "#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call(ARGV[2], KEYS[2], unpack(ARGV, 3))
return 1",
);

/// Where a pass stands.
#[derive(Debug)]
enum Step {
    /// The next one begins when this time is over.
    Pause(Instant, Duration),
    /// It begins when the engine has come to this frame.
    Await(u64),
    /// Over the series that were let in, by the server's cursor.
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
    /// What the steps of this pass have taken.
    worked: Duration,
    /// Series that the pass before has not found with the engine, and this one.
    doubted: HashSet<SeriesHash>,
    doubtful: HashSet<SeriesHash>,
    is_failing: bool,
}

impl Reconcile {
    pub(super) fn new(owner: ShownBy) -> Self {
        let step = Step::Pause(Instant::now(), PAUSE);
        Self { owner, step, worked: Duration::ZERO, doubted: HashSet::new(), doubtful: HashSet::new(), is_failing: false }
    }

    /// Goes on by one step. Returns series that are listed though the engine does not hold them. Where Redis is away, the step is tried
    /// again.
    pub(super) fn step(&mut self, link: Result<&mut Link, RedisError>, engine: &EngineHandle) -> Vec<SeriesHash> {
        let began = Instant::now();
        let done = link.and_then(|link| self.go_on(link, engine));
        self.worked += began.elapsed();
        match done {
            Ok(listed) => {
                self.is_failing = false;
                listed
            }
            Err(fault) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!("series on redis cannot be compared with those of the engine, it is tried again: {fault}");
                }
                Vec::new()
            }
        }
    }

    fn go_on(&mut self, link: &mut Link, engine: &EngineHandle) -> Result<Vec<SeriesHash>, RedisError> {
        let mut listed = Vec::new();
        self.step = match self.step {
            Step::Pause(since, pause) if since.elapsed() < pause => return Ok(listed),
            Step::Pause(..) => {
                let end = match &self.owner.ends {
                    Some(ends) => ends.of(self.owner.share.partition),
                    None => link.query::<Option<u64>>(redis::cmd("HGET").arg(keys::STATE).arg(field::FRAME))?.unwrap_or(0),
                };
                self.worked = Duration::ZERO;
                self.doubted = std::mem::take(&mut self.doubtful);
                Step::Await(end)
            }
            Step::Await(frame) => match engine.ask_and_wait(|stage| stage.engine.applied()) {
                Some(applied) if applied >= frame => Step::LetIn(0),
                _ => return Ok(listed),
            },
            Step::LetIn(cursor) => {
                let (next, hashes): (u64, Vec<Vec<u8>>) =
                    link.query(redis::cmd("SSCAN").arg(keys::KNOWN).arg(cursor).arg("COUNT").arg(STEP))?;
                let Some(unheld) = unheld(engine, self.ours(hashes.iter())) else { return Ok(listed) };
                let (stale, doubtful): (Vec<_>, Vec<_>) = unheld.into_iter().partition(|series| self.doubted.contains(series));
                self.change(link, "SREM", &stale)?;
                if !stale.is_empty() {
                    info!(n = stale.len(), "series that were let in and are in no log are taken away again");
                }
                self.doubtful.extend(doubtful);
                if next == 0 { Step::Listed(0) } else { Step::LetIn(next) }
            }
            Step::Listed(cursor) => {
                let (next, pairs): (u64, Vec<Vec<u8>>) =
                    link.query(redis::cmd("HSCAN").arg(keys::SERIES).arg(cursor).arg("COUNT").arg(STEP))?;
                let Some(unheld) = unheld(engine, self.ours(pairs.iter().step_by(2))) else { return Ok(listed) };
                listed = unheld;
                if !listed.is_empty() {
                    info!(n = listed.len(), "series that are listed and not known any more are taken away");
                }
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
                    None => Step::Pause(Instant::now(), PAUSE.max(self.worked * PART)),
                }
            }
        };
        Ok(listed)
    }

    /// The series of these hashes that are this owner's.
    fn ours<'a>(&self, hashes: impl Iterator<Item = &'a Vec<u8>>) -> Vec<SeriesHash> {
        let series = hashes.filter_map(|hash| hash.as_slice().try_into().ok().map(SeriesHash::from_be_bytes));
        series.filter(|series| self.owner.share.holds(*series)).collect()
    }

    fn change(&self, link: &mut Link, command: &str, series: &[SeriesHash]) -> Result<(), RedisError> {
        let hashes: Vec<_> = series.iter().map(|series| series.to_be_bytes()).collect();
        for some in hashes.chunks(STEP as usize) {
            let mut args = vec![self.owner.fence.token().as_bytes(), command.as_bytes()];
            args.extend(some.iter().map(|hash| &hash[..]));
            link.eval::<u8>(&CHANGE, &[self.owner.fence.key(), keys::KNOWN], &args)?;
        }
        Ok(())
    }
}

/// Those that the engine does not hold; `None` when it has ended.
pub(super) fn unheld(engine: &EngineHandle, mut series: Vec<SeriesHash>) -> Option<Vec<SeriesHash>> {
    engine.ask_and_wait(move |stage| {
        series.retain(|series| !stage.engine.holds(*series));
        series
    })
}
