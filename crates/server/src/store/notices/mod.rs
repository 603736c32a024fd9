//! What the notifier keeps: what it knows of incidents, what it gathers (`gather`), what it decided (`decide`), whom it looks at again
//! (`known`), what is to be sent (`sending`), and what is held back (`digest`).

mod decide;
mod digest;
mod gather;
mod known;
mod sending;

use anomaly_engine::Timestamp;
use serde::{Deserialize, Serialize};

pub(super) use sending::of_incident;

use super::Incident;
use crate::config::notify::Routing;
use crate::notify::message::{Digest, Kind};
use crate::silence::Subject;

/// The most incidents of one message.
const MESSAGE_INCIDENTS: i64 = 1000;

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is to be sent, or was tried in vain and will be tried again.
    Pending = 0,
    Sent = 1,
    /// Beyond a limit; the next digest counts it.
    Held = 2,
    /// Given up. It can be sent again by hand.
    Failed = 3,
}

impl Status {
    pub const ALL: [Self; 4] = [Self::Pending, Self::Sent, Self::Held, Self::Failed];

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Held => "held",
            Self::Failed => "failed",
        }
    }

    fn from_number(number: i64) -> Self {
        Self::ALL.into_iter().find(|status| *status as i64 == number).unwrap_or(Self::Failed)
    }
}

/// A notification as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    pub num: i64,
    pub id: String,
    pub channel: String,
    pub kind: String,
    /// Ids, at most 1,000.
    pub incidents: Vec<String>,
    pub status: Status,
    pub attempts: u64,
    /// Why it was not sent, is held, or failed.
    pub error: Option<String>,
    pub made: Timestamp,
    pub sent: Option<Timestamp>,
}

/// How far the notifier's knowledge of an incident has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Gathered for its first message.
    Waiting = 0,
    /// Somebody was told, or it is held for a digest.
    Told = 1,
    /// It was old when it came: the next digest counts it.
    Old = 2,
    /// A silence held when its turn came; it is looked at again when that ends.
    Silent = 3,
    /// Nobody is to be told.
    Quiet = 4,
}

/// Whether the growth of an incident is looked at when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Looks {
    /// For the first time since it was told.
    First = 0,
    /// It was a storm, and is looked at until that is over.
    Again = 1,
    /// Not any more.
    Done = 2,
}

impl Looks {
    fn from_number(number: i64) -> Self {
        [Self::First, Self::Again].into_iter().find(|looks| *looks as i64 == number).unwrap_or(Self::Done)
    }
}

/// What decides about an incident that has just changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Gathering {
    /// How long a message gathers, in nanoseconds.
    pub wait: i64,
    /// How old the newest anomaly may have been when it came, in nanoseconds; `None`: any age.
    pub max_age: Option<i64>,
    /// Who hears of what.
    pub routing: Routing,
}

/// An incident that the notifier is to look at.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub num: i64,
    pub kind: Kind,
    pub incident: Incident,
    pub labels: Vec<(String, String)>,
    /// The id of the first incident of the message in which it was told first; its own before.
    pub lead: String,
    /// Messages about it so far.
    pub times: u64,
    /// When it was told first, and how many anomalies it had then.
    pub told: (Timestamp, u64),
    /// Whether its growth is looked at, and how many anomalies it had then.
    pub looks: Looks,
    pub seen: u64,
    /// Channels on which it was told.
    pub channels: String,
}

/// What was decided about some incidents, to be stored as one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Decision {
    pub rows: Vec<NewNotification>,
    /// Ids of the incidents that the rows are about.
    pub incidents: Vec<String>,
    /// Waiting entries that are done with.
    pub done: Vec<(i64, Kind)>,
    /// Waiting entries that are looked at later.
    pub later: Vec<(i64, Kind, Timestamp)>,
    pub known: Vec<Known>,
    /// Held notifications up to which (by channel) this decision's digest counts.
    pub digested: Vec<(String, i64)>,
    /// Old incidents noted until then are counted by this decision's digest.
    pub old_until: Option<Timestamp>,
}

/// What the notifier knows of an incident from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    pub num: i64,
    pub phase: Phase,
    pub at: Timestamp,
    pub due: Option<Timestamp>,
    pub lead: String,
    pub times: u64,
    pub count: u64,
    /// Of one that is told first: whether the message says that it is critical. From then on what is known of its state comes from
    /// looking at it alone.
    pub said: Option<bool>,
    pub looks: Looks,
    pub seen: u64,
    pub channels: String,
}

impl Candidate {
    /// What routes and silences ask of it.
    pub fn subject(&self) -> Subject<'_> {
        let Incident { name, metric, critical, .. } = &self.incident;
        Subject { series: name, metric, labels: &self.labels, critical: *critical }
    }
}

impl Decision {
    /// A decision about incidents, with nothing decided yet.
    pub fn about(members: &[Candidate]) -> Self {
        Self { incidents: members.iter().map(|one| one.incident.id.clone()).collect(), ..Self::default() }
    }
}

impl Known {
    /// What is known of a candidate and stays, without a time to look at it again.
    pub fn as_it_was(one: &Candidate) -> Self {
        Self {
            num: one.num,
            phase: Phase::Told,
            at: one.told.0,
            due: None,
            lead: one.lead.clone(),
            times: one.times,
            count: one.told.1,
            said: None,
            looks: one.looks,
            seen: one.seen,
            channels: one.channels.clone(),
        }
    }
}

/// A notification that is decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewNotification {
    pub id: String,
    /// The same for all channels of one message.
    pub message: String,
    pub channel: String,
    pub kind: Kind,
    /// Why it is held; `None`: it is to be sent.
    pub held: Option<String>,
    /// Whether it counts in the budget.
    pub counts: bool,
    #[serde(with = "crate::store::write::base64")]
    pub body: Vec<u8>,
}

/// A notification that is to be sent now.
#[derive(Clone, Debug)]
pub struct ToSend {
    pub num: i64,
    pub id: String,
    pub attempts: u64,
    pub made: Timestamp,
    pub kind: Option<Kind>,
    /// Somebody asked for it.
    pub by_hand: bool,
    pub body: Vec<u8>,
}

/// What a digest of a channel would hold.
#[derive(Clone, Debug)]
pub struct HeldBack {
    pub digest: Digest,
    /// The newest held notification that it counts; 0 where none is.
    pub upto: i64,
    /// When the newest of the old incidents was noted.
    pub old_until: Option<Timestamp>,
    /// When the first of the old incidents was noted.
    pub old_since: Option<Timestamp>,
}
