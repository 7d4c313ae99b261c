//! `group_settings_update`: a group's picture, subject or description was changed, or that failed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::errors::MetaError;
use crate::item::event::values::{Bool, Digest, Text, Timestamp};

/// Changes of how groups look.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupSettingsChange>>,
}

/// How a group looks now.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupSettingsChange {
    /// `group_settings_update`.
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
    profile_picture: Option<GroupSetting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_subject: Option<GroupSetting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_description: Option<GroupSetting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}

/// One setting.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct GroupSetting {
    /// Of a subject or description.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text>,
    /// Of a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<Text>,
    /// Of a picture: in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_successful: Option<Bool>,
    /// Why it was not changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}
