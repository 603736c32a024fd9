//! What may be typed about incidents of a running server.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::{Colour, interval};
use crate::command;

pub(super) const INCIDENTS_EXAMPLES: &str = "\
Examples:
  anomaly incidents                         what is not resolved, newest first
  anomaly incidents --state open --json | jq .series
  anomaly incidents ack 3f2a91c0 --comment 'looking at it'
  anomaly incidents feedback 3f2a91c0 false-alarm
  anomaly incidents capsule 3f2a91c0 > incident.json

The first characters of an id are enough.";

/// What can be done with incidents.
#[derive(Debug, Args)]
pub struct Incidents {
    #[command(subcommand)]
    what: Option<OnIncidents>,
    #[command(flatten)]
    at: AtServer,
    /// open, acknowledged, silenced or resolved, several between commas
    #[arg(long, value_name = "STATE", default_value = "open,acknowledged,silenced")]
    state: String,
    /// Write one JSON object a line, as the API gives it
    #[arg(long)]
    json: bool,
    /// auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, hide_possible_values = true)]
    color: Colour,
}

/// What can be done with one incident.
#[derive(Debug, Subcommand)]
pub enum OnIncidents {
    /// Say that you look after it: it is not told again
    #[command(visible_alias = "acknowledge")]
    Ack(OfIncident),
    /// Say that it is over; an anomaly that joins it opens it again
    Resolve(OfIncident),
    /// Say whether it was worth it
    Feedback {
        #[command(flatten)]
        of: OfIncident,
        /// useful or false-alarm
        #[arg(value_enum, value_name = "VERDICT", hide_possible_values = true)]
        verdict: Finding,
    },
    /// Write its samples, configuration and verdicts, for `anomaly replay`
    Capsule {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        at: AtServer,
    },
}

/// Which incident, who says it, and what.
#[derive(Debug, Args)]
pub struct OfIncident {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    pub words: Words,
    #[command(flatten)]
    pub at: AtServer,
}

/// Who says something, and what is to be remembered.
#[derive(Debug, Args)]
pub struct Words {
    /// Who says so [default: the user's name]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// What is to be remembered
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
}

impl Words {
    /// Who says so.
    pub fn by(&self) -> Option<String> {
        self.by.clone().or_else(|| std::env::var("USER").ok())
    }
}

/// What is said of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saying {
    /// Somebody looks after it.
    Acknowledge,
    /// It is over.
    Resolve,
    /// Whether it was worth it.
    Feedback(Finding),
}

/// Whether an incident was worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Finding {
    /// It was
    Useful,
    /// It was not
    FalseAlarm,
}

/// A running server.
#[derive(Debug, Default, Args)]
pub struct AtServer {
    /// Where it is [default: where this configuration would serve, http://127.0.0.1:8000]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Read this instead of ./anomaly.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

pub(super) const SILENCE_EXAMPLES: &str = "\
Examples:
  anomaly silence add metric=cpu_usage dc=eu --for 2h --comment 'maintenance'
  anomaly silence add 'host=~web-.*' severity=warning --for 1d
  anomaly silence list
  anomaly silence end 0f9e8d7c6b5a4938

A matcher is NAME=VALUE, NAME!=VALUE, NAME=~PATTERN or NAME!~PATTERN; all must hold. series, metric and severity are names too.";

/// What can be done with silences.
#[derive(Debug, Subcommand)]
pub enum Silence {
    /// Make one that begins now
    Add(NewSilence),
    /// List those that hold, will hold, or ended lately
    List {
        #[command(flatten)]
        at: AtServer,
    },
    /// End one now
    End {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        at: AtServer,
    },
}

/// A silence.
#[derive(Debug, Args)]
pub struct NewSilence {
    /// metric=cpu_usage, dc=~eu-.*, host!=a, severity=warning
    #[arg(value_name = "MATCHER", required = true)]
    pub matchers: Vec<String>,
    /// How long: 30m, 2h, 1d
    #[arg(long = "for", value_name = "TIME", value_parser = interval)]
    pub lasts: i64,
    #[command(flatten)]
    pub words: Words,
    #[command(flatten)]
    pub at: AtServer,
}

pub(super) const REPLAY_EXAMPLES: &str = "\
Examples:
  anomaly replay incident.json
  curl -s http://127.0.0.1:8000/incidents/ID/capsule | anomaly replay -

Exit code: 0 if every verdict is the same, 1 if one differs, 2 on error.";

impl Incidents {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let out = &mut io::stdout().lock();
        match self.what {
            None => {
                let to_terminal = io::stdout().is_terminal();
                let shown = command::incidents::Shown { colour: self.color.shown(to_terminal), columns: command::terminal::columns() };
                command::incidents::list(&self.at, &self.state, self.json, shown, out)
            }
            Some(OnIncidents::Ack(of)) => command::incidents::say(&of, Saying::Acknowledge, out),
            Some(OnIncidents::Resolve(of)) => command::incidents::say(&of, Saying::Resolve, out),
            Some(OnIncidents::Feedback { of, verdict }) => command::incidents::say(&of, Saying::Feedback(verdict), out),
            Some(OnIncidents::Capsule { id, at }) => command::incidents::capsule(&at, &id, out),
        }
    }
}

impl Silence {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let out = &mut io::stdout().lock();
        match self {
            Self::Add(new) => command::silence::add(new, out),
            Self::List { at } => command::silence::list(at, out),
            Self::End { id, at } => command::silence::end(at, id, out),
        }
    }
}
