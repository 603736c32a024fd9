//! Which format of checkpoints processors write: the newest that all of them read, so that while one version replaces another, either
//! way, each may take over from each.
//!
//! Each says every second what it reads. Whoever has written something newer than somebody reads who has just come writes it again at
//! once; and who has come waits for that, a while, before it takes anything over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anomaly_engine::CheckpointFormat;
use tokio::sync::watch;
use tracing::info;

use super::blocking;
use super::worker::{Stopping, Worker};
use crate::engine_thread::EngineHandle;
use crate::redis::{Reconnecting, RedisError, RedisPlace, Script, keys, nonce};

/// How often it is said.
const SAY: Duration = Duration::from_secs(1);
/// Who has said nothing for so long is gone.
const GONE_SECONDS: u64 = 15;
/// How long a stop waits, step by step.
const STEP: Duration = Duration::from_millis(100);
/// Who is about to write its last waits no longer to hear what others read.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// How often an engine is woken: a checkpoint that failed may be due again.
const WAKE: Duration = Duration::from_secs(5);

/// KEYS: formats. ARGV: who, the newest it reads, after how many seconds one is gone. Answers the newest that all read, and the newest that one reads.
static TELL: Script = Script::new(
    "telling the formats of checkpoints",
    "#!lua flags=allow-oom
local now, least, most = tonumber(redis.call('TIME')[1]), tonumber(ARGV[2]), tonumber(ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. now)
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local format, at = string.match(all[i + 1], '^(%d+):(%d+)$')
  if not format or math.abs(now - tonumber(at)) > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], all[i])
  else
    least, most = math.min(least, tonumber(format)), math.max(most, tonumber(format))
  end
end
return {least, most}",
);

/// Says what this processor reads, for as long as there is a clone of it, and knows what to write. Until others were heard that is the
/// oldest.
#[derive(Clone, Debug)]
pub(super) struct Formats {
    roll: Arc<Roll>,
    _worker: Arc<Worker>,
}

#[derive(Debug)]
struct Roll {
    link: Mutex<Reconnecting>,
    who: String,
    agreed: watch::Sender<CheckpointFormat>,
    newer_is_there: AtomicBool,
}

impl Formats {
    /// Says it a first time, and from then on.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) async fn start(place: RedisPlace) -> anyhow::Result<Self> {
        let link = Mutex::new(Reconnecting::new(place));
        let agreed = watch::channel(CheckpointFormat::OLDEST_WRITTEN).0;
        let roll = Arc::new(Roll { link, who: nonce(), agreed, newer_is_there: AtomicBool::new(false) });
        let telling = Arc::clone(&roll);
        let worker = Worker::start("formats", move |stopping| telling.keep_telling(&stopping))?;
        let formats = Self { roll, _worker: Arc::new(worker) };
        formats.tell().await;
        Ok(formats)
    }

    /// Says it now, and hears what others read, if Redis answers soon.
    pub(super) async fn tell(&self) {
        let roll = Arc::clone(&self.roll);
        // It is said again in a second.
        let _ = tokio::time::timeout(HEARD_WITHIN, blocking(move || roll.tell())).await;
    }

    /// Whether a processor is there that reads more than we: it can write again what we cannot read.
    pub(super) fn newer_is_there(&self) -> bool {
        self.roll.newer_is_there.load(Ordering::Relaxed)
    }

    /// What is to be written.
    pub(super) fn agreed(&self) -> watch::Receiver<CheckpointFormat> {
        self.roll.agreed.subscribe()
    }

    /// Wakes an engine when something else is to be written than before: what it has written may be too new for others.
    pub(super) async fn wake(self, engine: EngineHandle) {
        let mut agreed = self.agreed();
        while engine.ask(|_| {}).await.is_some() {
            let _ = tokio::time::timeout(WAKE, agreed.changed()).await;
        }
    }
}

impl Roll {
    fn keep_telling(&self, stopping: &Stopping) {
        let mut steps = 0;
        while !stopping.is_told() {
            std::thread::sleep(STEP);
            steps += 1;
            if STEP * steps >= SAY {
                steps = 0;
                // While Redis is away nobody takes anything over, and nothing is written.
                let _ = self.tell();
            }
        }
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(link) = link.link() {
            let _ = link.query::<u64>(redis::cmd("HDEL").arg(keys::FORMATS).arg(&self.who));
        }
    }

    fn tell(&self) -> Result<(), RedisError> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let (newest, gone) = (CheckpointFormat::NEWEST.number().to_string(), GONE_SECONDS.to_string());
        let (all_read, one_reads): (u8, u8) =
            link.link()?.eval(&TELL, &[keys::FORMATS], &[self.who.as_bytes(), newest.as_bytes(), gone.as_bytes()])?;
        self.newer_is_there.store(one_reads > CheckpointFormat::NEWEST.number(), Ordering::Relaxed);
        let agreed = CheckpointFormat::agreed(all_read);
        if self.agreed.send_if_modified(|before| std::mem::replace(before, agreed) != agreed) {
            info!(format = agreed.number(), "checkpoints are written in the newest format that all processors read");
        }
        Ok(())
    }
}
