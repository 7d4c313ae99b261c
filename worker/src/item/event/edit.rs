//! `edit` messages: a message gets another text, caption or file. Whether its media is the old one nothing
//! says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::audio::Audio;
use super::document::Document;
use super::image::Image;
use super::message::Context;
use super::text::TextContent;
use super::values;
use super::video::Video;

/// The sender edited an earlier message.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Edit {
    /// The message with this id was edited.
    #[serde(skip_serializing_if = "Option::is_none")]
    original_message_id: Option<values::Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<EditedMessage>,
}

/// This is the message as it is now. The member with the name of its type has its content.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct EditedMessage {
    /// The message is of this type: `text`, `image`, `video`, `audio`, `document`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<values::Text>,
    /// Meta's examples have the placeholder `M0` as its `id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Context>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<TextContent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Image>,
    #[serde(skip_serializing_if = "Option::is_none")]
    video: Option<Video>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio: Option<Audio>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
}
