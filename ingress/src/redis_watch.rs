//! What is looked at in Redis all the time: whether it answers, how much of its memory is used, how much
//! waits in it, and whether it keeps what it acknowledges.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::redis::{Connection, RedisSafety, StartCheck};
use tokio_util::sync::CancellationToken;

use crate::context::Ingress;

const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Probes between two looks at how much waits, and at the server's settings.
const BACKLOG_EVERY: u32 = 5;
const SAFETY_EVERY: u32 = 15;
/// Share of Redis' memory from which on items are remembered for an hour only, so that what is left
/// goes to webhooks; and the share below which they are remembered for their time again.
const SHORT_OF_MEMORY: (f64, f64) = (0.80, 0.75);
/// The same for a warning. From 90 % on nothing more is sent to it where there is a spool.
const SOON_SHORT_OF_MEMORY: (f64, f64) = (0.70, 0.65);

/// Checks Redis once it is there, then keeps `/ready` true and looks at its memory. Ends early only
/// with the reason why this deployment must not run.
pub(crate) async fn watch_redis(
    mut check: StartCheck,
    safety: RedisSafety,
    ingress: Arc<Ingress>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let readiness = &ingress.admin.readiness;
    let mut pressure = MemoryPressure::Normal;
    let mut probes = 0_u32;
    while !shutdown.is_cancelled() {
        let seen = if ingress.keep.has_begun() {
            check.connection.ping().await
        } else {
            match check.run().await? {
                Ok(warnings) => {
                    ingress.keep.begin();
                    readiness.note("redis", warnings);
                    Ok(())
                }
                Err(away) => Err(away),
            }
        };
        if seen.is_ok() {
            look_at_memory(&check.connection, &ingress, &mut pressure).await;
            look_now_and_then(&check, &safety, &ingress, probes).await;
            probes = probes.wrapping_add(1);
        }
        if let Err(error) = &seen {
            ingress.metrics.redis_errors.count(error);
        }
        readiness.set("redis", seen.err().map(|error| error.to_string()));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(PROBE_INTERVAL) => {}
        }
    }
    Ok(())
}

/// What is seldom looked at; what fails is looked at again.
async fn look_now_and_then(
    check: &StartCheck,
    safety: &RedisSafety,
    ingress: &Ingress,
    probes: u32,
) {
    if probes.is_multiple_of(BACKLOG_EVERY)
        && let Ok(lengths) = shared::redis::waiting(&check.connection, &check.keys).await
    {
        ingress.metrics.waiting(&lengths);
    }
    if probes.is_multiple_of(SAFETY_EVERY)
        && let Err(error) = safety.look(&check.connection).await
    {
        tracing::debug!(%error, "redis command failed: its settings are not looked at");
    }
}

/// How short Redis is of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MemoryPressure {
    Normal,
    High,
    Critical,
}

impl MemoryPressure {
    /// `self` is how short it was: a level is left only a little below where it began.
    fn at(self, used: f64) -> Self {
        let reached =
            |(from, until): (f64, f64), level| used >= from || (self >= level && used >= until);
        if reached(SHORT_OF_MEMORY, Self::Critical) {
            Self::Critical
        } else if reached(SOON_SHORT_OF_MEMORY, Self::High) {
            Self::High
        } else {
            Self::Normal
        }
    }
}

async fn look_at_memory(connection: &Connection, ingress: &Ingress, pressure: &mut MemoryPressure) {
    let Ok(used) = shared::redis::memory_used(connection).await else {
        return;
    };
    ingress.metrics.redis_memory.set(used);
    let now = pressure.at(used);
    if now != *pressure {
        match now {
            MemoryPressure::Normal => tracing::info!(used, "memory use of Redis is normal again"),
            MemoryPressure::High if *pressure == MemoryPressure::Critical => {
                tracing::warn!(
                    used,
                    "memory use of Redis is below 75 % of maxmemory: dedup marks live DEDUP_TTL again"
                );
            }
            MemoryPressure::High => tracing::warn!(
                used,
                "memory use of Redis is above 70 % of maxmemory: workers don't keep up, or it needs more"
            ),
            MemoryPressure::Critical => tracing::error!(
                used,
                "memory use of Redis is above 80 % of maxmemory: dedup marks live 1 h instead of DEDUP_TTL"
            ),
        }
    }
    *pressure = now;
    let critical = now == MemoryPressure::Critical;
    ingress.short_of_memory.store(critical, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_of_memory_is_left_a_little_below_where_it_began() {
        let levels = [0.69, 0.71, 0.66, 0.64, 0.81, 0.76, 0.74, 0.81, 0.60];
        let mut pressure = MemoryPressure::Normal;
        let seen = levels.map(|used| {
            pressure = pressure.at(used);
            pressure
        });
        use MemoryPressure::{Critical, High, Normal};
        assert_eq!(
            seen,
            [
                Normal, High, High, Normal, Critical, Critical, High, Critical, Normal
            ]
        );
    }
}
