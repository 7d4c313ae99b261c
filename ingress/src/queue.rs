//! What waits for Redis, by partition: with too much to do it is better to refuse some at once than to
//! answer all of them late.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// No delivery should take longer to be stored. When one does, fewer are let in; each one that doesn't
/// lets in one more.
const LONGEST: Duration = Duration::from_millis(250);
/// As many are let in however long it takes: enough to keep Redis busy.
const FEWEST: usize = 16;
/// As many as all partitions together may have by default.
const MOST: usize = 4096;

/// Deliveries of one partition on their way to Redis.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: AtomicUsize,
    most: AtomicUsize,
}

/// A delivery's place; dropping it gives it back, and tells how long it was taken.
#[derive(Debug)]
pub(crate) struct Place<'q> {
    queue: &'q Queue,
    since: Instant,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            most: AtomicUsize::new(MOST),
        }
    }
}

impl Queue {
    /// A place, or `None` if the queue is full.
    pub(crate) fn join(&self) -> Option<Place<'_>> {
        if self.waiting.load(Ordering::Relaxed) >= self.most.load(Ordering::Relaxed) {
            return None;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            queue: self,
            since: Instant::now(),
        })
    }

    /// One was stored, or given up. Two at the same time may count as one.
    fn took(&self, time: Duration) {
        let most = self.most.load(Ordering::Relaxed);
        let most = if time > LONGEST {
            (most - most / 8).max(FEWEST)
        } else {
            (most + 1).min(MOST)
        };
        self.most.store(most, Ordering::Relaxed);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
        self.queue.took(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_way_takes_only_a_few_and_a_quick_one_more_and_more() {
        let queue = Queue::default();
        let places = |count: usize| (0..count).map(|_| queue.join()).collect::<Vec<_>>();
        assert!(places(MOST).iter().all(Option::is_some));
        for _ in 0..100 {
            queue.took(LONGEST * 2);
        }
        let few = places(FEWEST + 1);
        assert_eq!(few.iter().filter(|place| place.is_some()).count(), FEWEST);
        drop(few);
        // Those were quick.
        let more = places(FEWEST * 3);
        assert_eq!(
            more.iter().filter(|place| place.is_some()).count(),
            FEWEST * 2
        );
    }
}
