//! Metrics of the worker. Labels come from closed sets only, so that no stranger can make series; those
//! that are known from the start are there from the start, so that a first failure is seen as one more.

mod billing;
mod by_tenant;
mod caches;
mod health;
mod media;
pub mod neighbours;
mod partitions;
mod queues;

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};

use billing::BillingMetrics;
pub use billing::Price;
use by_tenant::{CounterByTenant, NONE};
pub use caches::{Cache, CacheMetrics};
pub use health::HealthMetrics;
use media::MediaMetrics;
pub use media::MediaOutcome;
use neighbours::NeighbourMetrics;
use partitions::PartitionMetrics;
pub use partitions::{Backlog, OwedKind};
pub use queues::QueueMetrics;

/// Implements what a label's value needs for types that are their own text.
macro_rules! label_values {
    ($($kind:ty),+) => {$(
        impl prometheus_client::encoding::EncodeLabelValue for $kind {
            fn encode(
                &self,
                encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
            ) -> std::fmt::Result {
                prometheus_client::encoding::EncodeLabelValue::encode(
                    &<&'static str>::from(*self),
                    encoder,
                )
            }
        }
    )+};
}
pub(crate) use label_values;

label_values!(StatePost, PublishStatus, Uploaded, ChannelState, PoolState);

