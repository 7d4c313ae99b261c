//! What waits for Redis, by partition: with too much to do it is better to refuse some at once than to
//! answer all of them late.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// No delivery should take longer to be stored. Each one that does lets in fewer by a share of them,
/// each that takes less than half of it lets in a part of one more. How long it takes is only known
/// when it is over, so both are small steps: large ones would lead from far too many to far too few.
const LONGEST: Duration = Duration::from_millis(250);
const LESS: usize = 64;
const MORE: usize = PARTS / 8;
/// As many, in parts, are let in however long it takes: enough to keep Redis busy.
const FEWEST: usize = 16 * PARTS;
/// In parts; as many as all partitions together may have by default.
const MOST: usize = 4096 * PARTS;
/// A delivery is counted as so many.
const PARTS: usize = 64;

/// Deliveries of one partition on their way to Redis.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: AtomicUsize,
    /// In parts.
    most: AtomicUsize,
}

/// A delivery's place; dropping it gives it back, and tells how long it was taken.
#[derive(Debug)]
pub(crate) struct QueueSlot<'q> {
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
    pub(crate) fn join(&self) -> Option<QueueSlot<'_>> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting >= self.most.load(Ordering::Relaxed) / PARTS {
            return None;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Some(QueueSlot {
            queue: self,
            since: Instant::now(),
        })
    }

    /// One was stored, or given up. Two at the same time may count as one.
    fn stored_after(&self, time: Duration) {
        let most = self.most.load(Ordering::Relaxed);
        let most = if time > LONGEST {
            (most - most / LESS).max(FEWEST)
        } else if time < LONGEST / 2 {
            (most + MORE).min(MOST)
        } else {
            return;
        };
        self.most.store(most, Ordering::Relaxed);
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
        self.queue.stored_after(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_way_takes_only_a_few_and_a_quick_one_more_and_more() {
        let queue = Queue::default();
        let let_in = || {
            let places: Vec<_> = (0..=MOST / PARTS).map_while(|_| queue.join()).collect();
            // Neither slow nor quick, so that looking changes nothing.
            let of_so_long = |mut place: QueueSlot<'_>| place.since -= LONGEST * 3 / 4;
            let count = places.len();
            places.into_iter().for_each(of_so_long);
            count
        };
        assert_eq!(let_in(), MOST / PARTS);
        for _ in 0..MOST / PARTS {
            queue.stored_after(LONGEST * 2);
        }
        assert_eq!(let_in(), FEWEST / PARTS);
        for _ in 0..80 {
            queue.stored_after(LONGEST / 4);
        }
        assert_eq!(let_in(), FEWEST / PARTS + 10);
    }
}
