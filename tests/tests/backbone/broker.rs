//! What operators, consumers and the network do to RabbitMQ: an event is done when a queue has it, and
//! not before.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{
    BasicGetOptions, BasicNackOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};
use tests::events::{Event, MESSAGES, STATUSES};
use tests::meta::payload::{self, Number};
use tests::programs::{Until, Worker};
use tests::proxy::{Mode, Proxy};
use tests::servers::{RabbitMq, Shared};
use tests::waiting::eventually;
use tests::{Stage, StageOptions};

use crate::outages::Load;
use crate::{SOON, drained, pending, ready, repeats};

const EXCHANGE: &str = "whatsapp.inbound";

pub(crate) async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default());
    let connection = connection.await.expect("RabbitMQ");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

/// Takes one message out of a queue, if it has one.
async fn get(channel: &Channel, queue: &str) -> Option<Delivery> {
    let options = BasicGetOptions::default();
    let message = channel.basic_get(queue.into(), options).await;
    Some(message.expect("the queue")?.delivery)
}

/// Takes one message out of a queue, as soon as it has one.
async fn take(channel: &Channel, queue: &str) -> Delivery {
    eventually(SOON, &format!("a message in {queue}"), async || {
        get(channel, queue).await
    })
    .await
}

/// `url` through a proxy in front of its broker.
pub(crate) async fn behind_a_proxy(url: &str) -> (Proxy, String) {
    let mut url = url::Url::parse(url).expect("a URL");
    let broker = format!("127.0.0.1:{}", url.port().expect("a port"));
    let proxy = Proxy::start(broker).await.expect("a proxy");
    url.set_port(Some(proxy.address().port())).expect("a port");
    (proxy, url.to_string())
}

fn of(queue: &str, events: &[Event]) -> Vec<Event> {
    let of_queue = events.iter().filter(|event| event.queue == queue);
    of_queue.cloned().collect()
}

#[tokio::test]
async fn a_batch_of_routable_and_unroutable_events_is_told_apart() {
    // lapin is wrong about one batch in ten or so.
    const ROUNDS: usize = 40;
    const EACH: usize = 30;
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    // Declares the topology, and leaves.
    assert!(stage.worker().start().await.stop(SOON).await);
    let (_connection, channel) = channel(&stage.amqp_url).await;
    channel
        .queue_unbind(
            STATUSES.into(),
            EXCHANGE.into(),
            "status.#".into(),
            FieldTable::default(),
        )
        .await
        .expect("unbound");
    let events = stage.events();
    let worker = stage
        .worker()
        .env("AMQP_DECLARE_TOPOLOGY", false)
        .env("AMQP_CHANNELS", 1)
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let person = |n: usize| format!("49160{n:07}");
    for round in 1..=ROUNDS {
        let number = Number::fresh();
        let messages = (0..EACH).map(|n| payload::text(&person(n), &n.to_string()));
        let statuses =
            (EACH..2 * EACH).map(|n| payload::status(&payload::wamid(), "read", &person(n)));
        let body = number.webhook([number.messages(messages), number.statuses(statuses)]);
        sender.send(body).await;
        events.wait_for(round * EACH, SOON).await;
    }
    eventually(SOON, "all statuses came back", async || {
        let unroutable = "status=\"unroutable\"";
        let back = worker.metric("rabbitmq_publish_total", unroutable).await;
        (back >= (ROUNDS * EACH) as f64).then_some(())
    })
    .await;
    assert_eq!(pending(&stage).await, ROUNDS, "they aren't done");
    // lapin would log what came back, whole.
    assert!(!worker.log().contains("BasicReturnMessage"));
    channel
        .queue_bind(
            STATUSES.into(),
            EXCHANGE.into(),
            "status.#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("bound");
    drained(&stage).await;
    let seen = events.wait_for(ROUNDS * 2 * EACH, SOON).await;
    assert_eq!(of(MESSAGES, &seen).len(), ROUNDS * EACH);
    assert_eq!(of(STATUSES, &seen).len(), ROUNDS * EACH);
    assert_eq!(repeats(&seen), 0);
}

#[tokio::test]
async fn a_queue_and_an_exchange_that_vanish_are_declared_again() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    // Each channel declares what it finds missing when it is first used: one has no second chance.
    let worker = stage.worker().env("AMQP_CHANNELS", 1);
    let _worker = worker.start().await;
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let (_connection, own) = channel(&stage.amqp_url).await;
    for vanishes in ["nothing", "queue", "exchange"] {
        match vanishes {
            "queue" => {
                let options = QueueDeleteOptions::default();
                let deleted = own.queue_delete(MESSAGES.into(), options).await;
                deleted.expect("deleted");
            }
            "exchange" => {
                let options = ExchangeDeleteOptions::default();
                let deleted = own.exchange_delete(EXCHANGE.into(), options).await;
                deleted.expect("deleted");
            }
            _ => {}
        }
        let body = number.message(payload::text("1111111111", vanishes));
        sender.send(body).await;
        // No consumer: one that comes at the moment of the declaration can be given a message that
        // its client never sees, until it leaves.
        let event = eventually(SOON, "the event", async || {
            // A queue that isn't there closes the channel.
            let (_connection, channel) = channel(&stage.amqp_url).await;
            let got = channel.basic_get(MESSAGES.into(), BasicGetOptions { no_ack: true });
            Some(got.await.ok()??.delivery.data.clone())
        });
        let event: Value = serde_json::from_slice(&event.await).expect("JSON");
        assert_eq!(event["message"]["content"]["body"], vanishes);
    }
    drained(&stage).await;
}

