//! The rate limit of an account, and what it costs to remember items.

use std::time::SystemTime;

use redis::AsyncCommands;
use tests::meta::payload::{self, Number};
use tests::meta::webhook;
use tests::servers::RedisOptions;
use tests::waiting::eventually;
use tests::{Stage, StageOptions};

use crate::{SOON, stored};

fn window_key(number: &Number) -> String {
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    format!("whatsapp:{{{partition}}}:rate:{}", number.waba_id)
}

fn fresh(number: &Number) -> bytes::Bytes {
    number.message(payload::text("1111111111", "x"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_in_a_minute_pass_over_two_processes_and_the_next_does_not() {
    let stage = Stage::new().await;
    let (one, two) = (stage.ingress().start().await, stage.ingress().start().await);
    let senders = [stage.sender(&one), stage.sender(&two)];
    let number = Number::fresh();
    let first = fresh(&number);
    for n in 0..1000_usize {
        let body = if n == 0 {
            first.clone()
        } else {
            fresh(&number)
        };
        let answer = senders[n % 2].post_once(body).await.expect("an answer");
        assert_eq!(answer.status, 200, "webhook {n}");
        assert_eq!(answer.header("x-ratelimit-limit"), "1000");
        assert_eq!(
            answer.header("x-ratelimit-remaining"),
            (999 - n).to_string()
        );
    }
    let refused = fresh(&number);
    for sender in &senders {
        let answer = sender.post_once(refused.clone()).await.expect("an answer");
        assert_eq!(answer.status, 429);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("x-ratelimit-limit"), "1000");
        assert_eq!(answer.header("x-ratelimit-remaining"), "0");
        let wait: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.expect("after 1970").as_secs();
        let reset: u64 = answer.header("x-ratelimit-reset").parse().expect("seconds");
        assert!((now..=now + 61).contains(&reset), "{reset} at {now}");
    }
    // A repetition costs nothing, and others have limits of their own.
    let repeated = senders[0].post_once(first).await.expect("an answer");
    assert_eq!(
        (repeated.status, repeated.header("x-ratelimit-limit")),
        (200, "")
    );
    let other = Number::fresh();
    senders[0].send(fresh(&other)).await;
    assert_eq!(
        one.metric("whatsapp_ingress_rate_limit_rejections_total", "")
            .await,
        1.0
    );
    // In a body of both, the other account's part is stored, and is a duplicate when it comes again.
    let mixed = webhook([
        payload::entry(
            &other.waba_id,
            [other.messages([payload::text("1111111111", "y")])],
        ),
        payload::entry(
            &number.waba_id,
            [number.messages([payload::text("1111111111", "z")])],
        ),
    ]);
    for _ in 0..2 {
        let answer = senders[0]
            .post_once(mixed.clone())
            .await
            .expect("an answer");
        assert_eq!(
            (answer.status, answer.header("x-ratelimit-remaining")),
            (429, "0")
        );
    }
    assert_eq!(stored(&stage).await, 1002);
    // The refused one left no mark: as soon as the oldest has left the minute, it is stored.
    let mut redis = stage.redis.connection().await;
    let key = window_key(&number);
    let oldest: i64 = redis.lindex(&key, 0).await.expect("LINDEX");
    redis
        .lset::<_, _, ()>(&key, 0, oldest - 60_000)
        .await
        .expect("LSET");
    senders[0].send(refused).await;
    assert_eq!(stored(&stage).await, 1003);
    assert_eq!(
        senders[1]
            .post_once(fresh(&number))
            .await
            .expect("an answer")
            .status,
        429
    );
}

async fn now_ms(redis: &mut redis::aio::MultiplexedConnection) -> i64 {
    let time = redis::cmd("TIME").query_async(redis).await;
    let (seconds, micros): (i64, i64) = time.expect("TIME");
    seconds * 1000 + micros / 1000
}

#[tokio::test]
async fn the_window_slides() {
    let stage = Stage::new().await;
    let ingress = stage
        .ingress()
        .env("RATE_LIMIT_PER_MINUTE", 4)
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    for _ in 0..4 {
        sender.send(fresh(&number)).await;
    }
    // As if all of them had come most of a minute ago, and two of them earlier still.
    let mut redis = stage.redis.connection().await;
    let key = window_key(&number);
    for (index, earlier) in [(0, 57_000), (1, 57_000), (2, 54_000), (3, 54_000)] {
        let time: i64 = redis.lindex(&key, index).await.expect("LINDEX");
        redis
            .lset::<_, _, ()>(&key, index, time - earlier)
            .await
            .expect("LSET");
    }
    let times: Vec<i64> = redis.lrange(&key, 0, -1).await.expect("LRANGE");
    for oldest in times {
        let body = fresh(&number);
        eventually(SOON, "the oldest has left", async || {
            let before = now_ms(&mut redis).await;
            let answer = sender.post_once(body.clone()).await.ok()?;
            if answer.status == 200 {
                return Some(());
            }
            // Refused no longer than a minute after the oldest, and told how long, in whole seconds.
            let left = oldest + 60_000 - before;
            assert!(left > 0, "refused {left} ms late");
            let promised: i64 = answer.header("retry-after").parse().expect("seconds");
            assert!(promised * 1000 < left + 1000, "{promised} s for {left} ms");
            None
        })
        .await;
        let now = now_ms(&mut redis).await;
        assert!(now >= oldest + 60_000, "{now} is early after {oldest}");
    }
    let answer = sender.post_once(fresh(&number)).await.expect("an answer");
    assert_eq!(answer.status, 429);
    // The clock is set back by a day: what lies ahead of it doesn't count.
    for index in 0..4 {
        let time: i64 = redis.lindex(&key, index).await.expect("LINDEX");
        redis
            .lset::<_, _, ()>(&key, index, time + 86_400_000)
            .await
            .expect("LSET");
    }
    assert_eq!(
        sender
            .post_once(fresh(&number))
            .await
            .expect("an answer")
            .status,
        200
    );
}

#[tokio::test]
async fn a_limit_can_be_observed_or_off() {
    let stage = Stage::new().await;
    let observing = stage
        .ingress()
        .env("RATE_LIMIT_PER_MINUTE", 2)
        .env("RATE_LIMIT_ACTION", "observe")
        .start()
        .await;
    let sender = stage.sender(&observing);
    let number = Number::fresh();
    let mut remaining = Vec::new();
    for _ in 0..5 {
        let answer = sender.post_once(fresh(&number)).await.expect("an answer");
        assert_eq!(answer.status, 200);
        remaining.push(answer.header("x-ratelimit-remaining").to_owned());
    }
    assert_eq!(remaining, ["1", "0", "0", "0", "0"]);
    assert_eq!(
        observing
            .metric("whatsapp_ingress_rate_limit_exceeded_total", "")
            .await,
        3.0
    );
    assert!(
        observing
            .log()
            .contains("beyond its account's limit was stored")
    );
    let length: usize = stage
        .redis
        .connection()
        .await
        .llen(window_key(&number))
        .await
        .expect("LLEN");
    assert_eq!(length, 2, "it doesn't grow with what is only observed");

    let off = stage
        .ingress()
        .env("RATE_LIMIT_PER_MINUTE", 0)
        .start()
        .await;
    let answer = stage
        .sender(&off)
        .post_once(fresh(&number))
        .await
        .expect("an answer");
    assert_eq!(
        (answer.status, answer.header("x-ratelimit-limit")),
        (200, "")
    );
}

async fn used_memory(redis: &mut redis::aio::MultiplexedConnection) -> f64 {
    let info: String = redis::cmd("INFO")
        .arg("memory")
        .query_async(redis)
        .await
        .expect("INFO");
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .expect("used_memory")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remembered_item_costs_at_most_forty_bytes() {
    let stage = Stage::new().await;
    let ingress = stage
        .ingress()
        .env("RATE_LIMIT_PER_MINUTE", 0)
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let mut redis = stage.redis.connection().await;
    let accounts: Vec<_> = (0..64).map(|_| Number::fresh()).collect();
    // Streams, connections and the script are there.
    for number in &accounts {
        sender.send(fresh(number)).await;
    }
    let before = used_memory(&mut redis).await;
    let mut ids = 0;
    let mut most: f64 = 0.0;
    for bodies in [32, 64, 128] {
        for n in 0..bodies {
            let number = &accounts[n % accounts.len()];
            let items = (0..500).map(|_| payload::status(&payload::wamid(), "sent", "1111111111"));
            sender
                .send(webhook([payload::entry(
                    &number.waba_id,
                    [number.statuses(items)],
                )]))
                .await;
            ids += 500;
        }
        for partition in 0..16 {
            redis
                .del::<_, ()>(format!("whatsapp:{{{partition}}}:stream"))
                .await
                .expect("DEL");
        }
        let each = (used_memory(&mut redis).await - before) / f64::from(ids);
        most = most.max(each);
        #[allow(
            clippy::print_stdout,
            reason = "a figure for people who run with --nocapture"
        )]
        {
            println!("{ids} ids: {each:.1} bytes each");
        }
    }
    assert!(most <= 40.0, "{most} bytes");
}

#[tokio::test]
async fn an_item_is_remembered_for_its_time() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().env("DEDUP_TTL", "4s").start().await;
    let sender = stage.sender(&ingress);
    let mut redis = stage.redis.connection().await;
    let mut now = async || -> f64 {
        let time: (f64, f64) = redis::cmd("TIME")
            .query_async(&mut redis)
            .await
            .expect("TIME");
        time.0 + time.1 / 1e6
    };
    let body = fresh(&Number::fresh());
    let before = now().await;
    sender.send(body.clone()).await;
    let after = now().await;
    // When it was last looked for and remembered.
    let mut remembered = after;
    eventually(SOON, "it is forgotten", async || {
        let asked = now().await;
        sender.send(body.clone()).await;
        if stored(&stage).await == 2 {
            return Some(());
        }
        remembered = asked;
        None
    })
    .await;
    let forgotten = now().await;
    assert!(forgotten - before >= 4.0, "after {}", forgotten - before);
    // 5 %
    let longest = 4.0 * 1.05;
    assert!(remembered - after <= longest, "{}", remembered - after);
}

