//! What waits for Redis, by partition: with too much to do it is better to refuse some at once than to
//! answer all of them late.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// While the last delivery of a partition took longer than this to be stored, no more than a few are
/// let in.
const LONGEST: Duration = Duration::from_millis(500);
const FEW: usize = 16;

/// Deliveries of one partition on their way to Redis.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: AtomicUsize,
    last_took_ms: AtomicU64,
}

/// A delivery's place; dropping it gives it back, and tells how long it was taken.
#[derive(Debug)]
pub(crate) struct Place<'q> {
    queue: &'q Queue,
    since: Instant,
}

impl Queue {
    /// A place, or `None` if the way is long.
    pub(crate) fn join(&self) -> Option<Place<'_>> {
        let last_took = Duration::from_millis(self.last_took_ms.load(Ordering::Relaxed));
        if last_took > LONGEST && self.waiting.load(Ordering::Relaxed) >= FEW {
            return None;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            queue: self,
            since: Instant::now(),
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let took = self.since.elapsed().as_millis() as u64;
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
        self.queue.last_took_ms.store(took, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_way_takes_only_a_few() {
        let queue = Queue::default();
        let many: Vec<_> = (0..FEW * 3).map(|_| queue.join()).collect();
        assert!(
            many.iter().all(Option::is_some),
            "nothing is known to be slow"
        );
        queue.last_took_ms.store(501, Ordering::Relaxed);
        assert!(queue.join().is_none());
        drop(many);
        queue.last_took_ms.store(501, Ordering::Relaxed);
        let few: Vec<_> = (0..FEW).map(|_| queue.join()).collect();
        assert!(few.iter().all(Option::is_some));
        assert!(queue.join().is_none());
        drop(few);
        assert!(queue.join().is_some(), "those were quick");
    }
}
