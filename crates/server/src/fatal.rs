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

    /// Calls for the end. Whoever hears it first decides the message; later ones are the same fault's echo.
    pub fn call(&self, reason: String) {
        let _ = self.sender.send(reason);
    }
}