/// What is known of old generations goes when a new one begins, and nothing else does.
#[tokio::test]
async fn a_new_generation_of_marks_clears_away_the_old_ones() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let number = Number::fresh();
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let seen = format!("whatsapp:{{{partition}}}:seen");
    let mut redis = stage.redis.connection().await;
    let own_limit = format!("l{}", number.waba_id);
    // Numbers of generations of DEDUP_TTL, a day, and of an hour, that are over.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
    let seconds = now.expect("a clock").as_secs();
    let (old, old_short) = (
        format!("{}", seconds / 86_400 - 3),
        format!("s{}", seconds / 3600 - 3),
    );
    // Of eight days: it may be the current one of an ingress with that setting.
    let of_another_ttl = (seconds / (8 * 86_400)).to_string();
    for (field, value) in [
        (&*own_limit, "7"),
        (&old, "6"),
        (&old_short, "6,9"),
        (&of_another_ttl, "6"),
    ] {
        redis
            .hset::<_, _, _, ()>(&seen, field, value)
            .await
            .expect("HSET");
    }
    let body = fresh(&number);
    for expected in ["6", ""] {
        let answer = stage.sender(&ingress).post_once(body.clone()).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-remaining"), expected);
    }
    let fields: Vec<String> = redis.hkeys(&seen).await.expect("HKEYS");
    assert_eq!(fields.len(), 3, "{fields:?}");
    assert!(fields.contains(&own_limit), "{fields:?}");
    assert!(fields.contains(&of_another_ttl), "{fields:?}");
    assert_eq!(stored(&stage).await, 1);
}

