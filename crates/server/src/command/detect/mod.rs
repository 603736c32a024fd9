//! `anomaly detect`: the engine of the server on files, without one.
//!
//! A file goes from `input` (in place, or unpacked into a temporary file) through the parser into batches, each batch as a
//! frame through the engine, and what the engine says of it to an `output`. Memory does not grow with a file.

mod csv;
mod input;
mod output;
mod summary;
mod table;

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anomaly_detect::text;
use anomaly_engine::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Record, RecordRef};
use anomaly_engine::parse::{Arrival, FileError, FileOptions, FileReader, More};
use anomaly_engine::{DetectorKind, Engine, EngineConfig, Outputs, Timestamp};
use anyhow::{Context as _, bail};
use indicatif::ProgressBar;

use super::terminal::{self, Note, Notes, Style, painted};
use crate::cli::{Detect, Format};
use crate::clock;
use crate::config::{Config, Sources};
use crate::plot::{self, Heading, Plot};
use input::Input;
use output::{Backwards, Judged, Output};
use summary::FileNotes;
pub use summary::Summary;

/// Rows of a batch: enough for the engine to use every core, few enough to stay in its caches.
const BATCH_ROWS: usize = 16_384;

/// What a run is told besides the configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Files in order; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// How to write; a table where it is not said, CSV with `all_points`.
    pub format: Option<Format>,
    /// Whether to write every row.
    pub all_points: bool,
    /// Where to draw it, too: a name that ends with .svg, .png or .html.
    pub plot: Option<PathBuf>,
    /// Nanoseconds between rows without a time; `None` rejects them.
    pub interval: Option<i64>,
    /// Whether the output shows colours.
    pub colour: bool,
    /// Whether the notes do.
    pub colour_notes: bool,
    /// Columns of the terminal that the output goes to, if it does.
    pub columns: Option<usize>,
    /// Whether to show how far it is, on standard error.
    pub progress: bool,
    /// Whether to say what else could be done: to a person, who sees output and notes together.
    pub hints: bool,
}

/// Runs the command as it was typed, on this process' standard streams.
///
/// # Errors
/// A configuration with faults, flags that exclude each other, an output that cannot be written.
pub fn from_command_line(detect: &Detect) -> anyhow::Result<ExitCode> {
    let loaded = Sources::of_process(detect.flags(), detect.config.as_deref(), false)?.load()?;
    let mut files = detect.files.clone();
    if files.is_empty() {
        if io::stdin().is_terminal() {
            bail!("no file to read: name one (anomaly detect metrics.csv), or - for standard input");
        }
        files.push("-".into());
    }
    let to_terminal = io::stdout().is_terminal();
    let options = Options {
        files,
        format: detect.format,
        all_points: detect.all_points,
        plot: detect.plot.clone(),
        interval: detect.interval,
        colour: detect.color.shown(to_terminal),
        colour_notes: detect.color.shown(io::stderr().is_terminal()),
        columns: terminal::columns(),
        // Rows that scroll by show by themselves how far it is.
        progress: io::stderr().is_terminal() && !(to_terminal && detect.all_points),
        hints: to_terminal && io::stderr().is_terminal(),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let summary = run(&options, loaded.config, &mut out, &mut io::stderr())?;
    Ok(match summary {
        Summary { failed: 1.., .. } => ExitCode::from(2),
        Summary { anomalies: 1.., .. } if detect.exit_code => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    })
}

/// Judges the rows of all files in order with one engine, writes what was found to `out`, and to `notes` what there is to say.
/// A file that cannot be read is told and counted; the others are still read.
///
/// # Errors
/// Options that exclude each other, an output that cannot be written.
pub fn run(options: &Options, config: Config, out: &mut dyn Write, notes: &mut dyn Write) -> anyhow::Result<Summary> {
    let output = Output::new(options, &config)?;
    if let Some(path) = &options.plot {
        // Before the rows are read, which may take a while.
        plot::check(path)?;
    }
    let mut engine = Engine::new(config.engine.clone(), config.shards.max(1));
    engine.keep_points(options.all_points || options.plot.is_some());
    let plot = options.plot.as_ref().map(|_| Plot::new());
    let bar = ProgressBar::hidden();
    let mut run = Run { options, config, engine, frame: 0, started: clock::now(), output, out, bar, plot, summary: Summary::default() };
    let mut notes = Notes { out: notes, colour: options.colour_notes };
    run.output.begin(run.out).context("cannot write the output")?;
    for path in &options.files {
        run.file(path, &mut notes)?;
    }
    run.output.end(run.out).and_then(|()| run.out.flush()).context("cannot write the output")?;
    let summary = painted(&run.summary.to_string(), Style::Bold, options.colour_notes);
    writeln!(notes.out, "{summary}")?;
    if let (Some(path), Some(plot)) = (&options.plot, run.plot.take()) {
        run.draw(path, plot, &mut notes)?;
    } else if options.hints && run.summary.anomalies > 0 && matches!(run.output, Output::Table(_)) {
        notes.say(Note::Hint, "--plot anomalies.html shows them, --format json says the reason of each")?;
    }
    Ok(run.summary)
}

/// A run over several files.
struct Run<'a> {
    options: &'a Options,
    config: Config,
    engine: Engine,
    /// Number of the last frame.
    frame: u64,
    /// What takes the place of the time of arrival.
    started: Timestamp,
    output: Output,
    out: &'a mut dyn Write,
    /// Of the file that is being read.
    bar: ProgressBar,
    plot: Option<Plot>,
    summary: Summary,
}

