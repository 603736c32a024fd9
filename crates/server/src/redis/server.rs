//! What the server is set up to do with our data.

use std::collections::HashMap;

use super::{Fault, Link, RedisError};

/// What could be learnt of a server. `None` is what it does not tell: a managed Redis hides `CONFIG`, a user may lack `INFO`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerState {
    /// Its version; Valkey tells the Redis version that it equals.
    pub version: Option<String>,
    /// Bytes taken.
    pub used_memory: Option<u64>,
    /// The part of them that the server does not count against its limit (buffers of replicas and of the append-only file).
    pub uncounted_memory: u64,
    /// The limit in bytes; 0 is none.
    pub maxmemory: Option<u64>,
    /// What it does at the limit.
    pub maxmemory_policy: Option<String>,
    /// Whether there is an append-only file.
    pub appendonly: Option<bool>,
    /// When that file is synced.
    pub appendfsync: Option<String>,
    /// Whether syncing stops while the file is rewritten, even with `appendfsync always`.
    pub no_appendfsync_on_rewrite: Option<bool>,
    /// Replicas that are connected and in step.
    pub replicas: Option<u32>,
}

impl ServerState {
    /// Asks the server.
    ///
    /// # Errors
    /// The link is lost. What the server refuses to tell is no error.
    pub fn read(link: &mut Link) -> Result<Self, RedisError> {
        let mut unless_refused = |command: &redis::Cmd| match link.query(command) {
            Err(error) if error.is_lost() => Err(error),
            answer => Ok(answer.ok()),
        };
        let mut config = redis::cmd("CONFIG");
        config.arg("GET").arg(&["appendfsync", "no-appendfsync-on-rewrite"]);
        let info: redis::Value = unless_refused(&redis::cmd("INFO"))?.unwrap_or(redis::Value::Nil);
        let config: redis::Value = unless_refused(&config)?.unwrap_or(redis::Value::Nil);
        let info: Option<String> = redis::from_redis_value(info).ok();
        Ok(Self::told(&info.unwrap_or_default(), redis::from_redis_value(config).unwrap_or_default()))
    }

    /// What `INFO` and `CONFIG GET` say.
    fn told(info: &str, mut config: HashMap<String, String>) -> Self {
        let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let number = |name| info.get(name).and_then(|value| value.parse().ok());
        let in_step = |(name, value): &(&&str, &&str)| {
            name.strip_prefix("slave").is_some_and(|n| n.parse::<u32>().is_ok()) && value.contains("state=online")
        };
        Self {
            version: info.get("redis_version").map(ToString::to_string),
            used_memory: number("used_memory"),
            uncounted_memory: number("mem_not_counted_for_evict").unwrap_or(0),
            maxmemory: number("maxmemory"),
            maxmemory_policy: info.get("maxmemory_policy").map(ToString::to_string),
            appendonly: info.get("aof_enabled").map(|enabled| *enabled == "1"),
            appendfsync: config.remove("appendfsync"),
            no_appendfsync_on_rewrite: config.remove("no-appendfsync-on-rewrite").map(|value| value == "yes"),
            replicas: number("connected_slaves").map(|_| info.iter().filter(in_step).map(|_| 1).sum()),
        }
    }

    /// The share of `maxmemory` that is taken; `None` without a limit, or when it is not told.
    pub fn share_used(&self) -> Option<f64> {
        let limit = self.maxmemory.filter(|limit| *limit > 0)?;
        Some(self.used_memory?.saturating_sub(self.uncounted_memory) as f64 / limit as f64)
    }

    /// What of it breaks or weakens our promises, with acknowledgement by that many replicas.
    pub fn faults(&self, wait_replicas: u32) -> Vec<Fault> {
        let mut faults = Vec::new();
        let major = self.version.as_ref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        if let (Some(..7), Some(version)) = (major, &self.version) {
            faults.push(Fault::TooOld { version: version.clone() });
        }
        if wait_replicas == 0 {
            self.faults_on_disk(&mut faults);
        } else {
            match self.replicas {
                None => faults.push(Fault::Untold { what: "how many replicas it has" }),
                Some(connected) if connected < wait_replicas => faults.push(Fault::FewReplicas { wanted: wait_replicas, connected }),
                Some(_) => {}
            }
            if self.appendonly == Some(false) {
                faults.push(Fault::ForgetfulRestart);
            }
        }
        match self.maxmemory_policy.as_deref() {
            None => faults.push(Fault::Untold { what: "its maxmemory-policy" }),
            Some("noeviction") => {}
            Some(policy) => faults.push(Fault::Evicts { policy: policy.to_owned() }),
        }
        match self.maxmemory {
            None => faults.push(Fault::Untold { what: "its maxmemory" }),
            Some(0) => faults.push(Fault::NoMaxmemory),
            Some(_) => {}
        }
        faults
    }

