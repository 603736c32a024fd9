//! What the demo says on the terminal: where to look, what it has made go wrong, and what was found of it.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::tz::TimeZone;
use serde_json::Value;

use crate::demo::{Fault, SERIES};
use crate::logging;

/// Faults of the history that are listed: enough to look up on the page.
const LISTED: usize = 5;
/// How long after a fault an anomaly may still be its doing: the way back to normal.
const AFTER_SECONDS: i64 = 5;
/// Faults that are remembered, for anomalies that may still come of them.
const REMEMBERED: usize = 100;

/// Keeps account of faults and tells of them.
#[derive(Debug)]
pub(super) struct Told {
    /// Of the times that are told.
    zone: TimeZone,
    colour: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The history is over: what happens is told as it does.
    live: bool,
    /// Those that began last, each with whether it was found.
    faults: Vec<(Fault, bool)>,
    n_faults: usize,
    n_found: usize,
}

impl Told {
    /// Nothing has happened yet.
    pub(super) fn new(zone: TimeZone) -> Self {
        Self { zone, colour: logging::colour(io::stdout().is_terminal()), state: Mutex::default() }
    }

    /// A fault begins.
    pub(super) fn begun(&self, fault: Fault) {
        let mut state = self.state();
        state.n_faults += 1;
        state.faults.push((fault, false));
        if state.faults.len() > REMEMBERED {
            state.faults.remove(0);
        }
        if state.live {
            say(&self.line(&fault));
        }
    }

    /// An anomaly was found: JSON as the API gives it.
    pub(super) fn anomaly(&self, body: &str) {
        let Ok(anomaly) = serde_json::from_str::<Value>(body) else { return };
        let (Some(series), Some(at)) = (anomaly["series"].as_str(), anomaly["timestamp"].as_f64()) else { return };
        let mut state = self.state();
        let covers =
            |fault: &Fault| (fault.start..fault.end() + AFTER_SECONDS).contains(&(at as i64)) && SERIES[fault.series].name() == series;
        let Some((fault, found)) = state.faults.iter_mut().rev().find(|(fault, _)| covers(fault)) else { return };
        if *found {
            return;
        }
        *found = true;
        let delay = anomaly["detected_at"].as_f64().map_or(0.0, |detected| detected - fault.start as f64);
        state.n_found += 1;
        if state.live {
            let word = |name: &str| anomaly[name].as_str().unwrap_or_default();
            let severity = self.severity(word("severity"));
            say(&format!("{:23}found {:.1} s later: {severity}, {}", "", delay.max(0.0), word("summary")));
        }
    }

    /// The history is judged and the page can be looked at.
    pub(super) fn welcome(&self, url: &str) {
        let mut state = self.state();
        state.live = true;
        let bold = self.painted(url, "1");
        let (n, found) = (state.n_faults, state.n_found);
        say(&format!(
            "anomaly demo: {} series of a made-up shop, an hour of history, a new value each second\n\n  \
             page  {bold}\n  API   {url}/docs\n\n\
             Every 15 to 20 seconds something goes wrong on purpose. It is told here, so that you can compare it with the\n\
             page; so far {found} of {n} were found. Ctrl-C ends the demo and removes its data.\n\n{}",
            SERIES.len(),
            self.painted(&format!("{:8}  {:11}  series", "time", "went wrong"), "1"),
        ));
        for (fault, _) in &state.faults[state.faults.len().saturating_sub(LISTED)..] {
            say(&self.line(fault));
        }
        say(&self.painted("live", "1"));
    }

    /// All has stopped and the directory is gone.
    pub(super) fn ended(&self) {
        let (faults, found) = self.counts();
        say(&format!("\nThe demo has ended: {found} of {faults} faults were found. Its data are removed."));
    }

    /// How many faults began, and how many were found.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.n_faults, state.n_found)
    }

    fn line(&self, fault: &Fault) -> String {
        let time = jiff::Timestamp::from_second(fault.start).map(|at| at.to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string());
        let lasts = if fault.seconds > 1 { format!(", for {} s", fault.seconds) } else { String::new() };
        let kind = self.painted(&format!("{:12}", fault.kind.as_str()), "36");
        format!("{:8}  {kind} {}{lasts}", time.unwrap_or_default(), SERIES[fault.series].name())
    }

    fn severity(&self, severity: &str) -> String {
        if severity == "critical" { self.painted("◆ critical", "31") } else { self.painted("△ warning", "33") }
    }

    fn painted(&self, text: &str, code: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A demo goes on though nobody reads what it says.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
