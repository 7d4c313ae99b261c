//! `message_template_quality_update`: how customers take a template.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// The quality of a template changed. The scores are `GREEN` (high), `YELLOW`, `RED` (low) and
/// `UNKNOWN`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TemplateQuality {
    /// The template had this score before.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_quality_score: Option<Text>,
    /// The template has this score now.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_quality_score: Option<Text>,
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
}
