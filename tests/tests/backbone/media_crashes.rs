//! `kill -9` of the worker at each point of a media message's way: the file is in the store in the
//! end, once; the message says one thing however often it comes; what was pending is ended once.

use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::events::{Event, Events};
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Service, Turn};
use tests::programs::{Builder, Ingress, Worker};
use tests::proxy::{Mode, Proxy};
use tests::{Stage, eventually};

use crate::{SOON, drained};

const JPEG: &[u8] = b"\xff\xd8\xff\xe0 a picture that survives";
const DRIP: Turn = Turn::Fault(Fault::Drip(Duration::from_secs(1)));

/// A stage whose worker speaks to RabbitMQ through a proxy.
struct Scene {
    stage: Stage,
    ingress: Ingress,
    broker: Proxy,
    events: Events,
    number: Number,
}

impl Scene {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let authority = stage.amqp_url.split('@').nth(1).expect("an authority");
        let address = authority.split('/').next().expect("an address").to_owned();
        Self {
            ingress: stage.ingress().start().await,
            broker: Proxy::start(address).await.expect("a proxy"),
            events: stage.events(),
            number: Number::fresh(),
            stage,
        }
    }

    /// A worker whose messages wait one second for their media.
    fn worker(&self) -> Builder<Worker> {
        let (user, authority) = self.stage.amqp_url.split_once('@').expect("an authority");
        let (_, vhost) = authority.split_once('/').expect("a vhost");
        let amqp_url = format!("{user}@{}/{vhost}", self.broker.address());
        self.stage
            .worker()
            .env("AMQP_URL", amqp_url)
            // One that is connected when the proxy takes over.
            .env("AMQP_CHANNELS", "1")
            .env("LEASE_TTL", "1s")
            .env("MEDIA_DEADLINE", "1s")
    }

    /// An image that the Graph API knows.
    fn image(&self) -> (String, Value) {
        let id = rand::random_range(1_000_000_000_u64..9_000_000_000).to_string();
        self.stage.neighbours.set_media(&id, "image/jpeg", JPEG);
        let mut message = payload::image("16505551234", &id);
        message["image"]["sha256"] = BASE64.encode(&Sha256::digest(JPEG)).into();
        (id, message)
    }

    async fn send(&self, messages: impl IntoIterator<Item = Value>) {
        let body = self.number.webhook([self.number.messages(messages)]);
        self.stage.sender(&self.ingress).send(body).await;
    }

    /// Fields or entries of a key of the partition.
    async fn count(&self, command: &str, what: &str) -> usize {
        let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&self.number.waba_id);
        let mut redis = self.stage.redis.connection().await;
        redis::cmd(command)
            .arg(format!("whatsapp:{{{partition}}}:{what}"))
            .query_async(&mut redis)
            .await
            .expect("a count")
    }

    async fn until(&self, what: &str, command: &str, key: &str, count: usize) {
        eventually(SOON, what, async || {
            (self.count(command, key).await == count).then_some(())
        })
        .await;
    }

    /// The media statuses of a message and its follow-ups, in the order they came, each event once.
    async fn story(&self, message: &Value, end: &str) -> Vec<String> {
        let wamid = message["id"].as_str().expect("an id");
        let mine = |events: &[Event]| -> Vec<Event> {
            let mine = events.iter().filter(|event| event.wamid() == wamid);
            mine.cloned().collect()
        };
        let is_end = |event: &Event| event.text("/message/media/status") == end;
        self.events
            .wait_until(SOON, |seen| mine(seen).iter().any(is_end))
            .await;
        drained(&self.stage).await;
        let mut told = std::collections::BTreeMap::new();
        let mut story = Vec::new();
        for event in mine(&self.events.all()) {
            let said = (
                event.kind.clone().expect("a type"),
                event.text("/message/media/status").to_owned(),
            );
            let before = told.insert(event.message_id.clone(), said.clone());
            match before {
                None => story.push(format!("{} {}", said.0, said.1)),
                Some(before) => assert_eq!(before, said, "a repeated event says the same"),
            }
        }
        story
    }

    async fn one_object(&self) {
        let keys = self.stage.media().list("").await.expect("a list");
        assert_eq!(keys.len(), 1, "{keys:?}");
        let bytes = self.stage.media().get(&keys[0]).await.expect("the store");
        assert_eq!(bytes.as_deref(), Some(JPEG));
    }
}

