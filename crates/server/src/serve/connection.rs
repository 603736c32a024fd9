//! A connection as hyper sees it: with deadlines, with its framing watched, and closed so that an early answer arrives.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Limits;
use super::framing::{Fault, Framing, State};

/// What the service must know of its connection.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Set when the connection speaks another protocol from now on.
    upgraded: AtomicBool,
    fault: Mutex<Option<Fault>>,
}

impl Shared {
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Relaxed);
    }

    /// Why this request of the connection (from 0) must not be served.
    pub(super) fn fault_of(&self, request: u64) -> Option<&'static str> {
        let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.filter(|fault| fault.request == request).map(|fault| fault.reason)
    }
}

/// What the other side is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// For a request, the `n`th of the connection.
    Request(u64),
    /// For the rest of a head.
    Head(u64),
    /// For the next bytes of a body.
    Body,
}

/// A stream with deadlines.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    limits: Limits,
    framing: Framing,
    shared: Arc<Shared>,
    read_deadline: Pin<Box<Sleep>>,
    waiting: Option<Wait>,
    write_deadline: Pin<Box<Sleep>>,
    write_stalled: bool,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            stream,
            limits,
            framing: Framing::default(),
            shared: Arc::default(),
            read_deadline: Box::pin(sleep_until(now)),
            waiting: None,
            write_deadline: Box::pin(sleep_until(now)),
            write_stalled: false,
            lingering: None,
        }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    fn upgraded(&self) -> bool {
        self.shared.upgraded.load(Relaxed)
    }

    fn waits_for(&self) -> (Wait, Duration) {
        let (heads, limits) = (self.framing.heads(), &self.limits);
        match self.framing.state() {
            State::Idle if heads == 0 => (Wait::Head(0), limits.head),
            State::Idle => (Wait::Request(heads), limits.idle),
            State::Head => (Wait::Head(heads), limits.head),
            State::Body(_) | State::Opaque => (Wait::Body, limits.body),
        }
    }

    /// Ready with an error when the other side has been silent for too long.
    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.upgraded() {
            return Poll::Pending;
        }
        let (wait, limit) = self.waits_for();
        if self.waiting != Some(wait) {
            self.waiting = Some(wait);
            self.read_deadline.as_mut().reset(Instant::now() + limit);
        }
        self.read_deadline
            .as_mut()
            .poll(cx)
            .map(|()| io::Error::new(io::ErrorKind::TimedOut, format!("{wait:?}: nothing came for {limit:?}")))
    }

    fn poll_write_deadline<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_stalled = false;
            return written;
        }
        if !self.write_stalled {
            self.write_stalled = true;
            self.write_deadline.as_mut().reset(Instant::now() + self.limits.write);
        }
        ready!(self.write_deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing was taken for {:?}", self.limits.write))))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if Pin::new(&mut this.stream).poll_read(cx, buf)?.is_pending() {
            return this.poll_read_deadline(cx).map(Err);
        }
        let state = this.framing.state();
        if !this.upgraded() && state != State::Opaque {
            this.framing.feed(&buf.filled()[before..]);
            if let Some(fault) = this.framing.fault() {
                *this.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            }
        }
        if this.waiting == Some(Wait::Body) {
            this.waiting = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.poll_write_deadline(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.poll_write_deadline(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ends the connection. Where the other side is still sending, it is read on for a moment: closing at once would reset the
    /// connection, and the answer that tells it why would be lost on the way.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.lingering = Some(Box::pin(sleep_until(Instant::now() + this.limits.linger)));
        }
        if this.upgraded() || matches!(this.framing.state(), State::Idle | State::Head) {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 16 << 10];
        // So that a fast sender cannot keep this task from yielding, a poll reads a bounded number of times.
        for _ in 0..64 {
            if this.lingering.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
