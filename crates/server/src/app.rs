//! What a request handler may use: the handles to the stages behind it.

use std::sync::Arc;

use crate::config::Config;
use crate::desk::Desk;
use crate::engine_thread::EngineHandle;
use crate::freshness::Freshness;
use crate::live::Live;
use crate::log::handle::LogHandle;
use crate::points::PointsHandle;
use crate::stats::Stats;
use crate::store::sqlite::StoreReader;
use crate::upload::Uploads;

/// The handles, cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Appends events, answers when they are durable.
    pub log: LogHandle,
    /// Reads anomalies, incidents, uploads.
    pub store: StoreReader,
    /// Reads recent points.
    pub points: PointsHandle,
    /// Writes what people say.
    pub desk: Desk,
    /// Asks for series.
    pub engine: EngineHandle,
    /// Each anomaly as it is committed.
    pub live: Live,
    /// Spools and ingests files.
    pub uploads: Uploads,
    /// Counters and rates.
    pub stats: Arc<Stats>,
    /// Whether what other processes write is shown, where there are others.
    pub freshness: Option<Freshness>,
}
