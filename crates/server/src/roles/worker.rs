//! A thread that works until it is told to stop, or until whoever has it is gone: where a start fails half-way, nothing of it goes on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The thread, as its owner has it.
#[derive(Debug)]
pub(super) struct Worker {
    stopping: Stopping,
    thread: Option<JoinHandle<()>>,
}

/// Tells the thread whether it is to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct Stopping(Arc<AtomicBool>);

impl Stopping {
    /// Whether it is time.
    pub(super) fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(name: &str, work: impl FnOnce(Stopping) + Send + 'static) -> io::Result<Self> {
        let stopping = Stopping::default();
        let told = stopping.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || work(told))?;
        Ok(Self { stopping, thread: Some(thread) })
    }

    /// Ends it.
    pub(super) fn stop(mut self) {
        self.stopping.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stopping.0.store(true, Ordering::Relaxed);
    }
}
