//! Files of messages: whatever the Graph API, the download host or the store does, the message comes
//! out, its file is what was declared, and what was pending is ended by exactly one event.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::events::Event;
use tests::meta::payload::{self, Number};
use tests::neighbours::{Content, Fault, Neighbours, Service, Tenant, Turn};
use tests::programs::Worker;
use tests::proxy::{Mode, Proxy};
use tests::{Stage, eventually};

use crate::commands::{run_with, said};
use crate::{SOON, drained};

/// A JPEG, as far as its first bytes tell.
const JPEG: &[u8] = b"\xff\xd8\xff\xe0 a picture of nothing in particular";
/// The default deadline.
const DEADLINE: Duration = Duration::from_secs(3);
/// One that no machine is too slow for.
const PATIENT: &str = "60s";

fn media_id() -> String {
    rand::random_range(1_000_000_000_000_u64..9_000_000_000_000).to_string()
}

/// An image message whose webhook declares the digest of `bytes`.
fn image(media_id: &str, bytes: &[u8]) -> Value {
    let mut message = payload::image("16505551234", media_id);
    message["image"]["sha256"] = BASE64.encode(&Sha256::digest(bytes)).into();
    message
}

fn wamid(message: &Value) -> String {
    message["id"].as_str().expect("an id").to_owned()
}

fn of<'a>(events: &'a [Event], wamid: &str, kind: &str) -> Vec<&'a Event> {
    let of = |event: &&Event| event.wamid() == wamid && event.kind.as_deref() == Some(kind);
    events.iter().filter(of).collect()
}

/// How often the Graph API was asked for media.
fn asked(stage: &Stage) -> usize {
    let requests = stage.neighbours.received(Service::Graph).into_iter();
    requests
        .filter(|request| request.path.contains("phone_number_id="))
        .count()
}

fn status(event: &Event) -> &str {
    event.text("/message/media/status")
}

/// The event that ends a message's media: the message's own, or its follow-up.
fn end<'a>(events: &'a [Event], wamid: &str) -> Option<&'a Event> {
    let message = *of(events, wamid, "message.received").first()?;
    if status(message) != "pending" {
        return Some(message);
    }
    ["media.stored", "media.failed"]
        .into_iter()
        .find_map(|kind| of(events, wamid, kind).first().copied())
}

/// Every follow-up comes behind a pending message, once, and says what its name says.
fn assert_told_once(events: &[Event]) {
    for (n, event) in events.iter().enumerate() {
        let kind = event.kind.as_deref().unwrap_or_default();
        let Some(said) = kind.strip_prefix("media.") else {
            continue;
        };
        assert_eq!(status(event), said);
        assert!(event.routing_key.starts_with(&format!("{kind}.tenant-")));
        let before = of(&events[..n], event.wamid(), "message.received");
        assert_eq!(before.len(), 1, "{kind} comes after its message");
        assert_eq!(status(before[0]), "pending");
        assert_ne!(before[0].message_id, event.message_id);
        let all = of(events, event.wamid(), "media.stored").len()
            + of(events, event.wamid(), "media.failed").len();
        assert_eq!(all, 1, "one event ends it");
    }
}

/// Uploads that were begun and not ended.
async fn open_uploads(stage: &Stage) -> usize {
    use object_store::signer::{SignedUrlOptions, Signer};
    let mut options = SignedUrlOptions::default();
    options
        .extra_query
        .push(("uploads".to_owned(), String::new()));
    let url = stage
        .media()
        .client()
        .signed_url_opts(
            reqwest::Method::GET,
            &object_store::path::Path::default(),
            SOON,
            &options,
        )
        .await
        .expect("a URL");
    let answer = reqwest::get(url).await.expect("an answer");
    assert!(answer.status().is_success());
    let listed = answer.text().await.expect("a list");
    listed.matches("<UploadId>").count()
}

/// What is expected of one message.
struct Case {
    name: &'static str,
    number: Number,
    message: Value,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Stored,
    Failed(&'static str),
    /// Until somebody mends something.
    Pending,
}

struct Cases<'s> {
    stage: &'s Stage,
    all: Vec<Case>,
}

impl Cases<'_> {
    /// A message with an image of [`JPEG`], each of a number of its own.
    fn add(
        &mut self,
        name: &'static str,
        end: End,
        prepare: impl FnOnce(&Neighbours, &Number, &str, &mut Value),
    ) {
        let (number, id) = (Number::fresh(), media_id());
        let neighbours = &self.stage.neighbours;
        neighbours.set_media(&id, "image/jpeg", JPEG);
        let mut message = image(&id, JPEG);
        prepare(neighbours, &number, &id, &mut message);
        self.all.push(Case {
            name,
            number,
            message,
            end,
        });
    }

    fn graph(&mut self, name: &'static str, end: End, turns: Vec<Turn>) {
        self.add(name, end, |neighbours, _, id, _| {
            neighbours.script(Service::Graph, id, turns);
        });
    }

    fn download(&mut self, name: &'static str, end: End, turns: Vec<Turn>) {
        self.add(name, end, |neighbours, _, id, _| {
            neighbours.script(Service::Download, id, turns);
        });
    }

    fn always(&mut self, name: &'static str, end: End, service: Service, turn: Turn) {
        self.add(name, end, |neighbours, _, id, _| {
            neighbours.always(service, id, turn);
        });
    }
}

