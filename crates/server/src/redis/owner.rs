//! Who owns what lies at another primary than the lease: what a later owner says stays.

use super::{Link, RedisError, Script};

/// KEYS: owner. ARGV: token, its epoch. Answers whether it is ours from now on.
static TAKE: Script = Script::new(
    "taking over",
    "#!lua flags=allow-oom
local before = redis.call('GET', KEYS[1])
if before and tonumber(string.match(before, '^%d+')) > tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1",
);

/// Says whose it is from now on, by a token `epoch:nonce`; whether nobody later has.
///
/// # Errors
/// As [`Link::eval_durable`].
pub fn take(link: &mut Link, key: &[u8], token: &str) -> Result<bool, RedisError> {
    let epoch = token.split(':').next().unwrap_or_default();
    Ok(link.eval_durable::<u8>(&TAKE, &[key], &[token.as_bytes(), epoch.as_bytes()])? == 1)
}
