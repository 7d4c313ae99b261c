//! What operators ask for and do by hand, on a deployment that is well and on one that isn't.

use std::process::Output;

use redis::AsyncCommands;
use serde_json::{Value, json};
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Service, Tenant, Turn};
use tests::programs::Worker;
use tests::proxy::{Mode, Proxy};
use tests::waiting::eventually;

use crate::{SOON, drained};

const ADA: &str = "4915100000001";
const BEN: &str = "4915100000002";

/// Runs a command of the worker to its end, with other settings.
pub(crate) async fn run_with(
    worker: &Worker,
    arguments: &[&str],
    settings: &[(&str, &str)],
) -> Output {
    let mut command = worker.command();
    command.args(arguments).envs(settings.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.expect("no panic").expect("it runs")
}

pub(crate) async fn run(worker: &Worker, arguments: &[&str]) -> Output {
    run_with(worker, arguments, &[]).await
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

pub(crate) fn said(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!(
            "no JSON: {} {}",
            text(output),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

pub(crate) fn id(message: &Value) -> String {
    message["id"].as_str().expect("an id").to_owned()
}

/// Where a message is, as `inspect` says.
async fn places(worker: &Worker, id: &str) -> Vec<Value> {
    let output = run(worker, &["inspect", "--json", id]).await;
    said(&output)["found"].as_array().expect("a list").clone()
}

fn place<'p>(places: &'p [Value], name: &str) -> &'p Value {
    let found = places.iter().find(|place| place["place"] == name);
    found.unwrap_or_else(|| panic!("not in {name}: {places:?}"))
}

#[tokio::test]
async fn inspect_tells_where_everything_is_and_where_one_message_is() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let builder = stage.worker();
    let neighbours = stage.neighbours.url();
    let mut worker = builder.env("STATE_MANAGER_URL", neighbours).start().await;
    let (number, stranger) = (Number::fresh(), Number::fresh());
    stage
        .neighbours
        .set_tenant(&stranger.waba_id, Tenant::Unknown);
    let sender = stage.sender(&ingress);

    assert!(worker.stop(SOON).await);
    let waiting = payload::text(ADA, "a");
    sender.send(number.message(waiting.clone())).await;
    let seen = said(&run(&worker, &["inspect", "--json"]).await);
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let row = &seen["partitions"][usize::from(partition)];
    assert_eq!(row["length"], 1);
    assert_eq!((&row["lag"], &row["pending"]), (&json!(1), &json!(0)));
    assert_eq!(row["owner"], Value::Null);
    assert_eq!(seen["workers"], json!([]));
    let found = places(&worker, &id(&waiting)).await;
    assert_eq!(place(&found, "stream")["pending"], false);
    let remembered = place(&found, "remembered");
    assert_eq!(remembered["businessAccountId"], number.waba_id);

    worker.restart().await;
    drained(&stage).await;
    let found = places(&worker, &id(&waiting)).await;
    let key = place(&found, "archive")["key"].as_str().expect("a key");
    assert!(
        key.starts_with(&format!("tenant-{}/", number.waba_id)),
        "{key}"
    );
    assert!(found.iter().all(|place| place["place"] != "stream"));

    stage
        .neighbours
        .set_fault(Service::State, Fault::Status(500));
    let (failed, owed) = (payload::text(BEN, "b"), payload::text(ADA, "c"));
    sender.send(stranger.message(failed.clone())).await;
    sender.send(number.message(owed.clone())).await;
    let found = eventually(SOON, "what is owed", async || {
        let found = places(&worker, &id(&owed)).await;
        let owed = found.iter().any(|place| place["place"] == "owed");
        owed.then_some(found)
    })
    .await;
    assert_eq!(place(&found, "owed")["kind"], "state");
    let found = eventually(SOON, "a failed message", async || {
        let found = places(&worker, &id(&failed)).await;
        let failed = found.iter().any(|place| place["place"] == "failed");
        failed.then_some(found)
    })
    .await;
    assert_eq!(place(&found, "failed")["reason"], "tenant_unknown");

    let url = format!("http://{}", worker.admin());
    let seen = said(&run(&worker, &["inspect", "--json", "--worker-url", &url]).await);
    assert_eq!(seen["failed"]["byReason"]["tenant_unknown"], 1);
    assert_eq!(seen["spool"]["objects"], 0);
    let unknown = &seen["accounts"]["mostWithoutTenant"][0];
    assert_eq!(unknown["businessAccountId"], stranger.waba_id);
    assert_eq!(seen["workers"].as_array().map(Vec::len), Some(1));
    let breakers = seen["metrics"][0]["breakers"].as_object();
    assert!(
        breakers.is_some_and(|breakers| breakers.len() >= 3),
        "{seen}"
    );
    let queue = &seen["queues"][0];
    assert_eq!(queue["name"], "INBOUND_WHATSAPP_MESSAGES");
    assert_eq!(queue["consumers"], 0);

    inspect_is_a_text_for_people(&worker).await;
    inspect_says_what_it_could_not_look_at(&worker).await;
}

async fn inspect_is_a_text_for_people(worker: &Worker) {
    let output = run(worker, &["inspect"]).await;
    let text = text(&output);
    for part in [
        "Streams\n",
        "1 state ",
        "1  tenant_unknown",
        "live workers: 1",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains('\x1b'), "colours in a pipe");
}

async fn inspect_says_what_it_could_not_look_at(worker: &Worker) {
    let away = [
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("AMQP_URL", "amqp://127.0.0.1:1"),
    ];
    let output = run_with(worker, &["inspect", "--json"], &away).await;
    let seen = said(&output);
    assert_eq!(
        output.status.code(),
        Some(2),
        "it could not look everywhere"
    );
    assert!(seen["partitions"]["unknown"].is_string(), "{seen}");
    assert!(seen["queues"]["unknown"].is_string(), "{seen}");
    assert_eq!(seen["failed"]["objects"], 1);
}

/// Findings of `doctor` that begin so.
fn findings<'f>(found: &'f Value, check: &str, status: &str) -> Vec<&'f str> {
    let found = found.as_array().expect("a list").iter();
    let found = found.filter(|it| it["check"] == check && it["status"] == status);
    found.map(|it| it["said"].as_str().expect("text")).collect()
}

