//! `template_correct_category_detection`: Meta takes a template of Direct Send for one of another category.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// Meta takes a template that was sent by Direct Send for one of another category.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CorrectCategory {
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
    /// The template was sent as one of this category.
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Text>,
    /// Meta takes the template for one of this category.
    #[serde(skip_serializing_if = "Option::is_none")]
    correct_category: Option<Text>,
}
