//! `audio` messages: files, voice notes (`voice`) and voicemail (the message id begins with `wacid.`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Bool, Digest, Text};

/// This describes a sound file: a voice note, a voicemail, a call's recording or any other sound.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Audio {
    /// Meta identifies the file by this id, which works for seven days.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Text>,
    /// Meta declares this MIME type. It may have parameters, as in `audio/ogg; codecs=opus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<Text>,
    /// This is the file's SHA-256 digest as Meta says it, written as 64 hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Meta serves the file at this URL for five minutes, to requests with the business's access
    /// token. Use the URL in `media` of the message or call instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Text>,
    /// The business gave Meta this URL to fetch the file from. Only outbound messages have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Text>,
    /// This is true if the sender recorded the sound in WhatsApp as a voice note.
    #[serde(skip_serializing_if = "Option::is_none")]
    voice: Option<Bool>,
}
