//! Where Redis is, and connections to it that are made anew.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Link, RedisError, RedisTarget, Timeouts};

/// Before a connection that could not be made is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// What Redis must know to be reached, and how durable an append is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisPlace {
    /// Where it is.
    pub target: Arc<RedisTarget>,
    /// `REDIS_WAIT_REPLICAS`.
    pub wait_replicas: u32,
    /// The hash tag of the keys that are meant: in a cluster they are at one primary, others at another.
    pub tag: Cow<'static, str>,
}

impl RedisPlace {
    /// What is to be said where sentinels may name another primary, and nothing is waited for: that one may lack what was acknowledged.
    pub fn unsafe_fail_over(&self) -> Option<&'static str> {
        (self.wait_replicas == 0 && (self.target.has_sentinels() || self.target.is_cluster())).then_some(
            "REDIS_URL names sentinels or a cluster, but REDIS_WAIT_REPLICAS is 0: a fail-over loses what was acknowledged and not replicated yet; set it to 1",
        )
    }

    /// Where keys with another hash tag are.
    pub fn of(&self, tag: impl Into<Cow<'static, str>>) -> Self {
        Self { tag: tag.into(), ..self.clone() }
    }

    /// A connection to the primary.
    ///
    /// # Errors
    /// As [`RedisTarget::connect`].
    pub fn connect(&self) -> Result<Link, RedisError> {
        self.target.connect_with(self.wait_replicas, &self.tag, &Timeouts::default())
    }
}

/// A connection that is made anew when it is asked for after it was lost. Nothing is sent twice.
#[derive(Debug)]
pub struct Reconnecting {
    place: RedisPlace,
    timeouts: Timeouts,
    again: Duration,
    link: Option<Link>,
    /// When it could not be made last, and why: those who ask soon after are told the same, and need not wait one after the other.
    failed: Option<(Instant, RedisError)>,
}

impl Reconnecting {
    /// Not connected yet.
    pub fn new(place: RedisPlace) -> Self {
        Self { place, timeouts: Timeouts::default(), again: AGAIN, link: None, failed: None }
    }

    /// One that gives up soon.
    pub fn impatient(place: RedisPlace, patience: Duration) -> Self {
        Self { timeouts: Timeouts { connect: patience, io: patience, ..Timeouts::default() }, ..Self::new(place) }
    }

    /// The same, which tries less often to reach a server that was away: whoever asks has other things to do.
    pub fn trying_again_after(self, again: Duration) -> Self {
        Self { again, ..self }
    }

    /// Where it goes to.
    pub fn place(&self) -> &RedisPlace {
        &self.place
    }

    /// The connection.
    ///
    /// # Errors
    /// There is none now.
    pub fn link(&mut self) -> Result<&mut Link, RedisError> {
        if self.link.as_ref().is_none_or(Link::is_dead) {
            if let Some((_, fault)) = self.failed.as_ref().filter(|(at, _)| at.elapsed() < self.again) {
                return Err(fault.clone());
            }
            match self.place.target.connect_with(self.place.wait_replicas, &self.place.tag, &self.timeouts) {
                Ok(link) => (self.link, self.failed) = (Some(link), None),
                Err(fault) => {
                    self.failed = Some((Instant::now(), fault.clone()));
                    return Err(fault);
                }
            }
        }
        // Just made where it was not there.
        Ok(self.link.as_mut().expect("a link"))
    }
}
