//! Raw payloads on their way into the archive: a few at a time, since a store does fewer a second of many
//! at once, and none for a while after one failed: then they are owed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::store::Store;
use crate::metrics::{Metrics, Uploaded};

/// A write that takes longer, or waits longer for its place, is owed.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a failure everything is owed at once for this long.
const PAUSE: Duration = Duration::from_secs(5);
/// Writes at once.
const PLACES: usize = 16;

/// What all partitions write their payloads through.
pub struct ArchiveWriter {
    places: Semaphore,
    paused_until: Mutex<Option<Instant>>,
}

impl Default for ArchiveWriter {
    fn default() -> Self {
        Self {
            places: Semaphore::new(PLACES),
            paused_until: Mutex::default(),
        }
    }
}

impl ArchiveWriter {
    /// Whether a payload lies in the archive now. Otherwise it is owed, also if no place becomes free in
    /// time: until then its entry isn't recorded, and its partition publishes no more than a few others.
    pub(crate) async fn put(
        &self,
        (store, metrics): (&Store, &Metrics),
        key: &str,
        described: &BTreeMap<String, String>,
        body: &[u8],
    ) -> bool {
        let place = timeout(PATIENCE, self.places.acquire()).await;
        if place.is_err() || self.paused() {
            return false;
        }
        let began = Instant::now();
        let put = store.put_apart(key, described, Bytes::copy_from_slice(body));
        match timeout(PATIENCE, put).await {
            Ok(Ok(())) => {
                metrics.uploaded(Uploaded::Payload, began.elapsed());
                metrics.archived.inc();
                tracing::debug!("archived");
                return true;
            }
            Ok(Err(error)) => tracing::warn!(%error, "an archive write is owed"),
            Err(_) => tracing::warn!("an archive write took too long and is owed"),
        }
        let mut paused_until = self
            .paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *paused_until = Some(Instant::now() + PAUSE);
        false
    }

    fn paused(&self) -> bool {
        let until = *self
            .paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}