/// A queue that is full refuses; what it refused stays in the stream, and nothing is lost or set aside.
#[tokio::test]
async fn a_full_queue_holds_events_back() {
    const TOGETHER: usize = 40;
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let broker = Shared::from_env().broker;
    let vhost = stage.amqp_url.rsplit('/').next().expect("a vhost");
    let policy = json!({
        "pattern": format!("^{MESSAGES}$"),
        "definition": {"max-length": 5},
        "apply-to": "queues",
    });
    broker
        .put(&format!("/api/policies/{vhost}/short"), &policy)
        .await
        .expect("a policy");
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let mut sent = 0;
    // RabbitMQ answers before the policy holds.
    eventually(SOON, "it refuses", async || {
        for n in sent..sent + TOGETHER {
            let body = number.message(payload::text(&format!("49160{n:07}"), &n.to_string()));
            sender.send(body).await;
        }
        sent += TOGETHER;
        let refused = "status=\"refused\"";
        let refused = worker.metric("rabbitmq_publish_total", refused).await;
        (refused >= 2.0).then_some(())
    })
    .await;
    assert!(pending(&stage).await > 0);
    let events = stage.events();
    let all = |seen: &[Event]| seen.len() - repeats(seen) == sent;
    events.wait_until(SOON, all).await;
    drained(&stage).await;
    crate::outages::nothing_was_set_aside(&stage).await;
}

#[tokio::test]
async fn what_consumers_reject_is_kept_as_a_dead_letter() {
    let stage = Stage::new().await;
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let (_connection, channel) = channel(&stage.amqp_url).await;
    let dead = format!("{MESSAGES}.DLQ");
    let reject = async |message: Delivery, requeue| {
        let options = BasicNackOptions {
            requeue,
            multiple: false,
        };
        message.acker.nack(options).await.expect("a channel");
    };

    // A consumer that puts it back again and again, until the broker has enough of it.
    let body = number.message(payload::text("1111111111", "again and again"));
    sender.send(body).await;
    let letter = eventually(SOON, "a dead letter", async || {
        if let Some(message) = get(&channel, MESSAGES).await {
            reject(message, true).await;
        }
        get(&channel, &dead).await
    })
    .await;
    assert_eq!(*letter.properties.delivery_mode(), Some(2));

    // Nobody takes dead letters: the queue keeps what was rejected until somebody does.
    let (dlx, options) = (format!("{EXCHANGE}.dlx"), ExchangeDeleteOptions::default());
    let deleted = channel.exchange_delete(dlx.as_str().into(), options).await;
    deleted.expect("deleted");
    let body = number.message(payload::text("1111111111", "no dead letters"));
    sender.send(body).await;
    reject(take(&channel, MESSAGES).await, false).await;
    // A worker that starts declares what is missing.
    let _another = stage.worker().start().await;
    let letter = take(&channel, &dead).await;
    let letter: Value = serde_json::from_slice(&letter.data).expect("JSON");
    assert_eq!(letter["message"]["content"]["body"], "no dead letters");
}