#[track_caller]
pub(crate) fn assert_found(found: &Value, check: &str, status: &str, part: &str) {
    let of_check = findings(found, check, status);
    let named = of_check.iter().any(|said| said.contains(part));
    assert!(named, "no {status} of {check} with `{part}` in {found:#}");
}

#[tokio::test]
async fn doctor_tells_of_a_store_that_lets_several_writes_of_one_key_win() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await;
    let upstream = stage.s3.endpoint.trim_start_matches("http://").to_owned();
    let proxy = Proxy::start(upstream).await.expect("a proxy");
    let put = format!("PUT /{}/_doctor/at-once/", stage.media_bucket);
    let written = b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n";
    proxy.set(Mode::AnswerTo(put, written));
    let store = format!("http://{}", proxy.address());
    let output = run_with(
        &worker,
        &["doctor", "--json"],
        &[("MINIO_ENDPOINT", &store)],
    )
    .await;
    let found = said(&output);
    assert_found(&found, "object store", "WARN", "lets 3 of three writes");
}

#[tokio::test]
async fn doctor_names_what_is_wrong_and_hangs_on_nothing() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await;
    let numbers = [Number::fresh(), Number::fresh(), Number::fresh()];
    let mut redis = stage.redis.connection().await;
    for number in &numbers {
        let seen = redis.zadd::<_, _, _, ()>("whatsapp:tenants:seen", &number.waba_id, 1);
        seen.await.expect("ZADD");
    }
    let doctor = ["doctor", "--json"];
    let output = run(&worker, &doctor).await;
    let found = said(&output);
    assert!(output.status.success(), "{found:#}");
    assert_eq!(findings(&found, "account", "OK").len(), 3);
    for (check, part) in [
        ("redis", "keeps what it acknowledges"),
        ("redis", "1 live workers"),
        ("rabbitmq", "bindings are right"),
        ("rabbitmq", "confirms a publication"),
        ("rabbitmq", "takes an event of 7.1 MB"),
        ("object store", "If-None-Match"),
        ("object store", "deletes"),
        ("presigned URLs", "works"),
        ("tenant service", "answers"),
        ("silence", "quieter"),
    ] {
        assert_found(&found, check, "OK", part);
    }
    let left = stage.media().list("_doctor").await.expect("a list");
    assert_eq!(left, Vec::<String>::new());
    assert!(text(&run(&worker, &["doctor"]).await).contains("OK  "));

    // Here all is reached, and wrong.
    let [refused, unsubscribed, gone] = &numbers;
    let neighbours = &stage.neighbours;
    neighbours.refuse_token(&format!("token-{}", refused.waba_id));
    let nothing = Turn::json(200, &json!({"data": []}));
    neighbours.always(Service::Graph, &unsubscribed.waba_id, nothing);
    neighbours.set_tenant(&gone.waba_id, Tenant::Unknown);
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("appendfsync")
        .arg("everysec")
        .query_async::<()>(&mut redis)
        .await
        .expect("CONFIG SET");
    let hour = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("now")
        .as_secs()
        / 3600;
    let silent = format!("{}:{}", refused.waba_id, refused.phone_number_id);
    let week = format!("{}:{}", hour - 3, "1".repeat(172));
    let traffic = redis.hset::<_, _, _, ()>("whatsapp:traffic", silent, week);
    traffic.await.expect("HSET");
    let wrong = [("MINIO_SECRET_KEY", "wrong"), ("STREAM_PARTITIONS", "8")];
    let output = run_with(&worker, &doctor, &wrong).await;
    let found = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(errors(&output), "", "the findings say all");
    assert_found(&found, "redis", "FAIL", "appendfsync is everysec");
    assert_found(&found, "redis", "FAIL", "the deployment has 16");
    assert_found(&found, "object store", "FAIL", &stage.webhook_bucket);
    assert_found(&found, "account", "FAIL", "refuses its token");
    assert_found(&found, "account", "FAIL", "no app is subscribed");
    assert_found(&found, "account", "WARN", "no tenant");
    assert_found(&found, "silence", "WARN", &refused.phone_number_id);

    // Here nothing is reached, or answers.
    neighbours.set_fault(Service::Tenants, Fault::Hang);
    neighbours.set_fault(Service::State, Fault::Hang);
    let away = [
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("AMQP_URL", "amqp://127.0.0.1:1"),
        ("MINIO_ENDPOINT", "http://127.0.0.1:1"),
        ("STATE_MANAGER_URL", &neighbours.url()),
    ];
    let output = tokio::time::timeout(SOON * 2, run_with(&worker, &doctor, &away));
    let output = output.await.expect("it hangs on nothing");
    let found = said(&output);
    assert_eq!(output.status.code(), Some(1));
    for check in [
        "redis",
        "rabbitmq",
        "object store",
        "tenant service",
        "state manager",
    ] {
        assert!(
            !findings(&found, check, "FAIL").is_empty(),
            "{check} in {found:#}"
        );
    }
}

