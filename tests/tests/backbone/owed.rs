//! What acknowledged entries still owe: how much of Redis it takes, and what a store that is away costs.

use std::collections::HashSet;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::neighbours::Tenant;
use tests::proxy::{Mode, Proxy};
use tests::waiting::eventually;

use crate::ownership::record;
use crate::{SOON, count_owed, drained, pending};

const PIECES: usize = 10_000;
const AT_ONCE: usize = 100;
const STORE_AWAY_MESSAGES: usize = 300;

/// How often Redis has run a command.
async fn calls(redis: &mut MultiplexedConnection, command: &str) -> usize {
    let mut info = redis::cmd("INFO");
    info.arg("commandstats");
    let info: String = info.query_async(redis).await.expect("INFO");
    let of = format!("cmdstat_{command}:calls=");
    let line = info.lines().find_map(|line| line.strip_prefix(&of));
    let calls = line.and_then(|line| line.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

async fn bytes(redis: &mut MultiplexedConnection, key: &str) -> usize {
    let mut usage = redis::cmd("MEMORY");
    usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
    let bytes: Option<usize> = usage.query_async(redis).await.expect("MEMORY USAGE");
    bytes.unwrap_or(0)
}

#[tokio::test]
async fn an_archive_write_that_is_owed_takes_150_bytes_beside_its_entry() {
    let stage = Stage::new().await;
    let mut redis = stage.redis.connection().await;
    let key = |what: &str| format!("whatsapp:{{7}}:{what}");
    let group = redis.xgroup_create_mkstream::<_, _, _, ()>(key("stream"), "workers", "0");
    group.await.expect("XGROUP");
    let lease = redis.set::<_, _, ()>(key("lease"), "mine");
    lease.await.expect("SET");
    for _ in 0..PIECES / AT_ONCE {
        let mut add = redis::pipe();
        for _ in 0..AT_ONCE {
            add.cmd("XADD")
                .arg(key("stream"))
                .arg("*")
                .arg("b")
                .arg("{}");
        }
        let ids: Vec<String> = add.query_async(&mut redis).await.expect("XADD");
        let mut read = redis::cmd("XREADGROUP");
        read.arg(&["GROUP", "workers", "worker", "COUNT", "1000", "STREAMS"]);
        read.arg(key("stream")).arg(">");
        read.exec_async(&mut redis).await.expect("XREADGROUP");
        let pieces = ids.iter().map(|id| {
            let piece = format!("{id} \"tenant-102290129340398\"");
            [id.clone(), "1".into(), "1".into(), piece, String::new()]
        });
        let pieces: Vec<String> = pieces.flatten().collect();
        let mut arguments = vec!["mine", "workers", "100"];
        arguments.extend(pieces.iter().map(String::as_str));
        let recorded = record(&mut redis, 7, &arguments).await;
        recorded.expect("recorded");
    }
    let owed: usize = redis.zcard(key("owed:put")).await.expect("ZCARD");
    assert_eq!(owed, PIECES);
    let used = bytes(&mut redis, &key("owed:put")).await + bytes(&mut redis, &key("owed")).await;
    assert!(used / PIECES <= 150, "{} bytes", used / PIECES);
}

/// Of what is owed, one piece is fetched for each time that the store is tried, however much is owed.
#[tokio::test]
async fn while_the_store_is_away_only_what_is_tried_is_fetched() {
    let stage = Stage::new().await;
    let upstream = stage.s3.endpoint.trim_start_matches("http://").to_owned();
    let proxy = Proxy::start(upstream).await.expect("a proxy");
    let ingress = stage.ingress().env("STREAM_PARTITIONS", 1).start().await;
    let worker = stage
        .worker()
        .env("STREAM_PARTITIONS", 1)
        .env("MINIO_ENDPOINT", format!("http://{}", proxy.address()))
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let numbers: Vec<_> = (0..10).map(|_| Number::fresh()).collect();
    proxy.set(Mode::Refuse);
    for n in 0..STORE_AWAY_MESSAGES {
        let body = numbers[n % 10].message(payload::text("1111111111", &n.to_string()));
        sender.send(body).await;
    }
    eventually(SOON, "all objects are owed", async || {
        (count_owed(&stage, "put").await == STORE_AWAY_MESSAGES).then_some(())
    })
    .await;
    let mut redis = stage.redis.connection().await;
    let tries = || worker.log().matches("an object is still owed").count();
    // Those that were under way when nobody answered any more have ended by then.
    let tried = tries();
    let mut fetched = 0;
    for more in [1, 4] {
        eventually(SOON, "the store is tried", async || {
            (tries() >= tried + more).then_some(())
        })
        .await;
        // Asking for a piece's score, it is seen whether it still is owed.
        let now = calls(&mut redis, "zscore").await;
        let first = std::mem::replace(&mut fetched, now);
        if more > 1 {
            let fetched = now - first;
            assert!(fetched <= 6, "{fetched} pieces were fetched for 3 tries");
        }
    }
    proxy.set(Mode::Pass);
    drained(&stage).await;
    let keys = stage.webhooks().list("").await.expect("a list");
    assert_eq!(keys.len(), STORE_AWAY_MESSAGES);
}

/// Thousands of pieces may be due in one moment; a look at their list brings so many at most, and the next one
/// those behind, whatever became of the last one.
#[tokio::test]
async fn a_look_at_what_is_due_is_bounded_and_the_next_one_goes_on() {
    const MOST: usize = 100;
    let stage = Stage::new().await;
    let mut redis = stage.redis.connection().await;
    let lists = shared::keys::OWED.map(|kind| format!("whatsapp:{{7}}:owed:{kind}"));
    let mut add = redis::pipe();
    for n in 0..1000 {
        // Most of them in one moment.
        let score = if n < 900 { 5.0625 } else { 6.0 };
        add.zadd(&lists[1], format!("{n}-0 {{\"n\": 1}}"), score);
    }
    add.zadd(&lists[1], "not yet", 1e15);
    add.exec_async(&mut redis).await.expect("ZADD");
    let due = redis::Script::new(include_str!("../../../worker/src/lua/due.lua"));
    let (mut cursor, mut found) = ("-inf".to_owned(), HashSet::new());
    for look in 0.. {
        assert!(look < 50, "it comes to an end");
        let mut call = due.key(&lists[0]);
        for list in &lists[1..] {
            call.key(list);
        }
        call.arg(MOST).arg(&["", &cursor, "", ""]);
        let (_, due): (String, Vec<(String, Vec<String>, String)>) =
            call.invoke_async(&mut redis).await.expect("due");
        let (next, pieces, later) = &due[1];
        assert!(pieces.len() <= 2 * MOST, "{}", pieces.len());
        assert_eq!(later.parse(), Ok(1e15));
        found.extend(pieces.chunks(2).map(|piece| piece[0].clone()));
        if look == 3 {
            let (_, last) = next.split_once(' ').expect("there is more");
            redis.zrem::<_, _, ()>(&lists[1], last).await.expect("ZREM");
        }
        if !next.contains(' ') {
            break;
        }
        cursor.clone_from(next);
    }
    assert_eq!(found.len(), 1000);
}

/// Of 2,000 messages of one body the State Manager is told, 48 at a time; the body is fetched once.
#[tokio::test]
async fn a_body_with_thousands_of_pieces_is_fetched_once() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().env("STREAM_PARTITIONS", 1).start().await;
    let worker = stage
        .worker()
        .env("STREAM_PARTITIONS", 1)
        .env("STATE_MANAGER_URL", stage.neighbours.url());
    let _worker = worker.start().await;
    let number = Number::fresh();
    let items = (0..2000).map(|n| payload::text(&format!("49151{n:07}"), "x"));
    let body = number.webhook([number.messages(items)]);
    let mut redis = stage.redis.connection().await;
    let evals = async |redis: &mut MultiplexedConnection| calls(redis, "xrange").await;
    let before = evals(&mut redis).await;
    stage.sender(&ingress).send(body).await;
    eventually(
        SOON * 4,
        "the State Manager knows all of them",
        async || (stage.neighbours.state_taken().len() >= 2000).then_some(()),
    )
    .await;
    let fetched = evals(&mut redis).await - before;
    drained(&stage).await;
    // The age of the oldest entry is asked for meanwhile.
    assert!(fetched < 25, "fetched {fetched} times");
}

/// Redis refuses what one entry owes, its list being no list; the others of its partition are done.
#[tokio::test]
async fn an_entry_that_cannot_be_recorded_holds_up_no_other() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().env("STREAM_PARTITIONS", 1).start().await;
    let mut redis = stage.redis.connection().await;
    let list = "whatsapp:{0}:owed:put";
    redis.set::<_, _, ()>(list, "no list").await.expect("SET");
    let worker = stage.worker().env("STREAM_PARTITIONS", 1).start().await;
    let (sender, events) = (stage.sender(&ingress), stage.events());
    let (refused, well) = (Number::fresh(), Number::fresh());
    stage
        .neighbours
        .set_tenant(&refused.waba_id, Tenant::Unknown);
    let text = |n: usize| payload::text("1111111111", &n.to_string());
    sender.send(refused.message(text(0))).await;
    eventually(SOON, "it can't be recorded", async || {
        let log = worker.log();
        log.contains("WRONGTYPE").then_some(())
    })
    .await;
    for n in 0..5 {
        sender.send(well.message(text(n))).await;
    }
    events.wait_for(5, SOON).await;
    eventually(SOON, "the others are acknowledged", async || {
        (pending(&stage).await == 1).then_some(())
    })
    .await;
    redis.del::<_, ()>(list).await.expect("DEL");
    drained(&stage).await;
    let failed = stage.webhooks().list("failed/").await.expect("a list");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(events.count(), 5);
}
