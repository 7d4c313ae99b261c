//! `template_correct_category_detection`: Meta takes a template of Direct Send for one of another category.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// What it was sent as, and what Meta takes it for.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CorrectCategory {
    /// Text, since it may be more than a double holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_language: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correct_category: Option<Text>,
}