#[tokio::test]
async fn short_of_memory_new_items_are_remembered_for_an_hour() {
    let redis = RedisOptions {
        maxmemory: Some("32mb".to_owned()),
        ..RedisOptions::default()
    };
    let stage = Stage::with(StageOptions {
        redis,
        ..StageOptions::default()
    })
    .await;
    let ingress = stage.ingress().start().await;
    let sender = stage.sender(&ingress);
    let (long, short) = (fresh(&Number::fresh()), fresh(&Number::fresh()));
    sender.send(long.clone()).await;
    let mut redis = stage.redis.connection().await;
    for _ in 0..27 {
        let some = "x".repeat(1_040_000);
        redis
            .rpush::<_, _, ()>("filler", some)
            .await
            .expect("RPUSH");
    }
    eventually(SOON, "an alarm", async || {
        ingress.log().contains("is above 80 %").then_some(())
    })
    .await;
    sender.send(short.clone()).await;
    let mut ttls = Vec::new();
    let marks: Vec<String> = redis.keys("whatsapp:*seen:*").await.expect("KEYS");
    for mark in marks {
        ttls.push(redis.ttl::<_, i64>(mark).await.expect("TTL"));
    }
    ttls.sort_unstable();
    let [hour, day] = ttls[..] else {
        panic!("two marks: {ttls:?}");
    };
    assert!(
        (3600..=7300).contains(&hour) && (86_400..=175_000).contains(&day),
        "{ttls:?}"
    );
    redis.del::<_, ()>("filler").await.expect("DEL");
    eventually(SOON, "it is over", async || {
        ingress.log().contains("normal again").then_some(())
    })
    .await;
    for body in [long, short] {
        sender.send(body).await;
    }
    assert_eq!(stored(&stage).await, 2, "both are remembered still");
}
