//! The form of a stream entry: what ingress hands to the worker.
//!
//! | field | | |
//! | --- | --- | --- |
//! | `h` | header | [`EntryHeader`], packed |
//! | `b` | body | of one account, byte for byte |
//! | `n` | fresh items | numbers in [`crate::webhook::read`]'s order: `0-4,7`; missing: all of them |
//! | `o` | comes from | only of what was put back: key of the object in the store |
//! | `x` | replay | id of the replay that put it back; empty: it came back by itself |
//! | `a` | attempts | how often it was set aside before |
//!
//! Version 1, which is read as well, has a field for each member of the header: `v` (`1`), `w` business
//! account, `c` correlation id, `t` taken at, `s` signature, `p` traceparent, `r` why it can't be read, all as
//! text, and always `n`.
//!
//! Fields that a version doesn't know are ignored. Field names are one letter since each entry stores them.

use std::collections::HashMap;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use uuid::Uuid;

use crate::intake::{Delivery, Envelope};

/// The version that ingress writes. Workers read it and the one before.
pub const VERSION: u8 = 2;

/// The version before.
const TEXT_VERSION: &str = "1";

/// The fields of an entry, by name, as they lie in the stream.
pub type EntryFields = HashMap<String, Bytes>;

/// A decoded entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    pub waba_id: String,
    pub correlation_id: String,
    pub received_at_ms: i64,
    /// How many items ingress found in the body; 0: none, or it is not known.
    pub items: usize,
    /// Numbers of the items to process, ascending.
    pub fresh: Vec<usize>,
    pub body: Bytes,
    pub signature: String,
    pub traceparent: String,
    /// Why the body can't be read, if it can't.
    pub unreadable: Option<String>,
    /// Of what was put back from the object store.
    pub returned: Option<Returned>,
}

/// What an entry says of its body.
///
/// Packed (numbers big-endian):
///
/// | bytes | |
/// | --- | --- |
/// | 1 | version |
/// | 2, and as many as they say | business account; up to here every version has the same |
/// | 1 | which of the following are packed: 1 the correlation id, 2 the signature, 4 the traceparent; 8: there is a reason |
/// | 8 | taken at |
/// | 4 | items |
/// | 16 | correlation id, a UUID |
/// | 32 | signature: an HMAC-SHA256 |
/// | 26 | traceparent: version, trace, parent, flags |
/// | the rest | why the body can't be read |
///
/// What isn't packed, since it would not come out as it came in, is text behind two bytes of its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryHeader {
    /// Business account: its id, or `0` where the body names none.
    pub waba_id: String,
    /// A UUID, mostly.
    pub correlation_id: String,
    /// Ms since 1970, by ingress' clock.
    pub received_at_ms: i64,
    /// `X-Hub-Signature-256` as it came, empty in unsigned mode.
    pub signature: String,
    /// W3C, empty where there is none.
    pub traceparent: String,
    /// Why the body can't be read, if it can't.
    pub unreadable: Option<String>,
    /// How many items the body has; 0: it has none, or can't be read.
    pub items: usize,
}

/// Where the signature's digits begin.
const SIGNED: &str = "sha256=";
/// Lengths of the parts of a traceparent, in digits.
const TRACE_PARTS: [usize; 4] = [2, 32, 16, 2];

impl EntryHeader {
    /// That of a delivery with so many items.
    pub(crate) fn of_delivery(delivery: &Delivery, envelope: &Envelope, items: usize) -> Self {
        Self {
            waba_id: delivery.waba_id.clone(),
            correlation_id: envelope.correlation_id.clone(),
            received_at_ms: envelope.received_at_ms() as i64,
            signature: envelope.signature.clone(),
            traceparent: envelope.traceparent.clone(),
            unreadable: delivery.unreadable.clone(),
            items,
        }
    }

