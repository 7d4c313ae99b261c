//! What becomes of Redis' files, and of who needs them meanwhile.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use tests::events::Event;
use tests::meta::Sender;
use tests::meta::payload::{self, Number};
use tests::programs::Until;
use tests::servers::RedisOptions;
use tests::waiting::eventually;
use tests::{Stage, StageOptions};
use tokio::task::JoinSet;

use crate::{SOON, assert_repeats, drained, repeats, stored};

fn fresh(text: &str) -> Bytes {
    Number::fresh().message(payload::text("1111111111", text))
}

async fn stage(redis: RedisOptions) -> Stage {
    Stage::with(StageOptions {
        redis,
        ..StageOptions::default()
    })
    .await
}

/// Posts 200 bodies, one every 2 ms; each body and whether it was accepted.
fn post_many(sender: &Sender) -> JoinSet<(Bytes, bool)> {
    let mut posts = JoinSet::new();
    for n in 0..200 {
        let (sender, body) = (sender.clone(), fresh("x"));
        posts.spawn(async move {
            // They come while others are being written.
            tokio::time::sleep(Duration::from_millis(n * 2)).await;
            let answer = sender.post_once(body.clone()).await.expect("an answer");
            (body, answer.status == 200)
        });
    }
    posts
}

/// Only what an fsync covered is there after a power cut, be it while the file is being rewritten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let mut stage = stage(RedisOptions {
        records_fsync: true,
        ..RedisOptions::default()
    })
    .await;
    let ingress = stage.ingress().env("REDIS_PATIENCE", "100ms").start().await;
    let sender = stage.sender(&ingress);
    let mut accepted = HashSet::new();
    for rewritten_at in [None, Some(30), Some(90)] {
        let mut posts = post_many(&sender);
        let mut answered = 0;
        while let Some(post) = posts.join_next().await {
            let (body, taken) = post.expect("no panic");
            if taken {
                accepted.insert(body);
            }
            answered += 1;
            if Some(answered) == rewritten_at {
                redis::cmd("BGREWRITEAOF")
                    .exec_async(&mut stage.redis.connection().await)
                    .await
                    .expect("BGREWRITEAOF");
            }
            if answered == 100 {
                stage.redis.lose_power().expect("files");
            }
        }
        stage.redis.restart().await.expect("Redis");
        eventually(SOON, "it is taken again", async || {
            let body = fresh("again");
            let answer = sender.post_once(body.clone()).await.ok()?;
            (answer.status == 200).then(|| accepted.insert(body))
        })
        .await;
    }
    let there = stored(&stage).await;
    assert!(accepted.len() >= 300, "{}", accepted.len());
    for body in &accepted {
        sender.send_like_meta(body.clone()).await;
    }
    assert_eq!(stored(&stage).await, there, "all of it is remembered");
    assert!(
        there >= accepted.len() as u64,
        "{there} of {}",
        accepted.len()
    );
}

#[tokio::test]
async fn a_file_broken_in_the_middle_is_repaired_by_nobody() {
    let mut stage = stage(RedisOptions::default()).await;
    let ingress = stage.ingress().env("REDIS_PATIENCE", "100ms").start().await;
    let sender = stage.sender(&ingress);
    for _ in 0..20 {
        sender.send(fresh("x")).await;
    }
    let log = stage.redis.append_only_file().expect("a file");
    stage.redis.kill();
    let whole = std::fs::read(&log).expect("a file");
    let mut broken = whole.clone();
    let middle = whole.len() / 2;
    let command = whole[middle..]
        .windows(3)
        .position(|bytes| bytes == b"\r\n*");
    broken[middle + command.expect("a command") + 2] = b'?';
    std::fs::write(&log, &broken).expect("a file");
    let refused = stage.redis.restart().await.expect_err("it must not start");
    assert!(
        format!("{refused:#}").contains("Bad file format"),
        "{refused:#}"
    );
    let late = fresh("late");
    let answer = sender.post_once(late.clone()).await.expect("an answer");
    assert_eq!(answer.status, 503);
    assert_eq!(std::fs::read(&log).expect("a file"), broken);
    // The operator has a copy.
    std::fs::write(&log, &whole).expect("a file");
    stage.redis.restart().await.expect("Redis");
    sender.send_like_meta(late).await;
    assert_eq!(stored(&stage).await, 21);
}

/// The disk is full when a worker acknowledges, or notes, or takes a lease.
#[tokio::test]
async fn a_full_disk_under_a_worker_repeats_at_most() {
    let mut stage = stage(RedisOptions {
        most_bytes_of_a_file: Some(300_000),
        ..RedisOptions::default()
    })
    .await;
    let ingress = stage.ingress().env("REDIS_PATIENCE", "100ms").start().await;
    let _worker = stage.worker().start().await;
    let (sender, events) = (stage.sender(&ingress), stage.events());
    let mut sent = 0;
    let refused = loop {
        let body = fresh(&sent.to_string());
        sent += 1;
        assert!(sent < 1000, "the file never got full");
        if sender
            .post_once(body.clone())
            .await
            .expect("an answer")
            .status
            != 200
        {
            break body;
        }
    };
    assert!(sent > 10, "{sent}");
    stage.redis.give_room();
    stage.redis.restart().await.expect("Redis");
    sender.send_like_meta(refused).await;
    let all = |seen: &[Event]| seen.len() - repeats(seen) == sent;
    let seen = events.wait_until(SOON, all).await;
    drained(&stage).await;
    assert_repeats(&seen, |_| 1);
    crate::outages::nothing_was_set_aside(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_starts_while_redis_is_loading_waits_for_it() {
    // 240 ms for each key, asked for other things in between: about 15 s, in which both programs start and
    // are asked, also on a machine that has much else to do.
    let loading = "--key-load-delay 240000 --loading-process-events-interval-bytes 1024";
    let mut stage = stage(RedisOptions {
        arguments: loading.split(' ').map(str::to_owned).collect(),
        ..RedisOptions::default()
    })
    .await;
    let before = stage.ingress().start().await;
    for _ in 0..20 {
        stage.sender(&before).send(fresh("x")).await;
    }
    let mut redis = stage.redis.connection().await;
    redis::cmd("BGREWRITEAOF")
        .exec_async(&mut redis)
        .await
        .expect("BGREWRITEAOF");
    eventually(SOON, "keys in one file", async || {
        let log = stage.redis.log();
        log.contains("Background AOF rewrite finished successfully")
            .then_some(())
    })
    .await;
    stage.redis.kill();
    let (ingress, worker, events) = (stage.ingress(), stage.worker(), stage.events());
    let early = async {
        let (ingress, worker) = tokio::join!(
            ingress.until(Until::Healthy).start(),
            worker.until(Until::Healthy).start()
        );
        for program in [&*ingress, &*worker, &*before] {
            eventually(SOON, "it says why it isn't ready", async || {
                let (ready, text) = program.get("/ready").await.ok()?;
                let loading = text.to_lowercase().contains("loading");
                (ready.as_u16() == 503 && loading).then_some(())
            })
            .await;
        }
        for ingress in [&ingress, &before] {
            let answer = ingress.sender().post_once(fresh("early")).await;
            assert_eq!(answer.expect("an answer").status, 503);
        }
        (ingress, worker)
    };
    let (loaded, (mut ingress, mut worker)) = tokio::join!(stage.redis.restart(), early);
    loaded.expect("Redis");
    ingress.sender().send_like_meta(fresh("late")).await;
    events.wait_for(21, SOON).await;
    assert!(ingress.is_running() && worker.is_running());
}
