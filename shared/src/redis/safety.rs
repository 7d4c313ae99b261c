//! Looks again and again whether Redis keeps what it acknowledges, since somebody can change a server
//! that runs, and whether its version has known holes.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use redis::RedisResult;

use super::advisories::known_holes;
use super::{Connection, durability_problems};
use crate::admin::Readiness;

/// What `/ready` and the metrics say of a Redis that answers.
#[derive(Clone)]
pub struct RedisSafety {
    readiness: Readiness,
    is_unsafe: Gauge,
}

impl RedisSafety {
    /// Registers the metric.
    pub fn new(registry: &mut Registry, readiness: Readiness) -> Self {
        let is_unsafe = Gauge::default();
        registry.register(
            "whatsapp_redis_unsafe",
            "Settings of Redis with which it may lose what it acknowledged; 0 also if Redis doesn't show its settings",
            is_unsafe.clone(),
        );
        Self {
            readiness,
            is_unsafe,
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// A Redis command failed: what was seen before holds.
    pub async fn look(&self, connection: &Connection) -> RedisResult<()> {
        let durability = durability_problems(connection).await?;
        self.is_unsafe.set(durability.unsafe_settings() as i64);
        let mut warnings = durability.problems;
        warnings.extend(version_warnings(connection).await?);
        self.readiness.note("redis", warnings);
        Ok(())
    }
}

/// What is known against the versions of the servers, one sentence each.
///
/// # Errors
/// A Redis command failed.
pub async fn version_warnings(connection: &Connection) -> RedisResult<Vec<String>> {
    let mut info = redis::cmd("INFO");
    info.arg("server");
    let servers: Vec<String> = connection.ask_all(&info).await?;
    let mut known: Vec<String> = servers.iter().flat_map(|it| known_holes(it)).collect();
    known.sort();
    known.dedup();
    Ok(known)
}
