//! Webhooks that come while a call of Redis is on its way, and go in the next one together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use redis::AsyncCommands;
use tests::meta::payload::{self, Number};
use tests::meta::{Answer, Sender};
use tests::programs::{Ingress, Until};
use tests::proxy::{Mode, Proxy};
use tests::{Stage, waiting::eventually};

use crate::{SOON, stored};

fn fresh(number: &Number) -> Bytes {
    number.message(payload::text("1111111111", "x"))
}

/// An ingress of one thread and one partition whose Redis takes its time, so that webhooks gather.
async fn gathering(stage: &Stage, settings: &[(&str, &str)]) -> (Ingress, Proxy) {
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let mut ingress = stage
        .ingress()
        .env("REDIS_URL", format!("redis://{}", proxy.address()))
        .env("STREAM_PARTITIONS", 1)
        .env("THREADS", 1)
        .until(Until::Ready);
    for (name, value) in settings {
        ingress = ingress.env(name, value);
    }
    (ingress.start().await, proxy)
}

/// Posts all at once; their answers in the same order.
async fn post_all(sender: &Sender, bodies: &[Bytes]) -> Vec<Answer> {
    let posts = bodies.iter().map(|body| {
        let (sender, body) = (sender.clone(), body.clone());
        tokio::spawn(async move { sender.post_once(body).await.expect("an answer") })
    });
    let mut answers = Vec::new();
    for post in posts.collect::<Vec<_>>() {
        answers.push(post.await.expect("no panic"));
    }
    answers
}

fn statuses(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for answer in answers {
        *statuses.entry(answer.status).or_default() += 1;
    }
    statuses
}

