//! Who may go now: so many at once, of one tenant at most three quarters of them, and those who wait
//! take turns by tenant. Of media transfers in a process, and of publications in a partition.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Hands out turns.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<GateState>,
    most: usize,
    most_of_tenant: usize,
    most_waiting_of_tenant: usize,
}

#[derive(Debug, Default)]
struct GateState {
    running: usize,
    running_of: HashMap<String, usize>,
    waiting: HashMap<String, VecDeque<oneshot::Sender<Turn>>>,
    /// Tenants that wait, in the order of their turns.
    turns: VecDeque<String>,
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
            state: Mutex::default(),
            most,
            most_of_tenant: (most * 3).div_ceil(4),
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
            let mut state = self.lock();
            let waiting = state.waiting.get(tenant).map_or(0, VecDeque::len);
            if waiting >= most_waiting {
                return Err(TenantQueueFull);
            }
            state.wait(tenant, turn);
            self.hand_out(&mut state);
        }
        // Dropped here while it waits, the sender finds nobody and the turn goes to the next.
        mine.await.map_err(|_| TenantQueueFull)
    }

    fn hand_out(self: &Arc<Self>, state: &mut GateState) {
        let mut passed_over = 0;
        while state.running < self.most && passed_over < state.turns.len() {
            let Some(tenant) = state.turns.pop_front() else {
                return;
            };
            let running = state.running_of.get(&tenant).copied().unwrap_or(0);
            if running >= self.most_of_tenant {
                state.turns.push_back(tenant);
                passed_over += 1;
                continue;
            }
            let Some(waiting) = state.waiting.get_mut(&tenant) else {
                continue;
            };
            let next = waiting.pop_front();
            if waiting.is_empty() {
                state.waiting.remove(&tenant);
            } else {
                state.turns.push_back(tenant.clone());
            }
            let Some(next) = next else { continue };
            let turn = Turn {
                gate: Some(self.clone()),
                tenant: tenant.clone(),
            };
            match next.send(turn) {
                Ok(()) => {
                    state.running += 1;
                    *state.running_of.entry(tenant).or_default() += 1;
                    passed_over = 0;
                }
                // It was not counted, and the state is locked here.
                Err(mut untaken) => untaken.gate = None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateState {
    fn wait(&mut self, tenant: &str, turn: oneshot::Sender<Turn>) {
        let waiting = self.waiting.entry(tenant.to_owned()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(tenant.to_owned());
        }
        waiting.push_back(turn);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(gate) = self.gate.take() else {
            return;
        };
        let mut state = gate.lock();
        state.running -= 1;
        if let Some(running) = state.running_of.get_mut(&self.tenant) {
            *running -= 1;
            if *running == 0 {
                state.running_of.remove(&self.tenant);
            }
        }
        gate.hand_out(&mut state);
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
        assert_eq!(gate.lock().running, 0);
        assert!(gate.lock().running_of.is_empty());
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
        assert!(gate.lock().waiting.is_empty());
    }
}
