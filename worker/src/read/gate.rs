//! Makes tasks wait for their turn: so many at once, and tenants in turn, as [`Turns`] says. Of media
//! transfers in a process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::read::turns::Turns;

/// How urgent a file is. Files of each pace have turns, requests and a list of what is owed of their own,
/// so that none waits for what is less urgent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferPace {
    /// A received message's.
    #[default]
    Inbound,
    /// Of what else happens now: echoes, standby, calls.
    Beside,
    /// Of what is long past, however much it is.
    History,
}

impl TransferPace {
    pub fn is_inbound(&self) -> bool {
        *self == Self::Inbound
    }
}

/// Hands out turns.
#[derive(Debug)]
pub struct Gate {
    turns: Mutex<Turns<oneshot::Sender<Turn>>>,
    most_waiting_of_tenant: usize,
}

/// As many of the tenant as may wait do already.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("too many of the tenant wait")]
pub struct TenantQueueFull;

/// A turn; dropping it ends it.
#[derive(Debug)]
pub struct Turn {
    /// `None` for a turn that nobody took.
    gate: Option<Arc<Gate>>,
    tenant: String,
}

impl Gate {
    /// `most` turns at once, at least 1; of a tenant `most_waiting_of_tenant` wait at most.
    pub fn new(most: usize, most_waiting_of_tenant: usize) -> Arc<Self> {
        Arc::new(Self {
            turns: Mutex::new(Turns::new(most)),
            most_waiting_of_tenant,
        })
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`TenantQueueFull`].
    pub async fn turn(self: &Arc<Self>, tenant: &str) -> Result<Turn, TenantQueueFull> {
        self.wait(tenant, self.most_waiting_of_tenant).await
    }

    /// Waits for a turn however many of the tenant do already: whoever calls this calls it seldom.
    ///
    /// # Errors
    /// None is known.
    pub async fn turn_in_any_case(self: &Arc<Self>, tenant: &str) -> Result<Turn, TenantQueueFull> {
        self.wait(tenant, usize::MAX).await
    }

    async fn wait(
        self: &Arc<Self>,
        tenant: &str,
        most_waiting: usize,
    ) -> Result<Turn, TenantQueueFull> {
        let (turn, mine) = oneshot::channel();
        {
            let mut turns = self.lock();
            if turns.waiting_of(tenant) >= most_waiting {
                return Err(TenantQueueFull);
            }
            turns.wait(tenant, turn);
            self.hand_out(&mut turns);
        }
        // Dropped here while it waits, the sender finds nobody and the turn goes to the next.
        mine.await.map_err(|_| TenantQueueFull)
    }

    fn hand_out(self: &Arc<Self>, turns: &mut Turns<oneshot::Sender<Turn>>) {
        while let Some((tenant, next)) = turns.take() {
            let turn = Turn {
                gate: Some(self.clone()),
                tenant: tenant.clone(),
            };
            // Who waited has gone: the turn is the next one's. The turns are locked here.
            if let Err(mut untaken) = next.send(turn) {
                untaken.gate = None;
                turns.end(&tenant);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns<oneshot::Sender<Turn>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(gate) = self.gate.take() else {
            return;
        };
        let mut turns = gate.lock();
        turns.end(&self.tenant);
        gate.hand_out(&mut turns);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn tenants_take_turns_and_none_has_them_all() {
        let gate = Gate::new(4, 10);
        let mut running = Vec::new();
        for _ in 0..3 {
            running.push(gate.turn("a").await.expect("a turn"));
        }
        let mut fourth = Box::pin(gate.turn("a"));
        assert!(
            (&mut fourth).now_or_never().is_none(),
            "all but one at most"
        );
        let of_b = gate.turn("b").await.expect("a turn");
        let mut second_of_b = Box::pin(gate.turn("b"));
        assert!((&mut second_of_b).now_or_never().is_none(), "all are taken");
        drop(of_b);
        let second_of_b = second_of_b.await.expect("a turn");
        assert!((&mut fourth).now_or_never().is_none());
        running.pop();
        drop(fourth.await.expect("a turn"));
        drop((running, second_of_b));
        assert!(gate.lock().is_idle());
    }

    /// What is read without a pace is a received message's; only of those none is written.
    #[test]
    fn a_received_messages_pace_is_the_one_that_goes_without_saying() {
        assert!(TransferPace::default().is_inbound());
        assert!(!TransferPace::Beside.is_inbound() && !TransferPace::History.is_inbound());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_takes_no_turn() {
        let gate = Gate::new(1, 1);
        let running = gate.turn("a").await.expect("a turn");
        let mut given_up = Box::pin(gate.turn("a"));
        assert!((&mut given_up).now_or_never().is_none());
        assert_eq!(
            gate.turn("a").await.expect_err("one waits"),
            TenantQueueFull
        );
        let mut other = Box::pin(gate.turn("b"));
        assert!((&mut other).now_or_never().is_none());
        drop(given_up);
        drop(running);
        drop(other.await.expect("a turn"));
        assert!(gate.lock().is_idle());
    }
}
