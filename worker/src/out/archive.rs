//! Raw payloads on their way into the archive: a few at a time, since a store does fewer a second of many
//! at once, and none for a while after one failed: then they are owed.

use std::collections::BTreeMap;
use std::fmt::Display;
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
        body: &Bytes,
    ) -> bool {
        let put = store.put_apart(key, described, body.clone());
        let Some(took) = self.write(put).await else {
            return false;
        };
        metrics.uploaded(Uploaded::Payload, took);
        metrics.archived.inc();
        tracing::debug!("archived");
        true
    }

    /// How long the write took once it had its place; none if it is owed.
    async fn write<E: Display>(
        &self,
        put: impl Future<Output = Result<(), E>>,
    ) -> Option<Duration> {
        let place = timeout(PATIENCE, self.places.acquire()).await;
        if place.is_err() || self.paused() {
            return None;
        }
        let began = Instant::now();
        match timeout(PATIENCE, put).await {
            Ok(Ok(())) => return Some(began.elapsed()),
            Ok(Err(error)) => tracing::warn!(%error, "an archive write is owed"),
            Err(_) => tracing::warn!("an archive write took too long and is owed"),
        }
        let mut paused_until = self
            .paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *paused_until = Some(Instant::now() + PAUSE);
        None
    }

    fn paused(&self) -> bool {
        let until = *self
            .paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use futures::future::join_all;

    use super::*;

    type Written = Result<(), &'static str>;

    #[tokio::test]
    async fn no_more_than_its_places_are_written_at_once_and_each_write_has_its_turn() {
        let writer = ArchiveWriter::default();
        let (now, most) = (Cell::new(0), Cell::new(0));
        let write = async || {
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            tokio::task::yield_now().await;
            now.set(now.get() - 1);
            Written::Ok(())
        };
        let ended = join_all((0..PLACES * 3).map(|_| writer.write(write()))).await;
        assert!(ended.iter().all(Option::is_some));
        assert_eq!(most.get(), PLACES);
    }

    #[tokio::test]
    async fn after_a_failure_what_comes_and_what_waits_is_owed_without_a_try() {
        let writer = ArchiveWriter::default();
        let tries = Cell::new(0);
        let fail = async || {
            tries.set(tries.get() + 1);
            tokio::task::yield_now().await;
            Err("refused")
        };
        let ended = join_all((0..PLACES * 3).map(|_| writer.write(fail()))).await;
        assert!(ended.iter().all(Option::is_none));
        assert_eq!(tries.get(), PLACES);
        assert_eq!(writer.write(fail()).await, None);
        assert_eq!(tries.get(), PLACES);
    }

    #[tokio::test]
    async fn a_store_that_says_nothing_leaves_all_owed_and_no_place_taken() {
        let writer = ArchiveWriter::default();
        let silent = || writer.write(pending::<Written>());
        let ended = join_all((0..PLACES + 1).map(|_| silent())).await;
        assert!(ended.iter().all(Option::is_none));
        assert_eq!(writer.places.available_permits(), PLACES);
    }
}
