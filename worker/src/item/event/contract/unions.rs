//! The schema of events once more, in the form that generators of types make unions of: instead of
//! conditions on one shape, one shape for each type of event, type of message and field, told apart by
//! constants. It is made of the other schema, and accepts the same events.

use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;

use super::{SCHEMA_VERSION, or_null, upper};
use crate::item::event::EventType;
use crate::item::event::account::AccountField;
use crate::item::event::message_type::MessageType;

const UNIONS_ID: &str = "event.unions.schema.json";
const PARTS: [&str; 5] = ["message", "status", "account", "call", "health"];

/// JSON Schema 2020-12 of every event, as unions; `schema` is that with conditions.
pub fn unions(schema: &Value) -> Value {
    let mut defs = schema["$defs"].as_object().cloned().unwrap_or_default();
    messages(&mut defs);
    accounts(&mut defs);
    root(schema, defs)
}

/// A message of each type, and of those that aren't known.
fn messages(defs: &mut Map<String, Value>) {
    let message = defs.remove("Message").unwrap_or_default();
    let contents = shapes(&message, "type", "content");
    let base = base(message, &["type", "content", "media"]);
    defs.insert("MessageBase".to_owned(), base);
    let kinds: Vec<_> = MessageType::iter().map(MessageType::name).collect();
    let mut names = Vec::new();
    let mut add = |name: String, kind: Value, content: Value| {
        let media = or_null(json!({"$ref": "#/$defs/Media"}));
        let own = json!({"type": kind, "content": content, "media": media});
        let shape = extended("MessageBase", own, &["type", "content"]);
        defs.insert(name.clone(), shape);
        names.push(name);
    };
    let none = || json!({"type": "null"});
    for kind in &kinds {
        let content = contents.get(*kind).cloned().unwrap_or_else(none);
        add(format!("{}Message", upper(kind)), constant(kind), content);
    }
    add("OtherMessage".to_owned(), none_of(&kinds), none());
    defs.insert("Message".to_owned(), one_of(&names));
    // What follows a message says what became of its file, and no more.
    let media = json!({"$ref": "#/$defs/Media"});
    let own = json!({"type": {"type": "string"}, "content": none(), "media": media});
    let follow_up = extended("MessageBase", own, &["type", "content", "media"]);
    defs.insert("MediaMessage".to_owned(), follow_up);
}

/// A change of each field, and of those that aren't known.
fn accounts(defs: &mut Map<String, Value>) {
    let account = defs.remove("Account").unwrap_or_default();
    let details = shapes(&account, "field", "details");
    let base = base(account, &["field", "details"]);
    defs.insert("AccountBase".to_owned(), base);
    let fields: Vec<_> = AccountField::iter().map(AccountField::name).collect();
    let mut names = Vec::new();
    let mut add = |name: String, field: Value, details: Value| {
        let own = json!({"field": field, "details": details});
        let shape = extended("AccountBase", own, &["field", "details"]);
        defs.insert(name.clone(), shape);
        names.push(name);
    };
    for field in &fields {
        let details = details.get(*field).cloned().unwrap_or_default();
        add(format!("{}Account", upper(field)), constant(field), details);
    }
    let other = none_of(&fields);
    add("OtherAccount".to_owned(), other, json!({"type": "null"}));
    defs.insert("Account".to_owned(), one_of(&names));
}

fn constant(word: &str) -> Value {
    json!({"const": word, "type": "string"})
}

fn none_of(words: &[&str]) -> Value {
    json!({"type": "string", "not": {"enum": words}})
}

