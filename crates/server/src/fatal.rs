//! A stage that cannot go on without breaking a promise calls for the end of the process.

use tokio::sync::mpsc;

/// Calls for the end of the process, with the reason. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fatal {
    sender: mpsc::UnboundedSender<String>,
}

impl Fatal {
    /// The caller's side and where the reasons arrive.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, receiver)
    }

    /// Calls for the end if the thread that holds this panics: a stage that is gone without a word would leave the others
    /// waiting for it.
    pub fn guard(&self, thread: &'static str) -> PanicGuard {
        PanicGuard { fatal: self.clone(), thread }
    }

    /// Calls for the end. Whoever hears it first decides the message; later ones are the same fault's echo.
    pub fn call(&self, reason: String) {
        let _ = self.sender.send(reason);
    }
}

/// See [`Fatal::guard`].
#[derive(Debug)]
pub struct PanicGuard {
    fatal: Fatal,
    thread: &'static str,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fatal.call(format!("the thread {} panicked", self.thread));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_panics_ends_the_process_and_one_that_ends_does_not() {
        let (fatal, mut reasons) = Fatal::new();
        let guard = fatal.guard("calm");
        std::thread::spawn(move || drop(guard)).join().unwrap();
        let guard = fatal.guard("engine");
        let panicked = std::thread::spawn(move || {
            let _guard = guard;
            std::panic::resume_unwind(Box::new(()))
        });
        assert!(panicked.join().is_err());
        assert_eq!(reasons.recv().await.unwrap(), "the thread engine panicked");
    }
}
