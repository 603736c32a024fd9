//! Events in, anomalies out.
//!
//! The engine parses events, knows series by their metric and labels, keeps their windows in event time, asks the
//! detectors of [`anomaly_detect`] for a verdict on each, and groups anomalies into incidents. It is a pure function of
//! (configuration, ordered records): the same records give the same bytes, whatever the batch size, the number of shards
//! or the checkpoints between them.
//!
//! It must not know: tokio, sockets, files, clocks. Time is an argument.

mod anomaly;
mod cadence;
mod checkpoint;
mod config;
mod dedup;
mod engine;
mod event;
pub mod frame;
mod glob;
pub mod json_text;
mod outputs;
pub mod parse;
mod rejection;
mod series;
mod series_key;
mod shard;
mod slab;
mod timestamp;
mod varint;
mod window;

pub use anomaly::{Anomaly, Point, Verdict, anomaly_id, hash_text, late_explanation, push_labels, write_explained};
pub use anomaly_detect::{DetectorKind, Judgement, Severity};
pub use checkpoint::{CheckpointCursor, CheckpointFormat, Stale};
pub use config::{ConfigFault, EngineConfig, Rule, Settings};
pub use engine::{Engine, ScanCursor, SeriesInfo};
pub use event::{Event, MAX_NAME_BYTES, is_metric};
pub use glob::Glob;
pub use outputs::{BatchOutcome, Outputs, Resolved, SeriesOutcome, Totals};
pub use rejection::{Code, LISTED_ERRORS, Rejected, Report};
pub use series_key::{MAX_LABELS, SeriesHash, SeriesKey};
pub use timestamp::{NANOS, Timestamp};
pub use varint::DecodeError;
