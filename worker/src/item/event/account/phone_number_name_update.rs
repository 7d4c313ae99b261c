//! `phone_number_name_update`: Meta looked at the name of a number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// Meta reviewed the name that a number shows to customers.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PhoneNumberName {
    /// The name is that of this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    display_phone_number: Option<Text>,
    /// Meta decided this: `APPROVED`, `REJECTED`, `PENDING`, `DEFERRED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Text>,
    /// The business asked for this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_verified_name: Option<Text>,
    /// Meta rejected the name for this reason. It is missing unless the name was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection_reason: Option<Text>,
}
