//! The client packages: an example of each, on a queue of its own, prints a line per event, once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tests::Stage;
use tests::events::Events;
use tests::meta::payload::{self, Number};
use tests::meta::sender::Sender;
use tests::process::{Process, command};
use tests::proxy::Proxy;
use tests::waiting::{eventually, poll};

use crate::SOON;

const EXCHANGE: &str = "whatsapp.inbound";

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/consumers")
}

/// Folder of the build's results: this test lies in its `debug/deps`.
fn target() -> PathBuf {
    let program = std::env::current_exe().expect("this test");
    let profile = program
        .parent()
        .and_then(Path::parent)
        .expect("its profile's folder");
    profile.to_owned()
}

/// The folder where `install.sh` installs the client packages.
fn installed() -> PathBuf {
    let installed = target().join("../consumers/installed");
    assert!(
        installed.join("made_of").exists(),
        "the client packages are not installed: run deploy/local/install.sh"
    );
    installed
}

/// The examples.
fn consumers() -> [(&'static str, Command); 3] {
    let installed = installed();
    let mut python = command(installed.join("python/bin/python"));
    // Not what lies beside the example.
    python.arg("-P").arg(docs().join("python/consume.py"));
    let example = installed.join("consume.js");
    std::fs::copy(docs().join("node/consume.js"), &example).expect("a copy");
    let mut node = command("node");
    node.arg(example);
    let rust = command(target().join("consume"));
    [("python", python), ("node", node), ("rust", rust)]
}

/// Messages that are in the queue and not at a consumer.
async fn left(channel: &Channel, name: &str) -> u32 {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel.queue_declare(name.into(), options, FieldTable::default());
    queue.await.expect("the queue").message_count()
}

/// Publishes a body as something else than the worker, with an id and the id of a replay.
async fn publish(channel: &Channel, key: &str, body: &[u8], (id, replay_id): (&str, &str)) {
    let mut headers = FieldTable::default();
    if !replay_id.is_empty() {
        let id = AMQPValue::LongString(replay_id.into());
        headers.insert("x-replay-id".into(), id);
    }
    let properties = BasicProperties::default()
        .with_message_id(id.into())
        .with_headers(headers);
    let options = BasicPublishOptions::default();
    let confirm = channel.basic_publish(EXCHANGE.into(), key.into(), options, body, properties);
    confirm.await.expect("published").await.expect("confirmed");
}

/// The consumers, each with a queue of its own for one tenant, behind a proxy.
fn start(stage: &Stage, proxy: &Proxy, tenant: &str) -> HashMap<&'static str, Process> {
    let url = url::Url::parse(&stage.amqp_url).expect("a URL");
    let mut behind = url.clone();
    behind
        .set_port(Some(proxy.address().port()))
        .expect("a port");
    let folder = tempfile::tempdir().expect("a folder").keep();
    let mut running = HashMap::new();
    for (name, mut command) in consumers() {
        command
            .env("AMQP_URL", behind.as_str())
            .env("QUEUE", name)
            .env("BIND", format!("*.*.{tenant}"));
        let process = Process::spawn(name, command, &folder).expect("a consumer");
        running.insert(name, process);
    }
    running
}

/// What a consumer printed of events.
fn printed(process: &Process) -> Vec<String> {
    let log = process.log();
    let groups = ["message.", "status.", "media.", "account."];
    let lines = log.lines().map(str::to_owned);
    lines
        .filter(|line| groups.iter().any(|group| line.starts_with(group)))
        .collect()
}

async fn wait_for(running: &HashMap<&'static str, Process>, expected: &[String]) {
    for (name, process) in running {
        let done = poll(SOON, async || {
            (printed(process).len() >= expected.len()).then_some(())
        });
        let done = done.await;
        assert!(done.is_some(), "{name}: {}", process.log());
        assert_eq!(printed(process), expected, "{name}: {}", process.log());
    }
}

/// What the consumers were sent by the way of webhooks, and are to have printed.
async fn send_webhooks(
    sender: &Sender,
    events: &Events,
    number: &Number,
) -> (tests::events::Event, Vec<String>) {
    // One after the other, since a status and a message may overtake each other. The first is somebody else's.
    for (n, body) in [
        Number::fresh().message(payload::text("4915112345678", "not for them")),
        number.message(payload::text("4915112345678", "hello")),
        number.status(payload::status("wamid.out", "read", "4915112345678")),
        number.status(payload::status("wamid.out", "delivered", "4915112345678")),
        number.webhook([payload::account_update()]),
    ]
    .into_iter()
    .enumerate()
    {
        sender.send(body).await;
        events.wait_for(n + 1, SOON).await;
    }
    let seen = events.all();
    let is_theirs = |event: &&tests::events::Event| {
        event.text("/channel/businessAccountId") == number.waba_id && !event.wamid().is_empty()
    };
    let text = seen.iter().find(is_theirs).expect("the text").clone();
    let account = seen
        .iter()
        .find(|event| !event.text("/account/field").is_empty());
    let account = account.expect("the change").text("/eventId");
    let expected = vec![
        format!("message.received text {}", text.wamid()),
        "status.updated read wamid.out".to_owned(),
        "status.updated delivered wamid.out late".to_owned(),
        format!("account.updated {account}"),
    ];
    (text, expected)
}

