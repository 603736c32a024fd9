//! Whether this process shows what another has just written: asked before people are answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::redis::keys::{self, field};
use crate::redis::{Reconnecting, RedisError, RedisPlace};
use crate::share::Share;

/// How long an answer waits to be fresh; then what there is is told.
const PATIENCE: Duration = Duration::from_millis(300);
/// Between two looks at what is shown.
const STEP: Duration = Duration::from_millis(5);

/// Waits until what was safe when it was asked is shown here. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Freshness {
    connection: Arc<Mutex<Reconnecting>>,
    partitions: u32,
    applied: watch::Receiver<u64>,
    /// Redis did not answer: nobody waits until it is known to be back.
    away: Arc<AtomicBool>,
}

impl Freshness {
    /// `applied` tells how far the journal was followed here; the log has so many partitions.
    pub fn new(place: RedisPlace, partitions: u32, applied: watch::Receiver<u64>) -> Self {
        Self { connection: Arc::new(Mutex::new(Reconnecting::impatient(place, PATIENCE))), partitions, applied, away: Arc::default() }
    }

    /// Redis answers: it may be asked.
    pub fn is_back(&self) {
        self.away.store(false, Ordering::Relaxed);
    }

    /// Waits until series and points are shown of all that was judged when it was asked.
    pub async fn wait_for_series(&self) {
        let began = std::time::Instant::now();
        let fields = |name: &'static str| Share::all(self.partitions).map(move |share| share.field(name)).collect::<Vec<_>>();
        let Some(reached) = self.ask(fields(field::REACHED)).await else { return };
        while began.elapsed() < PATIENCE {
            let Some(shown) = self.ask(fields(field::SHOWN)).await else { return };
            if shown.iter().zip(&reached).all(|(shown, reached)| shown >= reached) {
                return;
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// Waits. A Redis that does not answer makes it stale, not slow.
    pub async fn wait(&self) {
        let Some(&[safe]) = self.ask(vec![field::SAFE.to_owned()]).await.as_deref() else { return };
        let mut applied = self.applied.clone();
        let _ = tokio::time::timeout(PATIENCE, applied.wait_for(|applied| *applied >= safe)).await;
    }

    /// Numbers of the state; nothing where Redis does not answer.
    async fn ask(&self, fields: Vec<String>) -> Option<Vec<u64>> {
        if self.away.load(Ordering::Relaxed) {
            return None;
        }
        let (connection, away) = (Arc::clone(&self.connection), Arc::clone(&self.away));
        let ask = move || -> Result<Vec<u64>, RedisError> {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let mut command = redis::cmd("HMGET");
            command.arg(keys::STATE).arg(&fields[..]);
            let numbers = connection.link().and_then(|link| link.query::<Vec<Option<u64>>>(&command));
            away.store(numbers.is_err(), Ordering::Relaxed);
            Ok(numbers?.into_iter().map(Option::unwrap_or_default).collect())
        };
        tokio::task::spawn_blocking(ask).await.ok()?.ok()
    }
}