/// Seconds: from a millisecond to the time that an item may wait for its media.
const PROCESSING: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Seconds, from receipt to event. 3 is the objective that the alerts go by.
const END_TO_END: [f64; 15] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Seconds: Meta's timestamps are whole seconds, and it tries for 7 days.
const DELAY: [f64; 12] = [
    1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0, 604_800.0,
];
/// Seconds, of uploads: small objects and files of 100 MB.
const UPLOAD: [f64; 14] = [
    0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum StatePost {
    Taken,
    Refused,
    /// Not within a day.
    Expired,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatePostLabels {
    outcome: StatePost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum PublishStatus {
    Confirmed,
    Unroutable,
    Refused,
    TooLarge,
    LeaseLost,
    RedisAway,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PublishLabels {
    status: PublishStatus,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SetAsideLabels {
    reason: &'static str,
}

/// What is uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Uploaded {
    Media,
    /// Raw payloads, and what was set aside.
    Payload,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UploadLabels {
    object: Uploaded,
}

/// How one channel to RabbitMQ is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ChannelState {
    Open,
    /// The broker takes nothing at the moment.
    Blocked,
    Closed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabels {
    state: ChannelState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum PoolState {
    Idle,
    InUse,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    state: PoolState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReceivedLabels {
    message_type: &'static str,
    status: &'static str,
}

/// How long an item took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latencies {
    /// From the read of its entry.
    pub(crate) here: Duration,
    /// From when ingress received it.
    pub(crate) whole: Duration,
    /// From when it happened; `None` for what tells of the past.
    pub(crate) since_meta: Option<Duration>,
}

/// What the worker counts.
#[derive(Clone)]
pub struct Metrics {
    received: CounterByTenant<ReceivedLabels>,
    billing: BillingMetrics,
    processing: Histogram,
    end_to_end: Histogram,
    delay: Histogram,
    published: Family<PublishLabels, Counter>,
    publish_failures: Counter,
    channels: Family<ChannelLabels, Gauge>,
    redis_pool: Family<PoolLabels, Gauge>,
    set_aside: Family<SetAsideLabels, Counter>,
    pub failed_objects: Gauge,
    /// As every worker lists it.
    pub(crate) spool_objects: Gauge,
    pub(crate) unspooled: Counter,
    pub archived: Counter,
    uploads: Family<UploadLabels, Histogram, fn() -> Histogram>,
    pub owned: Gauge,
    /// How many partitions the deployment has.
    pub partition_count: Gauge,
    pub queues: QueueMetrics,
    pub health: HealthMetrics,
    pub silent_numbers: Gauge,
    partitions: PartitionMetrics,
    state_posts: Family<StatePostLabels, Counter>,
    pub caches: CacheMetrics,
    pub neighbours: NeighbourMetrics,
    media: MediaMetrics,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            caches: CacheMetrics::new(registry),
            neighbours: NeighbourMetrics::new(registry),
            received: CounterByTenant::default(),
            billing: BillingMetrics::default(),
            processing: Histogram::new(PROCESSING),
            end_to_end: Histogram::new(END_TO_END),
            delay: Histogram::new(DELAY),
            published: Family::default(),
            publish_failures: Counter::default(),
            channels: Family::default(),
            redis_pool: Family::default(),
            set_aside: Family::default(),
            failed_objects: Gauge::default(),
            spool_objects: Gauge::default(),
            unspooled: Counter::default(),
            archived: Counter::default(),
            uploads: Family::new_with_constructor(|| Histogram::new(UPLOAD)),
            owned: Gauge::default(),
            partition_count: Gauge::default(),
            queues: QueueMetrics::default(),
            health: HealthMetrics::default(),
            silent_numbers: Gauge::default(),
            partitions: PartitionMetrics::default(),
            state_posts: Family::default(),
            media: MediaMetrics::default(),
        };
        metrics.create_known();
        metrics.received.register(
            registry,
            "webhook_received",
            "Items by tenant, type and outcome: published, or why set aside",
        );
        metrics.billing.register(registry);
        metrics.partitions.register(registry);
        metrics.media.register(registry);
        metrics.queues.register(registry);
        metrics.health.register(registry);
        metrics.register_times(registry);
        metrics.register_publications(registry);
        metrics.register_objects(registry);
        metrics.register_ownership(registry);
        metrics
    }

    fn register_publications(&self, registry: &mut Registry) {
        registry.register(
            "whatsapp_state_posts",
            "Posts to the State Manager about messages, by outcome",
            self.state_posts.clone(),
        );
        registry.register(
            "rabbitmq_publish",
            "Publications by outcome",
            self.published.clone(),
        );
        registry.register(
            "rabbitmq_publish_failures",
            "Publications that were not confirmed",
            self.publish_failures.clone(),
        );
        registry.register(
            "whatsapp_rabbitmq_channels",
            "Channels to RabbitMQ, each with a connection of its own, by state",
            self.channels.clone(),
        );
    }

    fn register_objects(&self, registry: &mut Registry) {
        registry.register(
            "whatsapp_webhook_set_aside",
            "Items that went to the failed store, by reason",
            self.set_aside.clone(),
        );
        registry.register(
            "whatsapp_failed_store_objects",
            "Objects in the failed store, at most 10000, as the owner of partition 0 counts them",
            self.failed_objects.clone(),
        );
        registry.register(
            "whatsapp_spool_objects",
            "Objects in the spool, at most 1000 of a partition; every worker counts all",
            self.spool_objects.clone(),
        );
        registry.register(
            "whatsapp_unspooled",
            "Objects of the spool that were put into the stream or found there",
            self.unspooled.clone(),
        );
        registry.register(
            "whatsapp_archived",
            "Raw payloads written to the archive",
            self.archived.clone(),
        );
    }

    fn register_ownership(&self, registry: &mut Registry) {
        registry.register(
            "whatsapp_redis_pool_connections",
            "Connections to Redis of the pool that renews leases, by state",
            self.redis_pool.clone(),
        );
        registry.register(
            "whatsapp_partitions_owned",
            "How many partitions this worker owns",
            self.owned.clone(),
        );
        registry.register(
            "whatsapp_partitions",
            "How many partitions the deployment has",
            self.partition_count.clone(),
        );
        registry.register(
            "whatsapp_silent_numbers",
            "Numbers without traffic for two hours that had some at this time yesterday and a week ago",
            self.silent_numbers.clone(),
        );
    }

    fn register_times(&self, registry: &mut Registry) {
        registry.register(
            "webhook_processing_duration_seconds",
            "From the read of an item's entry to the confirm of its event",
            self.processing.clone(),
        );
        registry.register(
            "whatsapp_webhook_end_to_end_duration_seconds",
            "From an item's receipt by ingress to the confirm of its event",
            self.end_to_end.clone(),
        );
        registry.register(
            "whatsapp_webhook_delay_seconds",
            "From Meta's timestamp of a message or status to the confirm of its event",
            self.delay.clone(),
        );
        registry.register(
            "minio_upload_duration_seconds",
            "Time of uploads; those of media go on while the file arrives",
            self.uploads.clone(),
        );
    }

    /// Makes the series whose labels are known.
    fn create_known(&self) {
        for status in PublishStatus::iter() {
            drop(self.published.get_or_create(&PublishLabels { status }));
        }
        for state in ChannelState::iter() {
            drop(self.channels.get_or_create(&ChannelLabels { state }));
        }
        for state in PoolState::iter() {
            drop(self.redis_pool.get_or_create(&PoolLabels { state }));
        }
        for outcome in StatePost::iter() {
            drop(self.state_posts.get_or_create(&StatePostLabels { outcome }));
        }
        for object in Uploaded::iter() {
            drop(self.uploads.get_or_create(&UploadLabels { object }));
        }
        self.media.create_known();
    }

    /// Makes the series of all reasons for which something is set aside.
    pub(crate) fn create_reasons(&self, reasons: impl Iterator<Item = &'static str>) {
        for reason in reasons {
            drop(self.set_aside.get_or_create(&SetAsideLabels { reason }));
        }
    }

    /// Makes the series of all reasons for which media fails for good.
    pub(crate) fn create_media_failures(&self, reasons: impl Iterator<Item = &'static str>) {
        self.media.create_failures(reasons);
    }

    fn received(&self, tenant: &str, message_type: &'static str, status: &'static str, items: u64) {
        let labels = ReceivedLabels {
            message_type,
            status,
        };
        self.received.count(tenant, labels, items);
    }

    /// An event of an item lies in its queue.
    pub(crate) fn item_published(&self, tenant: &str, message_type: &'static str, took: Latencies) {
        self.received(tenant, message_type, "published", 1);
        self.processing.observe(took.here.as_secs_f64());
        self.end_to_end.observe(took.whole.as_secs_f64());
        if let Some(since_meta) = took.since_meta {
            self.delay.observe(since_meta.as_secs_f64());
        }
    }

    /// An item goes to the failed store.
    pub(crate) fn item_set_aside(
        &self,
        tenant: Option<&str>,
        message_type: &'static str,
        reason: &'static str,
    ) {
        let tenant = tenant.unwrap_or(NONE);
        self.received(tenant, message_type, reason, 1);
        self.set_aside
            .get_or_create(&SetAsideLabels { reason })
            .inc();
    }

    /// A whole entry goes to the failed store, unread.
    pub(crate) fn entry_set_aside(&self, items: usize, reason: &'static str) {
        let items = items.max(1) as u64;
        self.received(NONE, NONE, reason, items);
        let labels = SetAsideLabels { reason };
        self.set_aside.get_or_create(&labels).inc_by(items);
    }

    pub(crate) fn uploaded(&self, object: Uploaded, took: Duration) {
        let labels = UploadLabels { object };
        let histogram = self.uploads.get_or_create(&labels);
        histogram.observe(took.as_secs_f64());
    }

    /// A channel changed its state, or was made (`before` is `None`).
    pub(crate) fn channel(&self, before: Option<ChannelState>, now: ChannelState) {
        let of = |state| ChannelLabels { state };
        if let Some(before) = before {
            self.channels.get_or_create(&of(before)).dec();
        }
        self.channels.get_or_create(&of(now)).inc();
    }

    pub(crate) fn redis_pool(&self, size: usize, idle: usize) {
        let set = |state, count: usize| {
            let gauge = self.redis_pool.get_or_create(&PoolLabels { state });
            gauge.set(count as i64);
        };
        set(PoolState::Idle, idle);
        set(PoolState::InUse, size.saturating_sub(idle));
    }

    pub(crate) fn published(&self, status: PublishStatus) {
        self.published
            .get_or_create(&PublishLabels { status })
            .inc();
        if status != PublishStatus::Confirmed {
            self.publish_failures.inc();
        }
    }

    pub(crate) fn state_post(&self, outcome: StatePost) {
        self.state_posts
            .get_or_create(&StatePostLabels { outcome })
            .inc();
    }
}