fn described(url: &str, id: &str) -> Value {
    json!({
        "url": url,
        "mime_type": "image/jpeg",
        "sha256": HEXLOWER.encode(&Sha256::digest(JPEG)),
        "file_size": JPEG.len(),
        "id": id,
        "messaging_product": "whatsapp",
    })
}

/// What the Graph API answers where it doesn't take a parameter.
fn unwanted_parameter(subcode: Option<i64>) -> Value {
    let message = "(#100) Param phone_number_id is not a valid ID 106540352242922";
    json!({"error": {"message": message, "type": "OAuthException", "code": 100, "error_subcode": subcode}})
}

#[tokio::test]
async fn a_parameter_that_the_graph_api_does_not_take_is_left_out() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    for (n, subcode) in [None, Some(33)].into_iter().enumerate() {
        let (number, id) = (Number::fresh(), media_id());
        stage.neighbours.set_media(&id, "image/jpeg", JPEG);
        let unwanted = Turn::json(400, &unwanted_parameter(subcode));
        stage.neighbours.script(Service::Graph, &id, [unwanted]);
        let message = image(&id, JPEG);
        stage.sender(&ingress).send(number.message(message)).await;
        let seen = events.wait_for(n + 1, SOON).await;
        assert_eq!(status(&seen[n]), "stored");
        let asked = stage.neighbours.received(Service::Graph).into_iter();
        let asked: Vec<_> = asked.filter(|it| it.path.contains(&id)).collect();
        assert_eq!(asked.len(), 2, "once more, and not again");
        assert!(asked[0].path.contains("phone_number_id="));
        assert!(!asked[1].path.contains("phone_number_id="));
    }
    let lines = worker.log_lines();
    let line = lines.iter().find(|line| line["code"] == 100);
    let text = line.expect("a line")["text"].as_str().expect("text");
    assert_eq!(text, "(#100) Param phone_number_id is not a valid ID …");
}

#[tokio::test]
async fn a_host_that_no_token_may_go_to_is_named_by_log_and_doctor() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let (number, id) = (Number::fresh(), media_id());
    let url = "https://scontent.xx.fbcdn.net/v/1?oh=secret";
    let elsewhere = Turn::json(200, &described(url, &id));
    stage.neighbours.always(Service::Graph, &id, elsewhere);
    let message = image(&id, JPEG);
    stage.sender(&ingress).send(number.message(message)).await;
    let events = stage.events().wait_for(1, SOON).await;
    assert_eq!(status(&events[0]), "pending");
    let named = |line: &Value| line["host"] == "scontent.xx.fbcdn.net";
    assert!(worker.log_lines().iter().any(named));
    assert!(!worker.log().contains("oh=secret"));
    let refused = r#"reason="url_refused""#;
    assert!(
        worker
            .metric("whatsapp_media_transfers_total", refused)
            .await
            > 0.0
    );
    eventually(SOON, "it is parked, which rings", async || {
        (worker.metric("whatsapp_media_parked", "").await > 0.0).then_some(())
    })
    .await;

    let neighbours = stage.neighbours.url();
    let may = |hosts: &str| format!("{neighbours},{hosts}");
    for (hosts, warned) in [
        (neighbours.clone(), true),
        (may("fbcdn.net"), true),
        (may(".xx.fbcdn.net"), false),
        (may(".fbcdn.net"), false),
        (may("scontent.xx.fbcdn.net"), false),
    ] {
        let settings = [("MEDIA_ALLOWED_HOSTS", &*hosts)];
        let doctor = run_with(&worker, &["doctor", "--json"], &settings).await;
        let found = said(&doctor);
        let mut found = found.as_array().expect("a list").iter();
        let named = |it: &Value| it["said"].to_string().contains("scontent.xx.fbcdn.net");
        let warning = found.find(|it| named(it) && it["status"] == "WARN");
        assert_eq!(warning.is_some(), warned, "{hosts}: {warning:?}");
    }
}

