//! Any body, or any value of a known field: as many events as items, each readable, with nothing of
//! its item lost. The first byte chooses the field; 0xff: the rest is the whole body.
#![no_main]

#[path = "../../tests/src/json_walk.rs"]
mod json_walk;
#[path = "../../worker/tests/contract/walk.rs"]
#[allow(dead_code, reason = "the test's own file")]
mod walk;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use shared::entry::StreamEntry;
use shared::webhook;
use worker::item::event::{self, EventContext};
use worker::item::payload::Payload;
use worker::item::tenant::Tenant;

const FIELDS: [&str; 8] = [
    "messages",
    "standby",
    "smb_message_echoes",
    "message_echoes",
    "history",
    "calls",
    "account_update",
    "",
];

fuzz_target!(|data: &[u8]| {
    let [choice, rest @ ..] = data else { return };
    let body = if *choice == 0xff {
        rest.to_vec()
    } else {
        let field = FIELDS[usize::from(*choice) % FIELDS.len()];
        let mut body = br#"{"object":"whatsapp_business_account","entry":[{"id":"1","time":1,"changes":[{"field":""#.to_vec();
        body.extend([field.as_bytes(), br#"","value":"#, rest, b"}]}]}"].concat());
        body
    };
    let Ok(webhook) = webhook::read(&body) else {
        return;
    };
    let items: usize = webhook.entries.iter().map(|entry| entry.items.len()).sum();
    let entry = StreamEntry {
        waba_id: "1".to_owned(),
        correlation_id: "0191e8a2-7d5c-4b6f-9a3e-2f1d0c4b5a69".to_owned(),
        received_at_ms: 1_795_600_000_000,
        items: 0,        fresh: (0..items).collect(),
        body: body.clone().into(),
        signature: String::new(),
        traceparent: String::new(),
        unreadable: None,
        returned: None,
    };
    let payload = Payload::open(entry).expect("it was read before");
    assert_eq!(payload.items.len(), items);
    if let Ok(tree) = serde_json::from_slice::<Value>(&body) {
        assert_eq!(json_walk::count_items(&tree), items);
    }
    let tenant = Tenant {
        id: "acme".to_owned(),
        ..Tenant::default()
    };
    for item in &payload.items {
        let event = event::event(&payload, item, &EventContext::of(&tenant)).expect("an event");
        let words = event.routing_key.split('.').count();
        assert!(words == 3 && event.routing_key.len() <= 255, "{}", event.routing_key);
        let tree: Value = serde_json::from_slice(&event.body).expect("JSON");
        assert!(walk::levels(&tree) <= 64);
        if let Err(problem) = walk::holds_all(payload.raw(item).get(), &event.body) {
            panic!("{problem}");
        }
        drop(event::media::media_ref(&payload, item));
    }
});
