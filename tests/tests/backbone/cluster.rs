//! The same on a Redis Cluster of three nodes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tests::events::Event;
use tests::meta::payload::{self, Number};
use tests::meta::webhook;
use tests::programs::Until;
use tests::servers::RedisCluster;
use tests::waiting::eventually;
use tests::{Stage, StageOptions};

use crate::outages::{Crashes, Load, nothing_was_set_aside};
use crate::{SOON, assert_repeats, drained, repeats, stored};

async fn stage() -> Stage {
    let cluster = RedisCluster::start().await.expect("a cluster");
    Stage::with(StageOptions {
        cluster: Some(cluster),
        ..StageOptions::default()
    })
    .await
}

fn partition_of(number: &Number) -> String {
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    format!("whatsapp:{{{partition}}}:stream")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_and_a_node_killed_again_and_again_lose_nothing() {
    let mut stage = stage().await;
    let mut ingress = stage.ingress().start().await;
    let events = stage.events();
    let (mut workers, mut crashes) = (Vec::new(), Crashes::default());
    for n in 0..2 {
        // One that starts while the node with the partition count is away waits for it.
        let worker = stage.worker().env("LEASE_TTL", "2s").until(Until::Healthy);
        workers.push(worker.start().await);
        crashes
            .started(n, async |key| stage.redis_for(key).await)
            .await;
    }
    let load = Load {
        numbers: (0..60).map(|_| Number::fresh()).collect(),
        conversations: 100,
        each: 50,
        rate: 300,
    };
    let mut sending = load.send(&stage.sender(&ingress));
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let cluster = stage.cluster.as_mut().expect("a cluster");
    let killing = async {
        let mut kills = 0;
        let mut pause = tokio::time::interval(Duration::from_secs(3));
        pause.tick().await;
        while !finished.load(Ordering::Relaxed) {
            pause.tick().await;
            let (worker, node) = (kills % 2, kills % 3);
            let redis_for = async |key: &str| cluster.connection_for(key).await;
            crashes
                .of_worker(worker, redis_for, || workers[worker].kill())
                .await;
            for partition in 0..16 {
                let key = format!("whatsapp:{{{partition}}}:owner");
                if cluster.node_of(&key).await == node {
                    crashes.count(partition);
                }
            }
            cluster.kill(node);
            pause.tick().await;
            workers[worker].restart().await;
            cluster.restart(node).await;
            let redis_for = async |key: &str| cluster.connection_for(key).await;
            crashes.started(worker, redis_for).await;
            ingress.kill();
            ingress.restart().await;
            kills += 1;
        }
        kills
    };
    let sent = async {
        while let Some(answers) = sending.join_next().await {
            let answers = answers.expect("no panic");
            assert!(answers.is_subset(&HashSet::from([503])), "{answers:?}");
        }
        done.store(true, Ordering::Relaxed);
    };
    let (kills, ()) = tokio::join!(killing, sent);
    let all = |seen: &[Event]| seen.len() - repeats(seen) >= load.total();
    let seen = events.wait_until(SOON * 10, all).await;
    drained(&stage).await;
    load.assert_complete(&seen);
    nothing_was_set_aside(&stage).await;
    let told = format!(
        "{} messages, {kills} rounds, {} repeats",
        load.total(),
        repeats(&seen)
    );
    assert!(kills > 0, "{told}");
    workers.iter().for_each(|worker| crashes.count_lost(worker));
    assert_repeats(&seen, |partition| crashes.of(partition));
    #[allow(
        clippy::print_stdout,
        reason = "a figure for people who run with --nocapture"
    )]
    {
        println!("{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_under_load_and_nobody_notices() {
    let stage = stage().await;
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().start().await;
    let events = stage.events();
    let number = Number::fresh();
    let load = Load {
        numbers: vec![number.clone()],
        conversations: 10,
        // Long enough that the move begins and ends under it, also where the first event takes its time.
        each: 60,
        rate: 60,
    };
    let mut sending = load.send(&stage.sender(&ingress));
    events.wait_for(1, SOON).await;
    let cluster = stage.cluster.as_ref().expect("a cluster");
    let key = partition_of(&number);
    let to = (cluster.node_of(&key).await + 1) % 3;
    cluster.begin_move(&key, to).await.expect("moving");
    // Scripts with keys on both sides have to wait for the end of the move.
    eventually(SOON, "one did", async || {
        let waits = ingress.log().contains("non local key") || worker.log().contains("TRYAGAIN");
        waits.then_some(())
    })
    .await;
    cluster.finish_move(&key, to).await.expect("moved");
    while let Some(answers) = sending.join_next().await {
        let answers = answers.expect("no panic");
        assert!(answers.is_subset(&HashSet::from([503])), "{answers:?}");
    }
    let all = |seen: &[Event]| seen.len() - repeats(seen) >= load.total();
    let seen = events.wait_until(SOON * 4, all).await;
    drained(&stage).await;
    load.assert_complete(&seen);
    assert_eq!(cluster.node_of(&key).await, to);
}

/// Two accounts in one body, and the node of one of them away: half of it is stored, and the sender's
/// retry brings the other half.
#[tokio::test]
async fn half_a_body_is_completed_by_its_repetition() {
    let mut stage = stage().await;
    let ingress = stage.ingress().env("REDIS_PATIENCE", "100ms").start().await;
    let sender = stage.sender(&ingress);
    let cluster = stage.cluster.as_mut().expect("a cluster");
    let here = Number::fresh();
    let there = loop {
        let number = Number::fresh();
        let (one, two) = (partition_of(&here), partition_of(&number));
        if cluster.node_of(&one).await != cluster.node_of(&two).await {
            break number;
        }
    };
    let entry = |number: &Number| {
        payload::entry(
            &number.waba_id,
            [number.messages([payload::text("1111111111", "x")])],
        )
    };
    let body = webhook([entry(&there), entry(&here)]);
    let away = cluster.node_of(&partition_of(&there)).await;
    cluster.kill(away);
    let answer = sender.post_once(body.clone()).await.expect("an answer");
    assert_eq!(answer.status, 503);
    let (ready, _) = ingress.get("/ready").await.expect("an answer");
    assert_eq!(
        ready.as_u16(),
        200,
        "two nodes of three still take webhooks"
    );
    sender.send_like_meta(webhook([entry(&here)])).await;
    stage
        .cluster
        .as_mut()
        .expect("a cluster")
        .restart(away)
        .await;
    eventually(SOON, "the other half is stored", async || {
        let answer = sender.post_once(body.clone()).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(stored(&stage).await, 3, "two halves and one of its own");
}

/// A node that hangs, instead of refusing: the other nodes' accounts don't notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_costs_only_its_own_accounts() {
    let stage = stage().await;
    let ingress = stage.ingress().env("REQUEST_DEADLINE", "1500ms");
    let ingress = ingress.start().await;
    let sender = stage.sender(&ingress);
    let cluster = stage.cluster.as_ref().expect("a cluster");
    let number_on = async |wanted: fn(usize) -> bool| loop {
        let number = Number::fresh();
        if wanted(cluster.node_of(&partition_of(&number)).await) {
            break number;
        }
    };
    let (hung, other) = (number_on(|n| n == 0).await, number_on(|n| n != 0).await);
    let text = || payload::text("1111111111", "x");
    for number in [&hung, &other] {
        sender.send(number.message(text())).await;
    }
    cluster.nodes()[0].signal("STOP");
    let mut refused = 0;
    for _ in 0..5 {
        let (lost, served) = tokio::join!(
            sender.post_once(hung.message(text())),
            sender.post_once(other.message(text()))
        );
        assert_eq!(lost.expect("an answer").status, 503);
        refused += usize::from(served.expect("an answer").status != 200);
    }
    cluster.nodes()[0].signal("CONT");
    sender.send_like_meta(hung.message(text())).await;
    assert_eq!(refused, 0);
}

#[tokio::test]
async fn one_node_is_no_address_of_a_cluster() {
    let stage = stage().await;
    let nodes = stage.cluster.as_ref().expect("a cluster").nodes();
    for node in nodes {
        // One of them has the partition count; none has all partitions.
        let ingress = stage.ingress().env("REDIS_URL", node.url());
        let Err(error) = ingress.try_start().await else {
            panic!("ingress runs on a part of the partitions");
        };
        assert!(format!("{error:#}").contains("Redis Cluster"), "{error:#}");
    }
}

#[tokio::test]
async fn one_address_of_a_cluster_is_enough_if_it_is_said_to_be_one() {
    let stage = stage().await;
    let nodes = stage.cluster.as_ref().expect("a cluster").nodes();
    let one = nodes[0].url();
    let refused = stage.ingress().env("REDIS_URL", &one).try_start().await;
    let refused = format!("{:#}", refused.expect_err("one node"));
    assert!(refused.contains("REDIS_CLUSTER=true"), "{refused}");
    let ingress = stage.ingress().env("REDIS_URL", &one);
    let ingress = ingress.env("REDIS_CLUSTER", "true").start().await;
    let worker = stage.worker().env("REDIS_URL", &one);
    let _worker = worker.env("REDIS_CLUSTER", "true").start().await;
    let events = stage.events();
    // Of accounts on all nodes.
    for _ in 0..20 {
        let message = Number::fresh().message(payload::text("15550001", "hi"));
        stage.sender(&ingress).send(message).await;
    }
    events.wait_for(20, SOON).await;
}
