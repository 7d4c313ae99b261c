//! Accounts that had no tenant when something of them was set aside: they are looked up again, and
//! what was set aside goes back into the stream once they have one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::ask::tenants::Tenants;
use crate::item::tenant::Verdict;
use crate::owed::readmit::Readmit;

const UNKNOWN_INTERVAL: Duration = Duration::from_secs(60);

/// Looks up the accounts without a tenant every minute, one worker for all, until `stop`. What was
/// set aside of those that have one now is put back into the stream.
pub async fn look_up_unknown(tenants: Arc<Tenants>, readmit: Readmit, stop: CancellationToken) {
    let looking = async {
        let mut ticks = interval(UNKNOWN_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(turn) = tenants.take_turn(UNKNOWN_INTERVAL).await else {
                continue;
            };
            let looking_up = async {
                for (waba_id, times) in tenants.unknown().await {
                    look_up_one(&tenants, &readmit, &waba_id, times).await;
                }
            };
            turn.work(looking_up).await;
        }
    };
    stop.run_until_cancelled(looking).await;
}

async fn look_up_one(tenants: &Arc<Tenants>, readmit: &Readmit, waba_id: &str, times: u64) {
    match tenants.ask(waba_id).await {
        Ok(Verdict::Active(_)) => tenant_appeared(tenants, readmit, waba_id, times).await,
        // A suspended tenant's are replayed by hand.
        Ok(Verdict::Suspended(_) | Verdict::Unknown | Verdict::Unusable) => {}
        Err(error) => tracing::debug!(waba_id, %error, "an account stays without a tenant"),
    }
}

/// An account that had no tenant has one: what was set aside goes back into the stream.
async fn tenant_appeared(tenants: &Tenants, readmit: &Readmit, waba_id: &str, times: u64) {
    // Or what is put back would be set aside again by a worker that remembers no tenant.
    tenants.tell_changed(waba_id).await;
    match readmit.all_of(waba_id).await {
        // Only a round that finds nothing is the last: a worker may not have heard yet.
        Ok(0) => tenants.no_longer_unknown(waba_id, times).await,
        Ok(objects) => tracing::info!(
            waba_id,
            objects,
            "an account has a tenant now; what was set aside is back"
        ),
        Err(error) => tracing::warn!(
            waba_id,
            error = format!("{error:#}"),
            "what was set aside can't be put back yet"
        ),
    }
}

/// An account was declared changed: it may have its first tenant.
///
/// # Errors
/// A Redis command failed.
pub async fn changed(
    tenants: &Arc<Tenants>,
    readmit: &Readmit,
    waba_id: &str,
) -> redis::RedisResult<()> {
    tenants.invalidate(waba_id).await?;
    if let Some(times) = tenants.times_unknown(waba_id).await {
        look_up_one(tenants, readmit, waba_id, times).await;
    }
    Ok(())
}
