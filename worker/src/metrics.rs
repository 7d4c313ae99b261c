//! Metrics of the worker.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::media::outcome::Reason;
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
    /// Profiles of business numbers, in this process.
    Number,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum TransferOutcome {
    Stored,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransferLabels {
    outcome: TransferOutcome,
    reason: Option<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum MediaStatus {
    Stored,
    Pending,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MediaLabels {
    status: MediaStatus,
}

/// Media of messages.
#[derive(Clone)]
struct MediaMetrics {
    transfers: Family<TransferLabels, Counter>,
    messages: Family<MediaLabels, Counter>,
    follow_ups: Family<MediaLabels, Counter>,
    parked: Family<Partition, Gauge>,
    download: Histogram,
    size: Histogram,
    upload: Histogram,
}

impl Default for MediaMetrics {
    fn default() -> Self {
        Self {
            transfers: Family::default(),
            messages: Family::default(),
            follow_ups: Family::default(),
            parked: Family::default(),
            // 10 ms to 10 min; 1 KB to 256 MB
            download: Histogram::new(exponential_buckets(0.01, 2.5, 13)),
            size: Histogram::new(exponential_buckets(1024.0, 4.0, 10)),
            upload: Histogram::new(exponential_buckets(0.01, 2.5, 13)),
        }
    }
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
    media: MediaMetrics,
}

impl MediaMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "media_transfers",
            "Transfers of media by how they ended",
            self.transfers.clone(),
        );
        registry.register(
            "media_messages",
            "Messages with media, by what they say of it",
            self.messages.clone(),
        );
        registry.register(
            "media_follow_ups",
            "Events that end what was pending",
            self.follow_ups.clone(),
        );
        registry.register(
            "media_parked",
            "Media that waits for an operator: a token, a permission, an allowed host",
            self.parked.clone(),
        );
        registry.register(
            "media_download_duration_seconds",
            "Time from the request for a file to its being stored",
            self.download.clone(),
        );
        registry.register(
            "media_download_size_bytes",
            "Sizes of stored media",
            self.size.clone(),
        );
        registry.register(
            "minio_upload_duration_seconds",
            "Time of uploads of media, which go on while the file arrives",
            self.upload.clone(),
        );
    }
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
        metrics.media.register(registry);
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
        self.media.parked.remove(&label);
    }

    /// A transfer ended: well, or for a reason.
    pub(crate) fn media_ended(&self, reason: Option<Reason>) {
        let outcome = match reason {
            None => TransferOutcome::Stored,
            Some(_) => TransferOutcome::Failed,
        };
        let labels = TransferLabels { outcome, reason };
        self.media.transfers.get_or_create(&labels).inc();
    }

    pub(crate) fn media_stored(&self, size_bytes: u64, took: Duration, upload_took: Duration) {
        self.media.size.observe(size_bytes as f64);
        self.media.download.observe(took.as_secs_f64());
        self.media.upload.observe(upload_took.as_secs_f64());
    }

    /// A message with media went out.
    pub(crate) fn media_message(&self, status: MediaStatus) {
        let labels = MediaLabels { status };
        self.media.messages.get_or_create(&labels).inc();
    }

    /// A follow-up to one that was pending went out.
    pub(crate) fn media_followed_up(&self, status: MediaStatus) {
        let labels = MediaLabels { status };
        self.media.follow_ups.get_or_create(&labels).inc();
    }

    /// Media of a partition that waits for an operator.
    pub(crate) fn media_parked(&self, partition: u16, count: usize) {
        let label = Partition { partition };
        self.media.parked.get_or_create(&label).set(count as i64);
    }
}
