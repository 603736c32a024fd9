//! Puts the sources together: flags over environment over `.env` over `anomaly.toml` over defaults, all faults at once.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::dotenv::Dotenv;
use super::file::File;
use super::setting::{Group, Setting};
use super::settings::SETTINGS;
use super::{Backend, Config, dotenv, file};

/// The file that is read where `--config` names none.
const DEFAULT_FILE: &str = "anomaly.toml";

/// Gives the value of a name, if it has one.
pub type Lookup = Box<dyn Fn(&str) -> Option<String>>;

/// Where settings come from. Tests give any environment.
pub struct Sources {
    /// What the command line sets.
    pub flags: Vec<Flag>,
    /// The environment.
    pub environment: Lookup,
    /// The text of `.env`.
    pub dotenv: Option<String>,
    /// Name and text of the configuration file.
    pub file: Option<(String, String)>,
    /// Reads the file that `NAME_FILE` names.
    pub read_file: fn(&Path) -> io::Result<String>,
    /// Whether the process will listen: then faults of what it listens on and stores to, and an address that others can reach,
    /// are told.
    pub serving: bool,
}

/// A setting that the command line gives: `--port 8000` sets `PORT`.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As it is typed, such as `--port`.
    pub flag: &'static str,
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub text: String,
}

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line, by this flag.
    Flag(&'static str),
    /// In the environment.
    Environment,
    /// In `.env`.
    Dotenv,
    /// In the configuration file of this name.
    File(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Environment => f.write_str("environment"),
            Self::Dotenv => f.write_str(".env"),
            Self::File(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong, with where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Fault {
    /// `PORT`, `.env: PORT`, `anomaly.toml: rules[2].threshold`, `--port`.
    pub path: String,
    /// What is wrong, with the value and what to do.
    pub message: String,
}

impl Fault {
    /// A fault at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// Everything that is wrong with a configuration, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            let line_end = if i == 0 { "" } else { "\n" };
            write!(f, "{line_end}{fault}")?;
        }
        Ok(())
    }
}

/// A configuration without faults.
#[derive(Debug)]
pub struct Loaded {
    /// All settings.
    pub config: Config,
    /// Those that were set: name, value as it may be shown, where.
    pub set: Vec<(&'static str, String, Origin)>,
    /// What should be told at start.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// Whether a setting was set anywhere, rather than left to its default.
    pub fn is_set(&self, name: &str) -> bool {
        self.set.iter().any(|(set, ..)| *set == name)
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("flags", &self.flags)
            .field("file", &self.file)
            .field("serving", &self.serving)
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// The sources of this process: its environment, `.env` and `anomaly.toml` in the working directory, or the file that
    /// `--config` names.
    ///
    /// # Errors
    /// A file that is there and cannot be read; one that `--config` names and is not there.
    pub fn of_process(flags: Vec<Flag>, config_file: Option<&Path>, serving: bool) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let mut read = |path: &Path, needed: bool| match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => None,
            Err(error) => {
                faults.push(Fault::new(path.display().to_string(), format!("cannot be read: {error}")));
                None
            }
        };
        let dotenv = read(Path::new(".env"), false);
        let path = config_file.unwrap_or(Path::new(DEFAULT_FILE));
        let file = read(path, config_file.is_some()).map(|text| (path.display().to_string(), text));
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        let environment = Box::new(|name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()));
        Ok(Self { flags, environment, dotenv, file, read_file: |path| std::fs::read_to_string(path), serving })
    }

    /// Reads every setting.
    ///
    /// # Errors
    /// All faults.
    pub fn load(&self) -> Result<Loaded, Faults> {
        let mut faults = Vec::new();
        let layers = self.layers(&mut faults);
        let mut config =
            Config { engine: anomaly_engine::EngineConfig { rules: layers.file.rules.clone(), ..Default::default() }, ..Config::default() };
        config.notify.routes = layers.file.routes.clone();
        let mut set = Vec::new();
        for setting in SETTINGS {
            match layers.find(setting.name) {
                Ok(None) => {}
                Ok(Some((text, origin))) => {
                    match (setting.read)(&mut config, &text) {
                        Err(message) if self.minds(setting) => faults.push(Fault::new(path_of(setting.name, &origin), message)),
                        _ => {}
                    }
                    set.push((setting.name, setting.shown(&text), origin));
                }
                Err(fault) if self.minds(setting) => faults.push(fault),
                Err(_) => {}
            }
        }
        let path = |name: &'static str| {
            let found = set.iter().find(|(known, ..)| *known == name);
            found.map_or_else(|| name.to_owned(), |(_, _, origin)| path_of(name, origin))
        };
        for fault in config.engine.faults() {
            let place = match Setting::of_engine(&fault.path) {
                Some(setting) => path(setting.name),
                None => format!("{}: {}", layers.file_name, fault.path),
            };
            faults.push(Fault::new(place, fault.message));
        }
        faults.extend(config.contradictions().into_iter().map(|(name, message)| Fault::new(path(name), message)));
        let mut warnings = Vec::new();
        if self.serving {
            faults.extend(config.serving_faults().into_iter().map(|(name, message)| Fault::new(path(name), message)));
            warnings.extend(config.notify.warnings());
            warnings.extend(config.kafka.warnings());
            if config.kafka.log_topic.is_some() && config.backend != Backend::Kafka {
                warnings.push("KAFKA_LOG_TOPIC is set, but BACKEND is not kafka: it is not used".to_owned());
            }
        }
        if faults.is_empty() { Ok(Loaded { config, set, warnings }) } else { Err(Faults(faults)) }
    }

    /// Whether a fault of this setting matters: a process that neither listens, stores nor tells anybody works without those.
    fn minds(&self, setting: &Setting) -> bool {
        self.serving || !matches!(setting.group, Group::Storage | Group::Serving | Group::Redis | Group::Kafka | Group::Alerting)
    }

    fn layers(&self, faults: &mut Vec<Fault>) -> Layers<'_> {
        let Dotenv { values: dotenv, faults: bad_lines } = dotenv::parse(self.dotenv.as_deref().unwrap_or_default());
        faults.extend(bad_lines.into_iter().map(|(line, message)| Fault::new(format!(".env: line {line}"), message)));
        let (file_name, text) = self.file.as_ref().map_or((DEFAULT_FILE, ""), |(name, text)| (name, text));
        let mut file = file::parse(text);
        let found = file.faults.drain(..).map(|fault| Fault::new(format!("{file_name}: {}", fault.path), fault.message));
        faults.extend(found);
        Layers { sources: self, dotenv, file_name, file }
    }
}

