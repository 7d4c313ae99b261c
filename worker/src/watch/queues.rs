//! How much lies in each queue, and how many consume it.

use tokio::time::timeout;

use super::broker::{LIMIT, WatchBroker};
use crate::metrics::QueueMetrics;
use crate::out::topology;

/// Looks once. What can't be seen has no series: a figure of the past would hide what is now.
pub(super) async fn look(broker: &mut WatchBroker, metrics: &QueueMetrics) {
    let failed = match timeout(LIMIT, count(broker, metrics)).await {
        Ok(counted) => counted.err().map(|error| error.to_string()),
        Err(_) => Some("no answer".to_owned()),
    };
    if let Some(problem) = failed {
        tracing::debug!(problem, "the queues can't be looked at");
        broker.forget();
        metrics.clear();
    }
}

async fn count(broker: &mut WatchBroker, metrics: &QueueMetrics) -> Result<(), lapin::Error> {
    for (queue, counts) in topology::counts(broker.connection().await?).await {
        match counts {
            Ok(counts) if topology::is_of_dead_letters(&queue) => {
                metrics.holds_dead_letters(queue, counts.messages);
            }
            Ok(counts) => metrics.holds(queue, counts.messages, counts.consumers),
            Err(error) => tracing::debug!(queue, %error, "a queue can't be looked at"),
        }
    }
    Ok(())
}
