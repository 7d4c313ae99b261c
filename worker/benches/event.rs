//! What an item costs without any I/O: the body taken apart, and the event made.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use divan::{Bencher, black_box};
use shared::entry::StreamEntry;
use worker::item::event::{EventContext, RawObject, event};
use worker::item::payload::Payload;
use worker::item::tenant::Tenant;

fn main() {
    divan::main();
}

fn entry(body: &[u8]) -> StreamEntry {
    StreamEntry {
        waba_id: "204800000000001".to_owned(),
        correlation_id: "0191e8a2-7d5c-4b6f-9a3e-2f1d0c4b5a69".to_owned(),
        received_at_ms: 1_795_600_000_000,
        items: 0,
        fresh: vec![0],
        body: Bytes::copy_from_slice(body),
        signature: String::new(),
        traceparent: String::new(),
        unreadable: None,
        returned: None,
    }
}

const TEXT: &[u8] = include_bytes!("../tests/fixtures/text.json");
const FIXTURES: [(&str, &[u8]); 5] = [
    ("text", TEXT),
    (
        "text_from_ad",
        include_bytes!("../tests/fixtures/text_from_ad.json"),
    ),
    ("image", include_bytes!("../tests/fixtures/image.json")),
    (
        "status_sent",
        include_bytes!("../tests/fixtures/status_sent.json"),
    ),
    ("unknown", include_bytes!("../tests/fixtures/unknown.json")),
];

fn tenant() -> Tenant {
    Tenant {
        id: "acme".to_owned(),
        name: Some("Acme".to_owned()),
        ..Tenant::default()
    }
}

#[divan::bench(args = FIXTURES.map(|(name, _)| name))]
fn open_and_make_event(bencher: Bencher<'_, '_>, name: &str) {
    let body = FIXTURES
        .iter()
        .find(|(of, _)| *of == name)
        .map_or(TEXT, |(_, body)| *body);
    let tenant = tenant();
    let raw_object = RawObject {
        bucket: "webhooks-inbound".to_owned(),
        key: "acme/2026-11-25/1795600000000-example.json".to_owned(),
    };
    bencher.with_inputs(|| entry(body)).bench_values(|entry| {
        let payload = Payload::open(entry).expect("a webhook");
        let known = EventContext {
            raw_object: Some(&raw_object),
            ..EventContext::of(&tenant)
        };
        event(&payload, &payload.items[0], &known)
            .expect("an event")
            .body
            .len()
    });
}

#[divan::bench]
fn open_only(bencher: Bencher<'_, '_>) {
    let inputs = || entry(TEXT);
    bencher
        .with_inputs(inputs)
        .bench_values(|entry| Payload::open(entry).expect("a webhook").items.len());
}

/// A customer that was never seen before.
#[divan::bench]
fn new_phone(bencher: Bencher<'_, '_>) {
    let n = AtomicU64::new(0);
    bencher
        .with_inputs(|| format!("4917{:08}", n.fetch_add(1, Ordering::Relaxed)))
        .bench_values(|number| black_box(worker::item::event::phone::parse(&number)));
}
