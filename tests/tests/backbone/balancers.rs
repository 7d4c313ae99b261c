//! The listeners as balancers meet them: probes by HEAD, connections kept open, an orderly end.

use std::time::Duration;

use tests::meta::payload::{self, Number};
use tests::meta::sign;
use tests::programs::{APP_SECRET, Program};
use tests::waiting::{eventually, poll};
use tests::{Stage, ports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::SOON;

/// All that is answered until the other side closes.
async fn asked(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request).await.expect("a request");
    let mut answer = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
    // A reset ends it too.
    drop(read.expect("it ends"));
    String::from_utf8_lossy(&answer).into_owned()
}

fn webhook(headers: &str) -> Vec<u8> {
    let body = Number::fresh().message(payload::text("15550001", "hi"));
    let head = format!(
        "POST /webhook/meta HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nX-Hub-Signature-256: {}\r\n{headers}\r\n",
        body.len(),
        sign(APP_SECRET, &body)
    );
    [head.as_bytes(), &body[..]].concat()
}

/// A connection over which a webhook was taken.
async fn kept_open(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let (status, _) = posted(&mut stream).await.expect("an answer");
    assert_eq!(status, "HTTP/1.1 200");
    stream
}

/// The answer's status, and the rest of its head.
async fn posted(stream: &mut TcpStream) -> std::io::Result<(String, String)> {
    stream.write_all(&webhook("")).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (status, rest) = answer.split_at_checked(12).unwrap_or((&answer, ""));
    Ok((status.to_owned(), rest.to_owned()))
}

/// Waits until the other side closes.
async fn closed(stream: &mut TcpStream) {
    let read = timeout(SOON, stream.read(&mut [0])).await;
    assert!(matches!(read.expect("it closes"), Ok(0) | Err(_)));
}

#[tokio::test]
async fn head_is_answered_as_get_without_the_body() {
    let stage = Stage::new().await;
    let (ingress, worker) = tokio::join!(stage.ingress().start(), stage.worker().start());
    let admin = ["/health", "/ready", "/metrics", "/"];
    for (address, paths) in [
        (ingress.address(), &admin[..2]),
        (ingress.admin(), &admin[..]),
        (worker.admin(), &admin[..]),
    ] {
        for path in paths {
            let request = |method| {
                format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            };
            let got = asked(address, request("GET").as_bytes()).await;
            let (head, body) = got.split_once("\r\n\r\n").expect("a body");
            assert!(
                head.starts_with("HTTP/1.1 200") && !body.is_empty(),
                "{got}"
            );
            let told = asked(address, request("HEAD").as_bytes()).await;
            let (head, body) = told.split_once("\r\n\r\n").expect("an end");
            assert!(head.starts_with("HTTP/1.1 200"), "{address} {path}: {told}");
            assert!(head.contains("content-length: "), "{told}");
            assert_eq!(body, "", "{address} {path}");
        }
    }
}

#[tokio::test]
async fn a_body_whose_coding_is_identity_or_nothing_is_taken() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    for (coding, status) in [
        ("identity", "200"),
        ("Identity", "200"),
        ("", "200"),
        ("gzip", "415"),
        ("identity\r\nContent-Encoding: br", "415"),
    ] {
        let headers = format!("Connection: close\r\nContent-Encoding: {coding}\r\n");
        let answer = asked(ingress.address(), &webhook(&headers)).await;
        assert_eq!(answer.get(9..12), Some(status), "{coding:?}: {answer}");
    }
}

#[tokio::test]
async fn the_proxy_protocol_is_refused_and_named_in_one_line() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let told = || {
        let log = ingress.log();
        log.lines()
            .filter(|line| line.contains("PROXY protocol"))
            .count()
    };
    let version_2 =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02";
    for (before, header) in [&b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 443\r\n"[..], version_2]
        .into_iter()
        .enumerate()
    {
        // The log is written once a second at most.
        eventually(SOON, "a line about it", async || {
            let answer = asked(ingress.address(), &[header, &webhook("")[..]].concat()).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            (told() > before).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_idle_connection_stays_for_as_long_as_is_set() {
    let stage = Stage::new().await;
    let builder = stage.ingress().env("HEADER_TIMEOUT", "100ms");
    let brief = builder.env("KEEP_ALIVE_TIMEOUT", "1s").start().await;
    let mut open = kept_open(brief.address()).await;
    let (status, _) = posted(&mut open).await.expect("it is open still");
    assert_eq!(status, "HTTP/1.1 200");
    closed(&mut open).await;
}

#[tokio::test]
async fn idle_connections_make_room_when_connections_get_scarce() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().env("MAX_CONNECTIONS", 20).start().await;
    let mut idle = Vec::new();
    // One after the other, so that each finds room: 60 fit into 20.
    for _ in 0..60 {
        let open = eventually(SOON, "a connection that is served", async || {
            let mut stream = TcpStream::connect(ingress.address()).await.ok()?;
            let (status, _) = posted(&mut stream).await.ok()?;
            (status == "HTTP/1.1 200").then_some(stream)
        });
        idle.push(open.await);
    }
}

/// Whether the program says that it is ready.
async fn is_ready(program: &Program) -> Option<bool> {
    let (status, _) = program.get("/ready").await.ok()?;
    Some(status.is_success())
}

#[tokio::test]
async fn told_to_stop_it_says_so_before_it_takes_no_more_connections() {
    let stage = Stage::new().await;
    let builder = stage.ingress().env("SHUTDOWN_DELAY", "3s");
    let mut ingress = builder.start().await;
    assert_eq!(is_ready(&ingress).await, Some(true));
    ingress.signal("TERM");
    let left = async || (is_ready(&ingress).await == Some(false)).then_some(());
    assert_eq!(poll(SOON, left).await, Some(()), "/ready says no");
    kept_open(ingress.address()).await;
    ingress.process().wait(SOON).await.expect("it ends");
    // Without the setting there is no such time.
    let mut ingress = stage.ingress().start().await;
    ingress.signal("TERM");
    let refused = async || TcpStream::connect(ingress.address()).await.err();
    assert!(poll(SOON, refused).await.is_some());
    ingress.process().wait(SOON).await.expect("it ends");
}

#[tokio::test]
async fn a_listener_on_all_addresses_of_version_6_serves_version_4_too() {
    let stage = Stage::new().await;
    let (port, admin) = (ports::free(), ports::free());
    let builder = stage
        .ingress()
        .env("INGRESS_LISTEN", format!("[::]:{port}"));
    let builder = builder.env("INGRESS_ADMIN_LISTEN", format!("[::]:{admin}"));
    let ingress = builder.until(tests::programs::Until::Spawned).start().await;
    for host in ["127.0.0.1", "[::1]"] {
        let address = format!("{host}:{port}");
        eventually(SOON, "it listens", async || {
            TcpStream::connect(&address).await.ok()
        })
        .await;
        kept_open(&address).await;
    }
    let mut health = ingress.command();
    assert!(health.arg("health").status().expect("it runs").success());
}

#[test]
fn balancers_close_their_idle_connections_before_ingress_does() {
    let example = include_str!("../../../.env.example");
    let line = example
        .lines()
        .find_map(|line| line.strip_prefix("#KEEP_ALIVE_TIMEOUT="));
    let kept = shared::config::duration(line.expect("the setting")).expect("a duration");
    assert!(
        kept > Duration::from_secs(600),
        "Google's balancer keeps one for 600 s"
    );
}
