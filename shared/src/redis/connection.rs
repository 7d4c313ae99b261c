//! A shared connection, which is made anew when it is of no use any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures::future::join_all;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterConfig;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisFuture, RedisResult,
    ServerErrorKind, Value,
};

use super::cluster::{ask_once, at, shards, shards_by};
use super::{CONNECT_TIMEOUT, Redis, Target, cluster_client};

/// A link to a cluster is not suspected before it is so old: it may still be made.
const CLUSTER_LINK_PATIENCE: Duration = Duration::from_secs(5);

/// A shared connection to one Redis or to all nodes of a cluster. Clones are cheap and share it.
#[derive(Clone)]
pub struct Connection {
    pub(super) redis: Redis,
    pub(super) response_timeout: Duration,
    pub(super) link: Arc<ArcSwapOption<OpenClient>>,
}

pub(super) struct OpenClient {
    /// Of the target that it was made for.
    version: u64,
    made: Instant,
    /// One at a time asks whether it is stuck.
    judging: tokio::sync::Mutex<()>,
    to: RedisClient,
}

#[derive(Clone)]
enum RedisClient {
    One(ConnectionManager),
    Cluster(ClusterConnection),
}

impl Connection {
    fn link(&self) -> RedisResult<RedisClient> {
        Ok(self.whole_link()?.to.clone())
    }

    fn whole_link(&self) -> RedisResult<Arc<OpenClient>> {
        let version = self.redis.version();
        if let Some(link) = &*self.link.load()
            && link.version == version
        {
            return Ok(link.clone());
        }
        let target = self.redis.0.current();
        let to = match &**target {
            Target::One(client) => {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(CONNECT_TIMEOUT))
                    .set_response_timeout(Some(self.response_timeout))
                    .set_number_of_retries(1)
                    .set_min_delay(Duration::from_millis(50))
                    .set_max_delay(Duration::from_millis(500))
                    .set_pipeline_buffer_size(1024);
                RedisClient::One(ConnectionManager::new_lazy_with_config(
                    (**client).clone(),
                    config,
                )?)
            }
            Target::Cluster(nodes) => {
                let client = cluster_client(nodes, self.response_timeout)?;
                // It would have none otherwise, whatever the client's is.
                let config = ClusterConfig::new().set_response_timeout(self.response_timeout);
                RedisClient::Cluster(client.get_pending_async_connection_with_config(config))
            }
        };
        let link = Arc::new(OpenClient {
            version,
            made: Instant::now(),
            judging: tokio::sync::Mutex::default(),
            to,
        });
        self.link.store(Some(link.clone()));
        Ok(link)
    }

    /// Lets go of a link that is of no use any more, unless that was done already. The client itself
    /// only sees connections that break: not one that never answers again, one on which an answer
    /// broke off and whatever comes next is taken for the rest of it, or a login that was refused once.
    async fn drop_if_useless(&self, link: &Arc<OpenClient>, error: &RedisError) {
        let useless = match error.kind() {
            // Demoted to a replica: its name may lead elsewhere by now.
            ErrorKind::Server(ServerErrorKind::ReadOnly) => true,
            ErrorKind::Io if error.is_timeout() => self.is_stuck(link).await,
            ErrorKind::Parse
            | ErrorKind::UnexpectedReturnType
            | ErrorKind::AuthenticationFailed => true,
            _ => false,
        };
        if useless {
            self.link.compare_and_swap(link, None);
        }
    }

    /// Whether something got no answer because of the link. A cluster's client can be stuck for good
    /// after a node was away; but while a node doesn't answer, it is the node, the link serves the
    /// others, and a new one would have to wait for that node first.
    async fn is_stuck(&self, link: &OpenClient) -> bool {
        if let RedisClient::One(_) = link.to {
            return true;
        }
        match link.judging.try_lock() {
            Ok(_judging) => link.made.elapsed() >= CLUSTER_LINK_PATIENCE && self.all_answer().await,
            Err(_) => false,
        }
    }

    /// Asks every primary of the cluster over a connection of its own.
    async fn all_answer(&self) -> bool {
        let target = self.redis.0.current().clone();
        let Target::Cluster(seeds) = &*target else {
            return false;
        };
        let asked = seeds.iter().map(|seed| Box::pin(shards_by(seed)));
        let Ok((shards, _)) = futures::future::select_ok(asked).await else {
            return false;
        };
        let primaries: BTreeSet<(String, u16)> = shards.into_iter().map(|(_, node)| node).collect();
        let pings = primaries.into_iter().map(|(host, port)| async move {
            let node = at(&seeds[0], host, port);
            let command = redis::cmd("PING");
            ask_once::<String>(node, &command).await.is_ok()
        });
        join_all(pings).await.into_iter().all(|answered| answered)
    }

    /// Asks every primary, or the one server. A primary that is away is left out: the others go on
    /// without it.
    ///
    /// # Errors
    /// None of them answers.
    pub async fn ask_all<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<Vec<T>> {
        let cluster = match self.link()? {
            RedisClient::One(_) => return Ok(vec![command.query_async(&mut self.clone()).await?]),
            RedisClient::Cluster(cluster) => cluster,
        };
        let shards = shards(cluster.clone()).await?;
        let primaries: BTreeSet<(String, u16)> = shards.into_iter().map(|(_, node)| node).collect();
        let asked = primaries.into_iter().map(|(host, port)| {
            let node = RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host, port });
            let mut cluster = cluster.clone();
            async move {
                let reply = cluster.route_command(command.clone(), node).await?;
                redis::from_redis_value(reply).map_err(RedisError::from)
            }
        });
        let (mut replies, mut failed) = (Vec::new(), None);
        for reply in join_all(asked).await {
            match reply {
                Ok(reply) => replies.push(reply),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if replies.is_empty() => Err(error),
            _ => Ok(replies),
        }
    }

    /// Whether Redis answers: at least one primary of a cluster.
    ///
    /// # Errors
    /// It doesn't, or not yet (`LOADING`).
    pub async fn ping(&self) -> RedisResult<()> {
        let _answers: Vec<String> = self.ask_all(&redis::cmd("PING")).await?;
        Ok(())
    }

    pub(super) async fn node_of(&self, key: &str) -> RedisResult<(String, u16)> {
        let found = match self.link()? {
            RedisClient::One(_) => None,
            RedisClient::Cluster(cluster) => {
                let mut command = redis::cmd("CLUSTER");
                command.arg("KEYSLOT").arg(key);
                let slot: u16 = command.query_async(&mut cluster.clone()).await?;
                let shards = shards(cluster).await?;
                shards.into_iter().find(|(slots, _)| slots.contains(&slot))
            }
        };
        found.map(|(_, node)| node).ok_or_else(|| {
            let what = "no node of the cluster has the slot";
            RedisError::from((ErrorKind::ClusterConnectionNotFound, what))
        })
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let link = self.whole_link()?;
            let reply = match link.to.clone() {
                RedisClient::One(mut one) => one.req_packed_command(command).await,
                RedisClient::Cluster(mut cluster) => cluster.req_packed_command(command).await,
            };
            if let Err(error) = &reply {
                self.drop_if_useless(&link, error).await;
            }
            reply
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let link = self.whole_link()?;
            let replies = match link.to.clone() {
                RedisClient::One(mut one) => one.req_packed_commands(commands, offset, count).await,
                RedisClient::Cluster(mut cluster) => {
                    cluster.req_packed_commands(commands, offset, count).await
                }
            };
            if let Err(error) = &replies {
                self.drop_if_useless(&link, error).await;
            }
            replies
        })
    }

    fn get_db(&self) -> i64 {
        0
    }
}
