//! The form of stream entries: what the version before wrote is read by this one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use shared::entry::{VERSION, account};
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::servers::{Redis, RedisOptions};

use crate::{SOON, drained};

/// Fields of an entry exactly as a version of ingress wrote it: two fresh items, `first` and `third`, of
/// the three of its body. These files are never changed: a new version gets a new one.
fn written_by(version: u8) -> Vec<(String, Vec<u8>)> {
    let entries = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/backbone/entries");
    let path = entries.join(format!("{version}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Bytes(Vec<u8>),
    }
    let fields: Vec<(String, Written)> = serde_json::from_str(&text).expect("pairs");
    let bytes = |value| match value {
        Written::Text(text) => text.into_bytes(),
        Written::Bytes(bytes) => bytes,
    };
    let fields = fields.into_iter();
    fields.map(|(name, value)| (name, bytes(value))).collect()
}

#[tokio::test]
async fn this_version_and_the_one_before_are_read() {
    let stage = Stage::new().await;
    let mut redis = stage.redis.connection().await;
    let keys = shared::keys::Keys::new("whatsapp", 16);
    let mut expected = 0;
    for version in VERSION - 1..=VERSION {
        let fields = written_by(version);
        // What a later ingress adds without a new version is ignored.
        let mut more = fields.clone();
        more.push(("zz".to_owned(), b"from the future".to_vec()));
        for fields in [fields, more] {
            let named = fields.iter().cloned();
            let named = named.map(|(name, value)| (name, value.into()));
            let account = account(&named.collect()).expect("one");
            let stream = keys.stream(keys.partition_of(&account));
            let added = redis.xadd::<_, _, _, _, ()>(stream, "*", &fields).await;
            added.expect("XADD");
            expected += 2;
        }
    }
    let mut worker = stage.worker().start().await;
    let seen = stage.events().wait_for(expected, SOON).await;
    drained(&stage).await;
    for event in &seen {
        let id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
        assert_eq!(event.correlation_id.as_deref(), Some(id));
        assert_eq!(event.text("/occurredAt"), "2023-11-14T22:13:20.000Z");
        assert_eq!(event.text("/customer/name"), "Ada");
    }
    let texts = seen.iter().map(|event| event.text("/message/content/body"));
    assert_eq!(texts.collect::<BTreeSet<_>>(), ["first", "third"].into());

    // Who changes what ingress writes makes a new version, or at least looks here.
    assert!(worker.stop(SOON).await);
    let (ingress, number) = (stage.ingress().start().await, Number::fresh());
    let body = number.message(payload::text("1111111111", "x"));
    stage.sender(&ingress).send(body).await;
    let stream = keys.stream(keys.partition_of(&number.waba_id));
    let written: redis::streams::StreamRangeReply = redis.xrange_all(stream).await.expect("XRANGE");
    let written = &written.ids[0];
    let mut names: BTreeSet<_> = written.map.keys().cloned().collect();
    // Only where some of its items aren't.
    assert!(names.insert("n".to_owned()));
    let fields = written_by(VERSION).into_iter();
    assert_eq!(names, fields.map(|(name, _)| name).collect());
    let header: Vec<u8> = written.get("h").expect("a header");
    assert_eq!(header.first(), Some(&VERSION));
}

/// COUNT knows no bytes: many entries in one call could be 3 MB each, one a call was the larger part of
/// Redis' work.
#[tokio::test]
async fn light_entries_are_read_together_and_heavy_ones_one_by_one() {
    let server = Redis::start(RedisOptions::default()).await.expect("Redis");
    let mut redis = server.connection().await;
    redis.set::<_, _, ()>("lease", "mine").await.expect("SET");
    let (light, heavy) = ([1_000; 256], [300_000; 30]);
    // Of one after a light one it isn't known that it is heavy.
    let mixed = [&light[..1], &heavy[..]].concat();
    for (sizes, entries, most_calls) in [
        (&light[..], 256..=256, 20),
        (&heavy[..], 4..=4, 4),
        (&mixed[..], 4..=17, 3),
    ] {
        redis.del::<_, ()>("stream").await.expect("DEL");
        let mut ids: Vec<String> = Vec::new();
        for size in sizes {
            let fields = [("b", "x".repeat(*size))];
            ids.push(redis.xadd("stream", "*", &fields).await.expect("XADD"));
        }
        for after in [">", "0-0"] {
            let (read, calls) = read(&mut redis, after).await;
            assert!(
                entries.contains(&read.len()),
                "{} after {after}",
                read.len()
            );
            assert_eq!(read, ids[..read.len()], "after {after}");
            assert!(calls <= most_calls, "{calls} after {after}");
        }
    }
}

/// The ids of what a read of a megabyte brings, and how many calls it took.
async fn read(redis: &mut MultiplexedConnection, after: &str) -> (Vec<String>, u64) {
    redis::cmd("CONFIG")
        .arg("RESETSTAT")
        .exec_async(redis)
        .await
        .expect("RESETSTAT");
    let script = redis::Script::new(include_str!("../../../worker/src/lua/read.lua"));
    let mut call = script.key("lease");
    call.key("stream");
    call.arg(&["mine", "workers", "worker", after, "1048576", "256", "0-0"]);
    type Entry = (String, Vec<redis::Value>);
    let (read, ..): (Vec<Entry>, String, u64, u8) = call.invoke_async(redis).await.expect("read");
    let told: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(redis)
        .await
        .expect("INFO");
    let calls = told
        .split_once("cmdstat_xreadgroup:calls=")
        .map(|(_, it)| it);
    let calls = calls.and_then(|it| it.split(',').next()?.parse().ok());
    let ids = read.into_iter().map(|(id, _)| id);
    (ids.collect(), calls.expect("it was called"))
}
