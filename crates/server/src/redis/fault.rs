//! What is wrong with how a server is set up, and what to do.

use std::fmt;

/// A setting under which a promise does not hold, or may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not know our scripts.
    TooOld { version: String },
    /// Nothing is on disk, and no replicas are asked for.
    NoAppendOnly,
    /// What is acknowledged comes to disk later, and no replicas are asked for.
    FsyncNotAlways { policy: String },
    /// It stops syncing during rewrites, and no replicas are asked for.
    FsyncPauses,
    /// Replicas acknowledge, but a primary that restarts before the sentinels notice makes them forget.
    ForgetfulRestart,
    /// Too few replicas for anything to be acknowledged.
    FewReplicas { wanted: u32, connected: u32 },
    /// It deletes keys when it is full.
    Evicts { policy: String },
    /// It takes memory until the system kills it.
    NoMaxmemory,
    /// It does not tell, so we cannot know.
    Untold { what: &'static str },
}

impl Fault {
    /// Whether the role must not start: what it acknowledged could be lost. Otherwise it is degraded.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::TooOld { .. } | Self::NoAppendOnly | Self::FsyncNotAlways { .. } | Self::FsyncPauses => true,
            Self::ForgetfulRestart | Self::FewReplicas { .. } | Self::Evicts { .. } | Self::NoMaxmemory | Self::Untold { .. } => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const OR_REPLICAS: &str = "or run two replicas and set REDIS_WAIT_REPLICAS=1";
        match self {
            Self::TooOld { version } => write!(f, "redis is version {version}, scripts need 7.0: upgrade it"),
            Self::NoAppendOnly => write!(
                f,
                "redis keeps nothing on disk, a restart would lose acknowledged events: set appendonly yes and appendfsync always in \
                 redis.conf, {OR_REPLICAS}"
            ),
            Self::FsyncNotAlways { policy } => write!(
                f,
                "redis has appendfsync {policy}, a power cut would lose acknowledged events: set appendfsync always in redis.conf, \
                 {OR_REPLICAS}"
            ),
            Self::FsyncPauses => write!(
                f,
                "redis does not sync while it rewrites its append-only file, a power cut then would lose acknowledged events: set \
                 no-appendfsync-on-rewrite no in redis.conf, {OR_REPLICAS}"
            ),
            Self::ForgetfulRestart => f.write_str(
                "redis keeps no append-only file: a primary that restarts before the sentinels notice comes back with old data, and its \
                 replicas follow it: set appendonly yes in redis.conf",
            ),
            Self::FewReplicas { wanted, connected } => write!(
                f,
                "redis has {connected} replicas in step and REDIS_WAIT_REPLICAS={wanted}, so what must be on them waits: start {} more \
                 (one over {wanted} survives a fail-over)",
                wanted - connected
            ),
            Self::Evicts { policy } => {
                write!(f, "redis has maxmemory-policy {policy} and deletes keys when full, ours too: set maxmemory-policy noeviction")
            }
            Self::NoMaxmemory => f.write_str(
                "redis has no maxmemory, so nobody is told to wait before the system kills it: set maxmemory to what the machine can spare",
            ),
            Self::Untold { what } => {
                write!(f, "redis does not tell {what}, so it is not verified: allow INFO and CONFIG GET, or look it up with who runs it")
            }
        }
    }
}
