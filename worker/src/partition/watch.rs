//! What is known of a partition from outside: how much waits in it. The owner of the first one also
//! counts what lies in the failed store.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Work;
use crate::leases::Tenure;

const INTERVAL: Duration = Duration::from_secs(2);
/// Listing costs a request per 1000 objects.
const FAILED_INTERVAL: Duration = Duration::from_secs(60);
const MOST_FAILED: usize = 10_000;

/// Keeps the metrics of a partition true for as long as it is polled.
pub(super) async fn watch(work: &Work, tenure: &Tenure) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut counted: Option<Instant> = None;
    loop {
        ticks.tick().await;
        match work.stream.waiting(tenure.partition).await {
            Ok(waiting) => work.metrics.waiting(tenure.partition, waiting),
            Err(error) => tracing::debug!(%error, "what waits can't be counted"),
        }
        let due = counted.is_none_or(|counted| counted.elapsed() >= FAILED_INTERVAL);
        if tenure.partition == 0 && due {
            counted = Some(Instant::now());
            if let Ok(failed) = work.store.count_failed(MOST_FAILED).await {
                work.metrics.failed_objects.set(failed as i64);
            }
        }
    }
}
