//! The table of ingress' answers, over real sockets.

use std::time::Duration;

use serde_json::Value;
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::meta::{sign, webhook};
use tests::programs::{APP_SECRET, Ingress};
use tests::proxy::{Mode, Proxy};
use tests::waiting::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{SOON, stored};

/// Writes `request` as it is and reads until the other side closes.
async fn raw(ingress: &Ingress, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(ingress.address())
        .await
        .expect("a connection");
    stream.write_all(request).await.expect("a request");
    read_out(&mut stream).await
}

async fn read_out(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .expect("it closes")
        .expect("an answer");
    String::from_utf8(answer).expect("text")
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let lines = answer.lines().take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.split_once(": "))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map_or("", |(_, value)| value)
}

/// Checks the form that every refusal has; its `Connection` header.
fn assert_refused(case: &str, answer: &str, status: u16) {
    let found = answer.split(' ').nth(1).unwrap_or_default();
    assert_eq!(found, status.to_string(), "{case}: {answer}");
    assert_eq!(
        header(answer, "content-type"),
        "application/problem+json",
        "{case}"
    );
    let correlation_id = header(answer, "x-correlation-id");
    assert_eq!(correlation_id.len(), 36, "{case}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let problem: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(problem["status"], status, "{case}");
    assert_eq!(problem["correlationId"], correlation_id, "{case}");
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /webhook/meta HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {headers}\r\n{body}"
    )
    .into_bytes()
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn each_case_has_its_answer() {
    let stage = Stage::new().await;
    let ingress = stage
        .ingress()
        .env("META_VERIFY_TOKEN", "verify me")
        .env("MAX_BODY_BYTES", 1000)
        .env("BODY_TIMEOUT", "300ms")
        .env("HEADER_TIMEOUT", "300ms")
        .start()
        .await;
    let large = "x".repeat(1001);
    let chunked = |chunk: &str| {
        format!(
            "POST /webhook/meta HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            format!("{:x}\r\n{chunk}\r\n", chunk.len()).repeat(20)
        )
        .into_bytes()
    };
    let method = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let slow_headers = b"POST /webhook/meta HTTP/1.1\r\nHos".to_vec();
    let slow_body =
        b"POST /webhook/meta HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{".to_vec();
    let right = "/webhook/meta?hub.mode=subscribe&hub.verify_token=verify%20me&hub.challenge=115";
    let wrong = "/webhook/meta?hub.mode=subscribe&hub.verify_token=verify&hub.challenge=115";
    let markup = right.replace("115", "%3Cscript%3E");
    let cases: [(&str, Vec<u8>, u16); 17] = [
        ("no signature", post("", "{}"), 401),
        (
            "a signature that is none",
            post("X-Hub-Signature-256: sha256=00\r\n", "{}"),
            401,
        ),
        ("a declared length beyond the limit", post("", &large), 413),
        ("a stream beyond the limit", chunked(&"x".repeat(100)), 413),
        (
            "a zipped body",
            post("Content-Encoding: gzip\r\n", "x"),
            415,
        ),
        ("another method", method("PUT", "/webhook/meta"), 405),
        ("no probe", method("POST", "/health"), 405),
        ("another path", get("/elsewhere"), 404),
        ("a path below", get("/webhook/meta/"), 404),
        ("a path with an empty part", get("//webhook/meta"), 404),
        ("a path with dots", get("/webhook/../webhook/meta"), 404),
        ("metrics are not public", get("/metrics"), 404),
        ("slow headers", slow_headers, 408),
        ("a slow body", slow_body, 408),
        ("a wrong token", get(wrong), 403),
        ("no query", get("/webhook/meta"), 403),
        ("a challenge that is markup", get(&markup), 400),
    ];
    for (case, request, status) in cases {
        let answer = raw(&ingress, &request).await;
        assert_refused(case, &answer, status);
        match status {
            405 => assert!(
                ["GET, HEAD", "GET, POST"].contains(&header(&answer, "allow")),
                "{case}"
            ),
            408 | 413 | 415 => assert_eq!(header(&answer, "connection"), "close", "{case}"),
            _ => {}
        }
    }
    assert_eq!(stored(&stage).await, 0);
    let answer = raw(&ingress, &get(right)).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n115"),
        "{answer}"
    );
    assert_eq!(header(&answer, "content-type"), "text/plain");
    // Nothing was said: nothing is answered.
    assert_eq!(raw(&ingress, b"").await, "");
    let id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let answer = raw(&ingress, &post(&format!("X-Correlation-Id: {id}\r\n"), "x")).await;
    assert_eq!(header(&answer, "x-correlation-id"), id);

    let without_token = stage.ingress().start().await;
    assert_refused(
        "no token is set",
        &raw(&without_token, &get(right)).await,
        404,
    );
    let answer = raw(&without_token, &method("PUT", "/webhook/meta")).await;
    assert_eq!(header(&answer, "allow"), "POST");
}

