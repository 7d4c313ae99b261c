//! The nodes of a cluster: which has which slots, and how one of them is asked alone.

use std::ops::RangeInclusive;
use std::time::Duration;

use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue,
    RedisResult, Value,
};

/// Whoever is asked over a connection of its own answers within this time, or is away.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Another node of the same cluster, with the same login.
pub(super) fn at(like: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match like.addr() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(address)
}

/// One command over a connection of its own.
pub(super) async fn ask_once<T: FromRedisValue>(
    node: ConnectionInfo,
    command: &Cmd,
) -> RedisResult<T> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PROBE_TIMEOUT))
        .set_response_timeout(Some(PROBE_TIMEOUT));
    let mut connection = Client::open(node)?
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    command.query_async(&mut connection).await
}

/// Ranges of slots, each with the host and port of its primary.
pub(super) type Shards = Vec<(RangeInclusive<u16>, (String, u16))>;

fn cluster_slots() -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    command
}

/// As a node that answers knows them: the one that is asked may be away.
pub(super) async fn shards(mut cluster: ClusterConnection) -> RedisResult<Shards> {
    let mut tries = 0;
    loop {
        let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
        match cluster.route_command(cluster_slots(), any).await {
            Ok(reply) => return Ok(read_shards(redis::from_redis_value(reply)?)),
            Err(error) if tries == 2 => return Err(error),
            Err(_) => tries += 1,
        }
    }
}

pub(super) async fn shards_by(node: &ConnectionInfo) -> RedisResult<Shards> {
    ask_once(node.clone(), &cluster_slots())
        .await
        .map(read_shards)
}

fn read_shards(shards: Vec<Vec<Value>>) -> Shards {
    let shard = |parts: Vec<Value>| {
        let mut parts = parts.into_iter();
        let first = redis::from_redis_value(parts.next()?).ok()?;
        let last = redis::from_redis_value(parts.next()?).ok()?;
        let primary: Vec<Value> = redis::from_redis_value(parts.next()?).ok()?;
        let (slots, mut primary) = (first..=last, primary.into_iter());
        let host: String = redis::from_redis_value(primary.next()?).ok()?;
        let port = redis::from_redis_value(primary.next()?).ok()?;
        (!host.is_empty()).then_some((slots, (host, port)))
    };
    shards.into_iter().filter_map(shard).collect()
}