/// A worker that waits for confirms for two seconds.
async fn impatient(stage: &Stage, amqp_url: String) -> Worker {
    let worker = stage.worker().env("AMQP_URL", amqp_url);
    worker.env("CONFIRM_TIMEOUT", "2s").start().await
}

/// The network in front of the broker, or the broker itself, comes and goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_resets_and_flaps_is_connected_again() {
    let stage = Stage::new().await;
    let (proxy, url) = behind_a_proxy(&stage.amqp_url).await;
    let ingress = stage.ingress().start().await;
    let worker = impatient(&stage, url).await;
    let events = stage.events();
    let load = Load {
        numbers: (0..10).map(|_| Number::fresh()).collect(),
        conversations: 20,
        each: 40,
        rate: 100,
    };
    let mut sending = load.send(&stage.sender(&ingress));
    // On a slow machine all may be out before the last fault.
    let more = async || {
        let before = events.count();
        let last = |seen: &[Event]| seen.len() - repeats(seen) == load.total();
        let more = |seen: &[Event]| seen.len() >= before + 20 || last(seen);
        events.wait_until(SOON * 4, more).await;
    };
    more().await;
    proxy.set(Mode::Blackhole);
    eventually(SOON, "it says that the broker is away", async || {
        let (ready, text) = worker.get("/ready").await.ok()?;
        (ready.as_u16() == 503 && text.contains("rabbitmq")).then_some(())
    })
    .await;
    proxy.set(Mode::Pass);
    more().await;
    proxy.set(Mode::Reset);
    proxy.cut().await;
    more().await;
    // In the middle of frames.
    for bytes in [700, 5001, 20_003] {
        proxy.set(Mode::CutRequestsAfter(bytes));
        tokio::time::sleep(FLAP).await;
        proxy.set(Mode::Pass);
        more().await;
    }
    for _ in 0..3 {
        proxy.set(Mode::Refuse);
        tokio::time::sleep(FLAP).await;
        proxy.set(Mode::Pass);
        more().await;
    }
    while let Some(answers) = sending.join_next().await {
        assert!(
            answers.expect("no panic").is_empty(),
            "ingress notices nothing"
        );
    }
    let all = |seen: &[Event]| seen.len() - repeats(seen) >= load.total();
    let seen = events.wait_until(SOON * 4, all).await;
    drained(&stage).await;
    load.assert_complete(&seen);
    crate::outages::nothing_was_set_aside(&stage).await;
    // With nothing to publish either.
    for (mode, expected) in [(Mode::Refuse, 503), (Mode::Pass, 200)] {
        proxy.set(mode);
        eventually(SOON, "it notices without a message", async || {
            let (ready, _) = worker.get("/ready").await.ok()?;
            (ready.as_u16() == expected).then_some(())
        })
        .await;
    }
}

/// Also where the one that looks after the connection has nothing to publish.
#[tokio::test]
async fn a_broker_that_hangs_is_told_by_whichever_channel_meets_it() {
    let stage = Stage::new().await;
    let (proxy, url) = behind_a_proxy(&stage.amqp_url).await;
    let ingress = stage.ingress().start().await;
    let worker = impatient(&stage, url).await;
    let (sender, events) = (stage.sender(&ingress), stage.events());
    let number = Number::fresh();
    let message = |text: &str| number.message(payload::text("1111111111", text));
    let is = async |expected: u16| {
        eventually(SOON, "it tells what it meets", async || {
            let (ready, _) = worker.get("/ready").await.ok()?;
            (ready.as_u16() == expected).then_some(())
        })
        .await;
    };
    // Over the first channel; the next message goes over the second.
    sender.send(message("first")).await;
    events.wait_for(1, SOON).await;
    drained(&stage).await;
    proxy.set(Mode::Blackhole);
    sender.send(message("second")).await;
    is(503).await;
    proxy.set(Mode::Pass);
    is(200).await;
    let both = |seen: &[Event]| seen.len() - repeats(seen) == 2;
    events.wait_until(SOON, both).await;
}

/// How long the broker is away each time: the length of the fault.
const FLAP: Duration = Duration::from_millis(300);

