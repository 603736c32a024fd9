//! How much people are told: the budget of all messages, and the rate of emails.

use std::fmt;
use std::time::Duration;

use anomaly_engine::Timestamp;

use super::channel::Channel;
use super::message::Kind;
use super::nanos;
use crate::config::notify::Budget;
use crate::store::StoreError;
use crate::store::sqlite::StoreReader;

/// The limits as they stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    now: Timestamp,
    budget: Option<Budget>,
    /// From when on the budget allows another message.
    budget_from: Option<Timestamp>,
    rate: Duration,
    /// From when on another email may be sent.
    email_from: Option<Timestamp>,
}

/// Which limit holds a message back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Exceeded {
    Budget(Budget),
    Rate(Duration),
}

impl Exceeded {
    pub(super) fn is_rate(self) -> bool {
        matches!(self, Self::Rate(_))
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget(budget) => write!(f, "the budget of {budget} is used up (NOTIFY_BUDGET)"),
            Self::Rate(rate) => write!(f, "one email in {} s (EMAIL_RATE_LIMIT_SECONDS)", rate.as_secs_f64()),
        }
    }
}

impl Limits {
    pub(super) fn read(store: &StoreReader, budget: Option<Budget>, rate: Duration, now: Timestamp) -> Result<Self, StoreError> {
        let budget_from = match budget {
            None => None,
            Some(Budget { limit, period }) => {
                let period = nanos(period.duration());
                // The newest first: while as many as are allowed lie within the period, the last of these must leave it.
                let made = store.counted(now.plus(-period))?;
                made.get((limit as usize).saturating_sub(1)).map(|at| (*at).min(now).plus(period))
            }
        };
        let last = if rate.is_zero() { None } else { store.last_made(Channel::Email.name())? };
        // The clock may have been set back since.
        let email_from = last.map(|at| at.min(now).plus(nanos(rate)));
        Ok(Self { now, budget, budget_from, rate, email_from })
    }

    /// The limit that holds back a message on a channel.
    pub(super) fn exceeded(&self, channel: Channel) -> Option<Exceeded> {
        let later = |from: Option<Timestamp>| from.is_some_and(|from| from > self.now);
        match self.budget {
            Some(budget) if later(self.budget_from) => Some(Exceeded::Budget(budget)),
            _ if channel == Channel::Email && later(self.email_from) => Some(Exceeded::Rate(self.rate)),
            _ => None,
        }
    }

    /// From when on nothing holds it back; `None`: now.
    pub(super) fn free_from(&self, channel: Channel) -> Option<Timestamp> {
        self.budget_from.max(self.email_from.filter(|_| channel == Channel::Email))
    }
}

/// Whether such a message counts at all: what is over, or looked after, is told without limit, and an Alertmanager does this
/// by itself.
pub(super) fn counts(kind: Kind, channel: Channel) -> bool {
    !matches!(channel, Channel::Alertmanager | Channel::Redis) && !matches!(kind, Kind::Resolved | Kind::Acknowledged | Kind::Test)
}
