//! What is known of a partition from outside: how much waits in it. The owner of the first one also
//! counts what lies in the failed store.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::context::WorkerContext;
use crate::read::leases::Tenure;
use crate::read::parked::MOST_PARKED;

const INTERVAL: Duration = Duration::from_secs(2);
/// Listing costs a request per 1000 objects.
const FAILED_INTERVAL: Duration = Duration::from_secs(60);
const MOST_FAILED: usize = 10_000;
/// From so many pieces that a partition owes on somebody should look; nothing bounds them but
/// Redis' memory, of which ingress leaves a tenth.
const MANY_OWED: usize = 100_000;

/// Says once that something is a lot, and once that it isn't any more.
struct Alarm {
    much: usize,
    raised: bool,
}

impl Alarm {
    fn new(much: usize) -> Self {
        Self {
            much,
            raised: false,
        }
    }

    /// Whether `now` is news: that it is too much, or no more.
    fn hears(&mut self, now: usize) -> Option<bool> {
        let raised = now >= self.much || (self.raised && now >= self.much / 2);
        (std::mem::replace(&mut self.raised, raised) != raised).then_some(raised)
    }
}

/// Keeps the metrics of a partition true for as long as it is polled.
pub(super) async fn watch(work: &WorkerContext, tenure: &Tenure) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut counted: Option<Instant> = None;
    let mut owed = Alarm::new(MANY_OWED);
    let mut parked = Alarm::new(MOST_PARKED * 4 / 5);
    loop {
        ticks.tick().await;
        match work.stream.waiting(tenure.partition).await {
            Ok(waiting) => {
                let pieces: u64 = waiting.owed.iter().sum();
                tell_owed(tenure.partition, &mut owed, pieces as usize);
                work.metrics.waiting(tenure.partition, waiting);
            }
            Err(error) => tracing::debug!(%error, "what waits can't be counted"),
        }
        tell_parked(
            tenure.partition,
            &mut parked,
            work.parked.load(Ordering::Relaxed),
        );
        let due = counted.is_none_or(|counted| counted.elapsed() >= FAILED_INTERVAL);
        if tenure.partition == 0 && due {
            counted = Some(Instant::now());
            if let Ok(failed) = work.store.count_failed(MOST_FAILED).await {
                work.metrics.failed_objects.set(failed as i64);
            }
        }
    }
}

fn tell_owed(partition: u16, alarm: &mut Alarm, pieces: usize) {
    match alarm.hears(pieces) {
        Some(true) => tracing::error!(
            partition,
            pieces,
            "what is owed grows: the object store, the State Manager or the Graph API doesn't keep up"
        ),
        Some(false) => tracing::info!(partition, pieces, "little is owed again"),
        None => {}
    }
}

fn tell_parked(partition: u16, alarm: &mut Alarm, entries: usize) {
    match alarm.hears(entries) {
        Some(true) => tracing::error!(
            partition,
            entries,
            most = MOST_PARKED,
            "many entries wait for their tenant: at the limit nothing more is read"
        ),
        Some(false) => tracing::info!(partition, entries, "few entries wait for their tenant"),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_told_once_and_its_end_once() {
        let mut alarm = Alarm::new(10);
        let told = [9, 10, 12, 5, 11, 4, 4].map(|now| alarm.hears(now));
        let news = [None, Some(true), None, None, None, Some(false), None];
        assert_eq!(told, news);
    }
}
