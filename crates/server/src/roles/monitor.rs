//! How far everything is, and how Redis is set up: looked at again and again, and told where it is due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anomaly_engine::frame::base_of;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::backlog::Backlog;
use crate::clock;
use crate::freshness::Freshness;
use crate::log::admission::Memory;
use crate::log::handle::LogHints;
use crate::log::kafka::{Ends, Waiting};
use crate::log::writer::REJECTED;
use crate::redis::keys::{self, field};
use crate::redis::{Link, Reconnecting, RedisError, RedisPlace, Script, ServerState};
use crate::share::Share;
use crate::stats::{Component, Stats, Totals};

/// Counters are looked at this often.
const COUNTERS: Duration = Duration::from_millis(50);
/// What the server is set up to do is looked at this often.
const SERVER: Duration = Duration::from_millis(500);
/// An owner that judges nothing for so long, though events wait, gives the lease back.
const STUCK: Duration = Duration::from_secs(60);
/// A partition that waits so long is told: longer than it takes another processor to take it over.
const IDLE: Duration = Duration::from_secs(30);
/// A replica that has said nothing for so long is gone.
const ALIVE_SECONDS: u64 = 15;
/// From this share of `maxmemory` on nothing is accepted: what is left is for commits and checkpoints.
const FULL_SHARE: f64 = 0.75;
/// From this one on a checkpoint does not wait until it is due.
const HURRY_SHARE: f64 = 0.5;

/// Numbers of the state that are looked at, and those that each owner notes for its share.
const FIELDS: [&str; 5] = [field::SAFE, field::WRITE, field::APPENDED, field::JUDGED, field::WAIT_REPLICAS];
const SHARED: [&str; 8] = [
    field::REACHED,
    field::EVENTS,
    field::LATE,
    field::DUPLICATES,
    field::REDELIVERED,
    field::MEMORY,
    field::MEMORY_LIMIT,
    field::N_SERIES,
];

/// KEYS: raw_events, its state. Answers how many elements are not in the log yet.
static RAW: Script = Script::new(
    "counting raw_events",
    "#!lua flags=no-writes
local taken = '{raw_events}:taken:' .. (redis.call('HGET', KEYS[2], 'taken') or '0')
return redis.call('LLEN', KEYS[1]) + redis.call('LLEN', taken)",
);

/// KEYS: state, counts, lease. ARGV: the counter of rejected rows, then fields of the state. Answers the fields, the counter, and whether
/// somebody has the lease.
static COUNT: Script = Script::new(
    "counting",
    "#!lua flags=no-writes
return {
  redis.call('HMGET', KEYS[1], unpack(ARGV, 2)),
  redis.call('HGET', KEYS[2], ARGV[1]),
  redis.call('EXISTS', KEYS[3]),
}",
);

/// What is looked at, and who is told.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) backlog: Arc<Backlog>,
    pub(super) memory: Arc<Memory>,
    pub(super) stats: Arc<Stats>,
    pub(super) log: LogHints,
    pub(super) wait_replicas: u32,
    /// What is to be said of sentinels that nobody waits for.
    pub(super) unsafe_fail_over: Option<&'static str>,
    /// Who this is, for others that want to know whether it is still there.
    pub(super) replica: Option<String>,
    /// How far it has followed.
    pub(super) applied: Option<watch::Receiver<u64>>,
    /// Asks for room: log and journal are to be made up for now, if they are worth it.
    pub(super) hurry: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Told that Redis answers.
    pub(super) freshness: Option<Freshness>,
    /// Where the log is on Kafka.
    pub(super) kafka: Option<OnKafka>,
    /// Where `raw_events` is, if that may be elsewhere.
    pub(super) raw_events: Option<RedisPlace>,
}

/// A log on Kafka: how many partitions it has, and what is known of their ends.
#[derive(Clone, Debug)]
pub(super) struct OnKafka {
    pub(super) partitions: u32,
    pub(super) ends: Arc<Ends>,
}

impl OnKafka {
    /// About how many events wait: those of frames that nobody has `reached`, as if they were as large as the others were; none only where
    /// there is no such frame.
    fn waiting(&self, events: u64, reached: impl Iterator<Item = Option<u64>> + Clone) -> Waiting {
        let judged: u64 = (0..).zip(reached.clone()).filter_map(|(partition, reached)| Some(reached? - base_of(partition))).sum();
        let mean = events.checked_div(judged).unwrap_or(1).max(1);
        self.ends.waiting(reached, mean)
    }
}

