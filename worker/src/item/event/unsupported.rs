//! `unsupported` messages: what the Cloud API can't deliver. The reason is in `message.errors`. It may be the first
//! message of somebody who came by an advertisement: show it to a person.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Text;

/// What it was.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Unsupported {
    /// Meta's word for it, an open set: `gif`, `poll_creation`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
}
