//! What is counted of the caches.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};

use super::label_values;

label_values!(Cache);

/// What is remembered where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
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
struct CacheLabels {
    cache: Cache,
}

/// What is counted of the caches.
#[derive(Clone, Debug, Default)]
pub struct CacheMetrics {
    hits: Family<CacheLabels, Counter>,
    misses: Family<CacheLabels, Counter>,
    stale: Counter,
    pub tokens_rejected: Gauge,
}

impl CacheMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for cache in Cache::iter() {
            drop(metrics.hits.get_or_create(&CacheLabels { cache }));
            drop(metrics.misses.get_or_create(&CacheLabels { cache }));
        }
        registry.register(
            "cache_hit",
            "Lookups that a cache answered",
            metrics.hits.clone(),
        );
        registry.register(
            "cache_miss",
            "Lookups that a cache could not answer",
            metrics.misses.clone(),
        );
        registry.register(
            "whatsapp_tenants_stale",
            "Lookups answered with an older answer of the Tenant Service, because it could not be asked",
            metrics.stale.clone(),
        );
        registry.register(
            "whatsapp_graph_tokens_rejected",
            "Accounts whose access token the Graph API refuses",
            metrics.tokens_rejected.clone(),
        );
        metrics
    }

    pub(crate) fn count(&self, cache: Cache, hit: bool) {
        let counted = if hit { &self.hits } else { &self.misses };
        counted.get_or_create(&CacheLabels { cache }).inc();
    }

    pub(crate) fn stale(&self) {
        self.stale.inc();
    }
}