    pub fn pack(&self) -> Vec<u8> {
        let mut packed = Vec::with_capacity(128);
        packed.push(VERSION);
        push_text(&mut packed, &self.waba_id);
        let at = packed.len();
        packed.push(0);
        packed.extend(self.received_at_ms.to_be_bytes());
        packed.extend((self.items as u32).to_be_bytes());
        let mut flags = 0;
        let parts = [
            (1, &self.correlation_id, packed_uuid(&self.correlation_id)),
            (2, &self.signature, packed_signature(&self.signature)),
            (4, &self.traceparent, packed_trace(&self.traceparent)),
        ];
        for (flag, text, bytes) in parts {
            match bytes {
                Some(bytes) => {
                    flags |= flag;
                    packed.extend(bytes);
                }
                None => push_text(&mut packed, text),
            }
        }
        if let Some(reason) = &self.unreadable {
            flags |= 8;
            packed.extend(reason.as_bytes());
        }
        packed[at] = flags;
        packed
    }

    fn unpack(packed: &[u8]) -> Option<Self> {
        let mut rest = packed.get(1..)?;
        let waba_id = take_text(&mut rest)?;
        let [flags] = take(&mut rest)?;
        let received_at_ms = i64::from_be_bytes(take(&mut rest)?);
        let items = u32::from_be_bytes(take(&mut rest)?) as usize;
        let correlation_id = match flags & 1 {
            0 => take_text(&mut rest)?,
            _ => Uuid::from_bytes(take(&mut rest)?).to_string(),
        };
        let signature = match flags & 2 {
            0 => take_text(&mut rest)?,
            _ => format!("{SIGNED}{}", HEXLOWER.encode(&take::<32>(&mut rest)?)),
        };
        let traceparent = match flags & 4 {
            0 => take_text(&mut rest)?,
            _ => {
                let digits = HEXLOWER.encode(&take::<26>(&mut rest)?);
                let (mut parts, mut from) = (Vec::new(), 0);
                for length in TRACE_PARTS {
                    parts.push(digits.get(from..from + length)?);
                    from += length;
                }
                parts.join("-")
            }
        };
        let unreadable = match flags & 8 {
            0 => None,
            _ => Some(std::str::from_utf8(rest).ok()?.to_owned()),
        };
        (items < MOST_NUMBERS).then_some(Self {
            waba_id,
            correlation_id,
            received_at_ms,
            signature,
            traceparent,
            unreadable,
            items,
        })
    }

    /// The header of an entry, without its body; of the version before without its items.
    ///
    /// # Errors
    /// [`UndecodableEntry`] if the version is unknown or a field is missing or malformed.
    pub fn of(fields: &EntryFields) -> Result<Self, UndecodableEntry> {
        if let Some(packed) = fields.get("h") {
            return match packed.first() {
                Some(&VERSION) => Self::unpack(packed).ok_or(UndecodableEntry::Field("h")),
                Some(other) => Err(UndecodableEntry::Version(other.to_string())),
                None => Err(UndecodableEntry::Field("h")),
            };
        }
        let version = text(fields, "v")?;
        if version != TEXT_VERSION {
            return Err(UndecodableEntry::Version(
                version.chars().take(20).collect(),
            ));
        }
        Ok(Self {
            waba_id: text(fields, "w")?.to_owned(),
            correlation_id: text(fields, "c")?.to_owned(),
            received_at_ms: text(fields, "t")?
                .parse()
                .map_err(|_| UndecodableEntry::Field("t"))?,
            signature: text(fields, "s")?.to_owned(),
            traceparent: text(fields, "p")?.to_owned(),
            unreadable: Some(text(fields, "r")?.to_owned()).filter(|reason| !reason.is_empty()),
            items: 0,
        })
    }
}

/// The business account of an entry of any version, if it says so.
pub fn account(fields: &EntryFields) -> Option<String> {
    match fields.get("h") {
        Some(packed) => take_text(&mut packed.get(1..)?),
        None => text(fields, "w").ok().map(str::to_owned),
    }
}

fn text<'f>(fields: &'f EntryFields, name: &'static str) -> Result<&'f str, UndecodableEntry> {
    let value = fields.get(name).map(|value| std::str::from_utf8(value));
    match value {
        Some(Ok(text)) => Ok(text),
        Some(Err(_)) | None => Err(UndecodableEntry::Field(name)),
    }
}

/// Bytes behind their length. What no header of a request may be as long as is cut.
fn push_text(packed: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.floor_char_boundary(usize::from(u16::MAX))];
    packed.extend((bytes.len() as u16).to_be_bytes());
    packed.extend(bytes);
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*bytes)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::from(u16::from_be_bytes(take(rest)?));
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    String::from_utf8(bytes.to_vec()).ok()
}

