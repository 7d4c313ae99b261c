//! Dashboards and alerts ask for what the programs say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::Stage;
use tests::meta::Sender;
use tests::meta::payload::{self, Number};
use tests::servers::Prometheus;
use tests::waiting::poll;

use crate::SOON;

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every query of every dashboard, as Grafana sends it with all tenants chosen.
fn queries() -> Vec<String> {
    let folder = fs::read_dir(file("deploy/grafana/dashboards")).expect("dashboards");
    let mut queries = Vec::new();
    for dashboard in folder.flatten() {
        let dashboard: Value = serde_json::from_str(&read(&dashboard.path())).expect("JSON");
        for panel in dashboard["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().expect("targets") {
                let query = target["expr"].as_str().expect("a query");
                let query = query.replace("$__rate_interval", "1m");
                queries.push(query.replace("$tenant", ".*"));
            }
        }
    }
    queries
}

/// What follows `key: ` in the rules, once for each alert.
fn of_each_alert(key: &str) -> Vec<String> {
    let rules = read(&file("deploy/prometheus/alerts.yaml"));
    let prefix = format!("{key}: ");
    let lines = rules
        .lines()
        .map(|line| line.trim().trim_start_matches("- "));
    lines
        .filter_map(|line| line.strip_prefix(&prefix))
        .map(str::to_owned)
        .collect()
}

/// The names of metrics in an expression: words that are no function, label or number.
fn names(expression: &str) -> BTreeSet<String> {
    let bare = without(&without(expression, "{", '}'), "by (", ')');
    let words = bare.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '('));
    words
        .filter_map(|word| word.rsplit('(').next())
        .filter(|name| name.contains('_') || ["up", "parked"].contains(name))
        .map(str::to_owned)
        .collect()
}

/// The text without what lies between `open` and `close`.
fn without(text: &str, open: &str, close: char) -> String {
    let mut parts = text.split(open);
    let first = parts.next().unwrap_or_default().to_owned();
    let rests = parts.filter_map(|part| part.split_once(close));
    rests.fold(first, |text, (_, rest)| text + " " + rest)
}

#[test]
fn names_of_metrics_are_found_in_an_expression() {
    let expression = r#"sum by (kind) (owed_length{a="b_c"}) > 1 and max_over_time(parked[5m])"#;
    assert_eq!(
        names(expression),
        ["owed_length", "parked"].map(str::to_owned).into()
    );
}

#[tokio::test]
async fn every_query_of_the_dashboards_returns_data_and_every_alert_has_its_metrics() {
    let stage = Stage::new().await;
    let (ingress, worker) = tokio::join!(
        stage.ingress().start(),
        stage
            .worker()
            .env("STATE_MANAGER_URL", stage.neighbours.url())
            .start()
    );
    let targets = [("ingress", ingress.admin()), ("worker", worker.admin())];
    let rules = file("deploy/prometheus/alerts.yaml");
    let prometheus = Prometheus::start(&targets, &[&rules])
        .await
        .expect("Prometheus with the alerts");
    prometheus.scraped().await.expect("both are scraped");

    let events = stage.events();
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let customer = "16505551234";
    let conversation = [
        number.message(payload::text(customer, "Does it come in another color?")),
        number.message(payload::image(customer, "1761991787669262")),
        number.status(payload::status("wamid.out", "delivered", customer)),
        number.message(payload::unknown(customer)),
    ];
    for body in &conversation {
        sender.send(body.clone()).await;
    }
    sender.send(conversation[0].clone()).await;
    let forger = Sender::new(ingress.webhook_url(), "another secret");
    let refused = forger.post_once(conversation[0].clone()).await;
    assert_eq!(refused.expect("an answer").status, 401);
    events.wait_for(conversation.len(), SOON).await;

    let mut asked = queries();
    assert!(
        asked.len() > 50,
        "the dashboards have {} queries",
        asked.len()
    );
    let alerts = of_each_alert("expr");
    asked.extend(alerts.iter().flat_map(|expression| names(expression)));
    poll(SOON, async || {
        let mut empty = Vec::new();
        for query in &asked {
            let series = prometheus.query(query).await.expect("an answer");
            if series.is_empty() {
                empty.push(query.clone());
            }
        }
        asked = empty;
        asked.is_empty().then_some(())
    })
    .await;
    assert!(asked.is_empty(), "these return nothing: {asked:#?}");
}

#[test]
fn every_alert_has_its_section_of_the_runbook() {
    let runbook = read(&file("docs/runbook.md"));
    let (alerts, urls) = (of_each_alert("alert"), of_each_alert("runbook_url"));
    assert_eq!(alerts.len(), urls.len());
    for (alert, url) in alerts.iter().zip(&urls) {
        let section = format!("\n### {alert}\n");
        assert!(
            runbook.contains(&section),
            "docs/runbook.md has no section {alert}"
        );
        assert_eq!(*url, format!("docs/runbook.md#{}", alert.to_lowercase()));
    }
}
