//! The State Manager: asked before a message's event, told after it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use serde_json::{Value, json};
use tests::Stage;
use tests::events::Event;
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Received, Service};
use tests::programs::{Builder, Worker};
use tests::waiting::eventually;

use crate::outages::Load;
use crate::{SOON, drained, repeats};

/// A deadline that no machine is too slow for.
const PATIENT: &str = "30s";

fn worker(stage: &Stage) -> Builder<Worker> {
    stage
        .worker()
        .env("STATE_MANAGER_URL", stage.neighbours.url())
}

fn gets(stage: &Stage) -> Vec<Received> {
    let mut requests = stage.neighbours.received(Service::State);
    requests.retain(|request| request.method == "GET");
    requests
}

/// What an event says that the State Manager must have been told.
fn told(event: &Event, conversation: Option<&str>) -> Value {
    json!({
        "tenantId": event.text("/tenant/id"),
        "eventId": event.text("/eventId"),
        "messageId": event.text("/message/id"),
        "waId": event.payload.pointer("/customer/waId"),
        "userId": event.payload.pointer("/customer/userId"),
        "conversationId": conversation,
        "direction": "inbound",
        "type": event.text("/message/type"),
        "timestamp": event.text("/message/timestamp"),
        "correlationId": event.text("/correlationId"),
    })
}

#[tokio::test]
async fn a_message_has_its_conversation_and_the_state_manager_is_told_of_it() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    let (ingress, worker) = (
        stage.ingress().start().await,
        worker(&stage)
            .env("STATE_MANAGER_TOKEN", "state-token")
            .env("STATE_DEADLINE", PATIENT)
            .start()
            .await,
    );
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let messages = ["a", "b"].map(|text| payload::text("4915112345678", text));
    let change = number.messages(messages);
    sender.send(number.webhook([change])).await;
    let seen = events.wait_for(2, SOON).await;
    drained(&stage).await;
    let conversation = json!({"conversationId": "conversation-4915112345678"});
    for event in &seen {
        assert_eq!(event.payload["conversation"], conversation);
        assert_eq!(event.payload["degraded"], json!([]));
    }
    let posts = stage.neighbours.state_taken();
    let expected = seen
        .iter()
        .map(|event| told(event, Some("conversation-4915112345678")));
    assert_eq!(by_event(posts), by_event(expected));
    let asked = gets(&stage);
    let query = format!(
        "/state/mapping/4915112345678?tenantId=tenant-{}&phoneNumberId={}",
        number.waba_id, number.phone_number_id
    );
    assert!(asked.len() == 2 && asked.iter().all(|request| request.path == query));
    for request in stage.neighbours.received(Service::State) {
        assert_eq!(request.headers["authorization"], "Bearer state-token");
        assert_eq!(
            request.headers["x-correlation-id"],
            seen[0].text("/correlationId")
        );
    }
    assert!((worker.metric("whatsapp_state_posts_total", "taken").await - 2.0).abs() < 0.1);

    // Nothing but messages has a conversation.
    sender
        .send(number.status(payload::status("wamid.1", "read", "4915112345678")))
        .await;
    let seen = events.wait_for(3, SOON).await;
    drained(&stage).await;
    assert_eq!(seen[2].payload["conversation"], Value::Null);
    assert_eq!(stage.neighbours.requests(Service::State), 4);
}

fn by_event(told: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let told = told.into_iter();
    told.map(|told| {
        (
            told["eventId"].as_str().unwrap_or_default().to_owned(),
            told,
        )
    })
    .collect()
}

#[tokio::test]
async fn a_customer_without_a_phone_is_asked_for_by_user_id_and_404_is_an_answer() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    stage
        .neighbours
        .set_mapping("US.13491208655302741918", None);
    let worker = worker(&stage).env("STATE_DEADLINE", PATIENT);
    let (ingress, _worker) = (stage.ingress().start().await, worker.start().await);
    let events = stage.events();
    let mut message = payload::text("1", "a");
    let members = message.as_object_mut().expect("an object");
    members.remove("from");
    members.insert("from_user_id".to_owned(), "US.13491208655302741918".into());
    stage.sender(&ingress).send(number.message(message)).await;
    let seen = events.wait_for(1, SOON).await;
    drained(&stage).await;
    assert_eq!(seen[0].payload["conversation"], Value::Null);
    assert_eq!(seen[0].payload["degraded"], json!([]));
    assert!(
        gets(&stage)[0]
            .path
            .starts_with("/state/mapping/US.13491208655302741918?")
    );
    let posts = stage.neighbours.state_taken();
    assert_eq!(posts, [told(&seen[0], None)]);
    assert_eq!(posts[0]["waId"], Value::Null);
}

