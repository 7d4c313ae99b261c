//! What an acknowledged entry still owes, and the text that says so: a piece is its entry's id, a space,
//! and JSON. It lies in the sorted set of its kind; all else of it is in the entry, which stays in the
//! stream until its last piece is done.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::webhook::Identity;

use crate::metrics::OwedKind;
use crate::read::gate::TransferPace;

/// What an acknowledged entry still owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owed {
    Put(OwedPut),
    State(OwedState),
    Settle(OwedSettle),
    Media(OwedMedia),
}

/// An entry that is done, and what it still owes.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    pub id: &'a str,
    pub owed: &'a [Owed],
}

/// An object to write, with the entry's body. While the store is away there may be millions: a piece is
/// short, a bare string or an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OwedPut {
    /// The archive's, in this folder.
    Archive(String),
    /// One of the failed store.
    Failed {
        key: String,
        /// Attributes of the object that the entry doesn't say.
        described: BTreeMap<String, String>,
    },
}

/// The State Manager is to be told of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedState {
    /// Number of the item.
    #[serde(rename = "n")]
    pub item: usize,
    #[serde(rename = "tenant")]
    pub tenant_id: String,
    #[serde(rename = "conversation", skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    /// It isn't told any more then (ms since 1970).
    #[serde(rename = "until")]
    pub until_ms: u64,
}

/// The place of an object that was put back, now that its entry is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedSettle {
    pub source: String,
    /// Empty: it came back by itself.
    #[serde(rename = "replay")]
    pub replay_id: String,
    pub settled: Settled,
}

/// What became of an object that was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// All of it went out.
    Out,
    /// What of it was set aside again lies under other keys.
    Again,
    /// The same under its own key.
    Same,
}

/// Media that is pending: its transfer, and the event that ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedMedia {
    /// Number of the item.
    #[serde(rename = "n")]
    pub item: usize,
    #[serde(rename = "tenant")]
    pub tenant_id: String,
    #[serde(rename = "name", skip_serializing_if = "Option::is_none")]
    pub tenant_name: Option<String>,
    /// Bucket and key of the raw payload.
    #[serde(rename = "raw", skip_serializing_if = "Option::is_none")]
    pub raw_object: Option<(String, String)>,
    /// Meta has deleted it by then (ms since 1970): whoever is away, it has a last try.
    #[serde(rename = "until")]
    pub until_ms: u64,
    /// Pieces of another pace than received messages' lie in a list of their own.
    #[serde(default, skip_serializing_if = "TransferPace::is_inbound")]
    pub pace: TransferPace,
    /// Why it is given up, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Owed {
    pub fn kind(&self) -> OwedKind {
        match self {
            Self::Put(_) => OwedKind::Put,
            Self::State(_) => OwedKind::State,
            Self::Settle(_) => OwedKind::Settle,
            Self::Media(media) => match media.pace {
                TransferPace::Inbound => OwedKind::Media,
                TransferPace::Beside | TransferPace::History => OwedKind::OtherMedia,
            },
        }
    }

    /// Whose it is: a tenant, or a tenant's folder.
    pub fn tenant(&self) -> &str {
        match self {
            Self::Put(OwedPut::Archive(folder)) => folder,
            Self::Put(OwedPut::Failed { key, .. }) => key.split('/').nth(1).unwrap_or_default(),
            Self::State(state) => &state.tenant_id,
            Self::Settle(_) => "",
            Self::Media(media) => &media.tenant_id,
        }
    }

    /// Whose turn it takes: its tenant's; files of a tenant's history take turns of their own.
    pub fn taker(&self) -> Cow<'_, str> {
        match self {
            Self::Media(media) if media.pace == TransferPace::History => {
                format!("history of {}", media.tenant_id).into()
            }
            Self::Put(_) | Self::State(_) | Self::Settle(_) | Self::Media(_) => {
                self.tenant().into()
            }
        }
    }

    /// From when on (ms since 1970) it ends whoever is away.
    pub fn until_ms(&self) -> Option<u64> {
        match self {
            Self::Put(_) | Self::Settle(_) => None,
            Self::State(state) => Some(state.until_ms),
            Self::Media(media) => Some(media.until_ms),
        }
    }

    /// The piece of an entry, as it lies in its list.
    ///
    /// # Errors
    /// None is known: it is made of texts and numbers.
    pub fn piece(&self, entry: &str) -> serde_json::Result<String> {
        let json = match self {
            Self::Put(put) => serde_json::to_string(put)?,
            Self::State(state) => serde_json::to_string(state)?,
            Self::Settle(settle) => serde_json::to_string(settle)?,
            Self::Media(media) => serde_json::to_string(media)?,
        };
        Ok(format!("{entry} {json}"))
    }

    /// What a piece of a list owes; `None` for what another version wrote.
    pub fn read(kind: OwedKind, piece: &str) -> Option<Self> {
        let (_, json) = piece.split_once(' ')?;
        match kind {
            OwedKind::Put => serde_json::from_str(json).ok().map(Self::Put),
            OwedKind::State => serde_json::from_str(json).ok().map(Self::State),
            OwedKind::Settle => serde_json::from_str(json).ok().map(Self::Settle),
            OwedKind::Media | OwedKind::OtherMedia => {
                serde_json::from_str(json).ok().map(Self::Media)
            }
        }
    }
}

