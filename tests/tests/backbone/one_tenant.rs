//! What goes wrong for one tenant stays with that tenant.

use std::time::Duration;

use serde_json::json;
use tests::Stage;
use tests::events::{Event, Events};
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Service, Tenant};
use tests::programs::Worker;
use tests::proxy::{Mode, Proxy};
use tests::waiting::{eventually, poll};

use crate::{SOON, drained};

const ADMIN: &str = "admin-token";
/// An answer that can't be used is waited out this long before anything is set aside.
const UNUSABLE_PATIENCE: Duration = Duration::from_secs(30);

async fn invalidate(worker: &Worker, number: &Number) {
    let path = format!("/tenants/{}/invalidate", number.waba_id);
    let (status, body) = worker.post(&path, Some(ADMIN)).await.expect("an answer");
    assert_eq!(status, 200, "{body}");
}

fn of<'a>(events: &'a [Event], number: &Number) -> Vec<&'a Event> {
    let of = |event: &&Event| event.text("/channel/businessAccountId") == number.waba_id;
    events.iter().filter(of).collect()
}

#[tokio::test]
async fn an_answer_that_stays_unusable_sets_aside_and_a_usable_one_brings_back() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    let of_another = json!({"tenantId": "t", "businessAccountId": "1"});
    stage
        .neighbours
        .set_tenant(&number.waba_id, Tenant::Custom(of_another));
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().env("WORKER_ADMIN_TOKEN", ADMIN);
    let worker = worker.start().await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    for text in ["a", "b"] {
        sender
            .send(number.message(payload::text("1111111111", text)))
            .await;
    }
    let failed = async || stage.webhooks().list("failed/").await.expect("a list");
    eventually(UNUSABLE_PATIENCE + SOON, "both are set aside", async || {
        (failed().await.len() == 2).then_some(())
    })
    .await;
    for key in failed().await {
        let folder = format!("failed/_unresolved/{}/", number.waba_id);
        assert!(key.starts_with(&folder), "{key}");
        let object = stage.webhooks().object(&key).await.expect("the store");
        let object = object.expect("the object");
        assert_eq!(object.metadata["reason"], "tenant_unusable");
    }
    drained(&stage).await;
    stage.neighbours.set_tenant(&number.waba_id, Tenant::Active);
    invalidate(&worker, &number).await;
    let seen = events.wait_for(2, SOON).await;
    assert_eq!(of(&seen, &number).len(), 2);
    drained(&stage).await;
    assert_eq!(failed().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_state_manager_that_fails_for_one_tenant_serves_the_others() {
    let stage = Stage::new().await;
    let (bad, well) = (Number::fresh(), Number::fresh());
    let ingress = stage.ingress().env("STREAM_PARTITIONS", 1).start().await;
    let worker = stage.worker().env("STREAM_PARTITIONS", 1);
    let worker = worker.env("STATE_MANAGER_URL", stage.neighbours.url());
    let _worker = worker.start().await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let tenant = format!("tenant-{}", bad.waba_id);
    stage
        .neighbours
        .set_fault_about(Service::State, &tenant, Fault::Status(500));
    for n in 0..100 {
        sender
            .send(bad.message(payload::text(&format!("1{n}"), "a")))
            .await;
    }
    for n in 0..20 {
        sender
            .send(well.message(payload::text(&format!("2{n}"), "a")))
            .await;
    }
    let seen = events.wait_for(120, SOON).await;
    let degraded = |event: &&Event| event.payload["degraded"] != json!([]);
    assert_eq!(of(&seen, &bad).into_iter().filter(degraded).count(), 100);
    assert_eq!(of(&seen, &well).into_iter().filter(degraded).count(), 0);
    let told = async || {
        let taken = stage.neighbours.state_taken();
        let of_well = format!("tenant-{}", well.waba_id);
        let of_well = taken.iter().filter(|told| told["tenantId"] == of_well);
        (of_well.count() == 20).then_some(())
    };
    eventually(SOON, "it is told of the others' messages", told).await;
    stage
        .neighbours
        .set_fault_about(Service::State, &tenant, Fault::None);
    drained(&stage).await;
}

#[tokio::test]
async fn a_graph_api_that_fails_for_one_token_serves_the_others() {
    let stage = Stage::new().await;
    let (bad, well) = (Number::fresh(), Number::fresh());
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().start().await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let token = format!("token-{}", bad.waba_id);
    stage
        .neighbours
        .set_fault_about(Service::Graph, &token, Fault::Status(500));
    for n in 0..10 {
        sender
            .send(bad.message(payload::image("1", &format!("77700{n}"))))
            .await;
    }
    let refused = async || {
        let refused = worker
            .metric(
                "whatsapp_neighbour_attempts_total",
                "neighbour=\"graph\",outcome=\"breaker_open\"",
            )
            .await;
        let seen = events.all();
        (refused > 0.0 || of(&seen, &bad).len() == 10).then_some(())
    };
    eventually(SOON, "it is left alone for one", refused).await;
    for n in 0..5 {
        sender
            .send(well.message(payload::image("2", &format!("88800{n}"))))
            .await;
    }
    let seen = events.wait_for(15, SOON).await;
    for event in of(&seen, &well) {
        assert_eq!(event.text("/message/media/status"), "stored");
    }
    for event in of(&seen, &bad) {
        assert_eq!(event.text("/message/media/status"), "pending");
    }
}

/// Both accounts are one tenant's.
fn share_tenant(stage: &Stage, numbers: &[&Number], status: &str) {
    for number in numbers {
        let waba_id = &number.waba_id;
        let tenant = json!({"tenantId": "shared", "businessAccountId": waba_id, "status": status, "accessToken": "token"});
        stage.neighbours.set_tenant(waba_id, Tenant::Custom(tenant));
    }
}

/// The raw payload of an event is its own account's.
async fn assert_own_payload(stage: &Stage, event: &Event) {
    let key = event.text("/rawObject/key");
    let raw = stage.webhooks().get(key).await.expect("the store");
    let raw = String::from_utf8_lossy(&raw.expect("an object")).into_owned();
    let number = event.text("/channel/phoneNumberId");
    assert!(raw.contains(number), "{key} is not the payload of {number}");
}

#[tokio::test]
async fn accounts_of_one_tenant_with_one_message_id_in_one_post_keep_all_they_have() {
    let stage = Stage::new().await;
    let numbers = [Number::fresh(), Number::fresh(), Number::fresh()];
    share_tenant(&stage, &numbers.each_ref(), "active");
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let wamid = payload::wamid();
    let entries = numbers.iter().enumerate().map(|(n, number)| {
        let mut message = payload::image("1", &format!("5550{n}"));
        message["id"] = wamid.clone().into();
        payload::entry(&number.waba_id, [number.messages([message])])
    });
    let body = payload::webhook(entries);
    stage.sender(&ingress).send(body).await;
    let seen = events.wait_for(3, SOON).await;
    drained(&stage).await;
    let archived = stage.webhooks().list("shared/").await.expect("a list");
    assert_eq!(archived.len(), 3, "{archived:?}");
    let files = stage.media().list("shared/").await.expect("a list");
    assert_eq!(files.len(), 3, "{files:?}");
    for event in &seen {
        assert_own_payload(&stage, event).await;
        let file = event.text("/message/media/key");
        let bytes = stage.media().get(file).await.expect("the store");
        let expected = format!("media {}", event.text("/message/media/id"));
        assert_eq!(bytes.expect("a file"), expected.as_bytes());
    }
}

#[tokio::test]
async fn what_is_set_aside_of_one_message_id_of_two_accounts_is_kept_twice() {
    let stage = Stage::new().await;
    let numbers = [Number::fresh(), Number::fresh()];
    share_tenant(&stage, &numbers.each_ref(), "suspended");
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let message = payload::text("1", "a");
    let entries = numbers
        .each_ref()
        .map(|number| payload::entry(&number.waba_id, [number.messages([message.clone()])]));
    stage.sender(&ingress).send(payload::webhook(entries)).await;
    let both = async || {
        let failed = stage.webhooks().list("failed/shared/").await.ok()?;
        (failed.len() == 2).then_some(())
    };
    eventually(SOON, "both are set aside", both).await;
    drained(&stage).await;
    both().await.expect("both are still there");
}

/// Puts a body of an account into the one stream, as if it had come at a certain time; `source`: key of
/// the object that it was put back from.
async fn put(stage: &Stage, waba_id: &str, body: &[u8], source: Option<&str>) {
    let mut add = redis::cmd("XADD");
    add.arg("whatsapp:{0}:stream").arg("*");
    for (name, value) in [
        ("v", "1"),
        ("w", waba_id),
        ("c", "c"),
        ("t", "1700000000000"),
        ("n", "0"),
        ("s", ""),
        ("p", ""),
        ("r", ""),
    ] {
        add.arg(name).arg(value);
    }
    add.arg("b").arg(body);
    if let Some(source) = source {
        add.arg("o").arg(source).arg("x").arg("").arg("a").arg(1);
    }
    let mut redis = stage.redis.connection().await;
    add.query_async::<()>(&mut redis).await.expect("XADD");
}

/// Keys and bodies of the objects in a folder.
async fn kept(stage: &Stage, folder: &str) -> Vec<(String, Vec<u8>)> {
    let mut kept = Vec::new();
    for key in stage.webhooks().list(folder).await.expect("a list") {
        let body = stage.webhooks().get(&key).await.expect("the store");
        kept.push((key, body.expect("an object").to_vec()));
    }
    kept
}

#[tokio::test]
async fn payloads_of_one_message_id_and_one_millisecond_lie_beside_each_other() {
    let stage = Stage::new().await;
    let (first, second, unknown) = (Number::fresh(), Number::fresh(), Number::fresh());
    let of_number = |number: &Number, phone_number_id: &str| Number {
        phone_number_id: phone_number_id.to_owned(),
        ..number.clone()
    };
    share_tenant(&stage, &[&first, &second], "active");
    stage
        .neighbours
        .set_tenant(&unknown.waba_id, Tenant::Unknown);
    let _worker = stage.worker().env("STREAM_PARTITIONS", 1).start().await;
    let message = payload::text("1", "a");
    let mut bodies = Vec::new();
    for (folder, number) in [
        ("shared/", first.clone()),
        ("shared/", second.clone()),
        ("shared/", of_number(&second, "4711")),
        ("failed/", unknown.clone()),
        ("failed/", of_number(&unknown, "4712")),
    ] {
        let body = number.message(message.clone()).to_vec();
        bodies.push((folder, number.waba_id, body));
    }
    // Each once more, as after a crash: nothing is kept twice.
    for (_, waba_id, body) in bodies.iter().chain(&bodies) {
        put(&stage, waba_id, body, None).await;
    }
    drained(&stage).await;
    for folder in ["shared/", "failed/"] {
        let of_folder = bodies.iter().filter(|(of, ..)| *of == folder);
        let mut expected: Vec<_> = of_folder.map(|(.., body)| body.clone()).collect();
        let kept = kept(&stage, folder).await;
        let mut found: Vec<_> = kept.into_iter().map(|(_, body)| body).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{folder}");
    }
    // What is put back and set aside again stays where it is.
    let failed = kept(&stage, "failed/").await;
    for (key, body) in &failed {
        put(&stage, &unknown.waba_id, body, Some(key)).await;
    }
    drained(&stage).await;
    assert_eq!(kept(&stage, "failed/").await, failed);
}

/// Ingress, and a worker that reaches RabbitMQ through a proxy; its lease outlives a Redis that stands
/// still.
struct Passing {
    stage: Stage,
    broker: Proxy,
    number: Number,
    ingress: tests::programs::Ingress,
    worker: Worker,
}

impl Passing {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let (user, authority) = stage.amqp_url.split_once('@').expect("an authority");
        let (address, vhost) = authority.split_once('/').expect("a vhost");
        let broker = Proxy::start(address).await.expect("a proxy");
        let amqp_url = format!("{user}@{}/{vhost}", broker.address());
        let ingress = stage.ingress().env("STREAM_PARTITIONS", 1).start().await;
        let worker = stage.worker().env("STREAM_PARTITIONS", 1);
        let worker = worker.env("AMQP_URL", amqp_url).env("AMQP_CHANNELS", 1);
        let worker = worker.env("LEASE_TTL", "8s").env("ARCHIVE", "false");
        let number = Number::fresh();
        Self {
            worker: worker.env("WORKER_ADMIN_TOKEN", ADMIN).start().await,
            broker,
            number,
            ingress,
            stage,
        }
    }

    fn belongs_to(&self, tenant: Tenant) {
        let neighbours = &self.stage.neighbours;
        neighbours.set_tenant(&self.number.waba_id, tenant);
    }

    async fn send(&self, text: &str) {
        let body = self.number.message(payload::text("1111111111", text));
        self.stage.sender(&self.ingress).send(body).await;
    }

    /// Kills the worker between the publication of a message and the first word of it in Redis.
    async fn die_after_publishing(&mut self, text: &str, events: &Events, count: usize) {
        self.broker.set(Mode::Blackhole);
        self.send(text).await;
        let read = async || (crate::pending(&self.stage).await == 1).then_some(());
        if poll(SOON, read).await.is_none() {
            let logs = (self.worker.log(), self.ingress.log());
            panic!(
                "{text} is not read.\nworker: {}\ningress: {}",
                logs.0, logs.1
            );
        }
        let mut redis = self.stage.redis.connection().await;
        let mut pause = redis::cmd("CLIENT");
        pause.arg("PAUSE").arg(60_000).arg("WRITE");
        pause.query_async::<()>(&mut redis).await.expect("a pause");
        self.broker.set(Mode::Pass);
        events.wait_for(count, SOON).await;
        self.worker.kill();
        let mut go_on = redis::cmd("CLIENT");
        go_on.arg("UNPAUSE");
        go_on.query_async::<()>(&mut redis).await.expect("no pause");
        assert_eq!(crate::pending(&self.stage).await, 1);
    }
}

