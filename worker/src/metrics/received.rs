//! `webhook_received_total`: every item by its outcome. Its labels come from closed sets: tenants that
//! were resolved, the first of them by name; the known types; the outcomes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Tenants with series of their own; the others share one.
const MOST_TENANTS: usize = 500;
const OTHER: &str = "other";
/// What has no tenant, or no type that is known.
pub(crate) const NONE: &str = "none";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    tenant: String,
    message_type: &'static str,
    status: &'static str,
}

/// By message type and status.
type OfTenant = HashMap<(&'static str, &'static str), Counter>;

/// Items by outcome.
#[derive(Clone, Default)]
pub(super) struct Received {
    family: Family<Labels, Counter>,
    /// Counters by tenant: a label set built for each item would cost more than the counting.
    counters: Arc<RwLock<HashMap<String, OfTenant>>>,
}

impl Received {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "webhook_received",
            "Items by tenant, type and outcome: published, or why set aside",
            self.family.clone(),
        );
    }

    pub(super) fn count(
        &self,
        tenant: &str,
        message_type: &'static str,
        status: &'static str,
        items: u64,
    ) {
        let of = (message_type, status);
        let known = {
            let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
            let of_tenant = counters.get(named(&counters, tenant));
            of_tenant.and_then(|counters| counters.get(&of)).cloned()
        };
        known
            .unwrap_or_else(|| self.counter(tenant, of))
            .inc_by(items);
    }

    fn counter(&self, tenant: &str, of: (&'static str, &'static str)) -> Counter {
        let mut counters = (self.counters.write()).unwrap_or_else(PoisonError::into_inner);
        let tenant = named(&counters, tenant).to_owned();
        let (message_type, status) = of;
        let labels = Labels {
            tenant: tenant.clone(),
            message_type,
            status,
        };
        let counter = self.family.get_or_create(&labels).clone();
        let of_tenant = counters.entry(tenant).or_default();
        of_tenant.entry(of).or_insert(counter).clone()
    }
}

/// The tenant's own label, while there is room for it.
fn named<'t>(counters: &HashMap<String, OfTenant>, tenant: &'t str) -> &'t str {
    let has_room = counters.len() < MOST_TENANTS || counters.contains_key(tenant);
    if has_room { tenant } else { OTHER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_beyond_the_first_share_a_series() {
        let received = Received::default();
        let mut registry = Registry::default();
        received.register(&mut registry);
        for round in 0..2 {
            for n in 0..MOST_TENANTS + 20 {
                received.count(&format!("t{n}"), "text", "published", 1 + round);
            }
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        let series = |tenant: &str| {
            let start = format!("webhook_received_total{{tenant=\"{tenant}\",");
            let mut lines = text.lines().filter(|line| line.starts_with(&start));
            lines.find_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok())
        };
        assert_eq!((series("t0"), series("t499")), (Some(3), Some(3)));
        assert_eq!((series("t500"), series(OTHER)), (None, Some(60)));
    }
}
