//! Webhooks of one's own: a file holds a whole body, or the one message or status that a body is made of.

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::Value;

use super::payload::{self, Number};

/// The account of an item that comes without one.
const ACCOUNT: &str = "102290";

/// The body that a file holds. A whole body stays byte for byte what it is, unless an account is given: then
/// each of its entries is that account's. A message or status is put into a body; where it has no id or
/// timestamp, it gets one.
///
/// # Errors
/// It is neither.
pub fn body(file: Bytes, account: Option<&str>) -> anyhow::Result<Bytes> {
    let mut value: Value = serde_json::from_slice(&file).context("it is not JSON")?;
    let neither = "it is no webhook (entry), no message (type) and no status (status)";
    if !value.is_object() {
        bail!(neither);
    }
    if let Some(entries) = value["entry"].as_array_mut() {
        let Some(account) = account else {
            return Ok(file);
        };
        for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
            entry.insert("id".into(), account.into());
        }
        return Ok(value.to_string().into());
    }
    let number = Number::of(account.unwrap_or(ACCOUNT));
    let is_status = value["status"].is_string();
    if !is_status && !value["type"].is_string() {
        bail!(neither);
    }
    for (name, fresh) in [
        ("id", payload::wamid()),
        ("timestamp", payload::timestamp()),
    ] {
        if value[name].is_null() {
            value[name] = fresh.into();
        }
    }
    Ok(if is_status {
        number.status(value)
    } else {
        number.message(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_body_stays_what_it_is() {
        let whole = Bytes::from_static(br#"{ "entry": [ {"id": "1"} ]}"#);
        assert_eq!(body(whole.clone(), None).expect("a body"), whole);
        let changed = body(whole, Some("2")).expect("a body");
        assert_eq!(changed, br#"{"entry":[{"id":"2"}]}"#.as_slice());
    }

    #[test]
    fn a_message_gets_what_it_lacks() {
        let message =
            Bytes::from_static(br#"{"from": "1", "type": "text", "text": {"body": "a"}}"#);
        let made = body(message, Some("7")).expect("a body");
        let made: Value = serde_json::from_slice(&made).expect("JSON");
        assert_eq!(made["entry"][0]["id"], "7");
        let message = &made["entry"][0]["changes"][0]["value"]["messages"][0];
        assert!(message["id"].is_string() && message["timestamp"].is_string());
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(body(Bytes::from_static(b"[]"), None).is_err());
        assert!(body(Bytes::from_static(b"hello"), None).is_err());
    }
}
