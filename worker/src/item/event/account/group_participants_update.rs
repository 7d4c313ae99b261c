//! `group_participants_update`: people joined or left a group, or ask to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::errors::MetaError;
use crate::item::event::values::{Text, Timestamp};

/// People joined or left groups, or ask to join them.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupParticipants {
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupMembership>>,
}

/// People joined or left this group, or somebody asks to join it.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupMembership {
    /// This says what happened: `group_participants_add`, `group_participants_remove`,
    /// `group_join_request_created`, `group_join_request_revoked`, …
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
    /// This says how it came about: `invite_link`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    /// The `business` removed the people, or they left by themselves (`participant`).
    #[serde(skip_serializing_if = "Option::is_none")]
    initiated_by: Option<Text>,
    /// Meta identifies the request to join by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    join_request_id: Option<Text>,
    /// This is WhatsApp's id of the person who asks to join.
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<Text>,
    /// This is the business-scoped id of the person who asks to join.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    /// This is the parent business-scoped id of the person who asks to join.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
    /// This is the username of the person who asks to join.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<Text>,
    /// These people joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    added_participants: Option<Vec<GroupParticipant>>,
    /// These people left or were removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed_participants: Option<Vec<GroupParticipant>>,
    /// Nothing changed for these people, since that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_participants: Option<Vec<GroupParticipant>>,
    /// All or part of it failed because of these errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}

/// This is a person who joined or left a group, or for whom that failed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupParticipant {
    /// The request to the API named the person so.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Text>,
    /// This is WhatsApp's id of the person. It is missing if Meta withholds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<Text>,
    /// This is the business-scoped id of the person.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    /// This is the parent business-scoped id of the person.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<Text>,
    /// Nothing changed for the person because of these errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}
