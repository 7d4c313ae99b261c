//! Metrics of the worker.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::neighbour::NeighbourMetrics;
use crate::publisher::NotPublished;

/// What is remembered where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Cache {
    /// Tenants, in this process.
    Tenant,
    TenantRedis,
    /// Access tokens, in this process.
    Token,
    TokenRedis,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCache {
    cache: Cache,
}

/// What is counted of the caches.
#[derive(Clone, Debug, Default)]
pub struct CacheMetrics {
    hits: Family<OfCache, Counter>,
    misses: Family<OfCache, Counter>,
    stale: Counter,
    pub tokens_rejected: Gauge,
}

impl CacheMetrics {
    fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("cache_hit", "Found in a cache", metrics.hits.clone());
        registry.register(
            "cache_miss",
            "Looked for in a cache and not found",
            metrics.misses.clone(),
        );
        registry.register(
            "tenants_stale",
            "Tenants used out of date since the Tenant Service was down",
            metrics.stale.clone(),
        );
        registry.register(
            "graph_tokens_rejected",
            "Accounts whose access token the Graph API refuses",
            metrics.tokens_rejected.clone(),
        );
        metrics
    }

    pub(crate) fn count(&self, cache: Cache, hit: bool) {
        let counted = if hit { &self.hits } else { &self.misses };
        counted.get_or_create(&OfCache { cache }).inc();
    }

    pub(crate) fn stale(&self) {
        self.stale.inc();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum StatePost {
    Taken,
    Refused,
    /// Not within a day.
    Expired,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatePosted {
    outcome: StatePost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum PublishStatus {
    Confirmed,
    Unroutable,
    Refused,
    LeaseLost,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Publish {
    status: PublishStatus,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SetAside {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Partition {
    partition: u16,
}

/// What the worker counts.
#[derive(Clone, Default)]
pub struct Metrics {
    published: Family<Publish, Counter>,
    publish_failures: Counter,
    set_aside: Family<SetAside, Counter>,
    pub archived: Counter,
    pub owned: Gauge,
    stream_length: Family<Partition, Gauge>,
    later_length: Family<Partition, Gauge>,
    parked: Family<Partition, Gauge>,
    state_posts: Family<StatePosted, Counter>,
    pub caches: CacheMetrics,
    pub neighbours: NeighbourMetrics,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            caches: CacheMetrics::new(registry),
            neighbours: NeighbourMetrics::new(registry),
            ..Self::default()
        };
        registry.register(
            "parked",
            "Entries of an owned partition that wait for their tenant",
            metrics.parked.clone(),
        );
        registry.register(
            "state_posts",
            "Messages that the State Manager was to be told of, by outcome",
            metrics.state_posts.clone(),
        );
        registry.register(
            "rabbitmq_publish",
            "Publications by outcome",
            metrics.published.clone(),
        );
        registry.register(
            "rabbitmq_publish_failures",
            "Publications that were not confirmed",
            metrics.publish_failures.clone(),
        );
        registry.register(
            "webhook_set_aside",
            "Items that went to the failed store, by reason",
            metrics.set_aside.clone(),
        );
        registry.register(
            "archived",
            "Raw payloads written to the archive",
            metrics.archived.clone(),
        );
        registry.register(
            "partitions_owned",
            "Partitions this worker owns",
            metrics.owned.clone(),
        );
        registry.register(
            "stream_length",
            "Entries in the stream of an owned partition",
            metrics.stream_length.clone(),
        );
        registry.register(
            "later_length",
            "Pieces in the later-list of an owned partition",
            metrics.later_length.clone(),
        );
        metrics
    }

    pub(crate) fn published(&self, outcome: Result<(), NotPublished>) {
        let status = match outcome {
            Ok(()) => PublishStatus::Confirmed,
            Err(NotPublished::Unroutable) => PublishStatus::Unroutable,
            Err(NotPublished::Refused) => PublishStatus::Refused,
            Err(NotPublished::LeaseLost) => PublishStatus::LeaseLost,
        };
        self.count(status);
    }

    pub(crate) fn unknown_outcome(&self) {
        self.count(PublishStatus::Unknown);
    }

    fn count(&self, status: PublishStatus) {
        self.published.get_or_create(&Publish { status }).inc();
        if status != PublishStatus::Confirmed {
            self.publish_failures.inc();
        }
    }

    pub(crate) fn set_aside(&self, reason: &'static str) {
        self.set_aside.get_or_create(&SetAside { reason }).inc();
    }

    pub(crate) fn state_post(&self, outcome: StatePost) {
        self.state_posts
            .get_or_create(&StatePosted { outcome })
            .inc();
    }

    pub(crate) fn parked(&self, partition: u16, entries: usize) {
        let label = Partition { partition };
        self.parked.get_or_create(&label).set(entries as i64);
    }

    pub(crate) fn lengths(&self, partition: u16, stream: u64, later: u64) {
        let label = Partition { partition };
        self.stream_length.get_or_create(&label).set(stream as i64);
        self.later_length.get_or_create(&label).set(later as i64);
    }

    pub(crate) fn left(&self, partition: u16) {
        let label = Partition { partition };
        self.stream_length.remove(&label);
        self.later_length.remove(&label);
        self.parked.remove(&label);
    }
}
