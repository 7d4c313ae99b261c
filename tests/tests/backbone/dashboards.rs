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

/// The panels of all dashboards: each dashboard's uid, the panel's number, its queries.
fn panels() -> Vec<(String, u64, Vec<String>)> {
    let folder = fs::read_dir(file("deploy/grafana/dashboards")).expect("dashboards");
    let mut panels = Vec::new();
    for dashboard in folder.flatten() {
        let dashboard: Value = serde_json::from_str(&read(&dashboard.path())).expect("JSON");
        let uid = dashboard["uid"].as_str().expect("a uid");
        for panel in dashboard["panels"].as_array().expect("panels") {
            let targets = panel["targets"].as_array().expect("targets");
            let queries = targets.iter().map(|target| target["expr"].as_str());
            let queries = queries.map(|query| query.expect("a query").to_owned());
            let id = panel["id"].as_u64().expect("a number");
            panels.push((uid.to_owned(), id, queries.collect()));
        }
    }
    panels
}

/// Every query of every dashboard, as Grafana sends it with everything chosen.
fn queries() -> Vec<String> {
    let queries = panels().into_iter().flat_map(|(.., queries)| queries);
    let chosen = ["$tenant", "$namespace", "$job"];
    queries
        .map(|query| {
            let query = query.replace("$__rate_interval", "1m");
            let all = |query: String, name: &&str| query.replace(*name, ".*");
            chosen.iter().fold(query, all)
        })
        .collect()
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

/// The names of metrics in an expression. A record of the rules (`whatsapp:…`) is none.
fn names(expression: &str) -> BTreeSet<String> {
    const BEGIN: [&str; 7] = [
        "whatsapp_",
        "webhook_",
        "rabbitmq_",
        "media_",
        "minio_",
        "cache_",
        "process_",
    ];
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
    let is_metric = |word: &&str| *word == "up" || BEGIN.iter().any(|it| word.starts_with(it));
    words.filter(is_metric).map(str::to_owned).collect()
}

#[test]
fn names_of_metrics_are_found_in_an_expression() {
    let expression = r#"sum by (kind) (whatsapp_owed_length{a="b_c"}) > 1 and max_over_time(up[5m]) > whatsapp:slow:rate5m"#;
    assert_eq!(
        names(expression),
        ["up", "whatsapp_owed_length"].map(str::to_owned).into()
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
    let alerts = prometheus.alert_queries().await.expect("the alerts");
    assert!(alerts.len() > 30, "only {} alerts", alerts.len());
    // What the records are made of stands in the rules' text alone.
    let rules = read(&rules);
    let records = rules.lines().filter(|line| line.contains("expr:"));
    asked.extend(records.flat_map(names));
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

/// Names of metrics and of records in an expression, without what a histogram adds.
fn subjects(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
    let records = words.filter(|word| word.starts_with("whatsapp:"));
    // A record has the same subject over every time.
    let records = records.filter_map(|word| word.rsplit_once(':'));
    let records = records.map(|(subject, _)| subject.to_owned());
    records.chain(names(expression)).collect()
}

#[test]
fn every_alert_leads_to_a_panel_that_shows_it() {
    let panels = panels();
    let rules = read(&file("deploy/prometheus/alerts.yaml"));
    let mut led = 0;
    for rule in rules.split("- alert: ").skip(1) {
        let line = |key: &str| rule.lines().find_map(|line| line.trim().strip_prefix(key));
        let name = rule.lines().next().expect("a name");
        if name == "Heartbeat" {
            continue;
        }
        let link = line("dashboard_url: ").unwrap_or_else(|| panic!("{name} has no link"));
        let (uid, id) = link
            .strip_prefix("/d/")
            .and_then(|link| link.split_once("?viewPanel="))
            .unwrap_or_else(|| panic!("{name}: {link}"));
        let panel = panels
            .iter()
            .find(|(of, number, _)| of == uid && number.to_string() == id);
        let (.., shown) = panel.unwrap_or_else(|| panic!("{name}: there is no {link}"));
        let shown: BTreeSet<_> = shown.iter().flat_map(|query| subjects(query)).collect();
        let asked = subjects(line("expr: ").expect("an expression"));
        assert!(
            asked.intersection(&shown).next().is_some(),
            "{name} asks for {asked:?}, and {link} shows {shown:?}"
        );
        led += 1;
    }
    assert!(led > 30, "only {led} alerts");
}
