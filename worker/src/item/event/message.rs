//! What stands around the content of every message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use shared::webhook::Place;

use super::errors::MetaError;
use super::media::{Media, MediaPlaces, MediaState, SentMedia};
use super::message_type::MessageType;
use super::read::Reading;
use super::values::{Bool, Number, Text, Timestamp};

/// A message: of a customer, or in echoes and history also of the business.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Message {
    /// `wamid.…`; of voicemail `wacid.…`.
    pub id: Option<Text>,
    /// Meta's word, an open set; `unknown` if there was none.
    #[serde(rename = "type", default)]
    pub kind: Text,
    pub timestamp: Option<Timestamp>,
    /// Who wrote it; `null` where that can't be told.
    #[serde(skip_deserializing)]
    pub direction: Option<Direction>,
    /// The sender as Meta names them; missing where the phone is withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_parent_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_parent_user_id: Option<Text>,
    /// In echoes of what was sent through an API: a business-scoped id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Text>,
    #[serde(skip_serializing)]
    pub(super) group_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// The advertisement or post that the customer came by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referral: Option<Referral>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<CustomerIdentity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_logical_id: Option<Text>,
    /// Of an echo: what wrote it, `created_by_1p_bot` for example.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_creation_type: Option<Text>,
    /// Of a contact card: `contact_request` or `other`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Text>,
    /// Why the message, or its media, could not be delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<MetaError>>,
    /// Where in the history it stood.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    #[serde(skip_serializing)]
    pub(super) history_context: Option<HistoryContext>,
    /// Summary of the talk with Meta's agent, which stood beside the messages.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub conversation_context: Option<ConversationContext>,
    /// In echoes of what the business sent through an API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messaging_product: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_type: Option<Text>,
    /// In such echoes: the template as it is defined, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_definition: Option<Value>,
    /// In such echoes: the flow as it is defined, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<Value>,
    /// Meta's members of the type; their shape follows from `type`. `null` for types without content
    /// or unknown here.
    #[serde(skip_deserializing)]
    #[schemars(with = "Option<Value>")]
    pub content: Option<Box<RawValue>>,
    /// Of a media type, at a place whose media is fetched: what became of it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The customer.
    Inbound,
    /// The business.
    Outbound,
}

/// What a message answers to, or that it was forwarded.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Context {
    /// Of the message answered to. Not always one that was ever sent: `referredProduct` comes with an
    /// invented id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// In echoes of the API: the message answered to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<Bool>,
    /// More than five times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequently_forwarded: Option<Bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referred_product: Option<ReferredProduct>,
}

/// The product a customer asks about.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ReferredProduct {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_retailer_id: Option<Text>,
}

/// An advertisement or post.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Referral {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_url: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_id: Option<Text>,
    /// `ad` or `post`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_type: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headline: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_url: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_url: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thumbnail_url: Option<Text>,
    /// Click id; missing for ads in WhatsApp's Status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctwa_clid: Option<Text>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub welcome_message: Option<WelcomeMessage>,
}

/// The greeting that the advertisement showed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct WelcomeMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
}

/// The customer's identity key, where the identity check is on.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Identity")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CustomerIdentity {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Text>,
}

/// Of a message from before the number joined the API.
#[derive(Debug, Default, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct History {
    /// Of the synchronisation, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_order: Option<Number>,
    /// Percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Number>,
    /// The thread's id: the customer's number.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<Text>,
    /// Of the message then: `READ`, `DELIVERED`, … as sent.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub status: Option<Text>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct HistoryContext {
    status: Option<Text>,
}

/// What happened before the business took the chat.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ConversationContext {
    /// `summary`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// Written by Meta's agent.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Summary {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
}

/// Types a message.
pub(super) fn message(
    reading: &mut Reading<'_>,
    place: Place,
    (places, media): (MediaPlaces, Option<&MediaState>),
) -> (Message, MessageType) {
    let sent_media = SentMedia::of(reading, place);
    let at = if place == Place::StandbyEcho {
        unwrap_echo(reading)
    } else {
        ""
    };
    let kind = reading
        .text("type")
        .map_or(MessageType::Unknown, MessageType::of);
    let content = kind.processor().and_then(|processor| {
        let content = reading.take(kind.name())?;
        (processor.read)(reading, content, &format!("{at}{}", kind.name()))
    });
    let mut message: Message = reading.rest();
    if message.kind.0.is_empty() {
        message.kind = Text(MessageType::Unknown.name().to_owned());
    }
    message.content = content;
    message.media = sent_media.and_then(|sent| sent.part(places, media));
    if let Some(context) = message.history_context.take() {
        message.history.get_or_insert_default().status = context.status;
    }
    (message, kind)
}

/// Echoes of what was sent through an API wrap what was sent: `{id, timestamp, message: {…}}`, with
/// definitions beside it. Afterwards they look like other messages; returns what the paths of the
/// wrapped members begin with.
fn unwrap_echo(reading: &mut Reading<'_>) -> &'static str {
    let Some(sent) = reading.take("message") else {
        return "";
    };
    let Value::Object(sent) = sent else {
        reading.put("message", sent);
        return "";
    };
    reading.rename("template", "template_definition");
    for (name, member) in sent {
        if reading.member(&name).is_some() {
            // Nowhere documented; both stay as they are, and the event has them raw.
            reading.put(&format!("message.{name}"), member);
        } else {
            reading.put(&name, member);
        }
    }
    "message."
}
