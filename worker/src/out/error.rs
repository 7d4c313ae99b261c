//! The one place that decides what happens to an item that didn't go out: try again, or set it
//! aside. What waits for a server (RabbitMQ, Redis, the Tenant Service) waits where that server is
//! spoken to, and never comes here.

#![deny(clippy::wildcard_enum_match_arm)]

use strum::{EnumIter, EnumString, IntoStaticStr};

use crate::item::event::Unwritable;
use crate::item::tenant::Verdict;
use crate::out::publisher::NotPublished;
use crate::out::store::StoreError;

/// Why an item didn't go out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    NotPublished(#[from] NotPublished),
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    #[error("the URL of its media can't be signed: {0}")]
    Unsigned(#[from] StoreError),
    #[error("making its event panicked")]
    Panicked,
    #[error("the entry names an item that its body doesn't have")]
    NoSuchItem,
    #[error("its business account has no tenant that can be used")]
    Tenant(Verdict),
    #[error("it was another tenant's, whose account has passed on")]
    TenantChanged,
}

/// Why something lies in the failed store.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, EnumIter, EnumString, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    TenantUnknown,
    TenantSuspended,
    TenantUnusable,
    TenantChanged,
    Unreadable,
    Undecodable,
    Crashes,
    Unwritable,
    TooLarge,
    Panicked,
    NoSuchItem,
}

impl Reason {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether what was set aside goes back into the stream by itself, once its account has a tenant.
    pub fn ends_with_a_tenant(self) -> bool {
        match self {
            Self::TenantUnknown | Self::TenantUnusable => true,
            Self::TenantSuspended
            | Self::TenantChanged
            | Self::Unreadable
            | Self::Undecodable
            | Self::Crashes
            | Self::Unwritable
            | Self::TooLarge
            | Self::Panicked
            | Self::NoSuchItem => false,
        }
    }

    /// For whoever looks into the failed store; nothing of the payload is in it.
    pub fn description(self) -> &'static str {
        match self {
            Self::TenantUnknown => "the Tenant Service knows no tenant of this business account",
            Self::TenantSuspended => "the tenant is suspended",
            Self::TenantUnusable => {
                "what the Tenant Service says of this business account can't be used"
            }
            Self::TenantChanged => "the business account is another tenant's now",
            Self::Unreadable => "the body can't be read",
            Self::Undecodable => "the stream entry can't be decoded by this version",
            Self::Crashes => "workers died each time they had it in work alone",
            Self::Unwritable => "its event can't be written as JSON",
            Self::TooLarge => "its event is larger than the broker's max_message_size",
            Self::Panicked => "making its event panicked",
            Self::NoSuchItem => "the entry names an item that its body doesn't have",
        }
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The same again, after a while.
    Retry,
    /// To the failed store, with this reason.
    SetAside(Reason),
    /// It is the next owner's.
    Leave,
    /// It goes on: nothing failed.
    GoOn,
}

impl Failure {
    pub fn decide(&self) -> Decision {
        match self {
            // A queue that is missing or full is an operator's to mend, not the item's fault.
            Self::NotPublished(
                NotPublished::Unroutable | NotPublished::Refused | NotPublished::RedisAway,
            )
            | Self::Unsigned(_) => Decision::Retry,
            Self::NotPublished(NotPublished::TooLarge) => Decision::SetAside(Reason::TooLarge),
            Self::NotPublished(NotPublished::LeaseLost) => Decision::Leave,
            Self::Unwritable(_) => Decision::SetAside(Reason::Unwritable),
            Self::Panicked => Decision::SetAside(Reason::Panicked),
            Self::NoSuchItem => Decision::SetAside(Reason::NoSuchItem),
            Self::Tenant(verdict) => of_tenant(verdict),
            Self::TenantChanged => Decision::SetAside(Reason::TenantChanged),
        }
    }
}

fn of_tenant(verdict: &Verdict) -> Decision {
    match verdict {
        Verdict::Active(_) => Decision::GoOn,
        Verdict::Suspended(_) => Decision::SetAside(Reason::TenantSuspended),
        Verdict::Unknown => Decision::SetAside(Reason::TenantUnknown),
        Verdict::Unusable => Decision::SetAside(Reason::TenantUnusable),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use strum::IntoEnumIterator;

    use super::*;
    use crate::item::tenant::Tenant;

    /// Whatever is wrong with the item itself is set aside: tried again it would hold up its lane for ever.
    #[test]
    fn what_an_operator_mends_is_tried_again_and_what_nobody_can_is_set_aside() {
        let not_json = serde_json::from_str::<u8>("").expect_err("no number");
        let decided = [
            (NotPublished::Unroutable.into(), Decision::Retry),
            (NotPublished::Refused.into(), Decision::Retry),
            (NotPublished::RedisAway.into(), Decision::Retry),
            (NotPublished::LeaseLost.into(), Decision::Leave),
            (
                NotPublished::TooLarge.into(),
                Decision::SetAside(Reason::TooLarge),
            ),
            (
                Failure::Unwritable(not_json.into()),
                Decision::SetAside(Reason::Unwritable),
            ),
            (Failure::Panicked, Decision::SetAside(Reason::Panicked)),
            (Failure::NoSuchItem, Decision::SetAside(Reason::NoSuchItem)),
            (
                Failure::TenantChanged,
                Decision::SetAside(Reason::TenantChanged),
            ),
        ];
        for (failure, decision) in decided {
            assert_eq!(failure.decide(), decision, "{failure}");
        }
    }

    #[test]
    fn only_an_active_tenants_items_go_out() {
        let tenant = Arc::new(Tenant::default());
        let decided = [
            (Verdict::Active(tenant.clone()), Decision::GoOn),
            (
                Verdict::Suspended(tenant),
                Decision::SetAside(Reason::TenantSuspended),
            ),
            (Verdict::Unknown, Decision::SetAside(Reason::TenantUnknown)),
            (
                Verdict::Unusable,
                Decision::SetAside(Reason::TenantUnusable),
            ),
        ];
        for (verdict, decision) in decided {
            assert_eq!(Failure::Tenant(verdict).decide(), decision);
        }
    }

    #[test]
    fn only_what_lacks_a_tenant_returns_by_itself() {
        let returning: Vec<Reason> = Reason::iter()
            .filter(|reason| reason.ends_with_a_tenant())
            .collect();
        assert_eq!(returning, [Reason::TenantUnknown, Reason::TenantUnusable]);
    }

    /// What lies in the failed store names its reason.
    #[test]
    fn a_reason_is_read_as_it_was_written() {
        for reason in Reason::iter() {
            assert_eq!(reason.name().parse(), Ok(reason));
        }
    }
}
