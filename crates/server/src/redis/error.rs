//! What can go wrong between us and Redis.

use thiserror::Error;

/// What went wrong. `at` is `host:port`; no message holds a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RedisError {
    /// The URL cannot be read.
    #[error("REDIS_URL: {0}")]
    Url(String),
    /// There is no connection to a primary.
    #[error("cannot connect to redis at {at}: {reason}")]
    Connect { at: String, reason: String },
    /// The connection broke, now or in an earlier call; whether the server did what it was last told is unknown.
    #[error("the connection to redis at {at} is lost: {reason}")]
    Lost { at: String, reason: String },
    /// The script had its effect on the primary, but too few replicas have it: it may be undone by a fail-over.
    #[error("redis at {at} replicated to {got} replicas in time, {wanted} wanted")]
    NotReplicated { at: String, wanted: u32, got: u32 },
    /// The server is at its `maxmemory`, and did nothing.
    #[error("redis at {at} has no memory left: {reason}")]
    Oom { at: String, reason: String },
    /// The server is a replica, or became one.
    #[error("redis at {at} is not a primary: {reason}")]
    NotPrimary { at: String, reason: String },
    /// The server answered a command or script with another error; `code` is its first word (`WRONGTYPE`, `NOPERM`, `LOADING`).
    #[error("redis at {at} refused {what}: {code} {reason}")]
    Refused { at: String, what: String, code: String, reason: String },
    /// The server answered something else than was asked for.
    #[error("redis at {at} answered {what} in an unexpected way: {reason}")]
    Unexpected { at: String, what: String, reason: String },
}

impl RedisError {
    /// Whether the link is of no more use: its owner makes a new one.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::NotPrimary { .. })
    }

    /// Whether the same may succeed a little later, as it is: a server starts, a fail-over ends, a replica catches up.
    pub fn may_heal(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Lost { .. } | Self::NotPrimary { .. } | Self::NotReplicated { .. } => true,
            Self::Refused { code, .. } => code == "LOADING",
            Self::Url(_) | Self::Oom { .. } | Self::Unexpected { .. } => false,
        }
    }

    /// Whether the server has no memory for it.
    pub fn is_oom(&self) -> bool {
        matches!(self, Self::Oom { .. })
    }
}
