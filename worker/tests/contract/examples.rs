//! One event of each kind, as published under `docs/examples/`, and the schema beside them. With
//! `UPDATE_EXAMPLES=1` the files are written anew; without it a difference is an error.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::DateTime;
use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;
use worker::item::event::channel::{KnownNumber, NumberProfile};
use worker::item::event::health::{HealthChange, HealthKind, health_event};
use worker::item::event::media::MediaState;
use worker::item::event::{self, Event, EventContext, EventType, contract};
use worker::item::payload::Payload;
use worker::item::tenant::Tenant;

use crate::{check, events, json_files, manifest_dir, open, raw_object, tenant, validator};

fn docs() -> PathBuf {
    manifest_dir().join("../docs")
}

/// What must not change unseen.
#[derive(Default)]
struct Published {
    differ: Vec<String>,
}

impl Published {
    fn file(&mut self, name: &str, content: &Value) {
        let path = docs().join(name);
        let text = format!("{content:#}\n");
        if std::env::var_os("UPDATE_EXAMPLES").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
            std::fs::write(&path, text).expect("a writable file");
        } else if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            self.differ.push(name.to_owned());
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        assert!(
            self.differ.is_empty() || std::thread::panicking(),
            "docs/ is not what the code makes: {:?}. If the change is meant, run \
             `UPDATE_EXAMPLES=1 cargo test -p worker --test contract` and review the difference; \
             consumers must survive it",
            self.differ
        );
    }
}

/// Events that need more than a webhook: name, fixture, event.
fn with_more_known() -> Vec<(&'static str, Event)> {
    let (tenant, raw_object) = (tenant(), raw_object());
    let stored = MediaState::Stored {
        size_bytes: 48_213,
        sha256: [0xab; 32],
        mime_type: "image/jpeg".to_owned(),
        detected_mime_type: Some("image/jpeg".to_owned()),
        bucket: "media-inbound".to_owned(),
        key: "acme/image/2026-11-25/wamid.ZXhhbXBsZSBpbWFnZQ.jpg".to_owned(),
        url: "http://127.0.0.1:9000/media-inbound/acme/image/example.jpg?X-Amz-Signature=example"
            .to_owned(),
        url_expires_at: DateTime::from_timestamp(1_795_603_600, 0).expect("a time"),
    };
    let failed = MediaState::Failed {
        error: "larger than 104857600 bytes".to_owned(),
    };
    let profile = NumberProfile {
        verified_name: Some("Acme Lamps".to_owned()),
        quality_rating: Some("GREEN".to_owned()),
        is_official_business_account: Some(false),
        display_phone_number: Some("+49 30 901820".to_owned()),
    };
    let number = KnownNumber {
        id: "204800000000077".to_owned(),
        profile: Some(Arc::new(profile)),
    };
    let conversation = serde_json::value::to_raw_value(&json!({"id": "c-7", "state": "open"}));
    let conversation = conversation.expect("JSON");
    let image = fixture("image");
    let text = fixture("text");
    let known = EventContext {
        raw_object: Some(&raw_object),
        number: Some(&number),
        ..EventContext::of(&tenant)
    };
    let recording = fixture("call_recording");
    let follow_up = |of: &Payload, media| {
        let known = EventContext {
            media: Some(media),
            ..known
        };
        let event = event::media_follow_up(of, &of.items[0], &known);
        event.expect("an event").expect("it has ended")
    };
    let all = EventContext {
        media: Some(&stored),
        conversation: Some(&conversation),
        ..known
    };
    let degraded = EventContext {
        degraded: &["state-manager"],
        ..known
    };
    vec![
        (
            "image_stored",
            event::event(&image, &image.items[0], &all).expect("an event"),
        ),
        (
            "text_degraded",
            event::event(&text, &text.items[0], &degraded).expect("an event"),
        ),
        ("channel_health", silent(&tenant)),
        ("media_stored", follow_up(&image, &stored)),
        ("media_failed", follow_up(&image, &failed)),
        ("media_stored_of_call", follow_up(&recording, &stored)),
    ]
}

fn silent(tenant: &Tenant) -> Event {
    let change = HealthChange {
        kind: HealthKind::Silence,
        business_account_id: "204800000000001",
        subject: Some("771000000000001"),
        state: "silent",
        since_ms: 1_795_600_000_000,
        detail: Some("nothing for 3 hours"),
    };
    health_event(&change, tenant).expect("an event")
}

fn fixture(name: &str) -> Payload {
    let path = manifest_dir().join(format!("tests/fixtures/{name}.json"));
    open(&std::fs::read(path).expect("the fixture")).expect("a webhook")
}

/// Without the time at which it was made.
fn timeless(mut event: Value) -> Value {
    assert!(event["processedAt"].is_string());
    event["processedAt"] = json!("2026-11-25T10:26:40.125Z");
    event
}

