//! The lowest layer on Redis against real servers: `redis-server` as primary, replica and sentinel.
//!
//! Without one these tests do nothing and say so, unless `CI` or `REQUIRE_SERVERS` is set: then they fail.

#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped fails its test")]
#![expect(clippy::print_stderr, reason = "a test that did not run says so")]

use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anomaly_server::redis::{Fault, Lease, LeaseKeys, Link, RedisError, RedisTarget, Script, ServerState, Timeouts, nonce};
use tempfile::TempDir;

static PUT: Script = Script::new("putting", "#!lua\nredis.call('SET', KEYS[1], ARGV[1])\nreturn ARGV[1]");
static PUT_ALWAYS: Script = Script::new("putting", "#!lua flags=allow-oom\nredis.call('SET', KEYS[1], ARGV[1])\nreturn ARGV[1]");
static FAIL: Script = Script::new("failing", "#!lua\nreturn redis.error_reply('BROKEN on purpose')");
static FENCED: Script = Script::new(
    "a fenced write",
    "#!lua flags=allow-oom\nif redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end\nredis.call('SET', KEYS[2], ARGV[2])\nreturn 1",
);
const TTL: Duration = Duration::from_secs(60);
const BRIEF: Timeouts = Timeouts { connect: Duration::from_secs(2), io: Duration::from_millis(1500), wait: Duration::from_millis(1000) };

/// A server in a folder of its own, gone with this value.
struct Server {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Server {
    /// Starts one with these settings over quiet ones; `None` when there is no `redis-server` here.
    fn start(settings: &[(&str, &str)]) -> Option<Self> {
        Self::spawn(settings, |port| format!("port {port}\nbind 127.0.0.1\nsave \"\"\nappendonly no\nrepl-diskless-sync-delay 0\n"), &[])
    }

    /// A sentinel that watches `primary` as `main`; alone, it is the majority.
    fn sentinel(primary: &Self, settings: &[(&str, &str)]) -> Option<Self> {
        let config = |port| {
            format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 1000\n",
                primary.port
            )
        };
        Self::spawn(settings, config, &["--sentinel"])
    }

    fn spawn(settings: &[(&str, &str)], config: impl Fn(u16) -> String, args: &[&str]) -> Option<Self> {
        for _ in 0..5 {
            let folder = TempDir::new().unwrap();
            // Free now; another process may take it before the server does, hence the loop.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut text = config(port) + &format!("dir {}\n", folder.path().display());
            for (name, value) in settings {
                text += &format!("{name} {value}\n");
            }
            let file = folder.path().join("redis.conf");
            std::fs::write(&file, text).unwrap();
            let child = Command::new("redis-server").arg(file).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            let child = match child {
                Ok(child) => child,
                Err(error) if error.kind() == ErrorKind::NotFound => return missing("redis-server"),
                Err(error) => panic!("redis-server: {error}"),
            };
            let mut server = Self { child, port, _folder: folder };
            if server.is_up() {
                return Some(server);
            }
        }
        panic!("redis-server did not start");
    }

    fn is_up(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) && self.child.try_wait().unwrap().is_none() {
            if redis::Client::open(self.url()).unwrap().get_connection().is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn target(&self) -> RedisTarget {
        RedisTarget::parse(&self.url()).unwrap()
    }

    fn link(&self, wait_replicas: u32) -> Link {
        self.target().connect_with(wait_replicas, "", &BRIEF).unwrap()
    }

    /// Over a connection of its own, to a replica as well.
    fn tell<T: redis::FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        words
            .by_ref()
            .take(1)
            .fold(redis::Cmd::new(), |mut cmd, word| {
                cmd.arg(word);
                cmd
            })
            .arg(words.collect::<Vec<_>>())
            .query(&mut connection)
            .unwrap()
    }

