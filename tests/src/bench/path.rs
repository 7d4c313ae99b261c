//! The way of a text from Meta's post to the event on the queue, archive included, at a rate that one
//! instance is asked for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;

use super::figures::{Figures, Goal};
use super::load::{self, Rate, Report};
use super::machine;
use super::wire::{Requests, Shape};
use crate::Stage;
use crate::events::Events;
use crate::programs::{APP_SECRET, Ingress, Worker};

const PER_SECOND: f64 = 500.0;
const SOON: Duration = Duration::from_secs(60);
/// The webhooks that warm up have numbers from here on, those of one a second from the next.
const WARM: u64 = 1_000_000;
const SINGLE: u64 = 2_000_000;

/// One run. `against`: a folder with another build's programs, measured at one webhook a second, too.
///
/// # Errors
/// Something can't be started, isn't answered 200, or doesn't come out.
pub async fn run(
    figures: &mut Figures,
    time: Duration,
    against: Option<&Path>,
) -> anyhow::Result<()> {
    let mut way = Way::new(None).await?;
    super::tell("500 texts a second, from the post to the queue");
    let (times, report) = way.times(0, PER_SECOND, time).await?;
    let mut add = |name: &str, goal, value| figures.add(name, "ms", goal, value);
    let ms = |share| times.value_at_quantile(share) as f64 / 1e3;
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
    way.tell(figures).await?;

    super::tell("one text a second");
    let (ours, theirs) = match against {
        None => (way.times(SINGLE, 1.0, time * 2).await?, None),
        Some(folder) => {
            let mut other = Way::new(Some(folder)).await?;
            // Both see the same noise.
            let (ours, theirs) = tokio::join!(
                way.times(SINGLE, 1.0, time * 2),
                other.times(SINGLE, 1.0, time * 2)
            );
            (ours?, Some(theirs?))
        }
    };
    let both = [("", Some(ours)), (", other build", theirs)];
    for (of, (times, _)) in both.into_iter().filter_map(|(of, it)| Some((of, it?))) {
        for (what, share) in [("median", 0.5), ("p99", 0.99)] {
            let name = format!("webhook to event at 1/s, {what}{of}");
            let ms = times.value_at_quantile(share) as f64 / 1e3;
            figures.add(name, "ms", Goal::None, ms);
        }
    }
    Ok(())
}

/// The two programs and their servers, warm.
struct Way {
    ingress: Ingress,
    worker: Worker,
    events: Events,
    requests: Requests,
    _stage: Stage,
}

impl Way {
    async fn new(programs: Option<&Path>) -> anyhow::Result<Self> {
        let stage = Stage::new().await;
        let mut ingress = stage
            .ingress()
            .env("RATE_LIMIT_PER_MINUTE", 1_000_000)
            .env("LOG_LEVEL", "warn");
        let mut worker = stage.worker().env("LOG_LEVEL", "warn");
        if let Some(folder) = programs {
            ingress = ingress.built_at(folder.join("ingress"));
            let healthy = crate::programs::Until::Healthy;
            worker = worker.built_at(folder.join("worker")).until(healthy);
        }
        let ingress = ingress.try_start().await?;
        let worker = worker.try_start().await?;
        let requests = Requests::new(
            ingress.address(),
            "/webhook/meta",
            APP_SECRET,
            Shape::default(),
        );
        let events = stage.events();
        let mut way = Self {
            ingress,
            worker,
            events,
            requests,
            _stage: stage,
        };
        // Tenants, connections and code are warm then.
        way.times(WARM, PER_SECOND, Duration::from_secs(2)).await?;
        Ok(way)
    }

    /// Posts texts with numbers from `first` on. In µs, from the moment that each was meant for.
    async fn times(
        &mut self,
        first: u64,
        per_second: f64,
        time: Duration,
    ) -> anyhow::Result<(Histogram<u64>, Report)> {
        let (address, requests) = (self.ingress.address().to_owned(), self.requests.clone());
        let rate = Rate {
            first,
            per_second,
            time,
            most_connections: 500,
        };
        let before = self.events.count();
        let sending =
            tokio::task::spawn_blocking(move || load::open(&address, &requests, rate, |_, _| {}));
        let report = sending.await?;
        ensure!(
            report.of(200) == report.total(),
            "answered {:?}",
            report.answers
        );
        let all = before + report.total() as usize;
        let events = self.events.wait_for(all, SOON).await;
        let start = report.start.context("a start")?;
        let mut times = Histogram::new(3)?;
        for event in &events[before..] {
            let id = event.wamid();
            let end = id.get(id.len().saturating_sub(16)..).unwrap_or_default();
            let n = end.parse::<u64>()? - first;
            let moment = start + Duration::from_secs_f64(n as f64 / per_second);
            times.record((event.at - moment).as_micros() as u64)?;
        }
        Ok((times, report))
    }

    async fn tell(&mut self, figures: &mut Figures) -> anyhow::Result<()> {
        let worker = &self.worker;
        let hits = worker.metric("cache_hit_total", "cache=\"tenant\"").await;
        let misses = worker.metric("cache_miss_total", "cache=\"tenant\"").await;
        figures.add(
            "tenants found in the cache",
            "%",
            Goal::AtLeast(99.0),
            100.0 * hits / (hits + misses).max(1.0),
        );
        let memory = [
            ("ingress", machine::memory_mb(self.ingress.process().id())?),
            (
                "the worker",
                machine::memory_mb(self.worker.process().id())?,
            ),
        ];
        for (of, mb) in memory {
            figures.add(format!("memory of {of} at 500/s"), "MB", Goal::None, mb);
        }
        Ok(())
    }
}
