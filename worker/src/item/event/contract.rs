//! The published contract, made of the same types that events are written with: a JSON Schema of every
//! event, and an AsyncAPI document of the exchange, its routing keys and queues.

mod unions;

pub use self::unions::unions;

use std::collections::HashSet;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::json_schema;
use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;

use super::account::AccountField;
use super::call::CallWord;
use super::health::HealthKind;
use super::message_type::MessageType;
use super::status::StatusWord;
use super::{EventDocument, EventType, QUEUES, QUEUES_OF_FOLLOW_UPS, SCHEMA_VERSION};

const SCHEMA_ID: &str = "event.schema.json";

/// JSON Schema 2020-12 of every event.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    let conditions = EventType::iter().map(part_of_event).collect::<Vec<_>>();
    let contents = contents(&mut generator);
    let details = details(&mut generator);
    let mut schema = generator
        .into_root_schema_for::<EventDocument<'_>>()
        .to_value();
    schema["$id"] = SCHEMA_ID.into();
    schema["title"] = "Event".into();
    schema["properties"]["schemaVersion"]["const"] = SCHEMA_VERSION.into();
    let names: Vec<_> = EventType::iter().map(EventType::name).collect();
    schema["properties"]["eventType"]["enum"] = names.into();
    schema["allOf"] = conditions.into();
    schema["$defs"]["Message"]["allOf"] = contents;
    schema["$defs"]["Account"]["allOf"] = details;
    drop_marks_of_reading(&mut schema);
    schema
}

/// What an event's reader has nothing of: which members are not read from Meta.
fn drop_marks_of_reading(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.retain(|name, value| !(name == "readOnly" && value.is_boolean()));
            if members.contains_key("type")
                || members.contains_key("anyOf")
                || members.contains_key("$ref")
            {
                members.shift_remove("default");
            }
            members.values_mut().for_each(drop_marks_of_reading);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_marks_of_reading),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Which part an event of a type has; it has no other.
fn part_of_event(kind: EventType) -> Value {
    let only = |parts: &[&str]| {
        let all = ["message", "status", "account", "call", "health"];
        let not: Map<_, _> = all
            .into_iter()
            .filter(|part| !parts.contains(part))
            .map(|part| (part.to_owned(), json!(false)))
            .collect();
        match parts {
            [part] => json!({"required": [part], "properties": not}),
            _ => json!({
                "oneOf": parts.iter().map(|part| json!({"required": [part]})).collect::<Vec<_>>(),
                "properties": not,
            }),
        }
    };
    let then = match kind {
        EventType::MessageReceived | EventType::MessageEcho | EventType::MessageHistory => {
            only(&["message"])
        }
        EventType::MediaStored | EventType::MediaFailed => {
            let mut then = only(&["message", "call"]);
            for part in ["message", "call"] {
                then["properties"][part] = json!({"required": ["media"]});
            }
            then
        }
        // A receipt can stand by too.
        EventType::MessageStandby => only(&["message", "status"]),
        EventType::StatusUpdated => only(&["status"]),
        EventType::CallUpdated => only(&["call"]),
        EventType::AccountUpdated => only(&["account"]),
        EventType::ChannelHealth => only(&["health"]),
    };
    condition("eventType", kind.name(), then)
}

fn condition(property: &str, value: &str, then: Value) -> Value {
    json!({
        "if": {"properties": {property: {"const": value}}, "required": [property]},
        "then": then,
    })
}

/// An item as Meta sent it.
pub(super) fn raw(_: &mut SchemaGenerator) -> schemars::Schema {
    json_schema!({"type": ["object", "array", "string", "null"]})
}

/// The content of each type of message.
fn contents(generator: &mut SchemaGenerator) -> Value {
    let names: Vec<_> = MessageType::iter().map(MessageType::name).collect();
    let others = json!({
        "if": {"properties": {"type": {"enum": names}}},
        "else": {"properties": {"content": {"type": "null"}}},
    });
    MessageType::iter()
        .map(|kind| {
            let content = match kind.processor() {
                Some(processor) => or_null((processor.schema)(generator).to_value()),
                None => json!({"type": "null"}),
            };
            condition(
                "type",
                kind.name(),
                json!({"properties": {"content": content}}),
            )
        })
        .chain([others])
        .collect()
}

