//! Everything that is written to the store, as data: what a process does at once, and what others do again from a journal.
//!
//! Applied in the same order to equal stores, the same writes make equal stores: whatever a write depends on (times, ids, routes)
//! is in it.

use anomaly_engine::Timestamp;
use serde::{Deserialize, Serialize};

use super::handling::{Act, Acted, Word};
use super::notices::{Decision, Gathering};
use super::sqlite::Store;
use super::{Commit, StoreError, Stored};
use crate::silence::MatcherSpec;

/// One write, which is done whole or not at all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Write {
    /// What the engine found, and P.
    Commit(Commit),
    /// Some of what was detected before is deleted; [`Outcome::Yes`] where there is more.
    Retain { before: Timestamp },
    /// Somebody says something of an incident.
    Act { incident: String, act: Act, word: Word, at: Timestamp },
    /// Somebody makes a silence; [`Outcome::No`] where there are too many.
    Silence { silence: NewSilence, at: Timestamp },
    /// Somebody ends a silence; [`Outcome::No`] where none of that id holds.
    EndSilence { id: String, at: Timestamp },
    /// Somebody has a notification sent again; [`Outcome::No`] where none of that id has bytes.
    Resend { id: String, at: Timestamp },
    /// On which channels there is a notifier from now on.
    Notifying { channels: Vec<String> },
    /// The wall clock of the notifier was set back.
    SetBack { nanos: i64 },
    /// The notifier looks at what has happened.
    Gather { gathering: Gathering, at: Timestamp },
    /// The notifier has decided.
    Decide { decision: Decision, at: Timestamp },
    /// A notification was taken by the other side.
    Sent { num: i64, at: Timestamp },
    /// A notification was not taken.
    Failed { num: i64, error: String, again: Option<Timestamp> },
    /// A notification is not sent after all.
    Withhold { num: i64, why: String, silent_until: Option<Timestamp> },
}

/// A silence as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSilence {
    /// New for each.
    pub id: String,
    pub matchers: Vec<MatcherSpec>,
    pub from: Timestamp,
    pub to: Timestamp,
    pub word: Word,
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing that is to be told.
    Done,
    Yes,
    No,
    /// The anomalies that are new.
    Stored(Vec<Stored>),
    Acted(Acted),
}

impl Outcome {
    fn of(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }

    /// Whether it is [`Outcome::Yes`].
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }
}

impl Write {
    /// Whether it may be done only by the one who owns the engine or the notifier, and not by whoever asks.
    pub fn is_owners(&self) -> bool {
        !matches!(self, Self::Act { .. } | Self::Silence { .. } | Self::EndSilence { .. } | Self::Resend { .. })
    }

    /// Whether incidents may stand otherwise after it, so that the notifier is to look.
    pub fn is_news(&self) -> bool {
        match self {
            Self::Commit(commit) => commit.is_news(),
            write => matches!(write, Self::Act { .. } | Self::Silence { .. } | Self::EndSilence { .. } | Self::Withhold { .. }),
        }
    }

    /// Whether there may be something to send after it.
    pub fn is_decision(&self) -> bool {
        matches!(self, Self::Decide { .. } | Self::Resend { .. })
    }
}

impl Store {
    /// Does a write; it is durable when this returns.
    ///
    /// # Errors
    /// Fatal (the process must stop), full, or SQLite's own; nothing of it is in the store.
    pub fn apply(&mut self, write: &Write) -> Result<Outcome, StoreError> {
        match write {
            Write::Commit(commit) => self.commit(commit).map(Outcome::Stored),
            Write::Retain { before } => self.retain(*before).map(Outcome::of),
            Write::Act { incident, act, word, at } => self.act(incident, act, word, *at).map(Outcome::Acted),
            Write::Silence { silence, at } => self.silence(silence, *at).map(Outcome::of),
            Write::EndSilence { id, at } => self.end_silence(id, *at).map(Outcome::of),
            Write::Resend { id, at } => self.resend(id, *at).map(Outcome::of),
            Write::Notifying { channels } => self.set_notifying(channels).map(|()| Outcome::Done),
            Write::SetBack { nanos } => self.set_back(*nanos).map(|()| Outcome::Done),
            Write::Gather { gathering, at } => self.gather(gathering, *at).map(|()| Outcome::Done),
            Write::Decide { decision, at } => self.decide(decision, *at).map(|()| Outcome::Done),
            Write::Sent { num, at } => self.notification_sent(*num, *at).map(|()| Outcome::Done),
            Write::Failed { num, error, again } => self.notification_failed(*num, error, *again).map(|()| Outcome::Done),
            Write::Withhold { num, why, silent_until } => self.withhold(*num, why, *silent_until).map(|()| Outcome::Done),
        }
    }
}

/// Bytes as text, for messages that are mostly text anyway.
pub(in crate::store) mod base64 {
    use ::base64::Engine as _;
    use ::base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::store) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