/// What passes, or is the message's own.
fn transfers(cases: &mut Cases<'_>) {
    cases.add("nothing wrong", End::Stored, |_, _, _, _| {});
    cases.add("no digest, no type", End::Stored, |_, _, _, message| {
        let image = message["image"].as_object_mut().expect("an object");
        image.remove("sha256");
        image.remove("mime_type");
    });
    cases.add("empty", End::Stored, |neighbours, _, id, message| {
        neighbours.set_media(id, "image/jpeg", "");
        message["image"]["sha256"] = BASE64.encode(&Sha256::digest("")).into();
    });
    cases.download("404, then there", End::Stored, vec![Turn::status(404)]);
    let twice = vec![Turn::status(404), Turn::status(404), Turn::status(404)];
    cases.download("404 for a while", End::Stored, twice);
    cases.add("expired URL", End::Stored, |neighbours, _, id, message| {
        message["image"]["url"] = format!("{}?ext=1700000000", neighbours.download_url(id)).into();
    });
    cases.add(
        "URL that fails",
        End::Stored,
        |neighbours, _, id, message| {
            message["image"]["url"] = neighbours.download_url(id).into();
            neighbours.script(Service::Download, id, [Turn::status(403)]);
        },
    );
    for code in [4, 80007, 130_429] {
        let throttled = vec![Turn::graph_error(400, code)];
        cases.graph("throttled", End::Stored, throttled);
    }
    cases.graph("500", End::Stored, vec![Turn::graph_error(500, 131_000)]);
    cases.graph("nonsense", End::Stored, vec![Turn::Fault(Fault::Garbage)]);
    cases.add("wrong token", End::Pending, |neighbours, number, _, _| {
        neighbours.refuse_token(&format!("token-{}", number.waba_id));
    });
    let cut = Turn::Fault(Fault::Cut(JPEG.len() / 2));
    cases.download("cut at half", End::Stored, vec![cut]);
}

/// What came isn't what was declared.
fn mismatches(cases: &mut Cases<'_>) {
    let wrong = JPEG.repeat(2);
    cases.add(
        "other digest",
        End::Failed("digest_mismatch"),
        |_, _, _, message| {
            message["image"]["sha256"] = BASE64.encode(&Sha256::digest(&wrong)).into();
        },
    );
    cases.add(
        "other size, right digest",
        End::Stored,
        |neighbours, _, id, _| {
            let mut answer = described(&neighbours.download_url(id), id);
            answer["file_size"] = (JPEG.len() + 1).to_string().into();
            neighbours.always(Service::Graph, id, Turn::json(200, &answer));
        },
    );
    cases.add(
        "a size beyond the limit, right digest",
        End::Stored,
        |neighbours, _, id, _| {
            let mut answer = described(&neighbours.download_url(id), id);
            answer["file_size"] = (200 << 20).into();
            neighbours.always(Service::Graph, id, Turn::json(200, &answer));
        },
    );
    cases.add(
        "other size, and the host says none",
        End::Stored,
        |neighbours, _, id, message| {
            let text = "a picture of nothing in particular";
            message["image"]["sha256"] = BASE64.encode(&Sha256::digest(text)).into();
            let mut answer = described(&neighbours.download_url(id), id);
            answer["file_size"] = (text.len() + 1).into();
            neighbours.always(Service::Graph, id, Turn::json(200, &answer));
            let chunked = Turn::Answer {
                status: 200,
                headers: vec![("transfer-encoding", "chunked".to_owned())],
                body: text.to_owned(),
            };
            neighbours.always(Service::Download, id, chunked);
        },
    );
    cases.add(
        "other size, no digest",
        End::Failed("size_mismatch"),
        |neighbours, _, id, message| {
            let mut answer = described(&neighbours.download_url(id), id);
            answer["file_size"] = (JPEG.len() + 1).into();
            answer.as_object_mut().expect("an object").remove("sha256");
            neighbours.always(Service::Graph, id, Turn::json(200, &answer));
            message["image"]["sha256"] = "placeholder".into();
        },
    );
    for text in ["{\"a\":1}", "<!DOCTYPE html><title>Mine</title>"] {
        cases.add(
            "a text with the right digest",
            End::Stored,
            |neighbours, _, id, message| {
                neighbours.set_media(id, "application/json", text);
                message["image"]["sha256"] = BASE64.encode(&Sha256::digest(text)).into();
            },
        );
    }
    let page = |content_type: &str| Turn::Answer {
        status: 200,
        headers: vec![("content-type", content_type.to_owned())],
        body: "<!DOCTYPE html><title>Error</title>".to_owned(),
    };
    let mismatch = End::Failed("content_mismatch");
    cases.always("page", mismatch, Service::Download, page("text/html"));
    cases.add(
        "page in disguise",
        mismatch,
        |neighbours, _, id, message| {
            // No digest and no size: only the bytes themselves tell.
            message["image"]["sha256"] = "placeholder".into();
            let mut answer = described(&neighbours.download_url(id), id);
            for member in ["sha256", "file_size"] {
                answer.as_object_mut().expect("an object").remove(member);
            }
            neighbours.always(Service::Graph, id, Turn::json(200, &answer));
            neighbours.always(Service::Download, id, page("image/jpeg"));
        },
    );
    let zipped = Turn::Answer {
        status: 200,
        headers: vec![("content-encoding", "gzip".to_owned())],
        body: "bomb".to_owned(),
    };
    cases.always("gzip", End::Failed("encoded"), Service::Download, zipped);
}

