//! The proxy that requests go out by: which do, and which never.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::programs::Until;
use tests::waiting::eventually;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::SOON;

/// An HTTP proxy that remembers where it was asked to connect to, and refuses.
#[derive(Clone)]
struct Gateway {
    url: String,
    asked: Arc<Mutex<BTreeSet<String>>>,
}

impl Gateway {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let gateway = Self {
            url,
            asked: Arc::default(),
        };
        let asked = gateway.asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                drop(stream.read_line(&mut line).await);
                let target = line.strip_prefix("CONNECT ").unwrap_or(&line);
                let target = target.split(' ').next().unwrap_or_default().to_owned();
                asked.lock().expect("no panic").insert(target);
                let refusal = b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n";
                drop(stream.write_all(refusal).await);
            }
        });
        gateway
    }

    fn asked(&self) -> BTreeSet<String> {
        self.asked.lock().expect("no panic").clone()
    }

    async fn was_asked(&self, target: &str) {
        eventually(SOON, &format!("{target} is asked for"), async || {
            self.asked().contains(target).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn every_client_goes_by_the_proxy_that_is_set() {
    let stage = Stage::new().await;
    let gateway = Gateway::start().await;
    let ingress = stage.ingress().start().await;
    let worker = |tenants: &str| {
        stage
            .worker()
            .env("HTTPS_PROXY", &gateway.url)
            .env("NO_PROXY", "direct.example")
            .env("GRAPH_BASE_URL", "https://graph.example")
            .env("MEDIA_ALLOWED_HOSTS", "media.example,direct.example")
            .env("STATE_MANAGER_URL", "https://state.example")
            .env("TENANT_SERVICE_URL", tenants)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://spans.example")
            .until(Until::Healthy)
    };
    // Its requests by http, and those to this machine, are answered.
    let running = worker(&stage.neighbours.url()).start().await;
    let number = Number::fresh();
    for (id, host) in [("41", "media.example"), ("42", "direct.example")] {
        let mut image = payload::image("15550001", id);
        image["image"]["url"] = format!("https://{host}/{id}").into();
        ingress.sender().send(number.message(image)).await;
    }
    for host in [
        "graph.example",
        "media.example",
        "state.example",
        "spans.example",
    ] {
        gateway.was_asked(&format!("{host}:443")).await;
    }
    drop(running);
    let away = worker("https://tenants.example");
    let away = away.env("MINIO_ENDPOINT", "https://store.example");
    let _away = away.start().await;
    ingress
        .sender()
        .send(Number::fresh().message(payload::text("15550001", "hi")))
        .await;
    gateway.was_asked("store.example:443").await;
    gateway.was_asked("tenants.example:443").await;
    let asked = gateway.asked();
    assert!(!asked.contains("direct.example:443"), "{asked:?}");
}

#[tokio::test]
async fn loopback_is_never_asked_for_by_the_proxy() {
    let stage = Stage::new().await;
    let gateway = Gateway::start().await;
    let ingress = stage.ingress().start().await;
    let direct = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = direct.local_addr().expect("an address");
    let worker = stage.worker().env("HTTPS_PROXY", &gateway.url);
    let worker = worker.env("TENANT_SERVICE_URL", format!("https://{address}"));
    let _worker = worker.start().await;
    ingress
        .sender()
        .send(Number::fresh().message(payload::text("15550001", "hi")))
        .await;
    let arrived = tokio::time::timeout(SOON, direct.accept()).await;
    arrived.expect("it comes directly").expect("a connection");
    assert_eq!(gateway.asked(), BTreeSet::new());
}
