//! `automatic_events`: Meta found a lead or a purchase in a chat that began with an advertisement.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Number, Text, Timestamp};

/// Meta found leads or purchases in a chat that began with an advertisement.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AutomaticEvents {
    #[serde(skip_serializing_if = "Option::is_none")]
    automatic_events: Option<Vec<AutomaticEvent>>,
}

/// Meta found this lead or purchase.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AutomaticEvent {
    /// Meta found it in the message with this id, `wamid.…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Text>,
    /// Meta found a lead (`LeadSubmitted`), a purchase (`Purchase`), …
    #[serde(skip_serializing_if = "Option::is_none")]
    event_name: Option<Text>,
    /// It happened at this time, as Meta says.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    /// Meta identifies the customer's click on the advertisement by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    ctwa_clid: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_data: Option<CustomData>,
}

/// This says what the customer paid. Only a purchase has it.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CustomData {
    /// The value is in this currency, an ISO 4217 code such as `EUR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Text>,
    /// The purchase has this value, in `currency`.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Number>,
}