#[tokio::test]
async fn a_message_waits_for_its_conversation_no_longer_than_the_deadline() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, worker(&stage).start().await);
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    sender
        .send(number.message(payload::text("1", "warm")))
        .await;
    events.wait_for(1, SOON).await;
    for (n, fault) in [
        Fault::Hang,
        Fault::Slow(Duration::from_secs(1)),
        Fault::Status(500),
        Fault::Close,
        Fault::Cut(5),
        Fault::Garbage,
    ]
    .into_iter()
    .enumerate()
    {
        stage.neighbours.set_fault(Service::State, fault);
        sender.send(number.message(payload::text("1", "a"))).await;
        // It came without the conversation: the answer that would have come was not waited for.
        let seen = events.wait_for(n + 2, SOON).await;
        let event = &seen[n + 1];
        assert_eq!(event.payload["conversation"], Value::Null, "{fault}");
        assert_eq!(
            event.payload["degraded"],
            json!(["state-manager"]),
            "{fault}"
        );
    }
    assert!(
        worker
            .metric("whatsapp_breaker_transitions_total", "state-manager\"")
            .await
            >= 1.0
    );
    stage.neighbours.set_fault(Service::State, Fault::None);
    drained(&stage).await;
    let posted: HashSet<_> = by_event(stage.neighbours.state_taken())
        .into_keys()
        .collect();
    assert_eq!(posted.len(), 7);
    // The next message that asks finds it well.
    let mut count = 7;
    eventually(SOON, "the breaker closes", async || {
        sender.send(number.message(payload::text("1", "b"))).await;
        count += 1;
        let seen = events.wait_for(count, SOON).await;
        (seen[count - 1].payload["degraded"] == json!([])).then_some(())
    })
    .await;
    assert!(
        worker
            .metric("whatsapp_breaker_state", "state-manager\"")
            .await
            < 0.5
    );
}

