//! The memory that bodies may take, all requests together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How often a body is in memory while it is stored: itself, the command for Redis, that command
/// packed, and its way into the socket.
pub const COPIES: usize = 4;

/// Nearly all webhooks are smaller than this; some of the bytes are only theirs, so that large bodies,
/// whoever sends them, can't keep them out.
const SMALL: usize = 64 * 1024;
/// Share of the bytes that large bodies may not take.
const FOR_SMALL: usize = 8;

/// Bytes that are free.
#[derive(Clone)]
pub(crate) struct Budget {
    all: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// All bytes are taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BudgetExhausted;

/// Bytes taken; dropping it gives them back.
pub(crate) struct BudgetShare {
    budget: Budget,
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(bytes)),
            large: Arc::new(Semaphore::new(bytes - bytes / FOR_SMALL)),
        }
    }

    /// Takes nothing yet.
    pub(crate) fn start(&self) -> BudgetShare {
        BudgetShare {
            budget: self.clone(),
            bytes: 0,
            permit: None,
            large: None,
        }
    }
}

impl BudgetShare {
    /// Takes `bytes` more, as they come in: what a sender only announces costs nothing.
    ///
    /// # Errors
    /// [`BudgetExhausted`]; nothing more is taken then.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        let whole = self.bytes + bytes;
        let large = match &self.large {
            _ if whole <= SMALL * COPIES => None,
            Some(_) => Some(bytes),
            None => Some(whole),
        };
        // Dropping what was acquired gives it back if the other has not enough.
        let large = large.map(|bytes| acquire(&self.budget.large, bytes));
        let large = large.transpose()?;
        let more = acquire(&self.budget.all, bytes)?;
        add(&mut self.permit, more);
        if let Some(large) = large {
            add(&mut self.large, large);
        }
        self.bytes = whole;
        Ok(())
    }
}

fn acquire(from: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, BudgetExhausted> {
    let bytes = u32::try_from(bytes).map_err(|_| BudgetExhausted)?;
    from.clone()
        .try_acquire_many_owned(bytes)
        .map_err(|_| BudgetExhausted)
}

fn add(to: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match to {
        Some(permit) => permit.merge(more),
        None => *to = Some(more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::new(10);
        let (mut one, mut two) = (budget.start(), budget.start());
        assert_eq!(one.take(6), Ok(()));
        assert_eq!(two.take(5), Err(BudgetExhausted));
        assert_eq!(two.take(4), Ok(()));
        assert_eq!(one.take(1), Err(BudgetExhausted));
        drop(two);
        assert_eq!(one.take(4), Ok(()));
        drop(one);
        assert_eq!(budget.start().take(10), Ok(()));
    }

    #[test]
    fn large_bodies_leave_room_for_small_ones() {
        let budget = Budget::new(8_000_000);
        let mut large = budget.start();
        for _ in 0..70 {
            assert_eq!(large.take(100_000), Ok(()));
        }
        assert_eq!(large.take(100), Err(BudgetExhausted));
        let mut small = budget.start();
        assert_eq!(small.take(200_000), Ok(()));
        assert_eq!(
            small.take(100_000),
            Err(BudgetExhausted),
            "it is large by now"
        );
        drop(large);
        assert_eq!(small.take(100_000), Ok(()));
        drop(small);
        assert_eq!(budget.start().take(7_000_000), Ok(()));
    }
}
