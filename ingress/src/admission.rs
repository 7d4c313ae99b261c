//! What ingress takes on, and what it refuses because there is too much. The gates stand in this order,
//! so that whoever is refused has cost as little as possible. Each answer is a 503 with `Retry-After`.
//!
//! | gate | number | the connection | why |
//! | --- | --- | --- | --- |
//! | connections | `MAX_CONNECTIONS`, or as many as there are file descriptors for | closed | each takes a file descriptor and a read buffer |
//! | memory ([`memory`]) | `MAX_IN_FLIGHT_BYTES`; large bodies leave an eighth of it alone | closed | bodies count as they come in, and with their copies once they are signed |
//! | turns ([`rounds`]) | rounds of 32 webhooks a thread; 500 ms of waiting, on a thread that is busy for 500 ms | goes on | what is half done goes before what has just come |
//! | in flight | `MAX_IN_FLIGHT` | goes on | after the signature: strangers take none of these places |
//! | queue ([`queue`]) | 16 to 4,096 deliveries a partition, by how long Redis takes | goes on | better to refuse some at once than to answer all of them late |
//!
//! The first is passed by a connection, the next three by a webhook, whose [`Admitted`] holds what it was
//! given until it is answered, and the last by each of its deliveries on their way to Redis.

pub(crate) mod memory;
pub(crate) mod queue;
pub(crate) mod rounds;

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

pub use self::memory::COPIES;
use self::memory::{Budget, BudgetExhausted, BudgetShare};
use self::queue::{Queue, QueueSlot};
use self::rounds::AdmissionRounds;

/// Connections beyond the limit that are told so at the same time; further ones are just closed.
const MAX_TURNED_AWAY: usize = 256;
/// The share of connections below which places are scarce: a tenth.
const SCARCE: usize = 10;
/// File descriptors for everything but Meta's connections.
const OTHER_FILES: u64 = 64 + MAX_TURNED_AWAY as u64;

/// The gate that refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overloaded {
    #[error("too many connections are open")]
    Connections,
    #[error("the webhooks in work take too much memory")]
    Memory,
    #[error("too many webhooks wait for their turn")]
    Turn,
    #[error("too many webhooks are in work")]
    InFlight,
    #[error("too many webhooks wait to be stored")]
    Queue,
}

impl From<BudgetExhausted> for Overloaded {
    fn from(_: BudgetExhausted) -> Self {
        Self::Memory
    }
}

/// The numbers of the gates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdmissionLimits {
    pub(crate) connections: usize,
    pub(crate) memory_bytes: usize,
    pub(crate) in_flight: usize,
    pub(crate) partitions: u16,
}

/// The gates that all threads share.
pub(crate) struct Admission {
    connections: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    /// An idle connection that hears it closes.
    room_wanted: Arc<Notify>,
    /// With fewer places left, each new connection makes an idle one close.
    scarce: usize,
    memory: Budget,
    in_flight: Semaphore,
    /// By partition.
    queues: Vec<Queue>,
}

/// What a webhook was given; dropping it gives it back.
pub(crate) struct Admitted<'a> {
    admission: &'a Admission,
    memory: BudgetShare,
    in_flight: Option<SemaphorePermit<'a>>,
}

impl Admission {
    pub(crate) fn new(limits: AdmissionLimits) -> Self {
        let queues = (0..limits.partitions).map(|_| Queue::default());
        let possible = possible(limits.connections);
        Self {
            connections: Arc::new(Semaphore::new(possible)),
            room_wanted: Arc::default(),
            scarce: possible.div_ceil(SCARCE),
            turned_away: Arc::new(Semaphore::new(MAX_TURNED_AWAY)),
            memory: Budget::new(limits.memory_bytes),
            in_flight: Semaphore::new(limits.in_flight),
            queues: queues.collect(),
        }
    }

    /// A place for a connection.
    ///
    /// # Errors
    /// There is none left; a place to be told so, if there is one.
    pub(crate) fn connection(&self) -> Result<OwnedSemaphorePermit, Option<OwnedSemaphorePermit>> {
        let place = self.connections.clone().try_acquire_owned();
        if self.connections.available_permits() < self.scarce {
            self.room_wanted.notify_one();
        }
        place.map_err(|_| self.turned_away.clone().try_acquire_owned().ok())
    }

    /// What an idle connection listens to, to make room.
    pub(crate) fn room_wanted(&self) -> Arc<Notify> {
        self.room_wanted.clone()
    }

    /// A webhook whose body is still to come.
    pub(crate) fn webhook(&self) -> Admitted<'_> {
        Admitted {
            admission: self,
            memory: self.memory.start(),
            in_flight: None,
        }
    }

    /// A delivery's place on the way to Redis.
    ///
    /// # Errors
    /// [`Overloaded::Queue`]
    pub(crate) fn queue(&self, partition: u16) -> Result<QueueSlot<'_>, Overloaded> {
        let queue = &self.queues[usize::from(partition)];
        queue.join().ok_or(Overloaded::Queue)
    }
}

impl Admitted<'_> {
    /// Memory for `bytes` more of the body.
    ///
    /// # Errors
    /// [`Overloaded::Memory`]
    pub(crate) fn body(&mut self, bytes: usize) -> Result<(), Overloaded> {
        Ok(self.memory.take(bytes)?)
    }

    /// Waits for its turn on its thread.
    ///
    /// # Errors
    /// [`Overloaded::Turn`]
    pub(crate) async fn turn(&self, turns: &AdmissionRounds) -> Result<(), Overloaded> {
        turns.take().await.map_err(|_| Overloaded::Turn)
    }

    /// The signature was right: memory for the copies of its body, and a place in flight.
    ///
    /// # Errors
    /// [`Overloaded::Memory`] or [`Overloaded::InFlight`]
    pub(crate) fn in_flight(&mut self, body_bytes: usize) -> Result<(), Overloaded> {
        self.memory.take(body_bytes * (COPIES - 1))?;
        let place = self.admission.in_flight.try_acquire();
        self.in_flight = Some(place.map_err(|_| Overloaded::InFlight)?);
        Ok(())
    }
}

/// How many of the wanted connections there are file descriptors for.
fn possible(wanted: usize) -> usize {
    let limit = rlimit::increase_nofile_limit(wanted as u64 + OTHER_FILES);
    let Ok(limit) = limit.inspect_err(|error| tracing::warn!(%error, "limit of open files")) else {
        return wanted;
    };
    // A few are better than none, where the limit is absurd.
    let possible = limit.saturating_sub(OTHER_FILES).max(16) as usize;
    if possible < wanted {
        tracing::warn!(
            limit,
            connections = possible,
            "MAX_CONNECTIONS (--max-connections) is {wanted}, but this process may open {limit} files: \
             raise its limit (ulimit -n)"
        );
    }
    possible.min(wanted)
}
