//! Writes to keys of any name: at one primary, or each at its own in a cluster.

use redis::Pipeline;
use redis::cluster::{ClusterClient, ClusterConnection, cluster_pipe};

use super::{Reconnecting, RedisError, RedisPlace};

/// A connection, made when it is needed. What it writes is best effort: nobody waits for replicas.
pub enum Anywhere {
    One(Box<Reconnecting>),
    Cluster(RedisPlace, Option<Box<ClusterConnection>>),
}

impl std::fmt::Debug for Anywhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::One(_)) { "Anywhere::One" } else { "Anywhere::Cluster" })
    }
}

impl Anywhere {
    /// Not connected yet.
    pub fn new(place: RedisPlace) -> Self {
        if place.target.is_cluster() { Self::Cluster(place, None) } else { Self::One(Box::new(Reconnecting::new(place))) }
    }

    /// Sends commands, each to where its key is.
    ///
    /// # Errors
    /// Redis is away; some of them may be done.
    pub fn pipe(&mut self, commands: &Pipeline) -> Result<(), RedisError> {
        match self {
            Self::One(connection) => connection.link()?.pipe(commands),
            Self::Cluster(place, connection) => {
                let lost = |error: redis::RedisError| RedisError::Lost { at: place.target.to_string(), reason: error.to_string() };
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => Box::new(client(place).and_then(|client| client.get_connection()).map_err(lost)?),
                };
                let mut divided = cluster_pipe();
                for command in commands.cmd_iter() {
                    divided.add_command(command.clone()).ignore();
                }
                divided.query::<()>(&mut open).map_err(lost)?;
                *connection = Some(open);
                Ok(())
            }
        }
    }
}

fn client(place: &RedisPlace) -> redis::RedisResult<ClusterClient> {
    ClusterClient::new(place.target.nodes()?)
}
