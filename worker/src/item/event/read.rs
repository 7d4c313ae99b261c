//! Reading an item that may be anything. A member that can't be read costs its own place in the typed
//! part, no more: it is taken out, noted as `unreadable`, and the rest is read without it. Whatever
//! doesn't reach the typed part makes the event carry the whole item as it came.

use std::borrow::Cow;

use memchr::memchr2;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment, Track};
use shared::webhook::{Json, all_members};

use super::values::EXACT_DIGITS;

/// Levels of JSON that a part of an event may have: with the event's own levels it stays below 64,
/// the least that a common reader takes (.NET's).
const MOST_LEVELS: usize = 56;
/// Members that are taken out of one part before it counts as unreadable in whole.
const MOST_REMOVALS: usize = 32;
const LONGEST_REASON: usize = 200;

/// This is the first member of the item that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Unreadable")]
pub(super) struct UnreadableMember {
    /// The member stood at this path in the item, such as `image.sha256`. An empty path is the item
    /// as a whole.
    pub path: String,
    /// The member could not be read for this reason.
    pub reason: String,
}

/// JSON as it came, or its text in a string where common readers of JSON would refuse it (a lone
/// surrogate, `1e400`, more than 56 levels).
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(super) enum SentJson<'a> {
    Json(Json<'a>),
    Text(&'a str),
}

impl<'a> SentJson<'a> {
    pub(super) fn of(raw: Json<'a>) -> Self {
        if JsonDefects::of(raw.get()).unsound() {
            Self::Text(raw.get())
        } else {
            Self::Json(raw)
        }
    }
}

/// An item on its way to being typed.
pub(super) struct Reading<'a> {
    sent: SentJson<'a>,
    /// What has not been typed yet.
    left: Value,
    complete: bool,
    unreadable: Option<UnreadableMember>,
}

impl<'a> Reading<'a> {
    pub(super) fn of(raw: Json<'a>) -> Self {
        let flaws = JsonDefects::of(raw.get());
        let mut reading = Self {
            sent: if flaws.unsound() {
                SentJson::Text(raw.get())
            } else {
                SentJson::Json(raw)
            },
            left: Value::Null,
            complete: !flaws.unsound() && !flaws.inexact,
            unreadable: None,
        };
        if flaws.unsound() {
            reading.rescue(raw);
        } else {
            reading.left = reading.tree(raw.get()).unwrap_or_default();
        }
        reading
    }

