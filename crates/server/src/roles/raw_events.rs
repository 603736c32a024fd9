//! The familiar list `raw_events`: producers push JSON to its right, and the active processor moves it into the log.
//!
//! ```text
//! raw_events ─► {raw_events}:taken:N (a script, fenced) ─► read ─► appended to the log and removed, in one script
//! ```
//! What was taken and not appended when a processor dies is taken up by the next one; what is appended is there no more, so that a zombie
//! appends nothing twice. Only what there is room for is taken: while no processor works, or it falls behind, the list grows, as
//! users know it.

use std::sync::Arc;
use std::time::Duration;

use anomaly_engine::frame::{BatchBuilder, Origin};
use anomaly_engine::parse::{Context, parse_event_at};
use anomaly_engine::{Rejected, Report};
use tracing::warn;

use super::worker::{Stopping, Worker};
use crate::backlog::Backlog;
use crate::clock;
use crate::config::Config;
use crate::fatal::Fatal;
use crate::log::handle::LogHandle;
use crate::log::sqlite::Side;
use crate::log::{Append, AppendError, Appended};
use crate::redis::{Reconnecting, RedisError, RedisPlace, Script, keys, owner};
use crate::stats::Stats;

/// Elements that are moved at a time.
const MOVED: usize = 5000;
/// Positions of what is moved at a time: a power of two above.
const POSITIONS: u32 = 13;
/// Before it is tried again after something went wrong.
const PAUSE: Duration = Duration::from_millis(500);
/// The bad elements that are kept for a look, with what is wrong with each.
const DEAD: &str = "{raw_events}:dead";
const DEAD_KEPT: i64 = 10_000;
/// The beginning of each that is kept.
const DEAD_BYTES: usize = 4096;

/// KEYS: raw_events, its state, its owner. ARGV: token, how many, the time in milliseconds. What was taken before and is still there comes first.
/// Answers the number of what was taken, and that. Numbers begin with the time: a Redis that was emptied gives none that the log has seen.
static TAKE: Script = Script::new(
    "taking from raw_events",
    "#!lua flags=allow-oom
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return {-1, {}} end
local n = redis.call('HGET', KEYS[2], 'taken') or '0'
local taken = '{raw_events}:taken:' .. n
if redis.call('EXISTS', taken) == 0 then
  local some = redis.call('LRANGE', KEYS[1], 0, ARGV[2] - 1)
  if #some == 0 then return {0, {}} end
  n = string.format('%.0f', n == '0' and tonumber(ARGV[3]) or tonumber(n) + 1)
  redis.call('HSET', KEYS[2], 'taken', n)
  taken = '{raw_events}:taken:' .. n
  redis.call('RPUSH', taken, unpack(some))
  redis.call('LTRIM', KEYS[1], #some, -1)
else
  redis.call('HSET', KEYS[2], 'taken', n)
end
return {tonumber(n), redis.call('LRANGE', taken, 0, -1)}",
);

struct Mover {
    connection: Reconnecting,
    /// What proves that we may: the lease, or what stands for it where that lies elsewhere and is taken first.
    owner: &'static [u8],
    is_ours: bool,
    token: String,
    config: Arc<Config>,
    log: LogHandle,
    backlog: Arc<Backlog>,
    stats: Arc<Stats>,
    runtime: tokio::runtime::Handle,
    /// The number of what was taken and looked through for what is no event.
    buried: u64,
}

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("another processor has taken over")]
    Deposed,
}

/// Moves the list into the log, as the owner of the lease with this token. What was taken and not appended at the end is the next one's.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(
    place: &RedisPlace,
    token: String,
    config: Arc<Config>,
    log: LogHandle,
    backlog: Arc<Backlog>,
    stats: Arc<Stats>,
    fatal: Fatal,
) -> std::io::Result<Worker> {
    let connection = Reconnecting::new(place.of(keys::RAW_EVENTS_TAG));
    let runtime = tokio::runtime::Handle::current();
    let owner = if place.target.is_cluster() { keys::RAW_OWNER } else { keys::LEASE };
    let mover = Mover { connection, owner, is_ours: owner == keys::LEASE, token, config, log, backlog, stats, runtime, buried: 0 };
    Worker::start("raw-events", move |stopping| mover.run(&fatal, &stopping))
}

