//! `revoke` messages: a message is taken back. May come before the message itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Text;

/// What is taken back.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Revoke {
    #[serde(skip_serializing_if = "Option::is_none")]
    original_message_id: Option<Text>,
}
