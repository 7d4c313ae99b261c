//! The metrics as a real Prometheus reads them, and as they are written down.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::programs::Program;
use tests::servers::Prometheus;
use tests::waiting::eventually;

use crate::SOON;
use crate::documents::assert_written;

/// One metric as `/metrics` has it.
#[derive(Debug)]
struct Metric {
    name: String,
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    is_empty: bool,
}

async fn metrics(program: &Program) -> Vec<Metric> {
    let (_, text) = program.get("/metrics").await.expect("/metrics");
    assert!(text.ends_with("# EOF\n"), "OpenMetrics ends with a mark");
    let mut metrics: Vec<Metric> = Vec::new();
    let mut help = "";
    for line in text.lines() {
        if let Some((_, said)) = line
            .strip_prefix("# HELP ")
            .and_then(|it| it.split_once(' '))
        {
            help = said;
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|it| it.split_once(' '))
        {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            metrics.push(Metric {
                name: format!("{name}{suffix}"),
                kind: kind.to_owned(),
                help: help.to_owned(),
                labels: BTreeSet::new(),
                is_empty: true,
            });
        } else if let Some(metric) = metrics.last_mut().filter(|_| !line.starts_with('#')) {
            metric.is_empty = false;
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.split_once('}'));
            let labels = labels.map_or("", |(labels, _)| labels).split("\",");
            let names = labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            metric.labels.extend(names.filter(|name| name != "le"));
        }
    }
    metrics
}

/// The names that this service was asked for; every other one of its own says whose it is.
const ASKED_FOR: [&str; 9] = [
    "webhook_received_total",
    "webhook_processing_duration_seconds",
    "media_download_duration_seconds",
    "media_download_size_bytes",
    "minio_upload_duration_seconds",
    "rabbitmq_publish_total",
    "rabbitmq_publish_failures_total",
    "cache_hit_total",
    "cache_miss_total",
];

fn named_rightly(metrics: &[Metric]) {
    for Metric {
        name, kind, help, ..
    } in metrics
    {
        let ours = name.starts_with("whatsapp_") || name.starts_with("process_");
        assert!(
            ours || ASKED_FOR.contains(&name.as_str()),
            "{name} is nobody's"
        );
        assert!(help.ends_with('.'), "{name} is not described: {help:?}");
        let timed = kind == "histogram" && !name.ends_with("_bytes");
        assert!(!timed || name.ends_with("_seconds"), "{name} has no unit");
    }
}

fn table(metrics: &[Metric]) -> String {
    let mut table = "| metric | type | labels | what |\n| --- | --- | --- | --- |\n".to_owned();
    for metric in metrics {
        let labels: Vec<_> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
        let (name, kind, labels) = (&metric.name, &metric.kind, labels.join(", "));
        table += &format!("| `{name}` | {kind} | {labels} | {} |\n", metric.help);
    }
    table
}

/// A text of somebody whose phone number Meta withholds.
fn without_phone() -> Value {
    let mut text = payload::text("16505551234", "hello");
    let members = text.as_object_mut().expect("an object");
    members.remove("from");
    members.insert("from_user_id".to_owned(), "US.13491208655302741918".into());
    text
}

