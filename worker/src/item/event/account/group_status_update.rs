//! `group_status_update`: a group was suspended, or no longer is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::errors::MetaError;
use crate::item::event::values::{Text, Timestamp};

/// Groups whose state changed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupSuspension>>,
}

/// The state of a group.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupSuspension {
    /// `group_suspend`, `group_suspend_cleared`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}
