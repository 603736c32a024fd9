//! The command line: what may be typed. Exit codes: 0; 1 where `detect --exit-code` found anomalies or `notify test` could not
//! send; 2 on error.

mod alerting;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use alerting::{AtServer, Finding, Incidents, NewSilence, OfIncident, OnIncidents, Saying, Silence};
use alerting::{INCIDENTS_EXAMPLES, REPLAY_EXAMPLES, SILENCE_EXAMPLES};

use crate::command;
use crate::command::role::{self, Role};
use crate::config::{Faults, Flag, value};
use crate::logging;
use crate::notify::channel::Channel;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  anomaly demo                              made-up metrics that go wrong on purpose: see it at work
  anomaly                                   serve on http://127.0.0.1:8000, data in ./data
  anomaly all --port 9000 --data-dir /srv/anomaly
  anomaly detect metrics.csv                what is odd in a file, without a server
  anomaly config print > anomaly.toml       every setting with its default

Settings come from flags, the environment, .env and anomaly.toml, in this order: docs/configuration.md.";

/// Finds anomalies in streams of metrics as they arrive.
#[derive(Debug, Parser)]
#[command(name = "anomaly", version, styles = STYLES, after_help = EXAMPLES, args_conflicts_with_subcommands = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    all: All,
}

/// Every command; without one it is `all`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: API, detection, log and store in one process (the default command)
    #[command(after_help = ALL_EXAMPLES)]
    All(All),
    /// Serve the API alone: log and store are on Redis, where processors detect
    #[command(after_help = ROLE_EXAMPLES)]
    Api(All),
    /// Detect alone: what the APIs take is on Redis; one works, others stand by
    #[command(after_help = ROLE_EXAMPLES)]
    Processor(Worker),
    /// Read Kafka alone, into the log on Redis
    #[command(after_help = ROLE_EXAMPLES)]
    Ingest(Worker),
    /// Serve made-up metrics that go wrong on purpose, from a throw-away data directory
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(Demo),
    /// Find anomalies in files, without a server
    #[command(after_help = DETECT_EXAMPLES)]
    Detect(Detect),
    /// Print or check the configuration
    #[command(subcommand)]
    Config(Config),
    /// Try whether people are told
    #[command(subcommand)]
    Notify(Notify),
    /// List incidents of a running server, and say what is done about them
    #[command(after_help = INCIDENTS_EXAMPLES, args_conflicts_with_subcommands = true)]
    Incidents(Incidents),
    /// Silence what is known, on a running server
    #[command(subcommand, after_help = SILENCE_EXAMPLES)]
    Silence(Silence),
    /// Judge an incident anew from its capsule, anywhere
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay {
        /// What `anomaly incidents capsule` or GET /incidents/ID/capsule wrote; - is standard input
        #[arg(value_name = "CAPSULE")]
        file: PathBuf,
    },
    /// Print the OpenAPI document of the HTTP API
    Openapi,
}

const ALL_EXAMPLES: &str = "\
Examples:
  anomaly all
  anomaly all --port 0                      a free port; the first log line names it
  DURABILITY=memory anomaly all             a throw-away run: nothing is written to disk

Ctrl-C stops accepting, finishes what was accepted and exits.";

