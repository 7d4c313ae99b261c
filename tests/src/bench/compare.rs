//! Ingress beside the same work in Node and beside a server that does nothing, one after the other in
//! each run, as fast as they answer.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::baselines::Baseline;
use super::figures::{Figures, Goal};
use super::load;
use super::machine::cpu_us;
use super::wire::{Requests, Shape};
use crate::programs::{APP_SECRET, Ingress};
use crate::servers::{Redis, RedisOptions};

const CONNECTIONS: u64 = 128;
const WARM_UP: Duration = Duration::from_secs(1);

/// What a server did with all it could get.
struct Saturated {
    per_second: f64,
    /// CPU per request, in µs.
    own_us: f64,
    redis_us: f64,
}

/// One run.
///
/// # Errors
/// Something can't be started, or answers anything but 200.
pub async fn run(figures: &mut Figures, time: Duration) -> anyhow::Result<()> {
    let bare = Baseline::bare().await?;
    let bare = saturate("bare hyper", &bare.address, bare.id(), None, time)?;
    let ours = {
        let redis = Redis::start(RedisOptions::without_rewrites()).await?;
        let mut ingress = Ingress::builder(&redis.url())
            .env("RATE_LIMIT_PER_MINUTE", 1_000_000)
            .env("LOG_LEVEL", "warn")
            .try_start()
            .await?;
        let (address, id) = (ingress.address().to_owned(), ingress.process().id());
        saturate("ingress", &address, id, Some(&redis), time)?
    };
    let express = node("express", time).await?;
    let fastify = node("fastify", time).await?;
    let mut told = |name: &str, saturated: &Saturated| {
        figures.add(
            format!("{name}: webhooks"),
            "/s",
            Goal::None,
            saturated.per_second,
        );
        figures.add(
            format!("{name}: CPU per webhook"),
            "µs",
            Goal::None,
            saturated.own_us,
        );
    };
    told("bare hyper", &bare);
    told("ingress", &ours);
    told("express", &express);
    told("fastify", &fastify);
    let mut ratio = |name: &str, goal, value| figures.add(name, "x", goal, value);
    let rate = |theirs: &Saturated| ours.per_second / theirs.per_second;
    let cpu = |theirs: &Saturated| theirs.own_us / ours.own_us;
    ratio(
        "throughput of ingress to express",
        Goal::AtLeast(6.0),
        rate(&express),
    );
    ratio(
        "throughput of ingress to fastify",
        Goal::AtLeast(3.0),
        rate(&fastify),
    );
    ratio(
        "CPU of express to ingress",
        Goal::AtLeast(10.0),
        cpu(&express),
    );
    ratio(
        "CPU of fastify to ingress",
        Goal::AtLeast(4.5),
        cpu(&fastify),
    );
    ratio(
        "CPU of ingress to bare hyper",
        Goal::AtMost(1.8),
        1.0 / cpu(&bare),
    );
    figures.add(
        "CPU of Redis per webhook, by ingress",
        "µs",
        Goal::AtMost(20.0),
        ours.redis_us,
    );
    figures.add(
        "CPU of Redis per webhook, by express",
        "µs",
        Goal::None,
        express.redis_us,
    );
    figures.add(
        "XADD of as many bytes by redis-benchmark -P 16",
        "/s",
        Goal::None,
        redis_benchmark().await?,
    );
    Ok(())
}

async fn node(framework: &str, time: Duration) -> anyhow::Result<Saturated> {
    let redis = Redis::start(RedisOptions::without_rewrites()).await?;
    let server = Baseline::node(framework, &redis.url()).await?;
    saturate(framework, &server.address, server.id(), Some(&redis), time)
}

fn saturate(
    name: &str,
    address: &str,
    process: u32,
    redis: Option<&Redis>,
    time: Duration,
) -> anyhow::Result<Saturated> {
    super::tell(&format!("{name}, as fast as it answers"));
    let requests = Requests::new(address, "/webhook/meta", APP_SECRET, Shape::default());
    load::closed(address, &requests, 0, CONNECTIONS, WARM_UP);
    let redis_cpu = || redis.map_or(Ok(0.0), |redis| cpu_us(redis.id()));
    let before = (cpu_us(process)?, redis_cpu()?);
    let report = load::closed(address, &requests, 1_000_000_000, CONNECTIONS, time);
    let total = report.total() as f64;
    ensure!(
        report.of(200) == report.total(),
        "{name} answered {:?}",
        report.answers
    );
    Ok(Saturated {
        per_second: total / report.seconds,
        own_us: (cpu_us(process)? - before.0) / total,
        redis_us: (redis_cpu()? - before.1) / total,
    })
}

/// What Redis can do with the bytes alone.
async fn redis_benchmark() -> anyhow::Result<f64> {
    let redis = Redis::start(RedisOptions::without_rewrites()).await?;
    let body = "x".repeat(1100);
    let mut benchmark = tokio::process::Command::new("redis-benchmark");
    let arguments = ["-n", "200000", "-c", "50", "-P", "16", "--csv", "-p"];
    benchmark.args(arguments).arg(redis.port.to_string());
    benchmark.args(["XADD", "stream", "*", "b", &body]);
    let output = benchmark.output().await.context("redis-benchmark")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().context("no output")?;
    let rate = last.split("\",\"").nth(1).context("no rate")?;
    rate.trim_matches('"').parse().context("not a rate")
}
