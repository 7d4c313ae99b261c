//! Any body: what ingress finds in it by its fast walk is what the plain walk finds, and as many
//! items as its JSON tree has.
#![no_main]

#[path = "../../tests/src/json_walk.rs"]
mod json_walk;

use bytes::Bytes;
use ingress::ids;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use shared::webhook::{self, Identity, NO_WABA, OBJECT};

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    let fast = ids::deliveries(&body);
    let plain = webhook::read(&body);
    let (fast, plain) = match (fast, plain) {
        (Ok(fast), Ok(plain)) => (fast, plain),
        (Err(fast), Err(plain)) => {
            assert_eq!(fast, plain);
            let kept = ids::unreadable(&body, &fast);
            assert_eq!((&kept.body, &*kept.waba_id), (&body, NO_WABA));
            return;
        }
        (fast, plain) => panic!("{:?} but {:?}", fast.err(), plain.err()),
    };
    let mut accounts: Vec<(&str, Vec<Identity>)> = Vec::new();
    for entry in &plain.entries {
        let identities = entry.items.iter().map(|item| item.identity);
        match accounts.iter_mut().find(|(id, _)| *id == entry.waba_id) {
            Some((_, known)) => known.extend(identities),
            None => accounts.push((&entry.waba_id, identities.collect())),
        }
    }
    if accounts.is_empty() {
        accounts.push((NO_WABA, Vec::new()));
    }
    assert_eq!(fast.len(), accounts.len());
    for (delivery, (waba_id, identities)) in fast.iter().zip(&accounts) {
        assert_eq!(delivery.waba_id, *waba_id);
        assert!(delivery.unreadable.is_none());
        if identities.is_empty() {
            assert!(delivery.whole_body);
            assert_eq!(delivery.identities, [Identity::of_body(&delivery.body)]);
        } else {
            assert!(!delivery.whole_body);
            assert_eq!(delivery.identities, *identities);
        }
        // What goes into the stream is read by the worker: it must find the same there.
        if accounts.len() == 1 {
            assert_eq!(delivery.body, body);
        } else {
            let again = webhook::read(&delivery.body).expect("a piece is a webhook");
            let found = again.entries.iter().flat_map(|entry| &entry.items);
            let found: Vec<_> = found.map(|item| item.identity).collect();
            assert_eq!(found, *identities);
            assert!(again.entries.iter().all(|entry| entry.waba_id == *waba_id));
        }
    }
    // A tree has one member of a name; the walks read what is left of several too.
    if let Ok(tree) = serde_json::from_slice::<Value>(&body)
        && (tree["object"] == OBJECT || tree.get("object").is_none())
    {
        let items: usize = accounts.iter().map(|(_, identities)| identities.len()).sum();
        assert_eq!(items, json_walk::count_items(&tree));
    }
});
