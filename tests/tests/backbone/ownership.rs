//! Who owns which partition, and that nobody acknowledges what isn't theirs.

use std::collections::HashSet;
use std::time::Duration;

use redis::AsyncCommands;
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::programs::Worker;
use tests::proxy::Mode;
use tests::waiting::eventually;

use crate::broker::behind_a_proxy;
use crate::{SOON, drained};

/// How long a worker with a lease of one second stays stopped, at least: the length of the fault.
const THREE_LEASES: Duration = Duration::from_secs(3);
/// Longer than a worker that stops waits for its publications.
const SLOW_CONFIRMS: Duration = Duration::from_secs(6);

async fn owned(worker: &Worker) -> u64 {
    worker.metric("whatsapp_partitions_owned", "").await as u64
}

/// Workers that hold a lease now.
pub(crate) async fn owners(stage: &Stage) -> HashSet<String> {
    let mut owners = HashSet::new();
    for partition in 0..16 {
        let key = format!("whatsapp:{{{partition}}}:lease");
        let lease: Option<String> = stage.redis_for(&key).await.get(&key).await.expect("GET");
        let owner = lease.map(|token| token.split(':').next().unwrap_or_default().to_owned());
        owners.extend(owner);
    }
    owners
}

async fn all_owned(workers: &[&Worker], shares: &[u64]) {
    eventually(SOON, &format!("shares of {shares:?}"), async || {
        for (worker, share) in workers.iter().zip(shares) {
            if owned(worker).await != *share {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn workers_share_rebalance_and_hand_over() {
    let stage = Stage::new().await;
    let mut first = stage.worker().start().await;
    all_owned(&[&first], &[16]).await;
    let mut second = stage.worker().start().await;
    all_owned(&[&first, &second], &[8, 8]).await;
    assert!(first.stop(SOON).await);
    // Handed over, not left to run out.
    assert!(owners(&stage).await.len() <= 1);
    all_owned(&[&second], &[16]).await;
    let third = stage.worker().start().await;
    all_owned(&[&second, &third], &[8, 8]).await;
    second.kill();
    all_owned(&[&third], &[16]).await;
}

/// Sends 10 messages in each of 20 conversations.
async fn converse(sender: &tests::meta::Sender, numbers: &[Number], from: u32) {
    for n in from..from + 10 {
        for (i, number) in numbers.iter().enumerate() {
            let customer = format!("49151{i:07}");
            sender
                .send(number.message(payload::text(&customer, &n.to_string())))
                .await;
        }
    }
}

fn assert_in_order(seen: &[tests::events::Event], numbers: usize, each: u32) {
    let texts = crate::first_texts(seen);
    assert_eq!(texts.len(), numbers);
    for (customer, texts) in texts {
        let expected: Vec<_> = (0..each).map(|n| n.to_string()).collect();
        assert_eq!(texts, expected, "{customer}");
    }
}

#[tokio::test]
async fn a_worker_stopped_in_a_read_swallows_nothing() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let sleeper = stage.worker().env("LEASE_TTL", "1s");
    // The broker gives up on it meanwhile, too.
    let heartbeats = format!("{}?heartbeat=1", stage.amqp_url);
    let sleeper = sleeper.env("AMQP_URL", heartbeats).start().await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let numbers: Vec<_> = (0..20).map(|_| Number::fresh()).collect();
    all_owned(&[&sleeper], &[16]).await;
    sleeper.signal("STOP");
    converse(&sender, &numbers, 0).await;
    let other = stage.worker().env("LEASE_TTL", "1s").start().await;
    events.wait_for(200, SOON).await;
    tokio::time::sleep(THREE_LEASES).await;
    sleeper.signal("CONT");
    all_owned(&[&sleeper, &other], &[8, 8]).await;
    converse(&sender, &numbers, 10).await;
    let all = |seen: &[tests::events::Event]| seen.len() - crate::repeats(seen) >= 400;
    let seen = events.wait_until(SOON, all).await;
    assert_in_order(&seen, 20, 20);
    drained(&stage).await;
}

#[tokio::test]
async fn a_worker_stopped_with_unconfirmed_publications_acknowledges_nothing_of_others() {
    let stage = Stage::new().await;
    let (proxy, through) = behind_a_proxy(&stage.amqp_url).await;
    let ingress = stage.ingress().start().await;
    let stopped = stage
        .worker()
        .env("LEASE_TTL", "1s")
        .env("AMQP_URL", through)
        .start()
        .await;
    all_owned(&[&stopped], &[16]).await;
    let sender = stage.sender(&ingress);
    let numbers: Vec<_> = (0..20).map(|_| Number::fresh()).collect();
    // Its publications get stuck on their way, then it does.
    proxy.set(Mode::Blackhole);
    converse(&sender, &numbers, 0).await;
    stopped.signal("STOP");
    let other = stage.worker().env("LEASE_TTL", "1s").start().await;
    let events = stage.events();
    all_owned(&[&other], &[16]).await;
    events.wait_for(200, SOON).await;
    tokio::time::sleep(THREE_LEASES).await;
    proxy.set(Mode::Pass);
    stopped.signal("CONT");
    converse(&sender, &numbers, 10).await;
    let all = |seen: &[tests::events::Event]| seen.len() - crate::repeats(seen) >= 400;
    let seen = events.wait_until(SOON, all).await;
    assert_in_order(&seen, 20, 20);
    drained(&stage).await;
}

#[tokio::test]
async fn a_partition_is_handed_over_when_a_slow_broker_has_confirmed_and_nothing_repeats() {
    let stage = Stage::new().await;
    let (proxy, through) = behind_a_proxy(&stage.amqp_url).await;
    let ingress = stage.ingress().start().await;
    let mut first = stage
        .worker()
        .env("AMQP_URL", through)
        .env("CONFIRM_TIMEOUT", "60s")
        .start()
        .await;
    all_owned(&[&first], &[16]).await;
    let events = stage.events();
    let numbers: Vec<_> = (0..20).map(|_| Number::fresh()).collect();
    proxy.set(Mode::Blackhole);
    converse(&stage.sender(&ingress), &numbers, 0).await;
    let second = stage.worker().start().await;
    eventually(SOON, "a hand-over begins", async || {
        let log = first.process().log();
        log.contains("handing over a partition").then_some(())
    })
    .await;
    tokio::time::sleep(SLOW_CONFIRMS).await;
    proxy.set(Mode::Pass);
    all_owned(&[&first, &second], &[8, 8]).await;
    drained(&stage).await;
    let seen = events.wait_for(200, SOON).await;
    assert_eq!(crate::repeats(&seen), 0);
    assert_in_order(&seen, 20, 10);
}

/// Runs the script that acknowledges.
pub(crate) async fn record(
    redis: &mut redis::aio::MultiplexedConnection,
    partition: u16,
    arguments: &[&str],
) -> redis::RedisResult<()> {
    let script = redis::Script::new(include_str!("../../../worker/src/lua/record.lua"));
    let key = |what| format!("whatsapp:{{{partition}}}:{what}");
    let mut call = script.key(key("lease"));
    for what in [
        "stream",
        "progress",
        "suspects",
        "deaths",
        "media",
        "alone",
        "returning",
        "owed",
        "owed:put",
        "owed:state",
        "owed:settle",
        "owed:media",
    ] {
        call.key(key(what));
    }
    call.arg(arguments).invoke_async(redis).await
}

/// The fence itself: a worker can't be stopped from outside exactly between its last look at the
/// lease and its script, so the scripts are asked directly.
#[tokio::test]
async fn without_the_lease_nothing_is_read_or_acknowledged() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let number = Number::fresh();
    let sender = stage.sender(&ingress);
    sender
        .send(number.message(payload::text("1111111111", "a")))
        .await;
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let key = |what| format!("whatsapp:{{{partition}}}:{what}");
    let mut redis = stage.redis.connection().await;
    let read = redis::Script::new(include_str!("../../../worker/src/lua/read.lua"));
    redis
        .set::<_, _, ()>(key("lease"), "mine")
        .await
        .expect("SET");
    let mut refused = Vec::new();
    for token in ["theirs", "mine"] {
        let read: redis::RedisResult<redis::Value> = read
            .key(key("lease"))
            .key(key("stream"))
            .arg(&[token, "workers", "worker", ">", "1000", "10", "0-0"])
            .invoke_async(&mut redis)
            .await;
        refused.push(read.is_err());
    }
    let stream: redis::streams::StreamRangeReply =
        redis.xrange_all(key("stream")).await.expect("XRANGE");
    let id = &stream.ids[0].id;
    for token in ["theirs", "mine"] {
        let mut arguments = vec![token, "workers", "1", id, "1"];
        let piece = format!("{id} {{}}");
        arguments.extend(["1", &piece, ""]);
        let done = record(&mut redis, partition, &arguments).await;
        refused.push(done.is_err());
        let left: u64 = redis.xlen(key("stream")).await.expect("XLEN");
        let owed: u64 = redis.zcard(key("owed:put")).await.expect("ZCARD");
        refused.push((left, owed) == (1, 0));
    }
    assert_eq!(refused, [true, false, true, true, false, false]);
}

/// A note can reach Redis after the acknowledgement of its entry: it was sent again, or held up on the
/// way. Nobody would ever delete it.
#[tokio::test]
async fn a_note_of_an_acknowledged_entry_leaves_nothing() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let number = Number::fresh();
    let message = payload::text("1111111111", "a");
    stage.sender(&ingress).send(number.message(message)).await;
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let key = |what| format!("whatsapp:{{{partition}}}:{what}");
    let mut redis = stage.redis.connection().await;
    redis
        .set::<_, _, ()>(key("lease"), "mine")
        .await
        .expect("SET");
    let mut group = redis::cmd("XGROUP");
    group.arg(&["CREATE", &key("stream"), "workers", "0"]);
    group.exec_async(&mut redis).await.expect("XGROUP");
    let mut read = redis::cmd("XREADGROUP");
    read.arg(&["GROUP", "workers", "worker", "STREAMS", &key("stream"), ">"]);
    let read: redis::streams::StreamReadReply =
        read.query_async(&mut redis).await.expect("XREADGROUP");
    let id = &read.keys[0].ids[0].id;
    let script = include_str!("../../../worker/src/lua/note_media.lua");
    let note_media = redis::Script::new(script);
    let mut noted: Vec<bool> = Vec::new();
    for pending in [true, false] {
        if !pending {
            let stream = key("stream");
            redis
                .xack::<_, _, _, u64>(&stream, "workers", &[id])
                .await
                .expect("XACK");
        }
        let progress = ["mine", "workers", "0", id, "0"];
        let recorded = record(&mut redis, partition, &progress).await;
        recorded.expect("recorded");
        let mut call = note_media.key(key("lease"));
        call.key(key("media")).key(key("stream"));
        call.arg(&["mine", "workers", id, "0"]);
        call.invoke_async::<()>(&mut redis).await.expect("a note");
        for what in ["progress", "media"] {
            noted.push(redis.hexists(key(what), id).await.expect("HEXISTS"));
            redis.del::<_, ()>(key(what)).await.expect("DEL");
        }
    }
    assert_eq!(noted, [true, true, false, false]);
}

/// Its answer was lost, so it is sent again: nothing is owed twice, also once a part of it is done.
#[tokio::test]
async fn an_acknowledgement_that_is_sent_again_owes_nothing_more() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let number = Number::fresh();
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let key = |what: &str| format!("whatsapp:{{{partition}}}:{what}");
    for text in ["a", "b", "c"] {
        let body = number.message(payload::text("1111111111", text));
        stage.sender(&ingress).send(body).await;
    }
    let mut redis = stage.redis.connection().await;
    let ids = pending_entries(&mut redis, partition).await;
    // The first one owes two pieces, the second one owes one, the third one nothing.
    let put = |n: usize| format!("{} \"tenant\"", ids[n]);
    let (pieces, media) = ([put(0), put(1)], format!("{} {{}}", ids[0]));
    let mut arguments = vec!["mine", "workers", "3", &ids[0], "2"];
    arguments.extend(["4", &media, "", "1", &pieces[0], ""]);
    arguments.extend([&*ids[1], "1", "1", &pieces[1], "", &ids[2], "0"]);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let recorded = record(&mut redis, partition, &arguments).await;
        recorded.expect("recorded");
        let owed: Vec<usize> = vec![
            redis.zcard(key("owed:put")).await.expect("ZCARD"),
            redis.zcard(key("owed:media")).await.expect("ZCARD"),
            redis.xlen(key("stream")).await.expect("XLEN"),
            redis.hget(key("owed"), "entries").await.expect("HGET"),
        ];
        seen.push(owed);
        for piece in &pieces {
            let done = update_owed(&mut redis, partition, &["1", piece, "", "", "", "", ""]).await;
            done.expect("done");
        }
    }
    assert_eq!(seen, [[2, 1, 2, 2], [0, 1, 1, 1]]);
    let last = ["4", &media, "", "", "", "", ""];
    update_owed(&mut redis, partition, &last)
        .await
        .expect("done");
    let left: (usize, bool) = (
        redis.xlen(key("stream")).await.expect("XLEN"),
        redis.exists(key("owed")).await.expect("EXISTS"),
    );
    assert_eq!(left, (0, false));
}

