//! Events held against their published contract: the schema, the examples, and the promise that
//! nothing of an item gets lost.

mod cases;
mod conformance;
mod corpus;
mod examples;
#[path = "../../../tests/src/json_walk.rs"]
#[expect(unreachable_pub, reason = "it is the harness' own file")]
mod json_walk;
mod odd;
mod properties;
mod released;
mod walk;

use std::path::PathBuf;

use bytes::Bytes;
use serde_json::Value;
use shared::entry::StreamEntry;
use worker::item::event::{self, EventContext, RawObject};
use worker::item::payload::Payload;
use worker::item::tenant::Tenant;

/// Nov 25 2026.
const RECEIVED_AT_MS: i64 = 1_795_600_000_000;

fn tenant() -> Tenant {
    Tenant {
        id: "acme".to_owned(),
        name: Some("Acme".to_owned()),
        ..Tenant::default()
    }
}

fn raw_object() -> RawObject {
    RawObject {
        bucket: "webhooks-inbound".to_owned(),
        key: "acme/2026-11-25/1795600000000-example.json".to_owned(),
    }
}

/// A body as the worker finds it in its stream; `None` for one that is no webhook.
fn open(body: &[u8]) -> Option<Payload> {
    let webhook = shared::webhook::read(body).ok()?;
    let waba_id = webhook
        .entries
        .first()
        .map(|entry| entry.waba_id.to_string());
    let entry = StreamEntry {
        waba_id: waba_id.unwrap_or_default(),
        correlation_id: "0191e8a2-7d5c-4b6f-9a3e-2f1d0c4b5a69".to_owned(),
        received_at_ms: RECEIVED_AT_MS,
        items: 0,
        fresh: (0..webhook.entries.iter().map(|entry| entry.items.len()).sum()).collect(),
        body: Bytes::copy_from_slice(body),
        signature: String::new(),
        traceparent: String::new(),
        unreadable: None,
        returned: None,
    };
    Some(Payload::open(entry).expect("it was read before"))
}

/// An item's text and its event.
struct Made {
    sent: String,
    routing_key: String,
    kind: &'static str,
    body: Vec<u8>,
}

impl Made {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an event that every reader can read")
    }
}

fn events(payload: &Payload) -> Vec<Made> {
    let (tenant, raw_object) = (tenant(), raw_object());
    let known = EventContext {
        raw_object: Some(&raw_object),
        ..EventContext::of(&tenant)
    };
    let made = payload.items.iter().map(|item| {
        let event = event::event(payload, item, &known).expect("an event");
        Made {
            sent: payload.raw(item).get().to_owned(),
            routing_key: event.routing_key,
            kind: event.kind,
            body: event.body,
        }
    });
    made.collect()
}

/// The published schema with every described object closed, so that a member that it doesn't know
/// is an error.
fn validator() -> jsonschema::Validator {
    let mut schema = event::contract::schema();
    close(&mut schema);
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("a sound schema")
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let is_object = match members.get("type") {
                Some(Value::String(kind)) => kind == "object",
                Some(Value::Array(kinds)) => kinds.contains(&"object".into()),
                _ => false,
            };
            if is_object && members.contains_key("properties") {
                members.insert("additionalProperties".to_owned(), false.into());
            }
            members.values_mut().for_each(close);
        }
        Value::Array(elements) => elements.iter_mut().for_each(close),
        _ => {}
    }
}

/// Whether the event fits the schema and holds all of the item.
fn check(validator: &jsonschema::Validator, made: &Made) -> Result<(), String> {
    let event = made.json();
    if let Some(error) = validator.iter_errors(&event).next() {
        return Err(format!("{error} at {}: {event:#}", error.instance_path()));
    }
    let levels = walk::levels(&event);
    if levels > 64 {
        return Err(format!("{levels} levels"));
    }
    let key_words = made.routing_key.split('.').count();
    if key_words != 3 || made.routing_key.len() > 255 {
        return Err(format!("routing key {}", made.routing_key));
    }
    walk::holds_all(&made.sent, &made.body)
}

fn manifest_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The JSON files of a folder by their names without `.json`, sorted; `None` if there is no folder.
fn json_files(folder: PathBuf) -> Option<Vec<(String, Vec<u8>)>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    let read = |path: PathBuf| {
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        (name, std::fs::read(path).expect("a readable file"))
    };
    Some(files.into_iter().map(read).collect())
}