/// The sources, read.
struct Layers<'a> {
    sources: &'a Sources,
    dotenv: Vec<(String, String)>,
    file_name: &'a str,
    file: File,
}

impl Layers<'_> {
    /// The value of a name and where it stands, from the first source that sets it. Empty is not set.
    fn find(&self, name: &str) -> Result<Option<(String, Origin)>, Fault> {
        if let Some(flag) = self.sources.flags.iter().find(|flag| flag.name == name) {
            return Ok(Some((flag.text.clone(), Origin::Flag(flag.flag))));
        }
        let in_dotenv = |name: &str| self.dotenv.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let in_file = |name: &str| {
            let found = self.file.values.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        if let Some(text) = self.find_in(name, &Origin::Environment, &self.sources.environment)? {
            return Ok(Some((text, Origin::Environment)));
        }
        if let Some(text) = self.find_in(name, &Origin::Dotenv, &in_dotenv)? {
            return Ok(Some((text, Origin::Dotenv)));
        }
        let origin = Origin::File(self.file_name.to_owned());
        Ok(self.find_in(name, &origin, &in_file)?.map(|text| (text, origin)))
    }

    /// The value of a name in one source, or what stands in the file that `NAME_FILE` names there.
    fn find_in(&self, name: &str, origin: &Origin, get: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, Fault> {
        let get = |name: &str| get(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let by_file = format!("{name}_FILE");
        match (get(name), get(&by_file)) {
            (text, None) => Ok(text),
            (Some(_), Some(_)) => {
                let message = format!("{name} is set as well: keep one of them");
                Err(Fault::new(path_of(&by_file, origin), message))
            }
            (None, Some(path)) => {
                let path = PathBuf::from(path);
                let text = (self.sources.read_file)(&path)
                    .map_err(|error| Fault::new(path_of(&by_file, origin), format!("cannot read {}: {error}", path.display())))?;
                Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
            }
        }
    }
}

/// How the place of a setting is told.
fn path_of(name: &str, origin: &Origin) -> String {
    match origin {
        Origin::Flag(flag) => (*flag).to_owned(),
        Origin::Environment => name.to_owned(),
        Origin::Dotenv => format!(".env: {name}"),
        Origin::File(file) => format!("{file}: {}", name.to_ascii_lowercase()),
    }
}
