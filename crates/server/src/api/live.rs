//! `WS /ws/anomalies`: each anomaly as it is committed, after a replay of those that the client has missed.
//!
//! Nothing is lost and nothing doubled between replay and live: the client is subscribed before the last page is read, and
//! what the page held is skipped when it comes again. What a client must still get waits in the store, not in memory.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anomaly_engine::Glob;
use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade};
use axum::http::{StatusCode, header};
use axum::response::Response;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::query::Params;
use super::{Api, json, now};
use crate::live::Joined;
use crate::problem::Problem;
use crate::serve::Closing;
use crate::store::sqlite::StoreReader;
use crate::store::{Extent, Stored};

/// Pings keep proxies from closing a quiet connection.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A client that answers no ping for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// A client that does not take what is sent within this time is too slow.
const SEND: Duration = Duration::from_secs(5);
/// Anomalies read from the store, or sent before a flush, at a time.
const PAGE: usize = 100;
/// How often in a row a client may fall behind what is kept for it, and be brought up from the store.
const MAX_LAGS: u32 = 3;
/// What is collected for a client before it is handed to the kernel: more than that, and a message, no slow client keeps.
const WRITE_BUFFER: usize = 16 << 10;
/// What is read from a client at a time, and kept for it as long as it is there: it has little to say.
const READ_BUFFER: usize = 4 << 10;
/// The largest message that a client may send; all are ignored.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// The client is gone, or violates the protocol: nothing is said.
const GONE: Option<CloseFrame> = None;

/// Follows anomalies: a WebSocket.
///
/// The first message is `{"type":"hello","cursor":…,"server_time":…,"store":…}`, then each anomaly comes as
/// `{"type":"anomaly","cursor":…,"data":{…}}`. With `after` those that were missed come first, then
/// `{"type":"caught_up","replayed":N}`; `{"type":"gap"}` tells that some are no longer kept. Where `store` is not the one of the
/// hello before, the data directory was begun anew, and cursors from before mean nothing in it; a restored copy keeps its `store`.
#[utoipa::path(get, path = "/ws/anomalies", operation_id = "follow_anomalies", tag = "anomalies",
    params(
        ("after" = Option<String>, Query, description = "The last `cursor` that was received", example = "412"),
        ("metric" = Option<String>, Query, description = "Only these metrics; `*` is any text", example = "cpu*")),
    responses((status = 101, description = "A WebSocket from here on", body = String,
        example = json!({"type": "anomaly", "cursor": "413", "data": super::openapi::anomaly_example()}))))]
pub(super) async fn follow(
    State(api): State<Arc<Api>>,
    params: Params,
    closing: Option<Extension<Closing>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let after = params.text("after").map(sequence).transpose()?;
    let metric = params.text("metric").map(str::to_owned);
    let upgrade = upgrade.map_err(|rejection| {
        let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", format_args!("this is a WebSocket: {rejection}"));
        problem.header(header::UPGRADE, header::HeaderValue::from_static("websocket"))
    })?;
    let upgrade = upgrade.max_message_size(MAX_MESSAGE_BYTES).read_buffer_size(READ_BUFFER);
    let upgrade = upgrade.write_buffer_size(WRITE_BUFFER).max_write_buffer_size(1 << 20);
    // Before the client hears that it is connected: it expects all that is committed from then on.
    let joined = api.app.live.join();
    Ok(upgrade.on_upgrade(move |mut socket| async move {
        api.app.stats.websocket(1);
        let _leave = Leave(&api);
        let closed = closing.map(|Extension(closing)| closing);
        if let Err(Some(frame)) = attend(&mut socket, &*api, joined, metric.as_deref(), after, closed).await {
            tracing::debug!(code = frame.code, reason = frame.reason.as_str(), "WebSocket closed");
            let _ = timeout(SEND, socket.send(Message::Close(Some(frame)))).await;
        }
    }))
}

/// Uncounts the client, also when its task is dropped.
struct Leave<'a>(&'a Api);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.app.stats.websocket(-1);
    }
}

/// Where committed anomalies come from: the API's store, or a scripted one in tests.
trait Source {
    /// Those behind `cursor`, in order.
    fn after(&self, cursor: u64) -> impl Future<Output = Result<Vec<Stored>, Problem>> + Send;
    /// Which there are to be read.
    fn extent(&self) -> impl Future<Output = Result<Extent, Problem>> + Send;
    /// Those committed from now on.
    fn subscribe(&self) -> Receiver<Arc<Stored>>;
}

impl Source for Api {
    async fn after(&self, cursor: u64) -> Result<Vec<Stored>, Problem> {
        self.store_in_turn(move |store| store.after(Some(cursor), PAGE)).await
    }

    async fn extent(&self) -> Result<Extent, Problem> {
        self.store_in_turn(StoreReader::extent).await
    }

    fn subscribe(&self) -> Receiver<Arc<Stored>> {
        self.app.live.subscribe()
    }
}

/// One client.
struct Client<'a, S> {
    socket: &'a mut S,
    metric: Option<Glob<'a>>,
    /// The last anomaly that was looked at for this client.
    last: u64,
    sent: u64,
}

