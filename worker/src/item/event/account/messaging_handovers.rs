//! `messaging_handovers`: a chat passed between Meta's agent and the business.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::message::ConversationContext;
use crate::item::event::values::{Text, Timestamp};

/// A chat passed between Meta's agent and the business.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Handover {
    /// `control_passed`, `control_taken`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<Sender>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<Recipient>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_passed: Option<Control>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_taken: Option<Control>,
}

/// The customer.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Sender {
    /// Missing where it is withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
}

/// The number of the business.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Recipient {
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_phone_number: Option<Text>,
}

/// From whom to whom.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Control {
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_owner_app_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_owner_app_role: Option<Text>,
    /// `ai_agent`, `customer_service`, `marketing`, `escalation`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_owner_role: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_owner_role: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_context: Option<ConversationContext>,
}