    fn signal(&self, name: &str) {
        let told = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(told.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Works on a stopped process too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a test does without a program: nothing, if it may.
fn missing<T>(program: &str) -> Option<T> {
    let required = ["CI", "REQUIRE_SERVERS"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(!required, "{program} is not installed");
    eprintln!("NOT RUN: {program} is not installed");
    None
}

/// A primary and a replica in step with it.
fn pair() -> Option<(Server, Server)> {
    let primary = Server::start(&[])?;
    let replica = Server::start(&[("replicaof", &format!("127.0.0.1 {}", primary.port))])?;
    // "online" is not enough: the primary streams to it only after its first acknowledgement, a second later.
    until("the replica is in step", || primary.link(1).eval_durable::<String>(&PUT, &[b"pair"], &[b"x"]).is_ok());
    Some((primary, replica))
}

#[track_caller]
fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Fails when `call` takes much longer than its timeouts.
#[track_caller]
fn promptly<T>(call: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = call();
    assert!(begun.elapsed() < BRIEF.io + BRIEF.wait + Duration::from_secs(1), "took {:?}", begun.elapsed());
    result
}

fn get(link: &mut Link, key: &str) -> Option<String> {
    link.query(redis::cmd("GET").arg(key)).unwrap()
}

fn keys() -> LeaseKeys {
    LeaseKeys::under("{anomaly}:")
}

#[test]
fn commands_pipelines_and_errors() {
    let Some(server) = Server::start(&[]) else { return };
    let mut link = server.link(0);
    let () = link.query(redis::cmd("SET").arg("k").arg("v")).unwrap();
    let (a, b): (String, i64) = link.pipe(redis::pipe().cmd("GET").arg("k").cmd("INCR").arg("n")).unwrap();
    assert_eq!((a.as_str(), b), ("v", 1));
    let (a, b): (String, i64) = link.pipe(redis::pipe().atomic().cmd("GET").arg("k").cmd("INCR").arg("n")).unwrap();
    assert_eq!((a.as_str(), b), ("v", 2));

    assert!(link.pipe::<Vec<String>>(&redis::pipe()).unwrap().is_empty());

    let at = format!("127.0.0.1:{}", server.port);
    let refused = link.query::<i64>(redis::cmd("INCR").arg("k")).unwrap_err();
    assert_eq!(refused.to_string(), format!("redis at {at} refused INCR: ERR value is not an integer or out of range"));
    let refused = link.pipe::<(i64, String)>(redis::pipe().cmd("LPUSH").arg("k").arg("x").cmd("GET").arg("k")).unwrap_err();
    assert!(matches!(&refused, RedisError::Refused { code, .. } if code == "WRONGTYPE"), "{refused}");
    let refused = link.pipe::<(i64, String)>(redis::pipe().atomic().cmd("NOSUCH").cmd("GET").arg("k")).unwrap_err();
    assert!(matches!(&refused, RedisError::Refused { .. }), "{refused}");
    let unexpected = link.query::<i64>(redis::cmd("GET").arg("k")).unwrap_err();
    assert!(matches!(&unexpected, RedisError::Unexpected { .. }), "{unexpected}");
    // None of that was the connection's fault, and every answer found its question.
    assert!(!link.is_dead());
    assert_eq!(get(&mut link, "k").as_deref(), Some("v"));
}

#[test]
fn a_link_dies_with_its_connection_and_stays_dead() {
    let Some(server) = Server::start(&[]) else { return };
    let mut link = server.link(0);
    let () = server.tell("CLIENT KILL TYPE normal");
    let lost = link.query::<()>(redis::cmd("PING").arg("x")).unwrap_err();
    assert!(lost.is_lost() && link.is_dead(), "{lost}");
    let again = link.eval::<String>(&PUT, &[b"k"], &[b"v"]).unwrap_err();
    assert!(again.is_lost(), "{again}");
    assert_eq!(link.pipe::<()>(redis::pipe().cmd("PING")).unwrap_err(), again);

    let mut link = server.link(0);
    server.signal("STOP");
    let lost = promptly(|| link.query::<()>(&redis::cmd("PING")).unwrap_err());
    assert_eq!(lost.to_string(), format!("the connection to redis at 127.0.0.1:{} is lost: no answer within 1.5s", server.port));
    server.signal("CONT");
    // The late answer is nobody's.
    assert_eq!(link.query::<String>(redis::cmd("ECHO").arg("b")).unwrap_err(), lost);

    let mut link = server.link(0);
    server.signal("STOP");
    let lost = promptly(|| link.pipe::<()>(redis::pipe().cmd("PING").cmd("PING").cmd("PING")).unwrap_err());
    assert!(lost.is_lost());
    let refused = promptly(|| server.target().connect_with(0, "", &Timeouts { connect: Duration::from_millis(500), ..BRIEF }).unwrap_err());
    assert!(matches!(&refused, RedisError::Connect { reason, .. } if reason == "no answer within 500ms"), "{refused}");
    server.signal("CONT");
}

#[test]
fn a_blocking_command_may_take_longer() {
    let Some(server) = Server::start(&[]) else { return };
    let mut link = server.link(0);
    let begun = Instant::now();
    let nothing: Option<Vec<String>> = link.query_blocking(redis::cmd("BLPOP").arg("q").arg(2), Duration::from_secs(2)).unwrap();
    assert!(nothing.is_none() && begun.elapsed() >= Duration::from_secs(2));
    let lost = promptly(|| link.query::<Option<Vec<String>>>(redis::cmd("BLPOP").arg("q").arg(5)).unwrap_err());
    assert!(lost.is_lost(), "{lost}");
}

#[test]
fn flushed_scripts_are_loaded_again() {
    let Some((primary, _replica)) = pair() else { return };
    let mut link = primary.link(1);
    for value in ["1", "2"] {
        assert_eq!(link.eval_durable::<String>(&PUT, &[b"k"], &[value.as_bytes()]).unwrap(), value);
        let () = primary.tell("SCRIPT FLUSH");
    }
    assert_eq!(link.eval::<String>(&PUT, &[b"k"], &[b"3"]).unwrap(), "3");
    assert_eq!(get(&mut link, "k").as_deref(), Some("3"));
}

#[test]
fn durable_means_on_the_replicas() {
    let Some((primary, replica)) = pair() else { return };
    let mut link = primary.link(1);
    assert_eq!(link.eval_durable::<String>(&PUT, &[b"k"], &[b"1"]).unwrap(), "1");
    assert_eq!(replica.tell::<String>("GET k"), "1");

    let at = format!("127.0.0.1:{}", primary.port);
    let two = primary.link(2).eval_durable::<String>(&PUT, &[b"k"], &[b"2"]).unwrap_err();
    assert_eq!(two, RedisError::NotReplicated { at: at.clone(), wanted: 2, got: 1 });

    replica.signal("STOP");
    let refused = promptly(|| link.eval_durable::<String>(&PUT, &[b"k"], &[b"3"]).unwrap_err());
    assert_eq!(refused.to_string(), format!("redis at {at} replicated to 0 replicas in time, 1 wanted"));
    // Also through a connection that has just loaded the script.
    let refused = promptly(|| primary.link(1).eval_durable::<String>(&PUT_ALWAYS, &[b"k"], &[b"4"]).unwrap_err());
    assert!(matches!(refused, RedisError::NotReplicated { got: 0, .. }), "{refused}");
    // A script's own error is told, not what became of the replicas.
    let own = promptly(|| link.eval_durable::<String>(&FAIL, &[], &[]).unwrap_err());
    assert_eq!(own.to_string(), format!("redis at {at} refused failing: BROKEN on purpose"));
    // None of it broke the connection, nor the order of answers.
    assert!(!link.is_dead());
    assert_eq!(get(&mut link, "k").as_deref(), Some("4"));

    replica.signal("CONT");
    until("the replica is back", || link.eval_durable::<String>(&PUT, &[b"k"], &[b"5"]).is_ok());
    assert_eq!(replica.tell::<String>("GET k"), "5");
}

#[test]
fn a_primary_that_sleeps_loses_the_link_in_time() {
    let Some((primary, _replica)) = pair() else { return };
    let mut link = primary.link(1);
    assert_eq!(link.eval_durable::<String>(&PUT, &[b"k"], &[b"1"]).unwrap(), "1");
    primary.signal("STOP");
    let lost = promptly(|| link.eval_durable::<String>(&PUT, &[b"k"], &[b"2"]).unwrap_err());
    assert!(lost.is_lost() && link.is_dead(), "{lost}");
    primary.signal("CONT");
}

#[test]
fn one_of_two_holds_the_lease_and_a_sleeper_is_fenced() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut a, mut b) = (server.link(0), server.link(0));
    let first = Lease::try_acquire(&mut a, &keys(), TTL, &nonce()).unwrap().unwrap();
    assert!(Lease::try_acquire(&mut b, &keys(), TTL, &nonce()).unwrap().is_none());
    assert_eq!(first.epoch(), 1);
    let left = || Duration::from_millis(server.tell("PTTL {anomaly}:lease"));
    assert!(left() > TTL / 2 && left() <= TTL);
    let () = server.tell("PEXPIRE {anomaly}:lease 20000");
    assert!(first.renew(&mut a).unwrap());
    assert!(left() > TTL / 2 && left() <= TTL);
    assert_eq!(get(&mut a, "{anomaly}:lease").as_deref(), Some(first.token()));
    let write = |link: &mut Link, lease: &Lease, value: &str| {
        link.eval::<bool>(&FENCED, &[b"{anomaly}:lease", b"{anomaly}:x"], &[lease.token().as_bytes(), value.as_bytes()]).unwrap()
    };
    assert!(write(&mut a, &first, "a"));

    // The holder sleeps past its time, and another takes over.
    let () = server.tell("PEXPIRE {anomaly}:lease 1");
    let mut second = None;
    until("the lease expires", || {
        second = Lease::try_acquire(&mut b, &keys(), TTL, &nonce()).unwrap();
        second.is_some()
    });
    let second = second.unwrap();
    assert_eq!(second.epoch(), 2);
    assert!(write(&mut b, &second, "b"));
    assert!(!write(&mut a, &first, "zombie"));
    assert_eq!(get(&mut a, "{anomaly}:x").as_deref(), Some("b"));
    assert!(!first.renew(&mut a).unwrap());
    first.release(&mut a).unwrap();
    assert!(second.renew(&mut b).unwrap(), "released by one that did not hold it");

    second.release(&mut b).unwrap();
    let third = Lease::try_acquire(&mut a, &keys(), TTL, &nonce()).unwrap().unwrap();
    assert_eq!(third.epoch(), 3);
}

#[test]
fn a_lease_that_no_replica_knows_is_given_back() {
    let Some((primary, replica)) = pair() else { return };
    let mut link = primary.link(1);
    replica.signal("STOP");
    let refused = promptly(|| Lease::try_acquire(&mut link, &keys(), TTL, &nonce()).unwrap_err());
    assert!(matches!(refused, RedisError::NotReplicated { .. }), "{refused}");
    assert_eq!(get(&mut link, "{anomaly}:lease"), None);
    replica.signal("CONT");
    until("the lease is taken", || Lease::try_acquire(&mut link, &keys(), TTL, &nonce()).is_ok_and(|lease| lease.is_some()));
    assert!(replica.tell::<String>("GET {anomaly}:lease").contains(':'));
    // While it is held, that is the answer, whatever the replicas do.
    replica.signal("STOP");
    assert!(promptly(|| Lease::try_acquire(&mut link, &keys(), TTL, &nonce()).unwrap()).is_none());
    replica.signal("CONT");
}

#[test]
fn a_full_server_is_told_and_heals() {
    let Some(server) = Server::start(&[("maxmemory", "2mb")]) else { return };
    let mut link = server.link(0);
    let mut filled = Ok(());
    for i in 0..200 {
        filled = link.query::<()>(redis::cmd("SET").arg(i).arg(vec![b'x'; 100_000]));
        if filled.is_err() {
            break;
        }
    }
    let full = filled.unwrap_err();
    assert!(full.is_oom() && !full.is_lost(), "{full}");
    assert!(link.eval::<String>(&PUT, &[b"k"], &[b"v"]).unwrap_err().is_oom());
    let in_pipeline = link.pipe::<(String, String)>(redis::pipe().cmd("ECHO").arg("x").cmd("SET").arg("k").arg("v"));
    assert!(in_pipeline.unwrap_err().is_oom());
    assert!(ServerState::read(&mut link).unwrap().share_used().unwrap() > 0.9);

    // Scripts that must run do, loaded anew as well; so does the lease.
    let () = server.tell("SCRIPT FLUSH");
    assert_eq!(link.eval::<String>(&PUT_ALWAYS, &[b"k"], &[b"v"]).unwrap(), "v");
    let lease = Lease::try_acquire(&mut link, &keys(), TTL, &nonce()).unwrap().unwrap();
    assert!(lease.renew(&mut link).unwrap());
    lease.release(&mut link).unwrap();
}

#[test]
fn a_replica_is_no_primary() {
    let Some((primary, replica)) = pair() else { return };
    let refused = replica.target().connect(0).unwrap_err();
    let expected = format!(
        "redis at 127.0.0.1:{} is not a primary: it is a replica of 127.0.0.1:{}; name that one, or use redis+sentinel://",
        replica.port, primary.port
    );
    assert_eq!(refused.to_string(), expected);

    // One that becomes a replica while we are connected.
    let (mut writer, mut pipes, mut waiter) = (primary.link(0), primary.link(0), primary.link(1));
    assert_eq!(waiter.eval_durable::<String>(&PUT, &[b"k"], &[b"1"]).unwrap(), "1");
    let () = replica.tell("REPLICAOF NO ONE");
    let () = primary.tell(&format!("REPLICAOF 127.0.0.1 {}", replica.port));
    let demoted = writer.query::<()>(redis::cmd("SET").arg("k").arg("v")).unwrap_err();
    assert!(matches!(demoted, RedisError::NotPrimary { .. }) && demoted.is_lost() && writer.is_dead(), "{demoted}");
    assert!(matches!(writer.query::<()>(&redis::cmd("PING")).unwrap_err(), RedisError::Lost { .. }));
    let demoted = pipes.pipe::<()>(redis::pipe().cmd("SET").arg("k").arg("v")).unwrap_err();
    assert!(matches!(demoted, RedisError::NotPrimary { .. }), "{demoted}");
    let demoted = waiter.eval_durable::<String>(&PUT, &[b"k"], &[b"2"]).unwrap_err();
    assert!(matches!(demoted, RedisError::NotPrimary { .. }) && waiter.is_dead(), "{demoted}");
}

#[test]
fn a_sentinel_knows_the_primary() {
    let Some((primary, replica)) = pair() else { return };
    let Some(sentinel) = Server::sentinel(&primary, &[]) else { return };
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let target = |service: &str| {
        // The first is not there; the second is asked.
        RedisTarget::parse(&format!("redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{}/{service}", sentinel.port)).unwrap()
    };
    let mut link = target("main").connect_with(1, "", &BRIEF).unwrap();
    assert_eq!(link.at(), format!("127.0.0.1:{}", primary.port));
    assert_eq!(link.eval_durable::<String>(&PUT, &[b"k"], &[b"1"]).unwrap(), "1");

    let unknown = target("other").connect_with(0, "", &BRIEF).unwrap_err().to_string();
    assert!(unknown.contains("cannot connect to redis at the primary of other"), "{unknown}");
    assert!(unknown.contains("it knows no service other") && unknown.contains("refused"), "{unknown}");
    let wrong = sentinel.target().connect_with(0, "", &BRIEF).unwrap_err().to_string();
    assert!(wrong.ends_with("it is a sentinel, the URL must begin with redis+sentinel://"), "{wrong}");

    until("the sentinel knows the replica", || {
        let replicas: Vec<redis::Value> = sentinel.tell("SENTINEL REPLICAS main");
        !replicas.is_empty()
    });
    until("the sentinel fails over", || {
        let mut connection = redis::Client::open(sentinel.url()).unwrap().get_connection().unwrap();
        redis::cmd("SENTINEL").arg("FAILOVER").arg("main").query::<()>(&mut connection).is_ok()
    });
    until("the new primary is found", || {
        target("main").connect_with(1, "", &BRIEF).is_ok_and(|link| link.at() == format!("127.0.0.1:{}", replica.port))
    });
    let mut link = target("main").connect_with(0, "", &BRIEF).unwrap();
    assert_eq!(get(&mut link, "k").as_deref(), Some("1"));
}

#[test]
fn logins_are_used_and_never_shown() {
    let Some(server) = Server::start(&[("requirepass", "s3cret/1")]) else { return };
    let at = format!("127.0.0.1:{}", server.port);
    let connect = |login: &str| RedisTarget::parse(&format!("redis://{login}@{at}/2")).unwrap().connect_with(0, "", &BRIEF);
    let mut link = connect(":s3cret%2F1").unwrap();
    let () = link.query(redis::cmd("SET").arg("k").arg("v")).unwrap();
    let client: String = link.query(redis::cmd("CLIENT").arg("INFO")).unwrap();
    assert!(client.contains(" db=2 "), "{client}");
    connect("default:s3cret%2F1").unwrap();
    let wrong = connect("app:s3cret").unwrap_err().to_string();
    assert_eq!(wrong, format!("cannot connect to redis at {at}: the server refuses user or password"));
    let none = server.target().connect_with(0, "", &BRIEF).unwrap_err().to_string();
    assert_eq!(none, format!("redis at {at} refused ROLE: NOAUTH Authentication required."));

    // A sentinel that wants the login gets it, one that does not is not asked to take it.
    for settings in
        [&[("sentinel auth-pass main", "s3cret/1"), ("requirepass", "s3cret/1")][..], &[("sentinel auth-pass main", "s3cret/1")]]
    {
        let Some(sentinel) = Server::sentinel(&server, settings) else { return };
        let by_sentinel = |login: &str| {
            let url = format!("redis+sentinel://{login}127.0.0.1:{}/main", sentinel.port);
            RedisTarget::parse(&url).unwrap().connect_with(0, "", &BRIEF)
        };
        assert_eq!(by_sentinel(":s3cret%2F1@").unwrap().at(), at);
        let none = by_sentinel("").unwrap_err().to_string();
        assert!(none.contains("NOAUTH"), "{none}");
    }
}

#[test]
fn what_a_server_promises_is_read() {
    let Some(server) = Server::start(&[]) else { return };
    let state = ServerState::read(&mut server.link(0)).unwrap();
    assert_eq!((state.appendonly, state.appendfsync.as_deref(), state.replicas), (Some(false), Some("everysec"), Some(0)));
    assert_eq!(state.faults(0), [Fault::NoAppendOnly, Fault::NoMaxmemory]);
    assert_eq!(state.share_used(), None);

    let settings = [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory", "64mb"), ("rename-command", "CONFIG \"\"")];
    let Some(server) = Server::start(&settings) else { return };
    let state = ServerState::read(&mut server.link(0)).unwrap();
    assert_eq!(state.faults(0), [Fault::Untold { what: "its appendfsync" }]);
    assert!(state.share_used().is_some_and(|share| share > 0.0 && share < 0.5));

    let Some(server) = Server::start(&settings[..3]) else { return };
    let mut link = server.link(0);
    assert_eq!(ServerState::read(&mut link).unwrap().faults(0), []);
    server.signal("KILL");
    until("the link notices", || ServerState::read(&mut link).is_err_and(|error| error.is_lost()));
}

#[test]
fn tls_checks_the_certificate() {
    let Some((server, tls_port, folder)) = tls_server() else { return };
    let target = RedisTarget::parse(&format!("rediss://localhost:{tls_port}")).unwrap();
    let stranger = target.connect_with(0, "", &BRIEF).unwrap_err().to_string();
    assert!(stranger.contains("cannot connect to redis at localhost:") && stranger.contains("certificate"), "{stranger}");

    // The system's roots are those of a process: one in which the certificate is trusted.
    let trusting = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inside_tls_checks_the_certificate", "--ignored"])
        .env("SSL_CERT_FILE", folder.path().join("cert.pem"))
        .env("TLS_PORT", tls_port.to_string())
        .output()
        .unwrap();
    assert!(trusting.status.success(), "{}", String::from_utf8_lossy(&trusting.stdout));
    assert_eq!(server.tell::<String>("GET k"), "v");

    // A server that sleeps holds nobody up in the handshake either.
    server.signal("STOP");
    let refused = promptly(|| target.connect_with(0, "", &BRIEF).unwrap_err());
    assert!(matches!(&refused, RedisError::Connect { reason, .. } if reason == "no answer within 2s"), "{refused}");
    server.signal("CONT");
}

#[test]
#[ignore = "the part of tls_checks_the_certificate that has its own roots"]
fn inside_tls_checks_the_certificate() {
    let Ok(port) = std::env::var("TLS_PORT") else { return };
    let mut link = RedisTarget::parse(&format!("rediss://localhost:{port}")).unwrap().connect_with(0, "", &BRIEF).unwrap();
    assert_eq!(link.eval_durable::<String>(&PUT, &[b"k"], &[b"v"]).unwrap(), "v");
}

/// A server with a certificate of its own for `localhost`, its TLS port, and the folder with `cert.pem`.
fn tls_server() -> Option<(Server, u16, TempDir)> {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (key, cert) = (file("key.pem"), file("cert.pem"));
    let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
                   -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE";
    let made = Command::new("openssl").args(request.split(' ')).args(["-keyout", &key, "-out", &cert]).stderr(Stdio::null()).status();
    match made {
        Err(error) if error.kind() == ErrorKind::NotFound => return missing("openssl"),
        made => assert!(made.unwrap().success()),
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = [("tls-port", &*port.to_string()), ("tls-key-file", &key), ("tls-cert-file", &cert), ("tls-auth-clients", "no")];
    Some((Server::start(&settings)?, port, folder))
}
