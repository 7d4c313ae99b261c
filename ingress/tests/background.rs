//! A background task that panics, in an ingress that runs in this process.

use std::time::Duration;

use clap::Parser;
use ingress::config::Config;
use ingress::server::{self, Listeners};
use tests::Stage;
use tests::panics::PanicsAt;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_background_task_that_panics_ends_ingress_with_its_name() {
    let stage = Stage::new().await;
    let config = Config::parse_from([
        "ingress",
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
        "--app-secrets=secret",
        "--threads=1",
        &format!("--redis-url={}", stage.redis_url()),
        &format!("--minio-endpoint={}", stage.s3.endpoint),
        &format!("--minio-access-key={}", stage.s3.access_key),
        &format!("--minio-secret-key={}", stage.s3.secret_key),
        &format!("--minio-region={}", stage.s3.region),
        &format!("--minio-webhook-bucket={}", stage.webhook_bucket),
    ]);
    // Of this thread, as all of its background tasks are.
    let _panics = tracing::subscriber::set_default(PanicsAt {
        field: "server",
        value: "spool",
    });
    let listeners = Listeners::bind(&config).await.expect("free ports");
    let running = server::run(config, listeners, CancellationToken::new());
    let ended = tokio::time::timeout(Duration::from_secs(30), running).await;
    let failed = ended.expect("it ends").expect_err("it failed");
    assert!(
        failed.to_string().contains("`probe of the object store`"),
        "{failed}"
    );
}