/// An entry that is delivered again, since its group was destroyed, may owe another piece beside those from
/// before: it stays until all of them are done.
#[tokio::test]
async fn what_is_owed_from_before_a_destroyed_group_keeps_its_entry() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let number = Number::fresh();
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let key = |what: &str| format!("whatsapp:{{{partition}}}:{what}");
    let body = number.message(payload::text("1111111111", "a"));
    stage.sender(&ingress).send(body).await;
    let mut redis = stage.redis.connection().await;
    let ids = pending_entries(&mut redis, partition).await;
    let of = |what: &str| format!("{} {what}", ids[0]);
    let (put, posts) = (of("put"), [of("until 1"), of("until 2")]);
    for post in &posts {
        assert_eq!(pending_entries(&mut redis, partition).await, ids);
        let mut arguments = vec!["mine", "workers", "1", &ids[0], "2"];
        arguments.extend(["1", &put, "", "2", post, ""]);
        let recorded = record(&mut redis, partition, &arguments).await;
        recorded.expect("recorded");
        let destroyed = redis.xgroup_destroy::<_, _, bool>(key("stream"), "workers");
        assert!(destroyed.await.expect("XGROUP DESTROY"));
    }
    let mut left: Vec<usize> = Vec::new();
    for (list, piece) in [("2", &posts[0]), ("2", &posts[1]), ("1", &put)] {
        left.push(redis.xlen(key("stream")).await.expect("XLEN"));
        let done = [list, piece, "", "", "", "", ""];
        let done = update_owed(&mut redis, partition, &done).await;
        done.expect("done");
    }
    left.push(redis.xlen(key("stream")).await.expect("XLEN"));
    assert_eq!(left, [1, 1, 1, 0]);
    let owed: bool = redis.exists(key("owed")).await.expect("EXISTS");
    assert!(!owed);
}

