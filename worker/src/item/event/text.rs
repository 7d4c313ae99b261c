//! `text` messages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{self, Bool};

/// This is the content of a text message.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Text")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TextContent {
    /// Somebody wrote this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<values::Text>,
    /// This is true if the text shows a preview of its link. Only outbound messages have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    preview_url: Option<Bool>,
}
