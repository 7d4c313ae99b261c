//! `message_template_components_update`: the text or buttons of a template were changed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// A template was changed. This is how it is now.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TemplateComponents {
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
    /// This is the text of its header.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_title: Option<Text>,
    /// This is the text of its body.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_element: Option<Text>,
    /// This is the text of its footer.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_footer: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_buttons: Option<Vec<TemplateButton>>,
}

/// The template has this button.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TemplateButton {
    /// The button is of this type: `URL`, `PHONE_NUMBER`, `QUICK_REPLY`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_button_type: Option<Text>,
    /// The button shows this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_button_text: Option<Text>,
    /// The button opens this URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_button_url: Option<Text>,
    /// The button calls this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_button_phone_number: Option<Text>,
}