    /// The item as it came, unless all of it was typed.
    pub(super) fn raw(&self) -> Option<SentJson<'a>> {
        let sent = match self.sent {
            // A bare number or bool is no shape that readers expect.
            SentJson::Json(raw) if !raw.get().starts_with(['{', '[', '"']) => {
                SentJson::Text(raw.get())
            }
            sent @ (SentJson::Json(_) | SentJson::Text(_)) => sent,
        };
        Some(sent).filter(|_| !self.complete)
    }

    /// The item as it came, if it can stand in an event.
    pub(super) fn sound(&self) -> Option<Json<'a>> {
        match self.sent {
            SentJson::Json(raw) => Some(raw),
            SentJson::Text(_) => None,
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.sound().is_some()
    }

    pub(super) fn into_unreadable(self) -> Option<UnreadableMember> {
        self.unreadable
    }

    /// Something was read and doesn't reach the event.
    pub(super) fn incomplete(&mut self) {
        self.complete = false;
    }

    /// Text of a member that is still left.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.left.get(name)?.as_str()
    }

    pub(super) fn member(&self, name: &str) -> Option<&Value> {
        self.left.get(name)
    }

    /// The members that are still left.
    pub(super) fn members(&self) -> impl Iterator<Item = &Value> {
        self.left.as_object().into_iter().flat_map(Map::values)
    }

    /// Takes a member out, so that it can be typed by itself.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.left.as_object_mut()?.swap_remove(name)
    }

    pub(super) fn put(&mut self, name: &str, value: Value) {
        if let Value::Object(members) = &mut self.left {
            members.insert(name.to_owned(), value);
        }
    }

    /// Another spelling of a member. If both are there and differ, the old one stays, untyped.
    pub(super) fn rename(&mut self, old: &str, new: &str) {
        let Value::Object(members) = &mut self.left else {
            return;
        };
        match (members.get(old), members.get(new)) {
            (Some(a), Some(b)) if a != b => {}
            (Some(_), _) => {
                if let Some(value) = members.swap_remove(old) {
                    members.insert(new.to_owned(), value);
                }
            }
            (None, _) => {}
        }
    }

    /// Types all that is left.
    pub(super) fn rest<T: DeserializeOwned + Default>(&mut self) -> T {
        let left = std::mem::take(&mut self.left);
        self.typed(left, "")
    }

    /// Types a part that stood at `at`.
    pub(super) fn typed<T: DeserializeOwned + Default>(&mut self, mut part: Value, at: &str) -> T {
        for _ in 0..MOST_REMOVALS {
            let mut track = Track::new();
            let mut complete = true;
            let tracked = serde_path_to_error::Deserializer::new(&part, &mut track);
            match serde_ignored::deserialize(tracked, |_| complete = false) {
                Ok(typed) => {
                    self.complete &= complete;
                    return typed;
                }
                Err(error) => {
                    let path = track.path();
                    self.note(join(at, &path), &error.to_string());
                    if !remove(&mut part, &path) {
                        break;
                    }
                }
            }
        }
        T::default()
    }

    fn note(&mut self, path: String, reason: &str) {
        self.complete = false;
        self.unreadable.get_or_insert_with(|| UnreadableMember {
            path,
            reason: reason.chars().take(LONGEST_REASON).collect(),
        });
    }

    /// Parses JSON; of a name that stands twice the last counts.
    fn tree(&mut self, text: &str) -> serde_json::Result<Value> {
        let mut doubled = false;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let tree = ValueBuilder(&mut doubled).deserialize(&mut deserializer);
        self.complete &= !doubled;
        tree
    }

    /// Reads what can be read of an item that can't be held as it is: lone surrogates are replaced,
    /// other bad members left out.
    fn rescue(&mut self, raw: Json<'_>) {
        let Some(all) = all_members(raw) else {
            return self.note(String::new(), "not an object");
        };
        let mut left = Map::new();
        for (name, member) in all {
            let flaws = JsonDefects::of(member.get());
            let text = if flaws.lone_surrogate {
                self.note(name.to_string(), "a lone surrogate was replaced by U+FFFD");
                Cow::Owned(without_lone_surrogates(member.get()))
            } else {
                Cow::Borrowed(member.get())
            };
            if flaws.too_deep {
                self.note(name.into_owned(), "nested too deeply");
            } else {
                match self.tree(&text) {
                    Ok(Value::Null) => {}
                    Ok(value) if names_nobody(&name, &value) => {}
                    Ok(value) => drop(left.insert(name.into_owned(), value)),
                    Err(error) => self.note(name.into_owned(), &error.to_string()),
                }
            }
        }
        self.left = Value::Object(left);
    }
}

/// JSON in a string, if it is some, and sound.
pub(super) fn json_in_text(text: &str) -> Option<Value> {
    let value = serde_json::from_str(text).ok()?;
    (!JsonDefects::of(text).unsound()).then_some(value)
}

fn join(at: &str, path: &Path) -> String {
    let path = path.to_string();
    match (at, path.as_str()) {
        ("", ".") => String::new(),
        ("", _) => path,
        (_, ".") => at.to_owned(),
        _ if path.starts_with('[') => format!("{at}{path}"),
        _ => format!("{at}.{path}"),
    }
}

/// Takes the member at `path` out, or the deepest one on the way to it.
fn remove(value: &mut Value, path: &Path) -> bool {
    let mut at = value;
    let mut segments = path.iter().peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match (segment, at) {
            (Segment::Map { key }, Value::Object(members)) => {
                if last
                    || !members
                        .get(key)
                        .is_some_and(|next| next.is_object() || next.is_array())
                {
                    return members.swap_remove(key).is_some();
                }
                match members.get_mut(key) {
                    Some(next) => at = next,
                    None => return false,
                }
            }
            (Segment::Seq { index }, Value::Array(elements)) => {
                if *index >= elements.len() {
                    return false;
                }
                if last || !(elements[*index].is_object() || elements[*index].is_array()) {
                    elements.remove(*index);
                    return true;
                }
                at = &mut elements[*index];
            }
            _ => return false,
        }
    }
    false
}

