//! From a target to its primary.

use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{
    Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo, RedisResult, Value, from_redis_value,
};

use super::target::{Address, Login, Place};
use super::wire::Wire;
use super::{Link, RedisError, RedisTarget};

/// How long to wait for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, with TLS and login. Resolving a host's name is outside of it, and may take as long as the system lets it.
    pub connect: Duration,
    /// For the bytes of one command to be written, and for one answer to come.
    pub io: Duration,
    /// For the replicas to have what a durable script wrote.
    pub wait: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), io: Duration::from_secs(5), wait: Duration::from_secs(2) }
    }
}

impl RedisTarget {
    /// Connects to the primary, with the default [`Timeouts`].
    ///
    /// # Errors
    /// As [`RedisTarget::connect_with`].
    pub fn connect(&self, wait_replicas: u32) -> Result<Link, RedisError> {
        self.connect_with(wait_replicas, "", &Timeouts::default())
    }

    /// Connects to the primary: the one named, or the one that the first sentinel which knows a real one names.
    ///
    /// # Errors
    /// [`RedisError::NotPrimary`] when the server named is a replica, [`RedisError::Connect`] when there is no connection.
    pub fn connect_with(&self, wait_replicas: u32, tag: &str, timeouts: &Timeouts) -> Result<Link, RedisError> {
        let wire = match &self.place {
            Place::Primary(address) => self.primary(address, timeouts)?,
            Place::Sentinels { sentinels, service } => self.by_sentinels(sentinels, service, timeouts)?,
            Place::Cluster(nodes) => self.in_cluster(nodes, tag, timeouts)?,
        };
        Ok(Link::new(wire, wait_replicas, timeouts))
    }

    fn by_sentinels(&self, sentinels: &[Address], service: &str, timeouts: &Timeouts) -> Result<Wire, RedisError> {
        let mut reasons = Vec::new();
        for sentinel in sentinels {
            let found = self.ask_sentinel(sentinel, service, timeouts).and_then(|address| self.primary(&address, timeouts));
            match found {
                Ok(wire) => return Ok(wire),
                Err(error) => reasons.push(format!("sentinel {sentinel}: {error}")),
            }
        }
        Err(RedisError::Connect { at: format!("the primary of {service}"), reason: reasons.join("; ") })
    }