fn sizes(cases: &mut Cases<'_>) {
    let too_large = End::Failed("too_large");
    cases.add("101 MB", too_large, |neighbours, _, id, _| {
        neighbours.set_content(id, "image/jpeg", Content::Sized(101 << 20, 1));
    });
    cases.add(
        "101 MB, said to be less",
        too_large,
        |neighbours, _, id, _| {
            neighbours.set_content(id, "image/jpeg", Content::Sized(101 << 20, 1));
            let mut answer = described(&neighbours.download_url(id), id);
            answer
                .as_object_mut()
                .expect("an object")
                .remove("file_size");
            neighbours.always(Service::Graph, id, Turn::json(200, &answer));
        },
    );
}

/// What leads to another host than the allowed one.
fn ways_astray(cases: &mut Cases<'_>, elsewhere: &Neighbours) {
    let onward = Turn::Answer {
        status: 302,
        headers: vec![("location", elsewhere.url())],
        body: String::new(),
    };
    cases.always("redirect", End::Pending, Service::Download, onward);
    let elsewhere_url = elsewhere.download_url("1");
    for url in [
        &*elsewhere_url,
        "http://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://lookaside.fbsbx.com.evil.example/",
        "file:///etc/passwd",
        "nonsense",
    ] {
        cases.add(
            "URL that leads astray",
            End::Pending,
            |neighbours, _, id, message| {
                message["image"]["url"] = url.into();
                neighbours.always(Service::Graph, id, Turn::json(200, &described(url, id)));
            },
        );
    }
}

fn no_media(cases: &mut Cases<'_>) {
    for odd in [
        "../me?fields=x",
        "1/2",
        "1%2f2",
        "http://evil",
        "12 34",
        "1".repeat(33).as_str(),
    ] {
        cases.add("no id", End::Failed("invalid_id"), |_, _, _, message| {
            message["image"]["id"] = odd.into();
        });
    }
    let missing = json!({"error": {"message": "…", "code": 100, "error_subcode": 33}});
    cases.add(
        "unknown, and old",
        End::Failed("not_found"),
        |neighbours, _, id, message| {
            neighbours.always(Service::Graph, id, Turn::json(400, &missing));
            message["timestamp"] = "1700000000".into();
        },
    );
}

/// How each case ended; the keys of what is stored.
fn assert_ended(cases: &[Case], seen: &[Event]) -> Vec<String> {
    let mut stored = Vec::new();
    for case in cases {
        let name = case.name;
        let wamid = wamid(&case.message);
        match case.end {
            End::Pending => {
                let message = of(seen, &wamid, "message.received")[0];
                assert_eq!(status(message), "pending", "{name}");
                assert!(end(seen, &wamid).is_none(), "{name}");
            }
            End::Failed(reason) => {
                let event = end(seen, &wamid).expect("an end");
                assert_eq!(status(event), "failed", "{name}");
                assert_eq!(event.text("/message/media/error"), reason, "{name}");
            }
            End::Stored => {
                let event = end(seen, &wamid).expect("an end");
                assert_eq!(status(event), "stored", "{name}: {}", event.payload);
                stored.push(event.text("/message/media/key").to_owned());
            }
        }
    }
    stored.sort();
    stored
}

/// Requests have what the Graph API wants to know, and go nowhere else.
fn assert_requests(neighbours: &Neighbours, elsewhere: &Neighbours) {
    for service in Service::ALL {
        assert_eq!(
            elsewhere.requests(service),
            0,
            "nothing goes to another host"
        );
    }
    for request in neighbours.received(Service::Graph) {
        assert!(request.headers["user-agent"].starts_with("whatsapp-worker/"));
        let of_media = request.path.contains("phone_number_id=");
        assert_eq!(request.headers.contains_key("x-correlation-id"), of_media);
        let id = request.path.split(['/', '?']).nth(2).expect("an id");
        assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    }
}

fn assert_discreet(log: &str, cases: &[Case]) {
    for case in cases {
        let waba_id = &case.number.waba_id;
        for secret in [format!("token-{waba_id}"), format!("new-{waba_id}")] {
            assert!(!log.contains(&secret), "a token in the log");
        }
    }
    assert!(!log.contains("_download/") && !log.contains("X-Amz-Signature"));
    assert!(!log.contains("16505551234"));
}

#[tokio::test]
async fn each_fault_ends_as_it_should() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let elsewhere = Neighbours::start().await.expect("another host");
    let mut cases = Cases {
        stage: &stage,
        all: Vec::new(),
    };
    transfers(&mut cases);
    mismatches(&mut cases);
    sizes(&mut cases);
    ways_astray(&mut cases, &elsewhere);
    no_media(&mut cases);
    let cases = cases.all;
    for case in &cases {
        let body = case.number.message(case.message.clone());
        stage.sender(&ingress).send(body).await;
    }
    let seen = events
        .wait_until(SOON * 2, |seen| {
            cases.iter().all(|case| match case.end {
                End::Pending => !of(seen, &wamid(&case.message), "message.received").is_empty(),
                End::Stored | End::Failed(_) => end(seen, &wamid(&case.message)).is_some(),
            })
        })
        .await;
    let stored = assert_ended(&cases, &seen);
    assert_told_once(&seen);
    let bucket = stage.media();
    assert_eq!(bucket.list("").await.expect("a list"), stored);
    assert_eq!(open_uploads(&stage).await, 0);
    assert_requests(&stage.neighbours, &elsewhere);
    assert_discreet(&worker.log(), &cases);
}

