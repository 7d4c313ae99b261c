//! JSON that is known to be valid, a level at a time. It is parsed once as a whole; from then on each level only
//! looks for the ends of its values.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;
use serde::ser::{Error, Serialize, Serializer};
use serde_json::value::RawValue;

/// One valid JSON value as it was written, without white space around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    pub const NULL: Json<'static> = Json("null");

    /// `None` if the bytes aren't one JSON value in UTF-8.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let valid: &RawValue = serde_json::from_slice(bytes).ok()?;
        Some(Self(valid.get()))
    }

    /// The value that stands at this [`Json::range`] of a body that was parsed before; of any other range `null`, or
    /// something wrong.
    pub fn at(body: &'a [u8], range: &Range<usize>) -> Self {
        let text = body.get(range.clone()).map(std::str::from_utf8);
        text.and_then(Result::ok).map_or(Json::NULL, Self)
    }

    /// Where it stands in the body that it was read from.
    pub fn range(self, body: &[u8]) -> Range<usize> {
        let start = self.0.as_ptr() as usize - body.as_ptr() as usize;
        start..start + self.0.len()
    }

    pub fn get(self) -> &'a str {
        self.0
    }
}

impl<'a> From<&'a RawValue> for Json<'a> {
    fn from(valid: &'a RawValue) -> Self {
        Self(valid.get())
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let valid: &RawValue = serde_json::from_str(self.0).map_err(S::Error::custom)?;
        valid.serialize(serializer)
    }
}