/// A place is settled once what replaces the object is written, however often either is told.
#[tokio::test]
async fn a_place_is_settled_after_the_last_object_of_its_entry() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let number = Number::fresh();
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let key = |what: &str| format!("whatsapp:{{{partition}}}:{what}");
    let body = number.message(payload::text("1111111111", "a"));
    stage.sender(&ingress).send(body).await;
    let mut redis = stage.redis.connection().await;
    let ids = pending_entries(&mut redis, partition).await;
    let of = |what: &str| format!("{} {what}", ids[0]);
    let (one, other, settle) = (of("1"), of("2"), of("out"));
    let mut arguments = vec!["mine", "workers", "1", &ids[0], "3"];
    arguments.extend(["1", &one, "", "1", &other, "", "3", &settle, "failed/a"]);
    let recorded = record(&mut redis, partition, &arguments).await;
    recorded.expect("recorded");
    let mut due = Vec::new();
    for piece in [&one, &one, &other] {
        let score: f64 = redis
            .zscore(key("owed:settle"), &settle)
            .await
            .expect("ZSCORE");
        due.push(score.is_finite());
        let told = ["1", piece, "", "", "", "", ""];
        update_owed(&mut redis, partition, &told)
            .await
            .expect("done");
    }
    let score: f64 = redis
        .zscore(key("owed:settle"), &settle)
        .await
        .expect("ZSCORE");
    due.push(score.is_finite());
    assert_eq!(due, [false, false, false, true]);
    let told = ["3", &settle, "", "failed/a", "ab", "", "d"];
    update_owed(&mut redis, partition, &told)
        .await
        .expect("done");
    for gone in ["owed", "returning"] {
        let there: bool = redis.exists(key(gone)).await.expect("EXISTS");
        assert!(!there, "{gone}");
    }
    let left: usize = redis.xlen(key("stream")).await.expect("XLEN");
    assert_eq!(left, 0);
}

