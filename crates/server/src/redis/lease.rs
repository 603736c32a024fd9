//! Who owns what only one may write.

use std::time::Duration;

use super::{Link, RedisError, Script};

/// SET and INCR together, so that an epoch belongs to one token.
static ACQUIRE: Script = Script::new(
    "taking the lease",
    "#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local token = string.format('%.0f', redis.call('INCR', KEYS[2])) .. ':' .. ARGV[1]
redis.call('SET', KEYS[1], token, 'PX', ARGV[2])
return token",
);

static RENEW: Script = Script::new(
    "renewing the lease",
    "#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
);

static RELEASE: Script = Script::new(
    "releasing the lease",
    "#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])",
);

/// Where a lease lies. Both keys have the same hash tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseKeys {
    /// Holds the owner's token, and expires.
    pub lease: String,
    /// Counts the owners; never expires.
    pub epoch: String,
}

impl LeaseKeys {
    /// The keys `<prefix>lease` and `<prefix>epoch`, as in `{anomaly}:lease`.
    pub fn under(prefix: &str) -> Self {
        Self { lease: format!("{prefix}lease"), epoch: format!("{prefix}epoch") }
    }
}

/// A lease that was ours when it was taken or last renewed.
///
/// Holding it proves nothing by itself, for we may have slept: every script that only the owner may run gets [`Lease::token`] and
/// compares it with `GET` of the lease's key before it writes.
#[derive(Clone, Debug)]
pub struct Lease {
    keys: LeaseKeys,
    ttl: Duration,
    token: String,
    epoch: u64,
}

impl Lease {
    /// Takes the lease where nobody holds it; `None` where somebody does. `nonce` is as of [`nonce`].
    ///
    /// It is ours only when the replicas know: else it is given back, where the link still can.
    ///
    /// # Errors
    /// As [`Link::eval_durable`].
    pub fn try_acquire(link: &mut Link, keys: &LeaseKeys, ttl: Duration, nonce: &str) -> Result<Option<Self>, RedisError> {
        let names: [&[u8]; 2] = [keys.lease.as_bytes(), keys.epoch.as_bytes()];
        let args: [&[u8]; 2] = [nonce.as_bytes(), &milliseconds(ttl)];
        let (token, replicated) = link.eval_counted::<Option<String>>(&ACQUIRE, &names, &args)?;
        let Some(token) = token else {
            return Ok(None);
        };
        let epoch = token.split_once(':').and_then(|(epoch, _)| epoch.parse().ok());
        let epoch = epoch.ok_or_else(|| RedisError::Unexpected {
            at: link.at().to_owned(),
            what: ACQUIRE.name().to_owned(),
            reason: format!("no epoch in {token}"),
        })?;
        let lease = Self { keys: keys.clone(), ttl, token, epoch };
        match replicated {
            Ok(()) => Ok(Some(lease)),
            Err(too_few) => {
                if let Err(error) = lease.release(link) {
                    tracing::warn!(%error, "a lease that too few replicas know could not be given back; it expires within {ttl:?}");
                }
                Err(too_few)
            }
        }
    }

    /// Begins its time anew; false when it is no longer ours.
    ///
    /// Not known to be replicated: after a fail-over it may expire sooner, which the token catches.
    ///
    /// # Errors
    /// As [`Link::eval`].
    pub fn renew(&self, link: &mut Link) -> Result<bool, RedisError> {
        link.eval(&RENEW, &[self.keys.lease.as_bytes()], &[self.token.as_bytes(), &milliseconds(self.ttl)])
    }

    /// Frees it, where it is still ours.
    ///
    /// # Errors
    /// As [`Link::eval`].
    pub fn release(&self, link: &mut Link) -> Result<(), RedisError> {
        link.eval::<bool>(&RELEASE, &[self.keys.lease.as_bytes()], &[self.token.as_bytes()]).map(|_| ())
    }

    /// What the lease's key holds while it is ours: `epoch:nonce`.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Rises with every owner. After a fail-over two owners may have had the same one; their tokens differ.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// 128 random bits as hexadecimal digits, one for every process that asks for a lease.
///
/// # Panics
/// When the system has no randomness to give.
pub fn nonce() -> String {
    let mut bytes = [0; 16];
    // Without randomness there is no fencing.
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    format!("{:032x}", u128::from_be_bytes(bytes))
}

fn milliseconds(duration: Duration) -> Vec<u8> {
    duration.as_millis().max(1).to_string().into_bytes()
}
