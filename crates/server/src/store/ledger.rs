//! Where the committer writes: a store of its own, or the one that several processes share.

use anomaly_engine::frame::Position;

use super::journal::{Followed, Journal};
use super::partition::PartitionJournal;
use super::sqlite::Store;
use super::{Outcome, StoreError, Write};

/// The store, as the one who writes to it has it.
#[derive(Debug)]
pub enum Ledger {
    Embedded(Box<Store>),
    Shared(Box<Journal>),
    /// The journal, for the owner of one partition.
    Partition(Box<PartitionJournal>),
}

impl Ledger {
    /// P.
    pub fn position(&self) -> Position {
        match self {
            Self::Embedded(store) => store.position(),
            Self::Shared(journal) => journal.position(),
            Self::Partition(journal) => journal.position(),
        }
    }

    /// Writes; it is durable when this returns. Returns what came of it, and all that is new in the store by it: others may have
    /// written before.
    ///
    /// # Errors
    /// As each of them.
    pub fn write(&mut self, write: &Write) -> Result<(Outcome, Followed), StoreError> {
        let store = match self {
            Self::Shared(journal) => return journal.write(write),
            Self::Partition(journal) => return journal.write(write),
            Self::Embedded(store) => store,
        };
        let outcome = store.apply(write)?;
        let stored = match &outcome {
            Outcome::Stored(stored) => stored.clone(),
            _ => Vec::new(),
        };
        let followed = Followed { stored, forgotten: Vec::new(), idle: Vec::new(), news: write.is_news(), decisions: write.is_decision() };
        Ok((outcome, followed))
    }

    /// Takes over what others have written; nothing where nothing is read.
    ///
    /// # Errors
    /// As [`Journal::follow`].
    pub fn follow(&mut self) -> Result<Followed, StoreError> {
        match self {
            Self::Embedded(_) | Self::Partition(_) => Ok(Followed::default()),
            Self::Shared(journal) => journal.follow(),
        }
    }

    /// Notes how far the engine is, and what it counted, where others want to know.
    ///
    /// # Errors
    /// As [`Journal::note`].
    pub fn note(&mut self, frame: u64, counted: &[(&str, u64)]) -> Result<(), StoreError> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Shared(journal) => journal.note(frame, counted),
            Self::Partition(journal) => journal.note(frame, counted),
        }
    }

    /// Publishes what was stored, where somebody may listen.
    ///
    /// # Errors
    /// As [`Journal::publish`].
    pub fn publish(&mut self, followed: &Followed) -> Result<(), StoreError> {
        match self {
            Self::Embedded(_) | Self::Partition(_) => Ok(()),
            Self::Shared(journal) => journal.publish(&followed.stored),
        }
    }

    /// Whether a write that found no room may be done again as it is: in a journal it is written already.
    pub fn waits_for_room(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// Whether one failed write is no reason to stop: the next may succeed.
    pub fn may_go_on_after(&self, fault: &StoreError) -> bool {
        match self {
            Self::Embedded(_) => !matches!(fault, StoreError::Fatal(_)),
            Self::Shared(journal) => journal.may_go_on_after(fault),
            // It begins anew from what is replicated.
            Self::Partition(_) => false,
        }
    }

    /// Ends writing cleanly.
    ///
    /// # Errors
    /// The store's.
    pub fn close(self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.close(),
            Self::Shared(journal) => journal.close(),
            Self::Partition(_) => Ok(()),
        }
    }
}