const PENDING: &str = "message.received pending";
const THEN_STORED: &str = "media.stored stored";

#[tokio::test]
async fn in_the_middle_of_a_transfer() {
    let scene = Scene::new().await;
    let mut worker = scene.worker().env("MEDIA_DEADLINE", "60s").start().await;
    let (id, message) = scene.image();
    scene
        .stage
        .neighbours
        .script(Service::Download, &id, [DRIP]);
    scene.send([message.clone()]).await;
    eventually(SOON, "the download begins", async || {
        (scene.stage.neighbours.requests(Service::Download) == 1).then_some(())
    })
    .await;
    worker.kill();
    worker.restart().await;
    assert_eq!(
        scene.story(&message, "stored").await,
        ["message.received stored"]
    );
    scene.one_object().await;
}

#[tokio::test]
async fn between_the_upload_and_the_publication() {
    let scene = Scene::new().await;
    let mut worker = scene.worker().env("MEDIA_DEADLINE", "60s").start().await;
    scene.broker.set(Mode::Blackhole);
    let (_, message) = scene.image();
    scene.send([message.clone()]).await;
    eventually(SOON, "the file is stored", async || {
        let keys = scene.stage.media().list("").await.ok()?;
        (keys.len() == 1).then_some(())
    })
    .await;
    worker.kill();
    scene.broker.set(Mode::Pass);
    worker.restart().await;
    assert_eq!(
        scene.story(&message, "stored").await,
        ["message.received stored"]
    );
    assert_eq!(scene.stage.neighbours.requests(Service::Download), 1);
    scene.one_object().await;
}

#[tokio::test]
async fn between_the_note_and_the_publication() {
    let scene = Scene::new().await;
    let mut worker = scene.worker().start().await;
    let (id, message) = scene.image();
    scene.stage.neighbours.always(Service::Download, &id, DRIP);
    scene.broker.set(Mode::Blackhole);
    scene.send([message.clone()]).await;
    scene
        .until("it is noted as pending", "HLEN", "media", 1)
        .await;
    worker.kill();
    scene.stage.neighbours.heal(&id);
    scene.broker.set(Mode::Pass);
    worker.restart().await;
    assert_eq!(
        scene.story(&message, "stored").await,
        [PENDING, THEN_STORED]
    );
    assert_eq!(scene.count("HLEN", "media").await, 0);
    scene.one_object().await;
}

/// The confirm is lost, so the next owner publishes again: it must not say `stored` now.
#[tokio::test]
async fn between_the_publication_and_its_confirm() {
    let scene = Scene::new().await;
    let mut worker = scene.worker().start().await;
    let (id, message) = scene.image();
    scene.stage.neighbours.always(Service::Download, &id, DRIP);
    scene.broker.set(Mode::LoseAnswers);
    scene.send([message.clone()]).await;
    scene.events.wait_for(1, SOON).await;
    worker.kill();
    scene.stage.neighbours.heal(&id);
    scene.broker.set(Mode::Pass);
    worker.restart().await;
    assert_eq!(
        scene.story(&message, "stored").await,
        [PENDING, THEN_STORED]
    );
    scene.one_object().await;
}

