//! What is counted of accounts, numbers and templates that aren't well, by the one worker that watches.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::by_tenant::{MOST_TENANTS, NONE, OTHER};

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct HealthLabels {
    tenant: String,
    kind: &'static str,
}

/// By tenant and kind. A worker that doesn't watch has no series.
#[derive(Clone, Default)]
pub struct HealthMetrics(Family<HealthLabels, Gauge>);

impl HealthMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "whatsapp_health_unwell",
            "Accounts, numbers and templates of a tenant that are not well, by kind, as the one worker that \
             watches for all sees it",
            self.0.clone(),
        );
    }

    /// Those that aren't well now: whose each is, and of what kind.
    pub(crate) fn unwell<'a>(&self, unwell: impl Iterator<Item = (&'a str, &'static str)>) {
        let mut counts = BTreeMap::<HealthLabels, i64>::new();
        let mut tenants = BTreeSet::new();
        for (tenant, kind) in unwell {
            let has_room = tenants.len() < MOST_TENANTS || tenants.contains(tenant);
            let tenant = if has_room { tenant } else { OTHER };
            tenants.insert(tenant);
            let labels = HealthLabels {
                tenant: tenant.to_owned(),
                kind,
            };
            *counts.entry(labels).or_default() += 1;
        }
        self.0.clear();
        // There from the start, so that somebody sees that it is looked at.
        let nobody = HealthLabels {
            tenant: NONE.to_owned(),
            kind: "silence",
        };
        self.0.get_or_create(&nobody).set(0);
        for (labels, count) in counts {
            self.0.get_or_create(&labels).set(count);
        }
    }

    pub(crate) fn clear(&self) {
        self.0.clear();
    }
}
