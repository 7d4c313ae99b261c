//! `docs/openapi.yaml` is what the programs answer: Schemathesis makes requests of it, valid and not.

use std::path::PathBuf;

use tests::Stage;
use tests::programs::built;
use tokio::process::Command;

use crate::console::ConsoleClient;
use crate::operator::ADMIN;

/// Makes requests of the routes with this tag; the end of what was said, if something is not as it is written.
async fn drive(tag: &str, url: &str, further: &[&str]) -> Result<(), String> {
    let ingress = built("ingress").expect("the build's results");
    let results = ingress.ancestors().nth(2).expect("their folder");
    let schemathesis = results.join("checkers/bin/schemathesis");
    let document: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../docs/openapi.yaml"]
        .iter()
        .collect();
    let ran = Command::new(schemathesis)
        .args(["--no-color", "run", "--include-tag", tag, "--url", url])
        .args([
            "--max-examples",
            "20",
            "--seed",
            "1",
            "--generation-database",
            "none",
            "--request-timeout",
            "60",
        ])
        // What can't be read is kept, not refused.
        .args([
            "--exclude-checks",
            "negative_data_rejection,missing_required_header",
        ])
        .args(further)
        .arg(document)
        .current_dir(results)
        .kill_on_drop(true)
        .output()
        .await
        .expect("Schemathesis, which deploy/local/install.sh installs");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    if ran.status.success() {
        Ok(())
    } else {
        Err(said)
    }
}

#[tokio::test]
async fn the_routes_answer_as_they_are_described() {
    let stage = Stage::new().await;
    let ingress = stage
        .ingress()
        .without_env("META_APP_SECRETS")
        .env("ALLOW_UNSIGNED", true)
        .env("RATE_LIMIT_PER_MINUTE", 0)
        .env("META_VERIFY_TOKEN", "verify-token")
        .start();
    let worker = stage
        .worker()
        .env("WORKER_ADMIN_TOKEN", "admin-token")
        .start();
    let (ingress, worker) = tokio::join!(ingress, worker);
    let webhook = ingress.webhook_url();
    let public = webhook.trim_end_matches("/webhook/meta");
    let (ingress_admin, worker_admin) = (
        format!("http://{}", ingress.admin()),
        format!("http://{}", worker.admin()),
    );
    let token = ["--header", "Authorization: Bearer admin-token"];
    // Other methods on these are no routes.
    let guarded = [
        token.as_slice(),
        &["--exclude-checks", "unsupported_method,ignored_auth"],
    ]
    .concat();
    let driven = tokio::join!(
        drive("webhook", public, &[]),
        drive("probes", public, &[]),
        drive("admin", &ingress_admin, &[]),
        drive("admin", &worker_admin, &[]),
        drive("guarded", &worker_admin, &token),
        drive("worker", &worker_admin, &guarded),
    );
    let all = [driven.0, driven.1, driven.2, driven.3, driven.4, driven.5];
    let wrong: Vec<String> = all.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_consoles_routes_answer_as_they_are_described() {
    let stage = Stage::new().await;
    let worker = stage.worker().env("WORKER_ADMIN_TOKEN", ADMIN).start();
    let worker = worker.await;
    let url = format!("http://{}", worker.admin());
    let console = ConsoleClient::signed_in(&worker).await;
    let headers = console
        .headers()
        .map(|(name, value)| format!("{name}: {value}"));
    let mut signed_in = vec!["--exclude-checks"];
    // Well-formed words that mean nothing here are refused; other methods come to the session first.
    signed_in.push("positive_data_acceptance,negative_data_rejection,missing_required_header,unsupported_method,ignored_auth");
    for header in &headers {
        signed_in.extend(["--header", header]);
    }
    let refused = [
        "--exclude-checks",
        "positive_data_acceptance,negative_data_rejection",
    ];
    let driven = tokio::join!(
        drive("console", &url, &refused),
        drive("operator", &url, &signed_in),
    );
    let wrong: Vec<String> = [driven.0, driven.1]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
