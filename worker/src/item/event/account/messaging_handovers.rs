//! `messaging_handovers`: a chat passed between Meta's agent and the business.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::message::ConversationContext;
use crate::item::event::values::{Text, Timestamp};

/// A chat passed between Meta's agent and the business.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Handover {
    /// This says how the chat passed: `control_passed`, `control_taken`, … The member with that
    /// name in camelCase tells more.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    /// It happened at this time, as Meta says.
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

/// This is the customer of the chat.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Sender {
    /// This is the customer's phone number. It is missing if Meta withholds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<Text>,
    /// This is the customer's business-scoped id (`CC.…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    /// This is the customer's parent business-scoped id (`CC.ENT.…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
}

/// This is the business's number that the chat belongs to.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Recipient {
    /// Meta identifies the number by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number_id: Option<Text>,
    /// This is the number as Meta writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    display_phone_number: Option<Text>,
}

/// This says who had the chat before, and who has it now.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Control {
    /// The app with this id had the chat before.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_owner_app_id: Option<Text>,
    /// The app that had the chat before has this role, such as `meta_business_agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_owner_app_role: Option<Text>,
    /// Who had the chat before has this role: `ai_agent`, `customer_service`, `marketing`,
    /// `escalation`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_owner_role: Option<Text>,
    /// Who has the chat now has this role, one of the words of `previousOwnerRole`.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_owner_role: Option<Text>,
    /// Whoever passed or took the chat gave this text with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_context: Option<ConversationContext>,
}
