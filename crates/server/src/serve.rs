//! The accept loop: HTTP/1.1 with deadlines for head, body and idle connections, a cap on connections, and an orderly end.
//!
//! `axum::serve` has none of these, so the loop is ours. HTTP/2 is left to a proxy.

mod connection;
mod framing;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

use crate::problem::Problem;
use connection::{Connection, Shared};

/// The most bytes of a request's line and headers.
const HEAD_BYTES: usize = 64 << 10;

/// Deadlines and caps of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// For a request's line and headers, from their first byte (from the connection's begin for the first request).
    pub head: Duration,
    /// Without a byte of a body that is waited for.
    pub body: Duration,
    /// Without a further request.
    pub idle: Duration,
    /// Without a byte of an answer being taken.
    pub write: Duration,
    /// How long a client that is still sending is read after an early answer, so that the answer arrives.
    pub linger: Duration,
    /// For running requests and WebSockets to finish after the shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            linger: Duration::from_secs(3),
            drain: Duration::from_secs(5),
        }
    }
}

/// How far the server is in ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Aborting,
}

/// Told to what outlives its request, such as a WebSocket: the server is ending. While a clone exists, the end waits for it.
#[derive(Clone, Debug)]
pub struct Closing(watch::Receiver<Phase>);

impl Closing {
    /// Resolves when the server begins to end.
    pub async fn begun(&mut self) {
        // An error means that the server is gone, which is an end too.
        let _ = self.0.wait_for(|phase| *phase != Phase::Serving).await;
    }
}

/// Serves until `shutdown` resolves, then finishes what runs, at most [`Limits::drain`] long. Whether all could finish.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: impl Future<Output = ()>) -> bool {
    let (phase, closing) = watch::channel(Phase::Serving);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, peer, slot)) = accepted else { break };
        let (router, closing) = (router.clone(), closing.clone());
        tokio::spawn(async move {
            attend(stream, peer, router, limits, closing).await;
            drop(slot);
        });
    }
    drop((listener, closing));
    phase.send_replace(Phase::Draining);
    let finished = tokio::time::timeout(limits.drain, phase.closed()).await.is_ok();
    phase.send_replace(Phase::Aborting);
    finished
}

/// The next connection, when there is room for one.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return Some((stream, peer, slot)),
            Err(error) => {
                // Out of file descriptors: it passes when connections end. Others concern one connection that is gone.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn attend(stream: TcpStream, peer: SocketAddr, router: Router, limits: Limits, mut closing: watch::Receiver<Phase>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY");
    }
    let stream = Connection::new(stream, limits);
    let (shared, requests, signal) = (stream.shared(), AtomicU64::new(0), Closing(closing.clone()));
    let service = service_fn(|request: Request<Incoming>| {
        let number = requests.fetch_add(1, Relaxed);
        answer(request, number, peer, Arc::clone(&shared), router.clone(), &signal)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Our own deadlines tell a silent client from one that waits for an answer.
        .header_read_timeout(None)
        // A client that has sent its request and closed its side still gets its answer.
        .half_close(true)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                return;
            }
            changed = closing.changed() => {
                let phase = *closing.borrow_and_update();
                if changed.is_err() || phase == Phase::Aborting {
                    return;
                }
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn answer(
    request: Request<Incoming>,
    number: u64,
    peer: SocketAddr,
    shared: Arc<Shared>,
    router: Router,
    closing: &Closing,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static {
    let headers = request.headers();
    let upgrade = headers.contains_key(header::UPGRADE);
    // What the framing does not follow must be the last on its connection.
    let last = upgrade || headers.contains_key(header::TRANSFER_ENCODING) || request.method() == Method::CONNECT;
    let closing = upgrade.then(|| closing.clone());
    async move {
        if let Some(reason) = shared.fault_of(number) {
            tracing::debug!(%peer, reason, "request refused");
            return Ok(Problem::new(StatusCode::BAD_REQUEST, "bad_request", reason).closing().into_response());
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        if let Some(closing) = closing {
            request.extensions_mut().insert(closing);
        }
        let mut response = match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            shared.upgrade();
        } else if last {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests;
