//! Values as Meta writes them (a number as a string, a digest in two notations) and as an event has
//! them. What one of these can't read is unreadable; nothing is guessed.

use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use data_encoding::{BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Number as JsonNumber;

/// A string, number or bool.
enum Scalar {
    Text(String),
    Number(JsonNumber),
    Truth(bool),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyScalar;
        impl Visitor<'_> for AnyScalar {
            type Value = Scalar;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string, number or bool")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
            fn visit_bool<E>(self, truth: bool) -> Result<Scalar, E> {
                Ok(Scalar::Truth(truth))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number.into()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number.into()))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                JsonNumber::from_f64(number)
                    .map(Scalar::Number)
                    .ok_or_else(|| E::custom("not a finite number"))
            }
        }
        deserializer.deserialize_any(AnyScalar)
    }
}

/// Text. Meta writes some ids as numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Scalar")]
pub(super) struct Text(pub String);

impl TryFrom<Scalar> for Text {
    type Error = &'static str;
    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        match scalar {
            Scalar::Text(text) => Ok(Self(text)),
            Scalar::Number(number) => Ok(Self(number.to_string())),
            Scalar::Truth(_) => Err("expected text, found a bool"),
        }
    }
}

impl Text {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A number. Meta writes some as strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Scalar")]
pub(super) struct Number(pub JsonNumber);

/// A double has no more decimal digits than these.
pub(super) const EXACT_DIGITS: usize = 17;

impl TryFrom<Scalar> for Number {
    type Error = &'static str;
    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        const NO_NUMBER: &str = "expected a number";
        match scalar {
            Scalar::Number(number) => Ok(Self(number)),
            Scalar::Text(text) if text.len() <= EXACT_DIGITS => {
                serde_json::from_str(&text).map(Self).map_err(|_| NO_NUMBER)
            }
            Scalar::Text(_) | Scalar::Truth(_) => Err(NO_NUMBER),
        }
    }
}

impl Number {
    pub(super) fn as_i64(&self) -> Option<i64> {
        self.0.as_i64()
    }
}

/// A limit: a number, which Meta writes as a string, too, or a word such as `TIER_2K`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum MessagingLimit {
    Count(Number),
    Tier(Text),
}

/// A bool. Meta's own examples write some as strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Scalar")]
pub(super) struct Bool(pub bool);

impl TryFrom<Scalar> for Bool {
    type Error = &'static str;
    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        match scalar {
            Scalar::Truth(truth) => Ok(Self(truth)),
            Scalar::Text(text) if text == "true" => Ok(Self(true)),
            Scalar::Text(text) if text == "false" => Ok(Self(false)),
            Scalar::Text(_) | Scalar::Number(_) => Err("expected a bool"),
        }
    }
}

/// A point in time: seconds since 1970 as string or number; in an event RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
pub(crate) struct Timestamp(pub DateTime<Utc>);

impl Timestamp {
    /// Of a string or number; `None` for anything else.
    pub(super) fn of_json(seconds: &serde_json::Value) -> Option<Self> {
        Self::deserialize(seconds).ok()
    }

    /// Of seconds as Meta writes them; none beyond the year 9999, which RFC 3339 can't write.
    pub(crate) fn of_seconds(seconds: &str) -> Option<Self> {
        if !seconds.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let time = DateTime::from_timestamp(seconds.parse().ok()?, 0)?;
        (time.year() <= 9999).then_some(Self(time))
    }
}

impl TryFrom<Scalar> for Timestamp {
    type Error = &'static str;
    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        let seconds = match scalar {
            Scalar::Text(text) => text,
            Scalar::Number(number) => number.to_string(),
            Scalar::Truth(_) => String::new(),
        };
        Self::of_seconds(&seconds).ok_or("expected seconds since 1970")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

/// A SHA-256: base64 in messages, hex in history and in the Graph API's answers; in an event hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
pub(super) struct Digest(pub [u8; 32]);

impl Digest {
    fn parse(text: &str) -> Option<Self> {
        let bytes = if text.len() == 64 {
            HEXLOWER_PERMISSIVE.decode(text.as_bytes())
        } else {
            // `BASE64` would take padding in the midst of it, too.
            BASE64_NOPAD.decode(text.strip_suffix('=')?.as_bytes())
        };
        Some(Self(bytes.ok()?.try_into().ok()?))
    }

