//! A connection to the primary.

use std::collections::HashSet;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Pipeline, ServerErrorKind, Value, from_redis_value};

use super::wire::Wire;
use super::{RedisError, Script, Timeouts};

/// One connection to the primary, as [`RedisTarget::connect`](super::RedisTarget::connect) makes it.
///
/// After an I/O error, a timeout among them, or when the server turns out to be a replica, the link is dead: every later call
/// fails at once with [`RedisError::Lost`]. Nothing is sent twice and nothing reconnects, since the server may have done what
/// it was told, and since a `WAIT` counts only what was written on its own connection.
#[derive(Debug)]
pub struct Link {
    wire: Wire,
    wait_replicas: u32,
    wait: Duration,
    /// Hashes of the scripts that this server has taken.
    loaded: HashSet<String>,
}

impl Link {
    pub(super) fn new(wire: Wire, wait_replicas: u32, timeouts: &Timeouts) -> Self {
        Self { wire, wait_replicas, wait: timeouts.wait, loaded: HashSet::new() }
    }

    /// `host:port` of the primary.
    pub fn at(&self) -> &str {
        self.wire.at()
    }

    /// How many replicas must have what a durable script wrote.
    pub fn wait_replicas(&self) -> u32 {
        self.wait_replicas
    }

    /// Whether it can only fail from now on.
    pub fn is_dead(&self) -> bool {
        self.wire.is_dead()
    }

    /// Runs a command.
    ///
    /// # Errors
    /// Lost, refused, or an answer that is no `T`.
    pub fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisError> {
        self.query_blocking(command, Duration::ZERO)
    }

    /// Runs a command with which the server itself waits for up to `block`, such as `XREAD BLOCK`.
    ///
    /// # Errors
    /// As [`Link::query`].
    pub fn query_blocking<T: FromRedisValue>(&mut self, command: &Cmd, block: Duration) -> Result<T, RedisError> {
        let answer = self.wire.ask(command, block)?;
        self.read(&name(command), answer)
    }

    /// Runs a pipeline or transaction.
    ///
    /// # Errors
    /// As [`Link::query`]; that of the first command that has one, unless the pipeline ignores errors.
    pub fn pipe<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> Result<T, RedisError> {
        pipeline.query(&mut self.wire).map_err(|error| self.wire.failed("a pipeline", &error))
    }

    /// Runs a script; the server is given its text where it does not have it.
    ///
    /// # Errors
    /// As [`Link::query`].
    pub fn eval<T: FromRedisValue>(&mut self, script: &Script, keys: &[&[u8]], args: &[&[u8]]) -> Result<T, RedisError> {
        let (answer, _) = self.run(script, keys, args, 0)?;
        self.read(script.name(), answer)
    }

    /// Runs a script whose effect must be on [`Link::wait_replicas`] replicas, when it succeeds, before this returns.
    ///
    /// The script must write on every way that means "done", also when it finds that its work was done before: `WAIT` answers for
    /// what its own connection wrote, and promises nothing of what others did.
    ///
    /// # Errors
    /// As [`Link::eval`], and [`RedisError::NotReplicated`]. [`RedisError::Refused`] and [`RedisError::Oom`] are the script's own
    /// errors, whatever became of the `WAIT`; after any other its effect may be there, or come, or go.
    pub fn eval_durable<T: FromRedisValue>(&mut self, script: &Script, keys: &[&[u8]], args: &[&[u8]]) -> Result<T, RedisError> {
        let (answer, replicated) = self.eval_counted(script, keys, args)?;
        replicated.and(Ok(answer))
    }

    /// As [`Link::eval_durable`], with the script's answer also when too few replicas have its effect.
    ///
    /// # Errors
    /// As [`Link::eval`]. The second part of the answer is [`RedisError::NotReplicated`] or nothing.
    pub fn eval_counted<T: FromRedisValue>(
        &mut self,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<(T, Result<(), RedisError>), RedisError> {
        let (answer, acknowledged) = self.run(script, keys, args, self.wait_replicas)?;
        let answer = self.read(script.name(), answer)?;
        let got = acknowledged.map_or(Ok(0), |acknowledged| self.read::<u32>("WAIT", acknowledged)).map_err(not_the_script)?;
        let wanted = self.wait_replicas;
        let too_few = || RedisError::NotReplicated { at: self.at().to_owned(), wanted, got };
        Ok((answer, if got < wanted { Err(too_few()) } else { Ok(()) }))
    }

    /// Sends script and `WAIT` in one piece. A script that the server does not have is loaded and both are sent again: it had no
    /// effect, and the connection is the same.
    fn run(&mut self, script: &Script, keys: &[&[u8]], args: &[&[u8]], replicas: u32) -> Result<(Value, Option<Value>), RedisError> {
        let mut bytes = script.call(keys, args).get_packed_command();
        if replicas > 0 {
            // 0 would be for ever.
            let timeout_ms = self.wait.as_millis().max(1);
            bytes.extend(redis::cmd("WAIT").arg(replicas).arg(timeout_ms.to_string()).get_packed_command());
        }
        self.load(script)?;
        match self.send(&bytes, replicas)? {
            (Value::ServerError(error), _) if error.kind() == Some(ServerErrorKind::NoScript) => {
                self.loaded.remove(script.sha());
                self.load(script)?;
                self.send(&bytes, replicas)
            }
            answers => Ok(answers),
        }
    }

    /// Both answers are read whatever the first one is, so that the next command gets its own.
    fn send(&mut self, bytes: &[u8], replicas: u32) -> Result<(Value, Option<Value>), RedisError> {
        self.wire.send(bytes)?;
        let answer = self.wire.receive(Duration::ZERO)?;
        let acknowledged = if replicas > 0 { Some(self.wire.receive(self.wait)?) } else { None };
        Ok((answer, acknowledged))
    }

    fn load(&mut self, script: &Script) -> Result<(), RedisError> {
        if !self.loaded.contains(script.sha()) {
            let answer = self.wire.ask(&script.load(), Duration::ZERO)?;
            self.read::<String>(script.name(), answer)?;
            self.loaded.insert(script.sha().to_owned());
        }
        Ok(())
    }

    fn read<T: FromRedisValue>(&mut self, what: &str, answer: Value) -> Result<T, RedisError> {
        if let Value::ServerError(error) = answer {
            return Err(self.wire.refused(what, &error));
        }
        let unexpected =
            |error: redis::ParsingError| RedisError::Unexpected { at: self.wire.at().into(), what: what.into(), reason: error.to_string() };
        from_redis_value(answer).map_err(unexpected)
    }
}

/// A refused `WAIT` must not look like a refused script.
fn not_the_script(error: RedisError) -> RedisError {
    match error {
        RedisError::Refused { at, what, code, reason } => RedisError::Unexpected { at, what, reason: format!("{code} {reason}") },
        error => error,
    }
}

/// The command's name, for messages.
fn name(command: &Cmd) -> String {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => "a command".to_owned(),
    }
}