/// What `all` may be told; each flag wins over the setting of the same name.
#[derive(Debug, Default, Args)]
pub struct All {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on, 0 for a free one [default: 8000]
    #[arg(long)]
    port: Option<String>,
    /// Where everything is kept [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Read this instead of ./anomaly.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

const ROLE_EXAMPLES: &str = "\
Examples:
  export REDIS_URL=redis://127.0.0.1:6379/0
  anomaly api --port 8000 & anomaly api --port 8001 &
  anomaly processor & anomaly processor &
  KAFKA_BROKER=localhost:9092 anomaly ingest

All of them need the same REDIS_URL and the same settings of detection: docs/stack.md.";

/// What a role without an API may be told.
#[derive(Debug, Default, Args)]
pub struct Worker {
    /// Port for /health, /readyz and /metrics, 0 for a free one [default: none]
    #[arg(long)]
    status_port: Option<String>,
    /// Where it keeps what it can make anew [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Read this instead of ./anomaly.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

const DEMO_EXAMPLES: &str = "\
Examples:
  anomaly demo
  anomaly demo --port 0                     a free port; it is printed

It prints the address, and each thing that goes wrong as it does. Ctrl-C ends it and removes its data.";

/// What `demo` may be told.
#[derive(Debug, Default, Args)]
pub struct Demo {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on, 0 for a free one [default: 8000]
    #[arg(long)]
    port: Option<String>,
    /// Read this instead of ./anomaly.toml: what it says of host and port counts, the detection is the demo's own
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

const DETECT_EXAMPLES: &str = "\
Examples:
  anomaly detect cpu.csv
  anomaly detect --window-seconds 1d --threshold 4 *.csv.gz
  curl -s https://example.org/metrics.json | anomaly detect --format json -
  anomaly detect --all-points --format csv cpu.csv > judged.csv
  anomaly detect --plot cpu.html cpu.csv    see it: a page to zoom in; .svg and .png are pictures
  anomaly detect --exit-code cpu.csv || echo 'something is odd'

Exit code: 0, or with --exit-code 1 if anomalies were found; 2 on error.";

/// What `detect` may be told.
#[derive(Debug, Default, Args)]
pub struct Detect {
    /// CSV, JSON, NDJSON or TXT, by content; also packed with gzip or zstd; - is standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// table, json (one object a line) or csv [default: table; csv with --all-points]
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
    /// Write every row in input order, whether or not it fired
    #[arg(long)]
    pub all_points: bool,
    /// Draw values, expected band and anomalies as well: a picture (.svg, .png) or a page to zoom in (.html)
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// zscore or percentile [default: zscore]
    #[arg(long, value_name = "NAME")]
    pub detector: Option<String>,
    /// Length of the window before each event: 300, 5m, 1d [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub window_seconds: Option<String>,
    /// Standard deviations from which zscore fires [default: 3]
    #[arg(long, value_name = "NUMBER")]
    pub threshold: Option<String>,
    /// Samples that the window must hold [default: 5]
    #[arg(long, value_name = "COUNT")]
    pub min_count: Option<String>,
    /// Zone of times that name none, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// Take rows without a time as so far apart (1s, 5m); else they are rejected
    #[arg(long, value_name = "SECONDS", value_parser = interval)]
    pub interval: Option<i64>,
    /// auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, hide_possible_values = true)]
    pub color: Colour,
    /// Exit with 1 if anomalies were found
    #[arg(long)]
    pub exit_code: bool,
    /// Read this instead of ./anomaly.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How `detect` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// One JSON object a line, as the API gives it
    Json,
    /// For spreadsheets
    Csv,
}

/// When to write colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Also into a file or a pipe
    Always,
    /// Never
    Never,
}

impl Colour {
    /// Whether to write them to what is a terminal or not.
    pub fn shown(self, terminal: bool) -> bool {
        match self {
            Self::Auto => logging::colour(terminal),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Print every setting with its default, as anomaly.toml
    Print,
    /// Report every fault with its place, or what is set and where
    Check {
        /// Read this instead of ./anomaly.toml
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// What can be done with notifications.
#[derive(Debug, Subcommand)]
pub enum Notify {
    /// Send a made-up incident and print what the other side answered
    #[command(after_help = NOTIFY_EXAMPLES)]
    Test {
        /// email, webhook, slack, pagerduty, alertmanager or redis [default: every channel that is configured]
        #[arg(value_name = "CHANNEL", value_parser = channel)]
        channel: Option<Channel>,
        /// Read this instead of ./anomaly.toml
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

const NOTIFY_EXAMPLES: &str = "\
Examples:
  anomaly notify test
  anomaly notify test email

Exit code: 0 if all was sent, 1 if something was not, 2 if nothing is configured.";

fn channel(text: &str) -> Result<Channel, String> {
    Channel::named(text).ok_or_else(|| format!("must be {}", value::either(&Channel::ALL.map(Channel::name))))
}

fn interval(text: &str) -> Result<i64, String> {
    value::positive_seconds(text).map(value::nanos)
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        // `anomaly detect … | head`: whoever read has enough, and that is no fault.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}", told(&error));
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command.unwrap_or(Command::All(cli.all)) {
        Command::All(all) => role::run(Role::All, all.flags(), all.config.as_deref()),
        Command::Api(all) => role::run(Role::Api, all.flags(), all.config.as_deref()),
        Command::Processor(worker) => role::run(Role::Processor, worker.flags(), worker.config.as_deref()),
        Command::Ingest(worker) => role::run(Role::Ingest, worker.flags(), worker.config.as_deref()),
        Command::Demo(demo) => command::demo::run(demo.flags(), demo.config.as_deref()),
        Command::Detect(detect) => command::detect::from_command_line(&detect),
        Command::Config(Config::Print) => command::config::print(&mut io::stdout().lock()),
        Command::Config(Config::Check { config }) => command::config::check(config.as_deref(), &mut io::stdout().lock()),
        Command::Notify(Notify::Test { channel, config }) => command::notify::test(channel, config.as_deref(), &mut io::stdout().lock()),
        Command::Incidents(incidents) => incidents.run(),
        Command::Silence(silence) => silence.run(),
        Command::Replay { file } => command::replay::run(&file, &mut io::stdout().lock()),
        Command::Openapi => command::openapi::print(&mut io::stdout().lock()),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken)
}

/// An error as it is read: on one line, or where a configuration has several faults one line each.
fn told(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Faults>() {
        Some(Faults(faults)) if faults.len() > 1 => {
            let lines: String = faults.iter().map(|fault| format!("\n  {fault}")).collect();
            format!("error: the configuration has {} faults:{lines}", faults.len())
        }
        _ => format!("error: {error:#}"),
    }
}

fn flags<const N: usize>(given: [(&'static str, &'static str, &Option<String>); N]) -> Vec<Flag> {
    given.into_iter().filter_map(|(flag, name, text)| Some(Flag { flag, name, text: text.clone()? })).collect()
}

impl All {
    fn flags(&self) -> Vec<Flag> {
        flags([("--host", "HOST", &self.host), ("--port", "PORT", &self.port), ("--data-dir", "DATA_DIR", &self.data_dir)])
    }
}

impl Worker {
    fn flags(&self) -> Vec<Flag> {
        flags([("--status-port", "STATUS_PORT", &self.status_port), ("--data-dir", "DATA_DIR", &self.data_dir)])
    }
}

impl Demo {
    fn flags(&self) -> Vec<Flag> {
        flags([("--host", "HOST", &self.host), ("--port", "PORT", &self.port)])
    }
}

impl Detect {
    /// The settings that its flags set.
    pub fn flags(&self) -> Vec<Flag> {
        flags([
            ("--detector", "ANOMALY_DETECTOR", &self.detector),
            ("--window-seconds", "WINDOW_SECONDS", &self.window_seconds),
            ("--threshold", "ANOMALY_THRESHOLD", &self.threshold),
            ("--min-count", "ANOMALY_MIN_COUNT", &self.min_count),
            ("--timezone", "TIMEZONE", &self.timezone),
        ])
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::config::Fault;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_serves_and_takes_the_flags_of_all() {
        let cli = parse("anomaly --port 9000").unwrap();
        assert!(cli.command.is_none());
        let flags: Vec<_> = cli.all.flags().into_iter().map(|flag| (flag.flag, flag.name, flag.text)).collect();
        assert_eq!(flags, [("--port", "PORT", "9000".to_owned())]);
        assert!(matches!(parse("anomaly all --host ::1 --data-dir d").unwrap().command, Some(Command::All(_))));
    }

    #[test]
    fn roles_take_what_they_need() {
        let Some(Command::Processor(worker)) = parse("anomaly processor --status-port 9100").unwrap().command else { panic!("processor") };
        assert_eq!(worker.flags().into_iter().map(|flag| (flag.name, flag.text)).collect::<Vec<_>>(), [("STATUS_PORT", "9100".to_owned())]);
        assert!(matches!(parse("anomaly api --port 0").unwrap().command, Some(Command::Api(_))));
        assert!(parse("anomaly processor --port 0").is_err(), "it has no API");
    }

    #[test]
    fn detect_takes_files_flags_and_a_dash() {
        let cli = parse("anomaly detect a.csv - --format json --window-seconds 5m --interval 1s --exit-code").unwrap();
        let Some(Command::Detect(detect)) = cli.command else { panic!("detect") };
        assert_eq!(detect.files, [PathBuf::from("a.csv"), PathBuf::from("-")]);
        assert_eq!((detect.format, detect.interval, detect.exit_code), (Some(Format::Json), Some(1_000_000_000), true));
        assert_eq!(detect.flags().len(), 1);
    }

    #[test]
    fn a_negative_number_is_a_value_and_what_is_unknown_is_refused() {
        assert!(parse("anomaly detect --threshold=-1 a").is_ok(), "the configuration says what is wrong with it");
        for line in
            ["anomaly detct a", "anomaly detect --format xml a", "anomaly detect --interval 0 a", "anomaly config", "anomaly procesor"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn demo_takes_where_it_is_served() {
        let Some(Command::Demo(demo)) = parse("anomaly demo --port 0").unwrap().command else { panic!("demo") };
        assert_eq!(demo.flags().into_iter().map(|flag| (flag.name, flag.text)).collect::<Vec<_>>(), [("PORT", "0".to_owned())]);
        assert!(parse("anomaly demo --data-dir d").is_err(), "its directory is thrown away");
    }

    #[test]
    fn a_channel_to_try_is_one_of_them() {
        let Some(Command::Notify(Notify::Test { channel, .. })) = parse("anomaly notify test Slack").unwrap().command else {
            panic!("notify")
        };
        assert_eq!(channel, Some(Channel::Slack));
        assert!(parse("anomaly notify test").is_ok() && parse("anomaly notify").is_err());
        assert!(
            parse("anomaly notify test mail")
                .unwrap_err()
                .to_string()
                .contains("must be email, webhook, slack, pagerduty, alertmanager or redis")
        );
    }

    #[test]
    fn colours_are_as_they_were_asked_for() {
        let asked = |line: &str| match parse(line).unwrap().command {
            Some(Command::Detect(detect)) => detect.color,
            _ => panic!("detect"),
        };
        assert_eq!(asked("anomaly detect a.csv"), Colour::Auto);
        let (always, never) = (asked("anomaly detect --color always a.csv"), asked("anomaly detect --color never a.csv"));
        assert!(always.shown(false) && !never.shown(true) && !Colour::Auto.shown(false));
    }

    #[test]
    fn several_faults_are_told_one_a_line() {
        let faults = vec![Fault::new("PORT", "must be a port"), Fault::new("HOST", "must be an address")];
        let one = anyhow::Error::new(Faults(faults[..1].to_vec()));
        assert_eq!(told(&one), "error: PORT: must be a port");
        let both = anyhow::Error::new(Faults(faults));
        assert_eq!(told(&both), "error: the configuration has 2 faults:\n  PORT: must be a port\n  HOST: must be an address");
    }

    #[test]
    fn a_reader_who_has_enough_is_no_fault() {
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot write");
        assert!(is_broken_pipe(&error) && !is_broken_pipe(&anyhow::anyhow!("other")));
    }
}
