//! What proves that an owner still is one.

use super::keys;

/// A key that holds the token of whoever owns something now. Scripts that only the owner may run compare the two before they write, so
/// what a zombie writes is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    key: Vec<u8>,
    token: String,
}

impl Fence {
    /// The owner whose token is in `key`.
    pub fn new(key: Vec<u8>, token: String) -> Self {
        Self { key, token }
    }

    /// The owner of the lease.
    pub fn of_lease(token: String) -> Self {
        Self::new(keys::LEASE.to_vec(), token)
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The token: `epoch:nonce`.
    pub fn token(&self) -> &str {
        &self.token
    }
}
