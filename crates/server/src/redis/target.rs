//! `REDIS_URL`: where the primary is, or which sentinels know.

use std::fmt;
use std::str::FromStr;

use super::RedisError;

const SCHEMES: &str = "redis://, rediss://, redis+sentinel:// or redis+cluster:// (with TLS: rediss+…)";

/// Where Redis is and how to log in.
///
/// `redis://[user:password@]host[:6379][/db]`, with TLS (certificates checked against the system's roots) `rediss://`;
/// by Sentinel `redis+sentinel://[user:password@]host[:26379][,host…]/service[/db]`, with TLS to the primary `rediss+sentinel://`.
/// The login is for the primary; a sentinel gets it only when it asks for one. What a URL cannot hold is percent-encoded.
/// As text, and in `Debug`, the password is `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisTarget {
    pub(super) place: Place,
    pub(super) tls: bool,
    pub(super) login: Option<Login>,
    pub(super) db: u32,
}

/// What the URL names.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    Primary(Address),
    Sentinels {
        sentinels: Vec<Address>,
        service: String,
    },
    /// Some nodes of a cluster.
    Cluster(Vec<Address>),
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: String,
}

impl RedisTarget {
    /// Whether sentinels name the primary, so that it may change.
    pub fn has_sentinels(&self) -> bool {
        matches!(self.place, Place::Sentinels { .. })
    }

    /// Whether keys lie at several primaries, each with those of its slots.
    pub fn is_cluster(&self) -> bool {
        matches!(self.place, Place::Cluster(_))
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// [`RedisError::Url`] with the part at fault, never the password.
    pub fn parse(url: &str) -> Result<Self, RedisError> {
        parse(url.trim()).map_err(RedisError::Url)
    }
}

impl FromStr for RedisTarget {
    type Err = RedisError;

    fn from_str(url: &str) -> Result<Self, RedisError> {
        Self::parse(url)
    }
}

impl fmt::Display for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(match self.place {
            Place::Primary(_) => "://",
            Place::Sentinels { .. } => "+sentinel://",
            Place::Cluster(_) => "+cluster://",
        })?;
        if let Some(login) = &self.login {
            write!(f, "{}:***@", login.user.as_deref().unwrap_or_default())?;
        }
        match &self.place {
            Place::Primary(address) => write!(f, "{address}/{}", self.db),
            Place::Sentinels { sentinels, service } => {
                let sentinels: Vec<String> = sentinels.iter().map(ToString::to_string).collect();
                write!(f, "{}/{service}/{}", sentinels.join(","), self.db)
            }
            Place::Cluster(nodes) => f.write_str(&nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// The last `@` ends the login, so that a password with an unescaped character is never taken for a host and told.
fn parse(url: &str) -> Result<RedisTarget, String> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("must begin with {SCHEMES}"))?;
    let (tls, kind) = match scheme.strip_prefix("rediss") {
        Some(kind) => (true, kind),
        None => (false, scheme.strip_prefix("redis").unwrap_or("?")),
    };
    let (by_sentinel, is_cluster) = match kind {
        "" => (false, false),
        "+sentinel" => (true, false),
        "+cluster" => (false, true),
        _ => return Err(format!("must begin with {SCHEMES}, got {scheme}://")),
    };
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => (Some(parse_login(login)?), rest),
        None => (None, rest),
    };
    if rest.contains(['?', '#']) {
        return Err("takes no parameters after ? or #".to_owned());
    }
    let mut parts = rest.split('/');
    let hosts = parts.next().unwrap_or_default();
    let place = if by_sentinel {
        let sentinels = hosts.split(',').map(|host| parse_address(host, 26379)).collect::<Result<_, _>>()?;
        let service = parts.next().filter(|service| !service.is_empty());
        let service = decode(service.ok_or("names no service, as in redis+sentinel://host:26379/mymaster")?, "the service")?;
        Place::Sentinels { sentinels, service }
    } else if is_cluster {
        Place::Cluster(hosts.split(',').map(|host| parse_address(host, 6379)).collect::<Result<_, _>>()?)
    } else {
        if hosts.contains(',') {
            return Err(format!(
                "takes one host, got {hosts}; several sentinels are redis+sentinel://…/service, a cluster is redis+cluster://…"
            ));
        }
        Place::Primary(parse_address(hosts, 6379)?)
    };
    let db = match parts.next() {
        None | Some("") => 0,
        Some(db) => db.parse().map_err(|_| format!("database must be a number, got {db}"))?,
    };
    if is_cluster && db != 0 {
        return Err(format!("a cluster has no database but 0, got {db}"));
    }
    match parts.next() {
        None | Some("") => Ok(RedisTarget { place, tls, login, db }),
        Some(more) => Err(format!("nothing can follow the database, got /{more}")),
    }
}

fn parse_login(login: &str) -> Result<Login, String> {
    if login.contains(['/', '?', '#']) {
        return Err("a / ? or # in user or password must be percent-encoded (%2F %3F %23)".to_owned());
    }
    let (user, password) = login.split_once(':').ok_or("has a user but no password; a password alone is redis://:password@host")?;
    let user = decode(user, "the user")?;
    // A wrong escape in a password is told without it.
    let password = decode(password, "").map_err(|_| "the password has a % that begins no escape (a % itself is %25)")?;
    if password.is_empty() {
        return Err("has an empty password".to_owned());
    }
    Ok(Login { user: Some(user).filter(|user| !user.is_empty()), password })
}