#[test]
fn the_published_documents_are_those_of_the_code() {
    let mut published = Published::default();
    published.file("event.schema.json", &contract::schema());
    published.file(
        "event.unions.schema.json",
        &contract::unions(&contract::schema()),
    );
    published.file("asyncapi.json", &contract::asyncapi());
    let validator = validator();
    let mut index = Map::new();
    let mut kinds = BTreeSet::new();
    let mut add = |name: &str, kind: &str, routing_key: &str, event: Value| {
        if let Some(error) = validator.iter_errors(&event).next() {
            panic!("{name}: {error} at {}", error.instance_path());
        }
        assert_eq!(event["eventType"], kind);
        index.insert(
            name.to_owned(),
            json!({"eventType": kind, "routingKey": routing_key}),
        );
        kinds.insert(kind.to_owned());
        published.file(&format!("examples/{name}.json"), &timeless(event));
    };
    for (name, body) in json_files(manifest_dir().join("tests/fixtures")).expect("fixtures") {
        let payload = open(&body).expect("a webhook");
        let [made] = &events(&payload)[..] else {
            panic!("{name} has not one item");
        };
        check(&validator, made).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        add(&name, made.kind, &made.routing_key, made.json());
    }
    for (name, made) in with_more_known() {
        let event = serde_json::from_slice(&made.body).expect("JSON");
        add(name, made.kind, &made.routing_key, event);
    }
    index.sort_keys();
    published.file("examples/index.json", &index.into());
    let all: BTreeSet<_> = EventType::iter()
        .map(|kind| kind.name().to_owned())
        .collect();
    assert_eq!(kinds, all, "an example of each type of event");
}

#[test]
fn the_unions_take_every_example_and_no_other_types() {
    if std::env::var_os("UPDATE_EXAMPLES").is_some() {
        return;
    }
    let unions = contract::unions(&contract::schema());
    let options = jsonschema::options().should_validate_formats(true);
    let validator = options.build(&unions).expect("a sound schema");
    for (name, example) in json_files(docs().join("examples")).expect("examples") {
        let example: Value = serde_json::from_slice(&example).expect("JSON");
        if name == "index" {
            continue;
        }
        if let Some(error) = validator.iter_errors(&example).next() {
            panic!("{name}: {error} at {}", error.instance_path());
        }
        for pointer in ["/eventType", "/message/content", "/account/details"] {
            let mut wrong = example.clone();
            if let Some(member) = wrong.pointer_mut(pointer) {
                *member = json!("something else");
                assert!(!validator.is_valid(&wrong), "{name}: {pointer}");
            }
        }
    }
}

#[test]
fn every_example_in_the_folder_is_one_of_the_code() {
    if std::env::var_os("UPDATE_EXAMPLES").is_some() {
        return;
    }
    let index = docs().join("examples/index.json");
    let index: Map<String, Value> =
        serde_json::from_slice(&std::fs::read(index).expect("the index")).expect("JSON");
    for (name, _) in json_files(docs().join("examples")).expect("examples") {
        assert!(
            name == "index" || index.contains_key(&name),
            "{name}.json is left over"
        );
    }
}

#[test]
fn the_schema_refuses_what_is_no_event() {
    let validator = validator();
    let path = docs().join("examples/text.json");
    let text: Value =
        serde_json::from_slice(&std::fs::read(path).expect("an example")).expect("JSON");
    assert!(validator.is_valid(&text));
    for (pointer, wrong) in [
        ("/message/content", json!({"body": 5})),
        ("/message/content", json!({"latitude": 1})),
        ("/message/type", json!("image")),
        ("/message/type", json!("hologram")),
        ("/message/timestamp", json!("1795599960")),
        ("/eventType", json!("status.updated")),
        ("/eventType", json!("message.lost")),
        ("/eventId", json!("7")),
        ("/channel", json!(null)),
    ] {
        let mut event = text.clone();
        *event.pointer_mut(pointer).expect("it is there") = wrong.clone();
        assert!(!validator.is_valid(&event), "{pointer} {wrong}");
    }
}

#[test]
fn every_routing_key_is_one_of_the_asyncapi_document() {
    let asyncapi = contract::asyncapi();
    let channels = asyncapi["channels"].as_object().expect("channels");
    for (name, body) in json_files(manifest_dir().join("tests/fixtures")).expect("fixtures") {
        let made = &events(&open(&body).expect("a webhook"))[0];
        let message = asyncapi["components"]["messages"]
            .as_object()
            .expect("messages");
        let (message, _) = message
            .iter()
            .find(|(_, message)| message["name"] == made.kind)
            .expect("a message of this type");
        let channel = &channels[message];
        let mut words = made.routing_key.split('.');
        let (group, word) = (
            words.next().expect("a group"),
            words.next().expect("a word"),
        );
        assert_eq!(channel["address"], format!("{group}.{{word}}.{{tenantId}}"));
        if let Some(known) = channel["parameters"]["word"]["enum"].as_array() {
            assert!(known.contains(&word.into()), "{name}: {}", made.routing_key);
        }
    }
}
