//! Calls, and what became of calls that the business made.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{EnumIter, EnumString, IntoStaticStr};

use super::audio::Audio;
use super::document::Document;
use super::media::Media;
use super::read::Reading;
use super::values::{Number, Text, Timestamp, Words};

/// This tells one step of a call between a customer and the business.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Call {
    /// All events of one call have the same id, `wacid.…`.
    pub id: Option<Text>,
    /// Meta's word for what happened, or a status in lower case, is an open set: `connect`,
    /// `terminate`, `ringing`, … It is `unknown` if Meta sent no word.
    #[serde(default)]
    pub event: Text,
    /// This happened at this time, as Meta says. It is `null` if Meta sent no time.
    pub timestamp: Option<Timestamp>,
    /// The customer called (`USER_INITIATED`), or the business did (`BUSINESS_INITIATED`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Text>,
    /// This is the caller's phone number. It is missing if Meta withholds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Text>,
    /// This is the business-scoped id (`CC.…`) of a customer who called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_user_id: Option<Text>,
    /// This is the parent business-scoped id (`CC.ENT.…`) of a customer who called. Linked
    /// portfolios share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_parent_user_id: Option<Text>,
    /// This phone number was called. It is missing if Meta withholds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Text>,
    /// This is the business-scoped id (`CC.…`) of a customer who was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_user_id: Option<Text>,
    /// This is the parent business-scoped id (`CC.ENT.…`) of a customer who was called. Linked
    /// portfolios share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_parent_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<CallConnection>,
    /// These words tell how the call stands or ended, as sent: `RINGING`, `Completed`, … Meta sends
    /// one word or an array; here it is always an array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Words>,
    /// The call was answered at this time. Only the event `terminate` of an answered call has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// The call ended at this time. Only the event `terminate` of an answered call has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// The call lasted so many seconds. Only the event `terminate` of an answered call has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Number>,
    /// The business gave Meta this text when it started or accepted the call.
    #[serde(
        rename(deserialize = "biz_opaque_callback_data"),
        skip_serializing_if = "Option::is_none"
    )]
    pub callback_data: Option<Text>,
    /// The customer called by a link of the business that had this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deeplink_payload: Option<Text>,
    /// The customer called by a call button of the business that had this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cta_payload: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_recording: Option<CallRecording>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_transcript: Option<CallTranscript>,
    /// This says what became of the copy of the recording or transcript. It is missing if there is
    /// no such file, or if the setting `MEDIA_PLACES` leaves calls out.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// This is `call` if Meta sent a status of a call, and else missing.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub sent_type: Option<Text>,
    /// The status is about a call to this phone number. It is missing if Meta withholds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_id: Option<Text>,
    /// The status is about a call to the customer with this business-scoped id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_user_id: Option<Text>,
    /// The status is about a call to the customer with this parent business-scoped id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_parent_user_id: Option<Text>,
}

/// A WebRTC client connects the call by this session description (SDP) of the other side.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Session {
    /// The description is an `offer` or an `answer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp_type: Option<Text>,
    /// This is the text of the description, in the SDP format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp: Option<Text>,
}

/// Some webhooks have the session description here instead of in `session`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Connection")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallConnection {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webrtc: Option<WebRtc>,
}

/// This has the session description in its older form.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct WebRtc {
    /// This string is JSON text that has the description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp: Option<Text>,
}

/// Meta offers this recording of the call.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Recording")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallRecording {
    /// The recording is of this type, which so far is always `audio`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<Audio>,
}

/// Meta offers this transcript of what was said in the call.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Transcript")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallTranscript {
    /// This file is JSON with a member `transcript`.
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
