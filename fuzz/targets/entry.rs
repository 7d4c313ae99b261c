//! Any fields of a stream entry: what decodes is what was there. Fields are `name value` pairs, each
//! ended by a zero byte.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use shared::entry::{
    self, EntryFields, EntryHeader, StreamEntry, format_numbers, parse_numbers,
};
use worker::item::payload::Payload;

fuzz_target!(|data: &[u8]| {
    let mut fields = EntryFields::new();
    let mut parts = data.split(|byte| *byte == 0);
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        fields.insert(String::from_utf8_lossy(name).into_owned(), value.to_vec().into());
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
    assert_eq!(entry::account(&fields).as_ref(), Some(&entry.waba_id));
    let header = EntryHeader::of(&fields).expect("it is part of it");
    let packed = HashMap::from([("h".to_owned(), header.pack().into())]);
    assert_eq!(EntryHeader::of(&packed), Ok(header));
    drop(Payload::open(entry));
});
