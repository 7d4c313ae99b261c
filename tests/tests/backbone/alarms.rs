//! What rings, seen where it rings: Prometheus with the rules that are shipped, Alertmanager with its
//! configuration, and a receiver.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lapin::options::BasicPublishOptions;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamRangeReply};
use tests::meta::payload::{self, Number};
use tests::programs::Worker;
use tests::proxy::{Mode, Proxy};
use tests::servers::prometheus::PrometheusOptions;
use tests::servers::{Alertmanager, Prometheus, RabbitMq};
use tests::waiting::eventually;
use tests::{Stage, StageOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::SOON;
use crate::broker::{behind_a_proxy, channel};

/// Rules wait for a minute before they fire; the rest is for a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// As the programs have them by default.
const PARTITIONS: u16 = 16;

/// The labels of an alert.
type Labels = &'static [(&'static str, &'static str)];

const WORKERS: Labels = &[("alertname", "WorkersGone")];
const REDIS: Labels = &[
    ("alertname", "ServerAway"),
    ("job", "ingress"),
    ("server", "redis"),
];
const STORE: Labels = &[
    ("alertname", "ServerAway"),
    ("job", "ingress"),
    ("server", "spool"),
];
const RABBITMQ: Labels = &[
    ("alertname", "ServerAway"),
    ("job", "worker"),
    ("server", "rabbitmq"),
];

/// Waits for the notification, and tells how long after the fault it came.
#[allow(clippy::print_stdout, reason = "figures of the run")]
async fn rings(alerts: &Alertmanager, fault: Instant, status: &str, labels: &[(&str, &str)]) {
    let what = format!("{status}: {labels:?}");
    let seen = eventually(PATIENCE, &what, async || {
        alerts.first(fault, status, labels)
    })
    .await;
    let took = seen.at.duration_since(fault).as_secs_f64();
    println!("{what} after {took:.0} s, to {}", seen.receiver);
    assert_eq!(seen.receiver, "pages", "{what}");
}

async fn all_ring(alerts: &Alertmanager, fault: Instant, status: &str, all: &[Labels]) {
    for labels in all {
        rings(alerts, fault, status, labels).await;
    }
}

/// `ALARM_INTERVAL=15s` scrapes and evaluates as seldom as the shipped configuration.
fn interval() -> String {
    std::env::var("ALARM_INTERVAL").unwrap_or_else(|_| "1s".to_owned())
}

async fn watched(
    targets: &[(&str, &str)],
    change: impl Fn(String) -> String,
) -> (Alertmanager, Prometheus) {
    let file = shipped("deploy/alertmanager/alertmanager.yaml");
    let alerts = Alertmanager::start(&file, change).await;
    let alerts = alerts.expect("Alertmanager");
    let prometheus = Prometheus::start_with(PrometheusOptions {
        targets,
        rule_files: &[&shipped("deploy/prometheus/alerts.yaml")],
        interval: &interval(),
        alertmanager: Some(&alerts.address()),
    })
    .await
    .expect("Prometheus");
    prometheus.scraped().await.expect("all are scraped");
    (alerts, prometheus)
}

/// How soon an end is told is not what is tested.
fn soon_over(text: String) -> String {
    text.replace("group_interval: 1m", "group_interval: 5s")
}

fn nothing_rang(alerts: &Alertmanager) {
    let notified = alerts.notified();
    let rang = notified.iter().find(|it| it.receiver != "heartbeat");
    assert!(rang.is_none(), "{rang:?}");
}

#[tokio::test]
async fn whatever_is_killed_rings_and_its_end_is_told() {
    let mut rabbitmq = RabbitMq::start().await.expect("a RabbitMQ of its own");
    let vhost = rabbitmq.vhost().await.expect("a vhost");
    let mut stage = Stage::with(StageOptions {
        amqp_url: Some(vhost.url()),
        ..StageOptions::default()
    })
    .await;
    let store = stage.s3.endpoint.trim_start_matches("http://").to_owned();
    let store = Proxy::start(store).await.expect("a proxy");
    stage.s3.endpoint = format!("http://{}", store.address());
    let mut ingress = stage.spooling_ingress().start().await;
    let (mut one, mut two) = tokio::join!(stage.worker().start(), stage.worker().start());
    let targets = [
        ("ingress", ingress.admin()),
        ("worker", one.admin()),
        ("worker", two.admin()),
    ];
    let (alerts, _prometheus) = watched(&targets, soon_over).await;
    let events = stage.events();
    let number = Number::fresh();
    let text = number.message(payload::text("16505551234", "hello"));
    stage.sender(&ingress).send(text).await;
    events.wait_for(1, SOON).await;
    nothing_rang(&alerts);

    // What ingress still sees while no worker is there.
    let fault = Instant::now();
    one.kill();
    two.kill();
    stage.redis.kill();
    store.set(Mode::Refuse);
    all_ring(&alerts, fault, "firing", &[WORKERS, REDIS, STORE]).await;

    let mended = Instant::now();
    store.set(Mode::Pass);
    stage.redis.restart().await.expect("Redis again");
    tokio::join!(one.restart(), two.restart());
    let fault = Instant::now();
    rabbitmq.kill();
    all_ring(&alerts, mended, "resolved", &[WORKERS, REDIS, STORE]).await;
    let gone = Instant::now();
    ingress.kill();
    rings(&alerts, fault, "firing", RABBITMQ).await;
    rings(&alerts, gone, "firing", &[("alertname", "IngressGone")]).await;
    // The worker says that RabbitMQ is away, and goes on trying; lapin would say that it gave up.
    let lines = one.log_lines();
    let says = |line: &serde_json::Value| {
        line["message"] == "a server is not ready" && line["server"] == "rabbitmq"
    };
    assert!(lines.iter().any(says));
    let of_lapin = |line: &&serde_json::Value| {
        let target = line["target"].as_str();
        target.is_some_and(|target| target.starts_with("lapin"))
    };
    assert_eq!(lines.iter().find(of_lapin), None);

    let mended = Instant::now();
    rabbitmq.restart().await.expect("RabbitMQ again");
    rings(&alerts, mended, "resolved", RABBITMQ).await;
}

/// Puts a message into a queue, past the exchange.
async fn put(channel: &Channel, queue: &str) {
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    let sent = channel.basic_publish("".into(), queue.into(), options, b"{}", properties);
    sent.await.expect("published");
}

#[tokio::test]
async fn what_is_wrong_while_everything_runs_rings() {
    let stage = Stage::new().await;
    let ingress = stage.spooling_ingress().start().await;
    let worker = stage.worker().start().await;
    let targets = [("ingress", ingress.admin()), ("worker", worker.admin())];
    let (alerts, _prometheus) = watched(&targets, soon_over).await;
    nothing_rang(&alerts);
    let (_connection, channel) = channel(&stage.amqp_url).await;
    let mut redis = stage.redis.connection().await;
    let number = Number::fresh();
    let webhook = |n: usize| number.message(payload::text("16505551234", &n.to_string()));

    let fault = Instant::now();
    // Nobody consumes anything here.
    stage.sender(&ingress).send(webhook(0)).await;
    put(&channel, "WHATSAPP_EVENTS.DLQ").await;
    let junk = redis.xadd::<_, _, _, _, ()>("whatsapp:{3}:stream", "*", &[("v", "9")]);
    junk.await.expect("XADD");
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("appendfsync").arg("everysec");
    let set = set.query_async::<()>(&mut redis).await;
    set.expect("CONFIG SET");
    let first = [
        [("alertname", "ItemsBroken"), ("reason", "undecodable")],
        [
            ("alertname", "DeadLetters"),
            ("queue", "WHATSAPP_EVENTS.DLQ"),
        ],
        [
            ("alertname", "QueueWithoutConsumer"),
            ("queue", "INBOUND_WHATSAPP_MESSAGES"),
        ],
    ];
    for labels in &first {
        rings(&alerts, fault, "firing", labels).await;
    }
    rings(&alerts, fault, "firing", &[("alertname", "RedisUnsafe")]).await;
}

#[tokio::test]
async fn a_redis_without_memory_and_a_queue_without_binding_ring() {
    let stage = Stage::new().await;
    let ingress = stage.spooling_ingress().start().await;
    // Declares the topology, and leaves: one that may declare it would mend the binding.
    assert!(stage.worker().start().await.stop(SOON).await);
    let worker = stage
        .worker()
        .env("AMQP_DECLARE_TOPOLOGY", false)
        .start()
        .await;
    let targets = [("ingress", ingress.admin()), ("worker", worker.admin())];
    let (alerts, _prometheus) = watched(&targets, soon_over).await;
    let (_connection, channel) = channel(&stage.amqp_url).await;
    let mut redis = stage.redis.connection().await;
    let number = Number::fresh();
    let webhook = |n: usize| number.message(payload::text("16505551234", &n.to_string()));
    let sender = stage.sender(&ingress);
    sender.send(webhook(0)).await;

    let fault = Instant::now();
    let (exchange, key) = ("whatsapp.inbound".into(), "status.#".into());
    let table = FieldTable::default();
    let queue = "WHATSAPP_STATUS_UPDATES".into();
    let unbound = channel.queue_unbind(queue, exchange, key, table).await;
    unbound.expect("unbound");
    let status = payload::status("wamid.out", "delivered", "16505551234");
    sender.send(number.status(status)).await;
    let info: String = redis::cmd("INFO")
        .query_async(&mut redis)
        .await
        .expect("INFO");
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    let used: u64 = used.expect("its memory").trim().parse().expect("a number");
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("maxmemory").arg(used * 100 / 95);
    set.query_async::<()>(&mut redis).await.expect("CONFIG SET");
    let sending = async {
        for n in 1.. {
            sender.send(webhook(n)).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    let ringing = async {
        for name in ["RedisMemoryFull", "SpoolFilling"] {
            rings(&alerts, fault, "firing", &[("alertname", name)]).await;
        }
        let labels = [("alertname", "PublicationsFail"), ("status", "unroutable")];
        rings(&alerts, fault, "firing", &labels).await;
    };
    tokio::select! {
        () = sending => {}
        () = ringing => {}
    }
}

/// Kills a program and starts it again, each time once Prometheus has seen the one before.
async fn crash(worker: &mut Worker, prometheus: &Prometheus, times: u32) {
    let starts = r#"max(changes(process_start_time_seconds{job="worker"}[10m]))"#;
    for n in 1..=times {
        worker.kill();
        worker.restart().await;
        eventually(SOON, "Prometheus sees the new start", async || {
            let seen = prometheus.query(starts).await.ok()?;
            (seen.first()?.value >= f64::from(n)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_crashes_or_is_late_or_refused_rings() {
    let stage = Stage::new().await;
    let redis = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let (rabbitmq, amqp_url) = behind_a_proxy(&stage.amqp_url).await;
    let ingress = stage
        .ingress()
        .env("REDIS_URL", format!("redis://{}", redis.address()))
        .start()
        .await;
    let mut other = stage.ingress().start().await;
    let worker = stage.worker().env("AMQP_URL", amqp_url).start().await;
    let mut crashing = stage.worker().start().await;
    let targets = [
        ("ingress", ingress.admin()),
        ("ingress", other.admin()),
        ("worker", worker.admin()),
        ("worker", crashing.admin()),
    ];
    let (alerts, prometheus) = watched(&targets, soon_over).await;
    nothing_rang(&alerts);

    let fault = Instant::now();
    other.kill();
    crash(&mut crashing, &prometheus, 3).await;
    rings(&alerts, fault, "firing", &[("alertname", "CrashLoop")]).await;
    crashing.kill();

    // One worker is left, which can't publish; the answers wait for Redis.
    let slow = Instant::now();
    rabbitmq.set(Mode::Blackhole);
    redis.set(Mode::Slow(Duration::from_millis(200)));
    let sender = stage.sender(&ingress);
    let text = |n: usize| Number::fresh().message(payload::text("16505551234", &n.to_string()));
    for n in 0..20 {
        sender.send(text(n)).await;
    }
    eventually(SOON, "entries are late", async || {
        let name = "whatsapp_stream_oldest_entry_age_seconds";
        (worker.metric(name, "").await >= 4.0).then_some(())
    })
    .await;
    rabbitmq.set(Mode::Pass);
    rings(&alerts, slow, "firing", &[("alertname", "AnswersSlow")]).await;
    rings(&alerts, slow, "firing", &[("alertname", "EventsLate")]).await;

    let refused = Instant::now();
    redis.set(Mode::Refuse);
    let sending = async {
        loop {
            // 503: nobody sends it again.
            drop(sender.post_once(text(0)).await);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    let ringing = async {
        let labels = [("alertname", "ProgramGone"), ("job", "ingress")];
        rings(&alerts, fault, "firing", &labels).await;
        rings(
            &alerts,
            refused,
            "firing",
            &[("alertname", "WebhooksNotStored")],
        )
        .await;
    };
    tokio::select! {
        () = sending => {}
        () = ringing => {}
    }
}

/// An ingress that writes entries of the version that `version` says, as far as Prometheus sees.
async fn ingress_of_version(version: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    tokio::spawn(async move {
        loop {
            let (mut scrape, _) = listener.accept().await.expect("a connection");
            let version = version.load(Ordering::Relaxed);
            let body = format!(
                "# TYPE whatsapp_entry_version gauge\nwhatsapp_entry_version {version}\n# EOF\n"
            );
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/openmetrics-text; \
                        version=1.0.0; charset=utf-8\r\nContent-Length:";
            let mut asked = [0; 4096];
            // A scrape is one small request.
            drop(scrape.read(&mut asked).await);
            let answer = format!("{head} {}\r\n\r\n{body}", body.len());
            drop(scrape.write_all(answer.as_bytes()).await);
        }
    });
    address
}

fn stream(partition: u16) -> String {
    format!("whatsapp:{{{partition}}}:stream")
}

/// The first entry of all partitions.
async fn first_entry(redis: &MultiplexedConnection) -> Option<StreamId> {
    let mut redis = redis.clone();
    for partition in 0..PARTITIONS {
        let all: StreamRangeReply = redis.xrange_all(stream(partition)).await.expect("XRANGE");
        if let Some(first) = all.ids.into_iter().next() {
            return Some(first);
        }
    }
    None
}

/// Puts an entry into every partition that had none, as one that came twenty minutes ago.
async fn age(redis: &MultiplexedConnection, entry: StreamId) {
    let fields = entry.map.into_iter().map(|(name, value)| {
        let value: Vec<u8> = redis::from_redis_value(value).expect("bytes");
        (name, value)
    });
    let fields: Vec<(String, Vec<u8>)> = fields.collect();
    let (ms, _) = entry.id.split_once('-').expect("an id");
    let ms: u64 = ms.parse().expect("milliseconds");
    let id = format!("{}-0", ms - 20 * 60 * 1000);
    let mut redis = redis.clone();
    for partition in 0..PARTITIONS {
        // Refused where something newer has been.
        let added = redis.xadd::<_, _, _, _, ()>(stream(partition), &id, &fields);
        drop(added.await);
    }
}

#[tokio::test]
async fn what_waits_too_long_has_no_owner_or_can_t_be_read_rings() {
    let stage = Stage::new().await;
    let (rabbitmq, amqp_url) = behind_a_proxy(&stage.amqp_url).await;
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().env("AMQP_URL", amqp_url).start().await;
    // Its partitions are nobody's for as long, once it is dead.
    let mut other = stage.worker().env("LEASE_TTL", "2m").start().await;
    let version = Arc::new(AtomicU64::new(0));
    let later = ingress_of_version(version.clone()).await;
    let targets = [
        ("ingress", ingress.admin()),
        ("ingress", &*later),
        ("worker", worker.admin()),
        ("worker", other.admin()),
    ];
    let (alerts, _prometheus) = watched(&targets, soon_over).await;
    for owner in [&worker, &other] {
        eventually(PATIENCE, "each has partitions", async || {
            let owned = owner.metric("whatsapp_partitions_owned", "").await;
            (owned > 0.0).then_some(())
        })
        .await;
    }
    nothing_rang(&alerts);

    let fault = Instant::now();
    version.store(1000, Ordering::Relaxed);
    rabbitmq.set(Mode::Blackhole);
    let redis = stage.redis.connection().await;
    let waits = loop {
        let text = Number::fresh().message(payload::text("16505551234", "hello"));
        stage.sender(&ingress).send(text).await;
        let what = "the one worker has published it, or the other has it";
        let waits = eventually(SOON, what, async || {
            let pending = worker.metric("whatsapp_stream_pending", "").await > 0.0;
            match first_entry(&redis).await {
                None => Some(None),
                entry => pending.then_some(entry),
            }
        });
        if let Some(entry) = waits.await {
            break entry;
        }
    };
    age(&redis, waits).await;
    for name in ["VersionSkew", "LagLarge"] {
        rings(&alerts, fault, "firing", &[("alertname", name)]).await;
    }
    let fault = Instant::now();
    other.kill();
    rings(
        &alerts,
        fault,
        "firing",
        &[("alertname", "PartitionsWithoutOwner")],
    )
    .await;
}
