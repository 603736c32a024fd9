//! Lua scripts by name and hash.

use std::sync::OnceLock;

use redis::Cmd;

/// A Lua script, meant as a `static`.
///
/// One that must run on a full server begins with the line `#!lua flags=allow-oom` (Redis 7).
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    text: &'static str,
    sha: OnceLock<String>,
}

impl Script {
    /// A script; `name` is for messages.
    pub const fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, sha: OnceLock::new() }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The hash by which the server knows it.
    pub fn sha(&self) -> &str {
        self.sha.get_or_init(|| redis::Script::new(self.text).get_hash().to_owned())
    }

    /// The command that runs it, once it is loaded.
    pub(super) fn call(&self, keys: &[&[u8]], args: &[&[u8]]) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(self.sha()).arg(keys.len()).arg(keys).arg(args);
        call
    }

    pub(super) fn load(&self) -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.text);
        load
    }
}