    pub(super) fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

impl TryFrom<Scalar> for Digest {
    type Error = &'static str;
    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        match scalar {
            Scalar::Text(text) => Self::parse(&text),
            Scalar::Number(_) | Scalar::Truth(_) => None,
        }
        .ok_or("expected a SHA-256 in hex or base64")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

/// One or several words; in an event always an array.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Words(pub Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Words;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_str<E>(self, word: &str) -> Result<Words, E> {
                Ok(Words(vec![word.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(Text(word)) = seq.next_element()? {
                    words.push(word);
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

macro_rules! schema {
    ($($name:ident: $schema:tt),* $(,)?) => {
        $(impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        })*
    };
}

schema! {
    Text: {"type": "string"},
    Number: {"type": "number"},
    MessagingLimit: {"type": ["number", "string"]},
    Bool: {"type": "boolean"},
    Timestamp: {"type": "string", "format": "date-time"},
    Digest: {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    Words: {"type": "array", "items": {"type": "string"}},
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn becomes<T: for<'de> Deserialize<'de> + Serialize>(sent: &Value) -> Option<Value> {
        let read = T::deserialize(sent).ok()?;
        Some(serde_json::to_value(read).expect("it was read"))
    }

    #[test]
    fn what_meta_writes_in_two_ways_comes_out_in_one() {
        let time = Some(json!("2025-06-16T00:00:00Z"));
        assert_eq!(becomes::<Timestamp>(&json!("1750032000")), time);
        assert_eq!(becomes::<Timestamp>(&json!(1_750_032_000)), time);
        assert_eq!(becomes::<Text>(&json!(131_049)), Some(json!("131049")));
        assert_eq!(becomes::<Number>(&json!("99.99")), Some(json!(99.99)));
        assert_eq!(becomes::<Number>(&json!(30)), Some(json!(30)));
        assert_eq!(becomes::<MessagingLimit>(&json!("2000")), Some(json!(2000)));
        assert_eq!(becomes::<MessagingLimit>(&json!(-1)), Some(json!(-1)));
        assert_eq!(
            becomes::<MessagingLimit>(&json!("TIER_2K")),
            Some(json!("TIER_2K"))
        );
        assert_eq!(becomes::<Bool>(&json!("true")), Some(json!(true)));
        assert_eq!(becomes::<Words>(&json!("a")), Some(json!(["a"])));
        assert_eq!(
            becomes::<Words>(&json!(["a", "b"])),
            Some(json!(["a", "b"]))
        );
        let hex = Some(json!(
            "ef537f25c895bfa782526529a9b63d97aa631564d5d789c2b765448c8635fb6c"
        ));
        let base64 = json!("71N/JciVv6eCUmUpqbY9l6pjFWTV14nCt2VEjIY1+2w=");
        assert_eq!(becomes::<Digest>(&base64), hex);
        let upper = json!("EF537F25C895BFA782526529A9B63D97AA631564D5D789C2B765448C8635FB6C");
        assert_eq!(becomes::<Digest>(&upper), hex);
    }

    #[test]
    fn what_is_no_such_value_is_refused() {
        assert_eq!(becomes::<Timestamp>(&json!("soon")), None);
        assert_eq!(becomes::<Timestamp>(&json!("")), None);
        assert_eq!(becomes::<Timestamp>(&json!("1750032000000000")), None);
        assert_eq!(becomes::<Timestamp>(&json!(-1)), None);
        assert_eq!(becomes::<Digest>(&json!("a1b2c3d4e5f6...")), None);
        let padded_within = json!(format!("AQE={}", "AQEB".repeat(10)));
        assert_eq!(becomes::<Digest>(&padded_within), None);
        assert_eq!(becomes::<Bool>(&json!("IS_BILLABLE")), None);
        assert_eq!(becomes::<Number>(&json!("12345678901234567890")), None);
        assert_eq!(becomes::<Text>(&json!({"a": 1})), None);
    }
}
