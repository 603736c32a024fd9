//! The ids that a series has seen, for a while.

use std::collections::VecDeque;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_128;

use crate::timestamp::Timestamp;
use crate::varint::{DecodeError, put_varint, take_array, take_varint};

/// The ids of one series within the horizon of event time, the newest `max` of them.
///
/// Memory: about 56 bytes an id (its 128-bit hash and its time, in a queue and in a table); nothing without ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenIds {
    /// In the order of arrival, so that the oldest arrival is forgotten first.
    queue: VecDeque<(u128, i64)>,
    table: HashTable<(u128, i64)>,
}

impl SeenIds {
    /// Whether `id` came within the `horizon` (nanoseconds of event time) before `at`; remembers it where it did not.
    pub(crate) fn is_repeated(&mut self, id: &str, at: Timestamp, newest: Timestamp, horizon: i64, max: u32) -> Seen {
        let oldest = newest.max(at).plus(-horizon).nanos();
        while self.queue.front().is_some_and(|&(_, time)| time < oldest) {
            self.forget_front();
        }
        let hash = xxh3_128(id.as_bytes());
        if let Some(known) = self.table.find_mut(hash as u64, |entry| entry.0 == hash) {
            if known.1 >= oldest {
                return Seen::Repeated;
            }
            // Out of the horizon, but behind a younger one in the queue: it counts as new, under its new time.
            self.queue.retain(|entry| entry.0 != hash);
            self.remove(hash);
        }
        let evicted = max > 0 && self.queue.len() >= max as usize;
        if evicted {
            self.forget_front();
        }
        if max > 0 {
            self.queue.push_back((hash, at.nanos()));
            self.table.insert_unique(hash as u64, (hash, at.nanos()), |entry| entry.0 as u64);
        }
        Seen::New { evicted }
    }

    fn forget_front(&mut self) {
        if let Some((hash, _)) = self.queue.pop_front() {
            self.remove(hash);
        }
    }

    fn remove(&mut self, hash: u128) {
        if let Ok(entry) = self.table.find_entry(hash as u64, |entry| entry.0 == hash) {
            entry.remove();
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        (self.queue.capacity() + self.table.capacity()) * size_of::<(u128, i64)>()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.queue.len() as u64);
        for (hash, time) in &self.queue {
            out.extend_from_slice(&hash.to_le_bytes());
            out.extend_from_slice(&time.to_le_bytes());
        }
    }

    pub(crate) fn decode(from: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut seen = Self::default();
        for _ in 0..take_varint(from)? {
            let entry = (u128::from_le_bytes(take_array(from)?), i64::from_le_bytes(take_array(from)?));
            seen.queue.push_back(entry);
            seen.table.insert_unique(entry.0 as u64, entry, |entry| entry.0 as u64);
        }
        Ok(seen)
    }
}

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It came before, within the horizon.
    Repeated,
    /// It is new; `evicted` when an older one was forgotten for want of room.
    New { evicted: bool },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn an_id_is_known_within_the_horizon_of_event_time() {
        let (mut seen, horizon) = (SeenIds::default(), 3600 * 1_000_000_000);
        let mut see = |id, time, newest| seen.is_repeated(id, at(time), at(newest), horizon, 10);
        assert_eq!(see("a", 0, 0), Seen::New { evicted: false });
        assert_eq!(see("a", 3600, 3600), Seen::Repeated);
        assert_eq!(see("a", 3601, 3601), Seen::New { evicted: false });
        assert_eq!(see("a", 3700, 3700), Seen::Repeated);
    }

    #[test]
    fn an_old_id_behind_a_younger_one_is_forgotten_too() {
        let (mut seen, horizon) = (SeenIds::default(), 100 * 1_000_000_000);
        let mut see = |id, time, newest| seen.is_repeated(id, at(time), at(newest), horizon, 10);
        see("young", 90, 90);
        see("old", 40, 90);
        assert_eq!(see("old", 150, 150), Seen::New { evicted: false });
        assert_eq!(see("old", 151, 151), Seen::Repeated);
    }

    #[test]
    fn the_oldest_arrival_is_evicted_when_full() {
        let mut seen = SeenIds::default();
        let mut see = |id| seen.is_repeated(id, at(0), at(0), 1_000_000_000, 2);
        assert_eq!([see("a"), see("b"), see("c")].map(|s| s == Seen::New { evicted: true }), [false, false, true]);
        assert_eq!((see("b"), see("a")), (Seen::Repeated, Seen::New { evicted: true }));
    }

    #[test]
    fn a_checkpoint_keeps_what_was_seen() {
        let mut seen = SeenIds::default();
        seen.is_repeated("a", at(5), at(5), 1_000_000_000, 2);
        let mut bytes = Vec::new();
        seen.encode(&mut bytes);
        let mut again = SeenIds::decode(&mut &bytes[..]).unwrap();
        assert_eq!(again.is_repeated("a", at(5), at(5), 1_000_000_000, 2), Seen::Repeated);
    }
}
