//! Which entry takes the process down. An entry that was pending at several crashes is a suspect: its
//! bytes are read while nothing else in the process reads any, and only then is it named in Redis
//! (`{p}:alone`). So a process that dies while it waits for a server counts against nobody, and one that
//! dies over bytes counts against the entry whose they are.
//!
//! | killed | left behind | counted |
//! | --- | --- | --- |
//! | before the name is in Redis, or after it is removed | nothing | one more crash for all that is pending |
//! | over the bytes | the name | a death of that entry alone |
//! | between the end of the bytes and the removal: a few ms, if Redis answers | the name | the same, though it wasn't the cause |
//!
//! The name is the entry and the tenure's token. A worker that was taken for dead and isn't removes its own name
//! only, and takes back the death that was counted in that tenure: also when it has lost the lease meanwhile.

use std::sync::Arc;
use std::time::Duration;

use shared::redis::warn_will_retry;
use shared::tasks::Tasks;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::read::leases::Tenure;
use crate::read::stream::{Stream, StreamError};
use crate::retry::Backoff;

/// From this many crashes on an entry is a suspect.
pub const CRASHES: usize = 3;
/// How long Redis is waited for while nobody else may read bytes.
const PATIENCE: Duration = Duration::from_secs(1);

/// One for a process: whoever reads an entry's bytes holds it, a suspect's reader alone.
#[derive(Debug)]
pub struct BytesLock {
    tasks: Tasks,
    /// Suspects one after the other: those who read no suspect's bytes come between two of them.
    queue: Mutex<()>,
    bytes: RwLock<()>,
}

/// A suspect that Redis may name, from before it is asked to. When this is dropped the name is removed, by a
/// task that goes on after the tenure is over.
struct NamedSuspect {
    tasks: Tasks,
    stream: Stream,
    tenure: Arc<Tenure>,
    id: String,
    /// Cancelled when it is named no more.
    removed: CancellationToken,
}

impl Drop for NamedSuspect {
    fn drop(&mut self) {
        let (stream, tenure, id) = (self.stream.clone(), self.tenure.clone(), self.id.clone());
        let (removed, stop) = (self.removed.clone(), self.tasks.stop().clone());
        let removing = async move {
            let _removed = removed.drop_guard();
            let mut backoff = Backoff::for_server();
            while !matches!(
                timeout(PATIENCE, stream.end_alone(&tenure, &id)).await,
                Ok(Ok(()))
            ) {
                tracing::warn!(entry = id, "a suspect is still named: its bytes are read");
                backoff.wait().await;
            }
        };
        self.tasks
            .spawn_alone("removal of a suspect's name", async move {
                stop.run_until_cancelled(removing).await;
            });
    }
}

impl BytesLock {
    /// Names are removed by tasks of `tasks`.
    pub fn new(tasks: Tasks) -> Self {
        Self {
            tasks,
            queue: Mutex::default(),
            bytes: RwLock::default(),
        }
    }

    /// To read bytes of no suspect at once; `None` while a suspect's are read.
    pub fn try_shared(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.bytes.try_read().ok()
    }

    /// To read bytes of no suspect.
    pub async fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.bytes.read().await
    }

    /// Reads the bytes of a suspect while nothing else in the process reads any.
    ///
    /// # Errors
    /// The lease is another worker's.
    pub async fn alone<T>(
        &self,
        stream: &Stream,
        tenure: &Arc<Tenure>,
        id: &str,
        read: impl FnOnce() -> T,
    ) -> Result<T, StreamError> {
        let _turn = self.queue.lock().await;
        let removed = CancellationToken::new();
        let named = NamedSuspect {
            tasks: self.tasks.clone(),
            stream: stream.clone(),
            tenure: tenure.clone(),
            id: id.to_owned(),
            removed: removed.clone(),
        };
        let mut backoff = Backoff::for_server();
        let alone = loop {
            let alone = self.bytes.write().await;
            match timeout(PATIENCE, stream.announce_alone(tenure, id)).await {
                Ok(Ok(())) => break alone,
                Ok(Err(StreamError::NotOwner)) => return Err(StreamError::NotOwner),
                Ok(Err(StreamError::Redis(_))) | Err(_) if !tenure.holds() => {
                    return Err(StreamError::NotOwner);
                }
                Ok(Err(StreamError::Redis(error))) => {
                    warn_will_retry(&error);
                }
                Err(_) => tracing::warn!(entry = id, "a suspect waits for Redis"),
            }
            drop(alone);
            backoff.wait().await;
        };
        tracing::warn!(entry = id, "a suspect's bytes are read alone");
        let result = read();
        drop(named);
        // It isn't in work before it is named no more; others wait for that only so long.
        if timeout(PATIENCE, removed.cancelled()).await.is_err() {
            drop(alone);
            removed.cancelled().await;
        }
        Ok(result)
    }
}
