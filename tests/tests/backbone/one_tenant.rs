//! What goes wrong for one tenant stays with that tenant.

use std::time::Duration;

use serde_json::json;
use tests::Stage;
use tests::events::Event;
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Service, Tenant};
use tests::programs::Worker;
use tests::waiting::eventually;

use crate::{SOON, drained};

const ADMIN: &str = "admin-token";
/// An answer that can't be used is waited out this long before anything is set aside.
const UNUSABLE_PATIENCE: Duration = Duration::from_secs(30);

async fn invalidate(worker: &Worker, number: &Number) {
    let path = format!("/tenants/{}/invalidate", number.waba_id);
    let (status, body) = worker.post(&path, Some(ADMIN)).await.expect("an answer");
    assert_eq!(status, 200, "{body}");
}

fn of<'a>(events: &'a [Event], number: &Number) -> Vec<&'a Event> {
    let of = |event: &&Event| event.text("/channel/businessAccountId") == number.waba_id;
    events.iter().filter(of).collect()
}

#[tokio::test]
async fn an_answer_that_stays_unusable_sets_aside_and_a_usable_one_brings_back() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    let of_another = json!({"tenantId": "t", "businessAccountId": "1"});
    stage
        .neighbours
        .set_tenant(&number.waba_id, Tenant::Custom(of_another));
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().env("WORKER_ADMIN_TOKEN", ADMIN);
    let worker = worker.start().await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    for text in ["a", "b"] {
        sender
            .send(number.message(payload::text("1111111111", text)))
            .await;
    }
    let failed = async || stage.webhooks().list("failed/").await.expect("a list");
    eventually(UNUSABLE_PATIENCE + SOON, "both are set aside", async || {
        (failed().await.len() == 2).then_some(())
    })
    .await;
    for key in failed().await {
        let folder = format!("failed/_unresolved/{}/", number.waba_id);
        assert!(key.starts_with(&folder), "{key}");
        let object = stage.webhooks().object(&key).await.expect("the store");
        let object = object.expect("the object");
        assert_eq!(object.metadata["reason"], "tenant_unusable");
    }
    drained(&stage).await;
    stage.neighbours.set_tenant(&number.waba_id, Tenant::Active);
    invalidate(&worker, &number).await;
    let seen = events.wait_for(2, SOON).await;
    assert_eq!(of(&seen, &number).len(), 2);
    drained(&stage).await;
    assert_eq!(failed().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_state_manager_that_fails_for_one_tenant_serves_the_others() {
    let stage = Stage::new().await;
    let (bad, well) = (Number::fresh(), Number::fresh());
    let ingress = stage.ingress().env("STREAM_PARTITIONS", 1).start().await;
    let worker = stage.worker().env("STREAM_PARTITIONS", 1);
    let worker = worker.env("STATE_MANAGER_URL", stage.neighbours.url());
    let _worker = worker.start().await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let tenant = format!("tenant-{}", bad.waba_id);
    stage
        .neighbours
        .set_fault_about(Service::State, &tenant, Fault::Status(500));
    for n in 0..100 {
        sender
            .send(bad.message(payload::text(&format!("1{n}"), "a")))
            .await;
    }
    for n in 0..20 {
        sender
            .send(well.message(payload::text(&format!("2{n}"), "a")))
            .await;
    }
    let seen = events.wait_for(120, SOON).await;
    let degraded = |event: &&Event| event.payload["degraded"] != json!([]);
    assert_eq!(of(&seen, &bad).into_iter().filter(degraded).count(), 100);
    assert_eq!(of(&seen, &well).into_iter().filter(degraded).count(), 0);
    let told = async || {
        let taken = stage.neighbours.state_taken();
        let of_well = format!("tenant-{}", well.waba_id);
        let of_well = taken.iter().filter(|told| told["tenantId"] == of_well);
        (of_well.count() == 20).then_some(())
    };
    eventually(SOON, "it is told of the others' messages", told).await;
    stage
        .neighbours
        .set_fault_about(Service::State, &tenant, Fault::None);
    drained(&stage).await;
}

#[tokio::test]
async fn a_graph_api_that_fails_for_one_token_serves_the_others() {
    let stage = Stage::new().await;
    let (bad, well) = (Number::fresh(), Number::fresh());
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().start().await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let token = format!("token-{}", bad.waba_id);
    stage
        .neighbours
        .set_fault_about(Service::Graph, &token, Fault::Status(500));
    for n in 0..10 {
        sender
            .send(bad.message(payload::image("1", &format!("77700{n}"))))
            .await;
    }
    let refused = async || {
        let refused = worker
            .metric(
                "neighbour_attempts_total",
                "neighbour=\"graph\",outcome=\"breaker_open\"",
            )
            .await;
        let seen = events.all();
        (refused > 0.0 || of(&seen, &bad).len() == 10).then_some(())
    };
    eventually(SOON, "it is left alone for one", refused).await;
    for n in 0..5 {
        sender
            .send(well.message(payload::image("2", &format!("88800{n}"))))
            .await;
    }
    let seen = events.wait_for(15, SOON).await;
    for event in of(&seen, &well) {
        assert_eq!(event.text("/message/media/status"), "stored");
    }
    for event in of(&seen, &bad) {
        assert_eq!(event.text("/message/media/status"), "pending");
    }
}
