//! Tasks that panic, in a worker that runs in this process.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use tests::events::Event;
use tests::meta::payload::{self, Number};
use tests::panics::PanicsAt;
use tests::{Stage, eventually};
use tokio::runtime::{Builder, Handle};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use worker::cli::Cli;
use worker::config::Config;
use worker::run;

const SOON: Duration = Duration::from_secs(30);
/// Held by each test: which lines anybody wants is asked once for the whole process, and a line that is
/// first reached while a subscriber comes or goes can be taken for one that nobody wants.
static ALONE: Mutex<()> = Mutex::const_new(());

fn config(stage: &Stage) -> Config {
    let neighbours = stage.neighbours.url();
    let cli = Cli::parse_from([
        "worker",
        "--admin-listen=127.0.0.1:0",
        &format!("--redis-url={}", stage.redis_url()),
        &format!("--amqp-url={}", stage.amqp_url),
        &format!("--minio-endpoint={}", stage.s3.endpoint),
        &format!("--minio-access-key={}", stage.s3.access_key),
        &format!("--minio-secret-key={}", stage.s3.secret_key),
        &format!("--minio-region={}", stage.s3.region),
        &format!("--minio-webhook-bucket={}", stage.webhook_bucket),
        &format!("--minio-media-bucket={}", stage.media_bucket),
        &format!("--tenant-service-url={neighbours}"),
        &format!("--graph-base-url={neighbours}"),
        &format!("--media-allowed-hosts={neighbours}"),
    ]);
    cli.config
}

#[tokio::test]
async fn a_background_task_that_panics_ends_the_worker_with_its_name() {
    let _alone = ALONE.lock().await;
    let stage = Stage::new().await;
    let config = config(&stage);
    // Of this thread, as all of its tasks are.
    let _panics = tracing::subscriber::set_default(PanicsAt {
        field: "server",
        value: "minio",
    });
    let listener = run::bind(&config).await.expect("a free port");
    let media = Handle::current();
    let running = run::run(config, listener, &media, CancellationToken::new());
    let ended = tokio::time::timeout(SOON, running).await;
    let failed = ended.expect("it ends").expect_err("it failed");
    assert!(
        failed.to_string().contains("`probe of the object store`"),
        "{failed}"
    );
}

/// How many transfers have panicked.
async fn crashes(admin: SocketAddr) -> u64 {
    let metrics = reqwest::get(format!("http://{admin}/metrics")).await;
    let metrics = metrics.expect("an answer").text().await.expect("a text");
    let crashed = |line: &&str| line.contains("media_transfers") && line.contains("\"crashed\"");
    let count = metrics.lines().find(crashed);
    let count = count.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    count.unwrap_or(0)
}

fn of<'a>(seen: &'a [Event], message: &Value, kind: &str) -> Option<&'a Event> {
    let wamid = message["id"].as_str().expect("an id");
    let mut seen = seen.iter();
    seen.find(|event| event.wamid() == wamid && event.kind.as_deref() == Some(kind))
}

/// Nothing can be fetched on a runtime without clock and sockets: each transfer panics.
#[tokio::test]
async fn a_file_whose_transfers_always_panic_is_asked_for_again_until_it_is_too_old() {
    let _alone = ALONE.lock().await;
    let stage = Stage::new().await;
    let (ingress, config) = (stage.ingress().start().await, config(&stage));
    let media = Builder::new_multi_thread().worker_threads(1).build();
    let media = media.expect("a runtime");
    let listener = run::bind(&config).await.expect("a free port");
    let admin = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let (handle, stopped) = (media.handle().clone(), stop.clone());
    let worker = tokio::spawn(async move { run::run(config, listener, &handle, stopped).await });
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    let young = payload::image("16505551234", "1111111111111");
    let mut old = payload::image("16505551234", "2222222222222");
    old["timestamp"] = "1700000000".into();
    for message in [&young, &old] {
        sender.send(Number::fresh().message(message.clone())).await;
    }
    let ended = |seen: &[Event]| of(seen, &old, "media.failed").is_some();
    let seen = events.wait_until(SOON, ended).await;
    let failed = of(&seen, &old, "media.failed").expect("it was waited for");
    assert_eq!(failed.text("/message/media/error"), "crashed");
    // The old one had two transfers at least; the young one's go on.
    eventually(SOON, "its transfers go on", async || {
        (crashes(admin).await >= 6).then_some(())
    })
    .await;
    let seen = events.wait_for(3, SOON).await;
    let message = of(&seen, &young, "message.received").expect("it came out");
    assert_eq!(message.text("/message/media/status"), "pending");
    assert!(of(&seen, &young, "media.failed").is_none());
    stop.cancel();
    worker.await.expect("no panic").expect("it stops");
    media.shutdown_background();
}
