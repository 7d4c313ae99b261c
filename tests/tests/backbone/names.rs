//! Servers are found by name each time, since their addresses change.

use std::net::{Ipv4Addr, SocketAddr};

use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::preload::Preload;
use tests::programs::Until;
use tests::proxy::Proxy;
use tests::waiting::eventually;

use crate::{SOON, drained, ready};

#[tokio::test]
async fn a_name_without_an_address_is_waited_for_and_a_new_address_is_found() {
    let stage = Stage::new().await;
    let names = Preload::build("names").expect("a library");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("moving.test");
    let point_to = |address: &str| std::fs::write(&file, address).expect("a file");
    let moving = |url: &str| {
        let mut url = url::Url::parse(url).expect("a URL");
        url.set_host(Some("moving.test")).expect("a host");
        (url.to_string(), url.port().expect("a port"))
    };
    let (redis, redis_port) = moving(&stage.redis_url());
    let (amqp, amqp_port) = moving(&stage.amqp_url);
    let (s3, s3_port) = moving(&stage.s3.endpoint);
    let (tenants, tenants_port) = moving(&stage.neighbours.url());
    // Where they are at first.
    let mut old = Vec::new();
    for port in [redis_port, amqp_port, s3_port, tenants_port] {
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port));
        let proxy = Proxy::start_at(address, format!("127.0.0.1:{port}")).await;
        old.push(proxy.expect("a proxy"));
    }

    point_to("");
    let ingress = stage
        .ingress()
        .env("LD_PRELOAD", names.path())
        .env("NAMES", file.display())
        .env("REDIS_URL", &redis)
        .until(Until::Healthy);
    let worker = stage
        .worker()
        .env("LD_PRELOAD", names.path())
        .env("NAMES", file.display())
        .env("REDIS_URL", &redis)
        .env("AMQP_URL", &amqp)
        .env("MINIO_ENDPOINT", &s3)
        .env("TENANT_SERVICE_URL", &tenants)
        .until(Until::Healthy);
    let (ingress, worker) = (ingress.start().await, worker.start().await);
    let (sender, events, number) = (stage.sender(&ingress), stage.events(), Number::fresh());
    let text = |text: &str| number.message(payload::text("1111111111", text));
    let early = sender.post_once(text("early")).await.expect("an answer");
    assert_eq!(early.status, 503);
    let archived = async |count| {
        eventually(SOON, "raw payloads", async || {
            (stage.webhooks().list("").await.ok()?.len() == count).then_some(())
        })
        .await;
    };
    point_to("127.0.0.2");
    sender.send_like_meta(text("first")).await;
    events.wait_for(1, SOON).await;
    archived(1).await;
    drop(old);
    point_to("127.0.0.1");
    let other = Number::fresh();
    for body in [
        text("second"),
        other.message(payload::text("2222222222", "third")),
    ] {
        sender.send_like_meta(body).await;
    }
    events.wait_for(3, SOON).await;
    archived(3).await;
    drained(&stage).await;
    ready(&worker).await;
}
