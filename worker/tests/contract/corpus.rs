//! Every payload of a corpus beside the checkout, if there is one.

use serde_json::Value;
use tests::corpus::payloads;

use crate::conformance::left_over;
use crate::json_walk::count_items;
use crate::{check, events, open, validator};

/// Payloads with something that no page documents, or a digest that is none.
const ODD: [&str; 12] = [
    "audio.file_not_voice",
    "document.forwarded_caption",
    "edge.unknown_field",
    "edit.image_caption",
    "image.no_caption_no_url",
    "image.with_errors_no_url",
    "image.with_url_source_webhook",
    "smb_message_echoes.edit_image",
    "sticker.animated_no_url",
    "unknown.poll_creation",
    "user_id_update.legacy_field",
    "video.forwarded_caption",
];

#[test]
fn every_item_of_the_corpus_is_an_event_that_holds_it() {
    let Some(files) = payloads("every_item_of_the_corpus_is_an_event_that_holds_it") else {
        return;
    };
    let validator = validator();
    let mut problems = Vec::new();
    for (name, body) in files {
        let items = serde_json::from_slice(&body).map_or(0, |body: Value| count_items(&body));
        let made = open(&body)
            .map(|payload| events(&payload))
            .unwrap_or_default();
        if items != made.len() {
            problems.push(format!("{name}: {items} items, {} events", made.len()));
        }
        let is_odd = ODD
            .iter()
            .any(|odd| name.ends_with(&format!("/{odd}.json")));
        for made in made {
            if let Err(problem) = check(&validator, &made) {
                problems.push(format!("{name}: {problem}"));
            }
            match left_over(&made) {
                Err(problem) if !is_odd => problems.push(format!("{name}: left over: {problem}")),
                Ok(()) if is_odd => problems.push(format!("{name}: nothing is left over")),
                Ok(()) | Err(_) => {}
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
