//! One Redis or a Redis Cluster: its address, and the [`Connection`]s to it. [`StartCheck`] is what
//! both programs check before they rely on it.

mod advisories;
mod cluster;
mod connection;
mod failure;
mod safety;
mod start_check;

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError,
    RedisResult,
};

use self::cluster::at;
pub use self::connection::Connection;
pub use self::failure::{FailureKind, class, warn_will_retry};
pub use self::safety::{RedisSafety, version_warnings};
pub use self::start_check::{Durability, StartCheck, durability_problems, memory_used, waiting};
use crate::config::RedisArgs;
use crate::secrets::{Rotating, Secret, WatchedFile};

/// How long a TCP connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A server that vanished without a word is noticed after `KEEPALIVE_IDLE` and `KEEPALIVE_PROBES`
/// unanswered probes, and so is one that acknowledges nothing of what was sent: otherwise the kernel takes
/// two hours, or a quarter of one. Firewalls that forget quiet connections don't get to.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// The client's own retries in a cluster, for a slot that is moving. What is away for longer is
/// tried again by whoever asked.
const CLUSTER_RETRIES: u32 = 3;
const CLUSTER_RETRY_MS: (u64, u64) = (5, 50);

/// Where the configured Redis is. Clones share it; when `REDIS_URL_FILE` changes, new connections
/// and those handed out go to the new address with the new password.
#[derive(Clone)]
pub struct Redis(Arc<Rotating<Target>>);

enum Target {
    One(Box<Client>),
    /// Some of its nodes.
    Cluster(Vec<ConnectionInfo>),
}

impl Target {
    /// The parser's own message would repeat the password, so only its kind is told.
    fn parse(urls: &Secret, is_cluster: bool) -> Result<Self, String> {
        let nodes: Result<Vec<_>, _> = urls
            .expose()
            .split(',')
            .map(|url| {
                let node = url.trim().into_connection_info()?;
                Ok::<_, RedisError>(node.set_tcp_settings(tcp_settings()))
            })
            .collect();
        let nodes = nodes.map_err(|error| {
            format!(
                "is no redis:// or rediss:// URL ({:?}); several, comma-separated, are a Redis Cluster",
                error.kind()
            )
        })?;
        let unusable = |error: RedisError| format!("can't be used ({:?})", error.kind());
        match <[ConnectionInfo; 1]>::try_from(nodes) {
            Ok([node]) if !is_cluster => {
                let client = Client::open(node).map_err(unusable)?;
                Ok(Self::One(Box::new(client)))
            }
            nodes => {
                let nodes = nodes.map_or_else(|nodes| nodes, Vec::from);
                cluster_client(&nodes, CONNECT_TIMEOUT).map_err(unusable)?;
                Ok(Self::Cluster(nodes))
            }
        }
    }
}

/// Of every connection; the client turns none of this on by itself.
fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(USER_TIMEOUT);
    settings
}

fn cluster_client(
    nodes: &[ConnectionInfo],
    response_timeout: Duration,
) -> RedisResult<ClusterClient> {
    let (shortest, longest) = CLUSTER_RETRY_MS;
    ClusterClientBuilder::new(nodes.to_vec())
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(shortest)
        .max_retry_wait(longest)
        .connection_timeout(CONNECT_TIMEOUT.min(response_timeout))
        .response_timeout(response_timeout)
        .overall_response_timeout(Some(response_timeout))
        // Those of the nodes' addresses don't count.
        .tcp_settings(tcp_settings())
        .build()
}

impl Redis {
    /// The Redis of the settings; nothing is connected yet.
    ///
    /// # Errors
    /// What is wrong with `REDIS_URL` or its file, without repeating it.
    pub fn new(args: &RedisArgs) -> Result<Self, String> {
        let unset = args.redis_url.is_none() && args.redis_url_file.is_none();
        let default = "redis://127.0.0.1:6379".parse().ok().filter(|_| unset);
        let url = args.redis_url.as_ref().or(default.as_ref());
        let file = args.redis_url_file.as_deref();
        let is_cluster = args.redis_cluster;
        let parse = move |urls: &Secret| Target::parse(urls, is_cluster);
        let target = Rotating::open("REDIS_URL", url, file, parse)?;
        target
            .map(Self)
            .ok_or_else(|| "REDIS_URL is not set".to_owned())
    }

    pub fn follow(&self) -> Arc<dyn WatchedFile> {
        self.0.clone()
    }

    /// Grows when the address or the password changes.
    pub fn version(&self) -> u64 {
        self.0.version()
    }

    /// The address of a single server; `None` for a cluster.
    pub fn single(&self) -> Option<ConnectionInfo> {
        match &**self.0.current() {
            Target::One(client) => Some(client.get_connection_info().clone()),
            Target::Cluster(_) => None,
        }
    }

    /// A shared, pipelined connection that comes back by itself. `response_timeout` must be longer
    /// than anything that is asked over it. It is made by the first command.
    pub fn connection(&self, response_timeout: Duration) -> Connection {
        Connection {
            redis: self.clone(),
            response_timeout,
            link: Arc::default(),
        }
    }

    /// Listens to a channel, over a connection of its own; in a cluster any node will do. It ends when
    /// the connection does.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn listen(&self, channel: &str) -> RedisResult<PubSub> {
        let clients = match &**self.0.current() {
            Target::One(client) => vec![Client::clone(client)],
            Target::Cluster(nodes) => {
                let clients = nodes.iter().map(|node| Client::open(node.clone()));
                clients.collect::<RedisResult<_>>()?
            }
        };
        let mut failed = RedisError::from((ErrorKind::Io, "no answer in time"));
        for client in clients {
            let listening = async {
                let mut listener = client.get_async_pubsub().await?;
                listener.subscribe(channel).await?;
                Ok(listener)
            };
            match tokio::time::timeout(CONNECT_TIMEOUT, listening).await {
                Ok(Ok(listener)) => return Ok(listener),
                Ok(Err(error)) => failed = error,
                Err(_) => {}
            }
        }
        Err(failed)
    }

    /// A connection of one's own to the node that has `key`, for blocking reads. The time-out is
    /// longer than any block: a shorter one would give up on a reply that the server still sends.
    /// `asking` finds the node in a cluster.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn own_connection(
        &self,
        asking: &Connection,
        key: &str,
        response_timeout: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        let like = match &**self.0.current() {
            Target::One(client) => Ok((**client).clone()),
            Target::Cluster(nodes) => Err(nodes[0].clone()),
        };
        let client = match like {
            Ok(client) => client,
            Err(like) => {
                let (host, port) = asking.node_of(key).await?;
                Client::open(at(&like, host, port))?
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout));
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }
}
