//! An id as an operator has it: from an event, a log line, a page, a bucket or a ticket. It may hold a phone
//! number; it is the operator's own input, written to the terminal, and to the log as a hash only.

use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use shared::private::Hashed;
use shared::webhook::{Identity, WebhookItem};
use strum::IntoEnumIterator;
use uuid::Uuid;

use crate::item::event::EventType;
use crate::out::store;

const LONGEST: usize = 1024;
/// Hex digits of a hash as [`Hashed`] writes it.
const HASH_DIGITS: usize = 16;

/// What an id may be of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum GivenId {
    /// A message, status or call as Meta names it.
    Item(String),
    /// The same as logs write it; a shorter id of Meta's that looks like one is found too.
    Hash(String),
    /// A webhook's correlation id, or an event.
    Uuid(Uuid),
    /// An entry of a stream.
    Entry(String),
    /// A key of the object store.
    Key(String),
}

impl FromStr for GivenId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let odd = |c: char| c.is_control() || c.is_whitespace();
        if text.is_empty() || text.len() > LONGEST || text.contains("..") || text.contains(odd) {
            return Err(
                "is no id: give a message's (wamid.HBgL…) or its hash, a correlation id, an event's or \
                 an entry's id, or an object's key",
            );
        }
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let given = || text.to_owned();
        if text.starts_with("wamid.") {
            return Ok(Self::Item(given()));
        }
        if let Ok(uuid) = text.parse() {
            return Ok(Self::Uuid(uuid));
        }
        if text.contains('/') {
            return Ok(Self::Key(text.trim_start_matches('/').to_owned()));
        }
        if text.len() == HASH_DIGITS && text.chars().all(is_hex) {
            return Ok(Self::Hash(given()));
        }
        match text.split_once('-') {
            Some((ms, number)) if is_number(ms) && is_number(number) => Ok(Self::Entry(given())),
            Some(_) | None => Ok(Self::Item(given())),
        }
    }
}

impl TryFrom<String> for GivenId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl GivenId {
    /// As it was given.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Item(text) | Self::Hash(text) | Self::Entry(text) | Self::Key(text) => {
                text.clone()
            }
            Self::Uuid(uuid) => uuid.to_string(),
        }
    }

    /// Whether it is Meta's id of something.
    pub(crate) fn is_of(&self, id: &str) -> bool {
        match self {
            Self::Item(text) => text == id,
            Self::Hash(text) => text == id || *text == Hashed(id).to_string(),
            Self::Uuid(_) | Self::Entry(_) | Self::Key(_) => false,
        }
    }

    /// Whether it is an item's, or that of one of its events.
    pub(crate) fn is_of_item(&self, id: Option<&str>, identity: &Identity) -> bool {
        match self {
            Self::Uuid(uuid) => EventType::iter().any(|kind| kind.id(identity) == *uuid),
            Self::Item(_) | Self::Hash(_) | Self::Entry(_) | Self::Key(_) => {
                id.is_some_and(|id| self.is_of(id))
            }
        }
    }

    pub(crate) fn is_in(&self, item: &WebhookItem<'_>) -> bool {
        self.is_of_item(item.id.as_deref(), &item.identity)
    }

    /// Whether an object is called after it. Whatever else the object holds, its name doesn't tell.
    pub(crate) fn names(&self, key: &str) -> bool {
        let file = key.rsplit('/').next().unwrap_or_default();
        let name = file.split_once('-').map_or("", |(_, name)| name);
        match self {
            Self::Key(wanted) => wanted == key,
            Self::Item(id) => {
                let after = name.strip_prefix(&store::segment(id));
                after.is_some_and(|after| after.starts_with('.'))
            }
            Self::Hash(_) => {
                // Behind the id may stand a piece of an identity, a replay's id, and the extension.
                let ends = name.match_indices('.').map(|(at, _)| at);
                ends.filter_map(|at| name.get(..at)).any(|id| {
                    let id = percent_decode_str(id).decode_utf8_lossy();
                    self.is_of(&id)
                })
            }
            Self::Uuid(_) | Self::Entry(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> GivenId {
        text.parse().expect(text)
    }

    #[test]
    fn an_id_is_known_by_its_form() {
        let uuid = "0a1b2c3d-4e5f-4a1b-8c2d-3e4f5a6b7c8d";
        for (text, expected) in [
            ("wamid.HBgL/+=", GivenId::Item("wamid.HBgL/+=".into())),
            ("ba7816bf8f01cfea", GivenId::Hash("ba7816bf8f01cfea".into())),
            (uuid, GivenId::Uuid(uuid.parse().expect("a UUID"))),
            ("1764000000000-0", GivenId::Entry("1764000000000-0".into())),
            ("/failed/t/x.json", GivenId::Key("failed/t/x.json".into())),
            ("wacid.1-2", GivenId::Item("wacid.1-2".into())),
        ] {
            assert_eq!(given(text), expected, "{text}");
        }
        for nonsense in ["", "a b", "failed/../x", "a\n"] {
            assert!(nonsense.parse::<GivenId>().is_err(), "{nonsense}");
        }
    }

    #[test]
    fn an_object_is_found_by_the_id_that_it_is_called_after_and_by_its_hash() {
        let id = "wamid.HBgL/A=";
        let hash = Hashed(id).to_string();
        for name in ["", ".0a1b2c3d", ".0a1b2c3d-aaaa.01234567"] {
            let key = format!(
                "failed/t/2026-11-25/1764000000000-{}{name}.json",
                store::segment(id)
            );
            assert!(given(id).names(&key), "{key}");
            assert!(given(&hash).names(&key), "{key}");
            assert!(given(&key).names(&key), "{key}");
            assert!(!given("wamid.HBgL").names(&key), "{key}");
        }
    }
}
