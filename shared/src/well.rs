//! Whether a partition's Redis takes webhooks now, and how full it is.

use redis::RedisResult;

use crate::keys::Keys;
use crate::redis::Connection;
use crate::script::Script;

/// Asks.
pub struct Well {
    script: Script,
    connection: Connection,
    keys: Keys,
}

impl Well {
    pub fn new(connection: Connection, keys: Keys) -> Self {
        Self {
            script: Script::new(include_str!("well.lua")),
            connection,
            keys,
        }
    }

    /// The share of its `maxmemory` that the partition's node uses; 0 where there is no limit.
    ///
    /// # Errors
    /// It takes no writes, and why.
    pub async fn memory_used(&self, partition: u16) -> RedisResult<f64> {
        let call = self.script.call([self.keys.well(partition)]);
        let thousandths: u32 = call.run(&mut self.connection.clone()).await?;
        Ok(f64::from(thousandths) / 1000.0)
    }
}
