//! What lies in Redis and the store: how much there is still to do, and what is left when all is done.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Context;
use data_encoding::HEXLOWER;
use futures::StreamExt;
use redis::streams::StreamRangeReply;
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::entry::parse_numbers;
use shared::keys::{GROUP, Keys, OWED};

use super::history::{Fate, Item, Post};
use super::model::{SetAside, Violation};
use super::received::Received;
use super::scene::Scene;
use crate::events::QUEUES;
use crate::store::Store;

const PARTITIONS: u16 = 16;
/// Objects that are read at once.
const READS: usize = 16;

/// What isn't done yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    pub stream: u64,
    /// Pieces that acknowledged entries owe.
    pub owed: u64,
    pub spool: usize,
    pub returning: usize,
}

impl Backlog {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for Backlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = [
            ("in streams", self.stream),
            ("owed", self.owed),
            ("in the spool", self.spool as u64),
            ("returning", self.returning as u64),
        ];
        let there = named.into_iter().filter(|(_, count)| *count > 0);
        let there: Vec<_> = there
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        f.write_str(&there.join(", "))
    }
}

fn keys() -> Keys {
    Keys::new("whatsapp", PARTITIONS)
}

/// What isn't done yet.
///
/// # Errors
/// Redis or the store is away.
pub async fn backlog(scene: &Scene) -> anyhow::Result<Backlog> {
    let mut backlog = streams(scene).await?;
    backlog.spool = scene.webhooks.list("spool").await?.len();
    backlog.returning = scene.webhooks.list("returning").await?.len();
    Ok(backlog)
}

/// The same without the store.
///
/// # Errors
/// A Redis command failed.
pub async fn streams(scene: &Scene) -> anyhow::Result<Backlog> {
    let (mut backlog, keys) = (Backlog::default(), keys());
    for partition in 0..PARTITIONS {
        let mut redis = scene.redis_for(&keys.stream(partition)).await?;
        let mut length = redis::cmd("XLEN");
        length.arg(keys.stream(partition));
        backlog.stream += length.query_async::<u64>(&mut redis).await?;
        for kind in OWED {
            let mut count = redis::cmd("ZCARD");
            count.arg(keys.owed_list(partition, kind));
            backlog.owed += count.query_async::<u64>(&mut redis).await?;
        }
    }
    Ok(backlog)
}

/// Bodies that wait in streams.
///
/// # Errors
/// A Redis command failed.
pub async fn queued(scene: &Scene) -> anyhow::Result<Vec<String>> {
    let (mut bodies, keys) = (Vec::new(), keys());
    for partition in 0..PARTITIONS {
        let mut redis = scene.redis_for(&keys.stream(partition)).await?;
        let mut range = redis::cmd("XRANGE");
        range.arg(keys.stream(partition)).arg("-").arg("+");
        let entries: StreamRangeReply = range.query_async(&mut redis).await?;
        let found = entries
            .ids
            .iter()
            .filter_map(|entry| entry.get::<Vec<u8>>("b"));
        bodies.extend(found.map(|body| String::from_utf8_lossy(&body).into_owned()));
    }
    for key in scene.webhooks.list("spool").await? {
        let body = scene.webhooks.get(&key).await?.unwrap_or_default();
        bodies.push(String::from_utf8_lossy(&body).into_owned());
    }
    Ok(bodies)
}

/// What is in the failed store.
///
/// # Errors
/// The store is away.
pub async fn set_aside(store: &Store) -> anyhow::Result<Vec<SetAside>> {
    let mut found = Vec::new();
    for key in store.list("failed").await? {
        let object = store.object(&key).await?.context("an object vanished")?;
        let of = |name: &str| object.metadata.get(name).cloned().unwrap_or_default();
        found.push(SetAside {
            reason: of("reason"),
            items: parse_numbers(&of("items")).unwrap_or_default(),
            body: object.bytes.to_vec(),
        });
    }
    Ok(found)
}

/// What should be gone when all is done, or held by somebody who lives.
///
/// # Errors
/// A server is away.
pub async fn left_over(scene: &Scene) -> anyhow::Result<Vec<Violation>> {
    let (mut left, keys) = (Vec::new(), keys());
    let mut leases = 0;
    for partition in 0..PARTITIONS {
        let mut redis = scene.redis_for(&keys.stream(partition)).await?;
        for key in [
            keys.progress(partition),
            keys.suspects(partition),
            keys.deaths(partition),
            keys.media(partition),
            keys.alone(partition),
        ] {
            let there: bool = redis::cmd("EXISTS")
                .arg(&key)
                .query_async(&mut redis)
                .await?;
            if there {
                left.push(key);
            }
        }
        let lease = redis::cmd("EXISTS").arg(keys.lease(partition)).to_owned();
        leases += lease.query_async::<u64>(&mut redis).await?;
        let mut pending = redis::cmd("XPENDING");
        pending.arg(keys.stream(partition)).arg(GROUP);
        // No group: nobody has had anything to read there.
        let pending: redis::RedisResult<redis::streams::StreamPendingReply> =
            pending.query_async(&mut redis).await;
        let pending = pending.map_or(0, |reply| reply.count());
        if pending > 0 {
            left.push(format!("{pending} pending in {}", keys.stream(partition)));
        }
    }
    let mut owned = 0;
    for worker in &scene.workers {
        owned += worker
            .lock()
            .await
            .metric("whatsapp_partitions_owned", "")
            .await as u64;
    }
    if (leases, owned) != (u64::from(PARTITIONS), u64::from(PARTITIONS)) {
        left.push(format!(
            "{leases} leases, {owned} held by workers that live"
        ));
    }
    let left = left.into_iter();
    Ok(left
        .map(|what| Violation {
            kind: "left over",
            what,
        })
        .collect())
}

