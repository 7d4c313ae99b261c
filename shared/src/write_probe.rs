//! Whether a partition's Redis takes webhooks now, and how full it is.

use redis::RedisResult;

use crate::keys::Keys;
use crate::redis::Connection;
use crate::script::Script;

/// Writes to a partition's node, to see whether it takes writes.
pub struct WriteProbe {
    script: Script,
    connection: Connection,
    keys: Keys,
}

impl WriteProbe {
    pub fn new(connection: Connection, keys: Keys) -> Self {
        Self {
            script: Script::new(include_str!("write_probe.lua")),
            connection,
            keys,
        }
    }

    /// The share of its `maxmemory` that the partition's node uses; 0 where there is no limit.
    ///
    /// # Errors
    /// It takes no writes, and why.
    pub async fn memory_used(&self, partition: u16) -> RedisResult<f64> {
        let call = self.script.call([self.keys.write_probe(partition)]);
        let thousandths: u32 = call.run(&mut self.connection.clone()).await?;
        Ok(f64::from(thousandths) / 1000.0)
    }
}
