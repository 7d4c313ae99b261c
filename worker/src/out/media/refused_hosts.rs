//! Hosts that media lies at and that no token may go to, for `worker doctor`.

use std::time::{Duration, SystemTime};

use redis::RedisResult;
use shared::keys::Keys;
use shared::redis::Connection;
use tokio::time::timeout;

/// Media waits as long for its host to be allowed.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// The last ones of more.
const MOST: isize = 50;
/// The longest name there is.
const LONGEST_NAME: usize = 253;
/// Nobody waits longer for a note.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct RefusedHosts {
    connection: Connection,
    keys: Keys,
}

impl RefusedHosts {
    pub fn new(connection: Connection, keys: Keys) -> Self {
        Self { connection, keys }
    }

    /// Media lies at this host. The log has it already: where a Redis command fails, nothing is noted.
    pub async fn note(&self, host: &str) {
        if host.is_empty() || host.len() > LONGEST_NAME {
            return;
        }
        let key = self.keys.refused_hosts();
        let mut note = redis::pipe();
        note.zadd(&key, host, now_ms()).ignore();
        note.zremrangebyrank(&key, 0, -MOST - 1).ignore();
        let life = REMEMBERED.as_secs() as i64;
        note.expire(&key, life).ignore();
        let mut connection = self.connection.clone();
        let noting = note.query_async::<()>(&mut connection);
        if let Ok(Err(error)) = timeout(PATIENCE, noting).await {
            tracing::debug!(%error, "redis command failed: a refused media host is not recorded");
        }
    }

    /// Those of the last week, the last one first.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn all(&self) -> RedisResult<Vec<String>> {
        let oldest = now_ms().saturating_sub(REMEMBERED.as_millis() as u64);
        let mut range = redis::cmd("ZREVRANGEBYSCORE");
        range.arg(self.keys.refused_hosts()).arg("+inf").arg(oldest);
        range.query_async(&mut self.connection.clone()).await
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}
