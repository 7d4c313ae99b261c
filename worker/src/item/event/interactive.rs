//! `interactive` messages: answers to buttons, lists, flows, call permissions, payments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::read::json_in_text;
use super::values::{Bool, Text, Timestamp};

/// The answer stands under the name of its `type`; one that isn't known is in `raw` only.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Interactive {
    /// Meta's word, an open set: `button_reply`, `list_reply`, `nfm_reply`, …
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

/// A tap on a button.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ButtonReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<Text>,
}

/// A choice from a list.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ListReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Text>,
}

/// A completed flow or address form.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(from = "SentNfmReply", rename_all = "camelCase")]
pub(super) struct NfmReply {
    /// `flow` or `address_message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Text>,
    /// What was filled in, as the text that Meta sent; it should be JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json: Option<Text>,
    /// The same, parsed; missing where it isn't JSON. Names and values are the form's own: numbers
    /// arrive as strings.
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

/// May the business call?
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallPermissionReply {
    /// `accept` or `reject`.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_permanent: Option<Bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_timestamp: Option<Timestamp>,
    /// `user_action` or `automatic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_source: Option<Text>,
}

/// How the customer wants to pay (Brazil).
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PaymentMethod {
    /// `offsite_card_pay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_four_digits: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_id: Option<Text>,
}
