//! `worker replay`: what was set aside, or archived, goes out again, once, whoever is killed meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::process::Stdio;
use std::time::Duration;

use futures::StreamExt;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions};
use redis::AsyncCommands;
use serde_json::{Value, json};
use tests::Stage;
use tests::events::{Event, Events};
use tests::meta::Sender;
use tests::meta::payload::{self, Number};
use tests::neighbours::Tenant;
use tests::programs::Worker;
use tests::waiting::eventually;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::{SOON, drained};

const ADMIN: &str = "admin-token";

/// A `worker replay` that runs; killed when dropped.
fn spawn(worker: &Worker, arguments: &[&str]) -> Child {
    let mut command = Command::from(worker.command());
    command.arg("replay").args(arguments).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the worker's command")
}

/// What a child said at its end, and whether it succeeded.
async fn end_of(child: Child) -> (bool, String) {
    let output = child.wait_with_output().await.expect("its output");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).expect("text");
    (output.status.success(), text)
}

/// The last line of JSON of a replay that must succeed.
async fn replay(worker: &Worker, arguments: &[&str]) -> Value {
    let child = spawn(worker, &[arguments, &["--json"]].concat());
    let (well, text) = end_of(child).await;
    assert!(well, "{text}");
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    assert_eq!(
        text.contains(r#""action":"replay""#),
        !arguments.contains(&"--dry-run"),
        "{text}"
    );
    let mut lines = lines.filter(|line: &Value| line.get("payloads").is_some());
    lines.next_back().unwrap_or_default()
}

async fn keys(stage: &Stage, prefix: &str) -> Vec<String> {
    stage.webhooks().list(prefix).await.expect("a list")
}

async fn set_aside(stage: &Stage, count: usize) {
    eventually(SOON * 4, "all of it is set aside", async || {
        (keys(stage, "failed/").await.len() == count).then_some(())
    })
    .await;
    drained(stage).await;
}

async fn tenant_is(stage: &Stage, worker: &Worker, number: &Number, tenant: Tenant) {
    stage.neighbours.set_tenant(&number.waba_id, tenant);
    let path = format!("/tenants/{}/invalidate", number.waba_id);
    worker.post(&path, Some(ADMIN)).await.expect("an answer");
}

/// Events that a replay published, by message id.
fn replayed(events: &[Event]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        if event.headers.contains_key("x-replay-id") {
            let id = event.message_id.clone().expect("a message id");
            *counts.entry(id).or_default() += 1;
        }
    }
    counts
}

async fn field_of_all(stage: &Stage, field: &str) -> u64 {
    let mut sum = 0;
    for partition in 0..16 {
        let key = format!("whatsapp:{{{partition}}}:replayed");
        let mut redis = stage.redis_for(&key).await;
        let value: Option<u64> = redis.hget(&key, field).await.expect("HGET");
        sum += value.unwrap_or(0);
    }
    sum
}

/// Marks of the dedup.
async fn marks(stage: &Stage) -> usize {
    let mut redis = stage.redis.connection().await;
    let keys: Vec<String> = redis.keys("whatsapp:*:seen:*").await.expect("KEYS");
    let mut marks = 0;
    for key in keys {
        marks += redis.hlen::<_, usize>(key).await.expect("HLEN");
    }
    marks
}

/// Overwrites an object's bytes, as a fault would: what is written beside them stays.
async fn spoil(stage: &Stage, key: &str) {
    let store = stage.webhooks();
    let object = store
        .object(key)
        .await
        .expect("the store")
        .expect("an object");
    let mut attributes = Attributes::new();
    for (name, value) in object.metadata {
        attributes.insert(Attribute::Metadata(name.into()), value.into());
    }
    let options = PutOptions {
        attributes,
        ..PutOptions::default()
    };
    let path = object_store::path::Path::parse(key).expect("a key");
    let put = store.client().put_opts(&path, "spoilt".into(), options);
    put.await.expect("the store");
}

