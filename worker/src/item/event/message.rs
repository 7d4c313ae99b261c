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

/// A customer or the business wrote this message; `direction` says which of them.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Message {
    /// Meta identifies the message by this id, `wamid.…`. That of a voicemail is `wacid.…`.
    pub id: Option<Text>,
    /// Meta's word for the type of the message is an open set: `text`, `image`, `interactive`, … It
    /// is `unknown` if Meta sent no word.
    #[serde(rename = "type", default)]
    pub kind: Text,
    /// Meta dates the message with this time. It is `null` if Meta sent no time.
    pub timestamp: Option<Timestamp>,
    /// This says who wrote the message. It is `null` if that can't be told.
    #[serde(skip_deserializing)]
    pub direction: Option<Direction>,
    /// This is the sender's phone number or business-scoped id, as sent. It is missing if Meta
    /// withholds the phone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Text>,
    /// This is the business-scoped id (`CC.…`) of a customer who wrote the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_user_id: Option<Text>,
    /// This is the parent business-scoped id (`CC.ENT.…`) of a customer who wrote the message.
    /// Linked portfolios share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_parent_user_id: Option<Text>,
    /// The business wrote to this phone number or group. It is missing if Meta withholds the phone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Text>,
    /// The business wrote to the customer with this business-scoped id (`CC.…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_user_id: Option<Text>,
    /// The business wrote to the customer with this parent business-scoped id (`CC.ENT.…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_parent_user_id: Option<Text>,
    /// The business wrote to this business-scoped id. Only outbound messages of `message.standby`
    /// events have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Text>,
    #[serde(skip_serializing)]
    pub(super) group_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// The customer came by this advertisement or post. It is missing if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referral: Option<Referral>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<CustomerIdentity>,
    /// This id comes with some messages of the types `button` and `interactive`. Its meaning isn't
    /// known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_logical_id: Option<Text>,
    /// Meta's word for what wrote an echo is passed on as sent, such as `created_by_1p_bot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_creation_type: Option<Text>,
    /// The customer sent contacts because the business asked for them (`contact_request`), or not
    /// (`other`). Some webhooks have it at each contact instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Text>,
    /// Meta could not deliver the message or its file because of these errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<MetaError>>,
    /// This says where in the history the message stood. Only `message.history` events have it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    #[serde(skip_serializing)]
    pub(super) history_context: Option<HistoryContext>,
    /// Meta's agent had the chat before, and this sums up what was said. Meta sends it beside the
    /// messages.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub conversation_context: Option<ConversationContext>,
    /// This is always `whatsapp`. Only outbound messages of `message.standby` events have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messaging_product: Option<Text>,
    /// The message went to one person (`individual`) or to a `group`. Only outbound messages of
    /// `message.standby` events have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_type: Option<Text>,
    /// This is the definition of the template that the message was made of, as Meta sent it. Only
    /// outbound messages of `message.standby` events have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_definition: Option<Value>,
    /// This is the definition of the flow (a form inside WhatsApp) that the message opens, as Meta
    /// sent it. Only outbound messages of `message.standby` events have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<Value>,
    /// This is the content of the message, in a shape that follows from `type`. It is `null` if the
    /// message has none, or if this version doesn't know the type.
    #[serde(skip_deserializing)]
    #[schemars(with = "Option<Value>")]
    pub content: Option<Box<RawValue>>,
    /// This says what became of the copy of the message's file. It is missing if the message has no
    /// file, or if the setting `MEDIA_PLACES` leaves its place out.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
}

/// This says who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The customer wrote it.
    Inbound,
    /// The business wrote it.
    Outbound,
}

/// This says which message is answered, that the message was forwarded, or which product it is
/// about.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Context {
    /// The message answers the message with this id. If there is a `referredProduct`, no message
    /// has this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// This is in the place of `id` in outbound messages of `message.standby` events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Text>,
    /// This is the sender of the answered message as Meta names them, mostly by a phone number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Text>,
    /// This is the business-scoped id of the sender of the answered message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_user_id: Option<Text>,
    /// This is true if the message was forwarded up to five times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<Bool>,
    /// This is true if the message was forwarded more than five times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequently_forwarded: Option<Bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referred_product: Option<ReferredProduct>,
}

/// The customer asks about this product of the business's catalogue.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ReferredProduct {
    /// Meta identifies the catalogue by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_id: Option<Text>,
    /// The business identifies the product by this id of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_retailer_id: Option<Text>,
}

/// This describes the advertisement or post that led the customer to the business.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Referral {
    /// The advertisement or post is at this URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_url: Option<Text>,
    /// Meta identifies the advertisement or post by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_id: Option<Text>,
    /// The customer came by an advertisement (`ad`) or a post (`post`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_type: Option<Text>,
    /// The advertisement or post has this headline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headline: Option<Text>,
    /// The advertisement or post has this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Text>,
    /// The advertisement or post shows an `image` or a `video`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<Text>,
    /// The image is at this URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_url: Option<Text>,
    /// The video is at this URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_url: Option<Text>,
    /// A preview image of the video is at this URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thumbnail_url: Option<Text>,
    /// Meta identifies the customer's click on the advertisement by this id. It is missing for
    /// advertisements in WhatsApp's Status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctwa_clid: Option<Text>,
    /// The business gave the advertisement this text to recognise it by.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub welcome_message: Option<WelcomeMessage>,
}

/// The advertisement greeted the customer with this message.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct WelcomeMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
}

/// This describes the customer's identity key. It is there only if the business has the identity
/// check on.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Identity")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CustomerIdentity {
    /// This is true if the change of the key has been acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Bool>,
    /// Meta noticed the change of the key at this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_timestamp: Option<Timestamp>,
    /// This is a hash of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Text>,
}

/// Meta sends messages from before the number joined the API in chunks. This says in which chunk
/// and chat the message stood.
#[derive(Debug, Default, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct History {
    /// This is the number of the phase of the synchronisation, counted from 0. Phase 0 has the
    /// newest messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Number>,
    /// This is the number of the chunk in its phase. Chunks may arrive in another order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_order: Option<Number>,
    /// This is the part of the whole history that has been sent, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Number>,
    /// The message stood in the chat with this id, which is the customer's phone number. It is
    /// missing if Meta withholds it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<Text>,
    /// The message had this status when the history was sent, in capitals as sent: `DELIVERED`,
    /// `READ`, …
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub status: Option<Text>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct HistoryContext {
    status: Option<Text>,
}

/// This tells what happened in the chat before the business took it over.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ConversationContext {
    /// The context is of this type, which so far is always `summary`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// Meta's agent wrote this summary.
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
