//! Whose turn it is on a thread that has more to do than it can.
//!
//! A thread's tasks run in the order in which they became ready. With thousands of webhooks that have
//! just come, each further step of one that is half done (to Redis, back from it, its answer) would
//! wait for all of those. So webhooks begin by rounds: the next few when the last few have begun.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::PollSemaphore;

/// Webhooks that begin in a round.
const ROUND: usize = 32;
/// For so long everybody is let in, however long he waits: a burst, or many connections that close.
const BURST: Duration = Duration::from_millis(500);
/// After that, whoever waits longer for his turn is refused before he costs more.
const LONGEST: Duration = Duration::from_millis(200);

/// The turns of one thread.
pub(crate) struct Turns {
    left: Arc<Semaphore>,
    taken: AtomicUsize,
    round_over: Notify,
    /// Since when there has always been somebody who waits.
    busy_since: Mutex<Option<Instant>>,
}

/// Where a connection stands in line.
pub(crate) struct Line {
    turns: Arc<Turns>,
    left: PollSemaphore,
    waits_since: Option<Instant>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            left: Arc::new(Semaphore::new(ROUND)),
            taken: AtomicUsize::new(0),
            round_over: Notify::new(),
            busy_since: Mutex::default(),
        }
    }
}

impl Turns {
    pub(crate) fn line(self: &Arc<Self>) -> Line {
        Line {
            turns: self.clone(),
            left: PollSemaphore::new(self.left.clone()),
            waits_since: None,
        }
    }

    /// Whether somebody who waited since then, or not at all, comes too late.
    fn is_late(&self, since: Option<Instant>) -> bool {
        let busy_since = self.busy_since.lock();
        let mut busy_since = busy_since.unwrap_or_else(PoisonError::into_inner);
        let Some(since) = since else {
            *busy_since = None;
            return false;
        };
        let busy_since = *busy_since.get_or_insert(since);
        since.elapsed() > LONGEST && busy_since.elapsed() > BURST
    }

    /// Gives the turns out. To be polled by the thread itself, not by a task among those that wait.
    pub(crate) async fn rounds(&self) {
        loop {
            self.round_over.notified().await;
            self.left.add_permits(ROUND);
        }
    }
}

impl Line {
    /// Takes a turn, in the order of asking; tells whether whoever took it is late.
    pub(crate) fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let Poll::Ready(turn) = self.left.poll_acquire(context) else {
            self.waits_since.get_or_insert_with(Instant::now);
            return Poll::Pending;
        };
        if let Some(turn) = turn {
            turn.forget();
        }
        let taken = self.turns.taken.fetch_add(1, Ordering::Relaxed) + 1;
        if taken.is_multiple_of(ROUND) {
            self.turns.round_over.notify_one();
        }
        let since = self.waits_since.take();
        Poll::Ready(self.turns.is_late(since))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn everybody_gets_a_turn_in_the_order_of_asking() {
        let (turns, order) = (Arc::new(Turns::default()), Mutex::new(Vec::new()));
        let take = |n| {
            let (mut line, order) = (turns.line(), &order);
            async move {
                poll_fn(|context| line.poll_turn(context)).await;
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
        let turns = Arc::new(Turns::default());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut rounds = Box::pin(turns.rounds());
        let mut lines: Vec<_> = (0..3 * ROUND).map(|_| turns.line()).collect();
        let (first, later) = lines.split_at_mut(ROUND);
        let (second, third) = later.split_at_mut(ROUND);
        for line in first {
            assert_eq!(line.poll_turn(&mut context), Poll::Ready(false));
        }
        for line in second.iter_mut().chain(third.iter_mut()) {
            assert_eq!(line.poll_turn(&mut context), Poll::Pending);
        }
        for line in second {
            assert!(rounds.as_mut().poll(&mut context).is_pending());
            assert_eq!(third[0].poll_turn(&mut context), Poll::Pending);
            assert_eq!(line.poll_turn(&mut context), Poll::Ready(false));
        }
        assert!(rounds.as_mut().poll(&mut context).is_pending());
        assert_eq!(third[0].poll_turn(&mut context), Poll::Ready(false));
    }

    #[test]
    fn a_burst_is_let_in_and_in_what_lasts_longer_nobody_who_waits_for_long() {
        let turns = Turns::default();
        let ago = |time| Instant::now().checked_sub(time);
        let (soon, long) = (ago(LONGEST / 2), ago(LONGEST * 2));
        assert!(!turns.is_late(long), "a burst");
        *turns.busy_since.lock().expect("no panic") = ago(BURST * 2);
        assert!(turns.is_late(long));
        assert!(!turns.is_late(soon), "the thread is kept busy");
        assert!(turns.is_late(long), "and is no less busy for it");
        assert!(!turns.is_late(None), "nobody waits any more");
        assert!(!turns.is_late(long), "another burst");
    }
}