impl Watch {
    /// For a process that has neither a store nor an engine: the others say what more there is.
    pub(super) fn new(place: &RedisPlace, backlog: &Arc<Backlog>, memory: Arc<Memory>, stats: &Arc<Stats>, log: LogHints) -> Self {
        Self {
            backlog: Arc::clone(backlog),
            memory,
            stats: Arc::clone(stats),
            log,
            wait_replicas: place.wait_replicas,
            unsafe_fail_over: place.unsafe_fail_over(),
            replica: None,
            applied: None,
            hurry: None,
            freshness: None,
            kafka: None,
            raw_events: place.target.is_cluster().then(|| place.of(keys::RAW_EVENTS_TAG)),
        }
    }
}

/// Since when partitions have not moved, each with how far it was then.
#[derive(Debug, Default)]
struct Idle(Vec<(u64, Instant)>);

impl Idle {
    /// Which partitions nobody has judged for a while although there is more of them, in words.
    fn look(&mut self, kafka: &OnKafka, reached: impl Iterator<Item = Option<u64>>) -> Option<String> {
        let now = Instant::now();
        let mut idle = Vec::new();
        for (partition, reached) in (0..kafka.partitions).zip(reached) {
            let (at, reached) = (partition as usize, reached.unwrap_or(base_of(partition)));
            if self.0.len() <= at {
                self.0.push((reached, now));
            }
            if self.0[at].0 != reached || kafka.ends.of(partition) <= reached {
                self.0[at] = (reached, now);
            } else if now - self.0[at].1 >= IDLE {
                idle.push(partition.to_string());
            }
        }
        (!idle.is_empty()).then(|| idle.join(", "))
    }
}

/// What was seen, and since when.
pub(super) struct Monitor {
    watch: Watch,
    idle: Idle,
    raw: Option<Reconnecting>,
    counted: Option<Instant>,
    looked: Option<Instant>,
    /// Whether Redis was there when it was asked last.
    there: bool,
    /// What the server's set-up weakens, and why nothing is accepted.
    weak: Vec<String>,
    full: Option<String>,
    was_full: bool,
    /// So much of the server's memory is in use that it is looked at often.
    filling: bool,
    /// What the active processor has for `REDIS_WAIT_REPLICAS`.
    owner_waits: Option<u64>,
    /// The last entry of the journal.
    written: u64,
    /// Events up to P, and since when that has not changed although more wait.
    judged: u64,
    stuck: Option<Instant>,
}

impl Monitor {
    pub(super) fn new(watch: Watch) -> Self {
        Self {
            idle: Idle::default(),
            raw: watch.raw_events.clone().map(Reconnecting::new),
            watch,
            counted: None,
            looked: None,
            there: true,
            weak: Vec::new(),
            full: None,
            was_full: false,
            filling: false,
            owner_waits: None,
            written: 0,
            judged: 0,
            stuck: None,
        }
    }

    /// The last entry of the journal, as it was when that was counted.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Something was judged, if not anything new.
    pub(super) fn goes_on(&mut self) {
        self.stuck = None;
    }

    /// Why it is better that the owner begins anew, or another takes over: events wait, and it has judged none for long.
    pub(super) fn stuck(&self) -> Option<String> {
        let is_stuck = self.stuck.is_some_and(|since| since.elapsed() >= STUCK);
        is_stuck.then(|| format!("events wait, and none was judged for {} s", STUCK.as_secs()))
    }

