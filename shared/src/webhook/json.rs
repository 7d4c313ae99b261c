//! Raw JSON, a level at a time.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A string, or a number as it is written (ids come as both).
pub fn scalar(raw: &RawValue) -> Option<Cow<'_, str>> {
    string(raw).or_else(|| {
        raw.get()
            .starts_with(|first: char| first.is_ascii_digit() || first == '-')
            .then(|| Cow::Borrowed(raw.get()))
    })
}

/// A string's text; `None` for anything else, and for one with a lone surrogate.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    struct TextVisitor;
    impl<'de> Visitor<'de> for TextVisitor {
        type Value = Cow<'de, str>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }
    }
    serde_json::Deserializer::from_str(raw.get())
        .deserialize_str(TextVisitor)
        .ok()
}

/// The elements of an array, or `None` if it is none.
pub fn elements(raw: &RawValue) -> Option<Vec<&RawValue>> {
    struct ElementsVisitor;
    impl<'de> Visitor<'de> for ElementsVisitor {
        type Value = Vec<&'de RawValue>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element()? {
                elements.push(element);
            }
            Ok(elements)
        }
    }
    serde_json::Deserializer::from_str(raw.get())
        .deserialize_seq(ElementsVisitor)
        .ok()
}

/// The named members of an object, in the order asked for, or `None` if it is no object. Of a name
/// that stands twice the last counts, as in most readers of JSON.
pub fn members<'a, const N: usize>(
    raw: &'a RawValue,
    names: [&str; N],
) -> Option<[Option<&'a RawValue>; N]> {
    struct MembersVisitor<'n, const N: usize>([&'n str; N]);
    impl<'de, const N: usize> Visitor<'de> for MembersVisitor<'_, N> {
        type Value = [Option<&'de RawValue>; N];
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            while let Some(MemberName(name)) = map.next_key()? {
                match self.0.iter().position(|wanted| *wanted == name) {
                    Some(at) => found[at] = Some(map.next_value()?),
                    None => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(raw.get())
        .deserialize_map(MembersVisitor(names))
        .ok()
}

/// Every member of an object, or `None` if it is no object.
pub fn all_members(raw: &RawValue) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    struct AllMembersVisitor;
    impl<'de> Visitor<'de> for AllMembersVisitor {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(MemberName(name)) = map.next_key()? {
                members.push((name, map.next_value()?));
            }
            Ok(members)
        }
    }
    serde_json::Deserializer::from_str(raw.get())
        .deserialize_map(AllMembersVisitor)
        .ok()
}

/// A member's name, borrowed where it has no escapes.
struct MemberName<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for MemberName<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MemberNameVisitor;
        impl<'de> Visitor<'de> for MemberNameVisitor {
            type Value = Cow<'de, str>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(name))
            }
            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(name.to_owned()))
            }
        }
        deserializer
            .deserialize_str(MemberNameVisitor)
            .map(MemberName)
    }
}

/// The elements of an array; of anything else: none.
pub(super) fn list(raw: Option<&RawValue>) -> impl Iterator<Item = &RawValue> {
    raw.and_then(elements).unwrap_or_default().into_iter()
}
