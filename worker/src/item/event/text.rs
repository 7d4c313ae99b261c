//! `text` messages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{self, Bool};

/// What somebody wrote.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Text")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TextContent {
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<values::Text>,
    /// In echoes: whether the text shows a preview of its link.
    #[serde(skip_serializing_if = "Option::is_none")]
    preview_url: Option<Bool>,
}
