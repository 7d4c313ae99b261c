//! Whose turn it is to watch.

use std::time::Duration;

use redis::RedisResult;
use shared::keys::Keys;
use shared::redis::Connection;
use shared::script::Script;
use uuid::Uuid;

/// A worker that was killed is followed by another after this time.
const LASTS: Duration = Duration::from_secs(15);

/// The turn of this worker, if it has it.
pub(super) struct WatchTurn {
    connection: Connection,
    keys: Keys,
    token: String,
    renew: Script,
}

impl WatchTurn {
    pub(super) fn new(connection: Connection, keys: Keys) -> Self {
        Self {
            connection,
            keys,
            token: Uuid::new_v4().to_string(),
            renew: Script::new(include_str!("../lua/renew.lua")),
        }
    }

    /// Takes the turn if nobody has it, or keeps it; false where another has it, or Redis doesn't say.
    pub(super) async fn is_ours(&self) -> bool {
        match self.take().await {
            Ok(ours) => ours,
            Err(error) => {
                tracing::debug!(%error, "redis command failed: nobody knows whose turn it is to watch");
                false
            }
        }
    }

    async fn take(&self) -> RedisResult<bool> {
        if self.keep_for(LASTS).await? {
            return Ok(true);
        }
        let mut set = redis::cmd("SET");
        set.arg(self.keys.watch_turn()).arg(&self.token);
        set.arg("NX").arg("PX").arg(LASTS.as_millis() as u64);
        let taken: Option<String> = set.query_async(&mut self.connection.clone()).await?;
        Ok(taken.is_some())
    }

    async fn keep_for(&self, lasts: Duration) -> RedisResult<bool> {
        let call = self.renew.call([self.keys.watch_turn()]);
        let call = call.arg(&self.token).arg(lasts.as_millis() as u64);
        call.run(&mut self.connection.clone()).await
    }

    /// Lets the next one have it.
    pub(super) async fn leave(&self) {
        if let Err(error) = self.keep_for(Duration::ZERO).await {
            tracing::debug!(%error, "redis command failed: the turn to watch ends by itself");
        }
    }
}
