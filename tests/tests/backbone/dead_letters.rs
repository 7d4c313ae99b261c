//! Dead letters stay until somebody takes them, however often somebody looks at them before.

use lapin::message::Delivery;
use lapin::options::{BasicGetOptions, BasicNackOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;
use tests::Stage;
use tests::events::MESSAGES;
use tests::programs::Until;
use tests::servers::Shared;
use tests::waiting::eventually;

use crate::SOON;

/// RabbitMQ 4 drops at the 21st return where there is no limit.
const LOOKS: usize = 40;
const LIMIT: u32 = 2_147_483_647;

async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default());
    let connection = connection.await.expect("RabbitMQ");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

/// The argument `x-delivery-limit` of a queue, `null` if it has none.
async fn limit(stage: &Stage, queue: &str) -> Value {
    let vhost = stage.amqp_url.rsplit('/').next().expect("a vhost");
    let path = format!("/api/queues/{vhost}/{queue}");
    let broker = Shared::from_env().broker;
    let told = eventually(SOON, "the management API tells of the queue", async || {
        broker.get(&path).await.ok()
    });
    told.await["arguments"]["x-delivery-limit"].clone()
}

/// Declares a quorum queue, with another limit than a worker's or with none.
async fn declare(channel: &Channel, queue: &str, limit: Option<i64>) {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString(LongString::from("quorum"));
    arguments.insert("x-queue-type".into(), quorum);
    if let Some(limit) = limit {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(limit));
    }
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, arguments);
    declared.await.expect("declared");
}

async fn get(channel: &Channel, queue: &str) -> Delivery {
    eventually(SOON, "a message", async || {
        let got = channel.basic_get(queue.into(), BasicGetOptions::default());
        Some(got.await.expect("the queue")?.delivery)
    })
    .await
}

#[tokio::test]
async fn a_dead_letter_stays_however_often_it_is_put_back() {
    let stage = Stage::new().await;
    let _worker = stage.worker().start().await;
    let dead = format!("{MESSAGES}.DLQ");
    assert_eq!(limit(&stage, &dead).await, LIMIT);
    let (_connection, channel) = channel(&stage.amqp_url).await;
    let sent = channel.basic_publish(
        "whatsapp.inbound.dlx".into(),
        MESSAGES.into(),
        BasicPublishOptions::default(),
        b"a dead letter",
        BasicProperties::default(),
    );
    sent.await.expect("published").await.expect("sent");
    for _ in 0..LOOKS {
        let options = BasicNackOptions {
            requeue: true,
            multiple: false,
        };
        let letter = get(&channel, &dead).await;
        letter.acker.nack(options).await.expect("put back");
    }
    assert_eq!(get(&channel, &dead).await.data, b"a dead letter");
}

#[tokio::test]
async fn dead_letters_of_an_earlier_version_are_taken_and_doctor_names_the_policy() {
    let stage = Stage::new().await;
    let (_connection, channel) = channel(&stage.amqp_url).await;
    let (old, other) = (format!("{MESSAGES}.DLQ"), "WHATSAPP_EVENTS.DLQ");
    declare(&channel, &old, None).await;
    declare(&channel, other, Some(50)).await;
    let worker = stage.worker().start().await;
    assert_eq!(limit(&stage, &old).await, Value::Null);
    assert_eq!(limit(&stage, other).await, 50);
    assert_eq!(limit(&stage, "WHATSAPP_STATUS_UPDATES.DLQ").await, LIMIT);

    let mut doctor = worker.command();
    doctor.arg("doctor");
    let output = tokio::task::spawn_blocking(move || doctor.output());
    let output = output.await.expect("no panic").expect("it runs");
    let said = String::from_utf8(output.stdout).expect("text");
    let vhost = stage.amqp_url.rsplit('/').next().expect("a vhost");
    let policy = format!(
        "rabbitmqctl set_policy -p '{vhost}' whatsapp-dead-letters \
         '^(INBOUND_WHATSAPP_MESSAGES|WHATSAPP_STATUS_UPDATES|WHATSAPP_EVENTS)\\.DLQ$' \
         '{{\"delivery-limit\":{LIMIT}}}' --apply-to queues"
    );
    assert!(
        said.contains("inequivalent arg 'x-delivery-limit'"),
        "{said}"
    );
    assert!(said.contains(&policy), "{said}");
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn the_delivery_limit_is_a_setting_and_another_one_than_the_queues_is_refused() {
    let stage = Stage::new().await;
    let mut worker = stage
        .worker()
        .env("AMQP_DELIVERY_LIMIT", 1_000_000)
        .start()
        .await;
    assert_eq!(limit(&stage, MESSAGES).await, 1_000_000);
    assert!(worker.stop(SOON).await);
    let another = stage.worker().until(Until::Spawned);
    let mut another = another.start().await;
    let ended = another.process().wait(SOON).await.expect("it ends");
    assert!(!ended.success());
    let log = another.log();
    for part in ["x-delivery-limit", MESSAGES, "'20'", "'1000000'"] {
        assert!(log.contains(part), "{part} in {log}");
    }
}