/// The lease is this test's, and it reads what there is.
pub(crate) async fn pending_entries(
    redis: &mut redis::aio::MultiplexedConnection,
    partition: u16,
) -> Vec<String> {
    let key = |what| format!("whatsapp:{{{partition}}}:{what}");
    redis
        .set::<_, _, ()>(key("lease"), "mine")
        .await
        .expect("SET");
    let read = redis::Script::new(include_str!("../../../worker/src/lua/read.lua"));
    let mut read = read.key(key("lease"));
    read.key(key("stream"));
    read.arg(&["mine", "workers", "worker", ">", "100000", "10", "0-0"]);
    read.invoke_async::<redis::Value>(redis)
        .await
        .expect("read");
    let stream: redis::streams::StreamRangeReply =
        redis.xrange_all(key("stream")).await.expect("XRANGE");
    stream.ids.into_iter().map(|entry| entry.id).collect()
}

/// Runs the script that tells what became of pieces.
async fn update_owed(
    redis: &mut redis::aio::MultiplexedConnection,
    partition: u16,
    arguments: &[&str],
) -> redis::RedisResult<()> {
    let script = redis::Script::new(include_str!("../../../worker/src/lua/update_owed.lua"));
    let key = |what| format!("whatsapp:{{{partition}}}:{what}");
    let mut call = script.key(key("stream"));
    for what in [
        "owed",
        "returning",
        "replayed",
        "settled",
        "owed:put",
        "owed:state",
        "owed:settle",
        "owed:media",
    ] {
        call.key(key(what));
    }
    call.arg(arguments).invoke_async(redis).await
}

