//! `audio` messages: files, voice notes (`voice`) and voicemail (the message id begins with `wacid.`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Bool, Digest, Text};

/// Sound.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Audio {
    /// Meta's id of the media; good for seven days.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Text>,
    /// May have parameters: `audio/ogg; codecs=opus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<Text>,
    /// As Meta says it: in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Meta's address; lasts five minutes and needs the business's token. What is stored has its own address in
    /// `message.media.url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Text>,
    /// In echoes: where the business told Meta to fetch it.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Text>,
    /// Recorded in WhatsApp.
    #[serde(skip_serializing_if = "Option::is_none")]
    voice: Option<Bool>,
}