/// An account's subscription as Meta describes it.
fn subscribed(app: &str, name: &str, override_uri: Option<&str>) -> Value {
    let mut one = json!({"whatsapp_business_api_data": {"id": app, "name": name, "link": "…"}});
    if let Some(uri) = override_uri {
        one["override_callback_uri"] = uri.into();
    }
    one
}

#[tokio::test]
async fn doctor_names_the_apps_that_an_account_is_subscribed_by_and_where_its_webhooks_go() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await;
    let own = "670843887433847";
    let elsewhere = "https://old.example/hook?token=secret";
    let here = "https://here.example/webhook/meta";
    let foreign = subscribed("99", "Somebody's", None);
    let cases = [
        (vec![subscribed(own, "Ours", None)], "OK", "Ours"),
        (
            vec![foreign.clone()],
            "WARN",
            "only by other apps: Somebody's (99)",
        ),
        (
            vec![foreign, subscribed(own, "Ours", None)],
            "OK",
            "Somebody's (99)",
        ),
        (
            vec![subscribed(own, "Ours", Some(elsewhere))],
            "WARN",
            "https://old.example/hook",
        ),
        (vec![subscribed(own, "Ours", Some(here))], "OK", here),
        (vec![json!({"odd": true})], "WARN", "only by other apps"),
    ];
    let mut redis = stage.redis.connection().await;
    let mut expected = Vec::new();
    for (apps, status, part) in cases {
        let number = Number::fresh();
        let seen = redis.zadd::<_, _, _, ()>("whatsapp:tenants:seen", &number.waba_id, 1);
        seen.await.expect("ZADD");
        let turn = Turn::json(200, &json!({"data": apps}));
        stage
            .neighbours
            .always(Service::Graph, &number.waba_id, turn);
        expected.push((number.waba_id, status, part));
    }
    let doctor = ["doctor", "--json", "--callback-url", here];
    let found = said(&run(&worker, &doctor).await);
    for (account, status, part) in expected {
        let mut of_status = findings(&found, "account", status).into_iter();
        let said = of_status.find(|said| said.contains(&account));
        assert!(
            said.is_some_and(|said| said.contains(part)),
            "{part}: {found:#}"
        );
    }
    assert!(!found.to_string().contains("token=secret"), "{found:#}");
    // Without the URL nobody can tell whether an override leads here.
    let found = said(&run(&worker, &["doctor", "--json"]).await);
    assert_found(&found, "account", "WARN", here);
}
