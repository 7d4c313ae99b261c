//! `location` messages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Number, Text};

/// A place.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Location {
    /// Degrees.
    #[serde(skip_serializing_if = "Option::is_none")]
    latitude: Option<Number>,
    /// Degrees.
    #[serde(skip_serializing_if = "Option::is_none")]
    longitude: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Text>,
}