/// 10,000 with REPLAY_PAYLOADS=10000.
fn payloads() -> usize {
    let wanted = std::env::var("REPLAY_PAYLOADS").ok();
    wanted.map_or(600, |wanted| wanted.parse().expect("a number"))
}

/// Sets `count` payloads of `numbers` and 20 of `suspended` aside.
async fn fill(stage: &Stage, sender: &Sender, numbers: &[Number], suspended: &Number) {
    let bodies = (0..payloads()).map(|n| {
        let number = &numbers[n % numbers.len()];
        number.message(payload::text(&format!("1{:09}", n % 50), &n.to_string()))
    });
    let still = (0..20).map(|n| suspended.message(payload::text("1", &n.to_string())));
    let bodies: Vec<_> = bodies.chain(still).collect();
    let posts = bodies.into_iter().map(|body| sender.send(body));
    futures::stream::iter(posts)
        .buffer_unordered(16)
        .collect::<Vec<_>>()
        .await;
    set_aside(stage, payloads() + 20).await;
}

/// Replays all of it, while live webhooks of `live` are posted, one after the other, each waited for:
/// the first run is killed after a quarter, the worker after half, one of two further runs after three
/// quarters. How long each live webhook took.
async fn replay_through_kills(
    events: &Events,
    sender: &Sender,
    worker: &mut Worker,
    live: &Number,
) -> Vec<Duration> {
    let count = payloads();
    let began = Instant::now();
    let mut delays = Vec::new();
    let pace = (count / 4).to_string();
    let (mut first, mut others, mut kills) =
        (Some(spawn(worker, &["--rate", &pace])), Vec::new(), 0);
    let ended = loop {
        let sent = delays.len();
        let body = live.message(payload::text("2222222222", &sent.to_string()));
        let posted = Instant::now();
        sender.send(body).await;
        let of_live = |event: &&Event| event.text("/channel/businessAccountId") == live.waba_id;
        let out = |events: &[Event]| events.iter().filter(of_live).count() == sent + 1;
        let done = replayed(&events.wait_until(SOON, out).await).len();
        delays.push(posted.elapsed());
        if done >= count / 4
            && let Some(mut killed) = first.take()
        {
            killed.kill().await.expect("kill -9");
            others = vec![
                spawn(worker, &["--rate", &pace]),
                spawn(worker, &["--rate", &pace]),
            ];
        }
        if done >= count / 2 && kills == 0 {
            kills += 1;
            worker.restart().await;
        }
        if done >= count * 3 / 4 && kills == 1 {
            kills += 1;
            // Whichever of the two puts back: the other one goes on.
            let mut killed = others.remove(0);
            killed.kill().await.expect("kill -9");
        }
        if kills == 2
            && let Some(other) = others.first_mut()
            && other.try_wait().expect("its state").is_some()
        {
            break others.remove(0);
        }
        assert!(began.elapsed() < SOON * 10, "{done} of {count} went out");
    };
    let (well, said) = end_of(ended).await;
    assert!(well, "{said}");
    assert!(said.contains(", 1 left"), "{said}");
    delays
}

/// Everything but the spoilt one went out once more, or failed again: then under keys that are
/// returned.
async fn assert_moved(stage: &Stage, spoilt: String, suspended: &Number) -> Vec<String> {
    let count = payloads();
    // Each put back once.
    assert_eq!(field_of_all(stage, "n").await as usize, count + 19);
    assert_eq!(field_of_all(stage, "d").await as usize, count - 1);
    assert_eq!(field_of_all(stage, "f").await as usize, 20);
    assert_eq!(keys(stage, "replayed/").await.len(), count - 1);
    let failed = keys(stage, "failed/").await;
    let (again, rest): (Vec<_>, Vec<_>) = failed.into_iter().partition(|key| key.contains(".r1"));
    assert_eq!(rest, [spoilt]);
    assert_eq!(again.len(), 20);
    assert!(again.iter().all(|key| key.contains(&suspended.waba_id)));
    let object = stage.webhooks().object(&again[0]).await.expect("the store");
    let described = object.expect("an object").metadata;
    assert_eq!(described["reason"], "tenant_suspended");
    assert_eq!((&*described["attempts"], &*described["items"]), ("2", "0"));
    again
}

