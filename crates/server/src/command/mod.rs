//! The commands, a file each.

mod client;
pub mod config;
pub mod demo;
pub mod detect;
pub mod incidents;
pub mod notify;
pub mod openapi;
pub mod replay;
pub mod role;
pub mod silence;
pub mod terminal;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};

/// Threads for what waits for disks. Each keeps memory of its own, about a mebibyte, so that clients that come all at once
/// must not have one each.
const BLOCKING_THREADS: usize = 16;

/// What a server runs on.
fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build().context("no thread can be started")
}