#[tokio::test]
async fn a_stored_file_is_the_one_that_was_sent_and_no_browser_runs_it() {
    let stage = Stage::new().await;
    let worker = stage.worker().env("PRESIGN_EXPIRY", "3s");
    let worker = worker.env("MEDIA_DEADLINE", PATIENT);
    let worker = worker.env("WORKER_ADMIN_TOKEN", "admin");
    let (ingress, worker) = (stage.ingress().start().await, worker.start().await);
    let events = stage.events();
    let (number, id) = (Number::fresh(), media_id());
    let tenant = format!("tenant-{}", number.waba_id);
    let html = b"<html><script>alert(1)</script>".to_vec();
    stage.neighbours.set_media(&id, "text/html", html.clone());
    let mut message = payload::media("16505551234", "document", &id, "text/html");
    message["document"]["filename"] = "../\u{202e}Currículum \"café\".html".into();
    message["document"]["url"] = stage.neighbours.download_url(&id).into();
    stage
        .sender(&ingress)
        .send(number.message(message.clone()))
        .await;
    let seen = events.wait_for(1, SOON).await;
    let media = &seen[0].payload["message"]["media"];
    assert_eq!(media["status"], "stored");
    assert_eq!(media["sizeBytes"], html.len());
    let sha256 = HEXLOWER.encode(&Sha256::digest(&html));
    assert_eq!(media["sha256"], sha256);
    assert_eq!(media["bucket"], stage.media_bucket);
    assert_eq!(media["mimeType"], "text/html");
    assert_eq!(asked(&stage), 0, "the URL of the webhook did");
    let day = today();
    let key = format!("{tenant}/document/{day}/{}.html", wamid(&message));
    assert_eq!(media["key"], key);

    let url = media["url"].as_str().expect("a URL");
    let answer = reqwest::get(url).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let header = |name: &str| {
        let value = answer.headers().get(name).expect("a header");
        value.to_str().expect("text").to_owned()
    };
    assert_eq!(header("content-type"), "application/octet-stream");
    assert_eq!(
        header("content-disposition"),
        "attachment; filename*=UTF-8''Curr%C3%ADculum%20%22caf%C3%A9%22.html"
    );
    assert_eq!(answer.bytes().await.expect("bytes"), html);
    for altered in [
        url.replace("X-Amz-Expires=3&", "X-Amz-Expires=300&"),
        url.replace("/document/", "/image/"),
        url.replace(".html?", ".htm?"),
        format!("{url}0"),
    ] {
        assert_ne!(altered, url);
        let answer = reqwest::get(&altered).await.expect("an answer");
        // What can't be a signature is 400 for some stores.
        assert!(matches!(answer.status().as_u16(), 400 | 403), "{altered}");
    }
    fresh_urls(&stage, &worker, &tenant, &wamid(&message), &html).await;
    let put = reqwest::Client::new().put(url).body("x").send().await;
    assert_eq!(put.expect("an answer").status(), 403);
    eventually(SOON, "the URL expires", async || {
        let answer = reqwest::get(url).await.ok()?;
        (answer.status() == 403).then_some(())
    })
    .await;
}

/// What is sent, what its bytes are, and what becomes of it: ending, `Content-Type`, `detectedMimeType`.
type SentFile = (
    &'static str,
    &'static str,
    &'static [u8],
    &'static str,
    &'static str,
    &'static str,
);
const TYPES: [SentFile; 9] = [
    (
        "image image/jpeg",
        "",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "jpg",
        "-",
        "image/heif",
    ),
    (
        "image image/heif",
        "",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "heif",
        "image/heif",
        "image/heif",
    ),
    (
        "sticker image/webp",
        "",
        b"RIFF\x24\0\0\0WEBPVP8 ",
        "webp",
        "image/webp",
        "image/webp",
    ),
    (
        "audio audio/mp3",
        "",
        b"ID3\x04\0\0\0\0\0\0",
        "mp3",
        "audio/mpeg",
        "audio/mpeg",
    ),
    (
        "audio audio/amr",
        "",
        b"#!AMR\n<\x91\x17\x16",
        "amr",
        "audio/amr",
        "audio/amr",
    ),
    (
        "document application/octet-stream",
        "list.CSV",
        b"a;b\n1;2\n",
        "csv",
        "text/csv",
        "",
    ),
    (
        "document application/x-zip-compressed",
        "all.zip",
        b"PK\x03\x04\x14\0\0\0",
        "zip",
        "application/zip",
        "application/zip",
    ),
    (
        "document application/octet-stream",
        "page.html",
        b"<!DOCTYPE html><p>",
        "html",
        "-",
        "text/html",
    ),
    (
        "document text/plain",
        "page.html",
        b"<!DOCTYPE html><p>",
        "txt",
        "-",
        "text/html",
    ),
];

