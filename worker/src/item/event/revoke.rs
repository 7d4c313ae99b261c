//! `revoke` messages: a message is taken back. May come before the message itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Text;

/// The sender took a message back. This may come before the message itself.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Revoke {
    /// The message with this id was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    original_message_id: Option<Text>,
}