fn tenant_of(number: &Number, tenant_id: &str) -> Tenant {
    Tenant::Custom(json!({"tenantId": tenant_id, "businessAccountId": number.waba_id}))
}

#[tokio::test]
async fn what_was_published_before_a_crash_is_the_same_tenants_after_it() {
    let mut passing = Passing::new().await;
    let events = passing.stage.events();
    passing.belongs_to(tenant_of(&passing.number, "t1"));
    passing.send("0").await;
    events.wait_for(1, SOON).await;
    // Its confirmation would be lost with the next message's, and two entries would be pending.
    drained(&passing.stage).await;
    let mut seen = 1;
    let next = tenant_of(&passing.number, "t2");
    for (n, now) in [next, Tenant::Unknown, tenant_of(&passing.number, "t3")]
        .into_iter()
        .enumerate()
    {
        seen += 1;
        let text = format!("dies {n}");
        passing.die_after_publishing(&text, &events, seen).await;
        passing.belongs_to(now.clone());
        let mut redis = passing.stage.redis.connection().await;
        let copy = format!("whatsapp:tenant:{}", passing.number.waba_id);
        redis::AsyncCommands::del::<_, ()>(&mut redis, copy)
            .await
            .expect("DEL");
        passing.worker.restart().await;
        seen += 1;
        events.wait_for(seen, SOON * 2).await;
        drained(&passing.stage).await;
        // What comes now is whose the account is now.
        passing.belongs_to(if now == Tenant::Unknown {
            tenant_of(&passing.number, "t2")
        } else {
            now
        });
        invalidate(&passing.worker, &passing.number).await;
        passing.send(&format!("new {n}")).await;
        seen += 1;
        events.wait_for(seen, SOON).await;
        drained(&passing.stage).await;
    }
    let mut tenants = std::collections::BTreeMap::new();
    for event in events.all() {
        let text = event.text("/message/content/body").to_owned();
        let tenant = event.text("/tenant/id").to_owned();
        assert_eq!(event.headers["x-tenant-id"], tenant);
        let of_text = tenants.entry(text).or_insert_with(Vec::new);
        of_text.push(tenant);
    }
    let expected = [
        ("0", vec!["t1"]),
        ("dies 0", vec!["t1", "t1"]),
        ("dies 1", vec!["t2", "t2"]),
        ("dies 2", vec!["t2", "t2"]),
        ("new 0", vec!["t2"]),
        ("new 1", vec!["t2"]),
        ("new 2", vec!["t3"]),
    ];
    for (text, of_text) in expected {
        assert_eq!(tenants[text], of_text, "{text}");
    }
}
