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

/// The edited message and what it is now.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Edit {
    #[serde(skip_serializing_if = "Option::is_none")]
    original_message_id: Option<values::Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<EditedMessage>,
}

/// The message as it is now; its content stands under the name of its type.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct EditedMessage {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<values::Text>,
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
