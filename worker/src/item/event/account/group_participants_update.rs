//! `group_participants_update`: people joined or left a group, or ask to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::errors::MetaError;
use crate::item::event::values::{Text, Timestamp};

/// Changes of who is in a group.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupParticipants {
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupMembership>>,
}

/// Who joined, left or asks to.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupMembership {
    /// `group_participants_add`, `group_participants_remove`, `group_join_request_created`,
    /// `group_join_request_revoked`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    /// Of the call to the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Text>,
    /// `invite_link`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    /// `business` or `participant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    initiated_by: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_request_id: Option<Text>,
    /// Who asks to join.
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    added_participants: Option<Vec<GroupParticipant>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed_participants: Option<Vec<GroupParticipant>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_participants: Option<Vec<GroupParticipant>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}

/// A member of a group.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupParticipant {
    /// As the call to the API named them.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<Text>,
    /// Why nothing changed for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}
