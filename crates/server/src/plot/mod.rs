//! `anomaly detect --plot`: what was measured, what was expected and what was odd, as a picture or as a page to zoom in;
//! and `chart`, a small picture of one series for an email.
//!
//! Rows go into a trace a series (`trace`), which stays small; `figure` chooses the series that are drawn and lays them out,
//! each in an `area`, as a `scene` of shapes, which `svg` writes and `png` paints. `html` takes the same figure as data.

mod area;
mod chart;
mod figure;
mod font;
mod html;
mod png;
mod scale;
mod scene;
mod svg;
mod trace;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anomaly_engine::frame::BatchRef;
use anomaly_engine::{EngineConfig, Outputs, SeriesHash, SeriesKey, Settings, Verdict};
use hashbrown::HashMap;
use jiff::tz::TimeZone;

pub use chart::chart;
use figure::Figure;
pub use figure::Heading;
use font::Font;
pub(crate) use svg::escaped;
use trace::{Band, Dot, Mark, Trace};

/// Buckets of one series: several for each column of a picture, so that a page can be zoomed into.
const BUCKETS: usize = 8192;
/// Buckets of all series together, about: 200 MB.
const ALL_BUCKETS: usize = 1 << 20;
/// Buckets that each series may have, however many there are.
const LEAST_BUCKETS: usize = 64;

/// Why no plot was written.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The name says no format.
    #[error("--plot writes .svg, .png and .html, got {0:?}: name it plot.svg, say")]
    Format(PathBuf),
    /// The file cannot be written.
    #[error("cannot write {path}", path = .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// A picture of this size cannot be held in memory.
    #[error("the picture is too large")]
    TooLarge,
    /// The picture cannot be encoded.
    #[error("the picture cannot be encoded: {0}")]
    Png(String),
    /// The font in the binary cannot be read.
    #[error("the font of the picture cannot be read: {0}")]
    Font(#[from] ttf_parser::FaceParsingError),
}

/// How a plot is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlotFormat {
    /// A picture that follows the reader's choice of light or dark.
    Svg,
    /// A light picture.
    Png,
    /// A page without anything from elsewhere, to zoom in.
    Html,
}

impl PlotFormat {
    /// The format that a file's name asks for.
    ///
    /// # Errors
    /// It ends with none of the three.
    pub fn of(path: &Path) -> Result<Self, PlotError> {
        let extension = path.extension().map(std::ffi::OsStr::to_ascii_lowercase);
        match extension.as_ref().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            Some("html" | "htm") => Ok(Self::Html),
            _ => Err(PlotError::Format(path.to_owned())),
        }
    }
}

/// Whether a plot can be written there, as far as that can be known beforehand.
///
/// # Errors
/// A name that says no format, a folder that is not there.
pub fn check(path: &Path) -> Result<(), PlotError> {
    PlotFormat::of(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_folder = fs::metadata(folder).and_then(|meta| if meta.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) });
    is_folder.map_err(|error| PlotError::Write(path.to_owned(), error))
}

/// One series, and what is kept of it.
#[derive(Debug)]
pub(crate) struct Drawn {
    pub(crate) name: String,
    pub(crate) trace: Trace,
    settings: Settings,
}

/// Collects what is to be drawn. Memory does not grow with the rows of a series, only with its anomalies.
#[derive(Debug, Default)]
pub struct Plot {
    series: Vec<Drawn>,
    index: HashMap<SeriesHash, usize>,
}

impl Plot {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a batch and what the engine, which keeps points, has said of it.
    pub fn take(&mut self, batch: &BatchRef<'_>, outputs: &Outputs, config: &EngineConfig) {
        for series in batch.series.iter() {
            if !self.index.contains_key(&series.hash)
                && let Ok(key) = SeriesKey::from_bytes(series.key)
            {
                self.index.insert(series.hash, self.series.len());
                self.series.push(Drawn { name: key.name(), trace: Trace::new(), settings: config.settings_of(&key) });
            }
        }
        let most = (ALL_BUCKETS / self.series.len().max(1)).clamp(LEAST_BUCKETS, BUCKETS);
        for point in &outputs.points {
            let Some(&i) = self.index.get(&point.series) else { continue };
            let Drawn { trace, settings, .. } = &mut self.series[i];
            let dot = Dot { at: point.timestamp.nanos(), value: point.value };
            let judgement = &point.judgement;
            let judged = matches!(point.verdict, Verdict::Anomaly | Verdict::Normal);
            let band = judged.then_some(Band { expected: judgement.expected, lower: judgement.lower, upper: judgement.upper });
            trace.push(dot, band, most);
            if let Some(severity) = judgement.severity(&settings.params).filter(|_| point.verdict == Verdict::Anomaly) {
                trace.mark(Mark { dot, severity, z_score: judgement.z_score, strength: judgement.strength });
            }
        }
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Writes it to a file whose name ends with .svg, .png or .html; returns the sentence that says which series were left
    /// out, where some were.
    ///
    /// # Errors
    /// The file cannot be written; its name says no format.
    pub fn write(self, path: &Path, heading: Heading, zone: TimeZone) -> Result<Option<String>, PlotError> {
        let format = PlotFormat::of(path)?;
        let font = Font::load()?;
        let mut figure = Figure::new(self.series, heading, zone);
        let mut text = String::new();
        let bytes = match format {
            PlotFormat::Svg => {
                svg::write(&figure.scene(&font), &mut text);
                text.into_bytes()
            }
            PlotFormat::Png => png::paint(&figure.scene(&font), &font)?,
            PlotFormat::Html => {
                html::write(&mut figure, &mut text);
                text.into_bytes()
            }
        };
        fs::write(path, bytes).map_err(|error| PlotError::Write(path.to_owned(), error))?;
        Ok(figure.left_out())
    }
}
