//! `partner_solutions`: a multi-partner solution was made or changed. It is a portfolio's: no account, and so no tenant, has it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// A multi-partner solution was made or changed. It belongs to a business portfolio, and to no
/// account.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PartnerSolution {
    /// Meta's word for what happened is an open set: `SOLUTION_CREATED`, `SOLUTION_UPDATED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    /// Meta identifies the solution by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    solution_id: Option<Text>,
    /// The solution has this status: `DRAFT`, `INITIATED`, `ACTIVE`, `REJECTED`,
    /// `PENDING_DEACTIVATION`, `DEACTIVATED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    solution_status: Option<Text>,
}
