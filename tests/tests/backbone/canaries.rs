//! Whatever the object store answers, and to whichever command or route: what is told of it names no
//! message and no person.

use std::net::Ipv4Addr;

use reqwest::StatusCode;
use tests::meta::payload;
use tests::programs::{Program, Worker};
use tests::waiting::eventually;
use tests::{Stage, StageOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::SOON;
use crate::commands::run_with;

const TOKEN: &str = "an-admin-token";
const PHONE: &str = "4915100000077";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An answer that repeats what was asked for, as stores do.
    Status(u16),
    /// An answer that ends in the middle.
    Cut,
    /// No answer.
    Close,
    Hang,
}

/// What still works of a store that fails.
#[derive(Debug, Clone)]
pub(crate) enum Works {
    Nothing,
    /// Listing folders; each has one.
    Folders,
    /// Listing; each folder has an object of this message.
    Listings(String),
}

/// An object store that fails: its URL, for as long as the guard lives.
pub(crate) async fn failing_store(fault: Fault, works: Works) -> (String, DropGuard) {
    let address = (Ipv4Addr::LOCALHOST, tests::ports::free());
    let listener = TcpListener::bind(address).await.expect("a listener");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(stopped.run_until_cancelled_owned(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, fault, works.clone()));
        }
    }));
    (url, stop.drop_guard())
}

async fn serve(mut stream: TcpStream, fault: Fault, works: Works) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = stream.read(&mut buffer).await
        && length > 0
    {
        let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let asked = request.split(' ').nth(1).unwrap_or_default();
        let (status, cut, body) = match (listing(asked, &works), fault) {
            (Some(listing), _) => (200, 0, listing),
            (None, Fault::Status(status)) => (status, 0, repeated(asked)),
            (None, Fault::Cut) => (200, 20, repeated(asked)),
            (None, Fault::Close) => return,
            (None, Fault::Hang) => std::future::pending().await,
        };
        let length = body.len() + cut;
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
        if stream.write_all(answer.as_bytes()).await.is_err() || cut > 0 {
            return;
        }
    }
}

fn repeated(asked: &str) -> String {
    format!("<Error><Code>No</Code><Message>not {asked}</Message><Key>{asked}</Key></Error>")
}

fn listing(asked: &str, works: &Works) -> Option<String> {
    let url = reqwest::Url::parse(&format!("http://store{asked}")).ok()?;
    let value = |name: &str| {
        let mut pairs = url.query_pairs();
        pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    };
    value("list-type")?;
    let prefix = value("prefix").unwrap_or_default();
    let inner = match (works, value("delimiter")) {
        (Works::Folders | Works::Listings(_), Some(_)) => {
            format!("<CommonPrefixes><Prefix>{prefix}t/</Prefix></CommonPrefixes>")
        }
        (Works::Listings(wamid), None) => format!(
            "<Contents><Key>{prefix}{wamid}.json</Key><Size>9</Size>\
             <LastModified>2026-01-02T00:00:00.000Z</LastModified></Contents>"
        ),
        (Works::Nothing, _) | (Works::Folders, None) => return None,
    };
    Some(format!(
        "<ListBucketResult>{inner}<IsTruncated>false</IsTruncated></ListBucketResult>"
    ))
}

/// Runs every command that names an id, and what it says besides its report.
async fn commands(worker: &Worker, store: &str, wamid: &str) -> Vec<(String, String)> {
    let commands: [&[&str]; 11] = [
        &["presign", wamid],
        &["presign", wamid, "--tenant", "t"],
        &["inspect", wamid],
        &["inspect", wamid, "--tenant", "t", "--day", "2026-01-02"],
        &["failed", "show", wamid],
        &["failed", "discard", wamid, "--yes"],
        &["cat", wamid],
        &["replay", "--message-id", wamid],
        &[
            "replay",
            "--source",
            "archive",
            "--from",
            "2h",
            "--message-id",
            wamid,
        ],
        &["erase", "--customer", PHONE, "--yes"],
        &["doctor"],
    ];
    let settings = [("MINIO_ENDPOINT", store), ("LOG_LEVEL", "trace")];
    let said = commands.map(async |command| {
        let output = run_with(worker, command, &settings).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (format!("{command:?}"), said)
    });
    futures::future::join_all(said).await
}

