//! Redis as the place of log and store, lowest layer: a connection to the primary, scripts whose effect is known to be
//! replicated, a lease, and what the server is set up to promise.
//!
//! All of it blocks, for the plain threads that own log, store and engine. Nothing reconnects by itself: a [`Link`] that met an
//! I/O error is dead, and its owner makes a new one. It must not know what is stored.

mod anywhere;
pub mod chunks;
mod connect;
mod error;
mod fault;
mod fence;
pub mod keys;
mod lease;
mod link;
pub mod owner;
mod place;
mod script;
mod server;
mod target;
mod wire;

pub use anywhere::Anywhere;
pub use connect::Timeouts;
pub use error::RedisError;
pub use fault::Fault;
pub use fence::Fence;
pub use lease::{Lease, LeaseKeys, nonce};
pub use link::Link;
pub use place::{Reconnecting, RedisPlace};
pub use script::Script;
pub use server::ServerState;
pub use target::RedisTarget;
