//! The samples of one series that a later event may be judged against, and their moments.

mod block;
mod exact;
mod exact_late;
mod exact_state;
mod panes;

use exact::ExactWindow;
use panes::PaneWindow;
use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, take_byte, undecodable};
use crate::stat::Moments;

/// The samples with a time in (after, upto], in nanoseconds. The engine computes them; here they are only used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The time before the first sample: a sample at this very time is outside.
    pub after: i64,
    /// The time of the last sample: a sample at this very time is inside.
    pub upto: i64,
}

impl Bounds {
    /// Whether a sample at `time` is inside.
    pub const fn holds(self, time: i64) -> bool {
        self.after < time && time <= self.upto
    }
}

/// What a window keeps of its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowKind {
    /// Every sample.
    Exact,
    /// The moments of 60 panes.
    Panes,
}

impl WindowKind {
    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Panes => "panes",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Exact, Self::Panes].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// How much a window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowShape {
    /// Every sample, or panes.
    pub kind: WindowKind,
    /// The length of the bounds that will be asked for, in nanoseconds; at least 1.
    pub span: i64,
    /// How far behind the newest sample one may be inserted, or bounds may end; in nanoseconds, 0 or more.
    pub lateness: i64,
    /// At most so many samples are kept, the newest (by time). At least 1. Panes have no need of it.
    pub max_samples: u32,
}

/// The samples of one series within `span + lateness` of the newest.
///
/// Nothing is subtracted, so no value poisons what comes after it; see [`Moments`].
///
/// | | exact | panes |
/// |---|---|---|
/// | keeps | every sample | count, mean and spread of 60 panes of span / 60 (rounded up), and of those that lateness needs |
/// | bounds | to the nanosecond | to the pane: those whose number, time ÷ width rounded down, is in (that of `after`, that of `upto`]; so up to one pane at the old end is left out, and the pane of `upto` is in whole |
/// | heap | at most 34 B a retained sample from 300 on (inline part included); 136 B for one | 24 B in the first pane; at most 1,280 B while lateness ≤ span / 5, 24 B a further pane of lateness |
/// | variance | that of [`Moments`] | that of [`Moments`], and at most 5e-6 more, relatively (2e-6 while lateness ≤ span / 5): older panes keep the spread in 32 bits |
/// | in order | amortised constant | constant, at most some 60 merges when a pane begins |
/// | late | a search, a move within a block, and a merge a block | a merge a pane |
///
/// **Warm-up**: none, an empty window has the count 0. **Gaps**: leave what the bounds leave. **Late samples**: go where
/// their time says, behind earlier arrivals at the same time. Exact takes one as long as it is within span + lateness of
/// the newest, panes within lateness; one that is older is dropped.
///
/// **Determinism**: the same calls give the same bits, wherever [`Window::encode`] and [`Window::decode`] come between them.
#[derive(Clone, Debug)]
pub struct Window(Kept);

#[derive(Clone, Debug)]
enum Kept {
    Exact(ExactWindow),
    Panes(PaneWindow),
}

impl Window {
    /// An empty window; it allocates nothing.
    pub fn new(shape: WindowShape) -> Self {
        Self(match shape.kind {
            WindowKind::Exact => Kept::Exact(ExactWindow::new(shape)),
            WindowKind::Panes => Kept::Panes(PaneWindow::new(shape)),
        })
    }

    /// What it keeps.
    pub const fn kind(&self) -> WindowKind {
        match self.0 {
            Kept::Exact(_) => WindowKind::Exact,
            Kept::Panes(_) => WindowKind::Panes,
        }
    }

    /// The moments of the samples in `bounds`.
    ///
    /// The fast path is `bounds.upto` at or behind the newest sample, with bounds that only move on: it may rearrange what
    /// it has summed, which later results show in their last bits. Bounds that end earlier are answered as by [`Window::peek`].
    #[inline]
    pub fn moments(&mut self, bounds: Bounds) -> Moments {
        match &mut self.0 {
            Kept::Exact(window) => window.moments(bounds),
            Kept::Panes(window) => window.moments(bounds),
        }
    }

    /// The moments of the samples in `bounds`, without a trace in the state: for questions that are no part of the stream.
    ///
    /// They may differ from those of [`Window::moments`] in their last bits. Panes answer with none where `bounds.upto` is
    /// earlier than lateness allows, since they no longer know.
    pub fn peek(&self, bounds: Bounds) -> Moments {
        match &self.0 {
            Kept::Exact(window) => window.peek(bounds),
            Kept::Panes(window) => window.peek(bounds),
        }
    }