/// The details of each field of accounts.
fn details(generator: &mut SchemaGenerator) -> Value {
    AccountField::iter()
        .map(|field| {
            let details = (field.processor().schema)(generator).to_value();
            condition(
                "field",
                field.name(),
                json!({"properties": {"details": details}}),
            )
        })
        .collect()
}

fn or_null(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

/// Routing keys of events of a type, without the tenant.
fn routes(kind: EventType) -> (&'static str, Vec<&'static str>, &'static str) {
    let types = || {
        MessageType::iter()
            .map(MessageType::name)
            .collect::<Vec<_>>()
    };
    let statuses = || StatusWord::iter().map(<&str>::from).collect::<Vec<_>>();
    match kind {
        EventType::MessageReceived => (
            "message",
            types(),
            "A customer wrote a message to the business.",
        ),
        EventType::MessageStandby => (
            "standby",
            types().into_iter().chain(statuses()).collect(),
            "Something happened in a chat that Meta's agent has: a message of either side, or a status.",
        ),
        EventType::MessageEcho => (
            "echo",
            types(),
            "The business wrote a message in the WhatsApp Business app.",
        ),
        EventType::MessageHistory => (
            "history",
            types(),
            "A customer or the business wrote a message before the number joined the API.",
        ),
        EventType::MediaStored => (
            "media",
            vec!["stored"],
            "The file of a message or call, which an earlier event called `pending`, is in the object store.",
        ),
        EventType::MediaFailed => (
            "media",
            vec!["failed"],
            "The file of a message or call, which an earlier event called `pending`, won't come.",
        ),
        EventType::StatusUpdated => (
            "status",
            statuses(),
            "Meta reports what became of a message that the business sent, or of a payment.",
        ),
        EventType::CallUpdated => (
            "call",
            CallWord::iter().map(<&str>::from).collect(),
            "Something happened in a call between a customer and the business.",
        ),
        EventType::ChannelHealth => (
            "health",
            HealthKind::iter().map(HealthKind::name).collect(),
            "The worker noticed that an account, a number or a template is no longer well, or is well again. Each change has one event.",
        ),
        EventType::AccountUpdated => (
            "account",
            Vec::new(),
            "Meta reports a change that is no message, status or call.",
        ),
    }
}

/// AsyncAPI 3.0.0, for the default exchange.
pub fn asyncapi() -> Value {
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut messages = Map::new();
    for kind in EventType::iter() {
        let name = camel(kind.name());
        let (_, _, summary) = routes(kind);
        channels.insert(name.clone(), event_channel(kind, &name));
        operations.insert(
            format!("{name}Published"),
            json!({
                "action": "send",
                "channel": {"$ref": format!("#/channels/{name}")},
                "summary": summary,
                "bindings": {"amqp": {"deliveryMode": 2, "mandatory": true, "timestamp": true, "bindingVersion": "0.3.0"}},
            }),
        );
        messages.insert(name, event_message(kind, summary));
    }
    for (queue, keys) in QUEUES {
        let dead = format!("{queue}.DLQ");
        channels.insert(
            queue.to_owned(),
            queue_channel(queue, &bindings(queue, keys)),
        );
        channels.insert(
            dead.clone(),
            queue_channel(
                &dead,
                &format!(
                    "This queue has the events that consumers of {queue} rejected, or returned too often. RabbitMQ moves them by the exchange whatsapp.inbound.dlx."
                ),
            ),
        );
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "WhatsApp Business events",
            "version": SCHEMA_VERSION,
            "description": "The worker publishes these events to RabbitMQ. The AMQP `message_id` is the `eventId`, and a repeated event has the same one.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": {"headers": headers()},
        },
    })
}