async fn script_calls(stage: &Stage) -> u64 {
    let mut redis = stage.redis.connection().await;
    let mut info = redis::cmd("INFO");
    let stats: String = info
        .arg("commandstats")
        .query_async(&mut redis)
        .await
        .expect("INFO");
    let calls = stats.lines().find_map(|line| {
        let rest = line.strip_prefix("cmdstat_evalsha:calls=")?;
        rest.split(',').next()?.parse().ok()
    });
    calls.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_that_gather_share_a_call_and_repeats_among_them_are_found() {
    let stage = Stage::new().await;
    let (ingress, proxy) = gathering(&stage, &[]).await;
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    sender.send(fresh(&number)).await;
    let once: Vec<_> = (0..30).map(|_| fresh(&number)).collect();
    let twice = [once.clone(), once].concat();
    proxy.set(Mode::Slow(Duration::from_millis(150)));
    let before = script_calls(&stage).await;
    let answers = post_all(&sender, &twice).await;
    let calls = script_calls(&stage).await - before;
    assert_eq!(statuses(&answers), BTreeMap::from([(200, 60)]));
    assert_eq!(stored(&stage).await, 31);
    assert!(calls < 30, "{calls} calls");
    let items = ingress
        .metric("whatsapp_ingress_stored_items_total", "")
        .await;
    let duplicates = ingress
        .metric("whatsapp_ingress_dedup_hits_total", "")
        .await;
    assert_eq!((items, duplicates), (31.0, 30.0));
    // Each of those that were stored took one place of the minute.
    let remaining = |answer: &Answer| answer.header("x-ratelimit-remaining").parse::<u32>().ok();
    let mut remaining: Vec<_> = answers.iter().filter_map(remaining).collect();
    remaining.sort_unstable();
    assert_eq!(remaining, (969..999).collect::<Vec<_>>());
}

/// What is refused beyond a limit is not marked, so what repeats it in the same call is refused, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_s_limit_holds_within_a_call() {
    let stage = Stage::new().await;
    let limit = [("RATE_LIMIT_PER_MINUTE", "8")];
    let (ingress, proxy) = gathering(&stage, &limit).await;
    let sender = stage.sender(&ingress);
    let (busy, quiet) = (Number::fresh(), Number::fresh());
    sender.send(fresh(&busy)).await;
    let many: Vec<_> = (0..20).map(|_| fresh(&busy)).collect();
    let few: Vec<_> = (0..5).map(|_| fresh(&quiet)).collect();
    proxy.set(Mode::Slow(Duration::from_millis(150)));
    let all = [many.clone(), few, many.clone()].concat();
    let answers = post_all(&sender, &all).await;
    proxy.set(Mode::Pass);
    let (of_busy, rest) = answers.split_at(20);
    let (of_quiet, repeated) = rest.split_at(5);
    assert_eq!(statuses(of_quiet), BTreeMap::from([(200, 5)]));
    assert_eq!(stored(&stage).await, 1 + 7 + 5);
    for ((first, again), body) in of_busy.iter().zip(repeated).zip(&many) {
        // Whichever came first: both know of the same store.
        assert_eq!(first.status, again.status, "{body:?}");
        if first.status == 429 {
            assert_eq!(first.header("x-ratelimit-remaining"), "0");
        }
    }
    assert_eq!(statuses(of_busy), BTreeMap::from([(200, 7), (429, 13)]));
    let mut redis = stage.redis.connection().await;
    let window = format!("whatsapp:{{0}}:rate:{}", busy.waba_id);
    assert_eq!(redis.llen::<_, usize>(&window).await.expect("LLEN"), 8);
    redis.del::<_, ()>(&window).await.expect("DEL");
    let refused = of_busy
        .iter()
        .zip(&many)
        .filter(|(answer, _)| answer.status == 429);
    for (_, body) in refused.take(8) {
        sender.send(body.clone()).await;
    }
    assert_eq!(
        stored(&stage).await,
        1 + 7 + 5 + 8,
        "none of them was marked"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_of_one_account_is_no_other_s_of_the_same_call() {
    let stage = Stage::new().await;
    let (ingress, proxy) = gathering(&stage, &[]).await;
    let sender = stage.sender(&ingress);
    let (broken, well) = (Number::fresh(), Number::fresh());
    sender.send(fresh(&well)).await;
    let mut redis = stage.redis.connection().await;
    let window = format!("whatsapp:{{0}}:rate:{}", broken.waba_id);
    redis.set::<_, _, ()>(window, "no list").await.expect("SET");
    let bodies: Vec<_> = (0..20)
        .map(|n| fresh(if n % 2 == 0 { &broken } else { &well }))
        .collect();
    proxy.set(Mode::Slow(Duration::from_millis(150)));
    let answers = post_all(&sender, &bodies).await;
    for (n, answer) in answers.iter().enumerate() {
        let expected = if n % 2 == 0 { 503 } else { 200 };
        assert_eq!(answer.status, expected, "{n}");
    }
    assert_eq!(stored(&stage).await, 1 + 10, "each of the others once");
}

/// Commands of the script, in the order in which a webhook of a new account comes to them; but EXPIREAT
/// first, since only the first mark of a hash needs it, and soon each hash has one.
const COMMANDS: [&str; 11] = [
    "expireat", "time", "hmget", "hget", "lindex", "llen", "xadd", "hset", "hlen", "rpush",
    "pexpire",
];

/// Each command of the script fails in turn, for webhooks that go together: whatever was marked is stored,
/// and whatever was refused is stored when it comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_whatever_command_a_call_fails_nothing_is_marked_that_is_not_stored() {
    let stage = Stage::new().await;
    let mut redis = stage.redis.connection().await;
    let mut user = async |rules: &[&str]| {
        let mut rule = redis::cmd("ACL");
        rule.arg("SETUSER").arg("ingress").arg(rules);
        rule.exec_async(&mut redis).await.expect("ACL SETUSER");
    };
    user(&["reset", "on", ">secret", "~*", "&*", "+@all"]).await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let url = format!("redis://ingress:secret@{}", proxy.address());
    let settings = [("REDIS_URL", &*url), ("REDIS_PATIENCE", "1s")];
    let (ingress, _other) = gathering(&stage, &settings).await;
    let sender = stage.sender(&ingress);
    // The second one finds a window that isn't empty.
    let known = Number::fresh();
    sender.send(fresh(&known)).await;
    let mut all = Vec::new();
    for command in COMMANDS {
        let numbers: Vec<_> = (0..6).map(|_| Number::fresh()).collect();
        let bodies: Vec<_> = numbers.iter().chain([&known]).map(fresh).collect();
        user(&[&*format!("-{command}")]).await;
        proxy.set(Mode::Slow(Duration::from_millis(50)));
        let answers = post_all(&sender, &bodies).await;
        proxy.set(Mode::Pass);
        assert_eq!(denied(&stage).await, BTreeSet::from([command.to_owned()]));
        user(&[&*format!("+{command}")]).await;
        for (body, answer) in bodies.iter().zip(&answers) {
            assert!([200, 503].contains(&answer.status), "{command}");
            if answer.status == 200 {
                continue;
            }
            // Marked and not stored, it would be a duplicate.
            sender.send(body.clone()).await;
        }
        all.extend(bodies);
        assert_all_are_stored(&stage, &all).await;
    }
}

/// Commands that were denied to a user since the last time.
async fn denied(stage: &Stage) -> BTreeSet<String> {
    let mut redis = stage.redis.connection().await;
    let mut log = redis::cmd("ACL");
    let log: Vec<HashMap<String, redis::Value>> = log
        .arg("LOG")
        .query_async(&mut redis)
        .await
        .expect("ACL LOG");
    let objects = log.iter().filter_map(|entry| entry.get("object"));
    let objects = objects.map(|it| redis::from_redis_value(it.clone()).expect("text"));
    let mut reset = redis::cmd("ACL");
    let reset = reset.arg("LOG").arg("RESET").exec_async(&mut redis).await;
    reset.expect("ACL LOG RESET");
    objects.collect()
}

async fn assert_all_are_stored(stage: &Stage, bodies: &[Bytes]) {
    let mut redis = stage.redis.connection().await;
    let entries: redis::streams::StreamRangeReply = redis
        .xrange_all("whatsapp:{0}:stream")
        .await
        .expect("XRANGE");
    let stored: Vec<Vec<u8>> = entries.ids.iter().filter_map(|it| it.get("b")).collect();
    for body in bodies {
        assert!(stored.iter().any(|it| it == body), "{body:?}");
    }
}

/// A connection that is open to nowhere is found by the `PING` of each thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_network_forgot_costs_no_webhook() {
    let stage = Stage::new().await;
    let (ingress, proxy) = gathering(&stage, &[]).await;
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    sender.send(fresh(&number)).await;
    let mut redis = stage.redis.connection().await;
    let mut connections = async || {
        let mut list = redis::cmd("CLIENT");
        let clients: String = list
            .arg("LIST")
            .query_async(&mut redis)
            .await
            .expect("LIST");
        clients.lines().count()
    };
    let before = connections().await;
    proxy.set(Mode::HalfOpen);
    // Its probe's, and its one thread's.
    eventually(SOON, "both connections are made anew", async || {
        (connections().await >= before + 2).then_some(())
    })
    .await;
    let answer = sender.post_once(fresh(&number)).await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(stored(&stage).await, 2);
}
