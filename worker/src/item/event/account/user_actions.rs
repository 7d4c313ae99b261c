//! `user_actions`, an array of Meta's field `messages`: something a customer did that is no message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// A customer did something that is no message.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct UserAction {
    /// Meta's word for what the customer did is an open set: `marketing_messages_link_click`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    action_type: Option<Text>,
    /// It happened at this time, as Meta says.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marketing_messages_link_click_data: Option<LinkClick>,
}

/// The customer tapped a link of a marketing message.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct LinkClick {
    /// The customer tapped the button (`cta`) or the text (`body`).
    #[serde(skip_serializing_if = "Option::is_none")]
    click_component: Option<Text>,
    /// The business identifies the product behind the link by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    product_id: Option<Text>,
    /// Meta identifies the tap by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    click_id: Option<Text>,
    /// Meta gave the tap this token to recognise it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_token: Option<Text>,
}
