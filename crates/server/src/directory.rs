//! The series that the owner of the engine shows on Redis, for processes without an engine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anomaly_engine::frame::{Position, partition_of_frame};
use anomaly_engine::{SeriesHash, SeriesInfo, SeriesKey};

use crate::redis::keys::{self, field};
use crate::redis::{Link, Reconnecting, RedisError, RedisPlace};
use crate::share::Share;
use crate::sharing::series_of;

/// Names that are looked at in one step.
const STEP: usize = 1000;
/// How long a position is waited for: an owner that dies meanwhile is missed for about so long.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(10);
/// How long it may take until a series is taken from the lists.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// Looks series up. Cheap to clone; each question waits for the one before.
#[derive(Clone, Debug)]
pub struct Directory {
    connection: Arc<Mutex<Reconnecting>>,
    partitions: u32,
}

impl Directory {
    /// A directory with a connection of its own, for a log of so many partitions.
    pub fn new(place: RedisPlace, partitions: u32) -> Self {
        Self { connection: Arc::new(Mutex::new(Reconnecting::new(place))), partitions }
    }

    /// The share in which a position is, where there are several.
    pub fn share_of(&self, position: Position) -> Option<Share> {
        (self.partitions > 1).then(|| Share { partition: partition_of_frame(position.frame), of: self.partitions })
    }

    /// Waits until its owner has judged what stands at a position, and has written what came of it; not for ever.
    pub fn wait_for(&self, position: Position) {
        let Some(share) = self.share_of(position) else { return };
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let mut command = redis::cmd("HGET");
            command.arg(keys::STATE).arg(share.field(field::REACHED));
            let reached = connection.link().and_then(|link| link.query::<Option<u64>>(&command));
            drop(connection);
            if !matches!(reached, Ok(reached) if reached.unwrap_or(0) < position.frame) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until a series is neither let in nor listed; a second at most.
    pub fn wait_until_gone(&self, series: SeriesHash) {
        let (began, hash) = (Instant::now(), series.to_be_bytes());
        let known = |link: &mut Link| -> Result<bool, RedisError> {
            Ok(link.query::<bool>(redis::cmd("SISMEMBER").arg(keys::KNOWN).arg(&hash[..]))?
                || link.query::<bool>(redis::cmd("HEXISTS").arg(keys::SERIES).arg(&hash[..]))?)
        };
        while began.elapsed() < GONE_WITHIN && self.look(known).unwrap_or(false) {
            std::thread::sleep(PAUSE);
        }
    }

    /// The series that hold all words (in lower case), by name, from behind `after` on; and behind which name there are more than `limit`.
    ///
    /// # Errors
    /// Redis is away.
    pub fn series(&self, words: &[String], after: Option<&String>, limit: usize) -> Result<(Vec<SeriesInfo>, Option<String>), RedisError> {
        self.look(|link| page(link, words, after.cloned(), limit))
    }

    /// What is known of a series.
    ///
    /// # Errors
    /// Redis is away.
    pub fn one(&self, series: SeriesHash) -> Result<Option<SeriesInfo>, RedisError> {
        let mut command = redis::cmd("HGET");
        command.arg(keys::SERIES).arg(&series.to_be_bytes()[..]);
        Ok(self.look(|link| link.query::<Option<String>>(&command))?.and_then(|text| series_of(&text)))
    }

    /// Looks something up; once again where the connection was lost meanwhile, as after a fail-over.
    fn look<T>(&self, ask: impl Fn(&mut Link) -> Result<T, RedisError>) -> Result<T, RedisError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match ask(connection.link()?) {
            Err(fault) if fault.is_lost() => ask(connection.link()?),
            answer => answer,
        }
    }
}

fn page(
    link: &mut Link,
    words: &[String],
    mut after: Option<String>,
    limit: usize,
) -> Result<(Vec<SeriesInfo>, Option<String>), RedisError> {
    let mut found = Vec::new();
    loop {
        let from = after.as_ref().map_or("-".to_owned(), |after| format!("({after}"));
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg(keys::NAMES).arg(from).arg("+").arg("LIMIT").arg(0).arg(STEP);
        let names: Vec<String> = link.query(&command)?;
        let n = names.len();
        after = names.last().cloned();
        let matches = |name: &String| {
            let lower = name.to_lowercase();
            words.iter().all(|word| lower.contains(word))
        };
        found.extend(names.into_iter().filter(matches));
        if n < STEP || found.len() > limit {
            break;
        }
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).cloned();
    let hashes: Vec<_> = found.iter().filter_map(|name| SeriesKey::parse(name)).map(|key| key.hash().to_be_bytes().to_vec()).collect();
    if hashes.is_empty() {
        return Ok((Vec::new(), None));
    }
    let shown: Vec<Option<String>> = link.query(redis::cmd("HMGET").arg(keys::SERIES).arg(&hashes))?;
    Ok((shown.into_iter().flatten().filter_map(|text| series_of(&text)).collect(), next))
}
