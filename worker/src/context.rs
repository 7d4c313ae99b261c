//! What all partitions of a worker use.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use shared::status::SetAsides;
use tokio::sync::Semaphore;

use crate::ask::numbers::Numbers;
use crate::ask::state::StateManager;
use crate::ask::tenants::Tenants;
use crate::item::health::HealthNotes;
use crate::item::traffic::Traffic;
use crate::metrics::Metrics;
use crate::out::archive::ArchiveWriter;
use crate::out::media::MediaFetcher;
use crate::out::publisher::Publisher;
use crate::out::store::Store;
use crate::read::lanes::LaneHasher;
use crate::read::stream::Stream;
use crate::read::suspects::BytesLock;

/// What all partitions of a worker use.
pub struct WorkerContext {
    pub stream: Stream,
    pub tenants: Arc<Tenants>,
    /// `None`: events have no conversation.
    pub state: Option<StateManager>,
    pub publisher: Publisher,
    pub store: Arc<Store>,
    pub archive: ArchiveWriter,
    pub media: Arc<MediaFetcher>,
    pub numbers: Arc<Numbers>,
    pub metrics: Metrics,
    pub traffic: Arc<Traffic>,
    /// What webhooks say of accounts, numbers and templates.
    pub health: Arc<HealthNotes>,
    /// For the status page.
    pub set_asides: SetAsides,
    pub hasher: LaneHasher,
    /// Who may read bytes now.
    pub bytes_lock: BytesLock,
    /// How many entries wait for their tenant.
    pub parked: Arc<AtomicUsize>,
    /// One permit per conversation in work.
    pub permits: Arc<Semaphore>,
    /// How many they are.
    pub concurrency: usize,
    /// One for each that asks the State Manager.
    pub state_permits: Semaphore,
    /// Bound on a partition's bodies in memory.
    pub read_bytes: usize,
    pub max_deliveries: usize,
}
