//! The jobs of a bad day, each by one command: found by any id, seen why, put right.

use std::process::{Output, Stdio};

use futures::StreamExt;
use lapin::options::{BasicGetOptions, BasicNackOptions};
use lapin::{Connection, ConnectionProperties};
use object_store::{Attribute, Attributes, ObjectStore, PutOptions};
use serde_json::{Value, json};
use tests::Stage;
use tests::events::{Event, MESSAGES};
use tests::meta::payload::{self, Number};
use tests::neighbours::Tenant;
use tests::programs::{Ingress, Program, Worker};
use tests::waiting::eventually;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::commands::{assert_found, errors, id, run, run_with, said, text};
use crate::{SOON, drained};

pub(crate) const ADA: &str = "4915100000001";
const BEN: &str = "4915100000002";
pub(crate) const ADMIN: &str = "admin-token";
pub(crate) const TEXT: &str = "plum jam by grandmother's recipe";

/// A deployment that published a message of an account and set one of another account aside.
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) ingress: Ingress,
    pub(crate) worker: Worker,
    pub(crate) event: Event,
    pub(crate) published: Value,
    pub(crate) failed: Value,
    /// Of the account whose tenant is suspended.
    pub(crate) suspended: Number,
    pub(crate) archive_key: String,
    pub(crate) failed_key: String,
}

pub(crate) async fn keys(stage: &Stage, prefix: &str) -> Vec<String> {
    stage.webhooks().list(prefix).await.expect("a list")
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let stage = Stage::new().await;
        let ingress = stage.ingress().start().await;
        let worker = stage.worker().env("WORKER_ADMIN_TOKEN", ADMIN);
        let worker = worker.start().await;
        let events = stage.events();
        let (number, suspended) = (Number::fresh(), Number::fresh());
        stage
            .neighbours
            .set_tenant(&suspended.waba_id, Tenant::Suspended);
        let (published, failed) = (payload::text(ADA, TEXT), payload::text(BEN, TEXT));
        let sender = stage.sender(&ingress);
        sender.send(number.message(published.clone())).await;
        sender.send(suspended.message(failed.clone())).await;
        let event = events.wait_for(1, SOON).await.remove(0);
        let failed_key = eventually(SOON, "one is set aside", async || {
            keys(&stage, "failed").await.pop()
        })
        .await;
        drained(&stage).await;
        let folder = format!("tenant-{}", number.waba_id);
        let archive_key = keys(&stage, &folder).await.remove(0);
        Self {
            stage,
            ingress,
            worker,
            event,
            published,
            failed,
            suspended,
            archive_key,
            failed_key,
        }
    }

    /// Each id that is printed anywhere of the object of a key.
    pub(crate) async fn ids(&self, key: &str, message: &Value) -> Vec<String> {
        let object = self.stage.webhooks().object(key).await.expect("the store");
        let described = object.expect("an object").metadata;
        let wamid = id(message);
        let hash = shared::private::Hashed(&wamid).to_string();
        let correlation_id = described["correlation-id"].clone();
        vec![
            wamid,
            hash,
            correlation_id,
            described["entry"].clone(),
            key.to_owned(),
        ]
    }
}

/// The lines of the audit among what a command said.
fn audits(output: &Output) -> Vec<Value> {
    let errors = errors(output);
    let lines = errors
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["message"] == "audit")
        .collect()
}

