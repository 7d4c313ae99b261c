//! Media of received messages: which there are to fetch, and what became of each.

use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::webhook::{Place, members, string};

use super::errors::MetaError;
use super::message_type::MessageType;
use super::read::Reading;
use super::values::{Digest, Number, Text};
use crate::item::payload::{Payload, PayloadItem};

/// The kinds of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    Image,
    Video,
    Audio,
    Document,
    Sticker,
}

impl MediaKind {
    /// Of a type of message whose content is media.
    pub fn of(kind: MessageType) -> Option<Self> {
        kind.processor()?.media
    }

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

/// Media that an item refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRef {
    pub kind: MediaKind,
    pub id: String,
    pub mime_type: Option<String>,
    pub sha256: Option<[u8; 32]>,
    /// A short cut that lasts five minutes; as sent, not checked.
    pub url: Option<String>,
    /// The sender's name for it.
    pub filename: Option<String>,
    /// Bytes, if Meta says so.
    pub file_size: Option<u64>,
}

/// What became of the media of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaState {
    Pending,
    Stored {
        size_bytes: u64,
        sha256: [u8; 32],
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

/// Media of a received message.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Media {
    /// Meta's id.
    pub id: Option<String>,
    pub status: MediaStatus,
    pub mime_type: Option<String>,
    pub size_bytes: Option<u64>,
    #[schemars(extend("pattern" = "^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
    pub bucket: Option<String>,
    pub key: Option<String>,
    /// Presigned; good until `urlExpiresAt`.
    pub url: Option<String>,
    #[schemars(extend("format" = "date-time"))]
    pub url_expires_at: Option<String>,
    /// The sender's name for it: any Unicode, never a safe path.
    pub filename: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// `pending` is followed by exactly one `media.stored` or `media.failed` event; `failed` in the
/// message itself is final.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MediaStatus {
    #[default]
    Pending,
    Stored,
    Failed,
}

/// What a message says of its media, whatever the kind; what isn't as it should be is left out.
#[derive(Debug, Default)]
pub(super) struct SentMedia {
    id: Option<String>,
    mime_type: Option<String>,
    sha256: Option<[u8; 32]>,
    url: Option<String>,
    filename: Option<String>,
    file_size: Option<u64>,
}

impl SentMedia {
    pub(super) fn of(content: Option<&Value>) -> Self {
        let text = |name| member::<Text>(content, name).map(|text| text.0);
        Self {
            id: text("id"),
            mime_type: text("mime_type"),
            sha256: member::<Digest>(content, "sha256").map(|digest| digest.0),
            url: text("url"),
            filename: text("filename"),
            file_size: member::<Number>(content, "file_size").and_then(|size| size.0.as_u64()),
        }
    }

    /// What the event says of it.
    pub(super) fn part(self, errors: &[MetaError], state: Option<&MediaState>) -> Media {
        let media = Media {
            id: self.id,
            mime_type: self.mime_type,
            sha256: self.sha256.map(|sha256| Digest(sha256).hex()),
            filename: self.filename,
            ..Media::default()
        };
        let failed = |error: String, media| Media {
            status: MediaStatus::Failed,
            error: Some(error),
            ..media
        };
        if let Some(error) = errors.first() {
            return failed(error.line(), media);
        }
        if media.id.is_none() {
            return failed("Meta named no media".to_owned(), media);
        }
        match state {
            None | Some(MediaState::Pending) => media,
            Some(MediaState::Failed { error }) => failed(error.clone(), media),
            Some(MediaState::Stored {
                size_bytes,
                sha256,
                mime_type,
                bucket,
                key,
                url,
                url_expires_at,
            }) => Media {
                status: MediaStatus::Stored,
                mime_type: Some(mime_type.clone()),
                size_bytes: Some(*size_bytes),
                sha256: Some(Digest(*sha256).hex()),
                bucket: Some(bucket.clone()),
                key: Some(key.clone()),
                url: Some(url.clone()),
                url_expires_at: Some(url_expires_at.to_rfc3339_opts(SecondsFormat::Secs, true)),
                ..media
            },
        }
    }
}

fn member<T: DeserializeOwned>(content: Option<&Value>, name: &str) -> Option<T> {
    T::deserialize(content?.get(name)?).ok()
}

/// The media that is to be fetched for an item; none where Meta itself says that it has none.
pub fn media_ref(payload: &Payload, item: &PayloadItem) -> Option<MediaRef> {
    if item.place != Place::Message {
        return None;
    }
    let raw = payload.raw(item);
    let [kind] = members(raw, ["type"])?;
    let kind = MediaKind::of(MessageType::of(&string(kind?)?))?;
    let reading = Reading::of(raw);
    // What isn't readable as an error says nothing, here as in the event.
    let errors = reading.member("errors").and_then(Value::as_array);
    let is_reported = |error: &Value| serde_json::from_value::<MetaError>(error.clone()).is_ok();
    if errors.is_some_and(|errors| errors.iter().any(is_reported)) {
        return None;
    }
    let sent = SentMedia::of(reading.member(reading.text("type")?));
    Some(MediaRef {
        kind,
        id: sent.id?,
        mime_type: sent.mime_type,
        sha256: sent.sha256,
        url: sent.url,
        filename: sent.filename,
        file_size: sent.file_size,
    })
}
