//! Counters with a tenant's label. Their labels come from closed sets: tenants that were resolved, the
//! first of them by name; and words that are known.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Tenants with series of their own; the others share one.
pub(super) const MOST_TENANTS: usize = 500;
pub(super) const OTHER: &str = "other";
/// What has no tenant, or no type that is known.
pub(crate) const NONE: &str = "none";

/// The labels beside the tenant's.
pub(super) trait OtherLabels:
    EncodeLabelSet + Copy + Debug + Eq + Hash + Send + Sync + 'static
{
}

impl<L: EncodeLabelSet + Copy + Debug + Eq + Hash + Send + Sync + 'static> OtherLabels for L {}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TenantLabels<L: OtherLabels> {
    tenant: String,
    others: L,
}

impl<L: OtherLabels> EncodeLabelSet for TenantLabels<L> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        let tenant = ("tenant", self.tenant.as_str());
        EncodeLabel::encode(&tenant, encoder.encode_label())?;
        self.others.encode(encoder)
    }
}

/// A counter by tenant and other labels.
#[derive(Clone)]
pub(super) struct CounterByTenant<L: OtherLabels> {
    family: Family<TenantLabels<L>, Counter>,
    /// Counters by tenant: a label set built for each item would cost more than the counting.
    counters: Arc<RwLock<HashMap<String, HashMap<L, Counter>>>>,
}

impl<L: OtherLabels> Default for CounterByTenant<L> {
    fn default() -> Self {
        Self {
            family: Family::default(),
            counters: Arc::default(),
        }
    }
}

impl<L: OtherLabels> CounterByTenant<L> {
    pub(super) fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.family.clone());
    }

    pub(super) fn count(&self, tenant: &str, others: L, by: u64) {
        let known = {
            let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
            let of_tenant = counters.get(named(&counters, tenant));
            of_tenant
                .and_then(|counters| counters.get(&others))
                .cloned()
        };
        known
            .unwrap_or_else(|| self.counter(tenant, others))
            .inc_by(by);
    }

    fn counter(&self, tenant: &str, others: L) -> Counter {
        let mut counters = (self.counters.write()).unwrap_or_else(PoisonError::into_inner);
        let tenant = named(&counters, tenant).to_owned();
        let labels = TenantLabels {
            tenant: tenant.clone(),
            others,
        };
        let counter = self.family.get_or_create(&labels).clone();
        let of_tenant = counters.entry(tenant).or_default();
        of_tenant.entry(others).or_insert(counter).clone()
    }
}

/// The tenant's own label, while there is room for it.
fn named<'t, C>(counters: &HashMap<String, C>, tenant: &'t str) -> &'t str {
    let has_room = counters.len() < MOST_TENANTS || counters.contains_key(tenant);
    if has_room { tenant } else { OTHER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Word {
        word: &'static str,
    }

    #[test]
    fn tenants_beyond_the_first_share_a_series() {
        let counted = CounterByTenant::default();
        let mut registry = Registry::default();
        counted.register(&mut registry, "counted", "");
        for round in 0..2 {
            for n in 0..MOST_TENANTS + 20 {
                counted.count(&format!("t{n}"), Word { word: "text" }, 1 + round);
            }
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        let series = |tenant: &str| {
            let start = format!("counted_total{{tenant=\"{tenant}\",word=\"text\"}}");
            let mut lines = text.lines().filter(|line| line.starts_with(&start));
            lines.find_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok())
        };
        assert_eq!((series("t0"), series("t499")), (Some(3), Some(3)));
        assert_eq!((series("t500"), series(OTHER)), (None, Some(60)));
    }
}