#[tokio::test]
async fn a_message_is_priced_once_and_a_sender_without_phone_is_counted() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let (sender, number) = (stage.sender(&ingress), Number::fresh());
    let status = |wamid: &str, status: &str, pricing: Value| {
        let mut item = payload::status(wamid, status, "16505551234");
        item["pricing"] = pricing;
        number.status(item)
    };
    let service =
        json!({"billable": true, "pricing_model": "PMP", "type": "regular", "category": "service"});
    let odd = json!({"pricing_model": "PMP", "type": "a stranger's", "category": "authentication-international"});
    let bodies = [
        status("wamid.a", "sent", service.clone()),
        status("wamid.a", "delivered", service.clone()),
        status("wamid.a", "read", service.clone()),
        status("wamid.b", "delivered", service),
        status("wamid.c", "sent", odd),
        status("wamid.d", "sent", json!({})),
        status("wamid.e", "failed", Value::Null),
        number.message(payload::text("16505551234", "hello")),
        number.message(without_phone()),
    ];
    for body in &bodies {
        sender.send(body.clone()).await;
    }
    stage.events().wait_for(bodies.len(), SOON).await;
    crate::drained(&stage).await;
    let priced = "whatsapp_messages_priced_total";
    let tenant = format!("tenant=\"tenant-{}\"", number.waba_id);
    for (labels, expected) in [
        (r#"category="service",type="regular",billable="true""#, 2.0),
        (
            r#"category="authentication_international",type="other",billable="none""#,
            1.0,
        ),
        ("", 3.0),
    ] {
        let labels = format!("{tenant},{labels}");
        let labels = labels.trim_end_matches(',');
        let counted = worker.metric(priced, labels).await;
        assert!((counted - expected).abs() < 0.1, "{labels}: {counted}");
    }
    let without = worker.metric("whatsapp_senders_without_phone_total", &tenant);
    assert!((without.await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_real_prometheus_reads_all_that_is_written_down() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let worker = stage
        .worker()
        .env("STATE_MANAGER_URL", stage.neighbours.url())
        // However slow the store: an image that is late has a second event.
        .env("MEDIA_DEADLINE", "60s");
    let worker = worker.start().await;
    let targets = [("ingress", ingress.admin()), ("worker", worker.admin())];
    let prometheus = Prometheus::start(&targets, &[]).await.expect("Prometheus");
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let bodies = [
        number.message(payload::text("16505551234", "hello")),
        number.message(payload::image("16505551234", "12345")),
        number.status(payload::status("wamid.out", "delivered", "16505551234")),
        number.message(payload::unknown("16505551234")),
        number.message(without_phone()),
    ];
    for body in &bodies {
        sender.send(body.clone()).await;
    }
    sender.send(bodies[0].clone()).await;
    let forger = tests::meta::Sender::new(ingress.webhook_url(), "another secret");
    let refused = forger
        .post_once(bodies[0].clone())
        .await
        .expect("an answer");
    assert_eq!(refused.status, 401);
    events.wait_for(bodies.len(), SOON).await;
    crate::drained(&stage).await;

    figures_are_right(&prometheus, &format!("tenant-{}", number.waba_id)).await;
    let metrics = [
        ("ingress", metrics(&ingress).await),
        ("worker", metrics(&worker).await),
    ];
    for (_, metrics) in &metrics {
        named_rightly(metrics);
        each_is_scraped(&prometheus, metrics).await;
    }
    assert_written("docs/metrics.md", &document(&metrics));
}

/// Of what was sent: five items published, one of them twice, and one body that nobody signed.
async fn figures_are_right(prometheus: &Prometheus, tenant: &str) {
    let one = |query: String| (query, 1.0);
    let of = |kind, status| {
        let labels = format!("tenant=\"{tenant}\",message_type=\"{kind}\",status=\"{status}\"");
        one(format!("webhook_received_total{{{labels}}}"))
    };
    for (query, expected) in [
        (
            format!("webhook_received_total{{tenant=\"{tenant}\",message_type=\"text\"}}"),
            2.0,
        ),
        of("image", "published"),
        of("status", "published"),
        of("unknown", "published"),
        ("rabbitmq_publish_total{status=\"confirmed\"}".into(), 5.0),
        ("rabbitmq_publish_failures_total".into(), 0.0),
        ("media_download_size_bytes_count".into(), 1.0),
        ("media_download_duration_seconds_count".into(), 1.0),
        (
            // A slow one is begun a second time.
            "clamp_max(minio_upload_duration_seconds_count{object=\"payload\"}, 5)".into(),
            5.0,
        ),
        ("webhook_processing_duration_seconds_count".into(), 5.0),
        ("whatsapp_webhook_delay_seconds_count".into(), 5.0),
        ("sum(whatsapp_partition_owned)".into(), 16.0),
        (
            "sum(whatsapp_stream_length) + sum(whatsapp_owed_length)".into(),
            0.0,
        ),
        ("sum(whatsapp_server_up{job=\"worker\"})".into(), 3.0),
        ("whatsapp_partitions".into(), 16.0),
        ("count(whatsapp_ingress_stream_length)".into(), 16.0),
        ("count(whatsapp_queue_consumers)".into(), 3.0),
        ("sum(whatsapp_dead_letters)".into(), 0.0),
        ("sum(whatsapp_redis_unsafe)".into(), 0.0),
        ("count(whatsapp_build_info)".into(), 2.0),
        ("count(process_start_time_seconds)".into(), 2.0),
        ("whatsapp_breaker_state{neighbour=\"graph\"}".into(), 0.0),
        ("whatsapp_ingress_requests_total{code=\"200\"}".into(), 6.0),
        ("whatsapp_ingress_requests_total{code=\"401\"}".into(), 1.0),
        ("whatsapp_ingress_dedup_hits_total".into(), 1.0),
        (
            "whatsapp_ingress_request_duration_seconds_count".into(),
            6.0,
        ),
        ("whatsapp_ingress_own_duration_seconds_count".into(), 6.0),
    ] {
        eventually(SOON, &query, async || {
            let series = prometheus.query(&query).await.expect("an answer");
            let value = series.first()?.value;
            ((value - expected).abs() < 0.1).then_some(())
        })
        .await;
    }
}

async fn each_is_scraped(prometheus: &Prometheus, metrics: &[Metric]) {
    let empty: Vec<_> = metrics.iter().filter(|metric| metric.is_empty).collect();
    assert!(empty.is_empty(), "these have no series yet: {empty:?}");
    for metric in metrics {
        let name = match metric.kind.as_str() {
            "histogram" => format!("{}_count", metric.name),
            _ => metric.name.clone(),
        };
        eventually(SOON, &format!("{name} in a scrape"), async || {
            let series = prometheus.query(&name).await.expect("an answer");
            (!series.is_empty()).then_some(())
        })
        .await;
    }
}

fn document(programs: &[(&str, Vec<Metric>)]) -> String {
    let mut written =
        "# Metrics\n\nOn `/metrics` of the admin ports, as OpenMetrics. A test writes this file from what the programs say.\n"
            .to_owned();
    for (name, metrics) in programs {
        written += &format!("\n## {name}\n\n{}", table(metrics));
    }
    written += "\n`webhook_received_total` counts items: `status` is `published`, or why the item was set aside; \
        `message_type` is the type of a message, or `status`, `call`, `account`; `tenant` is its id, `other` for \
        those beyond the first 500 that a worker sees, `none` for what has none.\n\n\
        `whatsapp_messages_priced_total` counts a message once, at the first status with a price that a worker sees. A \
        worker remembers the last 28672 to 57344 messages of each partition; after a restart, a takeover, or so many messages, a status \
        that tells the price again counts again. `category` and `type` are Meta's words, `other` for those that aren't known here, `none` \
        where it says none. [events.md](events.md#what-a-message-costs) says how to count exactly.\n";
    written
}
