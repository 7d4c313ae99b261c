//! `account_review_update`: an account was reviewed against Meta's policies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// Meta reviewed the account against its policies.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AccountReview {
    /// Meta decided this: `APPROVED`, `REJECTED`, `PENDING`, `DEFERRED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Text>,
}
