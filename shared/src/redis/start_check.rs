//! What both programs check before they rely on a Redis: that the partition count is the deployment's,
//! and that it keeps what it acknowledges.

use std::collections::HashMap;

use anyhow::{bail, ensure};
use futures::future::try_join_all;
use redis::RedisResult;

use super::{Connection, FailureKind};
use crate::keys::Keys;

/// What both programs check before they rely on this Redis.
pub struct StartCheck {
    pub connection: Connection,
    pub keys: Keys,
    /// Refuse a Redis that may lose what it acknowledged.
    pub required: bool,
}

impl StartCheck {
    /// Writes the deployment's partition count if there is none, compares it, reads the durability
    /// settings. The inner result is `Err` where a Redis command failed, else what is unsafe about it.
    ///
    /// # Errors
    /// Why this program must not run: another partition count, a cluster named as a single server, or
    /// unsafe settings while safe ones are required.
    pub async fn run(&mut self) -> anyhow::Result<RedisResult<Vec<String>>> {
        let wanted = self.keys.partitions();
        let stored = match self.partition_count(wanted).await {
            Ok(stored) => stored,
            Err(error) => {
                // A cluster's client says so too, after its own retries, while nodes change places.
                let elsewhere = matches!(error.code(), Some("MOVED" | "ASK"));
                ensure!(
                    !elsewhere || self.connection.redis.single().is_none(),
                    "REDIS_URL (--redis-url) names one node of a Redis Cluster: set REDIS_CLUSTER=true \
                     (--redis-cluster), or name several of its nodes, comma-separated"
                );
                return Ok(Err(error));
            }
        };
        if stored != wanted {
            bail!(
                "STREAM_PARTITIONS (--stream-partitions) is {wanted}, but this deployment was \
                 created with {stored}: set it to {stored}"
            );
        }
        let problems = match durability_problems(&self.connection).await {
            Ok(durability) => durability.problems,
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
        if self.connection.redis.single().is_some() {
            // A node of a cluster has some of the partitions, and maybe the count: it must have all.
            let mut streams = redis::pipe();
            for partition in 0..wanted {
                streams.exists(self.keys.stream(partition)).ignore();
            }
            streams.query_async::<()>(&mut self.connection).await?;
        }
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

/// How well a Redis keeps what it acknowledges.
#[derive(Debug, Default)]
pub struct Durability {
    /// What makes it lose that, one sentence each.
    pub problems: Vec<String>,
    /// It doesn't tell its settings, which is the one problem then.
    pub is_unknown: bool,
}

impl Durability {
    /// How many settings are known to be unsafe.
    pub fn unsafe_settings(&self) -> usize {
        if self.is_unknown {
            0
        } else {
            self.problems.len()
        }
    }
}

/// What makes this Redis lose what it acknowledged, one sentence each; empty if nothing.
///
/// # Errors
/// A Redis command failed. A server that forbids CONFIG is no error: it is one of the sentences.
pub async fn durability_problems(connection: &Connection) -> RedisResult<Durability> {
    let wanted = [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("maxmemory-policy", "noeviction"),
        ("maxmemory", ""),
    ];
    let mut problems = Vec::new();
    for (name, wanted) in wanted {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        let servers: Vec<HashMap<String, String>> = match connection.ask_all(&command).await {
            Ok(servers) => servers,
            Err(error) if FailureKind::of(&error).passes() => return Err(error),
            Err(_) => {
                let problem = "unknown: CONFIG GET is forbidden, settings can't be read";
                return Ok(Durability {
                    problems: vec![problem.to_owned()],
                    is_unknown: true,
                });
            }
        };
        for server in servers {
            let problem = match (name, server.get(name).map(String::as_str)) {
                ("maxmemory", Some("0")) => {
                    "maxmemory is 0, should be a limit such as 4gb".to_owned()
                }
                ("maxmemory", _) => continue,
                (_, Some(value)) if value == wanted => continue,
                (_, Some(value)) => format!("{name} is {value}, should be {wanted}"),
                (_, None) => format!("{name} is unknown, should be {wanted}"),
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    Ok(Durability {
        problems,
        is_unknown: false,
    })
}

/// How many entries of each partition are not acknowledged.
///
/// # Errors
/// A Redis command failed.
pub async fn waiting(connection: &Connection, keys: &Keys) -> RedisResult<Vec<u64>> {
    let of_partition = |partition| async move {
        let mut both = redis::pipe();
        // Those that still owe something lie in the stream, too.
        both.xlen(keys.stream(partition));
        both.hget(keys.owed(partition), "entries");
        let (all, owing): (u64, Option<u64>) = both.query_async(&mut connection.clone()).await?;
        Ok(all.saturating_sub(owing.unwrap_or(0)))
    };
    try_join_all((0..keys.partitions()).map(of_partition)).await
}

/// How full Redis is, as a share of its `maxmemory`: the fullest primary of a cluster. 0 where there
/// is no limit.
///
/// # Errors
/// A Redis command failed.
pub async fn memory_used(connection: &Connection) -> RedisResult<f64> {
    let mut command = redis::cmd("INFO");
    command.arg("memory");
    let servers: Vec<String> = connection.ask_all(&command).await?;
    let shares = servers.iter().map(|info| {
        let number = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<f64>().ok())
        };
        match (number("used_memory:"), number("maxmemory:")) {
            (Some(used), Some(most)) if most > 0.0 => used / most,
            _ => 0.0,
        }
    });
    Ok(shares.fold(0.0, f64::max))
}