#[tokio::test]
async fn every_id_that_is_printed_leads_to_its_message() {
    let scene = Scene::new().await;
    let worker = &scene.worker;
    let mut ids = scene.ids(&scene.archive_key, &scene.published).await;
    ids.push(scene.event.message_id.clone().expect("an event's id"));
    let raw = scene.stage.webhooks().get(&scene.archive_key).await;
    let raw = raw.expect("the store").expect("a payload");
    for id in &ids {
        let output = run(worker, &["inspect", "--json", id]).await;
        let found = said(&output);
        assert_eq!(output.status.code(), Some(0), "{id}: {found:#}");
        assert!(
            found.to_string().contains(&scene.archive_key),
            "{id}: {found:#}"
        );
        let output = run(worker, &["cat", id]).await;
        assert_eq!(output.status.code(), Some(0), "{id}: {}", errors(&output));
        let as_json = said(&run(worker, &["cat", "--json", id]).await);
        assert_eq!(as_json.as_array().map(Vec::len), Some(1), "{id}");
        let is_event = Some(id) == scene.event.message_id.as_ref();
        assert_eq!(
            output.stdout.trim_ascii_end() == &raw[..],
            !is_event,
            "{id}"
        );
    }
    let none = "wamid.neverCame";
    for command in [
        &["inspect", none][..],
        &["cat", none],
        &["failed", "show", none],
    ] {
        let output = run(worker, command).await;
        assert_eq!(
            output.status.code(),
            Some(1),
            "{command:?}: {}",
            errors(&output)
        );
    }
    let away = [
        ("MINIO_ENDPOINT", "http://127.0.0.1:1"),
        ("REDIS_URL", "redis://127.0.0.1:1"),
    ];
    for command in [
        &["inspect", none][..],
        &["cat", none],
        &["failed", "list"],
        &["replay"],
        &["failed", "replay"],
    ] {
        let output = run_with(worker, command, &away).await;
        assert_eq!(
            output.status.code(),
            Some(2),
            "{command:?}: {}",
            errors(&output)
        );
    }
    let output = run_with(worker, &["replay"], &away[..1]).await;
    assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
    let output = run(worker, &["inspect", "no such id"]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn a_webhook_that_waits_is_found_and_shown_by_each_of_its_ids() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let mut worker = stage.worker().start().await;
    assert!(worker.stop(SOON).await);
    let (number, message) = (Number::fresh(), payload::text(ADA, TEXT));
    let body = number.message(message.clone());
    let answer = stage.sender(&ingress).send(body.clone()).await;
    let correlation_id = answer.header("x-correlation-id").to_owned();
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let mut redis = stage.redis.connection().await;
    let stream = format!("whatsapp:{{{partition}}}:stream");
    let entries: redis::streams::StreamRangeReply =
        redis::AsyncCommands::xrange_all(&mut redis, stream)
            .await
            .expect("XRANGE");
    let hash = shared::private::Hashed(&id(&message)).to_string();
    for id in [
        id(&message),
        hash,
        correlation_id,
        entries.ids[0].id.clone(),
    ] {
        let output = run(&worker, &["inspect", "--json", &id]).await;
        let found = said(&output);
        let places = found["found"].as_array().expect("a list");
        assert!(
            places.iter().any(|it| it["place"] == "stream"),
            "{id}: {found:#}"
        );
        let output = run(&worker, &["cat", &id]).await;
        assert_eq!(
            output.stdout.trim_ascii_end(),
            &body[..],
            "{id}: {}",
            errors(&output)
        );
    }
}

#[tokio::test]
async fn an_event_is_shown_as_it_would_go_out_and_each_look_is_an_audit_line() {
    let scene = Scene::new().await;
    let event_id = scene.event.message_id.clone().expect("an event's id");
    let output = run(&scene.worker, &["cat", &event_id, "--by", "ops"]).await;
    let mut shown = said(&output);
    let mut expected = scene.event.payload.clone();
    for event in [&mut shown, &mut expected] {
        // When it was made, and what neighbours say.
        for name in ["processedAt", "channel", "degraded"] {
            event[name] = Value::Null;
        }
    }
    assert_eq!(shown, expected);
    let audits = audits(&output);
    assert_eq!(audits.len(), 1, "{}", errors(&output));
    assert_eq!(
        (&audits[0]["action"], &audits[0]["by"]),
        (&json!("cat"), &json!("ops"))
    );
    // Whatever the level of logs is; and no id in clear, since it may hold a phone number.
    let wamid = id(&scene.published);
    let quiet = [("LOG_LEVEL", "error")];
    let output = run_with(&scene.worker, &["cat", &wamid], &quiet).await;
    assert!(errors(&output).contains("audit"), "{}", errors(&output));
    assert!(!errors(&output).contains(&wamid), "{}", errors(&output));
}

#[tokio::test]
async fn what_is_set_aside_is_listed_shown_and_logged_with_its_account() {
    let scene = Scene::new().await;
    let worker = &scene.worker;
    let tenant = format!("tenant-{}", scene.suspended.waba_id);
    let output = run(worker, &["failed", "list", "--json"]).await;
    let page = said(&output);
    assert_eq!(
        (&page["count"], &page["next"]),
        (&json!(1), &Value::Null),
        "{page:#}"
    );
    let object = &page["objects"][0];
    assert_eq!(object["reason"], "tenant_suspended");
    assert_eq!(object["tenant"], tenant);
    assert_eq!(object["key"], scene.failed_key);
    assert_eq!(object["businessAccountId"], scene.suspended.waba_id);
    for (filter, found) in [
        (["--tenant", &*tenant], true),
        (["--tenant", "another"], false),
        (["--reason", "tenant_suspended"], true),
        (["--reason", "crashes"], false),
        (["--from", "1h"], true),
        (["--to", "1h"], false),
    ] {
        let arguments = [&["failed", "list"][..], &filter].concat();
        let output = run(worker, &arguments).await;
        assert_eq!(output.status.code(), Some(i32::from(!found)), "{filter:?}");
        assert_eq!(
            text(&output).contains(&scene.failed_key),
            found,
            "{filter:?}"
        );
    }
    for id in scene.ids(&scene.failed_key, &scene.failed).await {
        let output = run(worker, &["failed", "show", &id, "--json"]).await;
        let found = said(&output);
        assert_eq!(found[0]["key"], scene.failed_key, "{id}: {found:#}");
        assert_eq!(found[0]["itemsOfBody"][0]["setAside"], true, "{found:#}");
        assert!(!text(&output).contains("plum jam"), "{found:#}");
    }
    let lines = worker.log_lines();
    let line = lines.iter().find(|line| line["message"] == "set aside");
    let line = line.unwrap_or_else(|| panic!("no line: {lines:#?}"));
    assert_eq!(line["waba_id"], scene.suspended.waba_id);
    assert_eq!(line["reason"], "tenant_suspended");
    assert_eq!(line["entry"], object["entry"]);
}

#[tokio::test]
async fn one_payload_is_replayed_by_any_of_its_ids_and_the_others_stay() {
    let scene = Scene::new().await;
    let Scene { stage, worker, .. } = &scene;
    let another = payload::text(ADA, "b");
    let sender = stage.sender(&scene.ingress);
    sender.send(scene.suspended.message(another.clone())).await;
    eventually(SOON, "both are set aside", async || {
        (keys(stage, "failed").await.len() == 2).then_some(())
    })
    .await;
    drained(stage).await;
    let events = stage.events();
    let ids = scene.ids(&scene.failed_key, &scene.failed).await;
    let count = async |id: &str| {
        let output = run(worker, &["failed", "replay", id, "--dry-run", "--json"]).await;
        said(&output)["payloads"].clone()
    };
    for id in &ids {
        assert_eq!(count(id).await, 1, "{id}");
    }
    let account = &scene.suspended.waba_id;
    stage.neighbours.set_tenant(account, Tenant::Active);
    let path = format!("/tenants/{account}/invalidate");
    let invalidated = worker.post(&path, Some(ADMIN)).await;
    assert_eq!(invalidated.expect("an answer").0, 200);
    let output = run(worker, &["replay", &ids[2], "--json"]).await;
    assert!(output.status.success(), "{}", errors(&output));
    let seen = events.wait_for(1, SOON).await;
    assert_eq!(seen[0].wamid(), id(&scene.failed));
    eventually(SOON, "one is left", async || {
        (keys(stage, "failed").await.len() == 1).then_some(())
    })
    .await;
    let output = run(worker, &["failed", "replay", &ids[0]]).await;
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
}

#[tokio::test]
async fn what_is_discarded_moves_with_who_and_when() {
    let scene = Scene::new().await;
    let Scene { stage, worker, .. } = &scene;
    let wamid = id(&scene.failed);
    let output = run(worker, &["failed", "discard"]).await;
    assert_eq!(
        output.status.code(),
        Some(2),
        "it doesn't guess what is meant"
    );
    let counted = said(&run(worker, &["failed", "discard", &wamid, "--json"]).await);
    assert_eq!(
        (&counted["count"], &counted["discarded"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        keys(stage, "failed").await.len(),
        1,
        "nothing without --yes"
    );
    let discard = [
        "failed", "discard", &wamid, "--yes", "--by", "ops", "--json",
    ];
    let output = run(worker, &discard).await;
    let done = said(&output);
    assert_eq!(done["discarded"], 1, "{done}");
    assert_eq!(audits(&output).len(), 1);
    assert_eq!(keys(stage, "failed").await, Vec::<String>::new());
    let key = scene.failed_key.replacen("failed/", "discarded/", 1);
    let object = stage.webhooks().object(&key).await.expect("the store");
    let described = object.expect("it was moved").metadata;
    assert_eq!(described["discarded-by"], "ops");
    assert!(described["discarded-at"].starts_with("20"));
    assert_eq!(described["reason"], "tenant_suspended");
    let shown = said(&run(worker, &["failed", "show", &wamid, "--json"]).await);
    assert_eq!(shown[0]["discardedBy"], "ops", "{shown:#}");
    let output = run(worker, &discard).await;
    assert_eq!(output.status.code(), Some(1), "it is gone");
}

/// What lies in the failed store of a deployment that has failed for long.
async fn fill(stage: &Stage, count: usize) {
    let store = stage.webhooks();
    let puts = (0..count).map(|n| {
        let client = store.client();
        async move {
            let key = format!(
                "failed/t/2026-11-25/{}-wamid.{n}.json",
                1_764_028_800_000 + n
            );
            let mut attributes = Attributes::new();
            let reason = if n % 100 == 99 {
                "crashes"
            } else {
                "too_large"
            };
            attributes.insert(Attribute::Metadata("reason".into()), reason.into());
            let options = PutOptions {
                attributes,
                ..PutOptions::default()
            };
            let path = object_store::path::Path::parse(key).expect("a key");
            let put = client.put_opts(&path, "{}".into(), options);
            put.await.expect("the store");
        }
    });
    futures::stream::iter(puts)
        .buffer_unordered(16)
        .collect::<Vec<_>>()
        .await;
}

#[tokio::test]
async fn a_page_of_thousands_asks_for_its_own_objects_only() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await;
    fill(&stage, 5200).await;
    let page = async |more: &[&str]| {
        let arguments = [&["failed", "list", "--json", "--limit", "20"], more].concat();
        said(&run(&worker, &arguments).await)
    };
    let first = page(&[]).await;
    // Five listings of a thousand keys, and the attributes of what is on the page.
    assert_eq!(
        (&first["count"], &first["atLeast"]),
        (&json!(5000), &json!(true))
    );
    assert_eq!(first["lookedAt"], 20);
    let next = first["next"].as_str().expect("a next page");
    let second = page(&["--after", next]).await;
    let begins = second["objects"][0]["key"].as_str().expect("a key");
    assert!(begins > next, "{begins} after {next}");
    // Of one reason a hundred are looked at for each that is found.
    let few = page(&["--reason", "crashes"]).await;
    assert_eq!(few["objects"].as_array().map(Vec::len), Some(20));
    assert_eq!(few["lookedAt"], 2000);
}

#[tokio::test]
async fn a_customers_payloads_are_found_by_their_number_as_people_write_it() {
    let scene = Scene::new().await;
    let worker = &scene.worker;
    let output = run(
        worker,
        &["find", "--customer", "+49 151 0000-0001", "--json"],
    )
    .await;
    let found = said(&output);
    assert_eq!(found["key"], scene.archive_key, "{found:#}");
    assert_eq!(found["items"][0]["messageId"], id(&scene.published));
    assert!(errors(&output).contains("1 of "), "{}", errors(&output));
    let output = run(worker, &["find", "--customer", BEN, "--json"]).await;
    assert!(text(&output).contains(&scene.failed_key));
    assert!(!text(&output).contains("plum jam"));
    for (arguments, status) in [
        (&["--customer", ADA, "--tenant", "another"][..], 1),
        (&["--customer", ADA, "--to", "1h"], 1),
        (&["--customer", "4915199999999"], 1),
        (&["--customer", "ada"], 2),
    ] {
        let output = run(worker, &[&["find"], arguments].concat()).await;
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
    }
}

#[tokio::test]
async fn tail_shows_what_goes_out_and_what_it_says_on_demand_only() {
    let scene = Scene::new().await;
    let Scene { stage, worker, .. } = &scene;
    let mut lines = Vec::new();
    for more in [
        ["--count", "1"],
        ["--count=1", "--contents"],
        ["--type", "status"],
    ] {
        let mut command = tokio::process::Command::from(worker.command());
        command.args(["tail", "--json"]).args(more);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        lines.push(command.spawn().expect("the worker's command"));
    }
    let sender = stage.sender(&scene.ingress);
    let number = Number::fresh();
    let mut told = Vec::new();
    for tail in lines.iter_mut().take(2) {
        let out = tail.stdout.take().expect("its output");
        let mut out = BufReader::new(out).lines();
        // Sent until it is bound and has seen one.
        let line = loop {
            sender.send(number.message(payload::text(ADA, TEXT))).await;
            let next = tokio::time::timeout(std::time::Duration::from_millis(500), out.next_line());
            if let Ok(line) = next.await {
                break line.expect("its output").expect("a line");
            }
        };
        told.push(line);
    }
    assert!(!told[0].contains("plum jam"), "{}", told[0]);
    let event: Value = serde_json::from_str(&told[0]).expect("JSON");
    assert_eq!(event["eventType"], "message.received");
    assert_eq!(event["tenantId"], format!("tenant-{}", number.waba_id));
    assert!(event["eventId"].is_string() && event["correlationId"].is_string());
    assert!(told[1].contains("plum jam"), "{}", told[1]);
    assert!(
        lines[2].try_wait().expect("its state").is_none(),
        "no status came"
    );
}

/// Consumers reject what is in a queue, as far as it holds anything.
pub(crate) async fn reject(stage: &Stage, count: usize) {
    let connection = Connection::connect(&stage.amqp_url, ConnectionProperties::default());
    let connection = connection.await.expect("RabbitMQ");
    let channel = connection.create_channel().await.expect("a channel");
    for _ in 0..count {
        let message = eventually(SOON, "a message", async || {
            let got = channel.basic_get(MESSAGES.into(), BasicGetOptions::default());
            got.await.expect("the queue")
        })
        .await;
        let options = BasicNackOptions::default();
        message.acker.nack(options).await.expect("rejected");
    }
}

async fn dead_letters(worker: &Worker, count: usize) -> Vec<Value> {
    eventually(SOON, "dead letters", async || {
        let listed = run(worker, &["dlq", "list", "--json"]).await;
        let listed = said(&listed).as_array().expect("a list").clone();
        (listed.len() == count).then_some(listed)
    })
    .await
}

#[tokio::test]
async fn dead_letters_are_looked_at_put_back_and_deleted() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let (number, sender) = (Number::fresh(), stage.sender(&ingress));
    for body in ["a", "b"] {
        sender.send(number.message(payload::text(ADA, body))).await;
    }
    reject(&stage, 2).await;
    let letters = dead_letters(&worker, 2).await;
    let letters_again = dead_letters(&worker, 2).await;
    assert_eq!(letters, letters_again, "looking takes nothing away");
    let letter = &letters[0];
    assert_eq!(letter["queue"], "INBOUND_WHATSAPP_MESSAGES.DLQ");
    assert_eq!(letter["eventType"], "message.received");
    assert_eq!(letter["reason"], "rejected");
    let event_id = letter["eventId"].as_str().expect("an id");
    let requeue = ["dlq", "requeue", event_id, "--json"];
    let counted = said(&run(&worker, &requeue).await);
    assert_eq!(
        (&counted["count"], &counted["done"]),
        (&json!(1), &json!(0))
    );
    let done = run(&worker, &[&requeue[..], &["--yes"]].concat()).await;
    assert_eq!(said(&done)["done"], 1);
    assert_eq!(audits(&done).len(), 1, "{}", errors(&done));
    let events = stage.events();
    let seen = events.wait_for(1, SOON).await;
    assert_eq!(seen[0].message_id.as_deref(), Some(event_id));
    let death = |name: &&String| name.contains("death");
    assert_eq!(seen[0].headers.keys().find(death), None);
    let left = dead_letters(&worker, 1).await;
    assert_ne!(left[0]["eventId"], event_id);
    let done = said(&run(&worker, &["dlq", "discard", "--all", "--yes", "--json"]).await);
    assert_eq!(done["done"], 1);
    let output = run(&worker, &["dlq", "list"]).await;
    assert_eq!(output.status.code(), Some(1));
}

/// What is said of a tenant, once its account is noted as seen.
async fn of_tenant(worker: &Worker, tenant: &str) -> Value {
    eventually(SOON, "its account is known", async || {
        let report = said(&run(worker, &["tenant", tenant, "--json"]).await);
        let accounts = report["accounts"].as_array()?.len();
        (accounts == 1).then_some(report)
    })
    .await
}

#[tokio::test]
async fn why_a_tenants_events_stopped_stands_on_one_screen() {
    let scene = Scene::new().await;
    let (stage, worker) = (&scene.stage, &scene.worker);
    let account = &scene.suspended.waba_id;
    let tenant = format!("tenant-{account}");
    let report = said(&run(worker, &["tenant", account, "--json"]).await);
    let of_account = &report["accounts"][0];
    assert_eq!(of_account["verdict"], "suspended", "{report:#}");
    assert_eq!(
        report["setAside"]["byReason"]["tenant_suspended"], 1,
        "{report:#}"
    );
    let by_tenant = of_tenant(worker, &tenant).await;
    assert_eq!(by_tenant["tenantId"], *tenant, "{by_tenant:#}");
    assert_eq!(by_tenant["accounts"][0]["businessAccountId"], **account);

    let well = scene.event.text("/tenant/id").to_owned();
    let account = scene.event.text("/channel/businessAccountId");
    stage.neighbours.refuse_token(&format!("token-{account}"));
    let report = of_tenant(worker, &well).await;
    assert!(report["lastArchived"].is_string(), "{report:#}");
    let of_account = &report["accounts"][0];
    assert_eq!(of_account["verdict"], "active");
    assert_eq!(of_account["checks"][0]["status"], "FAIL", "{report:#}");
    assert_eq!(of_account["rate"]["refusedLastHour"], 0, "{report:#}");
    let told = text(&run(worker, &["tenant", &well]).await);
    assert!(told.contains("refuses its token"), "{told}");
    let output = run(worker, &["tenant", "nobody"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let away = [("MINIO_ENDPOINT", "http://127.0.0.1:1")];
    let output = run_with(worker, &["tenant", &well], &away).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[tokio::test]
async fn doctor_looks_at_the_work_too() {
    let scene = Scene::new().await;
    let found = said(&run(&scene.worker, &["doctor", "--json"]).await);
    assert_found(
        &found,
        "work",
        "WARN",
        "1 payloads are set aside: 1 tenant_suspended",
    );
    for part in [
        "the spool is empty",
        "no webhook waits",
        "owed: ",
        "no account is at its limit",
    ] {
        assert_found(&found, "work", "OK", part);
    }
}

/// A server that says what Redis does to whoever comes from another machine while it is protected.
async fn protected_redis() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told =
                b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n";
            drop(tokio::io::AsyncWriteExt::write_all(&mut stream, told).await);
            // Closed at once, the answer could be lost to a reset.
            let mut buffer = [0; 1024];
            drop(tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await);
        }
    });
    format!("redis://{address}")
}

