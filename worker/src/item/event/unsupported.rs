//! `unsupported` messages: what the Cloud API can't deliver. The reason is in `message.errors`. It may be the first
//! message of somebody who came by an advertisement: show it to a person.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Text;

/// Meta doesn't pass on what was in this message; `message.errors` has the reason. It may be a
/// customer's first message, so show it to a person.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Unsupported {
    /// Meta's word for what the message was is an open set: `gif`, `poll_creation`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
}
