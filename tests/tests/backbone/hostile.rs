//! What a stranger on the internet may send: every answer is the expected one, nothing of it reaches
//! Redis or a log, and ingress neither grows nor stops.

use std::time::Duration;

use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::meta::sign;
use tests::programs::{APP_SECRET, Ingress, Program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{SOON, stored};

/// In paths, headers and bodies; must be in no log.
const CANARY: &str = "c4n4ry";
/// Debug builds, with the 64 MiB that bodies may take.
const MOST_MEMORY_MB: u64 = 256;

/// Everything that was answered to `request` until the connection ended, or nothing came any more.
async fn answers(ingress: &Ingress, request: &[u8]) -> String {
    let stream = TcpStream::connect(ingress.address())
        .await
        .expect("a connection");
    let (mut from, mut to) = stream.into_split();
    let mut answer = Vec::new();
    let writing = async {
        // What is refused is not read to its end.
        drop(to.write_all(request).await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = writing => {}
        read = timeout(SOON, from.read_to_end(&mut answer)) => {
            // A reset ends it too.
            drop(read.expect("it ends"));
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of all answers, `100 Continue` aside.
fn statuses(answers: &str) -> Vec<u16> {
    let lines = answers.split("HTTP/1.").skip(1);
    lines
        .filter_map(|line| line.get(2..5)?.parse().ok())
        .filter(|status| *status != 100)
        .collect()
}

/// The largest that a process has been, in MB.
pub(crate) fn peak_memory_mb(program: &mut Program) -> u64 {
    let status = format!("/proc/{}/status", program.process().id());
    let status = std::fs::read_to_string(status).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb = line.and_then(|kb| kb.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kb.expect("VmHWM") / 1024
}

/// Calls of Redis since its counters were reset, without those of the probes and of this test.
async fn calls_of_redis(stage: &Stage) -> Vec<String> {
    let mut redis = stage.redis.connection().await;
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut redis)
        .await
        .expect("INFO");
    let names = stats.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        Some(name.to_owned())
    });
    let probes = [
        "ping", "info", "config", "client", "hello", "command", "xlen", "hget",
    ];
    names
        .filter(|name| !probes.iter().any(|probe| name.starts_with(probe)))
        .collect()
}

async fn forget_calls(stage: &Stage) {
    let mut redis = stage.redis.connection().await;
    redis::cmd("CONFIG")
        .arg("RESETSTAT")
        .exec_async(&mut redis)
        .await
        .expect("CONFIG RESETSTAT");
}

fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /webhook/meta HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn with_target(method: &str, target: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

/// A head of a webhook, then whatever.
fn head(lines: &str) -> String {
    format!("POST /webhook/meta HTTP/1.1\r\nHost: x\r\n{lines}")
}

struct Case {
    name: &'static str,
    request: Vec<u8>,
    /// One of these, or nothing at all where there is none.
    expected: &'static [u16],
}

fn case(name: &'static str, request: impl Into<Vec<u8>>, expected: &'static [u16]) -> Case {
    Case {
        name,
        request: request.into(),
        expected,
    }
}

/// Signatures that are none, for a body whose right one is `right`.
fn unsigned(body: &[u8], right: &str) -> Vec<Case> {
    let signed = |value: &str| post(&format!("X-Hub-Signature-256: {value}\r\n"), body);
    let (_, hex) = right.split_once('=').expect("a signature");
    let other = sign(APP_SECRET, b"{}");
    let mut bit_off = right.to_owned();
    let last = if right.ends_with('0') { '1' } else { '0' };
    bit_off.pop();
    bit_off.push(last);
    let slashes = String::from_utf8_lossy(body).replace("\\/", "/");
    assert_ne!(slashes.as_bytes(), body);
    let mut cases = vec![
        case("1 none", post("", body), &[401]),
        case(
            "2 two, the right one first",
            signed(&format!("{right}\r\nX-Hub-Signature-256: {other}")),
            &[401],
        ),
        case(
            "2 two, the right one last",
            signed(&format!("{other}\r\nX-Hub-Signature-256: {right}")),
            &[401],
        ),
        case(
            "2 the same twice",
            signed(&format!("{right}\r\nx-hub-signature-256: {right}")),
            &[401],
        ),
        case(
            "3 63 digits",
            signed(
                right
                    .strip_suffix(char::is_alphanumeric)
                    .unwrap_or_default(),
            ),
            &[401],
        ),
        case("3 65 digits", signed(&format!("{right}0")), &[401]),
        case(
            "3 no hex",
            signed(&format!("sha256={}", "g".repeat(64))),
            &[401],
        ),
        case(
            "3 upper case",
            signed(&format!("sha256={}", hex.to_uppercase())),
            &[401],
        ),
        case(
            "4 SHA-1 only",
            post(
                &format!(
                    "X-Hub-Signature: sha1={}\r\n",
                    hex.get(..40).unwrap_or_default()
                ),
                body,
            ),
            &[401],
        ),
        case("5 another name", signed(&format!("SHA256={hex}")), &[401]),
        case("5 space within", signed(&format!("sha256= {hex}")), &[401]),
        case("5 quoted", signed(&format!("\"{right}\"")), &[401]),
        case("5 a list", signed(&format!("{right}, {other}")), &[401]),
        case("6 of another body", signed(&other), &[401]),
        case("6 a bit off", signed(&bit_off), &[401]),
        case(
            "6 of the JSON written otherwise",
            post(
                &format!("X-Hub-Signature-256: {right}\r\n"),
                slashes.as_bytes(),
            ),
            &[401],
        ),
        // It fits into the headers: a wrong one like any other.
        case("10 9 KiB", signed(&"a".repeat(9 * 1024)), &[401]),
    ];
    let mut no_ascii = head(&format!(
        "Connection: close\r\nContent-Length: {}\r\nX-Hub-Signature-256: sha256=",
        body.len()
    ))
    .into_bytes();
    no_ascii.extend([&[0xff, 0xfe][..], b"\r\n\r\n", body].concat());
    cases.push(case("9 no ASCII", no_ascii, &[401]));
    cases
}

/// Bodies that stop, or never do.
fn sizes(right: &str) -> Vec<Case> {
    let signature = format!("X-Hub-Signature-256: {right}\r\n");
    let chunked = |rest: &str| {
        head(&format!(
            "{signature}Transfer-Encoding: chunked\r\n\r\n{rest}"
        ))
    };
    vec![
        case(
            "11 101 headers",
            head(&"A: b\r\n".repeat(101)) + "\r\n",
            &[431],
        ),
        case(
            "11 64 KiB of headers",
            head(&format!("A: {}\r\n\r\n", CANARY.repeat(11_000))),
            &[431],
        ),
        case("12 headers that stop", head("X-Slow: c4n4ry"), &[408]),
        case("13 nothing", "", &[]),
        case(
            "14 a body that stops",
            head("Content-Length: 9\r\n\r\n{"),
            &[408],
        ),
        case(
            "16 declared too large",
            head("Content-Length: 4194305\r\n\r\n"),
            &[413],
        ),
        case(
            "17 chunked without end",
            chunked(&format!("10000\r\n{}\r\n", "x".repeat(65_536)).repeat(80)),
            &[413],
        ),
        case(
            "18 a million chunks of a byte",
            chunked(&("1\r\nx\r\n".repeat(1_000_000) + "0\r\n\r\n")),
            &[401, 408],
        ),
        case(
            "19 chunk extensions",
            chunked(&format!("1;{}\r\nx\r\n0\r\n\r\n", "a=b;".repeat(20_000))),
            &[400],
        ),
        case(
            "19 a giant trailer",
            chunked(&format!("1\r\nx\r\n0\r\n{}\r\n", "A: b\r\n".repeat(20_000))),
            &[400],
        ),
        case(
            "19 a chunk of 2^64",
            chunked("ffffffffffffffff0\r\nx\r\n"),
            &[400],
        ),
    ]
}

/// Framings that are two, or none.
fn framings(body: &[u8], right: &str) -> Vec<Case> {
    let signature = format!("X-Hub-Signature-256: {right}\r\n");
    let body = String::from_utf8_lossy(body).into_owned();
    let length = body.len();
    let lengths = |value: &str| head(&format!("{signature}Content-Length: {value}\r\n\r\n{body}"));
    // The rest of a smuggled request would be the next one's.
    let smuggled =
        format!("{length:x}\r\n{body}\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    vec![
        case(
            "20 length, then chunked",
            head(&format!(
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{smuggled}"
            )),
            &[401],
        ),
        case(
            "20 chunked, then length",
            head(&format!(
                "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{smuggled}"
            )),
            &[401],
        ),
        case(
            "20 an encoding nobody knows",
            head(&format!(
                "{signature}Transfer-Encoding: xchunked\r\n\r\n{smuggled}"
            )),
            &[400],
        ),
        case(
            "20 chunked, and something after it",
            head(&format!(
                "{signature}Transfer-Encoding: chunked, gzip\r\n\r\n{smuggled}"
            )),
            &[400],
        ),
        case(
            "21 two lengths",
            lengths(&format!("{length}\r\nContent-Length: 4")),
            &[400],
        ),
        case("23 negative", lengths("-1"), &[400]),
        case("23 with a sign", lengths(&format!("+{length}")), &[400]),
        case("23 hex", lengths("0x10"), &[400]),
        case("23 2^64", lengths("18446744073709551616"), &[400]),
        case("23 a list", lengths(&format!("{length}, {length}")), &[400]),
    ]
}

/// Heads that are none.
fn heads(right: &str) -> Vec<Case> {
    let signature = format!("X-Hub-Signature-256: {right}\r\n");
    vec![
        case(
            "24 folded",
            head(&format!("X: a\r\n c4n4ry\r\n{signature}\r\n")),
            &[400],
        ),
        case("24 space before the colon", head("X : a\r\n\r\n"), &[400]),
        case("24 NUL", head("X: a\0c4n4ry\r\n\r\n"), &[400]),
        case("24 CR alone", head("X: a\rY: c4n4ry\r\n\r\n"), &[400]),
        case(
            "27 100-continue, then nothing",
            head("Expect: 100-continue\r\nContent-Length: 9\r\n\r\n"),
            &[408],
        ),
        case("28 HTTP/0.9", "GET /\r\n\r\n", &[400]),
        case("28 HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[]),
        case("28 HTTP/9.9", "GET / HTTP/9.9\r\n\r\n", &[400, 505]),
        case(
            "29 TLS",
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03c4n4ry\r\n\r\n"[..],
            &[400],
        ),
        case(
            "29 noise",
            (0..=255_u8)
                .cycle()
                .map(|n| n.wrapping_mul(167))
                .take(4096)
                .collect::<Vec<_>>(),
            &[400],
        ),
    ]
}

/// Requests that are well formed and have nothing to look for here.
fn requests() -> Vec<Case> {
    let target = with_target;
    let old = "POST /webhook/meta HTTP/1.0\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    vec![
        // RFC 9112 has servers take it: the path is what counts.
        case(
            "25 absolute form",
            target("POST", "http://x/webhook/meta"),
            &[401],
        ),
        case(
            "25 absolute form of another path",
            target("GET", "http://x/metrics"),
            &[404],
        ),
        case("25 an empty part", target("POST", "//webhook/meta"), &[404]),
        case("25 dots", target("POST", "/webhook/../admin"), &[404]),
        case(
            "25 encoded dots",
            target("POST", "/webhook/%2e%2e/webhook/meta"),
            &[404],
        ),
        case("25 encoded", target("POST", "/webhook%2fmeta"), &[404]),
        case("25 NUL", target("POST", "/webhook/meta\0"), &[400]),
        case(
            "25 a semicolon",
            target("POST", "/webhook/meta;c4n4ry"),
            &[404],
        ),
        case("26 PUT", target("PUT", "/webhook/meta"), &[405]),
        case("26 DELETE", target("DELETE", "/webhook/meta"), &[405]),
        case("26 TRACE", target("TRACE", "/webhook/meta"), &[405]),
        case("26 OPTIONS", target("OPTIONS", "/webhook/meta"), &[405]),
        case("26 OPTIONS of all", target("OPTIONS", "*"), &[404]),
        case("26 CONNECT", target("CONNECT", "c4n4ry:80"), &[404]),
        case(
            "26 a method of its own",
            target("C4N4RY", "/webhook/meta"),
            &[405],
        ),
        case("28 HTTP/1.0", old, &[401]),
    ]
}

/// Encodings, and what is no business of a stranger.
fn contents(body: &[u8]) -> Vec<Case> {
    vec![
        case(
            "31 a bomb",
            post("Content-Encoding: gzip\r\n", &[0x1f; 1000]),
            &[415],
        ),
        case(
            "31 said to be nothing",
            post("Content-Encoding: identity\r\n", body),
            &[401],
        ),
        case(
            "35 an address that is made up",
            post("X-Forwarded-For: c4n4ry, 2.2.2.2\r\n", body),
            &[401],
        ),
        case("94 metrics", with_target("GET", "/metrics"), &[404]),
        case("94 replay", with_target("POST", "/replay"), &[404]),
        case("94 debug", with_target("GET", "/debug/pprof"), &[404]),
        case(
            "94 media",
            with_target("GET", "/media/t/wamid.c4n4ry"),
            &[404],
        ),
    ]
}

fn challenges() -> Vec<Case> {
    let challenge = |query: &str| with_target("GET", &format!("/webhook/meta?{query}"));
    const RIGHT: &str = "hub.mode=subscribe&hub.verify_token=t0k3n-right";
    vec![
        case(
            "36 another token",
            challenge("hub.mode=subscribe&hub.verify_token=t0k3n-c4n4ry&hub.challenge=1"),
            &[403],
        ),
        case(
            "36 a piece of the token",
            challenge("hub.mode=subscribe&hub.verify_token=t0k3n-righ&hub.challenge=1"),
            &[403],
        ),
        case(
            "36 no mode",
            challenge("hub.verify_token=t0k3n-right&hub.challenge=1"),
            &[403],
        ),
        case(
            "37 markup",
            challenge(&format!("{RIGHT}&hub.challenge=%3Cscript%3E")),
            &[400],
        ),
        case(
            "37 a header",
            challenge(&format!("{RIGHT}&hub.challenge=1%0d%0aX-C4n4ry:%201")),
            &[400],
        ),
        case(
            "37 given twice",
            challenge(&format!("{RIGHT}&hub.challenge=1&hub.challenge=2")),
            &[400],
        ),
        case(
            "37 20 KB",
            challenge(&format!("{RIGHT}&hub.challenge={}", "1".repeat(20_000))),
            &[400],
        ),
        case(
            "37 1 MB",
            challenge(&format!("{RIGHT}&hub.challenge={}", "1".repeat(1_000_000))),
            &[414, 431],
        ),
        case("38 no query", challenge(""), &[403]),
        case(
            "38 underscores",
            challenge("hub_mode=subscribe&hub_verify_token=t0k3n-right&hub_challenge=1"),
            &[403],
        ),
    ]
}

/// What is wrong with the answer to a request, if anything is.
fn wrong(case: &Case, said: &str) -> Option<String> {
    let (name, expected) = (case.name, case.expected);
    let fits = match statuses(said)[..] {
        [status] => expected.contains(&status),
        [] => expected.is_empty(),
        _ => false,
    };
    // Of what is no HTTP, hyper refuses the head itself, with nothing but a status. And which of two
    // lengths a proxy in front believed is not known: nothing may follow.
    let bare = said.contains("content-length: 0\r\n");
    let mut parts = Vec::new();
    if name.starts_with("20 ") || fits && bare {
        parts.push("connection: close\r\n");
    }
    if fits && !bare && !expected.is_empty() {
        parts.extend([
            "content-type: application/problem+json\r\n",
            "x-correlation-id: ",
        ]);
    }
    let well = fits && parts.iter().all(|part| said.contains(part));
    (!well).then(|| format!("{name}: {said:.300}, not {expected:?}"))
}

/// A body that is shorter than it said.
async fn assert_short_is_refused(ingress: &Ingress, body: &[u8], right: &str) {
    let mut short = TcpStream::connect(ingress.address())
        .await
        .expect("a connection");
    let request = head(&format!(
        "X-Hub-Signature-256: {right}\r\nContent-Length: {}\r\n\r\n",
        body.len() + 1
    ));
    short
        .write_all(&[request.as_bytes(), body].concat())
        .await
        .expect("a request");
    short.shutdown().await.expect("the end");
    let mut answer = Vec::new();
    let read = timeout(SOON, short.read_to_end(&mut answer)).await;
    drop(read.expect("it ends"));
    let statuses = statuses(&String::from_utf8_lossy(&answer));
    assert!(matches!(statuses[..], [] | [400]));
}

/// However a right signature may be written.
async fn assert_right_is_taken(ingress: &Ingress, body: &[u8], right: &str) {
    // A header's value is told without the spaces around it (RFC 9112).
    let spaced = post(&format!("X-Hub-Signature-256: \t {right} \t\r\n"), body);
    // And with a line's end alone, which a server may take for one.
    let request =
        String::from_utf8(post(&format!("X-Hub-Signature-256: {right}\r\n"), b"")).expect("text");
    let bare = request
        .replace("\r\n", "\n")
        .replace("Length: 0", &format!("Length: {}", body.len()));
    let bare = [bare.as_bytes(), body].concat();
    let previous = sign("previous", body);
    let previous = post(&format!("X-Hub-Signature-256: {previous}\r\n"), body);
    for request in [spaced, bare, previous] {
        assert_eq!(statuses(&answers(ingress, &request).await), [200]);
    }
    let further = ingress.metric("whatsapp_ingress_signed_by_further_secret_total", "");
    assert!(further.await >= 1.0);
}

/// No header of the answer is made of a header of the request.
async fn assert_nothing_is_echoed(ingress: &Ingress) {
    for id in [
        "x",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "6ba7b8109dad41d180b400c04fd430c8",
        "{6ba7b810-9dad-41d1-80b4-00c04fd430c8}",
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8\tX: y",
    ] {
        let said = answers(ingress, &post(&format!("X-Correlation-Id: {id}\r\n"), b"")).await;
        assert!(!said.contains(&format!("x-correlation-id: {id}")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_the_expected_answer_and_nothing_else() {
    let stage = Stage::new().await;
    let mut ingress = stage
        .ingress()
        .env("META_APP_SECRETS", format!("{APP_SECRET},previous"))
        .env("META_VERIFY_TOKEN", "t0k3n-right")
        .env("HEADER_TIMEOUT", "500ms")
        .env("BODY_TIMEOUT", "3s")
        .env("LOG_LEVEL", "debug")
        .start()
        .await;
    let body = Number::fresh().message(payload::text("16505551234", &format!("a/b {CANARY}")));
    let right = sign(APP_SECRET, &body);
    forget_calls(&stage).await;
    let mut all_wrong = Vec::new();
    let tables = [
        unsigned(&body, &right),
        sizes(&right),
        framings(&body, &right),
        heads(&right),
        requests(),
        contents(&body),
        challenges(),
    ];
    for case in tables.into_iter().flatten() {
        let said = answers(&ingress, &case.request).await;
        all_wrong.extend(wrong(&case, &said));
    }
    assert!(all_wrong.is_empty(), "{}", all_wrong.join("\n"));
    assert_short_is_refused(&ingress, &body, &right).await;
    assert_eq!(calls_of_redis(&stage).await, Vec::<String>::new());
    assert_eq!(stored(&stage).await, 0);
    let log = ingress.log();
    for secret in [CANARY, "C4N4RY", &right, "t0k3n"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    assert!(peak_memory_mb(&mut ingress) < MOST_MEMORY_MB);

    // Who asks from outside learns that a server is well, not which settings it has.
    let ready = answers(&ingress, &with_target("GET", "/ready")).await;
    assert!(
        ready.contains("\"ok\":true") && !ready.contains("warnings") && !ready.contains("problem"),
        "{ready}"
    );
    assert_right_is_taken(&ingress, &body, &right).await;
    assert_eq!(stored(&stage).await, 1);
    assert_nothing_is_echoed(&ingress).await;
}

/// Series of `/metrics`.
async fn series(program: &Program) -> usize {
    let (_, text) = program.get("/metrics").await.expect("/metrics");
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_leaves_no_trace_and_holds_nobody_up() {
    const FLOOD: usize = 5000;
    let stage = Stage::new().await;
    let mut ingress = stage.ingress().start().await;
    let sender = stage.sender(&ingress);
    sender
        .send(Number::fresh().message(payload::text("1111111111", "before")))
        .await;
    // Who never reads his answers.
    let mut deaf = TcpStream::connect(ingress.address())
        .await
        .expect("a connection");
    let asked = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50_000);
    drop(timeout(Duration::from_secs(1), deaf.write_all(&asked)).await);
    let thousand = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".repeat(999);
    let last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let said = answers(&ingress, &[&thousand[..], last].concat()).await;
    assert_eq!(statuses(&said), [200; 1000]);

    let before = series(&ingress).await;
    forget_calls(&stage).await;
    let posts = (0..FLOOD).map(|n| {
        let (sender, number) = (sender.clone(), Number::fresh());
        async move {
            let body = number.message(payload::text("1111111111", CANARY));
            let signature = sign("guess", &body);
            let agent = format!("{CANARY}/{n}");
            let headers = [("X-Hub-Signature-256", &*signature), ("User-Agent", &agent)];
            let answer = sender.post_with(body, &headers).await.expect("an answer");
            assert_eq!(answer.status, 401);
        }
    });
    let lines_before = ingress.log().lines().count();
    let start = tokio::time::Instant::now();
    futures::StreamExt::for_each_concurrent(futures::stream::iter(posts), 64, |post| post).await;
    let seconds = start.elapsed().as_secs() as usize;
    let lines = ingress.log().lines().count() - lines_before;
    // One of the refusal and one of the answer, in each second that was touched.
    assert!(lines <= 2 * (seconds + 2), "{lines} lines in {seconds} s");
    assert_eq!(calls_of_redis(&stage).await, Vec::<String>::new());

    // Signed, and of an account of its own each: no series either.
    for n in 0..200 {
        let body = Number::of(format!("{CANARY}{n}")).message(payload::text("1111111111", "x"));
        let path = format!("/{CANARY}/{n}");
        answers(&ingress, &with_target("GET", &path)).await;
        sender.send(body).await;
    }
    // The status 401, which had none, and 404 have one each at most.
    let now = series(&ingress).await;
    assert!(now <= before + 2, "{now} series, {before} before");
    assert!(!ingress.log().contains(CANARY));
    assert!(peak_memory_mb(&mut ingress) < MOST_MEMORY_MB);
    sender
        .send(Number::fresh().message(payload::text("1111111111", "after")))
        .await;
    assert_eq!(stored(&stage).await, 202);
    drop(deaf);
}
