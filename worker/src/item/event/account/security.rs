//! `security`: somebody changed a number's PIN, or asks to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// What happened to the PIN.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct SecurityUpdate {
    #[serde(skip_serializing_if = "Option::is_none")]
    display_phone_number: Option<Text>,
    /// `PIN_CHANGED`, `PIN_RESET_REQUEST`, `PIN_REQUEST_SUCCESS`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    /// Who asked for it, as Meta numbers its own users.
    #[serde(skip_serializing_if = "Option::is_none")]
    requester: Option<Text>,
}
