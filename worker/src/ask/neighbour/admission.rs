//! Who may call: a place among the calls at once, then the breaker, which learns how the call ended.

#![deny(clippy::wildcard_enum_match_arm)]

use std::sync::{MutexGuard, PoisonError};

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::{Neighbour, NeighbourError};
use crate::ask::breaker::{AdmittedCall, Breaker, CallOutcome};
use crate::metrics::neighbours::{AttemptOutcome, BreakerState};

impl Neighbour {
    /// A place among the calls at once. The admission's end must be told.
    pub(super) async fn admit<'n>(
        &'n self,
        subject: &'n str,
        until: Instant,
    ) -> Result<CallAdmission<'n>, NeighbourError> {
        let place = timeout_at(until, self.turns.acquire()).await;
        // The semaphore is never closed.
        let Ok(Ok(place)) = place else {
            return Err(self.refused(NeighbourError::Busy));
        };
        let admitted = self.change(|breaker| breaker.admit(Instant::now(), subject));
        let Some(admitted) = admitted else {
            return Err(self.refused(NeighbourError::BreakerOpen));
        };
        Ok(CallAdmission {
            neighbour: self,
            subject,
            admitted: Some(admitted),
            began: Instant::now(),
            _place: place,
        })
    }

    fn refused(&self, why: NeighbourError) -> NeighbourError {
        self.count(why.outcome());
        why
    }

    fn count(&self, outcome: AttemptOutcome) {
        let neighbour = self.name;
        self.metrics.attempted(neighbour, outcome);
    }

    pub(super) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the breaker; a new state is logged.
    fn change<T>(&self, change: impl FnOnce(&mut Breaker) -> T) -> T {
        let (before, result, after) = {
            let mut breaker = self.breaker();
            let before = breaker.state();
            let result = change(&mut breaker);
            (before, result, breaker.state())
        };
        if before != after {
            self.log_state(after);
        }
        result
    }

    fn log_state(&self, state: BreakerState) {
        let neighbour = self.name;
        let name = neighbour.text();
        match state {
            BreakerState::Closed => tracing::info!(
                neighbour = name,
                "circuit breaker closed: the neighbour answers again"
            ),
            BreakerState::HalfOpen => {
                tracing::info!(
                    neighbour = name,
                    "circuit breaker half open: one call tries the neighbour"
                )
            }
            BreakerState::Open => {
                tracing::warn!(
                    neighbour = name,
                    "circuit breaker open: calls to the neighbour fail"
                )
            }
        }
        self.metrics.breaker_is(neighbour, state);
    }
}

/// A call that was let through. Dropped without a word, it says nothing about the neighbour.
#[derive(Debug)]
pub(super) struct CallAdmission<'n> {
    neighbour: &'n Neighbour,
    subject: &'n str,
    admitted: Option<AdmittedCall>,
    began: Instant,
    _place: SemaphorePermit<'n>,
}

impl CallAdmission<'_> {
    /// The call ended: well, or with `failed`.
    pub(super) fn ended(mut self, failed: Option<&NeighbourError>) {
        let neighbour = self.neighbour;
        neighbour.count(failed.map_or(AttemptOutcome::Done, NeighbourError::outcome));
        neighbour
            .metrics
            .attempt_took(neighbour.name, self.began.elapsed());
        if let Some(admitted) = self.admitted.take() {
            let seen = failed.map_or(CallOutcome::Healthy, NeighbourError::call_outcome);
            let subject = self.subject;
            let ended =
                |breaker: &mut Breaker| breaker.ended(Instant::now(), subject, admitted, seen);
            if neighbour.change(ended) {
                let neighbour = neighbour.name.text();
                tracing::warn!(
                    neighbour,
                    subject,
                    "circuit breaker open for one account or tenant: its calls to the neighbour fail"
                );
            }
        }
    }
}

impl Drop for CallAdmission<'_> {
    fn drop(&mut self) {
        if let Some(admitted) = self.admitted.take() {
            let ended = |breaker: &mut Breaker| {
                breaker.ended(
                    Instant::now(),
                    self.subject,
                    admitted,
                    CallOutcome::Inconclusive,
                );
            };
            self.neighbour.change(ended);
        }
    }
}
