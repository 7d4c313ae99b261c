//! What makes an item itself: where it stood, and what names it there.

use std::borrow::Cow;
use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::json::{Json, members, string};

/// Where an item stood. Array path and field are part of an item's identity: the same message id
/// in two places is two items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Message,
    Status,
    UserAction,
    /// Value-level `errors[]` with nothing beside them: one item, its JSON is the value.
    ValueErrors,
    StandbyMessage,
    StandbyStatus,
    StandbyEcho,
    Echo,
    HistoryThreadMessage,
    HistoryMessage,
    HistoryEcho,
    Call,
    CallStatus,
    /// Every other field: the change is one item, its JSON is the value.
    Change,
    /// A change, an entry or a body without any other item that says something all the same: it is one item, its
    /// JSON is all of it.
    UnknownShape,
}

impl Place {
    /// Path of the array inside `value`; empty where the value itself is the item.
    pub fn path(self) -> &'static str {
        match self {
            Self::Message | Self::HistoryMessage => "messages",
            Self::Status | Self::CallStatus => "statuses",
            Self::UserAction => "user_actions",
            Self::ValueErrors => "errors",
            Self::StandbyMessage => "standby.messages",
            Self::StandbyStatus => "standby.statuses",
            Self::StandbyEcho => "standby.message_echoes",
            Self::Echo | Self::HistoryEcho => "message_echoes",
            Self::HistoryThreadMessage => "history.threads.messages",
            Self::Call => "calls",
            Self::Change | Self::UnknownShape => "",
        }
    }
}

/// SHA-256 over the length-prefixed parts that make an item itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(pub [u8; 32]);

impl Identity {
    /// Hashes `parts`, each behind its length, so that no two lists of parts read alike.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut sha = Sha256::new();
        for part in parts {
            sha.update((part.len() as u64).to_le_bytes());
            sha.update(part);
        }
        Self(sha.finalize().into())
    }

    /// Identity of a body without items, or one that can't be read.
    pub fn of_body(body: &[u8]) -> Self {
        Self::of(&[b"body", body])
    }

    /// Eight hex digits, to tell two objects in the store apart.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..4])
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// What of an item makes its identity, besides where it stood.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct IdentityParts<'a> {
    pub id: Option<Cow<'a, str>>,
    pub status: Option<Cow<'a, str>>,
    pub event: Option<Cow<'a, str>>,
    pub participant: Option<Cow<'a, str>>,
    /// A `type` member is there at all: a status with one is a payment or a call.
    pub has_type: bool,
}

/// Identity of an item: field and path, number (else account), then what names an item of its kind;
/// where nothing does, its JSON and the entry's time.
pub fn identity(
    place: Place,
    field: &str,
    number_or_waba: &str,
    parts: &IdentityParts<'_>,
    raw: &[u8],
    entry_time: &[u8],
) -> Identity {
    let head = [
        field.as_bytes(),
        place.path().as_bytes(),
        number_or_waba.as_bytes(),
    ];
    let [field, path, number] = head;
    let by_json = || Identity::of(&[b"json", field, path, number, raw, entry_time]);
    let Some(id) = parts.id.as_deref().filter(|id| !id.is_empty()) else {
        return by_json();
    };
    let id = id.as_bytes();
    match place {
        Place::Message
        | Place::StandbyMessage
        | Place::StandbyEcho
        | Place::Echo
        | Place::HistoryThreadMessage
        | Place::HistoryMessage
        | Place::HistoryEcho => Identity::of(&[b"id", field, path, number, id]),
        Place::Status | Place::StandbyStatus => match &parts.status {
            Some(status) if !parts.has_type => Identity::of(&[
                b"status",
                field,
                path,
                number,
                id,
                status.as_bytes(),
                parts.participant.as_deref().unwrap_or_default().as_bytes(),
            ]),
            Some(_) | None => by_json(),
        },
        Place::Call => match &parts.event {
            Some(event) => Identity::of(&[b"call", field, path, number, id, event.as_bytes()]),
            None => by_json(),
        },
        Place::CallStatus
        | Place::UserAction
        | Place::ValueErrors
        | Place::Change
        | Place::UnknownShape => by_json(),
    }
}

/// The members of an item that its identity may need. An item that is no object has none.
pub fn identity_parts(raw: Json<'_>) -> IdentityParts<'_> {
    let Some(
        [
            id,
            status,
            event,
            kind,
            participant,
            participant_old,
            participant_user,
        ],
    ) = members(
        raw,
        [
            "id",
            "status",
            "event",
            "type",
            // Meta documents two spellings, and the business-scoped id where the phone is withheld.
            "recipient_participant_id",
            "participant_recipient_id",
            "recipient_participant_user_id",
        ],
    )
    else {
        return IdentityParts::default();
    };
    IdentityParts {
        id: id.and_then(string),
        status: status.and_then(string),
        event: event.and_then(string),
        participant: [participant, participant_old, participant_user]
            .into_iter()
            .find_map(|it| it.and_then(string).filter(|it| !it.is_empty())),
        has_type: kind.is_some(),
    }
}