/// The events themselves.
fn root(schema: &Value, mut defs: Map<String, Value>) -> Value {
    let mut event = schema.clone();
    if let Value::Object(members) = &mut event {
        members.retain(|name, _| matches!(name.as_str(), "type" | "properties" | "required"));
    }
    let hidden: Vec<_> = PARTS.into_iter().chain(["eventType"]).collect();
    let mut names = Vec::new();
    for kind in EventType::iter() {
        let parts = parts(kind);
        for (part, shape) in &parts {
            let mut name = kind.name().split('.').map(upper).collect::<String>();
            if parts.len() > 1 {
                name += &upper(part);
            }
            let shape = json!({"$ref": format!("#/$defs/{shape}")});
            let own = json!({"eventType": constant(kind.name()), *part: shape});
            let variant = extended("EventBase", own, &["eventType", part]);
            defs.insert(name.clone(), variant);
            names.push(name);
        }
    }
    if let Some(version) = event.pointer_mut("/properties/schemaVersion") {
        *version = json!({"type": "string", "pattern": any_minor()});
    }
    defs.insert("EventBase".to_owned(), base(event, &hidden));
    defs.values_mut().for_each(name_types);
    let mut root = one_of(&names);
    root["$schema"] = schema["$schema"].clone();
    root["$id"] = UNIONS_ID.into();
    root["title"] = "Event".into();
    root["description"] = format!(
        "Each event tells one thing that happened on WhatsApp. The contract has the version {SCHEMA_VERSION}."
    )
    .into();
    root["$defs"] = defs.into();
    root
}

/// The part that an event of a type has, and its shape; several where it has one of them.
fn parts(kind: EventType) -> Vec<(&'static str, &'static str)> {
    match kind {
        EventType::MessageReceived | EventType::MessageEcho | EventType::MessageHistory => {
            vec![("message", "Message")]
        }
        EventType::MediaStored | EventType::MediaFailed => {
            vec![("message", "MediaMessage"), ("call", "Call")]
        }
        EventType::MessageStandby => vec![("message", "Message"), ("status", "Status")],
        EventType::StatusUpdated => vec![("status", "Status")],
        EventType::CallUpdated => vec![("call", "Call")],
        EventType::AccountUpdated => vec![("account", "Account")],
        EventType::ChannelHealth => vec![("health", "Health")],
    }
}

/// What may be any JSON says so: generators take a shape without a type for an object.
fn name_types(shape: &mut Value) {
    const TELLING: [&str; 6] = ["type", "$ref", "anyOf", "allOf", "oneOf", "const"];
    let any = ["object", "array", "string", "number", "boolean", "null"];
    if let Some(Value::Object(properties)) = shape.get_mut("properties") {
        for property in properties.values_mut() {
            if *property == Value::Bool(true) {
                *property = json!({});
            }
            let tells = |name: &str| property.get(name).is_some();
            if !TELLING.into_iter().any(tells) {
                property["type"] = json!(any);
            }
        }
    }
    match shape {
        Value::Object(members) => members.values_mut().for_each(name_types),
        Value::Array(elements) => elements.iter_mut().for_each(name_types),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Types made of it read later minor versions too.
fn any_minor() -> String {
    let major = SCHEMA_VERSION.split('.').next().unwrap_or_default();
    format!("^{major}\\.[0-9]+$")
}

fn one_of(names: &[String]) -> Value {
    let refs = names
        .iter()
        .map(|name| json!({"$ref": format!("#/$defs/{name}")}));
    json!({"oneOf": refs.collect::<Vec<_>>()})
}

/// A shape without the members that tell its kinds apart.
fn base(mut shape: Value, hidden: &[&str]) -> Value {
    if let Value::Object(members) = &mut shape {
        members.remove("allOf");
        if let Some(Value::Object(properties)) = members.get_mut("properties") {
            properties.retain(|name, _| !hidden.contains(&name.as_str()));
        }
        if let Some(Value::Array(required)) = members.get_mut("required") {
            required.retain(|name| !hidden.contains(&name.as_str().unwrap_or_default()));
        }
    }
    shape
}

fn extended(base: &str, properties: Value, required: &[&str]) -> Value {
    json!({"allOf": [
        {"$ref": format!("#/$defs/{base}")},
        {"type": "object", "properties": properties, "required": required},
    ]})
}

/// Of each value of a constant the shape of the member that depends on it.
fn shapes(part: &Value, by: &str, member: &str) -> Map<String, Value> {
    let conditions = part["allOf"].as_array().into_iter().flatten();
    let shape = |condition: &Value| {
        let value = condition["if"]["properties"][by]["const"].as_str()?;
        Some((
            value.to_owned(),
            condition["then"]["properties"][member].clone(),
        ))
    };
    conditions.filter_map(shape).collect()
}
