//! Between the log's writer and the engine: durable frames, and questions to the engine, which one thread owns.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// How many bytes of frames wait in memory; what comes beyond is read from the log when its turn comes.
const CACHED_BYTES: usize = 64 << 20;
/// So many are enough where whoever brings them can wait: several batches.
const WELL_CACHED_BYTES: usize = 4 << 20;
/// How many bytes of frames the engine takes at once.
const BATCH_BYTES: usize = 1 << 20;

/// A frame's number and bytes.
pub type SealedBytes = (u64, Bytes);

/// Durable frames on their way to the engine, in order; `Q` is what may be asked of it in between.
#[derive(Debug)]
pub struct Feed<Q> {
    state: Mutex<State<Q>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<Q> {
    frames: VecDeque<SealedBytes>,
    bytes: usize,
    /// The last durable frame.
    end: u64,
    questions: VecDeque<Q>,
    /// The last work was questions: frames have their turn before the next.
    answered: bool,
    /// The engine waits for something to do; to wake it when it does not is a call of the system for nothing.
    waits: bool,
    closed: bool,
}

/// What the engine is to do next.
#[derive(Debug)]
pub enum Work<Q> {
    /// Answer these.
    Questions(VecDeque<Q>),
    /// Apply these.
    Frames(Vec<SealedBytes>),
    /// Read the log from the next frame on: it is durable, but not in memory.
    ReadLog,
    /// Nothing is left to do now (only where the caller does not wait).
    Idle,
    /// Nothing will come any more.
    Closed,
}

impl<Q> Feed<Q> {
    /// A feed for a log that ends with frame `end`.
    pub fn new(end: u64) -> Self {
        let state =
            State { frames: VecDeque::new(), bytes: 0, end, questions: VecDeque::new(), answered: false, waits: false, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Hands over a frame that is durable.
    pub fn push(&self, number: u64, bytes: Bytes) {
        let mut state = self.lock();
        let follows = state.frames.back().is_none_or(|(last, _)| last + 1 == number);
        // One that is larger than all that may wait waits alone.
        if follows && (state.frames.is_empty() || state.bytes + bytes.len() <= CACHED_BYTES) {
            state.append((number, bytes));
        }
        state.end = number;
        self.wake(state);
    }

    /// Takes from the front of `waiting`, whose frames are durable and come in order, what finds its place in memory: each behind the one
    /// before it, and no more than are enough.
    pub fn take_from(&self, waiting: &mut VecDeque<SealedBytes>) {
        let mut state = self.lock();
        let before = state.end;
        while let Some((number, bytes)) = waiting.front()
            && state.has_room_for(*number, bytes.len())
            && let Some(frame) = waiting.pop_front()
        {
            state.end = frame.0;
            state.append(frame);
        }
        if state.end != before {
            self.wake(state);
        }
    }

    /// The number of the first frame in memory.
    pub fn first(&self) -> Option<u64> {
        self.lock().frames.front().map(|(number, _)| *number)
    }

    /// Asks the engine between two batches. Gives the question back when nothing will answer any more.
    pub fn ask(&self, question: Q) -> Result<(), Q> {
        let mut state = self.lock();
        if state.closed {
            return Err(question);
        }
        state.questions.push_back(question);
        self.wake(state);
        Ok(())
    }

    /// No frame will come any more; what is there is still worked off.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.wake(state);
    }

    /// Nobody takes anything any more: who has asked is not answered, and who asks is told.
    pub fn end(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.questions.clear();
    }

    /// What to do after frame `applied`; waits until there is something if `wait`.
    pub fn next(&self, applied: u64, wait: bool) -> Work<Q> {
        let mut state = self.lock();
        loop {
            // A flood of questions must not keep frames from being judged, nor frames questions from being answered.
            let frames_turn = state.answered && state.end > applied;
            if !state.questions.is_empty() && !frames_turn {
                state.answered = true;
                return Work::Questions(std::mem::take(&mut state.questions));
            }
            while state.frames.front().is_some_and(|&(number, _)| number <= applied) {
                state.pop();
            }
            if state.end > applied {
                state.answered = false;
                return state.take_batch(applied);
            }
            if state.closed {
                return Work::Closed;
            }
            if !wait {
                return Work::Idle;
            }
            state.waits = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State<Q>>) {
        if std::mem::take(&mut state.waits) {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<Q>> {
        // Nothing in a critical section can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Q> State<Q> {
    fn has_room_for(&self, number: u64, bytes: usize) -> bool {
        self.frames.back().is_none_or(|(last, _)| last + 1 == number && self.bytes + bytes <= WELL_CACHED_BYTES)
    }

    fn append(&mut self, frame: SealedBytes) {
        self.bytes += frame.1.len();
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<SealedBytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.1.len();
        Some(frame)
    }

    fn take_batch(&mut self, applied: u64) -> Work<Q> {
        if self.frames.front().is_none_or(|&(number, _)| number != applied + 1) {
            return Work::ReadLog;
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(frame) = self.pop()
        {
            bytes += frame.1.len();
            batch.push(frame);
        }
        Work::Frames(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: usize) -> Bytes {
        vec![0; n].into()
    }

    #[test]
    fn frames_come_in_order_and_questions_first() {
        let feed = Feed::new(0);
        feed.push(1, frame(1));
        feed.push(2, frame(1));
        feed.ask("?").unwrap();
        assert!(matches!(feed.next(0, true), Work::Questions(q) if q == ["?"]));
        assert!(matches!(feed.next(0, true), Work::Frames(f) if f.iter().map(|f| f.0).eq([1, 2])));
        assert!(matches!(feed.next(2, false), Work::Idle));
        feed.close();
        assert!(matches!(feed.next(2, true), Work::Closed));
        assert_eq!(feed.ask("?"), Err("?"));
    }

    #[test]
    fn a_flood_of_questions_does_not_keep_frames_waiting() {
        let feed = Feed::new(0);
        feed.push(1, frame(BATCH_BYTES));
        feed.push(2, frame(1));
        feed.ask("a").unwrap();
        feed.ask("b").unwrap();
        assert!(matches!(feed.next(0, true), Work::Questions(q) if q == ["a", "b"]));
        feed.ask("c").unwrap();
        assert!(matches!(feed.next(0, true), Work::Frames(f) if f[0].0 == 1));
        assert!(matches!(feed.next(1, true), Work::Questions(q) if q == ["c"]));
        feed.ask("d").unwrap();
        assert!(matches!(feed.next(1, true), Work::Frames(f) if f[0].0 == 2));
        assert!(matches!(feed.next(2, true), Work::Questions(q) if q == ["d"]));
        feed.ask("e").unwrap();
        assert!(matches!(feed.next(2, true), Work::Questions(q) if q == ["e"]), "no frame waits");
    }

    #[test]
    fn what_memory_does_not_hold_is_read_from_the_log() {
        let feed: Feed<()> = Feed::new(3);
        assert!(matches!(feed.next(0, true), Work::ReadLog), "frames from before the start");
        feed.push(4, frame(CACHED_BYTES));
        feed.push(5, frame(1));
        feed.push(6, frame(1));
        assert!(matches!(feed.next(3, true), Work::Frames(f) if f.iter().map(|f| f.0).eq([4])));
        assert!(matches!(feed.next(4, true), Work::ReadLog), "5 did not fit");
        feed.push(7, frame(1));
        assert!(matches!(feed.next(6, true), Work::Frames(f) if f.iter().map(|f| f.0).eq([7])), "caught up again");
    }

    #[test]
    fn who_can_wait_keeps_what_finds_no_place() {
        let feed: Feed<()> = Feed::new(0);
        let mut waiting: VecDeque<_> = [(1, WELL_CACHED_BYTES + 1), (2, 1), (4, 1)].map(|(number, n)| (number, frame(n))).into();
        feed.take_from(&mut waiting);
        assert!(waiting.iter().map(|(number, _)| *number).eq([2, 4]), "one that is larger than all that may wait waits alone");
        assert!(matches!(feed.next(0, true), Work::Frames(f) if f.iter().map(|f| f.0).eq([1])));
        feed.take_from(&mut waiting);
        assert!(waiting.iter().map(|(number, _)| *number).eq([4]), "it does not follow");
        assert!(matches!(feed.next(1, true), Work::Frames(f) if f.iter().map(|f| f.0).eq([2])));
        feed.take_from(&mut waiting);
        assert!(waiting.is_empty() && matches!(feed.next(2, true), Work::ReadLog), "the log has a gap");
    }
}