fn packed_uuid(text: &str) -> Option<Vec<u8>> {
    let id = Uuid::try_parse(text).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (id.hyphenated().encode_lower(&mut buffer) == text).then(|| id.as_bytes().to_vec())
}

fn packed_signature(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(SIGNED)?;
    let bytes = HEXLOWER.decode(digits.as_bytes()).ok()?;
    (bytes.len() == 32).then_some(bytes)
}

fn packed_trace(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('-');
    let right = TRACE_PARTS.map(|length| parts.next().is_some_and(|part| part.len() == length));
    let whole = right == [true; 4] && parts.next().is_none();
    if !whole {
        return None;
    }
    HEXLOWER.decode(text.replace('-', "").as_bytes()).ok()
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
    pub fn decode(fields: &EntryFields) -> Option<Self> {
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
    pub fn decode(fields: &EntryFields) -> Result<Self, UndecodableEntry> {
        let header = EntryHeader::of(fields)?;
        let fresh = match (fields.contains_key("h"), fields.contains_key("n")) {
            (true, false) => (0..header.items).collect(),
            (true, true) | (false, _) => {
                parse_numbers(text(fields, "n")?).ok_or(UndecodableEntry::Field("n"))?
            }
        };
        let body = fields.get("b").ok_or(UndecodableEntry::Field("b"))?;
        Ok(Self {
            waba_id: header.waba_id,
            correlation_id: header.correlation_id,
            received_at_ms: header.received_at_ms,
            fresh,
            items: header.items,
            body: body.clone(),
            signature: header.signature,
            traceparent: header.traceparent,
            unreadable: header.unreadable,
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
        let text = EntryFields::from([("v".to_owned(), Bytes::from_static(b"9"))]);
        let mut packed = header().pack();
        packed[0] = 9;
        let packed = EntryFields::from([("h".to_owned(), packed.into())]);
        assert_eq!(account(&packed).as_deref(), Some("102290129340398"));
        for fields in [text, packed] {
            let unknown = UndecodableEntry::Version("9".into());
            assert_eq!(StreamEntry::decode(&fields), Err(unknown));
        }
    }

    fn header() -> EntryHeader {
        EntryHeader {
            waba_id: "102290129340398".to_owned(),
            correlation_id: "6ba7b810-9dad-41d1-80b4-00c04fd430c8".to_owned(),
            received_at_ms: 1_700_000_001_234,
            signature: format!("sha256={}", "0f".repeat(32)),
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
            unreadable: None,
            items: 3,
        }
    }

    #[test]
    fn a_header_comes_out_as_it_went_in() {
        let everyday = header();
        assert_eq!(everyday.pack().len(), 105);
        let odd = |text: &str| EntryHeader {
            waba_id: text.to_owned(),
            correlation_id: text.to_owned(),
            signature: text.to_owned(),
            traceparent: text.to_owned(),
            unreadable: Some(text.to_owned()).filter(|text| !text.is_empty()),
            received_at_ms: -1,
            items: 0,
        };
        let upper = |text: &str| text.to_uppercase();
        let not_packed = EntryHeader {
            correlation_id: upper(&everyday.correlation_id),
            signature: upper(&everyday.signature),
            traceparent: upper(&everyday.traceparent).replace("00-", "ff-"),
            ..everyday.clone()
        };
        let long = "x".repeat(60_000);
        for header in [
            everyday,
            odd(""),
            odd("no id, but „text“"),
            odd(&long),
            not_packed,
        ] {
            let packed = header.pack();
            let fields = EntryFields::from([("h".to_owned(), packed.clone().into())]);
            assert_eq!(account(&fields).as_ref(), Some(&header.waba_id));
            assert_eq!(EntryHeader::of(&fields), Ok(header.clone()));
            // Cut anywhere, it is malformed, or another one where only its reason is shorter.
            for length in 1..packed.len().min(200) {
                let cut = Bytes::copy_from_slice(&packed[..length]);
                let cut = EntryFields::from([("h".to_owned(), cut)]);
                assert_ne!(EntryHeader::of(&cut), Ok(header.clone()));
            }
        }
    }
}
