//! Media of items, wherever it stands: which there is to fetch, and what became of it.

use chrono::{DateTime, SecondsFormat, Utc};
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::webhook::{Json, Place, members, string};

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

/// This says where in a webhook the item with the file stood. The setting `MEDIA_PLACES` of the
/// worker lists the places whose files are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MediaPlace {
    /// A customer sent the file in a new message.
    Message,
    /// The file is the recording or transcript of a call.
    Call,
    /// The business sent the file in the WhatsApp Business app.
    Echo,
    /// The file was sent in a chat that Meta's agent has.
    Standby,
    /// The file came with the edit of a message, echo or standby message.
    Edit,
    /// The file was sent before the number joined the API.
    History,
}

impl MediaPlace {
    fn of(place: Place, is_edit: bool) -> Option<Self> {
        match place {
            Place::Message | Place::Echo | Place::StandbyMessage | Place::StandbyEcho
                if is_edit =>
            {
                Some(Self::Edit)
            }
            Place::Message => Some(Self::Message),
            Place::Echo => Some(Self::Echo),
            Place::StandbyMessage | Place::StandbyEcho => Some(Self::Standby),
            Place::HistoryThreadMessage | Place::HistoryMessage | Place::HistoryEcho => {
                Some(Self::History)
            }
            Place::Call => Some(Self::Call),
            Place::Status
            | Place::StandbyStatus
            | Place::CallStatus
            | Place::UserAction
            | Place::ValueErrors
            | Place::Change
            | Place::UnknownShape => None,
        }
    }
}

/// A set of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaPlaces(u8);

impl MediaPlaces {
    pub fn has(self, place: MediaPlace) -> bool {
        self.0 & (1 << place as u8) != 0
    }
}

impl FromIterator<MediaPlace> for MediaPlaces {
    fn from_iter<I: IntoIterator<Item = MediaPlace>>(places: I) -> Self {
        let bits = places.into_iter().map(|place| 1 << place as u8);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

impl Default for MediaPlaces {
    /// All but history: a migration of months of files should be chosen.
    fn default() -> Self {
        let all = MediaPlace::value_variants().iter().copied();
        all.filter(|place| *place != MediaPlace::History).collect()
    }
}

/// Media that an item refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRef {
    pub place: MediaPlace,
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
        detected_mime_type: Option<String>,
        bucket: String,
        key: String,
        url: String,
        url_expires_at: DateTime<Utc>,
    },
    Failed {
        error: String,
    },
}

/// The worker copies the file of a message or call into the object store. This says what became of
/// the copy.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Media {
    /// The item with the file stood at this place of the webhook.
    pub place: MediaPlace,
    /// Meta identifies the file by this id. It is `null` if Meta named none.
    pub id: Option<String>,
    pub status: MediaStatus,
    /// Meta declares this MIME type. It is `null` if Meta declares none.
    pub mime_type: Option<String>,
    /// The first bytes of the stored file show this MIME type. It is `null` if they show none, or
    /// if the file isn't stored.
    pub detected_mime_type: Option<String>,
    /// The stored file has so many bytes. It is `null` if the file isn't stored.
    pub size_bytes: Option<u64>,
    /// This is the SHA-256 digest of the stored file, as 64 hex digits. Until the file is stored,
    /// it is the digest that Meta sent, or `null`.
    #[schemars(extend("pattern" = "^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
    /// The stored file is in this bucket of the object store. It is `null` if the file isn't
    /// stored.
    pub bucket: Option<String>,
    /// The stored file has this key in its bucket. It is `null` if the file isn't stored.
    pub key: Option<String>,
    /// This presigned URL serves the stored file without credentials until `urlExpiresAt`. It is
    /// `null` if the file isn't stored.
    pub url: Option<String>,
    /// The presigned URL expires at this time. It is `null` if the file isn't stored.
    #[schemars(extend("format" = "date-time"))]
    pub url_expires_at: Option<String>,
    /// The sender's file has this name, or `null` if Meta sent none. It may have any Unicode
    /// characters, so don't use it as a path.
    pub filename: Option<String>,
    /// The file could not be copied for this reason. It is `null` unless `status` is `failed`.
    pub error: Option<String>,
}

