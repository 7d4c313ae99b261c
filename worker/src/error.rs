//! The one place that decides what happens to an item that didn't go out: try again, or set it
//! aside. What waits for a server (RabbitMQ, Redis, the Tenant Service) waits where that server is
//! spoken to, and never comes here.

#![deny(clippy::wildcard_enum_match_arm)]

use crate::event::Unwritable;
use crate::publisher::NotPublished;
use crate::tenants::Verdict;

/// Why an item didn't go out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    NotPublished(#[from] NotPublished),
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    #[error("the URL of its media can't be signed: {0}")]
    Unsigned(#[from] object_store::Error),
    #[error("making its event panicked")]
    Panicked,
    #[error("the entry names an item that its body doesn't have")]
    NoSuchItem,
    #[error("its business account has no tenant, or a suspended one")]
    Tenant(Verdict),
}

/// Why something is set aside: a whole entry for one of the first three, else an item.
pub const REASONS: [&str; 8] = [
    "undecodable",
    "unreadable",
    "crashes",
    "unwritable",
    "panicked",
    "no_such_item",
    "tenant_suspended",
    "tenant_unknown",
];

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The same again, after a while.
    Retry,
    /// To the failed store, with this reason.
    SetAside(&'static str),
    /// It is the next owner's.
    Leave,
    /// It goes on: nothing failed.
    GoOn,
}

impl Failure {
    pub fn decide(&self) -> Decision {
        match self {
            // A queue that is missing or full is an operator's to mend, not the item's fault.
            Self::NotPublished(NotPublished::Unroutable | NotPublished::Refused) => Decision::Retry,
            Self::Unsigned(_) => Decision::Retry,
            Self::NotPublished(NotPublished::LeaseLost) => Decision::Leave,
            Self::Unwritable(_) => Decision::SetAside("unwritable"),
            Self::Panicked => Decision::SetAside("panicked"),
            Self::NoSuchItem => Decision::SetAside("no_such_item"),
            Self::Tenant(verdict) => of_tenant(verdict),
        }
    }
}

fn of_tenant(verdict: &Verdict) -> Decision {
    match verdict {
        Verdict::Active(_) => Decision::GoOn,
        Verdict::Suspended(_) => Decision::SetAside("tenant_suspended"),
        Verdict::Unknown => Decision::SetAside("tenant_unknown"),
    }
}
