//! Works off what acknowledged entries still owe. Every piece is an object to write; writing it
//! twice is harmless, so a crash between the write and the removal from the list is too.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::leases::Tenure;
use crate::partition::Work;
use crate::retry::Backoff;
use crate::stream::Later;

/// One object; a body has 3 MB at most.
const PUT_TIME: Duration = Duration::from_secs(20);
/// The list is looked at this often even if nobody says that there is something.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Works the later-list off for as long as it is polled.
pub async fn work_off(work: Arc<Work>, tenure: Arc<Tenure>, owed: Arc<Notify>) {
    let mut backoff = Backoff::for_server();
    loop {
        match sweep(&work, &tenure).await {
            Ok(0) => {
                backoff.reset();
                drop(timeout(LOOK_INTERVAL, owed.notified()).await);
            }
            Ok(failed) => {
                tracing::warn!(
                    partition = tenure.partition,
                    failed,
                    "the later-list must wait"
                );
                backoff.wait().await;
            }
            Err(error) => {
                tracing::warn!(%error, "Redis is away");
                backoff.wait().await;
            }
        }
    }
}

/// Goes through the whole list once; how many pieces failed. It gives up early when everything of a
/// round fails: the store is away.
async fn sweep(work: &Work, tenure: &Tenure) -> redis::RedisResult<usize> {
    let mut after = "0-0".to_owned();
    let mut failed = 0;
    loop {
        let pieces = work.stream.later(tenure, &after).await?;
        let (stream, later) = work.stream.lengths(tenure.partition).await?;
        work.metrics.lengths(tenure.partition, stream, later);
        let Some(last) = pieces.last() else {
            return Ok(failed);
        };
        after.clone_from(&last.id);
        let count = pieces.len();
        let done: Vec<String> = join_all(pieces.into_iter().map(|piece| put(work, piece)))
            .await
            .into_iter()
            .flatten()
            .collect();
        failed += count - done.len();
        if done.is_empty() {
            return Ok(failed);
        }
        work.stream.later_done(tenure, &done).await?;
    }
}

/// Writes one object; its id in the list if that worked.
async fn put(work: &Work, piece: Later) -> Option<String> {
    let described = serde_json::from_str(&piece.owed.attributes).unwrap_or_default();
    let put = work
        .store
        .put(&piece.owed.key, &described, piece.owed.body.into());
    match timeout(PUT_TIME, put).await {
        Ok(Ok(())) => {
            tracing::debug!(key = piece.owed.key, "written from the later-list");
            Some(piece.id)
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "an object is still owed");
            None
        }
        Err(_) => None,
    }
}
