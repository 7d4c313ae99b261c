//! Any fields of a stream entry: what decodes is what was there. Fields are `name value` pairs, each
//! ended by a zero byte.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use shared::entry::{StreamEntry, format_numbers, parse_numbers};
use worker::item::payload::Payload;

fuzz_target!(|data: &[u8]| {
    let mut fields = HashMap::new();
    let mut parts = data.split(|byte| *byte == 0);
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        fields.insert(String::from_utf8_lossy(name).into_owned(), value.to_vec());
    }
    if let Some(text) = fields.get("n").and_then(|it| std::str::from_utf8(it).ok())
        && let Some(numbers) = parse_numbers(text)
    {
        let again = parse_numbers(&format_numbers(numbers.iter().copied()));
        assert_eq!(again, Some(numbers));
    }
    let Ok(entry) = StreamEntry::decode(&fields) else {
        return;
    };
    assert_eq!(entry.body, fields["b"]);
    assert_eq!(entry.waba_id.as_bytes(), fields["w"]);
    assert_eq!(entry.correlation_id.as_bytes(), fields["c"]);
    assert_eq!(entry.signature.as_bytes(), fields["s"]);
    assert_eq!(entry.traceparent.as_bytes(), fields["p"]);
    assert_eq!(entry.unreadable.unwrap_or_default().as_bytes(), fields["r"]);
    let entry = StreamEntry::decode(&fields).expect("it did before");
    drop(Payload::open(entry));
});
