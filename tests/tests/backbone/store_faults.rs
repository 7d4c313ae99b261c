//! What an object store can do wrong while raw payloads are written: events don't notice, and each
//! object is there in the end, once and whole.

use std::time::Duration;

use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::preload::Preload;
use tests::programs::Until;
use tests::proxy::{Mode, Proxy};
use tests::waiting::eventually;

use crate::{SOON, drained};

const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
const SLOW_DOWN: &[u8] =
    b"HTTP/1.1 503 Slow Down\r\nContent-Length: 35\r\n\r\n<Error><Code>SlowDown</Code></Error>";
/// Another write of the same key is on its way.
const CONFLICT: &[u8] = b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n";
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn no_fault_of_the_store_loses_an_object_or_leaves_half_of_it() {
    let stage = Stage::new().await;
    let upstream = stage.s3.endpoint.trim_start_matches("http://").to_owned();
    let proxy = Proxy::start(upstream).await.expect("a proxy");
    let ingress = stage.ingress().start().await;
    let worker = stage
        .worker()
        .env("MINIO_ENDPOINT", format!("http://{}", proxy.address()))
        .start()
        .await;
    let (events, store) = (stage.events(), stage.webhooks());
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let owed = || worker.log().matches("owed").count();
    let faults = [
        // First, since the request of a healthy store is sent in full.
        Mode::LoseAnswers,
        Mode::CutRequestsAfter(900),
        Mode::CutAnswersAfter(20),
        Mode::Answer(FAILED),
        Mode::Answer(SLOW_DOWN),
        Mode::Answer(TOO_MANY),
        Mode::Answer(CONFLICT),
        Mode::Drip(Duration::from_secs(1)),
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        let before = owed();
        proxy.set(fault.clone());
        let body = number.message(payload::text("1111111111", &"x".repeat(2000 + n)));
        sender.send(body.clone()).await;
        events.wait_for(n + 1, SOON).await;
        if !matches!(fault, Mode::Drip(_)) {
            eventually(SOON, "the store was tried", async || {
                (owed() > before).then_some(())
            })
            .await;
        }
        let there = store.list("").await.expect("a list").len();
        let done = matches!(fault, Mode::LoseAnswers | Mode::CutAnswersAfter(_));
        assert_eq!(there, n + usize::from(done), "while {fault:?}");
        proxy.set(Mode::Pass);
        drained(&stage).await;
        let mut keys = store.list("").await.expect("a list");
        keys.sort_unstable();
        assert_eq!(keys.len(), n + 1, "after {fault:?}");
        let last = keys.last().expect("an object");
        let kept = store.get(last).await.expect("the store");
        assert_eq!(kept.expect("the object"), body, "after {fault:?}");
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_keeps_the_store_away_and_nothing_else() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    // Buckets.
    assert!(stage.worker().start().await.stop(SOON).await);
    let clock = Preload::build("shifted_clock").expect("a library");
    let mut worker = stage
        .worker()
        .env("LD_PRELOAD", clock.path())
        .env("CLOCK_SHIFT_S", 20 * 60)
        .until(Until::Healthy)
        .start()
        .await;
    let body = Number::fresh().message(payload::text("1111111111", "x"));
    stage.sender(&ingress).send(body.clone()).await;
    stage.events().wait_for(1, SOON).await;
    eventually(SOON, "it says so", async || {
        let (ready, text) = worker.get("/ready").await.ok()?;
        (ready.as_u16() == 503 && text.contains("minio")).then_some(())
    })
    .await;
    assert_eq!(stage.webhooks().list("").await.expect("a list").len(), 0);
    assert!(worker.stop(SOON).await);
    worker.restart_with("CLOCK_SHIFT_S", 0).await;
    drained(&stage).await;
    let keys = stage.webhooks().list("").await.expect("a list");
    assert_eq!(keys.len(), 1);
}
