//! The thread that owns points: gathers them by series, encodes them when there are enough, writes them now and then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anomaly_engine::SeriesHash;
use hashbrown::HashMap;
use tokio::sync::oneshot;

use super::chunk::{Encoder, decode};
use super::storage::{Chunk, Storage};
use super::{Counts, Point};

/// A series' points are encoded when there are so many.
const CHUNK_POINTS: usize = 512;
/// The most points in memory: about 64 MB with what vectors leave free.
const TAIL_POINTS: usize = 400_000;
/// Chunks are written when they make so many bytes, or there are so many.
const WRITE_BYTES: usize = 4 << 20;
const WRITE_CHUNKS: usize = 16_384;
/// Nothing waits longer to be written.
const WRITE_AFTER: Duration = Duration::from_secs(60);

/// What a handle asks of the owner.
#[derive(Debug)]
pub(super) enum Message {
    Points(Vec<(SeriesHash, Point)>),
    Forget(SeriesHash),
    Recent(SeriesHash, oneshot::Sender<Recent>),
    Shrink(u64),
    Close,
}

/// The points of a series that are in no chunk up to number `upto`, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    pub(super) points: Vec<Point>,
    pub(super) upto: i64,
}

pub(super) struct Owner {
    storage: Option<Storage>,
    counts: Arc<Counts>,
    encoder: Encoder,
    tails: HashMap<SeriesHash, Vec<Point>>,
    n_points: usize,
    encoded: Vec<Chunk>,
    encoded_bytes: usize,
    /// Since when something waits to be written.
    since: Option<Instant>,
}

impl Owner {
    pub(super) fn new(storage: Option<Storage>, counts: Arc<Counts>) -> Self {
        let encoder = Encoder::new();
        Self { storage, counts, encoder, tails: HashMap::new(), n_points: 0, encoded: Vec::new(), encoded_bytes: 0, since: None }
    }

    /// Runs until it is closed; sleeps while there is nothing to do.
    pub(super) fn run(mut self, receiver: &Receiver<Message>) {
        self.count_bytes();
        loop {
            let message = match self.since {
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => receiver.recv_timeout(WRITE_AFTER.saturating_sub(since.elapsed())),
            };
            match message {
                Ok(Message::Points(points)) => self.take(points),
                Ok(Message::Forget(series)) => self.forget(series),
                Ok(Message::Recent(series, reply)) => _ = reply.send(self.recent(series)),
                Ok(Message::Shrink(max_bytes)) => self.shrink(max_bytes),
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
            }
            // Under a steady stream the timeout never comes.
            if self.since.is_some_and(|since| since.elapsed() >= WRITE_AFTER) {
                self.flush();
            }
        }
        self.flush();
        if let Some(Err(error)) = self.storage.map(Storage::close) {
            tracing::warn!(%error, "points.db was not closed cleanly, which loses nothing");
        }
    }

    fn take(&mut self, points: Vec<(SeriesHash, Point)>) {
        let n = points.len();
        self.since.get_or_insert_with(Instant::now);
        for (series, point) in points {
            let tail = self.tails.entry(series).or_default();
            tail.push(point);
            self.n_points += 1;
            if tail.len() >= CHUNK_POINTS {
                let full = std::mem::take(tail);
                self.n_points -= full.len();
                self.encode(series, &full);
                // The same vector again: it has the right size.
                let mut emptied = full;
                emptied.clear();
                self.tails.insert(series, emptied);
            }
        }
        self.counts.queued.fetch_sub(n, Ordering::Relaxed);
        if self.n_points > TAIL_POINTS {
            self.shorten();
        }
        if self.encoded_bytes >= WRITE_BYTES || self.encoded.len() >= WRITE_CHUNKS {
            self.write();
        }
    }

    fn recent(&self, series: SeriesHash) -> Recent {
        let chunks = self.encoded.iter().filter(|chunk| chunk.series == series);
        let mut points: Vec<Point> = chunks.filter_map(|chunk| decode(&chunk.bytes)).flatten().collect();
        points.extend(self.tails.get(&series).into_iter().flatten());
        Recent { points, upto: self.storage.as_ref().map_or(0, |storage| storage.last) }
    }

    fn forget(&mut self, series: SeriesHash) {
        if let Some(tail) = self.tails.remove(&series) {
            self.n_points -= tail.len();
        }
        self.encoded.retain(|chunk| chunk.series != series);
        let forgotten = self.storage.as_ref().map(|storage| storage.forget(series));
        if let Some(Err(error)) = forgotten {
            tracing::warn!(%error, "points of a deleted series could not be removed");
        }
        self.count_bytes();
    }

    fn shrink(&mut self, max_bytes: u64) {
        if let Some(Err(error)) = self.storage.as_mut().map(|storage| storage.shrink_to(max_bytes)) {
            tracing::warn!(%error, "points could not be removed");
        }
        self.count_bytes();
    }

    /// Encodes the longest tails until half of the room is free; those of one length in the order of their series.
    fn shorten(&mut self) {
        let mut by_length: Vec<_> = self.tails.iter().map(|(&series, tail)| (tail.len(), series)).collect();
        by_length.sort_unstable_by(|a, b| b.cmp(a));
        for (_, series) in by_length {
            if self.n_points <= TAIL_POINTS / 2 {
                break;
            }
            self.encode_tail(series);
            if self.encoded.len() >= WRITE_CHUNKS {
                self.write();
            }
        }
    }

    /// Encodes and writes everything.
    fn flush(&mut self) {
        let mut series: Vec<_> = self.tails.keys().copied().collect();
        series.sort_unstable();
        for series in series {
            self.encode_tail(series);
            if self.encoded.len() >= WRITE_CHUNKS {
                self.write();
            }
        }
        self.tails = HashMap::new();
        self.write();
        self.since = None;
    }

    fn encode_tail(&mut self, series: SeriesHash) {
        let Some(tail) = self.tails.remove(&series) else { return };
        self.n_points -= tail.len();
        self.encode(series, &tail);
    }

    fn encode(&mut self, series: SeriesHash, points: &[Point]) {
        let times = points.iter().map(|point| point.timestamp);
        let (Some(first), Some(last)) = (times.clone().min(), times.max()) else { return };
        if self.storage.is_none() {
            self.counts.dropped.fetch_add(points.len() as u64, Ordering::Relaxed);
            return;
        }
        let bytes = self.encoder.encode(points);
        self.encoded_bytes += bytes.len();
        self.encoded.push(Chunk { series, first, last, n: points.len(), bytes });
    }

    fn write(&mut self) {
        let Some(storage) = &mut self.storage else { return };
        if !self.encoded.is_empty()
            && let Err(error) = storage.write(&self.encoded)
        {
            let n = self.encoded.iter().map(|chunk| chunk.n as u64).sum();
            self.counts.dropped.fetch_add(n, Ordering::Relaxed);
            tracing::warn!(%error, points = n, "points could not be written");
        }
        self.encoded.clear();
        self.encoded_bytes = 0;
        self.count_bytes();
    }

    fn count_bytes(&self) {
        let bytes = self.storage.as_ref().map_or(0, Storage::bytes);
        self.counts.bytes.store(bytes, Ordering::Relaxed);
    }
}
