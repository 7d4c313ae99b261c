//! `partner_solutions`: a multi-partner solution was made or changed. It is a portfolio's: no account, and so no tenant, has it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// The state of a solution.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PartnerSolution {
    /// `SOLUTION_CREATED`, `SOLUTION_UPDATED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    solution_id: Option<Text>,
    /// `DRAFT`, `INITIATED`, `ACTIVE`, `REJECTED`, `PENDING_DEACTIVATION`, `DEACTIVATED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    solution_status: Option<Text>,
}
