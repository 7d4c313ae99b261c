//! `message_template_status_update`: a template was approved, rejected, paused, …

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// A template was approved, rejected, paused and so on.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TemplateStatus {
    /// Meta's word for what happened is an open set: `APPROVED`, `REJECTED`, `PAUSED`, `DISABLED`,
    /// `ARCHIVED`, `UNARCHIVED`, `LOCKED`, `LIMIT_EXCEEDED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    /// Meta identifies the template by this id. It is text, since a double may not hold the number
    /// exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_id: Option<Text>,
    /// The template has this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_name: Option<Text>,
    /// The template is in this language, such as `en_US`.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_language: Option<Text>,
    /// The template is of this category: `MARKETING`, `UTILITY`, `AUTHENTICATION`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_category: Option<Text>,
    /// The template was rejected for this reason, such as `INVALID_FORMAT`. It is `NONE` if there
    /// is no reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection_info: Option<RejectionInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_info: Option<DisableInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_info: Option<OtherInfo>,
    /// The template had this quality before. Meta's own example has it under this field, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_quality_score: Option<Text>,
    /// The template has this quality now.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_quality_score: Option<Text>,
}

/// This tells people why the template was rejected.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct RejectionInfo {
    /// This text says what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    /// This text says what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    recommendation: Option<Text>,
}

/// The template was disabled.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct DisableInfo {
    /// The template was disabled at this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_date: Option<Timestamp>,
}

/// This says more about what happened, such as the pause of the template.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct OtherInfo {
    /// Meta's word for it is an open set: `FIRST_PAUSE`, `SECOND_PAUSE`, `UNPAUSE`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<Text>,
    /// This text tells people about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Text>,
}
