//! `security`: somebody changed a number's PIN, or asks to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// Somebody changed a number's PIN, or asked to reset it.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct SecurityUpdate {
    /// The PIN is that of this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    display_phone_number: Option<Text>,
    /// Meta's word for what happened is an open set: `PIN_CHANGED`, `PIN_RESET_REQUEST`,
    /// `PIN_REQUEST_SUCCESS`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    /// The user of Meta Business Suite with this id asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    requester: Option<Text>,
}