/// Asks the admin route for the media of a message.
async fn media(worker: &Program, wamid: &str) -> reqwest::Result<(StatusCode, String)> {
    let url = format!("http://{}/media/t/{wamid}", worker.admin());
    let answer = reqwest::Client::new()
        .get(url)
        .bearer_auth(TOKEN)
        .send()
        .await?;
    Ok((answer.status(), answer.text().await?))
}

#[track_caller]
fn assert_discreet(program: &Program, what: &str, said: &str) {
    let found = program.private_parts(said);
    assert!(found.is_empty(), "{what} tells {found:?}: {said}");
}

/// A worker and its commands on a store that fails.
async fn nothing_is_told(fault: Fault, works: impl Fn(String) -> Works) {
    // Nothing is published here: a virtual host of its own would only be work for the broker.
    let amqp_url = Some("amqp://127.0.0.1:1".to_owned());
    let stage = Stage::with(StageOptions {
        amqp_url,
        ..StageOptions::default()
    })
    .await;
    let wamid = payload::wamid();
    let (store, _guard) = failing_store(fault, works(wamid.clone())).await;
    let worker = stage.worker().env("WORKER_ADMIN_TOKEN", TOKEN);
    let worker = worker
        .env("MINIO_ENDPOINT", &store)
        .env("LOG_LEVEL", "trace");
    let mut worker = worker.until(tests::programs::Until::Healthy).start().await;
    tests::canaries::phone(PHONE);
    if fault != Fault::Hang {
        for (command, said) in commands(&worker, &store, &wamid).await {
            assert_discreet(&worker, &format!("{fault:?}: {command}"), &said);
        }
    }
    let (status, said) = media(&worker, &wamid).await.expect("an answer");
    // Else it has what was asked for.
    if status != StatusCode::OK {
        assert_discreet(&worker, "the route", &said);
        eventually(SOON, "a line about it", async || {
            worker.log().contains("can't be listed").then_some(())
        })
        .await;
    }
    let (_, metrics) = worker.get("/metrics").await.expect("metrics");
    assert_discreet(&worker, "/metrics", &metrics);
    assert_eq!(worker.leaks(), Vec::<String>::new());
}

#[tokio::test]
async fn a_store_that_refuses_is_told_without_ids() {
    tokio::join!(
        nothing_is_told(Fault::Status(403), |_| Works::Nothing),
        nothing_is_told(Fault::Status(403), |_| Works::Folders),
        nothing_is_told(Fault::Status(403), Works::Listings),
    );
}

#[tokio::test]
async fn a_store_that_fails_is_told_without_ids() {
    tokio::join!(
        nothing_is_told(Fault::Status(500), |_| Works::Nothing),
        nothing_is_told(Fault::Status(500), |_| Works::Folders),
        nothing_is_told(Fault::Status(500), Works::Listings),
    );
}

#[tokio::test]
async fn a_store_that_understands_nothing_is_told_without_ids() {
    tokio::join!(
        nothing_is_told(Fault::Status(400), |_| Works::Nothing),
        nothing_is_told(Fault::Status(400), |_| Works::Folders),
        nothing_is_told(Fault::Status(400), Works::Listings),
    );
}

#[tokio::test]
async fn a_store_that_breaks_off_is_told_without_ids() {
    tokio::join!(
        nothing_is_told(Fault::Cut, |_| Works::Nothing),
        nothing_is_told(Fault::Cut, |_| Works::Folders),
        nothing_is_told(Fault::Cut, Works::Listings),
    );
}

#[tokio::test]
async fn a_store_that_closes_is_told_without_ids() {
    tokio::join!(
        nothing_is_told(Fault::Close, |_| Works::Nothing),
        nothing_is_told(Fault::Close, |_| Works::Folders),
        nothing_is_told(Fault::Close, Works::Listings),
    );
}

#[tokio::test]
async fn a_store_that_hangs_is_told_without_ids() {
    nothing_is_told(Fault::Hang, |_| Works::Folders).await;
}