    /// Takes a sample in; `time` in nanoseconds, `value` finite. Returns false for one that is too old to be kept.
    #[inline]
    pub fn insert(&mut self, time: i64, value: f64) -> bool {
        self.insert_evicting(time, value, |_, _| {})
    }

    /// [`Window::insert`], telling each sample that leaves (panes tell none).
    #[inline]
    pub(crate) fn insert_evicting(&mut self, time: i64, value: f64, evicted: impl FnMut(i64, f64)) -> bool {
        debug_assert!(value.is_finite(), "a sample is finite, got {value}");
        match &mut self.0 {
            Kept::Exact(window) => window.insert(time, value, evicted),
            Kept::Panes(window) => window.insert(time, value),
        }
    }

    /// Calls `f` with the time and value of each sample in `bounds`, in the order of time, then of arrival.
    ///
    /// Returns false, without a call, where the window keeps no samples (panes).
    pub fn for_each(&self, bounds: Bounds, f: impl FnMut(i64, f64)) -> bool {
        match &self.0 {
            Kept::Exact(window) => {
                window.for_each(bounds, f);
                true
            }
            Kept::Panes(_) => false,
        }
    }

    /// Has fetched what judging and taking in the next event in order will read: at depth 0 what the window itself points to,
    /// at depth 1 what that points to. Reads what depth 0 (or the caller, the window itself) has fetched before.
    ///
    /// For the caller that has events of many series at hand. It changes nothing.
    #[inline(always)]
    pub fn prefetch(&self, depth: usize) {
        match &self.0 {
            Kept::Exact(window) => window.prefetch(depth),
            Kept::Panes(window) => window.prefetch(depth),
        }
    }

    /// Whether `max_samples` has cut samples that `bounds` would have held.
    ///
    /// Only the times of the oldest and the newest that were cut are remembered, so bounds that end between the two, which
    /// is before every sample that is left, count as truncated even where there was a gap.
    pub fn is_truncated(&self, bounds: Bounds) -> bool {
        match &self.0 {
            Kept::Exact(window) => window.is_truncated(bounds),
            Kept::Panes(_) => false,
        }
    }

    /// The time of the newest sample, in nanoseconds.
    pub fn newest(&self) -> Option<i64> {
        match &self.0 {
            Kept::Exact(window) => window.newest(),
            Kept::Panes(window) => window.newest(),
        }
    }

    /// How many samples are held, those kept for late events included.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Exact(window) => window.len(),
            Kept::Panes(window) => window.len(),
        }
    }

    /// Whether no sample is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes on the heap (capacity, without the allocator's own), in constant time. May differ after a decode.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Kept::Exact(window) => window.heap_bytes(),
            Kept::Panes(window) => window.heap_bytes(),
        }
    }

    /// Takes another shape. Exact keeps its samples, as far as the new shape does, and gives them to panes; panes keep
    /// themselves while their width and lateness stay, else only those that no sum has absorbed yet (lateness, and at most
    /// the span), each at the time of its end; to exact they can give nothing.
    pub fn reshape(&mut self, shape: WindowShape) {
        let bounds = Bounds { after: i64::MIN, upto: i64::MAX };
        match (&mut self.0, shape.kind) {
            (Kept::Exact(window), WindowKind::Exact) => window.reshape(shape),
            (Kept::Panes(window), WindowKind::Panes) => window.reshape(shape),
            (Kept::Exact(window), WindowKind::Panes) => {
                let mut panes = PaneWindow::new(shape);
                window.for_each(bounds, |time, value| {
                    panes.insert(time, value);
                });
                self.0 = Kept::Panes(panes);
            }
            (Kept::Panes(_), WindowKind::Exact) => *self = Self::new(shape),
        }
    }

    /// Appends the state, without the shape.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Kept::Exact(window) => {
                out.push(0);
                window.encode(out);
            }
            Kept::Panes(window) => {
                out.push(1);
                window.encode(out);
            }
        }
    }

    /// Reads a state that a window of this shape wrote; every later result has the bits it would have had.
    ///
    /// # Errors
    /// Bytes that are no such state.
    pub fn decode(shape: WindowShape, from: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self(match (take_byte(from)?, shape.kind) {
            (0, WindowKind::Exact) => Kept::Exact(ExactWindow::decode(shape, from)?),
            (1, WindowKind::Panes) => Kept::Panes(PaneWindow::decode(shape, from)?),
            _ => return Err(undecodable("a window of another kind")),
        }))
    }
}
