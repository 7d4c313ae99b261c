//! `template_category_update`, in two shapes. Announced: `correctCategory` and `categoryUpdateTimestamp` are there, and
//! `newCategory` is what the template is *now*. Done: `previousCategory` is there, and `newCategory` is what it became.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// Meta moves a template into another category. A change that is announced has `correctCategory`,
/// and one that is done has `previousCategory`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TemplateCategory {
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
    /// The template was in this category before. Only a change that is done has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_category: Option<Text>,
    /// The template is in this category now: `MARKETING`, `UTILITY`, `AUTHENTICATION`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    new_category: Option<Text>,
    /// The template will be in this category. Only a change that is announced has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    correct_category: Option<Text>,
    /// The announced change happens at this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    category_update_timestamp: Option<Timestamp>,
}
