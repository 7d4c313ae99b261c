//! A short run of what `deploy/local/chaos.sh` does for long.

use tests::chaos::{Plan, run};
use tests::output::Paint;

/// In this run a worker, ingress, Redis, RabbitMQ and the store are killed, and connections cut.
const SEED: u64 = 325;

#[allow(
    clippy::print_stdout,
    reason = "the report, for people who run with --nocapture or see it fail"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_minute_of_faults_breaks_no_promise() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        minutes: 0.45,
        seed: Some(SEED),
        ingress: 2,
        workers: 3,
        redis_nodes: 1,
        rabbitmq_nodes: 1,
        rate: 60.0,
        accounts: 16,
        calm: false,
        folder: Some(folder.path().to_owned()),
    };
    let report = run(&plan, |line| println!("{line}")).await;
    let report = report.expect("everything came back");
    println!("{}", report.text(Paint::stdout()));
    if !report.is_good() {
        // The history stays for whoever has to find out.
        panic!("see above, and {}", folder.keep().display());
    }
    assert!(report.findings.published > 300, "it was a run at all");
}
