//! The form of stream entries: what the version before wrote is read by this one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use redis::AsyncCommands;
use shared::entry::VERSION;
use tests::Stage;
use tests::meta::payload::{self, Number};

use crate::{SOON, drained};

/// Fields of an entry exactly as a version of ingress wrote it: two fresh items, `first` and `third`, of
/// the three of its body. These files are never changed: a new version gets a new one.
fn written_by(version: u32) -> Vec<(String, String)> {
    let entries = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/backbone/entries");
    let path = entries.join(format!("{version}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let fields: Vec<[String; 2]> = serde_json::from_str(&text).expect("pairs");
    fields
        .into_iter()
        .map(|[name, value]| (name, value))
        .collect()
}

#[tokio::test]
async fn this_version_and_the_one_before_are_read() {
    let stage = Stage::new().await;
    let mut redis = stage.redis.connection().await;
    let keys = shared::keys::Keys::new("whatsapp", 16);
    let current: u32 = VERSION.parse().expect("a number");
    let mut expected = 0;
    for version in (current - 1).max(1)..=current {
        let fields = written_by(version);
        // What a later ingress adds without a new version is ignored.
        let mut more = fields.clone();
        more.push(("zz".to_owned(), "from the future".to_owned()));
        for fields in [fields, more] {
            let account = fields.iter().find(|(name, _)| name == "w").expect("one");
            let stream = keys.stream(keys.partition_of(&account.1));
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
    let names: BTreeSet<_> = written.map.keys().cloned().collect();
    let fields = written_by(current).into_iter();
    assert_eq!(names, fields.map(|(name, _)| name).collect());
    assert_eq!(written.get::<String>("v").as_deref(), Some(VERSION));
}
