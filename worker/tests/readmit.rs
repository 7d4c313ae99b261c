//! What makes an object an entry again, asked directly on a real Redis and a real store: once, whoever
//! asks how often, and again only when it was set aside again.

use std::sync::Arc;
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use shared::keys::{GROUP, Keys};
use tests::events::Events;
use tests::eventually;
use tests::meta::payload::{self, Number};
use tests::neighbours::Tenant;
use tests::programs::{Ingress, Worker};
use tests::servers::{Redis, RedisOptions, S3Access, Shared};
use worker::cli::Cli;
use worker::out::store::Store;
use worker::owed::readmit::{MOST_UNREAD, PutBack, Readmit, Returning, returning};

const WABA: &str = "102290129340398";
const SOON: Duration = Duration::from_secs(30);

/// As of a worker with this Redis and this bucket.
fn readmit(redis_url: &str, s3: &S3Access, bucket: &str) -> (Readmit, Arc<Store>) {
    let arguments = [
        ("--redis-url", redis_url),
        ("--minio-endpoint", &s3.endpoint),
        ("--minio-access-key", &s3.access_key),
        ("--minio-secret-key", &s3.secret_key),
        ("--minio-region", &s3.region),
        ("--minio-webhook-bucket", bucket),
    ];
    let arguments = arguments
        .into_iter()
        .flat_map(|(name, value)| [name, value]);
    let arguments = std::iter::once("worker").chain(arguments);
    let config = <Cli as clap::Parser>::try_parse_from(arguments)
        .expect("settings")
        .config;
    let secrets = config.secrets().expect("secrets");
    let store_keys = secrets.store.expect("keys");
    let store = Store::new(&config.store, &config.objects, store_keys).expect("a store");
    let store = Arc::new(store);
    let connection = secrets.redis.connection(Duration::from_secs(3));
    let keys = Keys::new("whatsapp", 16);
    (Readmit::new(store.clone(), connection, keys), store)
}

struct Stage {
    redis: Redis,
    readmit: Readmit,
    store: Arc<Store>,
    stream: String,
    returning: String,
}

impl Stage {
    async fn new() -> Self {
        tests::install_tls_provider();
        let redis = Redis::start(RedisOptions::default())
            .await
            .expect("a Redis");
        let bucket = format!("webhooks-{}", uuid::Uuid::new_v4().simple());
        let s3 = Shared::from_env().s3;
        let (readmit, store) = readmit(&redis.url(), &s3, &bucket);
        store.create_buckets().await.expect("a bucket");
        let keys = Keys::new("whatsapp", 16);
        let partition = keys.partition_of(WABA);
        Self {
            stream: keys.stream(partition),
            returning: keys.returning(partition),
            readmit,
            store,
            redis,
        }
    }

    async fn redis(&self) -> MultiplexedConnection {
        self.redis.connection().await
    }

