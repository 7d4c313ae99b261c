//! One webhook is one trace, from ingress to the event.

use std::collections::HashMap;

use tests::Stage;
use tests::collector::{Collector, Span};
use tests::events::Event;
use tests::meta::payload::{self, Number};
use tests::meta::sender::{SIGNATURE, sign};
use tests::neighbours::Service;
use tests::waiting::eventually;

use crate::SOON;

fn traceparent(event: &Event) -> Vec<&str> {
    event.headers["traceparent"].split('-').collect()
}

#[tokio::test]
async fn one_webhook_with_an_image_is_one_trace() {
    let stage = Stage::new().await;
    let collector = Collector::start().await.expect("a collector");
    let ingress = stage
        .ingress()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    let ingress = ingress.env("OTEL_BSP_SCHEDULE_DELAY", 100).start().await;
    let worker = stage
        .worker()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    let worker = worker.env("OTEL_BSP_SCHEDULE_DELAY", 100).start().await;
    let events = stage.events();
    let number = Number::fresh();
    let body = number.message(payload::image("16505551234", "12345"));
    let sent = stage.sender(&ingress).post_once(body).await;
    let sent = sent.expect("an answer");
    let seen = events.wait_for(1, SOON).await;
    let parts = traceparent(&seen[0]);
    let (trace_id, publish_id) = (parts[1], parts[2]);

    let wanted = [
        ("ingress", "webhook"),
        ("worker", "delivery"),
        ("worker", "item"),
        ("worker", "media"),
        ("worker", "graph"),
        ("worker", "download"),
        ("worker", "minio put"),
        ("worker", "publish"),
    ];
    let spans: Vec<Span> = eventually(SOON, "all spans of the trace", async || {
        let spans = collector.spans();
        let spans = spans.into_iter().filter(|span| span.trace_id == trace_id);
        let spans: Vec<Span> = spans.collect();
        let has = |(service, name): &(&str, &str)| {
            spans
                .iter()
                .any(|span| span.service == *service && span.name == *name)
        };
        wanted.iter().all(has).then_some(spans)
    })
    .await;
    let by_id: HashMap<&str, &Span> = spans.iter().map(|span| (&*span.span_id, span)).collect();
    let publish = by_id[publish_id];
    assert_eq!(
        (&*publish.name, &*by_id[&*publish.parent_id].name),
        ("publish", "item")
    );
    for span in &spans {
        let mut first = span;
        while let Some(parent) = by_id.get(&*first.parent_id) {
            first = parent;
        }
        assert_eq!(first.name, "webhook", "the root of {}", span.name);
    }
    let asked = stage.neighbours.received(Service::Graph);
    let graph = asked.iter().find(|asked| asked.path.contains("12345"));
    let header = &graph.expect("the media was asked for").headers["traceparent"];
    let asked_by = header.split('-').nth(2).unwrap_or_default();
    assert_eq!(by_id[asked_by].name, "graph");
    let delivery = spans.iter().find(|span| span.name == "delivery");
    let correlation_id = delivery.map(|span| &span.attributes["correlation_id"]);
    let expected = sent.header("x-correlation-id");
    assert_eq!(correlation_id.map(String::as_str), Some(expected));
    assert_eq!(
        worker.private_parts(&format!("{:?}", collector.spans())),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_collector_that_is_away_hurts_nobody_and_a_caller_s_trace_goes_on() {
    let stage = Stage::new().await;
    let nobody = format!("http://127.0.0.1:{}", tests::ports::free());
    let ingress = stage.ingress().env("OTEL_EXPORTER_OTLP_ENDPOINT", &nobody);
    let ingress = ingress.env("OTEL_BSP_SCHEDULE_DELAY", 100).start().await;
    let mut worker = stage.worker().start().await;
    let events = stage.events();
    let number = Number::fresh();
    let trace_id = uuid::Uuid::new_v4().simple().to_string();
    let sampled = format!("00-{trace_id}-b7ad6b7169203331-01");
    let unsampled = format!("00-{trace_id}-b7ad6b7169203331-00");
    for (n, traceparent) in [&sampled, &unsampled, "nonsense"].into_iter().enumerate() {
        let body = number.message(payload::text("16505551234", &n.to_string()));
        let signature = sign(tests::programs::APP_SECRET, &body);
        let headers = [(SIGNATURE, &*signature), ("traceparent", traceparent)];
        let sender = stage.sender(&ingress);
        let answer = sender.post_with(body, &headers).await.expect("an answer");
        assert_eq!(answer.status, 200);
    }
    let seen = events.wait_for(3, SOON).await;
    let parts: Vec<Vec<&str>> = seen.iter().map(traceparent).collect();
    assert_eq!((parts[0][1], parts[0][3]), (&*trace_id, "01"));
    assert_ne!(
        parts[0][2], "b7ad6b7169203331",
        "ingress has a span of its own"
    );
    assert_eq!(parts[1].join("-"), unsampled, "nobody records it");
    assert!(parts[2][1] != trace_id && parts[2].len() == 4, "{parts:?}");
    eventually(SOON, "a line about it", async || {
        ingress
            .log()
            .contains("spans can't be exported")
            .then_some(())
    })
    .await;
    assert!(worker.stop(SOON).await, "it ends by itself");
}

#[tokio::test]
async fn a_worker_exports_alone_what_no_caller_left_out() {
    let stage = Stage::new().await;
    let collector = Collector::start().await.expect("a collector");
    let ingress = stage.ingress().start().await;
    let worker = stage
        .worker()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    let _worker = worker.env("OTEL_BSP_SCHEDULE_DELAY", 100).start().await;
    let events = stage.events();
    let number = Number::fresh();
    let left_out = format!("00-{}-b7ad6b7169203331-00", uuid::Uuid::new_v4().simple());
    for traceparent in [Some(&*left_out), None] {
        let body = number.message(payload::text("16505551234", "hello"));
        let signature = sign(tests::programs::APP_SECRET, &body);
        let headers = [(SIGNATURE, &*signature)];
        let headers = headers
            .into_iter()
            .chain(traceparent.map(|it| ("traceparent", it)));
        let headers: Vec<_> = headers.collect();
        let sent = stage.sender(&ingress).post_with(body, &headers).await;
        assert_eq!(sent.expect("an answer").status, 200);
    }
    let seen = events.wait_for(2, SOON).await;
    let of = |event: &Event| traceparent(event)[1].to_owned();
    let (first, second) = (of(&seen[0]), of(&seen[1]));
    eventually(SOON, "the worker's spans", async || {
        let spans = collector.spans();
        let publish = |span: &Span| span.name == "publish" && span.trace_id == second;
        spans.iter().any(publish).then_some(())
    })
    .await;
    assert!(collector.spans().iter().all(|span| span.trace_id != first));
    assert!(left_out.contains(&first) && traceparent(&seen[0])[3] == "00");
}
