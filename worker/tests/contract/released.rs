//! What was published stays: the events of the last release, held against today's schema and code. When a
//! version is released, `RELEASE_EXAMPLES=1` writes them anew.

use serde_json::{Map, Value};
use worker::item::event::contract;

use crate::{json_files, manifest_dir};

fn released() -> Map<String, Value> {
    let path = manifest_dir().join("tests/contract/released.json");
    if std::env::var_os("RELEASE_EXAMPLES").is_some() {
        std::fs::write(&path, today_text()).expect("a writable file");
    }
    let text = std::fs::read(path).expect("the released events");
    serde_json::from_slice(&text).expect("JSON")
}

fn today() -> Map<String, Value> {
    let folder = manifest_dir().join("../docs/examples");
    let read = |(name, text): (String, Vec<u8>)| {
        let event = serde_json::from_slice(&text).expect("JSON");
        (name, event)
    };
    let files = json_files(folder).expect("examples").into_iter().map(read);
    files.filter(|(name, _)| name != "index").collect()
}

/// An event a line.
fn today_text() -> String {
    let events = today();
    let lines: Vec<_> = events
        .iter()
        .map(|(name, event)| format!("{}:{event}", Value::from(name.as_str())))
        .collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

/// A major version's schema, whatever the minor one.
fn of_any_minor(mut schema: Value) -> Value {
    if let Some(Value::Object(version)) = schema.pointer_mut("/properties/schemaVersion") {
        version.remove("const");
    }
    schema
}

#[test]
fn released_events_fit_todays_schemas() {
    let options = jsonschema::options().should_validate_formats(true);
    let schema = of_any_minor(contract::schema());
    let unions = contract::unions(&contract::schema());
    for schema in [schema, unions] {
        let validator = options.build(&schema).expect("a sound schema");
        for (name, event) in released() {
            if let Some(error) = validator.iter_errors(&event).next() {
                panic!("{name}: {error} at {}", error.instance_path());
            }
        }
    }
}

/// Members that went or got another type, but those that were `null`.
fn gone(before: &Value, now: &Value, at: &str, found: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            for (name, before) in before {
                let at = format!("{at}/{name}");
                match now.get(name) {
                    Some(now) => gone(before, now, &at, found),
                    None => found.push(at),
                }
            }
        }
        (Value::Array(before), Value::Array(now)) => {
            for (before, now) in before.iter().zip(now) {
                gone(before, now, &format!("{at}/*"), found);
            }
        }
        // What travelled in `raw` is typed now.
        (Value::Null, _) | (_, Value::Null) if at == "/raw" => {}
        (Value::Null, _) => {}
        (before, now) if std::mem::discriminant(before) == std::mem::discriminant(now) => {}
        _ => found.push(at.to_owned()),
    }
}

#[test]
fn what_released_events_say_todays_say_too() {
    let today = today();
    for (name, before) in released() {
        let now = today.get(&name).unwrap_or_else(|| panic!("{name} is gone"));
        let major = |event: &Value| {
            let version = event["schemaVersion"]
                .as_str()
                .expect("a version")
                .to_owned();
            version.split('.').next().map(str::to_owned)
        };
        if major(&before) != major(now) {
            continue;
        }
        let mut found = Vec::new();
        gone(&before, now, "", &mut found);
        assert!(
            found.is_empty(),
            "{name}: {found:?}: that is a new major version"
        );
        assert_eq!(before["eventId"], now["eventId"], "{name}");
    }
}