/// A string, or a number as it is written (ids come as both).
pub fn scalar(json: Json<'_>) -> Option<Cow<'_, str>> {
    string(json).or_else(|| {
        json.0
            .starts_with(|first: char| first.is_ascii_digit() || first == '-')
            .then_some(Cow::Borrowed(json.0))
    })
}

/// A string's text; `None` for anything else, and for one with a lone surrogate.
pub fn string(json: Json<'_>) -> Option<Cow<'_, str>> {
    let inner = json.0.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(json.0).ok().map(Cow::Owned)
}

/// The elements of an array, or `None` if it is none.
pub fn elements(json: Json<'_>) -> Option<Vec<Json<'_>>> {
    let mut scanner = Scanner::inside(json, b'[')?;
    let mut elements = Vec::new();
    while scanner.next()? != b']' {
        elements.push(scanner.value()?);
    }
    Some(elements)
}

/// The named members of an object, in the order asked for, or `None` if it is no object. Of a name
/// that stands twice the last counts, as in most readers of JSON.
pub fn members<'a, const N: usize>(
    json: Json<'a>,
    names: [&str; N],
) -> Option<[Option<Json<'a>>; N]> {
    let mut found = [None; N];
    let mut scanner = Scanner::inside(json, b'{')?;
    while scanner.next()? != b'}' {
        let (name, value) = scanner.member()?;
        if let Some(at) = names.iter().position(|wanted| *wanted == name) {
            found[at] = Some(value);
        }
    }
    Some(found)
}

/// Every member of an object, or `None` if it is no object.
pub fn all_members(json: Json<'_>) -> Option<Vec<(Cow<'_, str>, Json<'_>)>> {
    let mut scanner = Scanner::inside(json, b'{')?;
    let mut members = Vec::new();
    while scanner.next()? != b'}' {
        members.push(scanner.member()?);
    }
    Some(members)
}

/// The elements of an array; of anything else: none.
pub(super) fn list(json: Option<Json<'_>>) -> impl Iterator<Item = Json<'_>> {
    json.and_then(elements).unwrap_or_default().into_iter()
}

/// Finds the ends of values. It trusts that the text is valid JSON; in any other it finds something wrong or `None`.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Behind the opening bracket; `None` if the value has another one.
    fn inside(json: Json<'a>, bracket: u8) -> Option<Self> {
        let opens = json.0.as_bytes().first() == Some(&bracket);
        opens.then_some(Self {
            text: json.0,
            at: 1,
        })
    }

    /// The first byte of what comes next, behind white space, commas and colons.
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b',' | b':') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// `None`, too, for a name with a lone surrogate.
    fn member(&mut self) -> Option<(Cow<'a, str>, Json<'a>)> {
        let name = string(self.value()?)?;
        self.next()?;
        Some((name, self.value()?))
    }

    /// The value that begins here.
    fn value(&mut self) -> Option<Json<'a>> {
        let start = self.at;
        match self.text.as_bytes().get(start)? {
            b'"' => self.skip_string()?,
            b'{' | b'[' => self.skip_brackets()?,
            _ => self.skip_word()?,
        }
        self.text.get(start..self.at).map(Json)
    }

    fn skip_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            let rest = self.text.as_bytes().get(self.at..)?;
            let found = memchr2(b'"', b'\\', rest)?;
            if rest.get(found) == Some(&b'"') {
                self.at += found + 1;
                return Some(());
            }
            self.at += found + 2;
        }
    }

    fn skip_brackets(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.text.as_bytes().get(self.at)? {
                b'"' => {
                    self.skip_string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// A number, `true`, `false` or `null`; `None` for nothing at all.
    fn skip_word(&mut self) -> Option<()> {
        let rest = self.text.as_bytes().iter().skip(self.at);
        let ends = |byte: &&u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
        let length = rest.take_while(|byte| !ends(byte)).count();
        self.at += length;
        (length > 0).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde::de::{Deserializer, MapAccess, Visitor};

    use super::*;

    /// The members of an object as serde_json reads them, doubled names too.
    struct Members<'a>(Vec<(String, &'a RawValue)>);

    impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct OfMap;
            impl<'de> Visitor<'de> for OfMap {
                type Value = Vec<(String, &'de RawValue)>;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                    let mut members = Vec::new();
                    while let Some(name) = map.next_key()? {
                        members.push((name, map.next_value()?));
                    }
                    Ok(members)
                }
            }
            deserializer.deserialize_map(OfMap).map(Self)
        }
    }

    /// Each level reads as serde_json reads it.
    fn check(json: Json<'_>) {
        let text = json.get();
        let as_text = serde_json::from_str::<String>(text).ok();
        assert_eq!(string(json).as_deref(), as_text.as_deref(), "{text}");
        let list = serde_json::from_str::<Vec<&RawValue>>(text).ok();
        let list = list.map(|list| list.into_iter().map(RawValue::get).collect::<Vec<_>>());
        let found = elements(json);
        let texts = found.as_ref().map(|found| found.iter().map(|it| it.get()));
        assert_eq!(texts.map(Iterator::collect), list, "{text}");
        let object = serde_json::from_str::<Members<'_>>(text).ok();
        let object = object.map(|Members(members)| members.into_iter());
        let object: Option<Vec<_>> =
            object.map(|members| members.map(|(name, it)| (name, it.get())).collect());
        let all = all_members(json);
        let texts = all.as_ref().map(|all| all.iter());
        let texts = texts.map(|all| all.map(|(name, it)| (name.to_string(), it.get())).collect());
        assert_eq!(texts, object, "{text}");
        let last: Option<HashMap<_, _>> = object.map(|members| members.into_iter().collect());
        let asked = members(json, ["a", ""]).map(|two| two.map(|it| it.map(Json::get)));
        let expected = last.map(|last| ["a", ""].map(|name| last.get(name).copied()));
        assert_eq!(asked, expected, "{text}");
        found.into_iter().flatten().for_each(check);
        all.into_iter()
            .flatten()
            .for_each(|(_, member)| check(member));
    }

    fn text() -> impl Strategy<Value = String> {
        let pieces = [
            "a",
            "é",
            " ",
            "{",
            "]",
            ",",
            ":",
            r#"\""#,
            r"\\",
            r"\/",
            r"\u0061",
            r"\ud83d\ude00",
            r"\ud83d",
            "a text that is longer than a chunk of thirty-two bytes",
        ];
        let pieces = prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..4);
        pieces.prop_map(|pieces| format!("\"{}\"", pieces.concat()))
    }

    fn json() -> impl Strategy<Value = String> {
        let words = [
            "null",
            "true",
            "false",
            "0",
            "-1.5e+3",
            "18446744073709551616",
        ];
        let words = prop::sample::select(words.to_vec()).prop_map(str::to_owned);
        let space = || prop::sample::select(vec!["", " ", "\r\n\t"]);
        prop_oneof![words, text()].prop_recursive(5, 60, 6, move |inner| {
            let element = (space(), inner.clone(), space());
            let element =
                element.prop_map(|(before, json, after)| format!("{before}{json}{after}"));
            let member = (space(), text(), space(), element.clone());
            let member = member
                .prop_map(|(before, name, after, json)| format!("{before}{name}{after}:{json}"));
            prop_oneof![
                (space(), prop::collection::vec(element, 0..5))
                    .prop_map(|(space, all)| format!("[{space}{}]", all.join(","))),
                (space(), prop::collection::vec(member, 0..5))
                    .prop_map(|(space, all)| format!("{{{space}{}}}", all.join(","))),
            ]
        })
    }

    proptest! {
        #[test]
        fn each_level_reads_as_a_parser_reads_it(text in json()) {
            check(Json::parse(text.as_bytes()).expect("it is JSON"));
        }

        #[test]
        fn what_is_no_json_is_read_to_its_end(
            text in json(),
            at in 0_usize..200,
            instead in prop::sample::select(vec!["", "]", "}", "[", "{", "\"", "\\", ",", ":"]),
        ) {
            let (before, after) = text.split_at(text.floor_char_boundary(at));
            let mut after = after.chars();
            after.next();
            for text in [before, &format!("{before}{instead}{}", after.as_str())] {
                let json = Json(text);
                let _ = (string(json), scalar(json), elements(json), members(json, ["a"]));
                let _ = all_members(json);
            }
        }
    }
}
