//! Whose account it is: what comes out, and when, while the Tenant Service is slow, wrong or away.

use std::time::Duration;

use redis::AsyncCommands;
use reqwest::StatusCode;
use serde_json::json;
use tests::Stage;
use tests::events::Event;
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Service, Tenant};
use tests::programs::Worker;
use tests::waiting::eventually;

use crate::outages::Crashes;
use crate::{SOON, assert_repeats, drained, repeats};

const ADMIN: &str = "admin-token";

fn texts_of(events: &[Event], number: &Number) -> Vec<String> {
    let of_number = |event: &&Event| event.text("/channel/businessAccountId") == number.waba_id;
    let events = events.iter().filter(of_number);
    events
        .map(|event| event.text("/message/content/body").to_owned())
        .collect()
}

async fn invalidate(worker: &Worker, number: &Number) {
    let path = format!("/tenants/{}/invalidate", number.waba_id);
    let (status, body) = worker.post(&path, Some(ADMIN)).await.expect("an answer");
    assert_eq!(status, StatusCode::OK, "{body}");
}

async fn failed(stage: &Stage) -> Vec<String> {
    stage.webhooks().list("failed/").await.expect("a list")
}

#[tokio::test]
async fn each_fault_of_the_service_holds_back_whom_it_does_not_know_and_nobody_else() {
    let stage = Stage::new().await;
    let known = Number::fresh();
    let (ingress, worker) = (
        stage.ingress().env("STREAM_PARTITIONS", 1).start().await,
        stage.worker().env("STREAM_PARTITIONS", 1).start().await,
    );
    let events = stage.events();
    let sender = stage.sender(&ingress);
    sender
        .send(known.message(payload::text("1111111111", "0")))
        .await;
    events.wait_for(1, SOON).await;
    let mut held = Vec::new();
    for (n, fault) in [
        Fault::Slow(Duration::from_secs(20)),
        Fault::Hang,
        Fault::Status(500),
        Fault::Close,
        Fault::Cut(20),
        Fault::Garbage,
    ]
    .into_iter()
    .enumerate()
    {
        let number = Number::fresh();
        let before = stage.neighbours.requests(Service::Tenants);
        stage.neighbours.set_fault(Service::Tenants, fault);
        sender
            .send(number.message(payload::text("2222222222", &n.to_string())))
            .await;
        eventually(SOON, "the service is asked, in vain", async || {
            (stage.neighbours.requests(Service::Tenants) > before).then_some(())
        })
        .await;
        sender
            .send(known.message(payload::text("1111111111", &format!("beside {fault}"))))
            .await;
        held.push(number);
        let seen = events.wait_for(n + 2, SOON).await;
        assert_eq!(texts_of(&seen, &known).len(), n + 2, "{fault}");
    }
    assert!(worker.metric("whatsapp_parked", "").await >= 1.0);
    stage.neighbours.set_fault(Service::Tenants, Fault::None);
    let seen = events.wait_for(7 + held.len(), SOON).await;
    for (n, number) in held.iter().enumerate() {
        assert_eq!(texts_of(&seen, number), [n.to_string()]);
    }
    drained(&stage).await;
    assert_eq!(failed(&stage).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_known_tenant_outlives_a_service_that_is_away() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    let (ingress, mut worker) = (
        stage
            .ingress()
            .env("RATE_LIMIT_PER_MINUTE", 0)
            .start()
            .await,
        stage.worker().env("TENANT_CACHE_TTL", "1s").start().await,
    );
    let events = stage.events();
    let sender = stage.sender(&ingress);
    sender
        .send(number.message(payload::text("1111111111", "0")))
        .await;
    events.wait_for(1, SOON).await;
    stage
        .neighbours
        .set_fault(Service::Tenants, Fault::Status(500));
    let mut sent = 1;
    // By a worker that never had an answer of the service itself.
    worker.restart().await;
    eventually(SOON * 2, "it is left alone and tried again", async || {
        sender
            .send(number.message(payload::text("1111111111", &sent.to_string())))
            .await;
        sent += 1;
        events.wait_for(sent, SOON).await;
        let tried = "to=\"half_open\"";
        let tried = worker
            .metric("whatsapp_breaker_transitions_total", tried)
            .await;
        (tried > 0.0).then_some(())
    })
    .await;
    assert!(worker.metric("whatsapp_tenants_stale_total", "").await > 0.0);
    let asked = stage.neighbours.requests(Service::Tenants);
    assert!(asked < 80, "{asked} questions");
    stage.neighbours.set_fault(Service::Tenants, Fault::None);
    eventually(SOON, "the breaker closes", async || {
        sender
            .send(number.message(payload::text("1111111111", "more")))
            .await;
        let open = worker
            .metric("whatsapp_breaker_state", "tenant-service")
            .await;
        (open < 0.5).then_some(())
    })
    .await;
    assert!(
        worker
            .metric("whatsapp_breaker_transitions_total", "to=\"closed\"")
            .await
            > 0.0
    );
    let log = worker.log();
    assert!(log.contains("circuit breaker open: calls to the neighbour fail"));
    assert!(log.contains("circuit breaker closed: the neighbour answers again"));
}

#[tokio::test]
async fn a_new_tenant_gets_what_was_set_aside_as_soon_as_it_is_declared() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    stage
        .neighbours
        .set_tenant(&number.waba_id, Tenant::Unknown);
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
    for n in 0..10 {
        let messages =
            [format!("{n}a"), format!("{n}b")].map(|text| payload::text("1111111111", &text));
        let change = number.messages(messages);
        sender.send(number.webhook([change])).await;
    }
    eventually(SOON, "all of it is set aside", async || {
        (failed(&stage).await.len() == 10).then_some(())
    })
    .await;
    drained(&stage).await;
    stage.neighbours.set_tenant(&number.waba_id, Tenant::Active);
    invalidate(&worker, &number).await;
    let seen = events.wait_for(20, SOON).await;
    drained(&stage).await;
    let mut texts = texts_of(&seen, &number);
    texts.sort_unstable();
    let expected: Vec<_> = (0..10)
        .flat_map(|n| [format!("{n}a"), format!("{n}b")])
        .collect();
    assert_eq!(texts, expected);
    assert_eq!(repeats(&seen), 0);
    assert_eq!(failed(&stage).await, Vec::<String>::new());
    let replayed = stage.webhooks().list("replayed/").await.expect("a list");
    assert_eq!(replayed.len(), 10);
    // The next round finds nothing and takes the account off the list.
    invalidate(&worker, &number).await;
    let mut redis = stage.redis.connection().await;
    let unknown: usize = redis
        .zcard("whatsapp:tenants:unknown")
        .await
        .expect("ZCARD");
    assert_eq!(unknown, 0);
}

