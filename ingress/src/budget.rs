//! The memory that bodies may take, all requests together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How often a body is in memory while it is stored: itself, the command for Redis, that command
/// packed, and its way into the socket.
pub const COPIES: usize = 4;

/// Bytes that are free.
#[derive(Clone)]
pub struct Budget(Arc<Semaphore>);

/// All bytes are taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Spent;

/// Bytes taken; dropping it gives them back.
pub struct Taken {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// Takes nothing yet.
    pub fn start(&self) -> Taken {
        Taken {
            budget: self.clone(),
            permit: None,
        }
    }
}

impl Taken {
    /// Takes `bytes` more, as they come in: what a sender only announces costs nothing.
    ///
    /// # Errors
    /// [`Spent`]; nothing more is taken then.
    pub fn take(&mut self, bytes: usize) -> Result<(), Spent> {
        let bytes = u32::try_from(bytes).map_err(|_| Spent)?;
        let more = self.budget.0.clone().try_acquire_many_owned(bytes);
        let more = more.map_err(|_| Spent)?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
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
        assert_eq!(two.take(5), Err(Spent));
        assert_eq!(two.take(4), Ok(()));
        assert_eq!(one.take(1), Err(Spent));
        drop(two);
        assert_eq!(one.take(4), Ok(()));
        drop(one);
        assert_eq!(budget.start().take(10), Ok(()));
    }
}