/// Members that name a person. Of one whose phone is withheld some senders write `""`.
const NAMING: [&str; 23] = [
    "customer",
    "from",
    "from_parent_user_id",
    "from_user_id",
    "new_wa_id",
    "parent_recipient_user_id",
    "parent_user_id",
    "participant_recipient_id",
    "phone_number",
    "previous_parent_user_id",
    "previous_user_id",
    "recipient",
    "recipient_id",
    "recipient_parent_user_id",
    "recipient_participant_id",
    "recipient_participant_parent_user_id",
    "recipient_participant_user_id",
    "recipient_user_id",
    "to",
    "to_parent_user_id",
    "to_user_id",
    "user_id",
    "wa_id",
];

fn names_nobody(name: &str, value: &Value) -> bool {
    value.as_str() == Some("") && NAMING.contains(&name)
}

/// Builds a value without its `null` members, which say nothing, and tells if a name stood twice.
struct ValueBuilder<'f>(&'f mut bool);

impl<'de> DeserializeSeed<'de> for ValueBuilder<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueBuilder<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element_seed(ValueBuilder(&mut *self.0))? {
            elements.push(element);
        }
        Ok(elements.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        let mut nulls = false;
        while let Some(name) = map.next_key::<String>()? {
            let mut value = map.next_value_seed(ValueBuilder(&mut *self.0))?;
            if names_nobody(&name, &value) {
                value = Value::Null;
            }
            nulls |= value.is_null();
            *self.0 |= members.insert(name, value).is_some();
        }
        if nulls {
            members.retain(|_, value| !value.is_null());
        }
        Ok(members.into())
    }
}

/// What keeps JSON from being read everywhere, or a number from being held exactly.
#[derive(Debug, Default, PartialEq, Eq)]
struct JsonDefects {
    lone_surrogate: bool,
    too_deep: bool,
    out_of_range: bool,
    inexact: bool,
}

impl JsonDefects {
    fn unsound(&self) -> bool {
        self.lone_surrogate || self.too_deep || self.out_of_range
    }

    /// Looks over valid JSON once.
    fn of(json: &str) -> Self {
        let mut flaws = Self::default();
        let bytes = json.as_bytes();
        let mut depth = 0usize;
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => at = flaws.string(bytes, at),
                b'{' | b'[' => {
                    depth += 1;
                    flaws.too_deep |= depth > MOST_LEVELS;
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                b'-' | b'0'..=b'9' => at = flaws.number(json, at - 1),
                _ => {}
            }
        }
        flaws
    }

    /// Goes to the end of the string whose content starts at `at`.
    fn string(&mut self, bytes: &[u8], mut at: usize) -> usize {
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(found) = memchr2(b'"', b'\\', rest) else {
                return bytes.len();
            };
            at += found;
            if rest.get(found) == Some(&b'"') {
                return at + 1;
            }
            let (length, lone) = escape(rest.get(found..).unwrap_or_default());
            self.lone_surrogate |= lone;
            at += length;
        }
    }

    /// Goes to the end of the number that starts at `start`.
    fn number(&mut self, json: &str, start: usize) -> usize {
        let rest = json.get(start..).unwrap_or_default();
        let is_number = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
        let length = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
        let number = rest.get(..length).unwrap_or_default();
        let plain = |c| matches!(c, '0'..='9' | '.' | '-');
        if length >= EXACT_DIGITS || !number.chars().all(plain) {
            self.long_number(number);
        }
        start + length
    }

    fn long_number(&mut self, number: &str) {
        if number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok() {
            return;
        }
        let double = number.parse::<f64>().unwrap_or(f64::INFINITY);
        self.out_of_range |= double.is_infinite();
        let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
        let digits = mantissa.chars().filter(char::is_ascii_digit).count();
        let zero = !mantissa.contains(|c| matches!(c, '1'..='9'));
        self.inexact |= digits > EXACT_DIGITS || (double == 0.0 && !zero);
    }
}

/// Length of the escape that `bytes` begin with (of both halves of a pair), and whether it is a
/// surrogate without its other half.
fn escape(bytes: &[u8]) -> (usize, bool) {
    let unit = |at: usize| -> Option<u32> {
        let escape = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(escape).ok()?, 16).ok()
    };
    match unit(0) {
        None => (2, false),
        Some(0xD800..=0xDBFF) => match unit(6) {
            Some(0xDC00..=0xDFFF) => (12, false),
            _ => (6, true),
        },
        Some(0xDC00..=0xDFFF) => (6, true),
        Some(_) => (6, false),
    }
}

