//! `message_template_components_update`: the text or buttons of a template were changed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// The template as it is now.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TemplateComponents {
    /// Text, since it may be more than a double holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_language: Option<Text>,
    /// The header.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_title: Option<Text>,
    /// The body.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_element: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_footer: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_buttons: Option<Vec<TemplateButton>>,
}

/// A button.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TemplateButton {
    /// `URL`, `PHONE_NUMBER`, `QUICK_REPLY`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_button_type: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_button_text: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_button_url: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_button_phone_number: Option<Text>,
}
