//! The whole service on real servers: what goes in at ingress, what comes out of RabbitMQ and lies
//! in the object store, and what survives of it when something dies in between.

mod alarms;
mod answers;
mod balancers;
mod broker;
mod canaries;
mod chaos;
mod cluster;
mod commands;
mod console;
mod console_browser;
mod consumers;
mod corpus;
mod dashboards;
mod dead_letters;
mod demo;
mod deployment;
mod documents;
mod entries;
mod erase;
mod gathered;
mod health;
mod hostile;
mod hostile_bodies;
mod ingress;
mod killed;
mod large_events;
mod limits;
mod logs;
mod media;
mod media_crashes;
mod media_places;
mod media_sizes;
mod metrics;
mod names;
mod neighbours;
mod object_stores;
mod odd_answers;
mod one_tenant;
mod openapi;
mod operator;
mod outages;
mod outgoing;
mod owed;
mod ownership;
mod path;
mod proxies;
mod publishing;
mod redis_disk;
mod redis_faults;
mod repartition;
mod replay;
mod rolling;
mod setting_aside;
mod settings;
mod sockets;
mod spool;
mod status;
mod store_faults;
mod takeover;
mod tenants;
mod traces;

use std::collections::HashMap;
use std::time::Duration;

use tests::Stage;
use tests::events::Event;
use tests::programs::Program;
use tests::waiting::eventually;

/// Enough for anything that should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The texts of the message events, by sender, in the order of their first publication.
fn first_texts(events: &[Event]) -> HashMap<String, Vec<String>> {
    let mut seen = std::collections::HashSet::new();
    let mut texts: HashMap<String, Vec<String>> = HashMap::new();
    for event in events {
        if seen.insert(event.message_id.clone()) {
            texts
                .entry(event.text("/customer/waId").to_owned())
                .or_default()
                .push(event.text("/message/content/body").to_owned());
        }
    }
    texts
}

/// How many events are repeats of one before.
fn repeats(events: &[Event]) -> usize {
    let ids: std::collections::HashSet<_> = events.iter().map(|event| &event.message_id).collect();
    events.len() - ids.len()
}

/// Asserts the promise: each of its `crashes` repeats at most 64 events of a partition. A second
/// delivery of one publication is none of ours.
fn assert_repeats(events: &[Event], crashes: impl Fn(u16) -> usize) {
    let keys = shared::keys::Keys::new("whatsapp", 16);
    let mut seen = std::collections::HashSet::new();
    let mut repeats: HashMap<u16, usize> = HashMap::new();
    for event in events {
        if !seen.insert(&event.message_id) && !event.redelivered {
            let account = event.text("/channel/businessAccountId");
            *repeats.entry(keys.partition_of(account)).or_default() += 1;
        }
    }
    for (partition, repeats) in repeats {
        let crashes = crashes(partition);
        assert!(
            repeats <= 64 * crashes,
            "{repeats} repeats of {partition}, {crashes} crashes"
        );
    }
}

/// How many entries all streams of the deployment hold.
async fn stored(stage: &Stage) -> u64 {
    let mut length = 0;
    for partition in 0..16 {
        let key = format!("whatsapp:{{{partition}}}:stream");
        let mut redis = stage.redis_for(&key).await;
        length += redis::AsyncCommands::xlen::<_, u64>(&mut redis, key)
            .await
            .expect("a length");
    }
    length
}

/// Waits until a program says that it and its servers are well.
async fn ready(program: &Program) {
    eventually(SOON, "it is ready", async || {
        let (ready, _) = program.get("/ready").await.ok()?;
        (ready.as_u16() == 200).then_some(())
    })
    .await;
}

/// Entries delivered to the workers and not acknowledged.
async fn pending(stage: &Stage) -> usize {
    let mut redis = stage.redis.connection().await;
    let mut pending = 0;
    for partition in 0..16 {
        let reply: redis::RedisResult<redis::streams::StreamPendingReply> = redis::cmd("XPENDING")
            .arg(format!("whatsapp:{{{partition}}}:stream"))
            .arg("workers")
            .query_async(&mut redis)
            .await;
        // No group: nobody has read it yet.
        pending += reply.map_or(0, |reply| reply.count());
    }
    pending
}

/// How many pieces of a kind the deployment owes.
async fn count_owed(stage: &Stage, kind: &str) -> usize {
    let mut count = 0;
    for partition in 0..16 {
        let key = format!("whatsapp:{{{partition}}}:owed:{kind}");
        let mut redis = stage.redis_for(&key).await;
        count += redis::AsyncCommands::zcard::<_, usize>(&mut redis, key)
            .await
            .expect("a count");
    }
    count
}

/// Waits until streams are empty and nothing is owed: all is published, archived and acknowledged.
async fn drained(stage: &Stage) {
    let mut redis = Vec::new();
    for partition in 0..16 {
        redis.push(stage.redis_for(&format!("{{{partition}}}")).await);
    }
    eventually(
        SOON * 2,
        "streams are empty and nothing is owed",
        async || {
            for (partition, redis) in redis.iter_mut().enumerate() {
                let key = |what: &str| format!("whatsapp:{{{partition}}}:{what}");
                let mut lengths = redis::pipe();
                lengths.cmd("XLEN").arg(key("stream"));
                for kind in shared::keys::OWED {
                    lengths.cmd("ZCARD").arg(key(&format!("owed:{kind}")));
                }
                lengths.cmd("EXISTS").arg(key("owed"));
                let lengths: Vec<u64> = lengths.query_async(redis).await.ok()?;
                if lengths.iter().any(|length| *length > 0) {
                    return None;
                }
            }
            Some(())
        },
    )
    .await;
}