#[tokio::test]
async fn a_new_tenant_gets_what_was_set_aside_within_two_minutes_by_itself() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    stage
        .neighbours
        .set_tenant(&number.waba_id, Tenant::Unknown);
    let ingress = stage.ingress().start().await;
    let (_one, _other) = (stage.worker().start().await, stage.worker().start().await);
    let events = stage.events();
    let sender = stage.sender(&ingress);
    sender
        .send(number.message(payload::text("1111111111", "a")))
        .await;
    eventually(SOON, "it is set aside", async || {
        (failed(&stage).await.len() == 1).then_some(())
    })
    .await;
    stage.neighbours.set_tenant(&number.waba_id, Tenant::Active);
    let seen = events.wait_for(1, Duration::from_secs(130)).await;
    assert_eq!(texts_of(&seen, &number), ["a"]);
    sender
        .send(number.message(payload::text("1111111111", "b")))
        .await;
    let seen = events.wait_for(2, SOON).await;
    assert_eq!(texts_of(&seen, &number), ["a", "b"]);
    // Two workers, and still one question a minute.
    let asked = stage.neighbours.requests(Service::Tenants);
    assert!(asked <= 5, "{asked} questions");
}

#[tokio::test]
async fn what_a_suspended_tenant_missed_stays_aside_until_somebody_replays_it() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    stage
        .neighbours
        .set_tenant(&number.waba_id, Tenant::Suspended);
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
    sender
        .send(number.message(payload::text("1111111111", "a")))
        .await;
    let folder = format!("failed/tenant-{}/", number.waba_id);
    let key = eventually(SOON, "it is set aside", async || failed(&stage).await.pop()).await;
    assert!(key.starts_with(&folder), "{key}");
    stage.neighbours.set_tenant(&number.waba_id, Tenant::Active);
    invalidate(&worker, &number).await;
    sender
        .send(number.message(payload::text("1111111111", "b")))
        .await;
    let seen = events.wait_for(1, SOON).await;
    drained(&stage).await;
    assert_eq!(texts_of(&seen, &number), ["b"]);
    assert_eq!(failed(&stage).await, [key]);
}

