//! One message through everything.

use serde_json::json;
use tests::Stage;
use tests::events::{EVENTS, MESSAGES, STATUSES};
use tests::meta::payload::{self, Number};
use tests::waiting::eventually;

use crate::SOON;

#[tokio::test]
async fn a_webhook_becomes_an_event() {
    let stage = Stage::new().await;
    // However slow the store: an image that is late has a second event.
    let worker = stage.worker().env("MEDIA_DEADLINE", "60s");
    let (ingress, _worker) = (stage.ingress().start().await, worker.start().await);
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let tenant = format!("tenant-{}", number.waba_id);
    let bodies = [
        number.message(payload::text("16505551234", "hello \u{1f600}")),
        number.message(payload::image("16505551234", "12345")),
        number.status(payload::status("wamid.out", "delivered", "16505551234")),
        number.message(payload::message(
            "16505551234",
            "hologram",
            json!({"depth": 3}),
        )),
        number.webhook([payload::account_update()]),
    ];
    for body in &bodies {
        let answer = sender.post_once(body.clone()).await.expect("an answer");
        assert_eq!((answer.status, &*answer.body), (200, ""));
    }
    let seen = events.wait_for(bodies.len(), SOON).await;
    let route = |queue, key: &str| {
        let found = seen.iter().find(|event| event.routing_key == key);
        let event = found.unwrap_or_else(|| panic!("nothing came by {key}"));
        assert_eq!(event.queue, queue);
        event
    };
    let text = route(MESSAGES, &format!("message.text.{tenant}"));
    assert_eq!(text.text("/message/content/body"), "hello \u{1f600}");
    assert_eq!(text.payload["raw"], json!(null));
    assert_eq!(text.text("/customer/name"), "Sheena Nelson");
    assert_eq!(text.kind.as_deref(), Some("message.received"));
    assert_eq!(text.delivery_mode, Some(2));
    assert_eq!(text.message_id.as_deref(), Some(text.text("/eventId")));
    assert_eq!(text.headers["x-tenant-id"], tenant);
    let image = route(MESSAGES, &format!("message.image.{tenant}"));
    assert_eq!(image.text("/message/media/id"), "12345");
    assert_eq!(image.text("/message/media/status"), "stored");
    let status = route(STATUSES, &format!("status.delivered.{tenant}"));
    assert_eq!(status.text("/status/messageId"), "wamid.out");
    let unknown = route(MESSAGES, &format!("message.unknown.{tenant}"));
    assert_eq!(unknown.payload["raw"]["hologram"]["depth"], 3);
    route(EVENTS, &format!("account.account_update.{tenant}"));

    let store = stage.webhooks();
    for event in &seen {
        let key = event.text("/rawObject/key");
        assert!(key.starts_with(&format!("{tenant}/")), "{key}");
        let object = eventually(SOON, "the raw object", async || {
            store.object(key).await.expect("the store")
        })
        .await;
        assert!(bodies.contains(&object.bytes), "{key} is one of the bodies");
        assert_eq!(
            object.metadata["correlation-id"],
            event.text("/correlationId")
        );
    }
    assert_eq!(
        store
            .list(&format!("{tenant}/"))
            .await
            .expect("a list")
            .len(),
        bodies.len()
    );
}

