//! Statuses: what became of a message that the business sent, of a payment, or of a call.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::{EnumIter, EnumString, IntoStaticStr};

use super::errors::MetaError;
use super::read::Reading;
use super::values::{Bool, Number, Text, Timestamp};
use crate::metrics::Price;

/// Meta reports what became of a message that the business sent, of a payment or of a call. The
/// statuses of one message come in any order, some twice, some not at all.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Status {
    /// This says what the status is about.
    #[serde(skip_deserializing)]
    pub kind: StatusKind,
    /// This is the id of the message, the same in all its statuses. It is `null` unless `kind` is
    /// `receipt`.
    #[serde(rename(deserialize = "id"))]
    pub message_id: Option<Text>,
    /// This is Meta's id of the payment or call. A receipt has `messageId` instead.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// Meta's word for the status is an open set: `sent`, `delivered`, `read`, `failed`, … It is
    /// `unknown` if Meta sent no word.
    #[serde(default)]
    pub status: Text,
    /// Ignore a status whose rank is not above the highest that came for the message (in a group:
    /// for the message and member): accepted 0, sent 1, delivered 2, read 3, played 4. Never ignore
    /// one whose rank is `null`: `failed`, `deleted`, `warning`, payments, calls.
    #[serde(skip_deserializing)]
    pub rank: Option<u8>,
    /// Meta dates the status with this time. It is `null` if Meta sent no time.
    pub timestamp: Option<Timestamp>,
    /// This is Meta's `type`: `payment` or `call`, and `message` from some gateways. Other receipts
    /// have none.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub sent_type: Option<Text>,
    /// The message went to this phone number or group. It is missing if Meta withholds the phone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_id: Option<Text>,
    /// The message went to the customer with this business-scoped id (`CC.…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_user_id: Option<Text>,
    /// The message went to the customer with this parent business-scoped id (`CC.ENT.…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_parent_user_id: Option<Text>,
    /// This is `group` if the message went to a group, and else missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_type: Option<Text>,
    /// The status is about the member of the group with this phone number. It is missing if Meta
    /// withholds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_participant_id: Option<Text>,
    /// The status is about the member of the group with this business-scoped id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_participant_user_id: Option<Text>,
    /// The status is about the member of the group with this parent business-scoped id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_participant_parent_user_id: Option<Text>,
    /// This is a hash of the recipient's identity key. It is there only if the business has the
    /// identity check on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_identity_key_hash: Option<Text>,
    /// The message failed because of these errors. The array is empty if there are none.
    #[serde(default)]
    pub errors: Vec<MetaError>,
    /// This says what the message is priced as. It is `null` if Meta sent no price with this
    /// status.
    pub pricing: Option<Pricing>,
    /// This is the conversation that Meta counts the message to. It is `null` if Meta sent none.
    pub conversation: Option<StatusConversation>,
    /// The business gave Meta this text when it sent the message. It is `null` if it gave none.
    #[serde(rename(deserialize = "biz_opaque_callback_data"))]
    pub callback_data: Option<Text>,
    /// The message was made of the template with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_id: Option<Text>,
    /// This describes the payment if `kind` is `payment`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment: Option<Payment>,
}

/// A status is about a message that the business sent (`receipt`), a `payment`, a `call`, or
/// something else (`unknown`).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StatusKind {
    /// The status is about a message that the business sent.
    #[default]
    Receipt,
    Payment,
    Call,
    /// This version doesn't know Meta's `type` of the status.
    Unknown,
}

/// This says what Meta prices a message as. Several statuses of one message repeat it, so count it
/// once for each `messageId`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Pricing {
    /// This is true if Meta charges for the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billable: Option<Bool>,
    /// Meta charges for each message (`PMP`), or in older webhooks for each conversation (`CBP`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pricing_model: Option<Text>,
    /// The message is charged (`regular`) or free (`free_customer_service`, `free_entry_point`).
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
    /// Meta charges the rate of this category, an open set: `marketing`, `utility`, `service`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<Text>,
}

