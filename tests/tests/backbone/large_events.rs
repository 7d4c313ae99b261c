//! Events that are larger than the broker's `max_message_size`: it closes the channel over one.

use serde_json::Value;
use tests::events::Event;
use tests::meta::Sender;
use tests::meta::payload::{self, Number};
use tests::servers::RabbitMq;
use tests::waiting::eventually;
use tests::{Stage, StageOptions};

use crate::commands::{assert_found, run, said};
use crate::{SOON, drained, ready, repeats};

const LIMIT_BYTES: usize = 100_000;
/// The customer who sends what is too large, between other messages.
const LONG: &str = "1111111111";
const OTHERS: [&str; 3] = ["2222222222", "3333333333", "4444444444"];

async fn stage() -> (RabbitMq, Stage) {
    let limit = format!("max_message_size = {LIMIT_BYTES}\n");
    let broker = RabbitMq::with_settings(&limit).await.expect("a broker");
    let options = StageOptions {
        amqp_url: Some(broker.amqp_url("%2f")),
        ..StageOptions::default()
    };
    let stage = Stage::with(options).await;
    (broker, stage)
}

/// How often the broker has closed a channel over a size.
fn refusals(broker: &RabbitMq) -> usize {
    let log = broker.log();
    let told = log.lines().filter(|line| line.contains("message size"));
    told.filter(|line| line.contains("precondition_failed"))
        .count()
}

/// Ten messages of each of four customers, and in the middle one that is too large.
async fn send_all(sender: &Sender, numbers: &[Number], part: &str) {
    for n in 0..10 {
        for (number, from) in numbers.iter().zip([LONG].iter().chain(&OTHERS)) {
            let text = payload::text(from, &format!("{part}{n}"));
            sender.send(number.message(text)).await;
        }
        if n == 5 {
            let text = payload::text(LONG, &"x".repeat(2 * LIMIT_BYTES));
            sender.send(numbers[0].message(text)).await;
        }
    }
}

fn assert_order(events: &[Event], parts: &[&str]) {
    let texts = crate::first_texts(events);
    let expected = parts
        .iter()
        .flat_map(|part| (0..10).map(move |n| format!("{part}{n}")));
    let expected: Vec<_> = expected.collect();
    for from in [LONG].iter().chain(&OTHERS) {
        assert_eq!(texts[*from], expected, "{from}");
    }
}

async fn failed(stage: &Stage, count: usize) -> Vec<String> {
    eventually(SOON, "the large ones are set aside", async || {
        let keys = stage.webhooks().list("failed/").await.ok()?;
        (keys.len() == count).then_some(keys)
    })
    .await
}

#[tokio::test]
async fn an_event_that_the_broker_refuses_for_its_size_is_set_aside_alone() {
    let (broker, stage) = stage().await;
    let ingress = stage.ingress().start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    let numbers: Vec<Number> = (0..4).map(|_| Number::fresh()).collect();
    send_all(&sender, &numbers, "a").await;
    // All of it lies there when it starts: batches have the large one and others.
    let mut worker = stage.worker().env("AMQP_CHANNELS", 1).start().await;
    let out = |count: usize| move |seen: &[Event]| seen.len() - repeats(seen) == count;
    let seen = events.wait_until(SOON, out(40)).await;
    let keys = failed(&stage, 1).await;
    drained(&stage).await;
    assert_order(&seen, &["a"]);
    assert!(keys[0].starts_with(&format!("failed/tenant-{}/", numbers[0].waba_id)));
    let object = stage.webhooks().object(&keys[0]).await.expect("the store");
    let object = object.expect("an object");
    assert_eq!(object.metadata["reason"], "too_large");
    assert_eq!(object.metadata["items"], "0");
    assert!(object.bytes.len() > 2 * LIMIT_BYTES);
    ready(&worker).await;
    // Once beside others, once alone.
    let told = refusals(&broker);
    assert!((1..=2).contains(&told), "{}", broker.log());
    let again = repeats(&events.all());

    // The next one hurts nobody beside it, and what isn't too large closes no channel.
    send_all(&sender, &numbers, "b").await;
    let seen = events.wait_until(SOON, out(80)).await;
    failed(&stage, 2).await;
    drained(&stage).await;
    assert_order(&seen, &["a", "b"]);
    assert_eq!(repeats(&seen), again);
    assert_eq!(refusals(&broker), told + 1, "{}", broker.log());
    let series = "reason=\"too_large\"";
    assert_eq!(
        worker
            .metric("whatsapp_webhook_set_aside_total", series)
            .await,
        2.0
    );

    // Nothing of it comes back by itself; by hand it does, once the broker takes it.
    // RabbitMQ 4 looks at the second of these.
    let more = "application:set_env(rabbit, max_message_size, 10000000), \
                persistent_term:put(max_message_size, 10000000).";
    broker.control(&["eval", more]).await.expect("rabbitmqctl");
    worker.restart().await;
    let replay = ["replay", "--reason", "too_large", "--json"];
    assert!(run(&worker, &replay).await.status.success());
    events.wait_until(SOON, out(82)).await;
    failed(&stage, 0).await;
}

#[tokio::test]
async fn doctor_says_whether_the_largest_event_fits() {
    let (_broker, stage) = stage().await;
    let worker = stage.worker().start().await;
    let doctor = ["doctor", "--json"];
    let found: Value = said(&run(&worker, &doctor).await);
    assert_found(&found, "rabbitmq", "WARN", "max_message_size");
    // It closed a channel of its own alone.
    assert_found(&found, "rabbitmq", "OK", "confirms a publication");
}