/// The file is not copied yet (`pending`), is in the object store (`stored`), or won't come
/// (`failed`). After `pending`, exactly one event `media.stored` or `media.failed` follows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MediaStatus {
    #[default]
    Pending,
    Stored,
    Failed,
}

/// What an item says of its media, whatever the kind; what isn't as it should be is left out.
#[derive(Debug)]
pub(super) struct SentMedia {
    place: MediaPlace,
    kind: MediaKind,
    /// Why Meta itself has none.
    error: Option<String>,
    id: Option<String>,
    mime_type: Option<String>,
    sha256: Option<[u8; 32]>,
    url: Option<String>,
    filename: Option<String>,
    file_size: Option<u64>,
}

impl SentMedia {
    /// Of an item that stood at a place, before anything was taken out of it.
    pub(super) fn of(reading: &Reading<'_>, place: Place) -> Option<Self> {
        let (place, kind, content) = content(reading, place)?;
        let errors = reading.member("errors").and_then(Value::as_array);
        // What isn't readable as an error says nothing, here as in the event.
        let mut errors = errors.into_iter().flatten();
        let error = errors.find_map(|error| MetaError::deserialize(error).ok());
        let text = |name| member::<Text>(content, name).map(|text| text.0);
        let digest = member::<Digest>(content, "sha256").map(|digest| digest.0);
        Some(Self {
            place,
            kind,
            error: error.map(|error| error.line()),
            id: text("id"),
            mime_type: text("mime_type"),
            // Nothing has the digest of zeros: it is a placeholder.
            sha256: digest.filter(|digest| *digest != [0; 32]),
            url: text("url"),
            filename: text("filename"),
            file_size: member::<Number>(content, "file_size").and_then(|size| size.0.as_u64()),
        })
    }

    /// What the event says of it, if its place is one of those whose media is fetched, or it was.
    pub(super) fn part(self, places: MediaPlaces, state: Option<&MediaState>) -> Option<Media> {
        let named = self.id.is_some() || self.place == MediaPlace::Message;
        if state.is_none() && !(named && places.has(self.place)) {
            return None;
        }
        let mut media = Media {
            place: self.place,
            status: MediaStatus::Pending,
            id: self.id,
            mime_type: self.mime_type,
            detected_mime_type: None,
            size_bytes: None,
            sha256: self.sha256.map(|sha256| Digest(sha256).hex()),
            bucket: None,
            key: None,
            url: None,
            url_expires_at: None,
            filename: self.filename,
            error: None,
        };
        let nameless = || "Meta named no media".to_owned();
        let missing = self.error.or_else(|| media.id.is_none().then(nameless));
        match (missing, state) {
            (Some(error), _) => media.fail(error),
            (None, Some(MediaState::Failed { error })) => media.fail(error.clone()),
            (None, None | Some(MediaState::Pending)) => {}
            (None, Some(state @ MediaState::Stored { .. })) => media.store(state),
        }
        Some(media)
    }
}

impl Media {
    fn fail(&mut self, error: String) {
        self.status = MediaStatus::Failed;
        self.error = Some(error);
    }

    fn store(&mut self, state: &MediaState) {
        let MediaState::Stored {
            size_bytes,
            sha256,
            mime_type,
            detected_mime_type,
            bucket,
            key,
            url,
            url_expires_at,
        } = state
        else {
            return;
        };
        self.status = MediaStatus::Stored;
        self.mime_type = Some(mime_type.clone());
        self.detected_mime_type.clone_from(detected_mime_type);
        self.size_bytes = Some(*size_bytes);
        self.sha256 = Some(Digest(*sha256).hex());
        self.bucket = Some(bucket.clone());
        self.key = Some(key.clone());
        self.url = Some(url.clone());
        let expires_at = url_expires_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        self.url_expires_at = Some(expires_at);
    }
}