    /// Writes a payload into the failed store, as its worker does, and reads it.
    async fn object(&self, name: &str) -> Returning {
        let message = json!({"from": "16505551234", "id": "wamid.x", "timestamp": "1764000000",
            "type": "text", "text": {"body": "Does it come in green?"}});
        let value = json!({"messaging_product": "whatsapp", "messages": [message],
            "metadata": {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"}});
        let change = json!({"field": "messages", "value": value});
        let body = json!({"object": "whatsapp_business_account",
            "entry": [{"id": WABA, "changes": [change]}]});
        let key = format!("failed/tenant/2025-11-24/1764000000000-{name}.json");
        let body = body.to_string().into();
        let put = self.store.put(&key, &Default::default(), body).await;
        put.expect("the store");
        read(&self.store, &key).await
    }

    async fn put_back(&self, name: &str, replay_id: &str) -> PutBack {
        let object = self.object(name).await;
        let put = self.readmit.put_back(&object, replay_id).await;
        put.expect("Redis and the store")
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

async fn read(store: &Store, key: &str) -> Returning {
    let kept = store.read(key).await.expect("the object");
    returning(key, &kept).expect("it can be put back")
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
        .hset(&stage.returning, stage.object("b").await.source(), "")
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

/// A deployment with an account that had no tenant: its worker puts back nothing by itself. And another
/// worker's way back.
struct Deployment {
    stage: tests::Stage,
    ingress: Ingress,
    _worker: Worker,
    events: Events,
    number: Number,
    readmit: Readmit,
    store: Arc<Store>,
}

impl Deployment {
    async fn new() -> Self {
        let stage = tests::Stage::new().await;
        let mut redis = stage.redis.connection().await;
        let turn = redis.set::<_, _, ()>("whatsapp:tenants:turn", "another's");
        turn.await.expect("SET");
        let number = Number::fresh();
        stage
            .neighbours
            .set_tenant(&number.waba_id, Tenant::Unknown);
        let (readmit, store) = readmit(&stage.redis.url(), &stage.s3, &stage.webhook_bucket);
        Self {
            ingress: stage.ingress().start().await,
            _worker: stage.worker().start().await,
            events: stage.events(),
            number,
            readmit,
            store,
            stage,
        }
    }

    /// Posts a message, and returns the key of what is set aside.
    async fn set_aside(&self, text: &str) -> String {
        let body = self.number.message(payload::text("1111111111", text));
        self.stage.sender(&self.ingress).send(body).await;
        eventually(SOON, "it is set aside", async || {
            let keys = self.stage.webhooks().list("failed/").await.ok()?;
            keys.into_iter().next()
        })
        .await
    }

    /// Forgets what the worker heard of the account.
    async fn tenant_is(&self, tenant: Tenant) {
        let (stage, waba_id) = (&self.stage, &self.number.waba_id);
        stage.neighbours.set_tenant(waba_id, tenant);
        let mut redis = stage.redis.connection().await;
        let copied = redis.del::<_, ()>(format!("whatsapp:tenant:{waba_id}"));
        copied.await.expect("DEL");
        let told = redis.publish::<_, _, ()>("whatsapp:tenants:changed", waba_id);
        told.await.expect("PUBLISH");
    }

    async fn put_back(&self, object: &Returning, replay_id: &str) -> PutBack {
        let put = self.readmit.put_back(object, replay_id).await;
        put.expect("Redis and the store")
    }

    /// Returns when nothing is on its way back any more.
    async fn settled(&self) {
        let keys = Keys::new("whatsapp", 16);
        let key = keys.returning(keys.partition_of(&self.number.waba_id));
        let mut redis = self.stage.redis.connection().await;
        eventually(SOON, "it is settled", async || {
            let left: usize = redis.hlen(&key).await.ok()?;
            (left == 0).then_some(())
        })
        .await;
    }

    /// How many entries wait or are in work.
    async fn entries(&self) -> usize {
        let keys = Keys::new("whatsapp", 16);
        let stream = keys.stream(keys.partition_of(&self.number.waba_id));
        let mut redis = self.stage.redis.connection().await;
        redis.xlen(stream).await.expect("XLEN")
    }
}

/// Where the other worker is while this one's entry is worked off.
#[derive(Debug, Clone, Copy)]
enum At {
    Listed,
    Read,
    Checked,
}

#[tokio::test]
async fn two_workers_with_the_same_listing_put_an_object_back_once() {
    let it = Deployment::new().await;
    for (published, at) in [At::Listed, At::Read, At::Checked].into_iter().enumerate() {
        it.tenant_is(Tenant::Unknown).await;
        let key = it.set_aside(&format!("{at:?}")).await;
        it.tenant_is(Tenant::Active).await;
        let one = read(&it.store, &key).await;
        let other = read(&it.store, &key).await;
        let checked = it.readmit.check(&other).await.expect("an answer");
        assert_eq!(it.put_back(&one, "").await, PutBack::Put);
        it.events.wait_for(published + 1, SOON).await;
        it.settled().await;
        match at {
            At::Listed => assert!(it.store.read(&key).await.is_err(), "it lies there"),
            At::Read => {
                for replay_id in ["", "r1"] {
                    assert_eq!(it.put_back(&other, replay_id).await, PutBack::Changed);
                }
            }
            At::Checked => {
                let checked = checked.expect("it lay there");
                for replay_id in ["", "r1"] {
                    let put = it.readmit.put_checked(&checked, replay_id).await;
                    assert_eq!(put.expect("Redis"), PutBack::Unsure);
                }
            }
        }
        assert_eq!(it.entries().await, 0, "{at:?}");
        assert_eq!(it.events.count(), published + 1, "{at:?}");
    }
}

#[tokio::test]
async fn what_was_set_aside_again_under_its_key_goes_back_again_and_only_as_it_is_now() {
    let it = Deployment::new().await;
    let key = it.set_aside("a").await;
    // By itself, and by hand as the last one: what fails again in a replay has another key.
    for _ in 0..2 {
        let before = read(&it.store, &key).await;
        let checked = it.readmit.check(&before).await.expect("an answer");
        assert_eq!(it.put_back(&before, "").await, PutBack::Put);
        it.settled().await;
        let checked = checked.expect("it lay there");
        let late = it.readmit.put_checked(&checked, "").await;
        assert_eq!(late.expect("Redis"), PutBack::Unsure);
        assert_eq!(it.put_back(&before, "").await, PutBack::Changed);
        assert_eq!(it.entries().await, 0);
    }
    it.tenant_is(Tenant::Active).await;
    let now = read(&it.store, &key).await;
    assert_eq!(it.put_back(&now, "r1").await, PutBack::Put);
    it.events.wait_for(1, SOON).await;
    it.settled().await;
    let failed = it.stage.webhooks().list("failed/").await.expect("a list");
    assert_eq!((failed, it.events.count()), (Vec::<String>::new(), 1));
}