#[tokio::test]
async fn a_file_has_its_usual_ending_and_the_event_says_what_its_first_bytes_are() {
    let stage = Stage::new().await;
    let worker = stage.worker().env("MEDIA_DEADLINE", PATIENT);
    let (ingress, _worker) = (stage.ingress().start().await, worker.start().await);
    for (sent, filename, bytes, ending, served, detected) in TYPES {
        let (kind, mime_type) = sent.split_once(' ').expect("two words");
        let id = media_id();
        stage.neighbours.set_media(&id, mime_type, bytes);
        let mut message = payload::media("16505551234", kind, &id, mime_type);
        message[kind]["sha256"] = BASE64.encode(&Sha256::digest(bytes)).into();
        if !filename.is_empty() {
            message[kind]["filename"] = filename.into();
        }
        let body = Number::fresh().message(message);
        stage.sender(&ingress).send(body).await;
        let events = stage.events().wait_for(1, SOON).await;
        let media = &events[0].payload["message"]["media"];
        assert_eq!(media["status"], "stored", "{sent}");
        assert_eq!(media["mimeType"], mime_type, "as declared");
        assert_eq!(
            media["detectedMimeType"].as_str().unwrap_or_default(),
            detected,
            "{sent}"
        );
        let key = media["key"].as_str().expect("a key");
        assert!(key.ends_with(&format!(".{ending}")), "{sent}: {key}");
        let url = media["url"].as_str().expect("a URL");
        let answer = reqwest::get(url).await.expect("an answer");
        let served = if served == "-" {
            "application/octet-stream"
        } else {
            served
        };
        assert_eq!(answer.headers()["content-type"], served, "{sent}");
        assert_eq!(answer.bytes().await.expect("bytes"), bytes, "{sent}");
    }
}

/// By the command and by the guarded route; not for another tenant.
async fn fresh_urls(stage: &Stage, worker: &Worker, tenant: &str, wamid: &str, bytes: &[u8]) {
    let presign = |arguments: &[&str]| {
        let mut command = worker.command();
        command.args(["presign", "--json"]).args(arguments);
        let output = command.output().expect("it runs");
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let url = found[0]["url"].as_str();
        assert_eq!(output.status.code(), Some(i32::from(url.is_none())));
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(told.contains("audit"), url.is_some(), "{told}");
        url.map(str::to_owned)
    };
    let key = stage.media().list("").await.expect("a list").remove(0);
    let hash = shared::private::Hashed(wamid).to_string();
    let client = reqwest::Client::new();
    let route = format!("http://{}/media/{tenant}/{wamid}", worker.admin());
    let refused = client.get(&route).send().await.expect("an answer");
    assert_eq!(refused.status(), 401);
    let admin = async |route: &str| {
        let asked = client.get(route).bearer_auth("admin").send().await;
        asked.expect("an answer")
    };
    let answer = admin(&route).await;
    assert_eq!(answer.status(), 200);
    let found: Value = answer.json().await.expect("JSON");
    let by_route = found["media"][0]["url"].as_str().expect("a URL").to_owned();
    let mut urls = vec![by_route];
    for id in [wamid, &hash, &key] {
        urls.push(presign(&[id]).expect(id));
        urls.push(presign(&[id, "--tenant", tenant]).expect(id));
    }
    for url in urls {
        let got = client.get(&url).send().await.expect("an answer");
        assert_eq!(got.bytes().await.expect("bytes"), bytes);
    }
    for id in [wamid, &key] {
        assert_eq!(presign(&[id, "--tenant", "tenant-1"]), None);
    }
    for other in ["tenant-1", "tenant-1%2F..%2F", "..", "%2E%2E"] {
        let route = route.replace(tenant, other);
        assert_ne!(admin(&route).await.status(), 200, "{route}");
    }
    assert_eq!(stage.media().list("").await.expect("a list").len(), 1);
}

fn today() -> String {
    let now = std::time::SystemTime::now();
    let now = humantime::format_rfc3339(now).to_string();
    now.split('T').next().expect("a date").to_owned()
}

#[tokio::test]
async fn a_slow_file_does_not_hold_its_message_up_and_follows_once() {
    let stage = Stage::new().await;
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let (number, id) = (Number::fresh(), media_id());
    stage
        .neighbours
        .set_media(&id, "image/jpeg", JPEG.repeat(10_000));
    let message = image(&id, &JPEG.repeat(10_000));
    let drip = Turn::Fault(Fault::Drip(Duration::from_secs(1)));
    stage.neighbours.script(Service::Download, &id, [drip]);
    let began = tokio::time::Instant::now();
    stage
        .sender(&ingress)
        .send(number.message(message.clone()))
        .await;
    let text = payload::text("16505551234", "after it");
    stage.sender(&ingress).send(number.message(text)).await;
    // The file itself would take a day.
    let seen = events.wait_for(2, SOON).await;
    let took = began.elapsed();
    assert!(DEADLINE <= took, "{took:?}");
    assert_eq!(status(&seen[0]), "pending");
    assert_eq!(seen[1].text("/message/content/body"), "after it");
    let seen = events.wait_for(3, SOON).await;
    assert_eq!(seen[2].kind.as_deref(), Some("media.stored"));
    assert_told_once(&seen);
    assert_eq!(stage.neighbours.requests(Service::Download), 2);
    drained(&stage).await;
    assert_eq!(events.count(), 3);
}

