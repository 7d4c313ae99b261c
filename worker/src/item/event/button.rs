//! `button` messages: a tap on a quick reply of a template.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Text;

/// The customer tapped this quick-reply button of a template.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Button {
    /// The business attached this text to the button, to recognise it by. The customer doesn't see
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Text>,
    /// The button shows this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text>,
}
