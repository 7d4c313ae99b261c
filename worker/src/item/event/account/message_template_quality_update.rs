//! `message_template_quality_update`: how customers take a template.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// The quality before and now: `GREEN`, `YELLOW`, `RED`, `UNKNOWN`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TemplateQuality {
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_quality_score: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_quality_score: Option<Text>,
    /// Text, since it may be more than a double holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_language: Option<Text>,
}