fn without_lone_surrogates(json: &str) -> String {
    let mut repaired = String::with_capacity(json.len());
    let mut rest = json;
    while let Some((before, from)) = rest.find('\\').and_then(|at| rest.split_at_checked(at)) {
        let (length, lone) = escape(from.as_bytes());
        let (escaped, after) = from.split_at_checked(length).unwrap_or((from, ""));
        repaired += before;
        repaired += if lone { "\\ufffd" } else { escaped };
        rest = after;
    }
    repaired + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    fn flaws(json: &str) -> [bool; 4] {
        let flaws = JsonDefects::of(json);
        [
            flaws.lone_surrogate,
            flaws.too_deep,
            flaws.out_of_range,
            flaws.inexact,
        ]
    }

    #[test]
    fn flaws_of_json_are_seen() {
        let fine = [
            r#"{"a":[1,-2.5,1e3,12345678901234567,18446744073709551615,0.0]}"#,
            r#""\ud83d\ude00 \\ud83d \"""#,
            "37.442214965820312",
        ];
        for json in fine {
            assert_eq!(flaws(json), [false; 4], "{json}");
        }
        assert_eq!(flaws(r#"["\ud83d"]"#), [true, false, false, false]);
        assert_eq!(flaws(r#"["\ude00\ud83d"]"#), [true, false, false, false]);
        assert_eq!(
            flaws(r#"["\ud83d\ud83d\ude00"]"#),
            [true, false, false, false]
        );
        assert_eq!(flaws(&"[".repeat(57)), [false, true, false, false]);
        assert_eq!(flaws(&"[]".repeat(57)), [false; 4]);
        assert_eq!(flaws("1e400"), [false, false, true, false]);
        assert_eq!(flaws("1e-400"), [false, false, false, true]);
        assert_eq!(
            flaws("123456789012345678901234"),
            [false, false, false, true]
        );
    }

    #[test]
    fn only_the_bad_member_is_lost() {
        #[derive(Debug, Default, PartialEq, Deserialize)]
        struct Inner {
            n: Option<i64>,
            list: Option<Vec<i64>>,
        }
        #[derive(Debug, Default, PartialEq, Deserialize)]
        struct Outer {
            a: Option<Inner>,
            b: Option<bool>,
        }
        let json = r#"{"a":{"n":"x","list":[1,"y",2,null]},"b":true,"c":null}"#;
        let raw = Json::parse(json.as_bytes()).expect("JSON");
        let mut reading = Reading::of(raw);
        let outer: Outer = reading.rest();
        let list = Some(vec![1, 2]);
        assert_eq!(
            outer,
            Outer {
                a: Some(Inner { n: None, list }),
                b: Some(true)
            }
        );
        assert!(reading.raw().is_some());
        let unreadable = reading.into_unreadable().expect("it was");
        assert_eq!(unreadable.path, "a.n");
    }

    #[test]
    fn a_name_that_stands_twice_keeps_the_item_raw() {
        for (json, complete) in [
            (r#"{"a":1}"#, true),
            (r#"{"a":1,"b":null}"#, true),
            (r#"{"a":1,"a":2}"#, false),
            (r#"{"a":1,"a":null}"#, false),
            (r#"{"a":1,"b":2}"#, false),
        ] {
            #[derive(Default, Deserialize)]
            struct A {
                #[expect(dead_code, reason = "only whether it is read matters")]
                a: Option<i64>,
            }
            let raw = Json::parse(json.as_bytes()).expect("JSON");
            let mut reading = Reading::of(raw);
            let _: A = reading.rest();
            assert_eq!(reading.raw().is_none(), complete, "{json}");
        }
    }

    #[test]
    fn a_lone_surrogate_costs_one_character() {
        let json = r#"{"a":"x\ud83dy","b":1,"c":1e400}"#;
        let raw = Json::parse(json.as_bytes()).expect("JSON");
        let reading = Reading::of(raw);
        assert_eq!(reading.left, json!({"a": "x\u{fffd}y", "b": 1}));
        assert!(matches!(reading.raw(), Some(SentJson::Text(text)) if text == json));
    }
}