    /// Reads how far everything is, and tells it where it is due; returns what is safe.
    pub(super) fn count(&mut self, link: &mut Link) -> Result<u64, RedisError> {
        let is_due = self.counted.is_none_or(|at| at.elapsed() >= COUNTERS);
        if !is_due {
            let mut command = redis::cmd("HMGET");
            command.arg(keys::STATE).arg(field::SAFE).arg(field::WRITE);
            let (safe, written): (Option<u64>, Option<u64>) = link.query(&command)?;
            self.written = written.unwrap_or(0);
            return Ok(safe.unwrap_or(0));
        }
        self.counted = Some(Instant::now());
        let watch = self.watch.clone();
        let shares: Vec<Share> = Share::all(watch.kafka.as_ref().map_or(1, |kafka| kafka.partitions)).collect();
        let mut names = vec![REJECTED.to_owned()];
        names.extend(FIELDS.map(str::to_owned));
        names.extend(SHARED.iter().flat_map(|name| shares.iter().map(|share| share.field(name))));
        let args: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        // First: what leaves the list between the two is counted twice, and not left out.
        let raw = match &mut self.raw {
            Some(elsewhere) => elsewhere.link()?.eval(&RAW, &[keys::RAW_EVENTS, keys::RAW_STATE], &[])?,
            None => link.eval::<u64>(&RAW, &[keys::RAW_EVENTS, keys::RAW_STATE], &[])?,
        };
        let (numbers, rejected, owned): (Vec<Option<u64>>, Option<u64>, bool) =
            link.eval(&COUNT, &[keys::STATE, keys::COUNTS, keys::LEASE], &args)?;
        let (numbers, shared) = numbers.split_at(FIELDS.len());
        let of = |name: &str| FIELDS.iter().position(|known| *known == name).and_then(|i| numbers[i]).unwrap_or(0);
        let each = |name: &str| {
            let at = SHARED.iter().position(|known| *known == name).unwrap_or(0);
            shared.iter().skip(at * shares.len()).take(shares.len()).copied()
        };
        let sum = |name: &str| each(name).flatten().sum::<u64>();
        let (waiting, least, events) = match &watch.kafka {
            None => {
                let waiting = of(field::APPENDED).saturating_sub(of(field::JUDGED));
                (waiting, waiting, of(field::APPENDED).saturating_sub(sum(field::REDELIVERED)))
            }
            Some(kafka) => {
                let Waiting { about, least } = kafka.waiting(sum(field::EVENTS), each(field::REACHED));
                (about, least, sum(field::EVENTS) + about)
            }
        };
        // What is refused must not be a guess.
        watch.backlog.set(least);
        let idle = watch.kafka.as_ref().map(|kafka| self.idle.look(kafka, each(field::REACHED)));
        if waiting == 0 || of(field::JUDGED) != self.judged {
            self.stuck = None;
        } else {
            self.stuck.get_or_insert_with(Instant::now);
        }
        self.judged = of(field::JUDGED);
        self.owner_waits = FIELDS.iter().position(|known| *known == field::WAIT_REPLICAS).and_then(|i| numbers[i]);
        // What is written and not yet shown here waits too.
        let unseen = watch.applied.as_ref().map_or(0, |applied| of(field::WRITE).saturating_sub(*applied.borrow()));
        watch.stats.queue(waiting + raw + unseen);
        let (late, duplicates, redelivered) = (sum(field::LATE), sum(field::DUPLICATES), sum(field::REDELIVERED));
        watch.stats.share(Totals { events, rejected: rejected.unwrap_or(0), late, duplicates, redelivered });
        watch.stats.set_series(sum(field::N_SERIES));
        watch.memory.share(sum(field::MEMORY), sum(field::MEMORY_LIMIT));
        let processor = match idle.flatten() {
            Some(partitions) => Component::Degraded(format!("events of partitions {partitions} wait, and nobody judges them")),
            None if owned => Component::Ok,
            None if watch.kafka.is_some() => {
                Component::Degraded("no processor leads: nobody is alerted, and raw_events is not read".into())
            }
            None => Component::Degraded("no processor is active: events are kept and wait".into()),
        };
        watch.stats.component("processor", processor);
        watch.log.note_counts();
        watch.stats.recounted();
        self.written = of(field::WRITE);
        if self.looked.is_none_or(|at| at.elapsed() >= if self.filling { COUNTERS } else { SERVER }) {
            self.look(link)?;
        }
        Ok(of(field::SAFE))
    }

