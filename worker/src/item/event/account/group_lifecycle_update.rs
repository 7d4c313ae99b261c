//! `group_lifecycle_update`: a group was created or deleted, or that failed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::errors::MetaError;
use crate::item::event::values::{Text, Timestamp};

/// Groups that came or went.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupLifecycle {
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupCreation>>,
}

/// A group that came or went; with `errors` it did not.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupCreation {
    /// `group_create`, `group_delete`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    /// Of the call to the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invite_link: Option<Text>,
    /// `auto_approve`, `approval_required`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    join_approval_mode: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}