#[tokio::test]
async fn doctor_names_protected_mode() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await;
    let redis = protected_redis().await;
    let settings = [("REDIS_URL", &*redis)];
    let output = run_with(&worker, &["doctor", "--json"], &settings).await;
    assert_found(&said(&output), "redis", "FAIL", "protected mode");
    assert_eq!(errors(&output), "");
}

#[tokio::test]
async fn readiness_tells_since_when_a_server_is_away() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().start().await;
    let report = async |program: &Program| {
        let (_, report) = program.get("/ready").await.expect("an answer");
        serde_json::from_str::<Value>(&report).expect("JSON")["servers"]["redis"].clone()
    };
    assert_eq!(report(&worker).await["awaySinceMs"], Value::Null);
    stage.redis.kill();
    let away = async || {
        eventually(SOON, "Redis is away", async || {
            report(&worker).await["awaySinceMs"].as_u64()
        })
        .await
    };
    let since = away().await;
    // The same after further probes.
    for _ in 0..2 {
        let mut age = 0;
        eventually(SOON, "it is probed again", async || {
            let seen = report(&worker).await["ageMs"].as_u64()?;
            let is_newer = seen < age;
            age = seen;
            is_newer.then_some(())
        })
        .await;
    }
    assert_eq!(away().await, since);
}

