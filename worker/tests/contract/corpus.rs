//! Every payload of a corpus beside the checkout, if there is one.

use serde_json::Value;
use tests::corpus::payloads;

use crate::json_walk::count_items;
use crate::{check, events, open, validator};

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
        for made in made {
            if let Err(problem) = check(&validator, &made) {
                problems.push(format!("{name}: {problem}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
