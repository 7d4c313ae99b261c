//! What ingress can't bring into Redis, and how it comes out all the same.

use bytes::Bytes;
use object_store::ObjectStoreExt;
use tests::meta::Sender;
use tests::meta::payload::{self, Number};
use tests::programs::{Ingress, Until};
use tests::proxy::{Mode, Proxy};
use tests::servers::{RedisCluster, S3Access};
use tests::waiting::eventually;
use tests::{Stage, StageOptions};

use crate::outages::{Load, nothing_was_set_aside};
use crate::{SOON, drained, repeats, stored};

const AWAY: &str = "Redis can't take webhooks";
const BACK: &str = "Redis takes all webhooks again";

fn text(number: &Number, text: &str) -> Bytes {
    number.message(payload::text("1111111111", text))
}

async fn refused(sender: &Sender, body: Bytes) {
    let answer = sender.post_once(body).await.expect("an answer");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), "1");
}

async fn spooled(ingress: &Ingress) -> f64 {
    ingress.metric("whatsapp_ingress_spooled_total", "").await
}

async fn spool(stage: &Stage) -> Vec<String> {
    stage.webhooks().list("spool").await.expect("a list")
}

async fn spool_is_empty(stage: &Stage) {
    eventually(SOON, "the spool is empty", async || {
        spool(stage).await.is_empty().then_some(())
    })
    .await;
}