impl Mover {
    fn run(mut self, fatal: &Fatal, stopping: &Stopping) {
        let _guard = fatal.guard("raw-events");
        let mut told = false;
        while !stopping.is_told() {
            match self.step() {
                Ok(0) => std::thread::sleep(self.config.redis.sleep_on_empty),
                Ok(_) => told = false,
                Err(fault @ Fault::Deposed) => return fatal.call(fault.to_string()),
                Err(fault) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!("raw_events waits: {fault}");
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Moves some; returns how many.
    fn step(&mut self) -> Result<usize, Fault> {
        if self.backlog.queued() >= self.backlog.capacity() / 2 {
            return Ok(0);
        }
        let (many, now) = (MOVED.to_string(), (clock::now().nanos() / 1_000_000).to_string());
        if !self.is_ours {
            self.is_ours = owner::take(self.connection.link()?, self.owner, &self.token)?;
            if !self.is_ours {
                return Err(Fault::Deposed);
            }
        }
        let keys = [keys::RAW_EVENTS, keys::RAW_STATE, self.owner];
        let (number, taken): (i64, Vec<Vec<u8>>) =
            self.connection.link()?.eval_durable(&TAKE, &keys, &[self.token.as_bytes(), many.as_bytes(), now.as_bytes()])?;
        match number {
            -1 => return Err(Fault::Deposed),
            0 => return Ok(0),
            _ => {}
        }
        self.append(number as u64, &taken)?;
        Ok(taken.len())
    }

    fn append(&mut self, number: u64, taken: &[Vec<u8>]) -> Result<(), Fault> {
        let context = Context { max_event_bytes: self.config.limits.max_event_bytes, ..Context::new(clock::now(), self.config.max_future) };
        let mut batch = BatchBuilder::with_made_ids();
        let mut dead = Vec::new();
        for (line, text) in (1..).zip(taken) {
            if let Err(rejected) = parse_event_at(text, line, &context, &mut batch) {
                dead.push(Rejected { line, ..rejected });
            }
        }
        let report = Report { accepted: batch.len() as u64, ..Report::default() };
        // First: what is no event is kept before it is gone from the list. Kept twice is better than not at all.
        if number > self.buried {
            self.bury(&dead, taken)?;
            self.buried = number;
        }
        let moved = vec![Side::Moved { taken: number }];
        let mut refused = Vec::new();
        if batch.is_empty() {
            self.runtime.block_on(self.log.note(moved))?;
        } else {
            // Where list and log do not change together, it may be appended again.
            let origin = Origin { name: "redis:raw_events".into(), first: Some(number << POSITIONS) };
            let append = Append { batch: batch.finish(origin).at_lines(), report, atomic: false, key: None };
            match self.runtime.block_on(self.log.append_with(append, moved)).map_err(|refusal| refusal.error) {
                Ok(Appended::Taken { report, .. } | Appended::Repeated(report)) => {
                    self.stats.accepted(report.accepted);
                    refused = report.errors;
                }
                Err(AppendError::Refused(report)) => {
                    refused = report.errors;
                    self.runtime.block_on(self.log.note(vec![Side::Moved { taken: number }]))?;
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        dead.iter().chain(&refused).for_each(|rejected| self.stats.rejected(rejected.code, 1));
        self.bury(&refused, taken)
    }

    /// Keeps what could not be read, with the reason.
    fn bury(&mut self, dead: &[Rejected], taken: &[Vec<u8>]) -> Result<(), Fault> {
        if dead.is_empty() {
            return Ok(());
        }
        let mut push = redis::cmd("RPUSH");
        push.arg(DEAD);
        for rejected in dead {
            let text = usize::try_from(rejected.line).ok().and_then(|line| taken.get(line.wrapping_sub(1)));
            let event = text.map(|text| String::from_utf8_lossy(&text[..text.len().min(DEAD_BYTES)]).into_owned()).unwrap_or_default();
            let Rejected { field, code, message, .. } = rejected;
            push.arg(serde_json::json!({"code": code.as_str(), "field": field, "message": message, "event": event}).to_string());
        }
        let link = self.connection.link()?;
        link.query::<u64>(&push)?;
        link.query::<()>(redis::cmd("LTRIM").arg(DEAD).arg(-DEAD_KEPT).arg(-1))?;
        warn!(n = dead.len(), "elements of raw_events could not be read: LRANGE {DEAD} 0 -1 shows them, and why");
        Ok(())
    }
}
