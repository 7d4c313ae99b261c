//! The way of a text from Meta's post to the event on the queue, archive included, at a rate that one
//! instance is asked for.

use std::time::Duration;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::figures::{Figures, Goal};
use super::load::{self, Rate, Report};
use super::machine;
use super::wire::{Requests, Shape};
use crate::Stage;
use crate::events::Event;
use crate::programs::APP_SECRET;

const PER_SECOND: f64 = 500.0;
const SOON: Duration = Duration::from_secs(60);

/// One run.
///
/// # Errors
/// Something can't be started, isn't answered 200, or doesn't come out.
pub async fn run(figures: &mut Figures, time: Duration) -> anyhow::Result<()> {
    let stage = Stage::new().await;
    let mut ingress = stage
        .ingress()
        .env("RATE_LIMIT_PER_MINUTE", 1_000_000)
        .env("LOG_LEVEL", "warn")
        .try_start()
        .await?;
    let worker = stage.worker().env("LOG_LEVEL", "warn");
    let mut worker = worker.try_start().await?;
    let events = stage.events();
    let requests = Requests::new(
        ingress.address(),
        "/webhook/meta",
        APP_SECRET,
        Shape::default(),
    );
    // Tenants, connections and code are warm then.
    send(
        ingress.address(),
        &requests,
        1_000_000,
        Duration::from_secs(2),
    )
    .await?;
    let warm = (PER_SECOND * 2.0) as usize;
    events.wait_for(warm, SOON).await;
    super::tell("500 texts a second, from the post to the queue");
    let report = send(ingress.address(), &requests, 0, time).await?;
    let total = report.total() as usize;
    ensure!(
        report.of(200) == report.total(),
        "answered {:?}",
        report.answers
    );
    let events = events.wait_for(warm + total, SOON).await;
    let start = report.start.context("a start")?;
    let times = times(&events, start)?;
    let ms = |share| times.value_at_quantile(share) as f64 / 1e3;
    let mut add = |name: &str, goal, value| figures.add(name, "ms", goal, value);
    add("webhook to event at 500/s, median", Goal::None, ms(0.5));
    add(
        "webhook to event at 500/s, p99",
        Goal::AtMost(50.0),
        ms(0.99),
    );
    add("webhook to event at 500/s, p99.9", Goal::None, ms(0.999));
    let answer = |share| report.quantile_ms(200, share);
    add("answer at 500/s, median", Goal::None, answer(0.5));
    add("answer at 500/s, p99", Goal::AtMost(5.0), answer(0.99));
    add("answer at 500/s, p99.9", Goal::AtMost(20.0), answer(0.999));
    let hits = worker.metric("cache_hit_total", "cache=\"tenant\"").await;
    let misses = worker.metric("cache_miss_total", "cache=\"tenant\"").await;
    figures.add(
        "tenants found in the cache",
        "%",
        Goal::AtLeast(99.0),
        100.0 * hits / (hits + misses).max(1.0),
    );
    let memory = [
        (
            "memory of ingress",
            machine::memory_mb(ingress.process().id())?,
        ),
        (
            "memory of the worker",
            machine::memory_mb(worker.process().id())?,
        ),
    ];
    for (name, mb) in memory {
        figures.add(format!("{name} at 500/s"), "MB", Goal::None, mb);
    }
    Ok(())
}

async fn send(
    address: &str,
    requests: &Requests,
    first: u64,
    time: Duration,
) -> anyhow::Result<Report> {
    let (address, requests) = (address.to_owned(), requests.clone());
    let rate = Rate {
        first,
        per_second: PER_SECOND,
        time,
        most_connections: 500,
    };
    let sending =
        tokio::task::spawn_blocking(move || load::open(&address, &requests, rate, |_, _| {}));
    Ok(sending.await?)
}

/// In µs, from the moment that each request was meant for.
fn times(events: &[Event], start: Instant) -> anyhow::Result<Histogram<u64>> {
    let mut times = Histogram::new(3)?;
    for event in events {
        let id = event.wamid();
        let end = id.get(id.len().saturating_sub(16)..).unwrap_or_default();
        let n: u64 = end.parse()?;
        if n < 1_000_000 {
            let moment = start + Duration::from_secs_f64(n as f64 / PER_SECOND);
            times.record((event.at - moment).as_micros() as u64)?;
        }
    }
    Ok(times)
}