#[tokio::test]
async fn what_the_state_manager_refuses_for_good_is_not_told_again() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, worker(&stage).start().await);
    let events = stage.events();
    stage
        .neighbours
        .set_fault(Service::State, Fault::Status(422));
    let number = Number::fresh();
    stage
        .sender(&ingress)
        .send(number.message(payload::text("1", "a")))
        .await;
    events.wait_for(1, SOON).await;
    drained(&stage).await;
    assert_eq!(stage.neighbours.state_posts().len(), 1);
    assert!((worker.metric("whatsapp_state_posts_total", "refused").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn an_absent_state_manager_does_not_hold_up_what_else_is_owed() {
    let stage = Stage::new().await;
    let (ingress, _worker) = (
        stage.ingress().env("STREAM_PARTITIONS", 1).start().await,
        worker(&stage).env("STREAM_PARTITIONS", 1).start().await,
    );
    let events = stage.events();
    let sender = stage.sender(&ingress);
    stage
        .neighbours
        .set_fault(Service::State, Fault::Status(503));
    let number = Number::fresh();
    for n in 0..200 {
        sender
            .send(number.message(payload::text(&n.to_string(), "a")))
            .await;
    }
    events.wait_for(200, SOON).await;
    // Its object is behind 200 messages that the State Manager is still to be told of.
    sender
        .send(b"{\"object\":\"whatsapp_business_account\", \xff".to_vec())
        .await;
    eventually(SOON, "an object in the failed store", async || {
        stage.webhooks().list("failed/").await.ok()?.pop()
    })
    .await;
    // An event is seen before Redis is told of its message.
    eventually(SOON, "all 200 are owed", async || {
        (crate::count_owed(&stage, "state").await == 200).then_some(())
    })
    .await;
    stage.neighbours.set_fault(Service::State, Fault::None);
    drained(&stage).await;
    assert_eq!(by_event(stage.neighbours.state_taken()).len(), 200);
}

/// 10,000 messages at 250/s (`STATE_MESSAGES=10000`); less in every run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_every_message_arrives_through_an_outage_and_a_killed_worker() {
    let messages: usize = std::env::var("STATE_MESSAGES").map_or(3000, |count| {
        count.parse().expect("STATE_MESSAGES is a number")
    });
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let events = stage.events();
    let (mut one, _other) = (
        worker(&stage).env("LEASE_TTL", "2s").start().await,
        worker(&stage).env("LEASE_TTL", "2s").start().await,
    );
    let load = Load {
        numbers: (0..20).map(|_| Number::fresh()).collect(),
        conversations: 100,
        each: messages / 100,
        rate: 250,
    };
    let mut sending = load.send(&stage.sender(&ingress));
    events.wait_for(load.total() / 8, SOON).await;
    stage
        .neighbours
        .set_fault(Service::State, Fault::Status(503));
    events.wait_for(load.total() / 4, SOON).await;
    one.kill();
    events.wait_for(load.total() / 3, SOON).await;
    one.restart().await;
    while let Some(answers) = sending.join_next().await {
        assert!(answers.expect("no panic").is_empty(), "all were taken");
    }
    let all = |seen: &[Event]| seen.len() - repeats(seen) >= load.total();
    let seen = events.wait_until(SOON * 4, all).await;
    // Until here all of it is owed.
    stage.neighbours.set_fault(Service::State, Fault::None);
    drained(&stage).await;
    load.assert_complete(&seen);
    let posts = by_event(stage.neighbours.state_taken());
    let ids: BTreeSet<_> = seen.iter().map(|event| event.text("/eventId")).collect();
    assert_eq!(
        posts.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        ids
    );
    for event in &seen {
        let mut post = posts[event.text("/eventId")].clone();
        // Unknown where the State Manager was away, or the worker that knew died.
        post["conversationId"] = Value::Null;
        assert_eq!(post, told(event, None));
    }
}

/// How long no clock can wait.
const FOR_EVER: Fault = Fault::RetryAfter(9_223_372_036_854_775_807);

#[tokio::test]
async fn a_neighbour_that_asks_for_patience_without_end_ends_nothing() {
    let stage = Stage::new().await;
    let (ingress, mut worker) = (stage.ingress().start().await, worker(&stage).start().await);
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    let post = async |message: Value| {
        let answer = sender.post_once(Number::fresh().message(message)).await;
        assert_eq!(answer.expect("an answer").status, 200);
    };
    let mut seen = 0;
    for service in [
        Service::Tenants,
        Service::State,
        Service::Graph,
        Service::Download,
    ] {
        stage.neighbours.set_fault(service, FOR_EVER);
        let before = stage.neighbours.requests(service);
        let id = format!("8{}", uuid::Uuid::new_v4().as_u128() % 1_000_000_000_000);
        stage
            .neighbours
            .set_media(&id, "image/jpeg", &b"\xff\xd8\xff"[..]);
        post(payload::image("4915112345678", &id)).await;
        eventually(SOON, "it was asked", async || {
            (stage.neighbours.requests(service) > before).then_some(())
        })
        .await;
        if service == Service::Tenants {
            stage.neighbours.set_fault(service, Fault::None);
        }
        let messages = |seen: &[Event]| {
            let messages = seen.iter();
            let messages =
                messages.filter(|event| event.kind.as_deref() == Some("message.received"));
            messages.count()
        };
        seen += 1;
        events
            .wait_until(SOON, |events| messages(events) == seen)
            .await;
        stage.neighbours.set_fault(service, Fault::None);
        post(payload::text("4915112345678", "after it")).await;
        seen += 1;
        events
            .wait_until(SOON, |events| messages(events) == seen)
            .await;
        assert!(worker.is_running(), "{service:?}");
    }
    assert!(!worker.log().contains("panicked"));
}
