//! What makes an object an entry again, asked directly on a real Redis: once, whoever asks how often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde_json::json;
use shared::keys::{GROUP, Keys};
use tests::servers::{Redis, RedisOptions};
use worker::cli::Cli;
use worker::out::store::{Store, StoredObject};
use worker::owed::readmit::{MOST_UNREAD, PutBack, Readmit, Returning, returning};

const WABA: &str = "102290129340398";

struct Stage {
    redis: Redis,
    readmit: Readmit,
    stream: String,
    returning: String,
}

impl Stage {
    async fn new() -> Self {
        tests::install_tls_provider();
        let redis = Redis::start(RedisOptions::default())
            .await
            .expect("a Redis");
        let url = redis.url();
        let arguments = ["worker", "--redis-url", &url];
        let arguments =
            arguments
                .into_iter()
                .chain(["--minio-access-key", "a", "--minio-secret-key", "s"]);
        let config = <Cli as clap::Parser>::try_parse_from(arguments)
            .expect("settings")
            .config;
        let secrets = config.secrets().expect("secrets");
        let store_keys = secrets.store.expect("keys");
        let store = Store::new(&config.store, &config.objects, store_keys).expect("a store");
        let keys = Keys::new("whatsapp", 16);
        let partition = keys.partition_of(WABA);
        let connection = secrets.redis.connection(Duration::from_secs(3));
        Self {
            stream: keys.stream(partition),
            returning: keys.returning(partition),
            readmit: Readmit::new(Arc::new(store), connection, keys),
            redis,
        }
    }

    async fn redis(&self) -> MultiplexedConnection {
        self.redis.connection().await
    }

    async fn put_back(&self, name: &str, replay_id: &str) -> PutBack {
        let put = self.readmit.put_back(&object(name), replay_id).await;
        put.expect("Redis")
    }

    async fn entries(&self) -> usize {
        let mut length = redis::cmd("XLEN");
        length.arg(&self.stream);
        let length = length.query_async(&mut self.redis().await).await;
        length.expect("XLEN")
    }

    /// As the owner of the partition does.
    async fn read_all(&self) {
        let mut redis = self.redis().await;
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg(GROUP).arg("0");
        create.query_async::<()>(&mut redis).await.expect("a group");
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg("owner");
        read.arg("STREAMS").arg(&self.stream).arg(">");
        let read = read.query_async::<redis::Value>(&mut redis).await;
        read.expect("entries");
    }
}

/// A payload in the failed store.
fn object(name: &str) -> Returning {
    let message = json!({"from": "16505551234", "id": "wamid.x", "timestamp": "1764000000",
        "type": "text", "text": {"body": "Does it come in green?"}});
    let value = json!({"messaging_product": "whatsapp", "messages": [message],
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"}});
    let change = json!({"field": "messages", "value": value});
    let body = json!({"object": "whatsapp_business_account",
        "entry": [{"id": WABA, "changes": [change]}]});
    let kept = StoredObject {
        described: BTreeMap::new(),
        body: body.to_string().into(),
    };
    let key = format!("failed/tenant/2025-11-24/1764000000000-{name}.json");
    returning(&key, &kept).expect("it can be put back")
}

#[tokio::test]
async fn an_object_is_one_entry_whoever_puts_it_back() {
    let stage = Stage::new().await;
    assert_eq!(stage.put_back("b", "r1").await, PutBack::Put);
    // The same replay, killed before it noted that, or its successor.
    assert_eq!(stage.put_back("b", "r1").await, PutBack::Before);
    assert_eq!(stage.put_back("a", "r1").await, PutBack::Before);
    // A later replay, and what comes back by itself, while it is still an entry.
    assert_eq!(stage.put_back("b", "r2").await, PutBack::UnderWay);
    assert_eq!(stage.put_back("b", "").await, PutBack::UnderWay);
    assert_eq!(stage.put_back("c", "r1").await, PutBack::Over);
    assert_eq!(stage.entries().await, 1);
    // Acknowledged, its object not moved yet.
    let mut redis = stage.redis().await;
    redis::pipe()
        .del(&stage.stream)
        .hset(&stage.returning, object("b").source(), "")
        .query_async::<()>(&mut redis)
        .await
        .expect("as the acknowledgement leaves it");
    assert_eq!(stage.put_back("b", "r3").await, PutBack::UnderWay);
    assert_eq!(stage.entries().await, 0);
}

#[tokio::test]
async fn what_nobody_has_read_holds_back_and_what_waits_for_a_tenant_does_not() {
    let stage = Stage::new().await;
    for n in 0..MOST_UNREAD {
        assert_eq!(stage.put_back(&format!("{n:03}"), "r1").await, PutBack::Put);
    }
    assert_eq!(stage.put_back("more", "r1").await, PutBack::Busy);
    stage.read_all().await;
    assert_eq!(stage.put_back("more", "r1").await, PutBack::Put);
}
