//! Every payload of a corpus beside the checkout, if there is one. Without one the simulator's bodies,
//! in the other tests, must do.

use redis::AsyncCommands;
use serde_json::Value;
use tests::Stage;
use tests::corpus::payloads;
use tests::events::Event;
use tests::json_walk::count_items;

use crate::{SOON, drained};

#[tokio::test]
async fn every_item_of_the_corpus_comes_out_once() {
    let Some(corpus) = payloads("every_item_of_the_corpus_comes_out_once") else {
        return;
    };
    let stage = Stage::new().await;
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let mut redis = stage.redis.connection().await;
    let mut items = 0;
    for (name, bytes) in &corpus {
        for _ in 0..2 {
            let answer = sender.post_once(bytes.clone()).await.expect("an answer");
            assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        }
        items += serde_json::from_slice(bytes).map_or(0, |body: Value| count_items(&body));
        // Meta's examples repeat ids from file to file.
        let marks: Vec<String> = redis.keys("whatsapp:*:seen:*").await.expect("KEYS");
        if !marks.is_empty() {
            redis.del::<_, ()>(marks).await.expect("DEL");
        }
    }
    drained(&stage).await;
    // What the worker notices of accounts by itself is no item's.
    let of_items = |seen: &[Event]| {
        let others = |event: &&Event| event.kind.as_deref() != Some("channel.health");
        seen.iter().filter(others).count()
    };
    let seen = events
        .wait_until(SOON, |seen| of_items(seen) >= items)
        .await;
    assert_eq!(of_items(&seen), items, "items out = items in");

    let store = stage.webhooks();
    let bodies: Vec<&str> = corpus
        .iter()
        .filter_map(|(_, bytes)| std::str::from_utf8(bytes).ok())
        .collect();
    for key in store.list("").await.expect("a list") {
        let stored = store
            .get(&key)
            .await
            .expect("the store")
            .expect("the object");
        let stored = std::str::from_utf8(&stored).expect("text");
        if bodies.contains(&stored) {
            continue;
        }
        // A piece of a body of several accounts.
        let stored = shared::webhook::Json::parse(stored.as_bytes()).expect("JSON");
        let [entries] = shared::webhook::members(stored, ["entry"]).expect("an object");
        for entry in shared::webhook::elements(entries.expect("entry")).expect("an array") {
            assert!(
                bodies.iter().any(|body| body.contains(entry.get())),
                "{key}: an entry's bytes were touched"
            );
        }
    }
}
