//! Media members of messages.

use serde_json::value::RawValue;
use shared::webhook::{members, scalar, string};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    Image,
    Video,
    Audio,
    Document,
    Sticker,
}

impl MediaKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Document => "document",
            Self::Sticker => "sticker",
        }
    }
}

/// What a message says of its media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRef {
    pub kind: MediaKind,
    pub id: String,
    pub mime_type: Option<String>,
    pub sha256: Option<[u8; 32]>,
    pub url: Option<String>,
    pub filename: Option<String>,
    pub file_size: Option<u64>,
}