#[tokio::test]
async fn a_webhook_beyond_its_accounts_limit_is_told_of_with_the_account() {
    let stage = Stage::new().await;
    let ingress = stage
        .ingress()
        .env("RATE_LIMIT_PER_MINUTE", 1)
        .start()
        .await;
    let worker = stage.worker().start().await;
    let (number, sender) = (Number::fresh(), stage.sender(&ingress));
    for (body, status) in [("a", 200), ("b", 429), ("c", 429)] {
        let sent = sender
            .post_once(number.message(payload::text(ADA, body)))
            .await;
        assert_eq!(sent.expect("an answer").status, status);
    }
    let lines = ingress.log_lines();
    let mut refused = lines
        .iter()
        .filter(|line| line["waba_id"] == number.waba_id);
    assert!(refused.any(|line| line["level"] == "WARN"), "{lines:#?}");
    let part = format!("account {}: 2 webhooks were answered 429", number.waba_id);
    eventually(SOON, "doctor names it", async || {
        let found = said(&run(&worker, &["doctor", "--json"]).await);
        found.to_string().contains(&part).then_some(())
    })
    .await;
    drained(&stage).await;
    let report = said(&run(&worker, &["tenant", &number.waba_id, "--json"]).await);
    assert_eq!(
        report["accounts"][0]["rate"]["refusedLastHour"], 2,
        "{report:#}"
    );
}