/// What failed again does so under the new id, and nothing else moves.
async fn assert_again(stage: &Stage, worker: &Worker, again: &[String]) {
    let second = replay(worker, &[]).await;
    assert_eq!(second["payloads"], 21);
    assert_eq!(
        (&second["wentOut"], &second["setAsideAgain"]),
        (&json!(0), &json!(20))
    );
    assert_eq!(second["left"], 1);
    let failed: HashSet<String> = keys(stage, "failed/").await.into_iter().collect();
    assert_eq!(failed.len(), 21);
    assert!(again.iter().all(|key| !failed.contains(key)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_goes_out_once_more_through_kills_beside_live_traffic() {
    let count = payloads();
    let stage = Stage::new().await;
    let numbers: Vec<Number> = (0..4).map(|_| Number::fresh()).collect();
    let (live, suspended) = (Number::fresh(), Number::fresh());
    for number in numbers.iter().chain([&suspended]) {
        stage
            .neighbours
            .set_tenant(&number.waba_id, Tenant::Suspended);
    }
    let ingress = stage.ingress().env("RATE_LIMIT_PER_MINUTE", 0);
    let ingress = ingress.start().await;
    let worker = stage.worker().env("WORKER_ADMIN_TOKEN", ADMIN);
    let mut worker = worker.env("LEASE_TTL", "1s").start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    fill(&stage, &sender, &numbers, &suspended).await;
    let of_first = format!("failed/tenant-{}", numbers[0].waba_id);
    let spoilt = keys(&stage, &of_first).await.remove(3);
    spoil(&stage, &spoilt).await;
    let marks_before = marks(&stage).await;
    let counted = replay(&worker, &["--dry-run"]).await;
    assert_eq!(counted["payloads"], count + 20);
    assert_eq!(keys(&stage, "failed/").await.len(), count + 20);
    for number in &numbers {
        tenant_is(&stage, &worker, number, Tenant::Active).await;
    }
    let mut delays = replay_through_kills(&events, &sender, &mut worker, &live).await;
    drained(&stage).await;
    let seen = replayed(&events.all());
    assert_eq!(seen.len(), count - 1, "each event once more");
    let repeats: usize = seen.values().map(|times| times - 1).sum();
    assert!(
        repeats <= 64 * numbers.len(),
        "{repeats} repeats of a killed worker"
    );
    // Only live items are marked.
    assert_eq!(marks(&stage).await, marks_before + delays.len());
    let again = assert_moved(&stage, spoilt, &suspended).await;
    assert_again(&stage, &worker, &again).await;
    assert_eq!(replayed(&events.all()).len(), count - 1);
    delays.sort_unstable();
    let (median, longest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    #[allow(clippy::print_stdout, reason = "measured, for whoever runs it")]
    {
        println!(
            "{count} payloads, {repeats} repeats; {} live webhooks meanwhile: median {median:?}, \
             longest {longest:?}",
            delays.len()
        );
    }
}

#[tokio::test]
async fn a_replay_is_chosen_by_reason_tenant_message_and_time() {
    let stage = Stage::new().await;
    let (suspended, unknown) = (Number::fresh(), Number::fresh());
    stage
        .neighbours
        .set_tenant(&suspended.waba_id, Tenant::Suspended);
    stage
        .neighbours
        .set_tenant(&unknown.waba_id, Tenant::Unknown);
    let (ingress, worker) = (
        stage.ingress().start().await,
        stage
            .worker()
            .env("WORKER_ADMIN_TOKEN", ADMIN)
            .start()
            .await,
    );
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let pair = [payload::text("1", "a"), payload::text("1", "b")];
    let second_id = pair[1]["id"].as_str().expect("an id").to_owned();
    sender
        .send(suspended.webhook([suspended.messages(pair)]))
        .await;
    for n in 0..3 {
        sender
            .send(suspended.message(payload::text("2", &n.to_string())))
            .await;
        sender
            .send(unknown.message(payload::text("3", &n.to_string())))
            .await;
    }
    set_aside(&stage, 7).await;
    let tenant = format!("tenant-{}", suspended.waba_id);
    for (arguments, count) in [
        (&["--reason", "tenant_unknown"][..], 3),
        (&["--tenant", &tenant], 4),
        (&["--tenant", &tenant, "--reason", "tenant_unknown"], 0),
        (&["--message-id", &second_id], 1),
        (&["--from", "1h"], 7),
        (&["--to", "1h"], 0),
        (&["--from", "2d", "--to", "1d"], 0),
    ] {
        let counted = replay(&worker, &[arguments, &["--dry-run"]].concat()).await;
        assert_eq!(counted["payloads"], count, "{arguments:?}");
    }
    for (arguments, why) in [
        (&["--from", "10years"][..], "400 days"),
        (&["--from", "1h", "--to", "2h"], "before --to"),
        (&["--from", "2999-01-01"], "lies ahead"),
        (&["--from", "yesterday"], "two hours ago"),
        (&["--rate", "1e9"], "100/s"),
        (&["--tenant", "raw/../x"], "no tenant's id"),
        (&["--tenant", ".."], "no tenant's id"),
        (&["--reason", "bad"], "tenant_suspended"),
        (&["--source", "archive"], "needs --from"),
        (
            &["--source", "archive", "--from", "1h", "--reason", "crashes"],
            "--source failed",
        ),
    ] {
        let (well, said) = end_of(spawn(&worker, arguments)).await;
        assert!(!well && said.contains(why), "{arguments:?}: {said}");
    }

    tenant_is(&stage, &worker, &suspended, Tenant::Active).await;
    let done = replay(&worker, &["--message-id", &second_id]).await;
    assert_eq!((&done["putBack"], &done["wentOut"]), (&json!(1), &json!(1)));
    let seen = events.wait_for(2, SOON).await;
    assert!(seen.iter().any(|event| event.wamid() == second_id));
    assert_eq!(keys(&stage, "failed/").await.len(), 6);

    // The account has passed on to another tenant: what was the first one's doesn't become the other's.
    let other =
        json!({"tenantId": "other", "status": "active", "businessAccountId": suspended.waba_id});
    tenant_is(&stage, &worker, &suspended, Tenant::Custom(other)).await;
    let done = replay(&worker, &["--tenant", &tenant]).await;
    assert_eq!(done["setAsideAgain"], 3);
    let failed = keys(&stage, &format!("failed/{tenant}")).await;
    assert_eq!(failed.len(), 3);
    let object = stage
        .webhooks()
        .object(&failed[0])
        .await
        .expect("the store");
    assert_eq!(
        object.expect("an object").metadata["reason"],
        "tenant_changed"
    );
    assert_eq!(events.count(), 2);
}

#[tokio::test]
async fn the_archive_goes_out_again_with_the_same_ids_and_keeps_its_objects() {
    let stage = Stage::new().await;
    let (one, other) = (Number::fresh(), Number::fresh());
    let (ingress, worker) = (
        stage.ingress().start().await,
        stage
            .worker()
            .env("WORKER_ADMIN_TOKEN", ADMIN)
            .start()
            .await,
    );
    let events = stage.events();
    let sender = stage.sender(&ingress);
    for n in 0..5 {
        let pair = [format!("{n}a"), format!("{n}b")].map(|text| payload::text("1", &text));
        sender.send(one.webhook([one.messages(pair)])).await;
        sender
            .send(other.message(payload::text("2", &n.to_string())))
            .await;
    }
    let before = events.wait_for(15, SOON).await;
    drained(&stage).await;
    let (objects, marks_before) = (keys(&stage, "").await, marks(&stage).await);
    let tenant = format!("tenant-{}", one.waba_id);
    let from_one = ["--source", "archive", "--from", "1h", "--tenant", &tenant];
    let done = replay(&worker, &from_one).await;
    assert_eq!(
        (&done["payloads"], &done["wentOut"]),
        (&json!(5), &json!(5))
    );
    let seen = events.wait_for(25, SOON).await;
    let ids = |events: &[Event]| -> HashSet<String> {
        let of_one = events
            .iter()
            .filter(|event| event.text("/tenant/id") == tenant);
        of_one
            .filter_map(|event| event.message_id.clone())
            .collect()
    };
    let again = replayed(&seen);
    assert_eq!(again.keys().cloned().collect::<HashSet<_>>(), ids(&before));
    assert!(again.values().all(|times| *times == 1));
    let key = |event: &Event| event.text("/rawObject/key").to_owned();
    let raw: HashSet<String> = before.iter().map(key).collect();
    assert!(seen.iter().all(|event| raw.contains(&key(event))));
    drained(&stage).await;
    assert_eq!(keys(&stage, "").await, objects);
    assert_eq!(marks(&stage).await, marks_before);
    // All tenants, by a pipe's plain lines.
    let (well, said) = end_of(spawn(&worker, &["--source", "archive", "--from", "1h"])).await;
    assert!(
        well && said.contains("10 of 10 put back, 10 went out"),
        "{said}"
    );
    events.wait_for(40, SOON).await;
}

#[tokio::test]
async fn an_entry_that_could_not_be_decoded_is_restored_and_a_stopped_replay_can_be_ended() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    let worker = stage.worker().start().await;
    let events = stage.events();
    // As a worker of an earlier version left it, had it not known this one's entries.
    let body = number.message(payload::text("1", "a"));
    let text = String::from_utf8(body.to_vec()).expect("text");
    let entry = json!({"v": "1", "w": number.waba_id, "c": "c", "t": "1764000000000", "n": "0",
        "b": text, "s": "", "p": "", "r": ""});
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::Metadata("reason".into()), "undecodable".into());
    let options = PutOptions {
        attributes,
        ..PutOptions::default()
    };
    let key = "failed/_unresolved/0/2025-11-24/1764000000000-1-0.json";
    let path = object_store::path::Path::parse(key).expect("a key");
    let put = stage.webhooks();
    put.client()
        .put_opts(&path, entry.to_string().into(), options)
        .await
        .expect("the store");
    let done = replay(&worker, &[]).await;
    assert_eq!(done["wentOut"], 1);
    let seen = events.wait_for(1, SOON).await;
    assert!(seen[0].headers["x-replay-id"].starts_with('r'));
    assert_eq!(keys(&stage, "failed/").await, Vec::<String>::new());

    // A stream that nobody reads holds the next replay up.
    let mut worker = worker;
    worker.stop(SOON).await;
    let ids: Vec<String> = (0..70).map(|n| format!("{n}")).collect();
    for id in &ids {
        let body = number.message(payload::text("1", id));
        let path = format!(
            "failed/tenant-{}/2025-11-24/1764000000{:03}-{id}.json",
            number.waba_id,
            100 + id.len()
        );
        let path = object_store::path::Path::parse(path).expect("a key");
        put.client()
            .put(&path, body.into())
            .await
            .expect("the store");
    }
    let child = spawn(&worker, &["--rate", "1000/s"]);
    eventually(SOON, "it waits for the backlog", async || {
        (crate::stored(&stage).await == 64).then_some(())
    })
    .await;
    let pid = child.id().expect("it runs").to_string();
    let (well, said) = end_of(spawn(&worker, &["--abandon"])).await;
    assert!(!well && said.contains("is being run"), "{said}");
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .expect("kill")
            .success()
    );
    let (well, said) = end_of(child).await;
    assert!(well && said.contains("is stopped"), "{said}");
    let (well, said) = end_of(spawn(&worker, &["--abandon"])).await;
    assert!(well && said.contains("is ended"), "{said}");
    worker.restart().await;
    events.wait_for(65, SOON).await;
    drained(&stage).await;
    assert_eq!(keys(&stage, "failed/").await.len(), 6);
    let done = replay(&worker, &[]).await;
    assert_eq!(done["wentOut"], 6);
    let seen = events.wait_for(71, SOON).await;
    assert_eq!(replayed(&seen).values().sum::<usize>(), 71);
}
