//! Ticks: while an incident is open, the log is told from time to time that time has passed, since an incident of a series
//! that has fallen silent is over without an event that says so.

use std::time::Duration;

use tokio::sync::watch;

use crate::log::handle::LogHints;

/// How far ticks are apart: how much later than a window behind the last anomaly an incident may be found to be over.
const PAUSE: Duration = Duration::from_secs(10);

/// Asks for a tick every 10 s while incidents are open; without one no timer runs and nothing is written. Ends with the
/// engine.
pub(crate) async fn tick(mut open_incidents: watch::Receiver<usize>, log: LogHints) {
    while open_incidents.wait_for(|open| *open > 0).await.is_ok() {
        tokio::time::sleep(PAUSE).await;
        // What it told last still counts where it has gone.
        if open_incidents.has_changed().is_err() {
            return;
        }
        if *open_incidents.borrow() > 0 {
            log.tick();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::handle;

    #[tokio::test(start_paused = true)]
    async fn ticks_come_only_while_an_incident_is_open() {
        let (log, requests) = handle::channel();
        let (open, reader) = watch::channel(0);
        let task = tokio::spawn(tick(reader, log.hints()));
        let pass = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        pass(1000).await;
        assert_eq!(requests.waiting(), 0);
        open.send_replace(1);
        pass(9).await;
        assert_eq!(requests.waiting(), 0);
        pass(2).await;
        assert_eq!(requests.waiting(), 1);
        open.send_replace(2);
        pass(10).await;
        assert_eq!(requests.waiting(), 2, "a change of their number brings none");
        open.send_replace(0);
        pass(1000).await;
        assert_eq!(requests.waiting(), 2);
        open.send_replace(1);
        pass(101).await;
        assert_eq!(requests.waiting(), 12);
        drop(open);
        pass(20).await;
        assert!(task.is_finished());
    }
}