fn parse_address(text: &str, default_port: u16) -> Result<Address, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or_else(|| format!("a [ without ] in {text}"))?;
            match rest.strip_prefix(':') {
                None if !rest.is_empty() => return Err(format!("only a port can follow ], got {text}")),
                port => (host, port),
            }
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(format!("an IPv6 address goes in brackets, got {text}")),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(if text.is_empty() { "names no host".to_owned() } else { format!("names no host in {text}") });
    }
    let port = match port {
        None => default_port,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(format!("port of {host} must be 1 to 65535, got {port}")),
            Ok(port) => port,
        },
    };
    Ok(Address { host: host.to_owned(), port })
}

fn decode(text: &str, what: &str) -> Result<String, String> {
    let fault = || format!("{what} has a wrong percent-escape, got {text}");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let (high, low) = digit().zip(digit()).ok_or_else(fault)?;
                u8::try_from(high * 16 + low).map_err(|_| fault())?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| fault())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: &str) {
        let target = RedisTarget::parse(url).unwrap();
        assert_eq!(target.to_string(), expected);
        assert_eq!(format!("{target:?}"), expected);
    }

    #[track_caller]
    fn check_refused(url: &str, expected: &str) {
        let message = RedisTarget::parse(url).unwrap_err().to_string();
        assert_eq!(message, format!("REDIS_URL: {expected}"));
        assert!(!message.contains("s3cret"), "{message}");
    }

    #[test]
    fn urls_are_read_and_shown_without_the_password() {
        check("redis://localhost", "redis://localhost:6379/0");
        check(" redis://10.0.0.1:7000/3 ", "redis://10.0.0.1:7000/3");
        check("redis://[::1]:7000/", "redis://[::1]:7000/0");
        check("redis://[::1]", "redis://[::1]:6379/0");
        check("rediss://app:s3cret@cache.example.org/1", "rediss://app:***@cache.example.org:6379/1");
        check("redis://:s3cret@h", "redis://:***@h:6379/0");
        check("redis+sentinel://a,b:1,[::2]:3/mymaster", "redis+sentinel://a:26379,b:1,[::2]:3/mymaster/0");
        check("rediss+sentinel://u:s3cret@a:1/my%20one/2", "rediss+sentinel://u:***@a:1/my one/2");
        check("redis+cluster://a,b:1,[::2]:3", "redis+cluster://a:6379,b:1,[::2]:3");
        check("rediss+cluster://u:s3cret@a:1/0", "rediss+cluster://u:***@a:1");
    }

    #[test]
    fn the_login_is_decoded() {
        let login = |url| RedisTarget::parse(url).unwrap().login.unwrap();
        let Login { user, password } = login("redis://app%3A1:p%2Fa%25%c3%a4:@@h");
        assert_eq!((user.as_deref(), password.as_str()), (Some("app:1"), "p/a%ä:@"));
        assert_eq!(login("redis://:x@h").user, None);
    }

    #[test]
    fn faults_are_told_without_the_password() {
        check_refused("localhost:6379", "must begin with redis://, rediss://, redis+sentinel:// or redis+cluster:// (with TLS: rediss+…)");
        check_refused(
            "unix:///run/redis",
            "must begin with redis://, rediss://, redis+sentinel:// or redis+cluster:// (with TLS: rediss+…), got unix://",
        );
        check_refused(
            "redis+x://h",
            "must begin with redis://, rediss://, redis+sentinel:// or redis+cluster:// (with TLS: rediss+…), got redis+x://",
        );
        check_refused("redis+cluster://a,b/2", "a cluster has no database but 0, got 2");
        check_refused("redis://", "names no host");
        check_refused("redis://:s3cret@:1", "names no host in :1");
        check_refused("redis://h:port", "port of h must be 1 to 65535, got port");
        check_refused("redis://h:0", "port of h must be 1 to 65535, got 0");
        check_refused("redis://h:65536", "port of h must be 1 to 65535, got 65536");
        check_refused("redis://::1", "an IPv6 address goes in brackets, got ::1");
        check_refused("redis://[::1", "a [ without ] in [::1");
        check_refused("redis://[::1]6379", "only a port can follow ], got [::1]6379");
        check_refused(
            "redis://a,b",
            "takes one host, got a,b; several sentinels are redis+sentinel://…/service, a cluster is redis+cluster://…",
        );
        check_refused("redis://h/main", "database must be a number, got main");
        check_refused("redis://h/-1", "database must be a number, got -1");
        check_refused("redis://h/1/2", "nothing can follow the database, got /2");
        check_refused("redis://h?password=s3cret", "takes no parameters after ? or #");
        check_refused("redis://s3cret@h", "has a user but no password; a password alone is redis://:password@host");
        check_refused("redis://u:@h", "has an empty password");
        check_refused("redis://u:s3cret/x@h:1", "a / ? or # in user or password must be percent-encoded (%2F %3F %23)");
        check_refused("redis://u:s3cret#@h:1", "a / ? or # in user or password must be percent-encoded (%2F %3F %23)");
        check_refused("redis://u:s3cret%zz@h:1", "the password has a % that begins no escape (a % itself is %25)");
        check_refused("redis://u%4:s3cret@h:1", "the user has a wrong percent-escape, got u%4");
        check_refused("redis+sentinel://a:1,b:2", "names no service, as in redis+sentinel://host:26379/mymaster");
        check_refused("redis+sentinel://a:1,/m", "names no host");
    }
}
