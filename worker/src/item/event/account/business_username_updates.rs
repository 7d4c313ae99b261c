//! `business_username_updates`: the username of a number was reserved, approved or deleted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// The username of a number was reserved, approved or deleted.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct BusinessUsername {
    /// The username is that of this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    display_phone_number: Option<Text>,
    /// This is the username. It is missing if the username was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<Text>,
    /// The username has this status: `reserved`, `approved`, `deleted`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
}
