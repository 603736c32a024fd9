//! Events in, anomalies out.
//!
//! The engine parses events, knows series by their metric and labels, keeps their windows in event time, asks the
//! detectors of [`anomaly_detect`] for a verdict on each, and groups anomalies into incidents. It is a pure function of
//! (configuration, ordered records): the same records give the same bytes, whatever the batch size, the number of shards
//! or the checkpoints between them.
//!
//! It must not know: tokio, sockets, files, clocks. Time is an argument.

mod event;
pub mod frame;
pub mod parse;
mod rejection;
mod series_key;
mod timestamp;
mod varint;

pub use event::{Event, MAX_NAME_BYTES, is_metric};
pub use rejection::{Code, LISTED_ERRORS, Rejected, Report};
pub use series_key::{MAX_LABELS, SeriesHash, SeriesKey};
pub use timestamp::{NANOS, Timestamp};
pub use varint::DecodeError;
