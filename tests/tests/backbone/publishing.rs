//! RabbitMQ: what isn't confirmed in a queue is not done.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use tests::Stage;
use tests::events::MESSAGES;
use tests::meta::payload::{self, Number};
use tests::proxy::{Mode, Proxy};
use tests::waiting::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{SOON, drained, pending};

async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("RabbitMQ");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

#[tokio::test]
async fn an_unroutable_event_waits_until_a_queue_is_bound() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    // Declares the topology, and leaves.
    assert!(stage.worker().start().await.stop(SOON).await);
    let (_connection, channel) = channel(&stage.amqp_url).await;
    let unbind = channel.queue_unbind(
        MESSAGES.into(),
        "whatsapp.inbound".into(),
        "message.#".into(),
        FieldTable::default(),
    );
    unbind.await.expect("unbound");
    let worker = stage
        .worker()
        .env("AMQP_DECLARE_TOPOLOGY", false)
        .start()
        .await;
    let events = stage.events();
    let number = Number::fresh();
    let sender = stage.sender(&ingress);
    sender
        .send(number.message(payload::text("1111111111", "a")))
        .await;
    sender
        .send(number.status(payload::status("wamid.x", "read", "2222222222")))
        .await;
    // The status goes its way; the message is tried again and again.
    events.wait_for(1, SOON).await;
    eventually(SOON, "it is tried twice", async || {
        let tried = worker
            .metric("rabbitmq_publish_total", "status=\"unroutable\"")
            .await;
        (tried >= 2.0).then_some(())
    })
    .await;
    // The status' entry ends once it is archived.
    eventually(SOON, "the message alone waits", async || {
        (pending(&stage).await == 1).then_some(())
    })
    .await;
    channel
        .queue_bind(
            MESSAGES.into(),
            "whatsapp.inbound".into(),
            "message.#".into(),
            lapin::options::QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("bound");
    events.wait_for(2, SOON).await;
    drained(&stage).await;
}

/// What clients open at a broker, seen by a relay in front of it.
#[derive(Default)]
struct Opened {
    connections: AtomicUsize,
    channels: AtomicUsize,
}

/// A frame whose payload is the method `channel.open`, from its length to its end.
const CHANNEL_OPEN: &[u8] = &[0, 0, 0, 5, 0, 20, 0, 10, 0, 0xce];

/// `url` through a relay that counts.
async fn counted(url: &str) -> (Arc<Opened>, String) {
    let mut url = url::Url::parse(url).expect("a URL");
    let broker = url.port().expect("a port");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    url.set_port(Some(port)).expect("a port");
    let opened = Arc::<Opened>::default();
    let counting = opened.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            counting.connections.fetch_add(1, Relaxed);
            let server = TcpStream::connect(("127.0.0.1", broker)).await;
            tokio::spawn(relay(client, server.expect("RabbitMQ"), counting.clone()));
        }
    });
    (opened, url.to_string())
}

