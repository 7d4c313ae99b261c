//! `location` messages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Number, Text};

/// The sender shared this place.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Location {
    /// This is the latitude in degrees, from -90 (south) to 90 (north).
    #[serde(skip_serializing_if = "Option::is_none")]
    latitude: Option<Number>,
    /// This is the longitude in degrees, from -180 (west) to 180 (east).
    #[serde(skip_serializing_if = "Option::is_none")]
    longitude: Option<Number>,
    /// The place has this name. It is missing if the sender shared only a position.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Text>,
    /// The place has this postal address.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Text>,
    /// The place has this web address.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Text>,
}