fn member<T: DeserializeOwned>(content: Option<&Value>, name: &str) -> Option<T> {
    T::deserialize(content?.get(name)?).ok()
}

/// The content of an item that is media: where it stands, its kind, and what it says.
fn content<'r>(
    reading: &'r Reading<'_>,
    place: Place,
) -> Option<(MediaPlace, MediaKind, Option<&'r Value>)> {
    if place == Place::Call {
        let of = |outer: &str, inner: &str| reading.member(outer)?.get(inner);
        let recording = of("call_recording", "audio").map(|it| (MediaKind::Audio, it));
        let transcript = || Some((MediaKind::Document, of("call_transcript", "document")?));
        let (kind, content) = recording.or_else(transcript)?;
        return Some((MediaPlace::Call, kind, Some(content)));
    }
    // What was sent through an API is wrapped as it was sent.
    let wrapped = reading.member("message").filter(|it| it.is_object());
    let wrapped = wrapped.filter(|_| place == Place::StandbyEcho);
    let outer = |name: &str| match wrapped {
        Some(sent) => sent.get(name),
        None => reading.member(name),
    };
    let mut sent_type = outer("type")?.as_str()?;
    let is_edit = MessageType::of(sent_type) == MessageType::Edit;
    let edited = if is_edit {
        Some(outer(sent_type)?.get("message")?)
    } else {
        None
    };
    if let Some(edited) = edited {
        sent_type = edited.get("type")?.as_str()?;
    }
    let kind = MediaKind::of(MessageType::of(sent_type))?;
    let content = match edited {
        Some(edited) => edited.get(sent_type),
        None => outer(sent_type),
    };
    Some((MediaPlace::of(place, is_edit)?, kind, content))
}

/// Whether an item may have media, seen without taking it apart.
fn may_have_media(raw: Json<'_>, place: Place) -> bool {
    if place == Place::Call {
        let named = members(raw, ["call_recording", "call_transcript"]);
        return named.is_some_and(|named| named.iter().any(Option::is_some));
    }
    if MediaPlace::of(place, false).is_none() {
        return false;
    }
    let [wrapped, own] = members(raw, ["message", "type"]).unwrap_or_default();
    let wrapped = wrapped.filter(|_| place == Place::StandbyEcho);
    let wrapped = wrapped.and_then(|wrapped| members(wrapped, ["type"]));
    let [kind] = wrapped.unwrap_or([own]);
    let kind = kind.and_then(string).map(|kind| MessageType::of(&kind));
    kind.is_some_and(|kind| kind == MessageType::Edit || MediaKind::of(kind).is_some())
}

/// The kind of media that an item has, or that Meta says it should have.
pub fn media_kind(payload: &Payload, item: &PayloadItem) -> Option<MediaKind> {
    let raw = payload.raw(item);
    let sent =
        may_have_media(raw, item.place).then(|| SentMedia::of(&Reading::of(raw), item.place));
    Some(sent??.kind)
}

/// The media that an item has, wherever it stands; none where Meta itself says that it has none.
pub fn media_ref(payload: &Payload, item: &PayloadItem) -> Option<MediaRef> {
    let raw = payload.raw(item);
    if !may_have_media(raw, item.place) {
        return None;
    }
    let sent = SentMedia::of(&Reading::of(raw), item.place)?;
    if sent.error.is_some() {
        return None;
    }
    Some(MediaRef {
        place: sent.place,
        kind: sent.kind,
        id: sent.id?,
        mime_type: sent.mime_type,
        sha256: sent.sha256,
        url: sent.url,
        filename: sent.filename,
        file_size: sent.file_size,
    })
}
