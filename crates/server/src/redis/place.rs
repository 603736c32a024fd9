//! Where Redis is, and connections to it that are made anew.

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
}

impl RedisPlace {
    /// What is to be said where sentinels may name another primary, and nothing is waited for: that one may lack what was acknowledged.
    pub fn unsafe_fail_over(&self) -> Option<&'static str> {
        (self.wait_replicas == 0 && self.target.has_sentinels()).then_some(
            "REDIS_URL names sentinels, but REDIS_WAIT_REPLICAS is 0: a fail-over loses what was acknowledged and not replicated yet; set it to 1",
        )
    }

    /// A connection to the primary.
    ///
    /// # Errors
    /// As [`RedisTarget::connect`].
    pub fn connect(&self) -> Result<Link, RedisError> {
        self.target.connect(self.wait_replicas)
    }
}

/// A connection that is made anew when it is asked for after it was lost. Nothing is sent twice.
#[derive(Debug)]
pub struct Reconnecting {
    place: RedisPlace,
    timeouts: Timeouts,
    link: Option<Link>,
    /// When it could not be made last, and why: those who ask soon after are told the same, and need not wait one after the other.
    failed: Option<(Instant, RedisError)>,
}

impl Reconnecting {
    /// Not connected yet.
    pub fn new(place: RedisPlace) -> Self {
        Self { place, timeouts: Timeouts::default(), link: None, failed: None }
    }

    /// One that gives up soon.
    pub fn impatient(place: RedisPlace, patience: Duration) -> Self {
        Self { place, timeouts: Timeouts { connect: patience, io: patience, ..Timeouts::default() }, link: None, failed: None }
    }

    /// The connection.
    ///
    /// # Errors
    /// There is none now.
    pub fn link(&mut self) -> Result<&mut Link, RedisError> {
        if self.link.as_ref().is_none_or(Link::is_dead) {
            if let Some((_, fault)) = self.failed.as_ref().filter(|(at, _)| at.elapsed() < AGAIN) {
                return Err(fault.clone());
            }
            match self.place.target.connect_with(self.place.wait_replicas, &self.timeouts) {
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
