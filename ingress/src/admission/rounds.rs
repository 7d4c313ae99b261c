//! Whose turn it is on a thread that has more to do than it can.
//!
//! A thread's tasks run in the order in which they became ready. With thousands of webhooks that have
//! just come, each further step of one that is half done (to Redis, back from it, its answer) would
//! wait for all of those. So webhooks begin by rounds: the next few when the last few have begun.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

/// Webhooks that begin in a round.
const ROUND: usize = 32;
/// For so long everybody is let in, however long he waits: a burst, or many connections that close.
const BURST: Duration = Duration::from_millis(500);
/// After that, whoever waits longer for his turn is refused before he costs more.
const LONGEST: Duration = Duration::from_millis(500);

/// The turns of one thread.
pub(crate) struct AdmissionRounds {
    left: Semaphore,
    taken: AtomicUsize,
    round_over: Notify,
    /// Since when there has always been somebody who waits.
    busy_since: Mutex<Option<Instant>>,
}

/// Whoever asked waited too long, on a thread that has had too much to do for a while.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WaitedTooLong;

impl Default for AdmissionRounds {
    fn default() -> Self {
        Self {
            left: Semaphore::new(ROUND),
            taken: AtomicUsize::new(0),
            round_over: Notify::new(),
            busy_since: Mutex::default(),
        }
    }
}

impl AdmissionRounds {
    /// Waits for a turn, in the order of asking.
    ///
    /// # Errors
    /// [`WaitedTooLong`]
    pub(crate) async fn take(&self) -> Result<(), WaitedTooLong> {
        let since = match self.left.try_acquire() {
            Ok(turn) => {
                turn.forget();
                None
            }
            Err(_) => {
                let since = Instant::now();
                if let Ok(turn) = self.left.acquire().await {
                    turn.forget();
                }
                Some(since)
            }
        };
        let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        if taken.is_multiple_of(ROUND) {
            self.round_over.notify_one();
        }
        self.admit(since)
    }

    /// Of somebody who waited since then, or not at all.
    fn admit(&self, since: Option<Instant>) -> Result<(), WaitedTooLong> {
        let busy_since = self.busy_since.lock();
        let mut busy_since = busy_since.unwrap_or_else(PoisonError::into_inner);
        let Some(since) = since else {
            *busy_since = None;
            return Ok(());
        };
        // Not since it began to wait: the whole thread may have stood still.
        let busy_since = *busy_since.get_or_insert_with(Instant::now);
        if since.elapsed() > LONGEST && busy_since.elapsed() > BURST {
            return Err(WaitedTooLong);
        }
        Ok(())
    }

    /// Gives the turns out. To be polled by the thread itself, not by a task among those that wait.
    pub(crate) async fn rounds(&self) {
        loop {
            self.round_over.notified().await;
            self.left.add_permits(ROUND);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn everybody_gets_a_turn_in_the_order_of_asking() {
        let (turns, order) = (AdmissionRounds::default(), Mutex::new(Vec::new()));
        let take = |n| {
            let (turns, order) = (&turns, &order);
            async move {
                assert_eq!(turns.take().await, Ok(()));
                order.lock().expect("no panic").push(n);
            }
        };
        let all = 10 * ROUND + 1;
        tokio::select! {
            _ = join_all((0..all).map(take)) => {}
            () = turns.rounds() => {}
        }
        let order = order.into_inner().expect("no panic");
        assert_eq!(order, (0..all).collect::<Vec<_>>());
    }

    #[test]
    fn a_round_begins_when_the_last_one_has() {
        let turns = AdmissionRounds::default();
        let mut rounds = pin!(turns.rounds());
        let mut asked: Vec<_> = (0..3 * ROUND).map(|_| Box::pin(turns.take())).collect();
        let (first, later) = asked.split_at_mut(ROUND);
        let (second, third) = later.split_at_mut(ROUND);
        for asked in first {
            assert_eq!(polled(asked.as_mut()), Poll::Ready(Ok(())));
        }
        for asked in second.iter_mut().chain(third.iter_mut()) {
            assert_eq!(polled(asked.as_mut()), Poll::Pending);
        }
        for asked in second {
            assert_eq!(polled(rounds.as_mut()), Poll::Pending);
            assert_eq!(polled(third[0].as_mut()), Poll::Pending);
            assert_eq!(polled(asked.as_mut()), Poll::Ready(Ok(())));
        }
        assert_eq!(polled(rounds.as_mut()), Poll::Pending);
        assert_eq!(polled(third[0].as_mut()), Poll::Ready(Ok(())));
    }

    fn polled<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_burst_is_let_in_and_in_what_lasts_longer_nobody_who_waits_for_long() {
        let turns = AdmissionRounds::default();
        let ago = |time| Instant::now().checked_sub(time);
        let (soon, long) = (ago(LONGEST / 2), ago(BURST * 2));
        assert_eq!(turns.admit(long), Ok(()), "a burst");
        *turns.busy_since.lock().expect("no panic") = ago(BURST * 2);
        assert_eq!(turns.admit(long), Err(WaitedTooLong));
        assert_eq!(turns.admit(soon), Ok(()), "the thread is kept busy");
        assert_eq!(
            turns.admit(long),
            Err(WaitedTooLong),
            "and is no less busy for it"
        );
        assert_eq!(turns.admit(None), Ok(()), "nobody waits any more");
        assert_eq!(turns.admit(long), Ok(()), "another burst");
    }
}
