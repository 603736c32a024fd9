//! Recent points for drawing: best effort, off the path of acknowledgement, in `points.db`.
//!
//! One thread (`owner`) owns what is not yet written and the database's writing; readers ask it for the former and read the
//! latter themselves. When it cannot keep up points are dropped and counted, and nobody waits.

mod chunk;
mod owner;
mod sample;
mod storage;
mod verdict;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use anomaly_engine::{SeriesHash, Timestamp};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::data_dir::DataDir;
pub(crate) use chunk::{Decoder, Encoder};
use owner::{Message, Owner, Recent};
use storage::PointsReader;

/// The most points that wait for the owner: about 30 MB.
const QUEUE_POINTS: usize = 1 << 18;
/// In memory a database takes no more than this, whatever is configured.
const MEMORY_MAX_BYTES: u64 = 64 << 20;

/// One judged event, as it is drawn and explained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Event time.
    pub timestamp: Timestamp,
    /// The event's value.
    pub value: f64,
    /// What was made of it.
    pub verdict: Verdict,
    /// Samples in its window.
    pub count: u64,
    /// Mean of its window.
    pub mean: f64,
    /// Standard deviation of its window.
    pub stddev: f64,
    /// What the detector expected.
    pub expected: f64,
    /// Lower end of the band in which it does not fire.
    pub lower: f64,
    /// Upper end of that band.
    pub upper: f64,
    /// Deviation in standard deviations, where the detector has one.
    pub z_score: Option<f64>,
    /// The detector's measure ÷ its threshold.
    pub strength: f64,
}

/// What was made of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing unusual.
    #[default]
    Normal,
    /// An anomaly.
    Anomaly,
    /// A critical anomaly.
    Critical,
    /// Not judged: too few samples before it.
    TooFew,
    /// Not judged: too late.
    Late,
}

impl Verdict {
    /// Whether it fired: such a point is never sampled away.
    pub fn is_anomaly(self) -> bool {
        matches!(self, Self::Anomaly | Self::Critical)
    }
}

/// Offers and reads points. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PointsHandle {
    /// `None` where none are kept.
    sender: Option<mpsc::Sender<Message>>,
    counts: Arc<Counts>,
    reader: Option<PointsReader>,
}

/// What handles and owner count together.
#[derive(Debug, Default)]
struct Counts {
    queued: AtomicUsize,
    dropped: AtomicU64,
    bytes: AtomicU64,
}

/// Starts the thread that owns points, of which at most `max_bytes` are kept. A database that cannot be used is begun anew or
/// done without: points are no reason not to start. The thread ends at [`PointsHandle::close`], or with the last handle.
pub fn start(dir: &DataDir, max_bytes: u64) -> (PointsHandle, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel();
    let counts = Arc::new(Counts::default());
    let max_bytes = if dir.path().is_some() { max_bytes } else { max_bytes.min(MEMORY_MAX_BYTES) };
    let storage = storage::Storage::open_or_begin_anew(dir, max_bytes);
    let reader = storage.as_ref().map(storage::Storage::reader);
    let owner = Owner::new(storage, counts.clone());
    let thread = std::thread::Builder::new().name("points".into()).spawn(move || owner.run(&receiver));
    let thread = thread.unwrap_or_else(|error| {
        tracing::warn!(%error, "no thread for points: none are kept");
        std::thread::spawn(|| {})
    });
    (PointsHandle { sender: Some(sender), counts, reader }, thread)
}

/// The same in memory, for who draws nothing but the charts of alerts: without any of those nothing is kept.
pub fn start_for_alerts(config: &Config) -> (PointsHandle, Option<JoinHandle<()>>) {
    if !config.notify.has_charts() {
        return (PointsHandle::none(), None);
    }
    let (points, thread) = start(&DataDir::memory(), config.points_max_bytes);
    (points, Some(thread))
}

