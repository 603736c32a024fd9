//! Pub/Sub of Redis: each message to whoever listens at that moment, on `ALERTS_CHANNEL` with `:incidents` behind it.

use std::sync::{Arc, Mutex, PoisonError};

use super::SendError;
use super::webhook;
use crate::notify::message::Message;
use crate::redis::RedisError;
use crate::redis::{Reconnecting, RedisPlace};

/// Where messages are published.
#[derive(Clone, Debug, PartialEq)]
pub struct PubSub {
    /// Where Redis is.
    pub place: RedisPlace,
    /// The channel.
    pub channel: String,
}

/// Publishes, on a connection of its own.
#[derive(Debug)]
pub(super) struct Publisher {
    channel: String,
    connection: Arc<Mutex<Reconnecting>>,
}

impl Publisher {
    pub(super) fn new(config: &PubSub) -> Self {
        let connection = Arc::new(Mutex::new(Reconnecting::new(config.place.clone())));
        Self { channel: config.channel.clone(), connection }
    }

    pub(super) async fn send(&self, body: &[u8]) -> Result<String, SendError> {
        let (connection, channel, body) = (Arc::clone(&self.connection), self.channel.clone(), body.to_vec());
        let publish = move || -> Result<u64, RedisError> {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            connection.link()?.query(redis::cmd("PUBLISH").arg(channel).arg(body))
        };
        let published = tokio::task::spawn_blocking(publish).await.map_err(|ended| SendError::temporary(ended.to_string()))?;
        let listeners = published.map_err(|fault| SendError::temporary(fault.to_string()))?;
        Ok(format!("{listeners} listened"))
    }
}

/// The body: that of a webhook, with the id that a webhook has in a header.
pub(super) fn render(message: &Message, id: &str) -> Vec<u8> {
    let mut body: serde_json::Value = serde_json::from_slice(&webhook::render(message)).unwrap_or_default();
    body["id"] = id.into();
    body.to_string().into_bytes()
}
