//! Ingress killed, stopped and confused at the worst moments: what was not answered 200 is sent again,
//! and stored once.

use std::time::Duration;

use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::meta::{Sender, sign};
use tests::preload::Preload;
use tests::programs::APP_SECRET;
use tests::proxy::{Mode, Proxy};
use tests::waiting::eventually;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::{SOON, stored};

fn fresh(text: &str) -> bytes::Bytes {
    Number::fresh().message(payload::text("1111111111", text))
}

#[tokio::test]
async fn killed_while_a_body_is_coming_and_while_its_answer_is_going() {
    let stage = Stage::new().await;
    let mut ingress = stage.ingress().start().await;
    let body = fresh("half");
    let mut slow = TcpStream::connect(ingress.address())
        .await
        .expect("a connection");
    let head = format!(
        "POST /webhook/meta HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nX-Hub-Signature-256: {}\r\n\r\n",
        body.len(),
        sign(APP_SECRET, &body)
    );
    slow.write_all(head.as_bytes()).await.expect("a head");
    slow.write_all(&body[..body.len() / 2]).await.expect("half");
    eventually(SOON, "it is there", async || {
        (ingress.metric("whatsapp_ingress_connections", "").await == 1.0).then_some(())
    })
    .await;
    ingress.kill();
    assert_eq!(stored(&stage).await, 0);
    ingress.restart().await;
    stage.sender(&ingress).send(body).await;
    assert_eq!(stored(&stage).await, 1);

    // The answer is written, and gets lost on its way; once the process with it.
    let proxy = Proxy::start(ingress.address()).await.expect("a proxy");
    let url = format!("http://{}/webhook/meta", proxy.address());
    let sender = Sender::new(url, APP_SECRET);
    for (n, killed) in [(2, false), (3, true)] {
        let body = fresh("answered");
        let answers = async || {
            ingress
                .metric("whatsapp_ingress_requests_total", "200")
                .await
        };
        let before = answers().await;
        proxy.set(Mode::LoseAnswers);
        let post = tokio::spawn({
            let (sender, body) = (sender.clone(), body.clone());
            async move { sender.post_once(body).await }
        });
        eventually(SOON, "it is answered", async || {
            (answers().await > before && stored(&stage).await == n).then_some(())
        })
        .await;
        if killed {
            ingress.restart().await;
        }
        proxy.set(Mode::Pass);
        assert!(post.await.expect("no panic").is_err(), "nothing arrived");
        sender.send(body).await;
        assert_eq!(stored(&stage).await, n);
    }
}

/// How long it stays stopped, at least: the length of the fault.
const STOPPED: Duration = Duration::from_secs(3);

/// Stopped in the middle of requests, and woken when their senders have given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_under_load_and_woken_nothing_is_doubled() {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let ingress = stage
        .ingress()
        .env("REDIS_URL", format!("redis://{}", proxy.address()))
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let bodies: Vec<_> = (0..200).map(|_| fresh("x")).collect();
    let post = |body: &bytes::Bytes| {
        let (sender, body) = (sender.clone(), body.clone());
        tokio::spawn(async move { tokio::time::timeout(STOPPED, sender.post_once(body)).await })
    };
    // Some are on their way to Redis when it stops, the others find it stopped.
    proxy.set(Mode::Slow(Duration::from_millis(200)));
    let (early, late) = bodies.split_at(100);
    let mut posts: Vec<_> = early.iter().map(post).collect();
    eventually(SOON, "some are in work", async || {
        (ingress.metric("whatsapp_ingress_in_flight", "").await >= 10.0).then_some(())
    })
    .await;
    ingress.signal("STOP");
    posts.extend(late.iter().map(post));
    for (n, post) in posts.into_iter().enumerate() {
        let answer = post.await.expect("no panic");
        assert!(n < early.len() || answer.is_err(), "nobody answers");
    }
    ingress.signal("CONT");
    proxy.set(Mode::Pass);
    for body in &bodies {
        sender.send_like_meta(body.clone()).await;
    }
    assert_eq!(stored(&stage).await, bodies.len() as u64);
}

/// What is remembered and what is limited go by Redis' clock alone.
#[tokio::test]
async fn a_clock_that_is_a_day_off_forgets_nothing_and_refuses_nothing() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    let clock = Preload::build("shifted_clock").expect("a library");
    let body = number.message(payload::text("1111111111", "x"));
    let mut remaining = Vec::new();
    for days in [0, 1, -1, 0] {
        let ingress = stage
            .ingress()
            .env("LD_PRELOAD", clock.path())
            .env("CLOCK_SHIFT_S", days * 86_400)
            .start()
            .await;
        let sender = stage.sender(&ingress);
        sender.send(body.clone()).await;
        let other = number.message(payload::text("1111111111", &days.to_string()));
        let answer = sender.send(other).await;
        remaining.push(answer.header("x-ratelimit-remaining").to_owned());
    }
    assert_eq!(remaining, ["998", "997", "996", "995"]);
    assert_eq!(stored(&stage).await, 5);
}
