//! Statuses: what became of a message that the business sent, of a payment, or of a call.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::{EnumIter, EnumString, IntoStaticStr};

use super::errors::MetaError;
use super::read::Reading;
use super::values::{Bool, Number, Text, Timestamp};
use crate::metrics::Price;

/// A status. Meta sends those of one message in any order, some twice, some not at all.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Status {
    /// What it is a status of.
    #[serde(skip_deserializing)]
    pub kind: StatusKind,
    /// The message's id: the same for all its statuses. `null` unless `kind` is `receipt`.
    #[serde(rename(deserialize = "id"))]
    pub message_id: Option<Text>,
    /// Of a payment or call.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// Meta's word, an open set; `unknown` if there was none.
    #[serde(default)]
    pub status: Text,
    /// Later in a message's life is higher: accepted 0, sent 1, delivered 2, read 3, played 4. Ignore
    /// a status whose rank is not above the highest seen. `null`: not in that line (`failed`,
    /// `deleted`, `warning`, payments, calls).
    #[serde(skip_deserializing)]
    pub rank: Option<u8>,
    pub timestamp: Option<Timestamp>,
    /// Meta's `type`, if there is one: `payment`, `call`, of receipts of some gateways `message`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub sent_type: Option<Text>,
    /// Phone or group; missing where the phone is withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_parent_user_id: Option<Text>,
    /// `group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_type: Option<Text>,
    /// The member of the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_participant_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_participant_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_participant_parent_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_identity_key_hash: Option<Text>,
    /// Why it failed.
    #[serde(default)]
    pub errors: Vec<MetaError>,
    pub pricing: Option<Pricing>,
    pub conversation: Option<StatusConversation>,
    /// What the business gave when it sent the message.
    #[serde(rename(deserialize = "biz_opaque_callback_data"))]
    pub callback_data: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment: Option<Payment>,
}

/// What a status is of.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StatusKind {
    /// Of a message that the business sent.
    #[default]
    Receipt,
    Payment,
    Call,
    /// Of a `type` that isn't known here.
    Unknown,
}

/// What a message costs.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Pricing {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billable: Option<Bool>,
    /// `PMP` or `CBP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pricing_model: Option<Text>,
    /// `regular`, `free_customer_service`, `free_entry_point`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<Text>,
}

/// The conversation that Meta counts the message to.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Conversation")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct StatusConversation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    #[serde(skip_serializing)]
    pricing: Option<Pricing>,
}

/// How a conversation began.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Origin {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
}

/// A payment (India).
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Payment {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<Transaction>,
    /// The business's own, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<Value>,
}

/// `value` divided by `offset`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Amount {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Number>,
}

/// At the payment provider.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Transaction {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pg_transaction_id: Option<Text>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
}

/// How it was paid.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Method {
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