/// An event again, as after a crash of the worker; as two replays publish it, one of them twice; what is no
/// event; a stored file. Adds what is to be printed of it.
async fn publish_more(
    channel: &Channel,
    text: &tests::events::Event,
    tenant: &str,
    expected: &mut Vec<String>,
) {
    let id = text.message_id.as_deref().expect("an id");
    let key = format!("message.text.{tenant}");
    for (body, id, replay_id) in [
        (&text.bytes[..], id, ""),
        (&text.bytes, id, "r1"),
        (&text.bytes, id, "r1"),
        (&text.bytes, id, "r2"),
        (b"?", "none", ""),
    ] {
        publish(channel, &key, body, (id, replay_id)).await;
    }
    let replayed = format!("message.received text {} replay", text.wamid());
    expected.extend([replayed.clone(), replayed]);
    let stored = std::fs::read(docs().join("../examples/media_stored.json")).expect("an example");
    let key = format!("media.stored.{tenant}");
    publish(channel, &key, &stored, ("file", "")).await;
    let file: serde_json::Value = serde_json::from_slice(&stored).expect("JSON");
    let word = |pointer: &str| file.pointer(pointer).and_then(|it| it.as_str());
    let [id, key] = ["/message/id", "/message/media/key"].map(|it| word(it).expect("text"));
    expected.push(format!("media.stored {id} {key}"));
}

#[tokio::test]
async fn the_client_packages_handle_every_event_once_and_a_replay_once_more() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let _worker = stage.worker().start().await;
    let connection = Connection::connect(&stage.amqp_url, ConnectionProperties::default());
    let connection = connection.await.expect("RabbitMQ");
    let channel = connection.create_channel().await.expect("a channel");
    let options = ConfirmSelectOptions::default();
    channel.confirm_select(options).await.expect("confirms");
    let number = Number::fresh();
    let tenant = format!("tenant-{}", number.waba_id);
    let upstream = url::Url::parse(&stage.amqp_url).expect("a URL");
    let upstream = upstream.socket_addrs(|| Some(5672)).expect("an address")[0];
    let proxy = Proxy::start(upstream.to_string()).await.expect("a proxy");
    let mut running = start(&stage, &proxy, &tenant);
    for name in running.keys() {
        eventually(SOON, "its queue has a consumer", async || {
            (consumers_of(&connection, name).await == Some(1)).then_some(())
        })
        .await;
    }

    let sender = stage.sender(&ingress);
    let events = stage.events();
    let (text, mut expected) = send_webhooks(&sender, &events, &number).await;
    wait_for(&running, &expected).await;
    publish_more(&channel, &text, &tenant, &mut expected).await;
    wait_for(&running, &expected).await;

    // They connect again.
    proxy.cut().await;
    let before = events.count();
    let body = number.message(payload::text("4915112345678", "again"));
    sender.send(body).await;
    let seen = events.wait_for(before + 1, SOON).await;
    let again = seen.last().expect("the text").wamid();
    expected.push(format!("message.received text {again}"));
    wait_for(&running, &expected).await;
    for (name, process) in &mut running {
        process.stop(Duration::from_secs(5)).await;
        // What was acknowledged is gone, and what is no event is a dead letter.
        for (queue, count) in [((*name).to_owned(), 0), (format!("{name}.DLQ"), 1)] {
            eventually(SOON, "what is left in its queues", async || {
                (left(&channel, &queue).await == count).then_some(())
            })
            .await;
        }
        assert!(keeps_its_dead_letters(&connection, name).await, "{name}");
    }
}

/// Whether the queue's dead letters may be returned as often as anybody likes: RabbitMQ refuses to declare a
/// queue again with another limit.
async fn keeps_its_dead_letters(connection: &Connection, name: &str) -> bool {
    let channel = connection.create_channel().await.expect("a channel");
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    let limit = AMQPValue::LongInt(i32::MAX);
    arguments.insert("x-delivery-limit".into(), limit);
    let queue = channel.queue_declare(format!("{name}.DLQ").into(), options, arguments);
    queue.await.is_ok()
}

/// A handler may raise whatever its code raises: only `Reject` says that the event can never be handled.
#[test]
fn in_python_only_reject_makes_a_dead_letter() {
    const SCRIPT: &str = r#"
import json, time
from types import SimpleNamespace
import whatsapp_events as events
time.sleep = lambda _: None
event = json.dumps({"eventType": "message.received"}).encode()
for raised, body in ((ValueError, event), (events.Reject, event), (None, event), (None, b"{")):
    def handle(event, replay_id):
        if raised: raise raised("no")
    done = []
    channel = SimpleNamespace(
        basic_ack=lambda tag: done.append("ack"),
        basic_reject=lambda tag, requeue: done.append("dead"),
        basic_nack=lambda tag, requeue: done.append("back" if requeue else "dead"))
    properties = SimpleNamespace(headers=None, message_id="1")
    consumer = events.Consumer("amqp://", "queue", handle)
    consumer._on_message(channel, SimpleNamespace(delivery_tag=1), properties, body)
    print(*done)
"#;
    let output = command(installed().join("python/bin/python"))
        .args(["-P", "-c", SCRIPT])
        .output()
        .expect("python runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines, ["back", "dead", "ack", "dead"], "{errors}");
}

/// How many consumers a queue has; `None`: there is no such queue.
async fn consumers_of(connection: &Connection, name: &str) -> Option<u32> {
    // A queue that isn't there closes the channel.
    let channel = connection.create_channel().await.expect("a channel");
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel.queue_declare(name.into(), options, FieldTable::default());
    Some(queue.await.ok()?.consumer_count())
}