/// The routing keys of a type of event.
fn event_channel(kind: EventType, name: &str) -> Value {
    let (group, mut words, _) = routes(kind);
    // Messages and statuses both have the word `unknown`.
    let mut seen = HashSet::new();
    words.retain(|word| seen.insert(*word));
    let words = if words.is_empty() {
        json!({"description": "These are the first 100 characters of `account.field`, with `_` for each that isn't an ASCII letter, a digit, `_` or `-`."})
    } else {
        json!({"enum": words})
    };
    json!({
        "address": format!("{group}.{{word}}.{{tenantId}}"),
        "parameters": {
            "word": words,
            "tenantId": {"description": "These are the first 100 characters of `tenant.id`, with `_` for each that isn't an ASCII letter, a digit, `_` or `-`. It is `_platform` if the event has no tenant."},
        },
        "messages": {name: {"$ref": format!("#/components/messages/{name}")}},
        "bindings": {"amqp": {
            "is": "routingKey",
            "exchange": {"name": "whatsapp.inbound", "type": "topic", "durable": true, "autoDelete": false, "vhost": "/"},
            "bindingVersion": "0.3.0",
        }},
    })
}

fn event_message(kind: EventType, summary: &str) -> Value {
    json!({
        "name": kind.name(),
        "summary": summary,
        "contentType": "application/json",
        "correlationId": {"location": "$message.payload#/correlationId"},
        "headers": {"$ref": "#/components/schemas/headers"},
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {
                "allOf": [
                    {"$ref": SCHEMA_ID},
                    {"properties": {"eventType": {"const": kind.name()}}},
                ],
            },
        },
        "bindings": {"amqp": {"messageType": kind.name(), "bindingVersion": "0.3.0"}},
    })
}

/// The AMQP headers of an event.
fn headers() -> Value {
    json!({
        "type": "object",
        "required": ["x-schema-version", "x-deduplication-header"],
        "properties": {
            "x-tenant-id": {"type": "string", "description": "This is `tenant.id`. It is missing if the event has no tenant."},
            "x-schema-version": {"type": "string", "const": SCHEMA_VERSION},
            "x-deduplication-header": {"type": "string", "format": "uuid", "description": "This is the `eventId`."},
            "traceparent": {"type": "string", "description": "This is the W3C trace context. It may be missing."},
            "x-replay-id": {"type": "string", "description": "This is the id of the replay that published the event. It is missing if no replay did."},
            "follows": {"type": "string", "description": "This is the `eventType` of the event that said `pending`. Only media.stored and media.failed have it."},
        },
    })
}

/// How a queue is described: by the events that it gets.
fn bindings(queue: &str, keys: &[&str]) -> String {
    let keys = keys.join(", ");
    let own = format!(
        "This queue gets the events of the exchange whatsapp.inbound with the routing keys {keys}."
    );
    let of_queue = QUEUES_OF_FOLLOW_UPS.iter().filter(|(_, it)| *it == queue);
    let followed: Vec<_> = of_queue.map(|(kind, _)| kind.name()).collect();
    if followed.is_empty() {
        return own;
    }
    let followed = followed.join(", ");
    format!(
        "{own} It also gets the follow-ups (media.#) of {followed} from the exchange whatsapp.inbound.media, which picks them by the header `follows`."
    )
}

fn queue_channel(name: &str, description: &str) -> Value {
    json!({
        "address": name,
        "description": description,
        "bindings": {"amqp": {
            "is": "queue",
            "queue": {"name": name, "durable": true, "exclusive": false, "autoDelete": false, "vhost": "/"},
            "bindingVersion": "0.3.0",
        }},
    })
}

/// `RequestWelcome` of `request_welcome`.
fn upper(name: &str) -> String {
    name.split('_').map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// `messageReceived` of `message.received`.
fn camel(name: &str) -> String {
    let mut words = name.split('.');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |camel, word| camel + &capital(word))
}
