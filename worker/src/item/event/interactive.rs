//! `interactive` messages: answers to buttons, lists, flows, call permissions, payments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::read::json_in_text;
use super::values::{Bool, Text, Timestamp};

/// The customer answered an interactive message. The member with the name of `type` in camelCase
/// has the answer; an answer of unknown type is only in `raw`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Interactive {
    /// Meta's word for the sort of answer is an open set: `button_reply`, `list_reply`, `nfm_reply`
    /// (a form), `call_permission_reply`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    button_reply: Option<ButtonReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list_reply: Option<ListReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nfm_reply: Option<NfmReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_permission_reply: Option<CallPermissionReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method: Option<PaymentMethod>,
}

/// The customer tapped this button.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ButtonReply {
    /// The business gave the button this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Text>,
    /// The button shows this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<Text>,
}

/// The customer chose this row of a list.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ListReply {
    /// The business gave the row this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Text>,
    /// The row shows this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<Text>,
    /// The row shows this text below its title.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Text>,
}

/// The customer completed a form: a flow, or a request for an address.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(from = "SentNfmReply", rename_all = "camelCase")]
pub(super) struct NfmReply {
    /// The form is a `flow` or an `address_message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Text>,
    /// The chat shows this text for the completed form.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Text>,
    /// This is what the customer filled in, as the text that Meta sent. It should be JSON, but need
    /// not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json: Option<Text>,
    /// This is `responseJson`, parsed; it is missing if that isn't JSON. Names and values are the
    /// form's own, and numbers arrive as strings.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Value>,
}

#[derive(Deserialize, JsonSchema)]
struct SentNfmReply {
    name: Option<Text>,
    body: Option<Text>,
    response_json: Option<Text>,
}

impl From<SentNfmReply> for NfmReply {
    fn from(sent: SentNfmReply) -> Self {
        let response = sent.response_json.as_ref();
        Self {
            response: response.and_then(|text| json_in_text(text.as_str())),
            name: sent.name,
            body: sent.body,
            response_json: sent.response_json,
        }
    }
}

/// The customer answered whether the business may call them.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallPermissionReply {
    /// The answer is `accept` or `reject`.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Text>,
    /// This is true if the permission has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_permanent: Option<Bool>,
    /// The permission ends at this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_timestamp: Option<Timestamp>,
    /// The customer gave the answer (`user_action`), or WhatsApp did so by itself (`automatic`).
    #[serde(skip_serializing_if = "Option::is_none")]
    response_source: Option<Text>,
}

/// The customer chose how to pay. Only Brazil has this.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PaymentMethod {
    /// The customer pays in this way, which so far is always `offsite_card_pay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method: Option<Text>,
    /// Meta dates the payment with this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_timestamp: Option<Timestamp>,
    /// The business gave the order this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_id: Option<Text>,
    /// The number of the customer's card ends in these four digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_four_digits: Option<Text>,
    /// This id stands for the customer's card.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_id: Option<Text>,
}