/// Redis takes webhooks again.
async fn back(ingress: &Ingress) {
    eventually(SOON, "Redis takes webhooks", async || {
        let away = ingress.metric("whatsapp_ingress_away_partitions", "").await;
        (away == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_under_load_costs_no_answer_and_no_event() {
    let mut stage = Stage::new().await;
    let ingress = stage.spooling_ingress().start().await;
    let _worker = stage.worker().env("LEASE_TTL", "2s").start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    back(&ingress).await;
    let number = Number::fresh();
    let (old, new) = (text(&number, "old"), text(&number, "new"));
    sender.send(old.clone()).await;
    let load = Load {
        numbers: (0..20).map(|_| Number::fresh()).collect(),
        conversations: 40,
        each: 15,
        rate: 200,
    };
    let mut sending = load.send(&sender);
    events.wait_for(50, SOON).await;
    stage.redis.kill();
    for body in [&old, &new, &new] {
        sender.send(body.clone()).await;
    }
    while let Some(answers) = sending.join_next().await {
        assert!(answers.expect("no panic").is_empty(), "all were taken");
    }
    assert!(spooled(&ingress).await > 50.0);
    stage.redis.restart().await.expect("Redis again");
    back(&ingress).await;
    sender.send(new).await;
    let all = load.total() + 2;
    let seen = events
        .wait_until(SOON, |seen| seen.len() - repeats(seen) >= all)
        .await;
    spool_is_empty(&stage).await;
    drained(&stage).await;
    let mut ids: Vec<_> = seen.iter().map(|event| event.wamid()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "each message is an event, under one id");
    nothing_was_set_aside(&stage).await;
    let log = ingress.log();
    assert_eq!(
        (log.matches(AWAY).count(), log.matches(BACK).count()),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_hangs_an_answer_comes_in_time() {
    let mut stage = Stage::new().await;
    let address = stage.s3.endpoint.replace("http://", "");
    let proxy = Proxy::start(address).await.expect("a proxy");
    let endpoint = format!("http://{}", proxy.address());
    let ingress = stage.spooling_ingress().env("MINIO_ENDPOINT", endpoint);
    let mut ingress = ingress.start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    back(&ingress).await;
    let number = Number::fresh();
    stage.redis.signal("STOP");
    // The sender itself gives up after 10 s.
    sender
        .send(text(&number, "unknown whether Redis has it"))
        .await;
    sender.send(text(&number, "known to be away")).await;
    sender.send(Bytes::from_static(b"not JSON")).await;
    assert_eq!(spooled(&ingress).await, 3.0);
    proxy.set(Mode::Blackhole);
    refused(&sender, text(&number, "store hangs")).await;
    proxy.set(Mode::Refuse);
    refused(&sender, text(&number, "store is away")).await;
    proxy.set(Mode::Pass);
    stage.redis.signal("CONT");
    back(&ingress).await;
    sender.send(text(&number, "back")).await;
    assert_eq!(spooled(&ingress).await, 3.0);

    stage.redis.kill();
    ingress.restart().await;
    sender.send(text(&number, "started without Redis")).await;
    stage.redis.restart().await.expect("Redis again");
    let _worker = stage.worker().start().await;
    // What hung on its way to the store may have arrived there after all.
    let wanted = |seen: &[tests::events::Event]| {
        let wanted = ["unknown whether Redis has it", "known to be away", "back"];
        let has = |text: &str| {
            let bodies = seen.iter().map(|event| event.text("/message/content/body"));
            bodies.filter(|body| *body == text).count() == 1
        };
        wanted.iter().all(|text| has(text)) && has("started without Redis")
    };
    events.wait_until(SOON, wanted).await;
    spool_is_empty(&stage).await;
    drained(&stage).await;
    let failed = stage.webhooks().list("failed").await.expect("a list");
    assert_eq!(failed.len(), 1, "what is unreadable: {failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_is_spared_until_it_has_room_again() {
    let stage = Stage::new().await;
    let ingress = stage.spooling_ingress().start().await;
    let worker = stage.worker().start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    back(&ingress).await;
    let mut redis = stage.redis.connection().await;
    let mut set = redis::cmd("SETRANGE");
    set.arg("filler").arg(100_000_000).arg("x");
    set.query_async::<()>(&mut redis).await.expect("filled");
    let mut uses = async |percent: u64| {
        let mut set = redis::cmd("CONFIG");
        let most = 110_000_000 * 100 / percent;
        set.arg("SET").arg("maxmemory").arg(most);
        set.query_async::<()>(&mut redis).await.expect("set");
    };
    let number = Number::fresh();
    uses(130).await;
    sender.send(text(&number, "no memory")).await;
    assert_eq!(spooled(&ingress).await, 1.0);
    uses(97).await;
    eventually(SOON, "the worker sees it", async || {
        worker.log().contains("the spool must wait").then_some(())
    })
    .await;
    sender.send(text(&number, "little memory")).await;
    assert_eq!(spooled(&ingress).await, 2.0);
    uses(78).await;
    back(&ingress).await;
    sender.send(text(&number, "memory for what comes in")).await;
    events.wait_for(1, SOON).await;
    assert_eq!(spool(&stage).await.len(), 2);
    let of = |level: &str| {
        let lines = ingress.log_lines();
        let of_memory = |line: &serde_json::Value| line["level"] == level && line["used"].is_f64();
        lines.iter().filter(|line| of_memory(line)).count()
    };
    eventually(SOON, "a line per level", async || {
        ((of("WARN"), of("ERROR")) == (1, 1)).then_some(())
    })
    .await;
    uses(10).await;
    let seen = events.wait_for(3, SOON).await;
    spool_is_empty(&stage).await;
    let texts: Vec<_> = seen
        .iter()
        .map(|it| it.text("/message/content/body"))
        .collect();
    assert_eq!(
        texts,
        ["memory for what comes in", "no memory", "little memory"]
    );
    assert_eq!(
        (
            ingress.log().matches(AWAY).count(),
            ingress.log().matches(BACK).count()
        ),
        (1, 1)
    );
}

/// The worker stands between script and deletion, and is killed there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_outlives_its_worker_is_one_event() {
    let mut stage = Stage::new().await;
    let ingress = stage.spooling_ingress().start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    back(&ingress).await;
    stage.redis.kill();
    let number = Number::fresh();
    sender.send(text(&number, "one")).await;
    let bucket = stage.webhooks();
    let strangers = ["spool/3/0000000000001-x", "spool/77/nonsense"];
    for key in strangers {
        bucket
            .client()
            .put(&key.into(), "none of ours".into())
            .await
            .expect("written");
    }
    stage.redis.restart().await.expect("Redis again");
    let address = stage.s3.endpoint.replace("http://", "");
    let proxy = Proxy::start(address).await.expect("a proxy");
    // Deletions are posted as a list.
    proxy.set(Mode::Hold(b"POST /"));
    let s3 = S3Access {
        endpoint: format!("http://{}", proxy.address()),
        ..stage.s3.clone()
    };
    let worker = stage.worker().env("MINIO_ENDPOINT", s3.endpoint);
    let mut worker = worker.env("LEASE_TTL", "2s").start().await;
    events.wait_for(1, SOON).await;
    drained(&stage).await;
    assert_eq!(spool(&stage).await.len(), 3);
    worker.kill();
    proxy.set(Mode::Pass);
    worker.restart().await;
    spool_is_empty(&stage).await;
    drained(&stage).await;
    assert_eq!(stored(&stage).await, 0);
    assert_eq!(events.wait_for(1, SOON).await.len(), 1);
    let failed = bucket.list("failed").await.expect("a list");
    assert_eq!(failed.len(), 2, "{failed:?}");
    for key in failed {
        let object = bucket.object(&key).await.expect("S3").expect("an object");
        assert_eq!(object.bytes, "none of ours");
        assert_eq!(object.metadata["reason"], "undecodable");
        assert!(strangers.contains(&object.metadata["spooled-as"].as_str()));
    }
}

/// It takes writes, so webhooks go there, though what is in the spool must wait for room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_with_much_in_memory_is_over_when_redis_answers() {
    let stage = Stage::new().await;
    let ingress = stage.spooling_ingress().start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    back(&ingress).await;
    let mut redis = stage.redis.connection().await;
    let mut set = redis::cmd("SETRANGE");
    set.arg("filler").arg(100_000_000).arg("x");
    set.query_async::<()>(&mut redis).await.expect("filled");
    let mut ask = redis::cmd("INFO");
    ask.arg("memory");
    let info: redis::InfoDict = ask.query_async(&mut redis).await.expect("INFO");
    let used: u64 = info.get("used_memory").expect("used");
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("maxmemory").arg(used * 1000 / 875);
    let between = set.query_async::<()>(&mut redis).await;
    between.expect("between the two thresholds");
    let number = Number::fresh();
    stage.redis.signal("STOP");
    sender.send(text(&number, "spooled")).await;
    assert_eq!(spooled(&ingress).await, 1.0);
    stage.redis.signal("CONT");
    back(&ingress).await;
    sender.send(text(&number, "stored")).await;
    assert_eq!(spooled(&ingress).await, 1.0);

    // What a later version spooled stays for its workers, and is in nobody's way.
    let later = "spool/3/0000000000001-later";
    let put = stage.webhooks();
    put.client()
        .put(&later.into(), "{\"version\":2}\n{}".into())
        .await
        .expect("written");
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("maxmemory").arg("4gb");
    set.query_async::<()>(&mut redis).await.expect("set");
    let worker = stage.worker().start().await;
    events.wait_for(2, SOON).await;
    eventually(SOON, "it says so", async || {
        let said = worker.log().contains("version 2 is unknown");
        (said && spool(&stage).await == [later]).then_some(())
    })
    .await;
    nothing_was_set_aside(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_cluster_only_the_accounts_of_the_node_that_is_away_are_spooled() {
    let cluster = RedisCluster::start().await.expect("a cluster");
    let mut stage = Stage::with(StageOptions {
        cluster: Some(cluster),
        ..StageOptions::default()
    })
    .await;
    let ingress = stage.spooling_ingress().start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    back(&ingress).await;
    let cluster = stage.cluster.as_mut().expect("a cluster");
    let stream = |number: &Number| {
        let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
        format!("whatsapp:{{{partition}}}:stream")
    };
    let there = Number::fresh();
    let away = cluster.node_of(&stream(&there)).await;
    let here = loop {
        let number = Number::fresh();
        if cluster.node_of(&stream(&number)).await != away {
            break number;
        }
    };
    cluster.kill(away);
    for n in 0..3 {
        sender.send(text(&there, &n.to_string())).await;
        sender.send(text(&here, &n.to_string())).await;
    }
    assert_eq!(spooled(&ingress).await, 3.0);
    eventually(SOON, "one partition is away", async || {
        let away = ingress.metric("whatsapp_ingress_away_partitions", "").await;
        (away == 1.0).then_some(())
    })
    .await;
    cluster.restart(away).await;
    back(&ingress).await;
    let _worker = stage.worker().start().await;
    let seen = events.wait_for(6, SOON).await;
    assert_eq!((seen.len(), repeats(&seen)), (6, 0));
    spool_is_empty(&stage).await;
}

/// What went through the spool may come out of order, so a program that is only started again sends nothing
/// there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_redis_is_seen_for_the_first_time_a_webhook_waits_for_it() {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let url = format!("redis://{}", proxy.address());
    let ingress = stage.spooling_ingress().env("REDIS_URL", url);
    // Until it has been seen a webhook waits for as long as its deadline lets it.
    let ingress = ingress.env("REDIS_PATIENCE", "20s");
    let ingress = ingress.env("REQUEST_DEADLINE", "25s").until(Until::Healthy);
    proxy.set(Mode::Blackhole);
    let ingress = ingress.start().await;
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let post = tokio::spawn({
        let (sender, body) = (sender.clone(), text(&number, "early"));
        async move { sender.post_once(body).await }
    });
    eventually(SOON, "it is in work", async || {
        (ingress.metric("whatsapp_ingress_in_flight", "").await >= 1.0).then_some(())
    })
    .await;
    proxy.set(Mode::Pass);
    let answer = post.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!((spooled(&ingress).await, stored(&stage).await), (0.0, 1));
}

/// Each conversation's messages are sent one after the other, and so they come out, though ingress is killed
/// and started again all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingress_alone_restarted_again_and_again_reorders_nothing() {
    let stage = Stage::new().await;
    let mut ingress = stage.spooling_ingress().start().await;
    let _worker = stage.worker().start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    back(&ingress).await;
    let numbers: Vec<_> = (0..8).map(|_| Number::fresh()).collect();
    let sending = numbers.iter().map(|number| {
        let (sender, number) = (sender.clone(), number.clone());
        tokio::spawn(async move {
            for n in 0..40 {
                sender.send_like_meta(text(&number, &n.to_string())).await;
            }
        })
    });
    let sending: Vec<_> = sending.collect();
    for _ in 0..8 {
        let before = stored_items(&ingress).await;
        eventually(SOON, "it works", async || {
            let done = sending.iter().all(tokio::task::JoinHandle::is_finished);
            (done || stored_items(&ingress).await > before).then_some(())
        })
        .await;
        ingress.kill();
        ingress.restart().await;
    }
    for sent in sending {
        sent.await.expect("no panic");
    }
    let all = numbers.len() * 40;
    let seen = events
        .wait_until(SOON, |seen| seen.len() - repeats(seen) >= all)
        .await;
    let mut last: std::collections::HashMap<&str, i32> = std::collections::HashMap::new();
    let mut ids = std::collections::HashSet::new();
    let first = seen.iter().filter(|event| ids.insert(&event.message_id));
    for event in first {
        let n: i32 = event
            .text("/message/content/body")
            .parse()
            .expect("a number");
        let account = event.text("/channel/businessAccountId");
        let before = last.insert(account, n).unwrap_or(-1);
        assert_eq!(n, before + 1, "{account}");
    }
    assert!(spool(&stage).await.is_empty());
    assert!(!ingress.log().contains(AWAY), "{}", ingress.log());
}

async fn stored_items(ingress: &Ingress) -> f64 {
    ingress
        .metric("whatsapp_ingress_stored_items_total", "")
        .await
}

/// Redis is spared while it is nearly full; that is no reason to refuse what the spool can't take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_spool_can_t_take_goes_to_redis_after_all() {
    let stage = Stage::new().await;
    let address = stage.s3.endpoint.replace("http://", "");
    let proxy = Proxy::start(address).await.expect("a proxy");
    let endpoint = format!("http://{}", proxy.address());
    let ingress = stage.spooling_ingress().env("MINIO_ENDPOINT", endpoint);
    let ingress = ingress.start().await;
    let sender = stage.sender(&ingress);
    back(&ingress).await;
    let mut redis = stage.redis.connection().await;
    let mut set = redis::cmd("SETRANGE");
    set.arg("filler").arg(100_000_000).arg("x");
    set.exec_async(&mut redis).await.expect("filled");
    let mut ask = redis::cmd("INFO");
    ask.arg("memory");
    let info: redis::InfoDict = ask.query_async(&mut redis).await.expect("INFO");
    let used: u64 = info.get("used_memory").expect("used");
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("maxmemory").arg(used * 100 / 95);
    set.exec_async(&mut redis).await.expect("nearly full");
    eventually(SOON, "it is spared", async || {
        let away = ingress.metric("whatsapp_ingress_away_partitions", "").await;
        (away == 16.0).then_some(())
    })
    .await;
    let number = Number::fresh();
    sender.send(text(&number, "spooled")).await;
    assert_eq!((spooled(&ingress).await, stored(&stage).await), (1.0, 0));
    for mode in [Mode::Refuse, Mode::Blackhole] {
        let before = stored(&stage).await;
        proxy.set(mode);
        sender.send(text(&number, "stored")).await;
        assert_eq!(stored(&stage).await, before + 1);
    }
    assert_eq!(spooled(&ingress).await, 1.0);
}
