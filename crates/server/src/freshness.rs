//! Whether this process shows what another has just written: asked before people are answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::log::stream::{Reconnecting, RedisPlace};
use crate::redis::RedisError;
use crate::redis::keys::{self, field};

/// How long an answer waits to be fresh; then what there is is told.
const PATIENCE: Duration = Duration::from_millis(300);

/// Waits until what was safe when it was asked is shown here. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Freshness {
    connection: Arc<Mutex<Reconnecting>>,
    applied: watch::Receiver<u64>,
    /// Redis did not answer: nobody waits until it is known to be back.
    away: Arc<AtomicBool>,
}

impl Freshness {
    /// `applied` tells how far the journal was followed here.
    pub fn new(place: RedisPlace, applied: watch::Receiver<u64>) -> Self {
        Self { connection: Arc::new(Mutex::new(Reconnecting::impatient(place, PATIENCE))), applied, away: Arc::default() }
    }

    /// Redis answers: it may be asked.
    pub fn is_back(&self) {
        self.away.store(false, Ordering::Relaxed);
    }

    /// Waits. A Redis that does not answer makes it stale, not slow.
    pub async fn wait(&self) {
        if self.away.load(Ordering::Relaxed) {
            return;
        }
        let (connection, away) = (Arc::clone(&self.connection), Arc::clone(&self.away));
        let ask = move || -> Result<u64, RedisError> {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            if away.load(Ordering::Relaxed) {
                return Ok(0);
            }
            let mut command = redis::cmd("HGET");
            command.arg(keys::STATE).arg(field::SAFE);
            let safe = connection.link().and_then(|link| link.query::<Option<u64>>(&command));
            away.store(safe.is_err(), Ordering::Relaxed);
            Ok(safe?.unwrap_or(0))
        };
        let Ok(Ok(safe)) = tokio::task::spawn_blocking(ask).await else { return };
        let mut applied = self.applied.clone();
        let _ = tokio::time::timeout(PATIENCE, applied.wait_for(|applied| *applied >= safe)).await;
    }
}
