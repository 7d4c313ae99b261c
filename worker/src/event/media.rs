//! Media members of messages.

use chrono::{DateTime, Utc};
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

/// What an event says of media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaState {
    Pending,
    Stored {
        size_bytes: u64,
        sha256: String,
        mime_type: String,
        bucket: String,
        key: String,
        url: String,
        url_expires_at: DateTime<Utc>,
    },
    Failed {
        error: String,
    },
}

pub fn media_ref(raw: &RawValue) -> Option<MediaRef> {
    let [kind] = members(raw, ["type"])?;
    let kind = string(kind?)?;
    let (kind, [media]) = match &*kind {
        "image" => (MediaKind::Image, members(raw, ["image"])?),
        "video" => (MediaKind::Video, members(raw, ["video"])?),
        "audio" => (MediaKind::Audio, members(raw, ["audio"])?),
        "document" => (MediaKind::Document, members(raw, ["document"])?),
        "sticker" => (MediaKind::Sticker, members(raw, ["sticker"])?),
        _ => return None,
    };
    let [id, mime, sha, url, filename] =
        members(media?, ["id", "mime_type", "sha256", "url", "filename"])?;
    let text = |raw: Option<&RawValue>| raw.and_then(string).map(|t| t.into_owned());
    Some(MediaRef {
        kind,
        id: id.and_then(scalar)?.into_owned(),
        mime_type: text(mime),
        sha256: text(sha).as_deref().and_then(crate::graph::digest),
        url: text(url),
        filename: text(filename),
        file_size: None,
    })
}

pub fn json(media: &MediaRef, state: &MediaState) -> serde_json::Value {
    match state {
        MediaState::Pending => serde_json::json!({"id": media.id, "status": "pending"}),
        MediaState::Failed { error } => {
            serde_json::json!({"id": media.id, "status": "failed", "error": error})
        }
        MediaState::Stored {
            size_bytes,
            sha256,
            mime_type,
            bucket,
            key,
            url,
            url_expires_at,
        } => {
            serde_json::json!({"id": media.id, "status": "stored", "sizeBytes": size_bytes,
            "sha256": sha256, "mimeType": mime_type, "bucket": bucket, "key": key, "url": url,
            "urlExpiresAt": url_expires_at.to_rfc3339(), "filename": media.filename})
        }
    }
}
