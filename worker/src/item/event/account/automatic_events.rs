//! `automatic_events`: Meta found a lead or a purchase in a chat that began with an advertisement.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Number, Text, Timestamp};

/// What was found.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AutomaticEvents {
    #[serde(skip_serializing_if = "Option::is_none")]
    automatic_events: Option<Vec<AutomaticEvent>>,
}

/// A lead or a purchase.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AutomaticEvent {
    /// Of the message: `wamid.…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Text>,
    /// `LeadSubmitted`, `Purchase`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    /// Click id of the advertisement.
    #[serde(skip_serializing_if = "Option::is_none")]
    ctwa_clid: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_data: Option<CustomData>,
}

/// What was paid.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CustomData {
    /// ISO 4217.
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Number>,
}