/// A suspect is named by its entry and its tenure: a worker that was taken for dead, and isn't, takes back the
/// death that was counted in its tenure, and leaves the name that the next one wrote.
#[tokio::test]
async fn a_death_is_taken_back_by_the_tenure_that_it_was_counted_in() {
    let stage = Stage::new().await;
    let mut redis = stage.redis.connection().await;
    let key = |what: &str| format!("whatsapp:{{7}}:{what}");
    let announce = redis::Script::new(include_str!("../../../worker/src/lua/announce.lua"));
    let end_alone = redis::Script::new(include_str!("../../../worker/src/lua/end_alone.lua"));
    let acquire = redis::Script::new(include_str!("../../../worker/src/lua/acquire.lua"));
    let mut seen: Vec<(Option<String>, Option<String>)> = Vec::new();
    for token in ["a:1", "b:1", "c:1"] {
        let mut call = acquire.key(key("lease"));
        for what in [
            "owner",
            "stream",
            "suspects",
            "deaths",
            "alone",
            "later",
            "later-media",
        ] {
            call.key(key(what));
        }
        let process = token.split(':').next().expect("a process");
        call.arg(&[token, "60000", "workers", process]);
        let taken: u8 = call.invoke_async(&mut redis).await.expect("acquire");
        assert_eq!(taken, 1);
        let mut call = announce.key(key("lease"));
        call.key(key("alone")).arg(&[token, "5-0"]);
        call.invoke_async::<()>(&mut redis).await.expect("announce");
        // It expires.
        redis.del::<_, ()>(key("lease")).await.expect("DEL");
    }
    for token in ["a:1", "b:1", "c:1"] {
        let mut call = end_alone.key(key("alone"));
        call.key(key("deaths")).arg(&["5-0", token]);
        call.invoke_async::<()>(&mut redis).await.expect("ended");
        let alone = redis.get(key("alone")).await.expect("GET");
        let deaths = redis.hget(key("deaths"), "5-0").await.expect("HGET");
        seen.push((alone, deaths));
    }
    let named = Some("5-0 c:1".to_owned());
    assert_eq!(
        seen,
        [
            (named.clone(), Some("b:1,".to_owned())),
            (named, None),
            (None, None)
        ]
    );
}

/// Nobody would do what another version owes in lists of its own: the partition waits for that version, and the
/// log says so.
#[tokio::test]
async fn a_partition_with_lists_of_another_version_is_left_to_it() {
    let stage = Stage::new().await;
    let mut redis = stage.redis.connection().await;
    let list = "whatsapp:{3}:later-media";
    redis
        .lpush::<_, _, ()>(list, "a piece")
        .await
        .expect("LPUSH");
    let worker = stage.worker().env("LEASE_TTL", "1s").start().await;
    all_owned(&[&worker], &[15]).await;
    eventually(SOON, "the log says why", async || {
        let said = format!("{list} has what another version owes");
        worker.log().contains(&said).then_some(())
    })
    .await;
    redis.del::<_, ()>(list).await.expect("DEL");
    all_owned(&[&worker], &[16]).await;
}