/// Serves a client until it or the server ends; an error is how to close it.
async fn attend<S, E, P>(
    socket: &mut S,
    source: &P,
    joined: Joined,
    metric: Option<&str>,
    after: Option<u64>,
    mut closing: Option<Closing>,
) -> Result<(), Option<CloseFrame>>
where
    S: Sink<Message, Error = E> + Stream<Item = Result<Message, E>> + Unpin + Send,
    E: Send,
    P: Source + Sync,
{
    let Joined { mut receiver, newest, store } = joined;
    let mut client = Client { socket, metric: metric.map(Glob::new), last: newest, sent: 0 };
    client.tell(format!(r#"{{"type":"hello","cursor":"{newest}","server_time":{},"store":"{store}"}}"#, now())).await?;
    if let Some(after) = after {
        let Extent { newest, oldest, .. } = source.extent().await.map_err(failed)?;
        // A cursor beyond the newest is of another data directory: all that is kept is new to this client.
        let known = after <= newest;
        if !known || after + 1 < oldest {
            client.tell(r#"{"type":"gap"}"#.into()).await?;
        }
        client.last = if known { after } else { 0 };
        receiver = client.catch_up(source).await?;
        let replayed = client.sent;
        client.tell(format!("{{\"type\":\"caught_up\",\"replayed\":{replayed}}}")).await?;
    }
    let (mut heard, mut lags) = (Instant::now(), 0);
    let mut ping = interval_at(heard + PING_EVERY, PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = receiver.recv() => match received {
                Ok(stored) => {
                    client.feed(&stored).await?;
                    for _ in 1..PAGE {
                        match receiver.try_recv() {
                            Ok(stored) => client.feed(&stored).await?,
                            Err(TryRecvError::Empty) => { lags = 0; break }
                            // Met again by the next `recv`.
                            Err(TryRecvError::Lagged(_) | TryRecvError::Closed) => break,
                        }
                    }
                    client.flush().await?;
                }
                Err(RecvError::Lagged(_)) if lags < MAX_LAGS => {
                    lags += 1;
                    receiver = client.catch_up(source).await?;
                }
                Err(RecvError::Lagged(_)) => return Err(close(1013, "too slow: reconnect with the last cursor")),
                Err(RecvError::Closed) => return Err(close(1001, "the server is stopping")),
            },
            message = client.socket.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(GONE),
                Some(Ok(_)) => heard = Instant::now(),
            },
            _ = ping.tick() => {
                if heard.elapsed() >= SILENCE {
                    return Err(close(1008, "no sign of life for 60 s"));
                }
                client.send(Message::Ping(Default::default())).await?;
            }
            () = begun(&mut closing) => return Err(close(1001, "the server is stopping")),
        }
    }
}

impl<S, E> Client<'_, S>
where
    S: Sink<Message, Error = E> + Unpin,
{
    /// Sends what the store holds behind the last; then what comes from the receiver follows without a gap.
    async fn catch_up(&mut self, source: &impl Source) -> Result<Receiver<Arc<Stored>>, Option<CloseFrame>> {
        // Subscribed early, a long replay would let the receiver overflow; so first what was there, then the rest.
        while self.page(source).await? {}
        let receiver = source.subscribe();
        while self.page(source).await? {}
        Ok(receiver)
    }

    /// Sends a page. Whether there was one.
    async fn page(&mut self, source: &impl Source) -> Result<bool, Option<CloseFrame>> {
        let page = source.after(self.last).await.map_err(failed)?;
        for stored in &page {
            self.feed(stored).await?;
        }
        self.flush().await?;
        Ok(!page.is_empty())
    }

    /// Writes an anomaly that this client has not seen and wants.
    async fn feed(&mut self, stored: &Stored) -> Result<(), Option<CloseFrame>> {
        if stored.seq <= self.last {
            return Ok(());
        }
        self.last = stored.seq;
        if self.metric.is_some_and(|pattern| !pattern.matches(&stored.metric)) {
            return Ok(());
        }
        self.sent += 1;
        let frame = format!("{{\"type\":\"anomaly\",\"cursor\":\"{}\",\"data\":{}}}", stored.seq, stored.body);
        in_time(self.socket.feed(Message::Text(frame.into()))).await
    }

    async fn flush(&mut self) -> Result<(), Option<CloseFrame>> {
        in_time(self.socket.flush()).await
    }

    async fn tell(&mut self, text: String) -> Result<(), Option<CloseFrame>> {
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Option<CloseFrame>> {
        in_time(self.socket.send(message)).await
    }
}

async fn in_time<E>(sending: impl Future<Output = Result<(), E>>) -> Result<(), Option<CloseFrame>> {
    match timeout(SEND, sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(GONE),
        Err(_) => Err(close(1013, "too slow: reconnect with the last cursor")),
    }
}

async fn begun(closing: &mut Option<Closing>) {
    match closing {
        Some(closing) => closing.begun().await,
        None => std::future::pending().await,
    }
}

fn close(code: u16, reason: &'static str) -> Option<CloseFrame> {
    Some(CloseFrame { code, reason: reason.into() })
}

fn failed(problem: impl Into<Problem>) -> Option<CloseFrame> {
    let problem = problem.into();
    close(
        1011,
        if problem.status() == StatusCode::SERVICE_UNAVAILABLE { "the server is stopping" } else { "the server failed; its log says why" },
    )
}

/// A cursor: the number of an anomaly, as this server writes it.
fn sequence(cursor: &str) -> Result<u64, Problem> {
    let bad = |cursor: &dyn Display| Problem::bad_cursor(format_args!("the cursor {cursor} is not one that this server gave"));
    let digits = cursor.bytes().all(|b| b.is_ascii_digit());
    cursor.parse().ok().filter(|n| digits && *n < u64::MAX).ok_or_else(|| bad(&json::text(cursor)))
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