/// One item of an entry is out and noted as done, another is still in work.
#[tokio::test]
async fn between_the_confirm_and_the_acknowledgement() {
    let scene = Scene::new().await;
    let mut worker = scene.worker().env("MEDIA_DEADLINE", "60s").start().await;
    let (id, message) = scene.image();
    // It leads nowhere, so its message doesn't wait.
    let astray = json!({"url": "http://10.0.0.1/", "mime_type": "image/jpeg", "id": id});
    let graph = Turn::json(200, &astray);
    scene.stage.neighbours.always(Service::Graph, &id, graph);
    let mut other = payload::image("49151000000", "7");
    other["image"]["sha256"] = "placeholder".into();
    scene.stage.neighbours.always(Service::Download, "7", DRIP);
    scene.send([message.clone(), other]).await;
    scene.events.wait_for(1, SOON).await;
    scene
        .until("it is noted as done", "HLEN", "progress", 1)
        .await;
    worker.kill();
    scene.stage.neighbours.heal(&id);
    scene.stage.neighbours.heal("7");
    worker.restart().await;
    assert_eq!(
        scene.story(&message, "stored").await,
        [PENDING, THEN_STORED]
    );
    let out = scene.events.all();
    let mine = out.iter().filter(|event| event.wamid() == message["id"]);
    assert_eq!(mine.count(), 2, "what was noted as done is not repeated");
}

#[tokio::test]
async fn between_the_acknowledgement_and_the_transfer() {
    let scene = Scene::new().await;
    let mut worker = scene.worker().start().await;
    let (id, message) = scene.image();
    scene.stage.neighbours.always(Service::Download, &id, DRIP);
    scene.send([message.clone()]).await;
    scene.until("it is owed", "ZCARD", "owed:media", 1).await;
    assert_eq!(crate::pending(&scene.stage).await, 0);
    worker.kill();
    scene.stage.neighbours.heal(&id);
    worker.restart().await;
    assert_eq!(
        scene.story(&message, "stored").await,
        [PENDING, THEN_STORED]
    );
    scene.one_object().await;
}

#[tokio::test]
async fn between_the_follow_up_and_its_removal() {
    let scene = Scene::new().await;
    let mut worker = scene.worker().start().await;
    let (id, message) = scene.image();
    scene.stage.neighbours.always(Service::Download, &id, DRIP);
    scene.send([message.clone()]).await;
    scene.until("it is owed", "ZCARD", "owed:media", 1).await;
    scene.broker.set(Mode::LoseAnswers);
    scene.stage.neighbours.heal(&id);
    scene.events.wait_for(2, SOON * 2).await;
    assert_eq!(scene.count("ZCARD", "owed:media").await, 1);
    worker.kill();
    scene.broker.set(Mode::Pass);
    worker.restart().await;
    assert_eq!(
        scene.story(&message, "stored").await,
        [PENDING, THEN_STORED]
    );
    scene.one_object().await;
}

/// What was given up stays so, even if it could be had after the crash.
#[tokio::test]
async fn between_giving_up_and_saying_so() {
    let scene = Scene::new().await;
    let mut worker = scene.worker().start().await;
    let (id, message) = scene.image();
    let hang = Turn::Fault(Fault::Hang);
    scene.stage.neighbours.always(Service::Graph, &id, hang);
    scene.send([message.clone()]).await;
    scene.until("it is owed", "ZCARD", "owed:media", 1).await;
    scene.broker.set(Mode::Blackhole);
    // Meta's word that it can't be had.
    let graph = Turn::json(400, &json!({"error": {"code": 131_052}}));
    scene.stage.neighbours.always(Service::Graph, &id, graph);
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&scene.number.waba_id);
    let mut redis = scene.stage.redis.connection().await;
    eventually(SOON, "it is given up", async || {
        let list: redis::Value = redis::cmd("ZRANGE")
            .arg(format!("whatsapp:{{{partition}}}:owed:media"))
            .arg(0)
            .arg(-1)
            .query_async(&mut redis)
            .await
            .ok()?;
        format!("{list:?}")
            .contains("not_downloadable")
            .then_some(())
    })
    .await;
    worker.kill();
    scene.stage.neighbours.heal(&id);
    scene.broker.set(Mode::Pass);
    worker.restart().await;
    let story = scene.story(&message, "failed").await;
    assert_eq!(story, [PENDING, "media.failed failed"]);
    assert_eq!(
        scene.stage.media().list("").await.expect("a list"),
        Vec::<String>::new()
    );
}
