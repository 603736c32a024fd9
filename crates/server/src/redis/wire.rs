//! A connection that is dead after its first I/O error.

use std::fmt;
use std::time::Duration;

use redis::{Cmd, Connection, ConnectionInfo, ConnectionLike, ErrorKind, RedisError as CrateError, RedisResult, ServerError, Value};

use super::RedisError;

/// Bytes to and from one server.
///
/// The crate's own connection goes on after a timeout (it skips the answer when that comes late), and waits anew for each
/// answer of a pipeline. Here the first error ends it, so that no call takes longer than its timeout and nobody writes behind
/// a gap. A process that was stopped and goes on while it waits for an answer loses the connection too (`EINTR`): the crate
/// counts that answer as one to skip, so it cannot be waited for again.
pub(super) struct Wire {
    connection: Connection,
    at: String,
    /// How long one answer may take.
    io: Duration,
    /// What the socket's read timeout is.
    read_timeout: Duration,
    lost: Option<String>,
}

impl Wire {
    /// Connects and logs in. `at` is for messages. Each answer may take as long as the connection, until [`Wire::settle`].
    pub(super) fn open(info: RedisResult<ConnectionInfo>, at: String, within: Duration) -> Result<Self, RedisError> {
        let connect = || {
            let connection = redis::Client::open(info?)?.get_connection_with_timeout(within)?;
            connection.set_read_timeout(Some(within))?;
            connection.set_write_timeout(Some(within))?;
            Ok(connection)
        };
        match connect() {
            Ok(connection) => Ok(Self { connection, at, io: within, read_timeout: within, lost: None }),
            Err(error) => Err(RedisError::Connect { at, reason: reason(&error, within) }),
        }
    }

    /// From now on one answer may take this long.
    pub(super) fn settle(&mut self, io: Duration) -> Result<(), RedisError> {
        self.connection.set_write_timeout(Some(io)).map_err(|error| self.end(&error, io))?;
        self.io = io;
        Ok(())
    }

    /// `host:port` of the server.
    pub(super) fn at(&self) -> &str {
        &self.at
    }

    pub(super) fn is_dead(&self) -> bool {
        self.lost.is_some()
    }

    /// Makes every later call fail, with this reason.
    pub(super) fn give_up(&mut self, reason: String) {
        self.lost.get_or_insert(reason);
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), RedisError> {
        self.check()?;
        let sent = self.connection.send_packed_command(bytes);
        sent.map_err(|error| self.end(&error, self.io))
    }

    /// Reads one answer, errors of the server among them. `longer` is what the server itself may take over the timeout of an answer.
    pub(super) fn receive(&mut self, longer: Duration) -> Result<Value, RedisError> {
        self.check()?;
        let within = self.io + longer;
        if self.read_timeout != within {
            self.connection.set_read_timeout(Some(within)).map_err(|error| self.end(&error, within))?;
            self.read_timeout = within;
        }
        let answer = self.connection.recv_response();
        answer.map_err(|error| self.end(&error, within))
    }

    /// One command, one answer.
    pub(super) fn ask(&mut self, command: &Cmd, longer: Duration) -> Result<Value, RedisError> {
        self.send(&command.get_packed_command())?;
        self.receive(longer)
    }

    /// What an error that the server answered means for the caller. `what` was asked.
    pub(super) fn refused(&mut self, what: &str, error: &ServerError) -> RedisError {
        let (at, code, reason) = (self.at.clone(), error.code(), error.details().unwrap_or("no reason given").to_owned());
        match code {
            "OOM" => RedisError::Oom { at, reason },
            // UNBLOCKED: it became a replica while it let us wait.
            // MOVED: another node of the cluster has these keys now. CLUSTERDOWN: nobody has all of them, for now.
            "READONLY" | "UNBLOCKED" | "MOVED" | "CLUSTERDOWN" => {
                self.give_up(format!("it is not a primary of these keys ({code})"));
                RedisError::NotPrimary { at, reason }
            }
            _ => RedisError::Refused { at, what: what.to_owned(), code: code.to_owned(), reason },
        }
    }

    /// What an error of the crate means, from a call over [`ConnectionLike`].
    pub(super) fn failed(&mut self, what: &str, error: &CrateError) -> RedisError {
        if let Some(lost) = self.lost() {
            return lost;
        }
        // An error of a pipeline has the code only in here, `error.code()` is empty.
        match error.clone().into_server_errors().as_deref() {
            Some([(_, first), ..]) => self.refused(what, first),
            _ => RedisError::Unexpected { at: self.at.clone(), what: what.to_owned(), reason: error.to_string() },
        }
    }

    fn check(&self) -> Result<(), RedisError> {
        self.lost().map_or(Ok(()), Err)
    }

    fn lost(&self) -> Option<RedisError> {
        self.lost.clone().map(|reason| RedisError::Lost { at: self.at.clone(), reason })
    }

    fn end(&mut self, error: &CrateError, within: Duration) -> RedisError {
        let reason = reason(error, within);
        self.give_up(reason.clone());
        RedisError::Lost { at: self.at.clone(), reason }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("at", &self.at).field("lost", &self.lost).finish_non_exhaustive()
    }
}

/// For pipelines of the crate, which know how to read their answers.
impl ConnectionLike for Wire {
    fn req_packed_command(&mut self, bytes: &[u8]) -> RedisResult<Value> {
        self.req_packed_commands(bytes, 0, 1)?.pop().ok_or_else(|| (ErrorKind::Client, "no answer").into())
    }

    fn req_packed_commands(&mut self, bytes: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        // An empty pipeline is no fault of the connection.
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        let told = |_| CrateError::from((ErrorKind::Io, "lost"));
        self.send(bytes).map_err(told)?;
        let mut answers = Vec::with_capacity(count);
        let mut refused = None;
        for i in 0..offset + count {
            match self.receive(Duration::ZERO).map_err(told)? {
                // Of a transaction: MULTI and what was queued.
                Value::ServerError(error) if i < offset => refused = refused.or(Some(error)),
                _ if i < offset => {}
                answer => answers.push(answer),
            }
        }
        refused.map_or(Ok(answers), |error| Err(error.into()))
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }

    fn check_connection(&mut self) -> bool {
        self.ask(&redis::cmd("PING"), Duration::ZERO).is_ok()
    }

    fn is_open(&self) -> bool {
        !self.is_dead()
    }
}

fn reason(error: &CrateError, within: Duration) -> String {
    if error.is_timeout() {
        format!("no answer within {within:?}")
    } else if error.kind() == ErrorKind::AuthenticationFailed {
        "the server refuses user or password".to_owned()
    } else {
        error.to_string()
    }
}