#[tokio::test]
async fn an_invalidation_by_one_worker_is_heard_by_the_owner_and_guarded() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    let ingress = stage.ingress().start().await;
    let one = stage
        .worker()
        .env("WORKER_ADMIN_TOKEN", ADMIN)
        .start()
        .await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    sender
        .send(number.message(payload::text("1111111111", "a")))
        .await;
    let seen = events.wait_for(1, SOON).await;
    assert_eq!(
        seen[0].text("/tenant/name"),
        format!("Tenant {}", number.waba_id)
    );
    let other = stage
        .worker()
        .env("WORKER_ADMIN_TOKEN", ADMIN)
        .start()
        .await;
    let open = stage.worker().start().await;

    let path = format!("/tenants/{}/invalidate", number.waba_id);
    for (worker, path, token, status) in [
        (&open, &*path, Some(ADMIN), StatusCode::NOT_FOUND),
        (&other, &*path, None, StatusCode::UNAUTHORIZED),
        (&other, &*path, Some("admin-toke"), StatusCode::UNAUTHORIZED),
        (
            &other,
            "/tenants//invalidate",
            Some(ADMIN),
            StatusCode::NOT_FOUND,
        ),
        (&other, "/tenants", None, StatusCode::NOT_FOUND),
    ] {
        let answer = worker.post(path, token).await.expect("an answer");
        assert_eq!(answer.0, status, "{path} {token:?}");
    }
    let (status, _) = other.get(&path).await.expect("an answer");
    assert_eq!(status, StatusCode::NOT_FOUND);

    let renamed = json!({"tenantId": "t", "name": "New", "businessAccountId": number.waba_id});
    stage
        .neighbours
        .set_tenant(&number.waba_id, Tenant::Custom(renamed));
    for worker in [&one, &other] {
        invalidate(worker, &number).await;
    }
    let mut redis = stage.redis.connection().await;
    assert!(
        !redis
            .exists::<_, bool>(format!("whatsapp:tenant:{}", number.waba_id))
            .await
            .expect("EXISTS")
    );
    eventually(SOON, "the new name", async || {
        sender
            .send(number.message(payload::text("1111111111", "b")))
            .await;
        let seen = events.all();
        seen.last()
            .filter(|event| event.text("/tenant/name") == "New")
            .map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn a_file_stands_for_the_service_and_a_broken_edit_changes_nothing() {
    let stage = Stage::new().await;
    let (first, second) = (Number::fresh(), Number::fresh());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tenants.json");
    let of = |number: &Number, id: &str| json!({"tenantId": id, "businessAccountId": number.waba_id, "accessToken": "canary-token"});
    let write = |text: &str| std::fs::write(&path, text).expect("a file");
    write(&json!([of(&first, "t1")]).to_string());
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().env("TENANTS_FILE", path.display());
    let worker = worker.env("WORKER_ADMIN_TOKEN", ADMIN).start().await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    sender
        .send(first.message(payload::text("1111111111", "a")))
        .await;
    sender
        .send(second.message(payload::text("2222222222", "b")))
        .await;
    let seen = events.wait_for(1, SOON).await;
    assert_eq!(seen[0].text("/tenant/id"), "t1");
    eventually(SOON, "the second is unknown", async || {
        failed(&stage).await.pop()
    })
    .await;

    write("[{\"tenantId\": \"canary-id\",");
    eventually(SOON, "the log says so", async || {
        let log = worker.log();
        log.contains("can't be used; the last good one is kept")
            .then_some(())
    })
    .await;
    sender
        .send(first.message(payload::text("1111111111", "c")))
        .await;
    events.wait_for(2, SOON).await;

    write(&json!([of(&first, "t1"), of(&second, "t2")]).to_string());
    eventually(SOON, "the new file is used", async || {
        worker
            .log()
            .contains("has changed and is used")
            .then_some(())
    })
    .await;
    invalidate(&worker, &second).await;
    let seen = events.wait_for(3, SOON).await;
    assert_eq!(texts_of(&seen, &second), ["b"]);
    assert_eq!(stage.neighbours.requests(Service::Tenants), 0);
    assert!(!worker.log().contains("canary"));
    let mut redis = stage.redis.connection().await;
    let kept: Vec<String> = redis.keys("whatsapp:token:*").await.expect("KEYS");
    assert_eq!(kept, Vec::<String>::new());
}

/// Where the webhooks of its last minute are counted.
fn rate_window(number: &Number) -> String {
    let keys = shared::keys::Keys::new("whatsapp", 16);
    keys.rate(keys.partition_of(&number.waba_id), &number.waba_id)
}

#[tokio::test]
async fn a_tenant_may_have_a_limit_of_its_own() {
    let stage = Stage::new().await;
    let (own, other) = (Number::fresh(), Number::fresh());
    let tenant = |limit: Option<u32>| {
        let waba_id = &own.waba_id;
        Tenant::Custom(
            json!({"tenantId": "t", "businessAccountId": waba_id, "rateLimitPerMinute": limit}),
        )
    };
    stage.neighbours.set_tenant(&own.waba_id, tenant(Some(3)));
    let ingress = stage
        .ingress()
        .env("RATE_LIMIT_PER_MINUTE", 5)
        .start()
        .await;
    let worker = stage
        .worker()
        .env("WORKER_ADMIN_TOKEN", ADMIN)
        .start()
        .await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let post = async |number: &Number| {
        let body = number.message(payload::text("1111111111", "a"));
        sender.post_once(body).await.expect("an answer")
    };
    assert_eq!(post(&own).await.header("x-ratelimit-limit"), "5");
    events.wait_for(1, SOON).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let answer = post(&own).await;
        assert_eq!(answer.header("x-ratelimit-limit"), "3");
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [200, 200, 429]);
    for _ in 0..4 {
        assert_eq!(post(&other).await.header("x-ratelimit-limit"), "5");
    }
    // Without one of its own, it has the others' again.
    stage.neighbours.set_tenant(&own.waba_id, tenant(None));
    invalidate(&worker, &own).await;
    assert_eq!(post(&own).await.status, 429);
    let mut redis = stage.redis.connection().await;
    redis.del::<_, ()>(rate_window(&own)).await.expect("DEL");
    post(&own).await;
    events.wait_for(8, SOON).await;
    assert_eq!(post(&own).await.header("x-ratelimit-limit"), "5");
}

#[tokio::test]
async fn a_token_shows_up_nowhere() {
    const CANARY: &str = "EAAcanary0token0canary";
    let stage = Stage::new().await;
    let number = Number::fresh();
    let tenant = json!({
        "tenantId": "t",
        "businessAccountId": number.waba_id,
        "accessToken": CANARY,
    });
    stage
        .neighbours
        .set_tenant(&number.waba_id, Tenant::Custom(tenant));
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().env("LOG_LEVEL", "trace");
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let worker = worker.env("TOKEN_ENCRYPTION_KEY", key).start().await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    sender
        .send(number.message(payload::text("1111111111", "a")))
        .await;
    let seen = events.wait_for(1, SOON).await;
    drained(&stage).await;
    let mut redis = stage.redis.connection().await;
    let key = format!("whatsapp:token:{}", number.waba_id);
    assert!(redis.exists::<_, bool>(key).await.expect("EXISTS"));
    let file = stage.redis.append_only_file().expect("its name");
    let (_, metrics) = worker.get("/metrics").await.expect("/metrics");
    for (what, bytes) in [
        ("Redis", std::fs::read(file).expect("the file")),
        ("the log", worker.log().into_bytes()),
        ("metrics", metrics.into_bytes()),
        ("the event", seen[0].bytes.clone()),
    ] {
        let found = bytes
            .windows(CANARY.len())
            .any(|window| window == CANARY.as_bytes());
        assert!(!found, "the token is in {what}");
        assert!(!bytes.is_empty());
    }
}

/// 300,000 where that much time and memory is (`PARKED_ENTRIES=300000`); less in every run, and more
/// than a partition keeps in work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mountain_of_an_unknown_account_waits_beside_the_traffic_of_others() {
    let count: usize = std::env::var("PARKED_ENTRIES").map_or(22_000, |count| {
        count.parse().expect("PARKED_ENTRIES is a number")
    });
    let stage = Stage::new().await;
    let (unknown, known) = (Number::fresh(), Number::fresh());
    let ingress = stage.ingress().env("STREAM_PARTITIONS", 1).start().await;
    let worker = stage
        .worker()
        .env("STREAM_PARTITIONS", 1)
        .env("ARCHIVE", "false");
    let mut worker = worker.start().await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    sender
        .send(known.message(payload::text("1111111111", "first")))
        .await;
    events.wait_for(1, SOON).await;
    let memory = |worker: &mut Worker| resident_mb(worker.process().id());
    let before = memory(&mut worker);
    stage
        .neighbours
        .set_fault(Service::Tenants, Fault::Status(503));
    pile_up(&stage, &unknown, count).await;
    eventually(SOON * 10, "all of it is parked", async || {
        (worker.metric("whatsapp_parked", "").await as usize >= count).then_some(())
    })
    .await;
    let during = memory(&mut worker);
    for n in 0..50 {
        sender
            .send(known.message(payload::text("1111111111", &n.to_string())))
            .await;
        // Behind what waits it would never come.
        events.wait_for(n + 2, SOON).await;
    }
    let bound = 64.0 + 0.0002 * count as f64;
    assert!(during - before < bound, "from {before} to {during} MB");
    let began = std::time::Instant::now();
    stage.neighbours.set_fault(Service::Tenants, Fault::None);
    let all = |seen: &[Event]| seen.len() - repeats(seen) >= 51 + count;
    let seen = events.wait_until(SOON * 20, all).await;
    let took = began.elapsed();
    drained(&stage).await;
    // None, unless the machine stalled for a whole lease.
    let mut crashes = Crashes::default();
    crashes.count_lost(&worker);
    assert_repeats(&seen, |_| crashes.of(0));
    for (_, texts) in crate::first_texts(&seen) {
        let numbers: Vec<u64> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        assert!(numbers.is_sorted());
    }
    #[allow(
        clippy::print_stdout,
        reason = "a figure for people who run with --nocapture"
    )]
    {
        println!("{count} entries waited: from {before:.0} to {during:.0} MB, all out in {took:?}");
    }
}

fn resident_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kb.expect("its memory") / 1024.0
}

/// Puts texts straight into the one stream, faster than ingress takes them.
pub(crate) async fn pile_up(stage: &Stage, number: &Number, count: usize) {
    let mut redis = stage.redis.connection().await;
    for start in (0..count).step_by(500) {
        let mut pipe = redis::pipe();
        for n in start..(start + 500).min(count) {
            let customer = format!("49160{:07}", n % 1000);
            let body = number.message(payload::text(&customer, &n.to_string()));
            pipe.cmd("XADD").arg("whatsapp:{0}:stream").arg("*");
            pipe.arg("v")
                .arg(1)
                .arg("w")
                .arg(&number.waba_id)
                .arg("c")
                .arg("c");
            pipe.arg("t")
                .arg(1_700_000_000_000_u64)
                .arg("n")
                .arg("0")
                .arg("b")
                .arg(&body[..]);
            pipe.arg("s")
                .arg("")
                .arg("p")
                .arg("")
                .arg("r")
                .arg("")
                .ignore();
        }
        pipe.query_async::<()>(&mut redis).await.expect("XADD");
    }
}
