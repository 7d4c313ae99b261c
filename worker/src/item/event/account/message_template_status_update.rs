//! `message_template_status_update`: a template was approved, rejected, paused, …

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// A template was approved, rejected, …
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TemplateStatus {
    /// `APPROVED`, `REJECTED`, `PAUSED`, `DISABLED`, `ARCHIVED`, `UNARCHIVED`, `LOCKED`, `LIMIT_EXCEEDED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    /// Text, since it may be more than a double holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_language: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_category: Option<Text>,
    /// `NONE`, or why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection_info: Option<RejectionInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_info: Option<DisableInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_info: Option<OtherInfo>,
    /// Meta's own example has the quality under this field, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_quality_score: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_quality_score: Option<Text>,
}

/// Why a template was rejected.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct RejectionInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recommendation: Option<Text>,
}

/// When a template was disabled.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct DisableInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_date: Option<Timestamp>,
}

/// What else there is to say.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct OtherInfo {
    /// `FIRST_PAUSE`, `SECOND_PAUSE`, `UNPAUSE`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Text>,
}
