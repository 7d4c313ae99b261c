//! What can't be an event is set aside, whole, and hurts nobody else.

use redis::AsyncCommands;
use tests::Stage;
use tests::events::Event;
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Service, Tenant, Turn};
use tests::waiting::eventually;

use crate::{SOON, drained, repeats};

/// The one object below `prefix`.
async fn only_object(stage: &Stage, prefix: &str) -> tests::store::Object {
    let store = stage.webhooks();
    let key = eventually(SOON, "an object in the failed store", async || {
        store.list(prefix).await.ok()?.into_iter().next()
    })
    .await;
    store
        .object(&key)
        .await
        .expect("the store")
        .expect("the object")
}

#[tokio::test]
async fn a_signed_body_that_nobody_can_read_is_kept_whole() {
    let stage = Stage::new().await;
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let body = b"{\"object\":\"whatsapp_business_account\", \xff".to_vec();
    stage.sender(&ingress).send(body.clone()).await;
    let object = only_object(&stage, "failed/_unresolved/0/").await;
    assert_eq!(object.bytes, body);
    assert_eq!(object.metadata["reason"], "unreadable");
    assert_eq!(object.metadata["error"], "not JSON");
    assert_eq!(object.metadata["attempts"], "1");
}

#[tokio::test]
async fn an_undecodable_entry_hurts_only_itself() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let stream = format!("whatsapp:{{{partition}}}:stream");
    let mut redis = stage.redis.connection().await;
    redis
        .xadd::<_, _, _, _, ()>(&stream, "*", &[("v", "99"), ("x", "from the future")])
        .await
        .expect("XADD");
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    stage
        .sender(&ingress)
        .send(number.message(payload::text("1111111111", "a")))
        .await;
    events.wait_for(1, SOON).await;
    let object = only_object(&stage, "failed/_unresolved/0/").await;
    assert_eq!(object.metadata["reason"], "undecodable");
    assert!(String::from_utf8_lossy(&object.bytes).contains("from the future"));
    drained(&stage).await;
}

#[tokio::test]
async fn items_of_an_account_without_a_tenant_are_set_aside() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    stage
        .neighbours
        .set_tenant(&number.waba_id, Tenant::Unknown);
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let body = number.message(payload::text("1111111111", "a"));
    stage.sender(&ingress).send(body.clone()).await;
    let object = only_object(&stage, &format!("failed/_unresolved/{}/", number.waba_id)).await;
    assert_eq!(object.bytes, body);
    assert_eq!(object.metadata["reason"], "tenant_unknown");
    assert_eq!(object.metadata["items"], "0");
    assert_eq!(object.metadata["attempts"], "1");
    assert!(!object.metadata["error"].is_empty());
}

#[tokio::test]
async fn a_silent_tenant_service_holds_back_only_whom_it_does_not_know() {
    let stage = Stage::new().await;
    let (known, unknown) = (Number::fresh(), Number::fresh());
    let (ingress, _worker) = (
        stage.ingress().env("STREAM_PARTITIONS", 1).start().await,
        stage.worker().env("STREAM_PARTITIONS", 1).start().await,
    );
    let events = stage.events();
    let sender = stage.sender(&ingress);
    sender
        .send(known.message(payload::text("1111111111", "0")))
        .await;
    events.wait_for(1, SOON).await;
    stage
        .neighbours
        .set_fault(Service::Tenants, Fault::Status(500));
    for n in 0..20 {
        sender
            .send(unknown.message(payload::text("2222222222", &n.to_string())))
            .await;
    }
    sender
        .send(known.message(payload::text("1111111111", "1")))
        .await;
    let seen = events.wait_for(2, SOON).await;
    assert!(
        seen.iter()
            .all(|e| e.text("/channel/businessAccountId") == known.waba_id)
    );
    stage.neighbours.set_fault(Service::Tenants, Fault::None);
    let seen = events.wait_for(22, SOON).await;
    let texts = &crate::first_texts(&seen)["2222222222"];
    assert_eq!(*texts, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// An account in a partition, whose worker dies of each image, and one beside it that is well.
struct Neighbourhood {
    poisoned: Number,
    well: Number,
    body: bytes::Bytes,
    /// Of the image: the Graph API never answers for it, so it stays in work.
    media_id: String,
}

impl Neighbourhood {
    fn new(stage: &Stage, is_partition: impl Fn(u16) -> bool) -> Self {
        let keys = shared::keys::Keys::new("whatsapp", 16);
        let partition_of = |number: &Number| keys.partition_of(&number.waba_id);
        let number = |wanted: &dyn Fn(u16) -> bool| loop {
            let number = Number::fresh();
            if wanted(partition_of(&number)) {
                break number;
            }
        };
        let poisoned = number(&is_partition);
        let media_id = rand::random_range(1_000_000_000_u64..9_000_000_000).to_string();
        let hang = Turn::Fault(Fault::Hang);
        stage.neighbours.always(Service::Graph, &media_id, hang);
        Self {
            well: number(&|partition| partition == partition_of(&poisoned)),
            body: poisoned.message(payload::image("1111111111", &media_id)),
            poisoned,
            media_id,
        }
    }

    /// How often workers had the image in work, at least.
    fn asked(&self, stage: &Stage) -> usize {
        let asked = stage.neighbours.received(Service::Graph).into_iter();
        asked
            .filter(|asked| asked.path.contains(&self.media_id))
            .count()
    }
}

/// Every crash before the third makes suspects of all that is in work; a suspect is in work alone, and
/// five deaths then are enough.
#[tokio::test]
async fn entries_of_two_partitions_that_kill_every_worker_are_set_aside() {
    const CRASHES: usize = 3 + 5;
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().env("LEASE_TTL", "1s");
    let mut worker = worker.env("MEDIA_DEADLINE", "10m").start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    let one = Neighbourhood::new(&stage, |_| true);
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&one.poisoned.waba_id);
    let other = Neighbourhood::new(&stage, |own| own != partition);
    let both = [one, other];
    for place in &both {
        sender.send(place.body.clone()).await;
    }
    let mut asked = [0; 2];
    for crash in 0..CRASHES {
        eventually(SOON, "both are in work", async || {
            let now = [0, 1].map(|n| both[n].asked(&stage));
            (now[0] > asked[0] && now[1] > asked[1]).then(|| asked = now)
        })
        .await;
        for place in &both {
            let text = payload::text("2222222222", &crash.to_string());
            sender.send(place.well.message(text)).await;
        }
        worker.kill();
        asked = [0, 1].map(|n| both[n].asked(&stage));
        worker.restart().await;
    }
    let all = |seen: &[Event]| seen.len() - repeats(seen) == 2 * CRASHES;
    let seen = events.wait_until(SOON, all).await;
    drained(&stage).await;
    let expected: Vec<_> = (0..CRASHES).map(|n| n.to_string()).collect();
    for place in &both {
        let folder = format!("failed/tenant-{}/", place.poisoned.waba_id);
        let object = only_object(&stage, &folder).await;
        assert_eq!(object.bytes, place.body);
        assert_eq!(object.metadata["reason"], "crashes");
        assert_eq!(object.metadata["items"], "0");
        assert_eq!(object.metadata["attempts"], "5");
        let own = seen
            .iter()
            .filter(|event| event.text("/channel/businessAccountId") == place.well.waba_id);
        let own: Vec<_> = own.cloned().collect();
        assert_eq!(crate::first_texts(&own)["2222222222"], expected);
    }
    let failed = stage.webhooks().list("failed/").await.expect("a list");
    assert_eq!(failed.len(), 2, "{failed:?}");
}
