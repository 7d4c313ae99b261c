//! Dashboards and alerts ask for what the programs say.

use tests::servers::Prometheus;
use tests::stage::Stage;

#[tokio::test]
async fn prometheus_scrapes_both_programs() {
    let stage = Stage::new().await;
    let (ingress, worker) = tokio::join!(stage.ingress().start(), stage.worker().start());
    let targets = [("ingress", ingress.admin()), ("worker", worker.admin())];
    let prometheus = Prometheus::start(&targets, &[]).await.expect("Prometheus");
    prometheus.scraped().await.expect("both are scraped");
    let owned = prometheus
        .query("sum(partitions_owned)")
        .await
        .expect("a query");
    assert_eq!(owned.first().map(|series| series.value), Some(16.0));
}