/// A vhost that is gone, as after a mistake, or a user that may not use it any more.
#[tokio::test]
async fn a_vhost_that_is_gone_is_asked_for_in_ever_longer_pauses() {
    let vhost = Shared::from_env().vhost().await;
    let stage = Stage::with(StageOptions {
        amqp_url: Some(vhost.url()),
        ..StageOptions::default()
    })
    .await;
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().env("AMQP_CHANNELS", 1).start().await;
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    vhost.delete().await.expect("gone");
    let body = number.message(payload::text("1111111111", "x"));
    sender.send(body).await;
    eventually(SOON, "it isn't ready", async || {
        let (ready, _) = worker.get("/ready").await.ok()?;
        (ready.as_u16() == 503).then_some(())
    })
    .await;
    let tries = || {
        worker
            .log()
            .matches("connecting to RabbitMQ failed")
            .count()
    };
    eventually(SOON, "it tried several times", async || {
        (tries() >= 4).then_some(())
    })
    .await;
    let lines = worker.log().lines().count();
    assert!(lines < 60, "{lines} lines: {}", worker.log());
    vhost.create().await.expect("there again");
    stage.events().wait_for(1, SOON).await;
    drained(&stage).await;
}

#[tokio::test]
async fn a_worker_that_waits_for_the_broker_ends_in_order() {
    let stage = Stage::new().await;
    let nobody = format!("amqp://127.0.0.1:{}", tests::ports::free());
    let worker = stage.worker().env("AMQP_URL", nobody);
    let mut worker = worker.until(Until::Healthy).start().await;
    eventually(SOON, "it tries to connect", async || {
        let log = worker.log();
        log.contains("connecting to RabbitMQ failed").then_some(())
    })
    .await;
    assert!(worker.stop(SOON).await, "{}", worker.log());
}

/// On a node of its own, whose alarms and whose death others would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_and_the_death_of_everything_at_once_lose_nothing() {
    let mut rabbitmq = RabbitMq::start().await.expect("a RabbitMQ of its own");
    let vhost = rabbitmq.vhost().await.expect("a vhost");
    let mut stage = Stage::with(StageOptions {
        amqp_url: Some(vhost.url()),
        ..StageOptions::default()
    })
    .await;
    let mut ingress = stage.ingress().until(Until::Healthy).start().await;
    let worker = stage.worker().env("LEASE_TTL", "2s").until(Until::Healthy);
    let mut worker = worker.start().await;
    ready(&ingress).await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    for (alarm, end) in [
        (
            ["set_vm_memory_high_watermark", "0"],
            ["set_vm_memory_high_watermark", "0.4"],
        ),
        (
            ["set_disk_free_limit", "500GB"],
            ["set_disk_free_limit", "64MB"],
        ),
    ] {
        rabbitmq.control(&alarm).await.expect("an alarm");
        let before = events.count();
        for n in 0..50 {
            let body = number.message(payload::text(&format!("49160{n:07}"), "x"));
            sender.send(body).await;
        }
        eventually(SOON, "it says that it has to wait", async || {
            let (ready, text) = worker.get("/ready").await.ok()?;
            (ready.as_u16() == 503 && text.contains("blocks publishers")).then_some(())
        })
        .await;
        assert!(
            events.count() < before + 50,
            "what was asked of it is blocked"
        );
        rabbitmq.control(&end).await.expect("no alarm");
        let all = |seen: &[Event]| seen.len() - repeats(seen) == before + 50;
        events.wait_until(SOON, all).await;
        drained(&stage).await;
    }

    let load = Load {
        numbers: (0..10).map(|_| Number::fresh()).collect(),
        conversations: 20,
        each: 30,
        rate: 200,
    };
    let mut sending = load.send(&sender);
    events.wait_for(200, SOON).await;
    rabbitmq.kill();
    stage.redis.kill();
    worker.kill();
    ingress.kill();
    // Programs before the servers that they need.
    worker.restart().await;
    ingress.restart().await;
    rabbitmq.restart().await.expect("RabbitMQ");
    stage.redis.restart().await.expect("Redis");
    while let Some(answers) = sending.join_next().await {
        answers.expect("no panic");
    }
    let sent = 100 + load.total();
    let all = |seen: &[Event]| seen.len() - repeats(seen) == sent;
    let seen = events.wait_until(SOON * 2, all).await;
    drained(&stage).await;
    let of_load = |event: &&Event| event.text("/message/content/body") != "x";
    let of_load: Vec<_> = seen.iter().filter(of_load).cloned().collect();
    load.assert_complete(&of_load);
    let archived = stage.webhooks().list("").await.expect("a list");
    assert_eq!(
        archived.len(),
        sent,
        "the raw payloads, and nothing set aside"
    );
}
