//! `group_status_update`: a group was suspended, or no longer is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::errors::MetaError;
use crate::item::event::values::{Text, Timestamp};

/// Groups were suspended, or no longer are.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupSuspension>>,
}

/// This group was suspended, or no longer is.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupSuspension {
    /// This says what happened: `group_suspend`, `group_suspend_cleared`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    /// Meta identifies the group by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<Text>,
    /// It happened at this time, as Meta says.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    /// Meta reports these errors with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}