/// A conversation is a number of messages that Meta counts together.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Conversation")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct StatusConversation {
    /// Meta identifies the conversation by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// The conversation ends at this time. Only the status `sent` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    #[serde(skip_serializing)]
    pricing: Option<Pricing>,
}

/// This says how the conversation began.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Origin {
    /// The conversation is of this category, such as `utility` or `referral_conversion`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
}

/// The customer made a payment in WhatsApp. Only India has this.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Payment {
    /// The business gave the order this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    /// The amount is in this currency, an ISO 4217 code such as `INR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<Text>,
    /// The business gave the payment this receipt number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<Transaction>,
    /// The business attached these notes to the payment, and they are passed on as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<Value>,
}

/// The amount is `value` divided by `offset`: 21000 by 100 is 210.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Amount {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Number>,
}

/// The payment provider carried out this transaction.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Transaction {
    /// This is the id of the transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// The payment provider identifies the transaction by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pg_transaction_id: Option<Text>,
    /// This names the payment provider, such as `razorpay`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
    /// The transaction has this status: `pending`, `success`, `failed`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Text>,
    /// The transaction was created at this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_timestamp: Option<Timestamp>,
    /// The transaction was last changed at this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
}

/// The customer paid by this method.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Method {
    /// The method is of this type, such as `upi`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
}

/// Words that statuses may route by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum StatusWord {
    Accepted,
    Captured,
    Deleted,
    Delivered,
    Failed,
    Pending,
    Played,
    Read,
    Sent,
    Success,
    Unknown,
    Warning,
}

impl StatusWord {
    pub(super) fn of(name: &str) -> Self {
        name.parse().unwrap_or(Self::Unknown)
    }

    fn rank(self) -> Option<u8> {
        match self {
            Self::Accepted => Some(0),
            Self::Sent => Some(1),
            Self::Delivered => Some(2),
            Self::Read => Some(3),
            Self::Played => Some(4),
            Self::Captured
            | Self::Deleted
            | Self::Failed
            | Self::Pending
            | Self::Success
            | Self::Unknown
            | Self::Warning => None,
        }
    }
}

impl Status {
    /// The message that it is a receipt of, and its price.
    pub(super) fn price(&self) -> Option<(String, Price)> {
        let (id, pricing) = (self.message_id.as_ref()?, self.pricing.as_ref()?);
        let word = |text: &Option<Text>| text.as_ref().map(|text| text.0.clone());
        let (category, kind) = (word(&pricing.category), word(&pricing.kind));
        let billable = pricing.billable.map(|billable| billable.0);
        if category.is_none() && kind.is_none() && billable.is_none() {
            return None;
        }
        let price = Price::of(category.as_deref(), kind.as_deref(), billable);
        Some((id.0.clone(), price))
    }
}

/// Older spellings, and those of single examples.
const SPELLINGS: [(&str, &str); 3] = [
    ("participant_recipient_id", "recipient_participant_id"),
    ("parent_recipient_user_id", "recipient_parent_user_id"),
    ("parent_user_id", "recipient_parent_user_id"),
];

/// Types a status.
pub(super) fn status(reading: &mut Reading<'_>) -> (Status, StatusWord) {
    for (old, new) in SPELLINGS {
        reading.rename(old, new);
    }
    let mut status: Status = reading.rest();
    let nested = status
        .conversation
        .as_mut()
        .and_then(|of| of.pricing.take());
    match (&status.pricing, nested) {
        (None, nested) => status.pricing = nested,
        (Some(_), Some(_)) => reading.incomplete(),
        (Some(_), None) => {}
    }
    status.kind = match status.sent_type.as_ref().map(Text::as_str) {
        // Some gateways say `message` of a receipt.
        None | Some("message") => StatusKind::Receipt,
        Some("payment") => StatusKind::Payment,
        Some("call") => StatusKind::Call,
        Some(_) => StatusKind::Unknown,
    };
    let word = StatusWord::of(status.status.as_str());
    if status.kind == StatusKind::Receipt {
        status.rank = word.rank();
    } else {
        status.id = status.message_id.take();
    }
    if status.status.0.is_empty() {
        status.status = Text(<&str>::from(StatusWord::Unknown).to_owned());
    }
    (status, word)
}
