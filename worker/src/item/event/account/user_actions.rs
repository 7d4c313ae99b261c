//! `user_actions`, an array of Meta's field `messages`: something a customer did that is no message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// Something a customer did that is no message.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct UserAction {
    /// `marketing_messages_link_click`.
    #[serde(skip_serializing_if = "Option::is_none")]
    action_type: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marketing_messages_link_click_data: Option<LinkClick>,
}

/// A tap on a link of a marketing message.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct LinkClick {
    /// `cta` or `body`.
    #[serde(skip_serializing_if = "Option::is_none")]
    click_component: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    click_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_token: Option<Text>,
}