    /// Looks at how the server is set up, and how full it is.
    fn look(&mut self, link: &mut Link) -> Result<(), RedisError> {
        self.looked = Some(Instant::now());
        if let Some(replica) = &self.watch.replica {
            let mut alive = redis::cmd("SET");
            alive.arg(keys::alive(replica)).arg(1).arg("EX").arg(ALIVE_SECONDS);
            // A server without room is told below.
            if let Err(fault) = link.query::<()>(&alive)
                && fault.is_lost()
            {
                return Err(fault);
            }
        }
        self.count_new_series(link)?;
        let server = ServerState::read(link)?;
        let faults = server.faults(self.watch.wait_replicas);
        self.weak = faults.iter().map(ToString::to_string).collect();
        self.weak.extend(self.watch.unsafe_fail_over.map(str::to_owned));
        let (mine, theirs) = (self.watch.wait_replicas, self.owner_waits.unwrap_or(u64::from(self.watch.wait_replicas)));
        if theirs != u64::from(mine) {
            self.weak.push(format!("REDIS_WAIT_REPLICAS is {mine} here and {theirs} at the active processor: set it the same everywhere"));
        }
        let refused: Vec<_> = faults.iter().filter(|fault| fault.is_refusal()).map(ToString::to_string).collect();
        let share = server.share_used().unwrap_or(0.0);
        self.filling = share >= HURRY_SHARE;
        if let Some(hurry) = self.watch.hurry.as_ref().filter(|_| self.filling) {
            hurry();
        }
        let is_full = share >= FULL_SHARE;
        let used = format!("redis has {:.0} % of its maxmemory in use", share * 100.0);
        let cost = if self.watch.kafka.is_some() {
            "when it is full, requests with an Idempotency-Key and files are refused: raise maxmemory".to_owned()
        } else {
            format!("from {:.0} % on nothing is accepted: raise maxmemory, or see why processors fall behind", FULL_SHARE * 100.0)
        };
        if is_full != self.was_full {
            self.was_full = is_full;
            if is_full {
                warn!("{used}; {cost}");
            } else {
                info!("redis has room again");
            }
        }
        let refused = (!refused.is_empty()).then(|| refused.join("; "));
        self.full = is_full.then(|| format!("{used}; {cost}"));
        // What would not be kept is not acknowledged.
        self.full = self.full.take().or(refused);
        self.watch.backlog.refuse(self.full.clone().filter(|_| self.watch.kafka.is_none()));
        Ok(())
    }

    /// Reads how many series all replicas have let in within a day.
    fn count_new_series(&mut self, link: &mut Link) -> Result<(), RedisError> {
        let hour = keys::hour(clock::now());
        let mut command = redis::cmd("HMGET");
        command.arg(keys::COUNTS);
        for hour in hour - 24..=hour {
            command.arg(keys::new_series(hour));
        }
        let counts: Vec<Option<u64>> = link.query(&command)?;
        self.watch.stats.set_new_series(counts.into_iter().flatten().sum());
        // What is older is not asked for any more.
        link.query::<u64>(redis::cmd("HDEL").arg(keys::COUNTS).arg(keys::new_series(hour - 25)).arg(keys::new_series(hour - 26))).map(drop)
    }

    /// Tells whether Redis is there.
    pub(super) fn answered(&mut self, fault: Option<&RedisError>) {
        let was = std::mem::replace(&mut self.there, fault.is_none());
        match fault {
            Some(fault) => {
                let takes = self.watch.kafka.is_some();
                if was {
                    let meanwhile = if takes { "events without a key are accepted, and wait" } else { "nothing is accepted" };
                    warn!("{meanwhile} until redis answers: {fault}");
                }
                self.watch.backlog.refuse((!takes).then(|| fault.to_string()));
                let down = if takes { Component::Degraded } else { Component::Failed };
                self.watch.stats.component("redis", down(fault.to_string()));
            }
            None => {
                if !was {
                    info!("redis answers again");
                    self.watch.backlog.refuse(self.full.clone().filter(|_| self.watch.kafka.is_none()));
                }
                if let Some(freshness) = &self.watch.freshness {
                    freshness.is_back();
                }
                let component = match (&self.full, self.weak.is_empty()) {
                    (Some(full), _) if self.watch.kafka.is_none() => Component::Failed(full.clone()),
                    (Some(full), _) => Component::Degraded(full.clone()),
                    (None, true) => Component::Ok,
                    (None, false) => Component::Degraded(self.weak.join("; ")),
                };
                self.watch.stats.component("redis", component);
            }
        }
    }
}
