//! What messages cost and who sent them, as far as it can be counted: a message once, however many of its
//! statuses tell its price.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::Registry;
use strum::{EnumString, IntoStaticStr};

use super::by_tenant::CounterByTenant;
use super::{Metrics, label_values};

label_values!(PriceCategory, PriceType, Billable);

/// Ids that a partition remembers, twice at most: 18 bytes each at most.
const REMEMBERED: usize = 28_672;

/// What a message is priced as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum PriceCategory {
    Authentication,
    AuthenticationInternational,
    GeneralPurposeAi,
    GroupMarketing,
    GroupService,
    GroupUtility,
    Marketing,
    MarketingLite,
    ReferralConversion,
    Service,
    Utility,
    /// A word that nobody knows here.
    Other,
    None,
}

/// By which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum PriceType {
    FreeCustomerService,
    FreeEntryPoint,
    Regular,
    Other,
    None,
}

/// Whether it costs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Billable {
    True,
    False,
    /// Meta doesn't say.
    None,
}

/// The price of a message, in words that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Price {
    category: PriceCategory,
    r#type: PriceType,
    billable: Billable,
}

impl Price {
    /// Of Meta's words. The international category has two spellings.
    pub fn of(category: Option<&str>, kind: Option<&str>, billable: Option<bool>) -> Self {
        let category = category.map(|word| word.replace('-', "_"));
        Self {
            category: category.map_or(PriceCategory::None, |word| {
                word.parse().unwrap_or(PriceCategory::Other)
            }),
            r#type: kind.map_or(PriceType::None, |word| {
                word.parse().unwrap_or(PriceType::Other)
            }),
            billable: match billable {
                Some(true) => Billable::True,
                Some(false) => Billable::False,
                None => Billable::None,
            },
        }
    }
}

/// Ids seen lately: the last [`REMEMBERED`] of them, and up to as many before these.
#[derive(Debug, Default)]
struct RecentIds {
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl RecentIds {
    /// Whether it wasn't seen lately; it is now.
    fn is_new(&mut self, id: u64) -> bool {
        if self.old.contains(&id) || self.young.contains(&id) {
            return false;
        }
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id)
    }
}

/// None beside the tenant's.
type NoLabels = [(&'static str, &'static str); 0];

/// What is counted of prices and senders.
#[derive(Clone, Default)]
pub(super) struct BillingMetrics {
    priced: CounterByTenant<Price>,
    without_phone: CounterByTenant<NoLabels>,
    hasher: RandomState,
    /// Hashes of priced messages' ids, by partition.
    counted: Arc<Mutex<HashMap<u16, RecentIds>>>,
}

impl BillingMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.priced.register(
            registry,
            "whatsapp_messages_priced",
            "Messages of the business with a price from Meta, each counted at its first status with a price; a message may count again after a restart or takeover",
        );
        self.without_phone.register(
            registry,
            "whatsapp_senders_without_phone",
            "Received messages whose sender came without a phone number",
        );
    }
}

impl Metrics {
    /// A status of a message told its price.
    pub(crate) fn message_priced(
        &self,
        tenant: &str,
        partition: u16,
        message_id: &str,
        price: Price,
    ) {
        let id = self.billing.hasher.hash_one(message_id);
        let is_new = {
            let counted = self.billing.counted.lock();
            let mut counted = counted.unwrap_or_else(PoisonError::into_inner);
            counted.entry(partition).or_default().is_new(id)
        };
        if is_new {
            self.billing.priced.count(tenant, price, 1);
        }
    }

    pub(crate) fn sender_without_phone(&self, tenant: &str) {
        self.billing.without_phone.count(tenant, [], 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_has_known_words_only() {
        let price = |category| Price::of(Some(category), Some("regular"), Some(true)).category;
        let international = PriceCategory::AuthenticationInternational;
        assert_eq!(price("authentication-international"), international);
        assert_eq!(price("authentication_international"), international);
        assert_eq!(price("service"), PriceCategory::Service);
        assert_eq!(price("a stranger's"), PriceCategory::Other);
        let nothing = Price::of(None, None, None);
        assert_eq!(
            (nothing.category, nothing.r#type, nothing.billable),
            (PriceCategory::None, PriceType::None, Billable::None)
        );
    }

    #[test]
    fn an_id_is_new_once_and_memory_is_bounded() {
        let mut recent = RecentIds::default();
        for id in 0..10 * REMEMBERED as u64 {
            assert!(recent.is_new(id));
            assert!(!recent.is_new(id), "seen just before");
            assert!(!recent.is_new(id.saturating_sub(REMEMBERED as u64)));
            assert!(recent.young.len() + recent.old.len() <= 2 * REMEMBERED);
        }
        assert!(recent.is_new(0), "long forgotten");
    }
}
