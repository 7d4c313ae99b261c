//! `group_settings_update`: a group's picture, subject or description was changed, or that failed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::errors::MetaError;
use crate::item::event::values::{Bool, Digest, Text, Timestamp};

/// The picture, name or description of groups was changed, or that failed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupSettingsChange>>,
}

/// The picture, name or description of this group was changed, or that failed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupSettingsChange {
    /// This is `group_settings_update`.
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
    /// The picture of the group was to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_picture: Option<GroupSetting>,
    /// The name of the group was to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    group_subject: Option<GroupSetting>,
    /// The description of the group was to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    group_description: Option<GroupSetting>,
    /// All or part of it failed because of these errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}

/// This is the new value of one setting.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupSetting {
    /// This is the text of a name or description.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text>,
    /// This is the MIME type of a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<Text>,
    /// This is the SHA-256 digest of a picture, written as 64 hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
    /// This is true if the setting was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    update_successful: Option<Bool>,
    /// The setting was not changed because of these errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}
