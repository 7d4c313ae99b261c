//! Waiting for conditions instead of sleeping.

use std::time::Duration;

use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_millis(20);

/// Asks every 20 ms until `check` has a value; `None` after `deadline`. A check that hangs is cut
/// off at the deadline.
pub async fn poll<T>(deadline: Duration, mut check: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        match tokio::time::timeout_at(end, check()).await {
            Ok(Some(value)) => return Some(value),
            Ok(None) if Instant::now() < end => tokio::time::sleep(INTERVAL).await,
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Like [`poll`], for tests.
///
/// # Panics
/// After `deadline`, naming `what` was waited for.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    check: impl AsyncFnMut() -> Option<T>,
) -> T {
    match poll(deadline, check).await {
        Some(value) => value,
        None => panic!("not within {deadline:?}: {what}"),
    }
}
