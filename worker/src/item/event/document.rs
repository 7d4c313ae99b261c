//! `document` messages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Digest, Text};

/// This describes a file of any type, such as a PDF or a call's transcript.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Document {
    /// Meta identifies the file by this id, which works for seven days.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Text>,
    /// Meta declares this MIME type, such as `application/pdf`. It may have parameters after a
    /// semicolon.
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
    /// The sender wrote this text below the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    caption: Option<Text>,
    /// The sender's file has this name. It may have any Unicode characters, so don't use it as a
    /// path.
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<Text>,
}
