//! Accounts about which the Tenant Service says what can't be used. That is this account's own fault: it
//! waits by itself, since the answer may be mended in a moment, and what it has is set aside after a while.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ask::neighbour::NeighbourError;

/// An account waits this long for an answer that can be used.
const PATIENCE: Duration = Duration::from_secs(30);
/// Accounts remembered at once, and for how long.
const MOST: usize = 10_000;
const REMEMBERED: Duration = Duration::from_secs(600);

/// Since when.
#[derive(Debug, Default)]
pub(super) struct UnusableAccounts(Mutex<HashMap<String, Instant>>);

impl UnusableAccounts {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question brought this error; whether the account has waited long enough for a better answer.
    pub(super) fn note(&self, waba_id: &str, error: &NeighbourError) -> bool {
        if !is_of_account(error) {
            return false;
        }
        let now = Instant::now();
        let mut all = self.all();
        if all.len() >= MOST {
            all.retain(|_, since| now.duration_since(*since) < REMEMBERED);
        }
        match all.get(waba_id) {
            Some(since) => now.duration_since(*since) >= PATIENCE,
            None if all.len() < MOST => {
                all.insert(waba_id.to_owned(), now);
                false
            }
            None => false,
        }
    }

    pub(super) fn forget(&self, waba_id: &str) {
        self.all().remove(waba_id);
    }
}

/// Whether the service was asked and answered, and it is what it says of this account that is of no use.
fn is_of_account(error: &NeighbourError) -> bool {
    match error {
        NeighbourError::Unusable { .. } | NeighbourError::TooLarge(_) => true,
        NeighbourError::BreakerOpen
        | NeighbourError::Busy
        | NeighbourError::Connect
        | NeighbourError::TimedOut
        | NeighbourError::CutOff
        | NeighbourError::Transient { .. }
        | NeighbourError::Throttled { .. }
        | NeighbourError::Final { .. }
        | NeighbourError::Unsendable => false,
    }
}
