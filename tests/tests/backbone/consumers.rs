//! The example consumers, each on a queue of its own: they print a line per event, once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::process::{Process, command};
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

fn consumers() -> [(&'static str, Command); 3] {
    let debian = Path::new("/usr/bin/python3");
    let mut python = command(if debian.exists() {
        debian
    } else {
        Path::new("python3")
    });
    python.arg(docs().join("python/consume.py"));
    let mut node = command("node");
    let modules = target().join("../consumers/node/node_modules");
    assert!(
        modules.join("amqplib").exists(),
        "amqplib is not installed: run deploy/local/install.sh"
    );
    node.arg(docs().join("node/consume.js"))
        .env("NODE_PATH", modules);
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

async fn bound_queue(channel: &Channel, name: &str) {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel.queue_declare(name.into(), options, FieldTable::default());
    queue.await.expect("a queue");
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(
        name.into(),
        EXCHANGE.into(),
        "#".into(),
        options,
        FieldTable::default(),
    );
    bound.await.expect("a binding");
}

#[tokio::test]
async fn the_example_consumers_print_every_event_once() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let _worker = stage.worker().start().await;
    let connection = Connection::connect(&stage.amqp_url, ConnectionProperties::default());
    let connection = connection.await.expect("RabbitMQ");
    let channel = connection.create_channel().await.expect("a channel");
    let folder = tempfile::tempdir().expect("a folder");
    let mut running = HashMap::new();
    for (name, mut command) in consumers() {
        bound_queue(&channel, name).await;
        command.env("AMQP_URL", &stage.amqp_url).env("QUEUE", name);
        let process = Process::spawn(name, command, folder.path()).expect("a consumer");
        running.insert(name, process);
    }

    let number = Number::fresh();
    let sender = stage.sender(&ingress);
    let events = stage.events();
    // One after the other, since a status and a message may overtake each other.
    for (n, body) in [
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
    let [text, _, _, account] = &seen[..] else {
        panic!("four events");
    };
    // The first again, as after a crash of the worker; then something that is no event, twice: who has
    // got to the second is done with everything before it.
    let again =
        BasicProperties::default().with_message_id(text.message_id.clone().expect("an id").into());
    let none = BasicProperties::default();
    for (body, properties) in [(&text.bytes[..], again), (b"?", none.clone()), (b"?", none)] {
        let published = channel.basic_publish(
            EXCHANGE.into(),
            "message.text.again".into(),
            BasicPublishOptions::default(),
            body,
            properties,
        );
        published
            .await
            .expect("published")
            .await
            .expect("confirmed");
    }

    let expected = [
        format!("message.received text {}", text.wamid()),
        "status.updated read wamid.out".to_owned(),
        "status.updated delivered wamid.out late".to_owned(),
        format!(
            "account.updated account_update {}",
            account.text("/eventId")
        ),
    ];
    for (name, process) in &mut running {
        let drained = poll(SOON, async || {
            let log = process.log();
            let odd = log.lines().filter(|line| line.starts_with("not an event"));
            (odd.count() == 2).then_some(())
        });
        let drained = drained.await;
        let log = process.log();
        assert!(drained.is_some() && process.is_running(), "{name}: {log}");
        let printed: Vec<_> = log
            .lines()
            .filter(|line| !line.starts_with("not an event"))
            .collect();
        assert_eq!(printed, expected, "{name}");
        process.stop(Duration::from_secs(5)).await;
    }
    // What was not acknowledged is back in its queue: at most the last one, which was in work.
    for name in running.keys() {
        eventually(SOON, "nothing else is left", async || {
            (left(&channel, name).await <= 1).then_some(())
        })
        .await;
    }
}
