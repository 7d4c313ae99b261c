//! Every field and every type of message that Meta documents, held against the code: it has an example
//! of which nothing is left untyped. The table in `docs/events.md` is made of this list; with
//! `UPDATE_EXAMPLES=1` it is written anew.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use worker::item::event::contract;

use crate::{Made, events, json_files, manifest_dir, open, walk};

/// The fields that Meta documents, with the page that shows them, below
/// `developers.facebook.com/documentation/business-messaging/whatsapp/`.
const FIELDS: [(&str, &str); 30] = [
    ("account_alerts", "webhooks/reference/account_alerts"),
    (
        "account_review_update",
        "webhooks/reference/account_review_update",
    ),
    ("account_settings_update", "calling/call-settings"),
    ("account_update", "webhooks/reference/account_update"),
    ("automatic_events", "webhooks/reference/automatic_events"),
    (
        "business_capability_update",
        "webhooks/reference/business_capability_update",
    ),
    ("business_username_updates", "business-scoped-user-ids"),
    ("calls", "calling"),
    ("flows", "flows/guides/flowswebhooks"),
    ("group_lifecycle_update", "groups/webhooks"),
    ("group_participants_update", "groups/webhooks"),
    ("group_settings_update", "groups/webhooks"),
    ("group_status_update", "groups/webhooks"),
    ("history", "webhooks/reference/history"),
    (
        "message_template_components_update",
        "webhooks/reference/message_template_components_update",
    ),
    (
        "message_template_quality_update",
        "webhooks/reference/message_template_quality_update",
    ),
    (
        "message_template_status_update",
        "webhooks/reference/message_template_status_update",
    ),
    ("messages", "webhooks/reference/messages"),
    ("messaging_handovers", "conversation-routing"),
    ("partner_solutions", "webhooks/reference/partner_solutions"),
    (
        "payment_configuration_update",
        "webhooks/reference/payment_configuration_update",
    ),
    (
        "phone_number_name_update",
        "webhooks/reference/phone_number_name_update",
    ),
    (
        "phone_number_quality_update",
        "webhooks/reference/phone_number_quality_update",
    ),
    ("security", "webhooks/reference/security"),
    (
        "smb_app_state_sync",
        "webhooks/reference/smb_app_state_sync",
    ),
    (
        "smb_message_echoes",
        "webhooks/reference/smb_message_echoes",
    ),
    ("standby", "webhooks/reference/standby"),
    (
        "template_category_update",
        "webhooks/reference/template_category_update",
    ),
    (
        "template_correct_category_detection",
        "direct-send/integrity-and-content-guidelines",
    ),
    ("user_preferences", "webhooks/reference/user_preferences"),
];

/// The types of messages that Meta documents, with their pages. Those of the list without content have
/// none to type.
const TYPES: [(&str, &str); 17] = [
    ("audio", "webhooks/reference/messages/audio"),
    ("button", "webhooks/reference/messages/button"),
    ("contacts", "webhooks/reference/messages/contacts"),
    ("document", "webhooks/reference/messages/document"),
    ("edit", "webhooks/reference/messages/edit"),
    ("image", "webhooks/reference/messages/image"),
    ("interactive", "webhooks/reference/messages/interactive"),
    ("location", "webhooks/reference/messages/location"),
    ("order", "webhooks/reference/messages/order"),
    ("reaction", "webhooks/reference/messages/reaction"),
    (
        "request_welcome",
        "business-phone-numbers/conversational-components",
    ),
    ("revoke", "webhooks/reference/messages/revoke"),
    ("sticker", "webhooks/reference/messages/sticker"),
    ("system", "webhooks/reference/messages/system"),
    ("text", "webhooks/reference/messages/text"),
    ("unsupported", "webhooks/reference/messages/unsupported"),
    ("video", "webhooks/reference/messages/video"),
];
const WITHOUT_CONTENT: [&str; 1] = ["request_welcome"];

/// A fixture's field, its event, and what of its item the typed part of the event doesn't hold.
struct Example {
    name: String,
    field: String,
    event: Value,
    left_over: Result<(), String>,
}

fn examples() -> Vec<Example> {
    let files = json_files(manifest_dir().join("tests/fixtures")).expect("fixtures");
    let read = |(name, body): (String, Vec<u8>)| {
        let json: Value = serde_json::from_slice(&body).expect("JSON");
        let field = json["entry"][0]["changes"][0]["field"].as_str();
        let made = &events(&open(&body).expect("a webhook"))[0];
        Example {
            name,
            field: field.expect("a field").to_owned(),
            event: made.json(),
            left_over: left_over(made),
        }
    };
    files.into_iter().map(read).collect()
}

/// Whether the typed part holds all of an item, without the item as it came.
pub(crate) fn left_over(made: &Made) -> Result<(), String> {
    let mut event = made.json();
    if !event["raw"].is_null() {
        return Err(format!("raw: {}", event["raw"]));
    }
    if let Some(value) = event.pointer_mut("/account/value") {
        *value = Value::Null;
    }
    walk::holds_all(&made.sent, event.to_string().as_bytes())
}