#[tokio::test]
async fn what_was_seen_before_does_not_come_out_again() {
    let stage = Stage::new().await;
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let (first, second) = (
        payload::text("111111111", "1"),
        payload::text("222222222", "2"),
    );
    let alone = number.message(first.clone());
    for _ in 0..3 {
        sender.send(alone.clone()).await;
    }
    // The same item in another batch; then one that tells that all before it is through.
    sender
        .send(number.webhook([number.messages([first, second])]))
        .await;
    sender
        .send(number.message(payload::text("111111111", "3")))
        .await;
    let seen = events.wait_until(SOON, |seen| seen.len() >= 3).await;
    let mut texts: Vec<_> = seen
        .iter()
        .map(|e| e.text("/message/content/body"))
        .collect();
    texts.sort_unstable();
    assert_eq!(texts, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_body_of_two_accounts_is_split_with_its_entries_untouched() {
    let stage = Stage::new().await;
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let (one, two) = (Number::fresh(), Number::fresh());
    let entry = |number: &Number, text| {
        payload::entry(
            &number.waba_id,
            [number.messages([payload::text("3333333333", text)])],
        )
    };
    let body = payload::webhook([entry(&one, "a"), entry(&two, "b"), entry(&one, "c")]);
    stage.sender(&ingress).send(body.clone()).await;
    let seen = events.wait_for(3, SOON).await;
    let whole = std::str::from_utf8(&body).expect("text");
    let mut stored_entries = 0;
    for (number, entries) in [(&one, 2), (&two, 1)] {
        let tenant = format!("tenant-{}", number.waba_id);
        let keys = eventually(SOON, "the raw object of each account", async || {
            let keys = stage.webhooks().list(&format!("{tenant}/")).await.ok()?;
            (!keys.is_empty()).then_some(keys)
        })
        .await;
        assert_eq!(keys.len(), 1, "one body per account");
        let stored = stage
            .webhooks()
            .get(&keys[0])
            .await
            .expect("the store")
            .expect("it");
        let stored = shared::webhook::Json::parse(&stored).expect("JSON");
        let [_, entry] = shared::webhook::members(stored, ["object", "entry"]).expect("an object");
        let elements = shared::webhook::elements(entry.expect("entry")).expect("an array");
        assert_eq!(elements.len(), entries);
        for element in elements {
            assert!(
                whole.contains(element.get()),
                "the entry's bytes are untouched"
            );
            stored_entries += 1;
        }
        let own = seen
            .iter()
            .filter(|e| e.text("/channel/businessAccountId") == number.waba_id);
        assert_eq!(own.count(), entries);
    }
    assert_eq!(stored_entries, 3);
}

#[tokio::test]
async fn a_thousand_items_of_one_body_come_out_once_each() {
    let stage = Stage::new().await;
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let number = Number::fresh();
    let messages =
        (0..1000).map(|n| payload::text(&format!("49170{:07}", n % 100), &n.to_string()));
    stage
        .sender(&ingress)
        .send(number.webhook([number.messages(messages)]))
        .await;
    let seen = events.wait_for(1000, SOON).await;
    assert_eq!((seen.len(), crate::repeats(&seen)), (1000, 0));
    let keys: std::collections::HashSet<_> = seen
        .iter()
        .map(|event| event.text("/rawObject/key"))
        .collect();
    assert_eq!(keys.len(), 1, "all name the one raw object");
    for (customer, texts) in crate::first_texts(&seen) {
        let numbers: Vec<u32> = texts
            .iter()
            .map(|text| text.parse().expect("a number"))
            .collect();
        assert!(numbers.is_sorted(), "{customer}: {numbers:?}");
        assert_eq!(numbers.len(), 10);
    }
}

#[tokio::test]
async fn one_person_by_phone_and_by_user_id_stays_in_order() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let events = stage.events();
    let number = Number::fresh();
    let sender = stage.sender(&ingress);
    for n in 0..60 {
        let mut message = payload::text("14155550100", &n.to_string());
        match n % 3 {
            0 => {}
            1 => message["from_user_id"] = json!("US.42"),
            _ => {
                message["from_user_id"] = json!("US.42");
                message.as_object_mut().expect("an object").remove("from");
            }
        }
        sender.send(number.message(message)).await;
    }
    let _worker = stage.worker().start().await;
    let seen = events.wait_for(60, SOON).await;
    let order: Vec<u32> = seen
        .iter()
        .map(|event| {
            event
                .text("/message/content/body")
                .parse()
                .expect("a number")
        })
        .collect();
    // Every third knows both ids, so it stands between those that know only one.
    for without in [2, 0] {
        let shared: Vec<_> = order.iter().filter(|n| *n % 3 != without).collect();
        assert!(shared.is_sorted(), "{order:?}");
    }
}
