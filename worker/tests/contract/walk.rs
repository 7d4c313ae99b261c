//! Looks for the scalars of an item in its event, by the JSON alone: it knows no types, only the ways
//! in which a value may be written otherwise.

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat};
use data_encoding::{BASE64, HEXLOWER};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use shared::webhook::{Json, all_members, elements};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    raw: Option<&'a RawValue>,
    #[serde(borrow)]
    account: Option<Account<'a>>,
}

#[derive(Deserialize)]
struct Account<'a> {
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

/// Whether an event holds its item: as it came, as text, or scalar by scalar.
pub(crate) fn holds_all(sent: &str, event: &[u8]) -> Result<(), String> {
    let parts: Event<'_> = serde_json::from_slice(event).map_err(|error| error.to_string())?;
    let whole = parts
        .raw
        .or(parts.account.and_then(|account| account.value));
    match whole.map(RawValue::get) {
        Some(whole) if whole == sent => return Ok(()),
        Some(whole) if serde_json::from_str::<String>(whole).is_ok_and(|text| text == sent) => {
            return Ok(());
        }
        Some(whole) => return Err(format!("not as it was sent: {whole} for {sent}")),
        None => {}
    }
    let item = Json::parse(sent.as_bytes()).ok_or("the item is no JSON")?;
    let event: Value = serde_json::from_slice(event).map_err(|error| error.to_string())?;
    let mut held = HashMap::new();
    each_scalar(&event, &mut |scalar| {
        *held.entry(form(scalar)).or_insert(0usize) += 1;
    });
    let mut lost = Vec::new();
    each_sent_scalar(item, &mut |scalar| {
        let found = other_forms(scalar).into_iter().find_map(|form| {
            let count = held.get_mut(&form)?;
            *count = count.checked_sub(1)?;
            Some(())
        });
        if found.is_none() {
            lost.push(scalar.clone());
        }
    });
    if lost.is_empty() {
        Ok(())
    } else {
        Err(format!("lost {lost:?} of {sent} in {event:#}"))
    }
}

/// Levels of arrays and objects.
pub(crate) fn levels(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(levels).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

/// `null` and empty text say nothing.
fn each_scalar(value: &Value, found: &mut dyn FnMut(&Value)) {
    match value {
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        Value::Array(elements) => elements.iter().for_each(|value| each_scalar(value, found)),
        Value::Object(members) => members.values().for_each(|value| each_scalar(value, found)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => found(value),
    }
}

/// The same in an item, where a name may stand twice.
fn each_sent_scalar(raw: Json<'_>, found: &mut dyn FnMut(&Value)) {
    if let Some(members) = all_members(raw) {
        members
            .iter()
            .for_each(|(_, member)| each_sent_scalar(*member, found));
    } else if let Some(elements) = elements(raw) {
        elements
            .iter()
            .for_each(|element| each_sent_scalar(*element, found));
    } else {
        match serde_json::from_str(raw.get()) {
            Ok(scalar) => each_scalar(&scalar, found),
            Err(_) => found(&raw.get().into()),
        }
    }
}

fn form(scalar: &Value) -> String {
    match scalar {
        Value::Number(number) => number_form(&number.to_string()),
        other => other.to_string(),
    }
}

fn number_form(number: &str) -> String {
    match number.parse::<f64>() {
        Ok(double) if number.len() > 15 && number.parse::<i64>().is_err() => format!("{double:e}"),
        Ok(double) if number.parse::<i64>().is_err() => format!("{double}"),
        _ => number.to_owned(),
    }
}

/// The forms in which a scalar may stand in an event: its own first.
fn other_forms(scalar: &Value) -> Vec<String> {
    let text = match scalar {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let quoted = |text: &str| Value::from(text).to_string();
    let mut forms = vec![form(scalar), quoted(&text), quoted(&text.to_lowercase())];
    forms.push(number_form(&text));
    let time = text
        .parse()
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    forms.extend(time.map(|time| quoted(&time.to_rfc3339_opts(SecondsFormat::Secs, true))));
    let digest = BASE64
        .decode(text.as_bytes())
        .ok()
        .filter(|digest| digest.len() == 32);
    forms.extend(digest.map(|digest| quoted(&HEXLOWER.encode(&digest))));
    forms
}

#[test]
fn a_lost_scalar_is_seen() {
    let event = |raw: &str| format!(r#"{{"a":"2025-06-16T00:00:00Z","b":7,"raw":{raw}}}"#);
    let lost = |sent: &str, raw: &str| holds_all(sent, event(raw).as_bytes()).is_err();
    assert!(!lost(r#"{"t":"1750032000","n":"7","x":null}"#, "null"));
    assert!(lost(r#"{"t":"1750032000","n":"7","x":true}"#, "null"));
    assert!(lost(r#"{"n":7,"m":7}"#, "null"), "it is there only once");
    assert!(lost(r#"{"n":8,"n":7}"#, "null"), "the first one counts too");
    assert!(!lost(r#"{"x":true}"#, r#"{"x":true}"#));
    assert!(!lost(r#"{"x":true}"#, r#""{\"x\":true}""#));
    assert!(lost(r#"{"x":true}"#, r#"{"x":false}"#));
}