    /// Without replicas the disk alone keeps what was acknowledged.
    fn faults_on_disk(&self, faults: &mut Vec<Fault>) {
        match (self.appendonly, self.appendfsync.as_deref()) {
            (Some(false), _) => return faults.push(Fault::NoAppendOnly),
            (_, Some("always")) => {}
            (_, Some(policy)) => faults.push(Fault::FsyncNotAlways { policy: policy.to_owned() }),
            (_, None) => faults.push(Fault::Untold { what: "its appendfsync" }),
        }
        if self.appendonly.is_none() {
            faults.push(Fault::Untold { what: "its appendonly" });
        }
        if self.no_appendfsync_on_rewrite == Some(true) {
            faults.push(Fault::FsyncPauses);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> ServerState {
        ServerState {
            version: Some("7.0.15".into()),
            used_memory: Some(900),
            uncounted_memory: 100,
            maxmemory: Some(1000),
            maxmemory_policy: Some("noeviction".into()),
            appendonly: Some(true),
            appendfsync: Some("always".into()),
            no_appendfsync_on_rewrite: Some(false),
            replicas: Some(0),
        }
    }

    #[track_caller]
    fn check(state: &ServerState, wait_replicas: u32, expected: &[Fault]) {
        assert_eq!(state.faults(wait_replicas), expected);
    }

    #[test]
    fn info_is_read() {
        let info = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:900\r\nmem_not_counted_for_evict:100\r\nmaxmemory:1000\r\n\
                    maxmemory_policy:noeviction\r\naof_enabled:1\r\nconnected_slaves:2\r\n\
                    slave0:ip=::1,port=1,state=online,offset=1,lag=0\r\nslave1:ip=::1,port=2,state=wait_bgsave,offset=0,lag=0\r\n\
                    slave_read_repl_offset:4\r\n";
        let config =
            HashMap::from([("appendfsync".to_owned(), "always".to_owned()), ("no-appendfsync-on-rewrite".to_owned(), "no".to_owned())]);
        assert_eq!(ServerState::told(info, config), ServerState { replicas: Some(1), ..sound() });
        assert_eq!(ServerState::told("", HashMap::new()), ServerState::default());
    }

    #[test]
    fn the_share_is_of_what_the_server_counts() {
        assert_eq!(sound().share_used(), Some(0.8));
        assert_eq!(ServerState { maxmemory: Some(0), ..sound() }.share_used(), None);
        assert_eq!(ServerState { maxmemory: None, ..sound() }.share_used(), None);
    }

    #[test]
    fn without_replicas_the_disk_must_keep_it() {
        check(&sound(), 0, &[]);
        check(&ServerState { appendonly: Some(false), ..sound() }, 0, &[Fault::NoAppendOnly]);
        let everysec = Fault::FsyncNotAlways { policy: "everysec".into() };
        check(&ServerState { appendfsync: Some("everysec".into()), ..sound() }, 0, std::slice::from_ref(&everysec));
        check(&ServerState { no_appendfsync_on_rewrite: Some(true), ..sound() }, 0, &[Fault::FsyncPauses]);
        assert!(everysec.is_refusal() && Fault::NoAppendOnly.is_refusal() && Fault::FsyncPauses.is_refusal());
    }

    #[test]
    fn what_cannot_be_verified_is_no_refusal() {
        let state = ServerState { appendfsync: None, no_appendfsync_on_rewrite: None, ..sound() };
        check(&state, 0, &[Fault::Untold { what: "its appendfsync" }]);
        for wait_replicas in [0, 1] {
            let faults = ServerState::default().faults(wait_replicas);
            assert!(!faults.is_empty() && !faults.iter().any(Fault::is_refusal), "{faults:?}");
        }
    }

    #[test]
    fn with_replicas_they_must_be_there() {
        let few = Fault::FewReplicas { wanted: 2, connected: 1 };
        assert!(!few.is_refusal());
        check(&ServerState { replicas: Some(1), ..sound() }, 2, &[few]);
        let no_file = ServerState { appendonly: Some(false), appendfsync: Some("no".into()), replicas: Some(1), ..sound() };
        check(&no_file, 1, &[Fault::ForgetfulRestart]);
        assert!(!Fault::ForgetfulRestart.is_refusal());
    }

    #[test]
    fn memory_and_version() {
        let evicts = Fault::Evicts { policy: "allkeys-lru".into() };
        assert!(!evicts.is_refusal());
        check(
            &ServerState { maxmemory_policy: Some("allkeys-lru".into()), maxmemory: Some(0), ..sound() },
            0,
            &[evicts, Fault::NoMaxmemory],
        );
        let old = ServerState { version: Some("6.2.14".into()), ..sound() };
        assert!(matches!(&old.faults(0)[..], [fault] if fault.is_refusal()));
        check(&ServerState { version: Some("255.255.255".into()), ..sound() }, 0, &[]);
    }
}
