//! Connecting to Redis, and the two checks both programs make before they start: that the partition
//! count is the deployment's, and that Redis keeps what it acknowledges.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncConnectionConfig, Client, RedisResult};

use crate::config::RedisArgs;
use crate::keys::Keys;

/// How long a TCP connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A client of the configured server.
///
/// # Errors
/// A URL that can't be parsed; the message does not repeat it, since it may hold a password.
pub fn client(args: &RedisArgs) -> anyhow::Result<Client> {
    Client::open(args.redis_url.expose()).map_err(|error| {
        anyhow::anyhow!("REDIS_URL (--redis-url) can't be used: {:?}", error.kind())
    })
}

/// A shared, pipelined connection that comes back by itself. Clones are cheap and share one socket.
/// `response_timeout` must be longer than anything that is asked over it.
///
/// # Errors
/// Only settings; a server that is away is found out by the first command.
pub fn shared_connection(
    client: &Client,
    response_timeout: Duration,
) -> anyhow::Result<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response_timeout))
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_millis(500))
        .set_pipeline_buffer_size(1024);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
        .context("Redis connection settings")
}

/// A connection of one's own, for blocking reads. The time-out is longer than any block: a shorter
/// one would give up on a reply that the server still sends.
///
/// # Errors
/// Redis is away.
pub async fn own_connection(
    client: &Client,
    response_timeout: Duration,
) -> RedisResult<redis::aio::MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response_timeout));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// What both programs check before they rely on this Redis.
pub struct StartCheck {
    pub connection: ConnectionManager,
    pub keys: Keys,
    /// Refuse a Redis that may lose what it acknowledged.
    pub required: bool,
}

impl StartCheck {
    /// Writes the deployment's partition count if there is none, compares it, reads the durability
    /// settings. The inner result is `Err` while Redis is away, else what is unsafe about it.
    ///
    /// # Errors
    /// Why this program must not run: another partition count, or unsafe settings while safe ones
    /// are required.
    pub async fn run(&mut self) -> anyhow::Result<RedisResult<Vec<String>>> {
        let wanted = self.keys.partitions();
        let stored = match self.partition_count(wanted).await {
            Ok(stored) => stored,
            Err(error) => return Ok(Err(error)),
        };
        if stored != wanted {
            bail!(
                "STREAM_PARTITIONS (--stream-partitions) is {wanted}, but this deployment was \
                 created with {stored}: set it to {stored}"
            );
        }
        let problems = match durability_problems(&mut self.connection).await {
            Ok(problems) => problems,
            Err(error) => return Ok(Err(error)),
        };
        if self.required && !problems.is_empty() {
            bail!(
                "REQUIRE_DURABLE_REDIS is set, but this Redis may lose what it acknowledged: {}",
                problems.join("; ")
            );
        }
        for problem in &problems {
            tracing::warn!(problem, "Redis may lose what it acknowledged");
        }
        Ok(Ok(problems))
    }

    async fn partition_count(&mut self, wanted: u16) -> RedisResult<u16> {
        let key = self.keys.partition_count();
        // Asked first: a full Redis takes no SET, and must drain all the same.
        let stored: Option<u16> = redis::cmd("GET")
            .arg(&key)
            .query_async(&mut self.connection)
            .await?;
        if let Some(stored) = stored {
            return Ok(stored);
        }
        redis::cmd("SET")
            .arg(&key)
            .arg(wanted)
            .arg("NX")
            .query_async::<()>(&mut self.connection)
            .await?;
        redis::cmd("GET")
            .arg(&key)
            .query_async(&mut self.connection)
            .await
    }
}

/// Whether Redis answers.
///
/// # Errors
/// It doesn't, or not yet (`LOADING`).
pub async fn ping(connection: &mut ConnectionManager) -> RedisResult<()> {
    redis::cmd("PING").query_async(connection).await
}

/// What makes this Redis lose what it acknowledged, one sentence each; empty if nothing.
///
/// # Errors
/// Redis is away. A server that forbids CONFIG is no error: it is one of the sentences.
pub async fn durability_problems(connection: &mut ConnectionManager) -> RedisResult<Vec<String>> {
    let mut problems = Vec::new();
    let mut config = HashMap::new();
    for name in [
        "appendonly",
        "appendfsync",
        "no-appendfsync-on-rewrite",
        "maxmemory",
        "maxmemory-policy",
    ] {
        let reply: RedisResult<HashMap<String, String>> = redis::cmd("CONFIG")
            .arg("GET")
            .arg(name)
            .query_async(connection)
            .await;
        match reply {
            Ok(reply) => config.extend(reply),
            Err(error) if error.is_io_error() || error.is_timeout() => return Err(error),
            Err(_) => {
                problems
                    .push("unknown: CONFIG GET is forbidden, settings can't be read".to_owned());
                return Ok(problems);
            }
        }
    }
    let wanted = [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("maxmemory-policy", "noeviction"),
    ];
    for (name, wanted) in wanted {
        match config.get(name).map(String::as_str) {
            Some(value) if value == wanted => {}
            Some(value) => problems.push(format!("{name} is {value}, should be {wanted}")),
            None => problems.push(format!("{name} is unknown, should be {wanted}")),
        }
    }
    if config.get("maxmemory").is_some_and(|bytes| bytes == "0") {
        problems.push("maxmemory is 0, should be a limit such as 4gb".to_owned());
    }
    Ok(problems)
}
