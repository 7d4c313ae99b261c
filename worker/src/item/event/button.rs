//! `button` messages: a tap on a quick reply of a template.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Text;

/// The button.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Button {
    /// What the business gave the button.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Text>,
    /// What the button says.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text>,
}
