//! What can't be an event is set aside, whole, and hurts nobody else.

use redis::AsyncCommands;
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Service, Tenant};
use tests::waiting::eventually;

use crate::{SOON, drained};

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

#[tokio::test]
async fn an_entry_that_kept_taking_workers_with_it_is_set_aside() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    let ingress = stage.ingress().start().await;
    let body = number.message(payload::text("1111111111", "poison"));
    stage.sender(&ingress).send(body.clone()).await;
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let key = |what| format!("whatsapp:{{{partition}}}:{what}");
    let mut redis = stage.redis.connection().await;
    // As if five workers had died while they had this entry in work alone.
    let reply: redis::streams::StreamRangeReply =
        redis.xrange_all(key("stream")).await.expect("XRANGE");
    let id = &reply.ids[0].id;
    redis
        .xgroup_create::<_, _, _, ()>(key("stream"), "workers", "0")
        .await
        .expect("XGROUP");
    redis
        .hset::<_, _, _, ()>(key("suspects"), id, 3)
        .await
        .expect("HSET");
    redis
        .hset::<_, _, _, ()>(key("deaths"), id, "a,b,c,d,e,")
        .await
        .expect("HSET");
    let _worker = stage.worker().start().await;
    let folder = format!("failed/tenant-{}/", number.waba_id);
    let object = only_object(&stage, &folder).await;
    assert_eq!(object.bytes, body);
    assert_eq!(object.metadata["reason"], "crashes");
    assert_eq!(object.metadata["items"], "0");
    assert_eq!(object.metadata["attempts"], "5");
    drained(&stage).await;
}