impl Run<'_> {
    /// Judges one file, or tells why it cannot be read.
    fn file(&mut self, path: &Path, notes: &mut Notes<'_>) -> anyhow::Result<()> {
        let shown = input::shown(path);
        let opened = Input::open(path, self.options.progress);
        let read = match opened {
            Ok(input) => {
                self.bar = input.bar();
                self.judge(input)?
            }
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(file) => {
                self.summary.add(&file);
                file.write(&shown, notes)?;
            }
            Err(message) => {
                self.summary.failed += 1;
                notes.say(Note::Error, format_args!("{shown}: {message}"))?;
            }
        }
        Ok(())
    }

    /// Judges the rows of a file. The inner error is the file's: what keeps it from being read.
    fn judge(&mut self, input: Input) -> anyhow::Result<Result<FileNotes, String>> {
        let name = input.name().to_owned();
        let options = FileOptions {
            name: name.clone(),
            arrival: Arrival { time: self.started, max_future: self.config.max_future },
            zone: self.config.timezone.clone(),
            interval: self.options.interval,
            require_timestamps: true,
            max_event_bytes: self.config.limits.max_event_bytes,
        };
        let mut reader = match FileReader::open(input, &options) {
            Ok(reader) => reader,
            Err(error) => return Ok(Err(sentence(&error))),
        };
        let origin = Origin { name: format!("file:{name}"), first: None };
        let mut notes = FileNotes::default();
        let mut outputs = Outputs::default();
        let mut backwards = if reader.is_backwards() && self.options.all_points { Some(Backwards::new()?) } else { None };
        loop {
            let mut builder = BatchBuilder::new();
            let more = match reader.next_batch(&mut builder, BATCH_ROWS) {
                Ok(more) => more,
                Err(error) => return Ok(Err(format!("the file could not be read: {error}"))),
            };
            if !builder.is_empty() {
                let mut frame = FrameBuilder::new(self.started);
                frame.push(&Record::Events(builder.finish(origin.clone())));
                self.apply(frame, &mut outputs, backwards.as_mut())?;
                notes.add(&outputs);
                self.summary.see(&outputs);
            }
            if more == More::End {
                break;
            }
        }
        if let Some(backwards) = backwards {
            backwards.write(self.out).context("cannot write the output")?;
        }
        notes.finish(reader.report(), reader.warnings());
        Ok(Ok(notes))
    }

    /// Applies a frame of one batch and writes what it brought forth.
    fn apply(&mut self, frame: FrameBuilder, outputs: &mut Outputs, backwards: Option<&mut Backwards>) -> anyhow::Result<()> {
        self.frame += 1;
        let bytes = frame.seal(self.frame);
        let frame = Frame::open(self.frame, &bytes)?;
        outputs.clear();
        self.engine.apply(&frame, outputs)?;
        if let Some(Ok((first, RecordRef::Events(batch)))) = frame.records().next() {
            if let Some(plot) = &mut self.plot {
                plot.take(&batch, outputs, self.engine.config());
            }
            let judged = Judged { batch: &batch, first, outputs, config: self.engine.config(), detected_at: clock::now() };
            match backwards {
                Some(backwards) => backwards.take(&mut self.output, &judged).context("cannot write a temporary file")?,
                None if self.options.columns.is_some() => {
                    // The bar would stand between the lines.
                    let write = || self.output.write(&judged, self.out).and_then(|()| self.out.flush());
                    self.bar.suspend(write).context("cannot write the output")?;
                }
                None => self.output.write(&judged, self.out).context("cannot write the output")?,
            }
        }
        Ok(())
    }

    /// Draws what was read, and says where.
    fn draw(&self, path: &Path, plot: Plot, notes: &mut Notes<'_>) -> anyhow::Result<()> {
        if plot.is_empty() {
            return Ok(notes.say(Note::Plot, "none was written, as no row was accepted")?);
        }
        let EngineConfig { detector, window_seconds, threshold, rules, .. } = &self.config.engine;
        let threshold = if *detector == DetectorKind::Zscore { format!(", threshold {}", text::number(*threshold)) } else { String::new() };
        let rules = if rules.is_empty() { "" } else { ", rules for some" };
        let heading = Heading {
            title: self.summary.found(),
            subtitle: format!(
                "{} · {} with a window of {}{threshold}{rules}",
                self.summary.read(),
                detector.as_str(),
                text::span(*window_seconds)
            ),
        };
        let left_out = plot.write(path, heading, self.config.timezone.clone())?;
        notes.say(Note::Plot, path.display())?;
        if let Some(sentence) = left_out {
            notes.say(Note::Plot, sentence)?;
        }
        Ok(())
    }
}

/// Why a file is refused, in one sentence.
fn sentence(error: &FileError) -> String {
    match error {
        FileError::Refused(rejected) if rejected.line > 0 => format!("line {}: {error}", rejected.line),
        _ => error.to_string(),
    }
}