/// Messages that nobody has taken: in the dead-letter queues, which only consumers reject into, and in
/// the others, whose consumers should have had them.
///
/// # Errors
/// RabbitMQ is away.
pub async fn in_queues(scene: &Scene) -> anyhow::Result<Vec<Violation>> {
    let queues = scene.queues().await?;
    let queues = queues.as_array().cloned().unwrap_or_default();
    let left = queues.iter().filter_map(|queue| {
        let (name, messages) = (queue["name"].as_str()?, queue["messages"].as_u64()?);
        let kind = if QUEUES.contains(&name) {
            "in a queue"
        } else {
            "dead letter"
        };
        let (given, takers) = (&queue["messages_unacknowledged"], &queue["consumers"]);
        let what = format!("{messages} in {name}, {given} given to its {takers} consumers");
        (messages > 0).then_some(Violation { kind, what })
    });
    Ok(left.collect())
}

/// Holds the raw archive against what was sent: each event's object is there, and each object is,
/// byte for byte, a body that was sent, or one account's part of it. The objects' number.
///
/// # Errors
/// The store is away.
pub async fn archive(
    store: &Store,
    items: &[Item],
    posts: &[Post],
    received: &[Received],
) -> anyhow::Result<(usize, Vec<Violation>)> {
    let keys = store.list("").await?.into_iter();
    let keys: HashSet<String> = keys
        .filter(|key| {
            !["failed/", "spool/", "returning/"]
                .iter()
                .any(|own| key.starts_with(own))
        })
        .collect();
    let mut violations = Vec::new();
    let mut violation = |what| {
        violations.push(Violation {
            kind: "archive",
            what,
        })
    };
    let mut of_key: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for one in received {
        of_key.entry(&one.raw_key).or_default().insert(&one.key);
        if !keys.contains(&one.raw_key) {
            violation(format!("{} of {} is missing", one.raw_key, one.key));
        }
    }
    let whole: HashMap<&[u8], &Post> = posts.iter().map(|post| (&post.body[..], post)).collect();
    let entries: HashSet<Vec<u8>> = posts.iter().flat_map(entries).collect();
    let objects = futures::stream::iter(&keys).map(async |key| (key, store.get(key).await));
    let mut objects = objects.buffer_unordered(READS);
    while let Some((key, object)) = objects.next().await {
        let body = object?.with_context(|| format!("{key} vanished"))?;
        if let Some(post) = whole.get(&body[..]) {
            let sent: HashSet<&str> = post
                .items
                .iter()
                .map(|item| items[*item].key.as_str())
                .collect();
            let named = of_key.get(key.as_str()).into_iter().flatten();
            for named in named.filter(|named| !sent.contains(*named)) {
                violation(format!("{key} has no {named}"));
            }
        } else if !parts(&body).is_some_and(|part| entries.contains(&part)) {
            violation(format!("{key} is nothing that was sent"));
        }
    }
    Ok((keys.len(), violations))
}

/// The elements of `entry[]` of a body of several accounts, as they were written.
fn entries(post: &Post) -> Vec<Vec<u8>> {
    let Ok(body) = serde_json::from_slice::<Body<'_>>(&post.body) else {
        return Vec::new();
    };
    if body.entry.len() < 2 {
        return Vec::new();
    }
    let entries = body.entry.iter();
    entries
        .map(|entry| entry.get().as_bytes().to_vec())
        .collect()
}

/// The one entry of a body.
fn parts(body: &[u8]) -> Option<Vec<u8>> {
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    match &body.entry[..] {
        [entry] => Some(entry.get().as_bytes().to_vec()),
        _ => None,
    }
}

#[derive(serde::Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    entry: Vec<&'a serde_json::value::RawValue>,
}

/// Holds the stored files against what was sent: each that an event names is there, whole, and none
/// is there that no event names. The files' number.
///
/// # Errors
/// The store is away.
pub async fn files(
    store: &Store,
    items: &[Item],
    received: &[Received],
) -> anyhow::Result<(usize, Vec<Violation>)> {
    let mut violations = Vec::new();
    let mut violation = |what| violations.push(Violation { kind: "file", what });
    let keys: HashSet<String> = store.list("").await?.into_iter().collect();
    let digests = items.iter().map(|item| (item.key.as_str(), item));
    let digests: HashMap<&str, &Item> = digests.collect();
    let mut named: HashMap<&str, &str> = HashMap::new();
    for one in received {
        let Some(media) = one.media.as_ref().filter(|media| media.status == "stored") else {
            continue;
        };
        if let Some(item) = digests
            .get(one.key.as_str())
            .filter(|item| item.fate == Fate::File)
        {
            named.insert(&media.key, &item.sha256);
        }
        if !keys.contains(&media.key) {
            violation(format!("{} of {} is missing", media.key, one.key));
        }
    }
    let objects = futures::stream::iter(&keys).map(async |key| (key, store.get(key).await));
    let mut objects = objects.buffer_unordered(READS);
    while let Some((key, object)) = objects.next().await {
        let bytes = object?.with_context(|| format!("{key} vanished"))?;
        let digest = HEXLOWER.encode(&Sha256::digest(&bytes));
        match named.get(key.as_str()) {
            None => violation(format!("{key} is named by no event")),
            Some(expected) if *expected != digest => violation(format!("{key} has other bytes")),
            Some(_) => {}
        }
    }
    Ok((keys.len(), violations))
}

/// `eventId`s that the State Manager took.
pub fn told(scene: &Scene) -> HashSet<String> {
    let taken = scene.neighbours.state_taken().into_iter();
    let ids = taken.filter_map(|body: Value| Some(body["eventId"].as_str()?.to_owned()));
    ids.collect()
}