#[tokio::test]
async fn a_token_that_is_refused_is_asked_for_once_more() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let number = Number::fresh();
    let waba_id = number.waba_id.clone();
    let sender = stage.sender(&ingress);
    sender
        .send(number.message(payload::text("16505551234", "hello")))
        .await;
    events.wait_for(1, SOON).await;
    stage.neighbours.refuse_token(&format!("token-{waba_id}"));
    stage.neighbours.set_tenant(
        &waba_id,
        Tenant::Custom(json!({
            "tenantId": format!("tenant-{waba_id}"),
            "status": "active",
            "accessToken": format!("new-{waba_id}"),
        })),
    );
    let id = media_id();
    stage.neighbours.set_media(&id, "image/jpeg", JPEG);
    sender.send(number.message(image(&id, JPEG))).await;
    let seen = events.wait_for(2, SOON).await;
    assert_eq!(status(&seen[1]), "stored");
    assert_eq!(asked(&stage), 2);

    // No better one is to be had: the media waits for an operator, and asks seldom.
    stage.neighbours.refuse_token(&format!("new-{waba_id}"));
    let id = media_id();
    sender.send(number.message(image(&id, JPEG))).await;
    let seen = events.wait_for(3, SOON).await;
    assert_eq!(status(&seen[2]), "pending");
    eventually(SOON, "it is parked", async || {
        (worker.metric("whatsapp_media_parked", "").await > 0.0).then_some(())
    })
    .await;
    assert!(asked(&stage) <= 6, "{} requests", asked(&stage));
}

