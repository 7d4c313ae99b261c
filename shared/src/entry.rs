//! The form of a stream entry: what ingress hands to the worker.
//!
//! | field | | |
//! | --- | --- | --- |
//! | `v` | version | `1` |
//! | `w` | business account | id, or `0` where the body names none |
//! | `c` | correlation id | UUID |
//! | `t` | taken at | ms since 1970, ingress' clock |
//! | `n` | fresh items | numbers in [`crate::webhook::read`]'s order: `0-4,7`; empty: a body without items |
//! | `b` | body | of one account, byte for byte |
//! | `s` | signature | `X-Hub-Signature-256` as it came, empty in unsigned mode |
//! | `p` | traceparent | W3C, empty where there is none |
//! | `r` | set aside because | why the body can't be read; empty for one that can |
//! | `o` | comes from | only of what was put back: key of the object in the store |
//! | `x` | replay | id of the replay that put it back; empty: it came back by itself |
//! | `a` | attempts | how often it was set aside before |
//!
//! Fields that a version doesn't know are ignored: a worker of the version before `o`, `x` and `a` publishes what was
//! put back, and leaves its object where it is.
//! Field names are one letter since each entry stores them.

use std::collections::HashMap;

/// The version that ingress writes. Workers read it and the one before.
pub const VERSION: &str = "1";

/// A decoded entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    pub waba_id: String,
    pub correlation_id: String,
    pub received_at_ms: i64,
    /// Numbers of the items to process, ascending.
    pub fresh: Vec<usize>,
    pub body: Vec<u8>,
    pub signature: String,
    pub traceparent: String,
    /// Why the body can't be read, if it can't.
    pub unreadable: Option<String>,
    /// Of what was put back from the object store.
    pub returned: Option<Returned>,
}

/// Where an entry that was put back comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Returned {
    /// Key of the object.
    pub source: String,
    /// Empty: it came back by itself.
    pub replay_id: String,
    /// How often it was set aside before.
    pub attempts: usize,
}

impl Returned {
    /// Reads the fields `o`, `x` and `a`; `None` where there is no `o`.
    pub fn decode(fields: &HashMap<String, Vec<u8>>) -> Option<Self> {
        let text = |name: &str| std::str::from_utf8(fields.get(name)?).ok();
        Some(Self {
            source: text("o").filter(|source| !source.is_empty())?.to_owned(),
            replay_id: text("x").unwrap_or_default().to_owned(),
            attempts: text("a").and_then(|a| a.parse().ok()).unwrap_or(0),
        })
    }
}

/// Why an entry can't be decoded. It is set aside as it is; its neighbours go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UndecodableEntry {
    #[error("entry version `{0}` is unknown to this worker")]
    Version(String),
    #[error("field `{0}` is missing or malformed")]
    Field(&'static str),
}

impl StreamEntry {
    /// Decodes the fields of one entry.
    ///
    /// # Errors
    /// [`UndecodableEntry`] if the version is unknown or a field is missing or malformed.
    pub fn decode(fields: &HashMap<String, Vec<u8>>) -> Result<Self, UndecodableEntry> {
        let text = |name: &'static str| {
            fields
                .get(name)
                .and_then(|value| std::str::from_utf8(value).ok())
                .ok_or(UndecodableEntry::Field(name))
        };
        let version = text("v")?;
        if version != VERSION {
            return Err(UndecodableEntry::Version(
                version.chars().take(20).collect(),
            ));
        }
        Ok(Self {
            waba_id: text("w")?.to_owned(),
            correlation_id: text("c")?.to_owned(),
            received_at_ms: text("t")?
                .parse()
                .map_err(|_| UndecodableEntry::Field("t"))?,
            fresh: parse_numbers(text("n")?).ok_or(UndecodableEntry::Field("n"))?,
            body: fields.get("b").ok_or(UndecodableEntry::Field("b"))?.clone(),
            signature: text("s")?.to_owned(),
            traceparent: text("p")?.to_owned(),
            unreadable: Some(text("r")?.to_owned()).filter(|reason| !reason.is_empty()),
            returned: Returned::decode(fields),
        })
    }

    /// Id of the replay that put it back; empty where none did.
    pub fn replay_id(&self) -> &str {
        let returned = self.returned.as_ref();
        returned.map_or("", |returned| &returned.replay_id)
    }
}

/// No body has more items than this: 3 MB of the shortest possible ones.
const MOST_NUMBERS: usize = 2_000_000;

/// Reads `0-4,7` as `[0,1,2,3,4,7]`.
pub fn parse_numbers(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST_NUMBERS || first > last {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Writes `[0,1,2,3,4,7]` as `0-4,7`.
pub fn format_numbers(numbers: impl IntoIterator<Item = usize>) -> String {
    let mut text = String::new();
    let mut range: Option<(usize, usize)> = None;
    let mut write = |(first, last): (usize, usize)| {
        let comma = if text.is_empty() { "" } else { "," };
        text += &if first == last {
            format!("{comma}{first}")
        } else {
            format!("{comma}{first}-{last}")
        };
    };
    for number in numbers {
        range = match range {
            Some((first, last)) if last + 1 == number => Some((first, number)),
            Some(done) => {
                write(done);
                Some((number, number))
            }
            None => Some((number, number)),
        };
    }
    if let Some(done) = range {
        write(done);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_their_text() {
        for numbers in [vec![], vec![3], vec![0, 1, 2], vec![0, 2, 3, 9]] {
            assert_eq!(
                parse_numbers(&format_numbers(numbers.clone())),
                Some(numbers)
            );
        }
        assert_eq!(format_numbers([0, 1, 2, 5]), "0-2,5");
        assert_eq!(parse_numbers("0-99999999999"), None);
        assert_eq!(parse_numbers("x"), None);
    }

    #[test]
    fn an_entry_of_another_version_says_so() {
        let fields = HashMap::from([("v".to_owned(), b"9".to_vec())]);
        assert_eq!(
            StreamEntry::decode(&fields),
            Err(UndecodableEntry::Version("9".into()))
        );
    }
}