impl PointsHandle {
    /// For who keeps none: what is offered is let go.
    pub fn none() -> Self {
        Self { sender: None, counts: Arc::default(), reader: None }
    }

    /// Whether points are kept.
    pub fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    fn send(&self, message: Message) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.send(message).is_ok())
    }

    /// Takes points, in the order in which they were judged. Never blocks: when too many wait, these are dropped and counted.
    pub fn offer(&self, points: Vec<(SeriesHash, Point)>) {
        let n = points.len();
        if n == 0 || !self.is_on() {
            return;
        }
        let waiting = self.counts.queued.fetch_add(n, Ordering::Relaxed);
        if waiting + n > QUEUE_POINTS || !self.send(Message::Points(points)) {
            self.counts.queued.fetch_sub(n, Ordering::Relaxed);
            self.counts.dropped.fetch_add(n as u64, Ordering::Relaxed);
        }
    }

    /// Forgets all points of a series that were offered before.
    pub fn forget(&self, series: SeriesHash) {
        self.send(Message::Forget(series));
    }

    /// From now on at most `max_bytes` are kept, and what is freed is given back to the disk: points go first when it is short.
    pub fn shrink_to(&self, max_bytes: u64) {
        self.send(Message::Shrink(max_bytes));
    }

    /// Writes what is in memory and ends the thread; join it then.
    pub fn close(&self) {
        self.send(Message::Close);
    }

    /// Points that were dropped, for want of speed or room.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Bytes that the database takes.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }

    /// The points of a series in a range of event time (inclusive), sorted by it and within one instant by arrival. Beyond
    /// `max_points` they are sampled: every anomaly stays (even where there are more of them), and of the others the smallest
    /// and largest of each span. `None`: nothing of that series is kept.
    pub async fn range(&self, series: SeriesHash, from: Option<Timestamp>, to: Option<Timestamp>, max_points: usize) -> Option<Vec<Point>> {
        let (from, to) = (from.unwrap_or(Timestamp::from_nanos(i64::MIN)), to.unwrap_or(Timestamp::from_nanos(i64::MAX)));
        self.read(series, move |reader, recent| reader.range(series, &recent, from, to, max_points)).await.flatten()
    }

    /// The point of a series at that instant, as near as a double can name it; the last one offered, where there are several.
    pub async fn at(&self, series: SeriesHash, timestamp: Timestamp) -> Option<Point> {
        self.read(series, move |reader, recent| reader.at(series, &recent, timestamp)).await.flatten()
    }

    /// The points at an instant, `n_before` before it and `n_after` behind it, sorted by event time.
    pub async fn around(&self, series: SeriesHash, timestamp: Timestamp, n_before: usize, n_after: usize) -> Vec<Point> {
        self.read(series, move |reader, recent| reader.around(series, &recent, timestamp, n_before, n_after)).await.unwrap_or_default()
    }

    /// The points of a series in a range of event time (inclusive), in the order in which they arrived; of more than `most` the
    /// latest.
    pub async fn arrivals(&self, series: SeriesHash, from: Timestamp, to: Timestamp, most: usize) -> Vec<Point> {
        self.read(series, move |reader, recent| reader.arrivals(series, &recent, from, to, most)).await.unwrap_or_default()
    }

    /// Asks the owner for what is not written yet, which also waits for what was offered before, and reads the rest elsewhere.
    async fn read<T: Send + 'static>(
        &self,
        series: SeriesHash,
        read: impl FnOnce(&PointsReader, Recent) -> rusqlite::Result<T> + Send + 'static,
    ) -> Option<T> {
        let (reply, recent) = oneshot::channel();
        self.send(Message::Recent(series, reply)).then_some(())?;
        let recent = recent.await.ok()?;
        let reader = self.reader.clone().unwrap_or_default();
        let result = tokio::task::spawn_blocking(move || read(&reader, recent)).await.ok()?;
        result.inspect_err(|error| tracing::warn!(%error, "points cannot be read")).ok()
    }
}

#[cfg(test)]
mod tests;