/// The name of the shape that the schema has for a value of a discriminator: of a field its details, of
/// a type its content.
fn shapes(schema: &Value, part: &str, by: &str, member: &str) -> BTreeMap<String, String> {
    let conditions = schema["$defs"][part]["allOf"]
        .as_array()
        .expect("conditions");
    let shape = |condition: &Value| {
        let value = condition["if"]["properties"][by]["const"].as_str()?;
        let shape = &condition["then"]["properties"][member];
        let shape = shape["anyOf"].get(0).unwrap_or(shape);
        let name = match shape["type"].as_str() {
            Some("array") => shape["items"]["$ref"].as_str()?,
            _ => shape["$ref"].as_str()?,
        };
        Some((value.to_owned(), name.rsplit('/').next()?.to_owned()))
    };
    conditions.iter().filter_map(shape).collect()
}

fn link(examples: &[&Example]) -> String {
    let link = |example: &&Example| format!("[{0}](examples/{0}.json)", example.name);
    examples
        .iter()
        .take(3)
        .map(link)
        .collect::<Vec<_>>()
        .join(", ")
}

fn table() -> String {
    let (examples, schema) = (examples(), contract::schema());
    let details = shapes(&schema, "Account", "field", "details");
    let contents = shapes(&schema, "Message", "type", "content");
    let mut table = "| field | events | shape in the schema | examples | Meta's page |\n\
                     | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for (field, page) in FIELDS {
        let of_field: Vec<_> = examples.iter().filter(|it| it.field == field).collect();
        let mut kinds: Vec<_> = of_field
            .iter()
            .map(|it| text(&it.event["eventType"]))
            .collect();
        kinds.sort();
        kinds.dedup();
        let shape = shape_of(&kinds, details.get(field).map(AsRef::as_ref));
        table += &format!(
            "| `{field}` | {} | {shape} | {} | {page} |\n",
            kinds.join(", "),
            link(&of_field)
        );
    }
    table += "\n| type of message | shape of its content | examples | Meta's page |\n\
              | --- | --- | --- | --- |\n";
    for (kind, page) in TYPES {
        let of_type: Vec<_> = examples
            .iter()
            .filter(|it| it.event["message"]["type"] == kind)
            .collect();
        let shape = contents
            .get(kind)
            .map_or("none".to_owned(), |name| format!("`{name}`"));
        table += &format!("| `{kind}` | {shape} | {} | {page} |\n", link(&of_type));
    }
    table
}

/// The shapes of a field's events: an account event's is that of its details.
fn shape_of(kinds: &[String], details: Option<&str>) -> String {
    let shapes =
        kinds
            .iter()
            .filter_map(|kind| match kind.trim_matches('`').split('.').next()? {
                "message" => Some("Message"),
                "status" => Some("Status"),
                "call" => Some("Call"),
                _ => details,
            });
    let shapes: BTreeSet<_> = shapes.map(|shape| format!("`{shape}`")).collect();
    shapes.into_iter().collect::<Vec<_>>().join(", ")
}

fn text(value: &Value) -> String {
    format!("`{}`", value.as_str().unwrap_or_default())
}

const START: &str = "<!-- made by worker/tests/contract/conformance.rs -->\n";
const END: &str = "<!-- until here -->\n";

#[test]
fn the_table_of_what_is_typed_is_that_of_the_code() {
    let path = manifest_dir().join("../docs/events.md");
    let document = std::fs::read_to_string(&path).expect("docs/events.md");
    let (before, rest) = document.split_once(START).expect("where the table starts");
    let (old, after) = rest.split_once(END).expect("where the table ends");
    let new = table();
    if std::env::var_os("UPDATE_EXAMPLES").is_some() {
        let document = format!("{before}{START}{new}{END}{after}");
        std::fs::write(&path, document).expect("a writable file");
    } else {
        assert_eq!(
            old, new,
            "run `UPDATE_EXAMPLES=1 cargo test -p worker --test contract`"
        );
    }
}

#[test]
fn every_documented_field_is_typed_with_nothing_left_over() {
    let examples = examples();
    let schema = contract::schema();
    let details = shapes(&schema, "Account", "field", "details");
    let mut problems = Vec::new();
    for (field, _) in FIELDS {
        let of_field: Vec<_> = examples.iter().filter(|it| it.field == field).collect();
        if of_field.is_empty() {
            problems.push(format!("{field} has no example"));
        }
        for Example {
            name,
            event,
            left_over,
            ..
        } in of_field
        {
            let word = event["account"]["field"].as_str();
            if word.is_some_and(|word| !details.contains_key(word)) {
                problems.push(format!("{name}: {field} has no shape"));
            }
            match (left_over, ODD.contains(&&**name)) {
                (Err(problem), false) => problems.push(format!("{name}: {problem}")),
                (Ok(()), true) => problems.push(format!("{name}: nothing is left over")),
                (Ok(()), false) | (Err(_), true) => {}
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Fixtures that have something that nobody documents.
const ODD: [&str; 5] = [
    "handover_unknown",
    "image_without_digest",
    "interactive_unknown",
    "status_delivered_in_group_old_spelling",
    "unknown",
];

#[test]
fn every_documented_type_of_message_is_typed() {
    let contents = shapes(&contract::schema(), "Message", "type", "content");
    let examples = examples();
    for (kind, _) in TYPES {
        let has_shape = contents.contains_key(kind);
        assert_eq!(has_shape, !WITHOUT_CONTENT.contains(&kind), "{kind}");
        assert!(
            examples
                .iter()
                .any(|it| it.event["message"]["type"] == kind),
            "{kind} has no example"
        );
    }
}