/// The field of [`Keys::settled`] that counts how often an object was settled, and every 256th other one:
/// the counts are kept for good, and few.
///
/// [`Keys::settled`]: shared::keys::Keys::settled
pub fn settled_field(source: &str) -> String {
    let identity = Identity::of_body(source.as_bytes());
    identity.short().chars().take(2).collect()
}

/// The entry of a piece.
pub fn entry_of(piece: &str) -> &str {
    piece.split_once(' ').map_or(piece, |(entry, _)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_read_as_it_was_written() {
        let failed = OwedPut::Failed {
            key: "failed/tenant-1/2026/11/29/1-a.json".to_owned(),
            described: BTreeMap::from([("reason".to_owned(), "crashes".to_owned())]),
        };
        let all = [
            Owed::Put(OwedPut::Archive("tenant-1".to_owned())),
            Owed::Put(failed),
            Owed::State(OwedState {
                item: 3,
                tenant_id: "tenant-1".to_owned(),
                conversation_id: None,
                until_ms: 5,
            }),
            Owed::Settle(OwedSettle {
                source: "failed/a b".to_owned(),
                replay_id: String::new(),
                settled: Settled::Again,
            }),
            media(TransferPace::Inbound),
            media(TransferPace::Beside),
            media(TransferPace::History),
        ];
        for owed in all {
            let piece = owed.piece("1764412345678-0").expect("a text");
            assert_eq!(entry_of(&piece), "1764412345678-0");
            assert_eq!(Owed::read(owed.kind(), &piece), Some(owed));
        }
        assert_eq!(Owed::read(OwedKind::State, "1-0 {}"), None);
    }

    fn media(pace: TransferPace) -> Owed {
        Owed::Media(OwedMedia {
            item: 0,
            tenant_id: "tenant-1".to_owned(),
            tenant_name: Some("One".to_owned()),
            raw_object: Some(("bucket".to_owned(), "key".to_owned())),
            until_ms: 5,
            pace,
            failed: None,
        })
    }

    #[test]
    fn files_of_a_history_take_turns_of_their_own() {
        let [inbound, beside, history] = [
            TransferPace::Inbound,
            TransferPace::Beside,
            TransferPace::History,
        ]
        .map(media);
        assert_eq!(inbound.taker(), beside.taker());
        assert_ne!(inbound.taker(), history.taker());
    }

    #[test]
    fn what_others_delete_ends_in_time_whoever_is_away() {
        assert_eq!(media(TransferPace::Inbound).until_ms(), Some(5));
        let archive = Owed::Put(OwedPut::Archive("tenant-1".to_owned()));
        assert_eq!(archive.until_ms(), None, "a write waits for its store");
    }

    #[test]
    fn objects_are_counted_in_few_fields() {
        let fields: std::collections::BTreeSet<_> = (0..10_000)
            .map(|n| settled_field(&format!("failed/tenant-1/{n}")))
            .collect();
        assert_eq!(fields.len(), 256);
    }

    #[test]
    fn a_piece_without_a_pace_is_a_received_messages() {
        let piece = "1-0 {\"n\":0,\"tenant\":\"tenant-1\",\"until\":5}";
        let Some(Owed::Media(media)) = Owed::read(OwedKind::Media, piece) else {
            panic!("a piece of the version before");
        };
        assert_eq!(media.pace, TransferPace::Inbound);
        let written = Owed::Media(media).piece("1-0").expect("a text");
        assert_eq!(written, piece);
    }
}