#[tokio::test]
async fn media_whose_token_was_refused_and_forgotten_waits_for_an_operator() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let number = Number::fresh();
    let token = format!("token-{}", number.waba_id);
    stage.neighbours.refuse_token(&token);
    let sender = stage.sender(&ingress);
    // The Tenant Service has no other one: from the first refusal on there is none.
    for _ in 0..2 {
        let id = media_id();
        stage.neighbours.set_media(&id, "image/jpeg", JPEG);
        sender.send(number.message(image(&id, JPEG))).await;
    }
    let seen = events.wait_for(2, SOON).await;
    assert!(seen.iter().all(|event| status(event) == "pending"));
    eventually(SOON, "both are parked", async || {
        (worker.metric("whatsapp_media_parked", "").await > 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_same_media_is_fetched_once() {
    let stage = Stage::new().await;
    let worker = stage.worker().env("MEDIA_DEADLINE", PATIENT);
    let (ingress, _worker) = (stage.ingress().start().await, worker.start().await);
    let events = stage.events();
    let (number, id) = (Number::fresh(), media_id());
    stage.neighbours.set_media(&id, "image/jpeg", JPEG);
    let message = image(&id, JPEG);
    stage
        .sender(&ingress)
        .send(number.message(message.clone()))
        .await;
    events.wait_for(1, SOON).await;
    drained(&stage).await;
    // The dedup marks are gone, as after their time: Meta's repetition is processed again.
    let mut redis = stage.redis.connection().await;
    let () = redis::cmd("FLUSHALL")
        .query_async(&mut redis)
        .await
        .expect("flushed");
    stage
        .sender(&ingress)
        .send(number.message(message.clone()))
        .await;
    let seen = events.wait_for(2, SOON).await;
    assert_eq!(seen[0].message_id, seen[1].message_id);
    assert_eq!(
        seen[0].payload["message"]["media"]["key"],
        seen[1].payload["message"]["media"]["key"]
    );
    assert_eq!(status(&seen[1]), "stored");
    for event in &seen {
        let detected = event.text("/message/media/detectedMimeType");
        assert_eq!(detected, "image/jpeg");
    }
    assert_eq!(asked(&stage), 1);
    assert_eq!(stage.neighbours.requests(Service::Download), 1);

    // The same message id under another number of the same tenant is another object.
    let mut second = number.clone();
    second.phone_number_id = format!("8{}", number.waba_id);
    stage.neighbours.set_media("77", "image/jpeg", JPEG);
    let mut message = message;
    message["image"]["id"] = "77".into();
    stage.sender(&ingress).send(second.message(message)).await;
    let seen = events.wait_for(3, SOON).await;
    assert_eq!(status(&seen[2]), "stored");
    let keys = stage.media().list("").await.expect("a list");
    assert_eq!(keys.len(), 2, "{keys:?}");
}

#[tokio::test]
async fn a_store_that_goes_away_during_an_upload_gets_it_later() {
    let stage = Stage::new().await;
    let address = stage.s3.endpoint.trim_start_matches("http://").to_owned();
    let proxy = Proxy::start(address).await.expect("a proxy");
    let endpoint = format!("http://{}", proxy.address());
    let worker = stage
        .worker()
        .env("MINIO_ENDPOINT", endpoint)
        .env("MINIO_PUBLIC_ENDPOINT", &stage.s3.endpoint);
    let (ingress, _worker) = (stage.ingress().start().await, worker.start().await);
    let events = stage.events();
    let (number, id) = (Number::fresh(), media_id());
    let content = Content::Sized(20 << 20, 7);
    let digest = content.digest();
    stage.neighbours.set_content(&id, "video/mp4", content);
    let message = payload::media("16505551234", "video", &id, "video/mp4");
    // The archive goes the same way, so the store is asked for more than the file.
    proxy.set(Mode::CutRequestsAfter(5 << 20));
    stage
        .sender(&ingress)
        .send(number.message(message.clone()))
        .await;
    let seen = events.wait_for(1, SOON).await;
    assert_eq!(status(&seen[0]), "pending");
    assert_eq!(
        stage.media().list("").await.expect("a list"),
        Vec::<String>::new()
    );
    proxy.set(Mode::Pass);
    let seen = events.wait_for(2, SOON).await;
    assert_eq!(seen[1].text("/message/media/sha256"), digest);
    let url = seen[1].text("/message/media/url");
    assert!(url.starts_with(&stage.s3.endpoint), "the public endpoint");
    let bytes = reqwest::get(url)
        .await
        .expect("an answer")
        .bytes()
        .await
        .expect("bytes");
    assert_eq!(bytes.len(), 20 << 20);
    assert_eq!(open_uploads(&stage).await, 0);
    drained(&stage).await;
}

/// Labels of how often a call found out whether the Graph API is well.
const GRAPH_TRIED: &str = "neighbour=\"graph\",to=\"half_open\"";

#[tokio::test]
async fn an_album_does_not_wait_for_a_graph_api_that_is_away() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let number = Number::fresh();
    stage.neighbours.set_fault(Service::Graph, Fault::Hang);
    let sender = stage.sender(&ingress);
    for _ in 0..30 {
        let id = media_id();
        stage.neighbours.set_media(&id, "image/jpeg", JPEG);
        sender.send(number.message(image(&id, JPEG))).await;
    }
    sender
        .send(number.message(payload::text("16505551234", "after the album")))
        .await;
    // One deadline (3 s), not thirty of them.
    let seen = events.wait_for(31, SOON).await;
    assert_eq!(seen[30].text("/message/content/body"), "after the album");
    assert!(seen[..30].iter().all(|event| status(event) == "pending"));
    // While it is known to be away, it isn't asked at all.
    let mut images = 30;
    eventually(SOON, "an image while nothing is tried", async || {
        let tried = async || {
            worker
                .metric("whatsapp_breaker_transitions_total", GRAPH_TRIED)
                .await
        };
        let open = worker
            .metric("whatsapp_breaker_state", "neighbour=\"graph\"")
            .await;
        let before = (tried().await, asked(&stage));
        let id = media_id();
        stage.neighbours.set_media(&id, "image/jpeg", JPEG);
        sender.send(number.message(image(&id, JPEG))).await;
        images += 1;
        let seen = events.wait_for(images + 1, SOON).await;
        assert_eq!(status(&seen[images]), "pending");
        let quiet = open == 2.0 && tried().await == before.0;
        quiet.then(|| assert_eq!(asked(&stage), before.1))
    })
    .await;
    stage.neighbours.set_fault(Service::Graph, Fault::None);
    let seen = events.wait_for(2 * images + 1, SOON * 2).await;
    assert_told_once(&seen);
    let follow_ups = seen
        .iter()
        .filter(|event| event.kind.as_deref() == Some("media.stored"));
    assert_eq!(follow_ups.count(), images);
    drained(&stage).await;
}

/// Of two accounts that share a number, and so of two partitions.
#[tokio::test]
async fn requests_for_a_number_are_spaced_over_all_workers() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let worker = || {
        stage
            .worker()
            .env("GRAPH_REQUESTS_PER_SECOND", "20")
            .env("MEDIA_DEADLINE", "60s")
    };
    let (_first, _second) = (worker().start().await, worker().start().await);
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let one = Number::fresh();
    let mut two = Number::fresh();
    two.phone_number_id.clone_from(&one.phone_number_id);
    let began = tokio::time::Instant::now();
    for n in 0..40 {
        let id = media_id();
        stage.neighbours.set_media(&id, "image/jpeg", JPEG);
        let number = [&one, &two][n % 2];
        let mut message = image(&id, JPEG);
        message["from"] = format!("4915200{n:05}").into();
        sender.send(number.message(message)).await;
    }
    let seen = events.wait_for(40, SOON * 2).await;
    assert!(seen.iter().all(|event| status(event) == "stored"));
    // Two requests for each.
    let least = Duration::from_secs(79) / 20;
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}
