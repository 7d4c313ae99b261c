//! Calls, and what became of calls that the business made.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{EnumIter, EnumString, IntoStaticStr};

use super::audio::Audio;
use super::document::Document;
use super::media::Media;
use super::read::Reading;
use super::values::{Number, Text, Timestamp, Words};

/// A call.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Call {
    /// `wacid.…`: the same in all events of a call.
    pub id: Option<Text>,
    /// `connect`, `terminate`, …; of a status the status in lower case: `ringing`, `accepted`,
    /// `rejected`. `unknown` if there was none.
    #[serde(default)]
    pub event: Text,
    pub timestamp: Option<Timestamp>,
    /// `USER_INITIATED` or `BUSINESS_INITIATED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_parent_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_parent_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<CallConnection>,
    /// As sent. Meta sends one word or an array of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Words>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Number>,
    #[serde(
        rename(deserialize = "biz_opaque_callback_data"),
        skip_serializing_if = "Option::is_none"
    )]
    pub callback_data: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deeplink_payload: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cta_payload: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_recording: Option<CallRecording>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_transcript: Option<CallTranscript>,
    /// Of a recording or transcript if those of calls are fetched: what became of it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// Of a status: `call`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub sent_type: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_parent_user_id: Option<Text>,
}

/// SDP of the other side.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Session {
    /// `offer` or `answer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp_type: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp: Option<Text>,
}

/// SDP in its older place.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Connection")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallConnection {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webrtc: Option<WebRtc>,
}

/// SDP as JSON in a string.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct WebRtc {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp: Option<Text>,
}

/// A recording that can be fetched.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Recording")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallRecording {
    /// `audio`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<Audio>,
}

/// What was said, as a file that can be fetched: JSON with a `transcript`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Transcript")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallTranscript {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
}

/// Words that calls may route by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum CallWord {
    Accepted,
    CallCreated,
    CallRecordingAvailable,
    CallTranscriptionAvailable,
    Connect,
    Failed,
    Rejected,
    Ringing,
    Terminate,
    Unknown,
}

/// Types a call, or a status of one.
pub(super) fn call(reading: &mut Reading<'_>) -> (Call, CallWord) {
    let mut call: Call = reading.rest();
    if call.event.0.is_empty() {
        let status = call.status.as_ref().and_then(|words| words.0.first());
        call.event = Text(status.map_or("unknown".to_owned(), |word| word.to_lowercase()));
    }
    let word = call.event.as_str().parse().unwrap_or(CallWord::Unknown);
    (call, word)
}