async fn relay(mut client: TcpStream, mut server: TcpStream, counting: Arc<Opened>) {
    let (mut client_reads, mut client_writes) = client.split();
    let (mut server_reads, mut server_writes) = server.split();
    let requests = async {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = client_reads.read(&mut piece).await {
            let opens = piece[..length].windows(CHANNEL_OPEN.len());
            let opens = opens.filter(|bytes| *bytes == CHANNEL_OPEN).count();
            counting.channels.fetch_add(opens, Relaxed);
            if server_writes.write_all(&piece[..length]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        _ = tokio::io::copy(&mut server_reads, &mut client_writes) => {}
    }
}

#[tokio::test]
async fn unroutable_events_open_no_connection_and_are_told_once() {
    const UNROUTABLE: usize = 30;
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    // Declares the topology, and leaves.
    assert!(stage.worker().start().await.stop(SOON).await);
    let (_connection, channel) = channel(&stage.amqp_url).await;
    let (queue, exchange) = (MESSAGES.into(), "whatsapp.inbound".into());
    let unbind = channel.queue_unbind(queue, exchange, "message.#".into(), FieldTable::default());
    unbind.await.expect("unbound");
    let (opened, url) = counted(&stage.amqp_url).await;
    let worker = stage
        .worker()
        .env("AMQP_DECLARE_TOPOLOGY", false)
        // What comes together goes through one channel: of several, some would be opened later.
        .env("AMQP_CHANNELS", 1)
        .env("AMQP_URL", url)
        .start()
        .await;
    let (events, sender, number) = (stage.events(), stage.sender(&ingress), Number::fresh());
    let person = |n: usize| format!("49160{n:07}");
    let statuses = |from: usize| {
        let of = |n| payload::status(&payload::wamid(), "read", &person(n));
        number.webhook([number.statuses((from..from + UNROUTABLE).map(of))])
    };
    sender.send(statuses(0)).await;
    events.wait_for(UNROUTABLE, SOON).await;
    let before = (
        opened.connections.load(Relaxed),
        opened.channels.load(Relaxed),
    );
    let messages = (0..UNROUTABLE).map(|n| payload::text(&person(n), "x"));
    sender
        .send(number.webhook([number.messages(messages)]))
        .await;
    let back = eventually(SOON, "each came back several times", async || {
        let unroutable = "status=\"unroutable\"";
        let back = worker.metric("rabbitmq_publish_total", unroutable).await;
        (back >= (4 * UNROUTABLE) as f64).then_some(back)
    })
    .await;
    sender.send(statuses(UNROUTABLE)).await;
    events.wait_for(2 * UNROUTABLE, SOON).await;
    assert_eq!(opened.connections.load(Relaxed), before.0);
    let channels = opened.channels.load(Relaxed) - before.1;
    assert!((channels as f64) < back, "{channels} channels");
    let told = worker.log_lines().into_iter();
    let told = told.filter(|line| line["route"] == "message.text").count();
    assert_eq!(told, 1, "{}", worker.log());
    let again = worker.log().matches("published again later").count();
    assert_eq!(again, 0, "{}", worker.log());
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_a_clear_error() {
    let stage = Stage::new().await;
    let (_connection, channel) = channel(&stage.amqp_url).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(5));
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(MESSAGES.into(), options, arguments)
        .await
        .expect("declared");
    let refused = stage
        .worker()
        .try_start()
        .await
        .expect_err("it must not start");
    let refused = format!("{refused:#}");
    assert!(
        refused.contains(MESSAGES) && refused.contains("inequivalent arg"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_lost_confirm_repeats_with_the_same_id_and_never_loses() {
    let stage = Stage::new().await;
    let broker = url::Url::parse(&stage.amqp_url).expect("a URL");
    let upstream = format!(
        "{}:{}",
        broker.host_str().expect("a host"),
        broker.port().expect("a port")
    );
    let proxy = Proxy::start(upstream).await.expect("a proxy");
    let mut through = broker.clone();
    through
        .set_port(Some(proxy.address().port()))
        .expect("a port");
    let ingress = stage.ingress().start().await;
    let _worker = stage
        .worker()
        .env("AMQP_URL", through)
        .env("CONFIRM_TIMEOUT", "5s")
        .start()
        .await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    proxy.set(Mode::LoseAnswers);
    for n in 0..20 {
        sender
            .send(number.message(payload::text("1111111111", &n.to_string())))
            .await;
    }
    events.wait_for(1, SOON).await;
    proxy.set(Mode::Pass);
    let all = |seen: &[tests::events::Event]| seen.len() - crate::repeats(seen) >= 20;
    let seen = events.wait_until(SOON, all).await;
    let texts = &crate::first_texts(&seen)["1111111111"];
    assert_eq!(*texts, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    eventually(Duration::from_secs(30), "nothing is pending", async || {
        (pending(&stage).await == 0).then_some(())
    })
    .await;
}

/// RabbitMQ 4 takes 16 MiB at most, unless told otherwise.
#[tokio::test]
async fn the_largest_body_makes_an_event_that_fits() {
    const LARGEST_BODY: usize = 4_194_304;
    const LARGEST_EVENT: usize = 16 << 20;
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let _worker = stage.worker().start().await;
    let events = stage.events();
    // In the typed part and in `raw`; what would grow if it were read as a number or escaped more.
    let mut message = payload::text("1111111111", &"\"\u{1}".repeat(300_000));
    message["unheard_of"] = "NUMBERS".into();
    let numbers = format!("[{}1e15]", "1e15,".repeat(300_000));
    let body = Number::fresh().message(message.clone());
    let body = String::from_utf8(body.into()).expect("JSON");
    let body = body.replace("\"NUMBERS\"", &numbers);
    let length = body.len();
    assert!(
        (LARGEST_BODY * 9 / 10..=LARGEST_BODY).contains(&length),
        "{length}"
    );
    stage.sender(&ingress).send(body).await;
    let event = events.wait_for(1, SOON).await.remove(0);
    let text = std::str::from_utf8(&event.bytes).expect("text");
    assert!(text.contains(&numbers), "its numbers read otherwise");
    let content = &event.payload["message"]["content"];
    assert_eq!(content["body"], message["text"]["body"]);
    assert!(text.len() < LARGEST_EVENT, "{}", text.len());
}
