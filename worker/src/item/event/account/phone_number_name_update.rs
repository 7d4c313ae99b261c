//! `phone_number_name_update`: Meta looked at the name of a number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// The outcome.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PhoneNumberName {
    #[serde(skip_serializing_if = "Option::is_none")]
    display_phone_number: Option<Text>,
    /// `APPROVED`, `REJECTED`, `PENDING`, `DEFERRED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_verified_name: Option<Text>,
    /// Missing unless it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection_reason: Option<Text>,
}