    /// Where the sentinel says that the primary is. It is given the login only when it asks for one.
    fn ask_sentinel(&self, sentinel: &Address, service: &str, timeouts: &Timeouts) -> Result<Address, RedisError> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let ask = |login: Option<&Login>| {
            let mut wire = Wire::open(info(sentinel, false, login, 0), sentinel.to_string(), timeouts.connect)?;
            first::<Option<(String, u16)>>(&mut wire, "SENTINEL", &question)
        };
        let answer = match ask(None) {
            Err(RedisError::Refused { code, .. }) if code == "NOAUTH" && self.login.is_some() => ask(self.login.as_ref()),
            answer => answer,
        };
        let unknown = || RedisError::Connect { at: sentinel.to_string(), reason: format!("it knows no service {service}") };
        answer?.map(|(host, port)| Address { host, port }).ok_or_else(unknown)
    }

    /// The primary that has the keys with this hash tag, as the first node that answers knows it.
    fn in_cluster(&self, nodes: &[Address], tag: &str, timeouts: &Timeouts) -> Result<Wire, RedisError> {
        let mut reasons = Vec::new();
        for node in nodes {
            match self.ask_node(node, tag, timeouts).and_then(|address| self.primary(&address, timeouts)) {
                Ok(wire) => return Ok(wire),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        // Most of them say the same.
        reasons.sort_unstable();
        reasons.dedup();
        Err(RedisError::Connect { at: format!("the cluster's primary of {{{tag}}}"), reason: reasons.join("; ") })
    }

    fn ask_node(&self, node: &Address, tag: &str, timeouts: &Timeouts) -> Result<Address, RedisError> {
        let mut wire = Wire::open(info(node, self.tls, self.login.as_ref(), 0), node.to_string(), timeouts.connect)?;
        let mut question = redis::cmd("CLUSTER");
        question.arg("KEYSLOT").arg(format!("{{{tag}}}"));
        let slot: u64 = first(&mut wire, "CLUSTER KEYSLOT", &question)?;
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        // Each range: its first and last slot, then its primary and replicas.
        let ranges: Vec<(u64, u64, (String, u16))> = first::<Vec<Vec<Value>>>(&mut wire, "CLUSTER SLOTS", &question)?
            .into_iter()
            .filter_map(|range| {
                let mut parts = range.into_iter();
                let (from, to, primary) = (parts.next()?, parts.next()?, parts.next()?);
                let mut primary = from_redis_value::<Vec<Value>>(primary).ok()?.into_iter();
                let address = (from_redis_value(primary.next()?).ok()?, from_redis_value(primary.next()?).ok()?);
                Some((from_redis_value(from).ok()?, from_redis_value(to).ok()?, address))
            })
            .collect();
        let found = ranges.into_iter().find(|(from, to, _)| (*from..=*to).contains(&slot));
        let (_, _, (host, port)) =
            found.ok_or_else(|| RedisError::Connect { at: node.to_string(), reason: format!("nobody in its cluster has slot {slot}") })?;
        // A node that does not know its own name leaves it out.
        Ok(Address { host: if host.is_empty() { node.host.clone() } else { host }, port })
    }

    fn primary(&self, address: &Address, timeouts: &Timeouts) -> Result<Wire, RedisError> {
        let info = info(address, self.tls, self.login.as_ref(), self.db);
        let mut wire = Wire::open(info, address.to_string(), timeouts.connect)?;
        let role: Vec<Value> = first(&mut wire, "ROLE", &redis::cmd("ROLE"))?;
        let mut texts = role.into_iter().map(|part| from_redis_value::<String>(part).unwrap_or_default());
        let mut next = || texts.next().unwrap_or_default();
        let reason = match next().as_str() {
            "master" => {
                wire.settle(timeouts.io)?;
                return Ok(wire);
            }
            "slave" => format!("it is a replica of {}:{}; name that one, or use redis+sentinel://", next(), next()),
            "sentinel" => "it is a sentinel, the URL must begin with redis+sentinel://".to_owned(),
            role => format!("its role is {role}"),
        };
        Err(RedisError::NotPrimary { at: address.to_string(), reason })
    }

    /// The nodes of a cluster that are named, as the library takes them.
    pub(super) fn nodes(&self) -> RedisResult<Vec<ConnectionInfo>> {
        let Place::Cluster(nodes) = &self.place else { return Ok(Vec::new()) };
        nodes.iter().map(|node| info(node, self.tls, self.login.as_ref(), 0)).collect()
    }
}

/// The first question on a connection: unless it is answered, there is none.
fn first<T: FromRedisValue>(wire: &mut Wire, what: &str, question: &Cmd) -> Result<T, RedisError> {
    match wire.ask(question, Duration::ZERO) {
        Ok(Value::ServerError(error)) => Err(wire.refused(what, &error)),
        Ok(answer) => from_redis_value(answer).map_err(|error| wire.failed(what, &error.into())),
        Err(RedisError::Lost { at, reason }) => Err(RedisError::Connect { at, reason }),
        Err(error) => Err(error),
    }
}

fn info(address: &Address, tls: bool, login: Option<&Login>, db: u32) -> RedisResult<ConnectionInfo> {
    let host = address.host.clone();
    let place = if tls {
        ConnectionAddr::TcpTls { host, port: address.port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, address.port)
    };
    // The library's name would cost a round trip and be refused by Redis 7.0.
    let mut settings = RedisConnectionInfo::default().set_db(db.into()).set_skip_set_lib_name();
    if let Some(login) = login {
        settings = settings.set_password(&login.password);
        if let Some(user) = &login.user {
            settings = settings.set_username(user);
        }
    }
    let tcp = TcpSettings::default().set_nodelay(true);
    Ok(place.into_connection_info()?.set_tcp_settings(tcp).set_redis_settings(settings))
}
