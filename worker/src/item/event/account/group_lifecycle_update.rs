//! `group_lifecycle_update`: a group was created or deleted, or that failed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::errors::MetaError;
use crate::item::event::values::{Text, Timestamp};

/// Groups were created or deleted, or that failed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupLifecycle {
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupCreation>>,
}

/// This group was created or deleted. If there are `errors`, that failed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupCreation {
    /// This says what was done: `group_create`, `group_delete`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    /// Meta identifies the group by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<Text>,
    /// It happened at this time, as Meta says.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    /// This is the id of the request to the API that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Text>,
    /// The group has this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Text>,
    /// The group has this description.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Text>,
    /// People can join the group by this link.
    #[serde(skip_serializing_if = "Option::is_none")]
    invite_link: Option<Text>,
    /// People join at once (`auto_approve`), or when the business has approved it
    /// (`approval_required`), …
    #[serde(skip_serializing_if = "Option::is_none")]
    join_approval_mode: Option<Text>,
    /// It failed because of these errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}