/// Waits for a number of open connections.
async fn connections(ingress: &Ingress, what: &str, are: impl Fn(f64) -> bool) {
    eventually(SOON, what, async || {
        are(ingress.metric("whatsapp_ingress_connections", "").await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_is_served_on() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().env("HEADER_TIMEOUT", "200ms").start().await;
    let mut stream = TcpStream::connect(ingress.address())
        .await
        .expect("a connection");
    let body = Number::fresh().message(payload::text("1111111111", "x"));
    let head = format!(
        "POST /webhook/meta HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nX-Hub-Signature-256: {}\r\n\r\n",
        body.len(),
        sign(APP_SECRET, &body)
    );
    for pause in [0, 700, 0, 300] {
        // Longer than hyper's time-out, which closes idle connections too.
        tokio::time::sleep(Duration::from_millis(pause)).await;
        stream.write_all(head.as_bytes()).await.expect("a request");
        stream.write_all(&body).await.expect("a request");
        let mut answer = vec![0; 1000];
        let length = timeout(SOON, stream.read(&mut answer))
            .await
            .expect("in time")
            .expect("an answer");
        assert!(
            answer[..length].starts_with(b"HTTP/1.1 200 "),
            "after {pause} ms"
        );
    }
    assert_eq!(stored(&stage).await, 1);
    // Closed after it was idle: it must not be taken for one that is idle still.
    tokio::time::sleep(Duration::from_millis(700)).await;
    drop(stream);
    connections(&ingress, "it is gone", |open| open == 0.0).await;
}

#[tokio::test]
async fn beyond_what_is_bounded_the_answer_is_503_at_once() {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let ingress = stage
        .ingress()
        .env("REDIS_URL", format!("redis://{}", proxy.address()))
        .env("MAX_CONNECTIONS", 20)
        .env("MAX_IN_FLIGHT", 2)
        .env("MAX_BODY_BYTES", 100_000)
        .env("MAX_IN_FLIGHT_BYTES", 400_000)
        .env("HEADER_TIMEOUT", "30s")
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let body = |text: &str| Number::fresh().message(payload::text("1111111111", text));
    // Redis doesn't answer: what is in work stays in work.
    proxy.set(Mode::Blackhole);
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let (sender, body) = (sender.clone(), body("busy"));
            tokio::spawn(async move { sender.post_once(body).await })
        })
        .collect();
    eventually(SOON, "both are in work", async || {
        (ingress.metric("whatsapp_ingress_in_flight", "").await >= 2.0).then_some(())
    })
    .await;
    let refused = sender
        .post_once(body("one too many"))
        .await
        .expect("an answer");
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    for post in busy {
        // The deadline.
        assert_eq!(
            post.await.expect("no panic").expect("an answer").status,
            503
        );
    }
    proxy.set(Mode::Pass);
    sender.send(body("again")).await;

    // Those that the sender keeps.
    let kept = ingress.metric("whatsapp_ingress_connections", "").await;
    // Bodies that have come in half.
    let mut halves = Vec::new();
    for _ in 0..5 {
        let mut half = TcpStream::connect(ingress.address())
            .await
            .expect("a connection");
        let head = "POST /webhook/meta HTTP/1.1\r\nHost: x\r\nContent-Length: 95000\r\n\r\n";
        half.write_all(head.as_bytes()).await.expect("a head");
        half.write_all(&[b'x'; 90_000]).await.expect("a half");
        halves.push(half);
    }
    // 450,000 bytes are more than 400,000; those of four aren't.
    let answered = halves.iter_mut().map(|half| {
        Box::pin(async {
            let mut answer = [0; 12];
            half.read_exact(&mut answer).await.expect("an answer");
            answer
        })
    });
    let (answer, _, others) = timeout(SOON, futures::future::select_all(answered))
        .await
        .expect("one is refused");
    assert_eq!(&answer, b"HTTP/1.1 503");
    drop(others);
    drop(halves);
    connections(&ingress, "the halves are gone", |open| open <= kept).await;
    sender.send(body("room again")).await;

    let mut open = Vec::new();
    for _ in 0..25 {
        open.push(
            TcpStream::connect(ingress.address())
                .await
                .expect("a connection"),
        );
    }
    // Those that the sender keeps make room.
    connections(&ingress, "all are open", |open| open >= 20.0 - kept).await;
    let mut last = open.pop().expect("a connection");
    assert_refused("too many connections", &read_out(&mut last).await, 503);
    drop((open, last));
    connections(&ingress, "they are gone", |open| open <= kept).await;
    sender.send(body("connections again")).await;
}

#[tokio::test]
async fn running_out_of_files_is_survived() {
    let stage = Stage::new().await;
    let mut ingress = stage.ingress().start().await;
    let sender = stage.sender(&ingress);
    let body = |text: &str| Number::fresh().message(payload::text("1111111111", text));
    sender.send(body("before")).await;
    let process = ingress.process().id();
    let files = std::fs::read_dir(format!("/proc/{process}/fd"))
        .expect("its files")
        .count();
    let limit = format!("--nofile={}", files + 10);
    let pid = process.to_string();
    let limited = std::process::Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(limited.expect("prlimit").success());
    let mut open = Vec::new();
    for _ in 0..40 {
        open.push(
            TcpStream::connect(ingress.address())
                .await
                .expect("the backlog takes it"),
        );
    }
    eventually(SOON, "it says so", async || {
        ingress
            .log()
            .contains("can't accept a connection")
            .then_some(())
    })
    .await;
    drop(open);
    sender.send(body("after")).await;
    assert_eq!(stored(&stage).await, 2);
}

#[tokio::test]
async fn a_secret_is_rotated_without_a_refused_webhook() {
    let stage = Stage::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    write("secrets", "first\n");
    write("token", "one");
    write("redis", &stage.redis.url());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ingress = stage
        .ingress()
        .without_env("META_APP_SECRETS")
        .without_env("REDIS_URL")
        .env("META_APP_SECRETS_FILE", path("secrets"))
        .env("META_VERIFY_TOKEN_FILE", path("token"))
        .env("REDIS_URL_FILE", path("redis"))
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let mut sent = 0;
    let mut post = async |secret: &str| {
        sent += 1;
        let body = number.message(payload::text("1111111111", &sent.to_string()));
        let signature = sign(secret, &body);
        let answer = sender
            .post_with(body, &[("X-Hub-Signature-256", &signature)])
            .await;
        answer.expect("an answer").status
    };
    assert_eq!((post("first").await, post("second").await), (200, 401));
    write("secrets", "second,first");
    eventually(SOON, "the second counts", async || {
        assert_eq!(post("first").await, 200, "while both are known, and before");
        (post("second").await == 200).then_some(())
    })
    .await;
    write("secrets", "second");
    eventually(SOON, "the first is gone", async || {
        assert_eq!(post("second").await, 200);
        (post("first").await == 401).then_some(())
    })
    .await;
    // A broken edit changes nothing.
    write("secrets", "");
    eventually(SOON, "it says so", async || {
        assert_eq!(post("second").await, 200);
        ingress
            .log()
            .contains("the last good one is kept")
            .then_some(())
    })
    .await;
    let challenge = async |token: &str| {
        let query =
            format!("/webhook/meta?hub.mode=subscribe&hub.verify_token={token}&hub.challenge=1");
        raw(&ingress, &get(&query))
            .await
            .starts_with("HTTP/1.1 200")
    };
    assert!(challenge("one").await && !challenge("two").await);
    write("token", "two");
    eventually(SOON, "the other token", async || {
        challenge("two").await.then_some(())
    })
    .await;
    assert!(!challenge("one").await);
    // Redis gets a password; the old connection stays as it is, a new one has it.
    let mut redis = stage.redis.connection().await;
    let mut require = redis::cmd("CONFIG");
    require
        .arg("SET")
        .arg("requirepass")
        .arg("p")
        .exec_async(&mut redis)
        .await
        .expect("CONFIG SET");
    write(
        "redis",
        &stage.redis.url().replace("redis://", "redis://:p@"),
    );
    eventually(SOON, "the new password is used", async || {
        assert_eq!(post("second").await, 200);
        let log = ingress.log();
        log.contains(r#""variable":"REDIS_URL""#).then_some(())
    })
    .await;
    redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .exec_async(&mut redis)
        .await
        .expect("CLIENT KILL");
    assert_eq!(post("second").await, 200);
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_nothing_half_done() {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let redis_url = format!("redis://{}", proxy.address());
    let ingress = stage.ingress().env("REDIS_URL", redis_url).start().await;
    let number = Number::fresh();
    let items = (0..3).map(|n| payload::text("1111111111", &n.to_string()));
    let body = webhook([payload::entry(&number.waba_id, [number.messages(items)])]);
    let head = format!(
        "POST /webhook/meta HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nX-Hub-Signature-256: {}\r\n\r\n",
        body.len(),
        sign(APP_SECRET, &body)
    );
    proxy.set(Mode::Slow(Duration::from_millis(100)));
    let mut stream = TcpStream::connect(ingress.address())
        .await
        .expect("a connection");
    stream.write_all(head.as_bytes()).await.expect("a head");
    stream.write_all(&body).await.expect("a body");
    eventually(SOON, "it is in work", async || {
        (ingress.metric("whatsapp_ingress_in_flight", "").await >= 1.0).then_some(())
    })
    .await;
    stream.set_zero_linger().expect("an option");
    drop(stream);
    eventually(SOON, "it is given up", async || {
        (ingress.metric("whatsapp_ingress_in_flight", "").await == 0.0).then_some(())
    })
    .await;
    proxy.set(Mode::Pass);
    stage.sender(&ingress).send(body).await;
    eventually(SOON, "it is there once", async || {
        (stored(&stage).await == 1).then_some(())
    })
    .await;
}
