//! Ingress beside the same work in Node, beside a server that does nothing, and Redis' part of it beside a
//! bare `XADD` of the same fields, as fast as they answer. The servers run side by side and take turns, so
//! that a machine whose pace changes is the same for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use shared::entry::EntryHeader;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::baselines::Baseline;
use super::figures::{Figures, Goal};
use super::load;
use super::machine::cpu_us;
use super::wire::{Requests, Shape};
use crate::programs::{APP_SECRET, Ingress};
use crate::servers::{Redis, RedisOptions};

const CONNECTIONS: u64 = 128;
const WARM_UP: Duration = Duration::from_secs(1);
/// `XADD`s that are on their way at once, on so many connections: as many as ingress has webhooks and threads.
const PIPELINED: usize = 128;
const LINKS: usize = 2;

/// A server has its time in so many turns.
const TURNS: u32 = 4;

/// A server, and what it did with all it could get.
struct Saturated<'a> {
    name: &'static str,
    address: &'a str,
    process: u32,
    redis: Option<&'a Redis>,
    requests: Requests,
    answered: u64,
    seconds: f64,
    /// CPU in µs.
    own_us: f64,
    redis_us: f64,
}

impl Saturated<'_> {
    fn per_second(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    /// Its own CPU for a request, in µs.
    fn own_us(&self) -> f64 {
        self.own_us / self.answered as f64
    }

    fn redis_us(&self) -> f64 {
        self.redis_us / self.answered as f64
    }
}

/// One run.
///
/// # Errors
/// Something can't be started, or answers anything but 200.
pub async fn run(figures: &mut Figures, time: Duration) -> anyhow::Result<()> {
    let bare = Baseline::bare().await?;
    let redis = Redis::start(RedisOptions::without_rewrites()).await?;
    let mut ours = Ingress::builder(&redis.url())
        .env("RATE_LIMIT_PER_MINUTE", 1_000_000)
        .env("LOG_LEVEL", "warn")
        .try_start()
        .await?;
    let (address, id) = (ours.address().to_owned(), ours.process().id());
    let express_redis = Redis::start(RedisOptions::without_rewrites()).await?;
    let express = Baseline::node("express", &express_redis.url()).await?;
    let fastify_redis = Redis::start(RedisOptions::without_rewrites()).await?;
    let fastify = Baseline::node("fastify", &fastify_redis.url()).await?;
    let mut servers = [
        warm("bare hyper", &bare.address, bare.id(), None),
        warm("ingress", &address, id, Some(&redis)),
        warm(
            "express",
            &express.address,
            express.id(),
            Some(&express_redis),
        ),
        warm(
            "fastify",
            &fastify.address,
            fastify.id(),
            Some(&fastify_redis),
        ),
    ];
    for turn in 1..=TURNS {
        super::tell(&format!(
            "as fast as they answer, turn {turn} of {TURNS} each"
        ));
        for server in &mut servers {
            take_turn(server, turn, time / TURNS)?;
        }
    }
    let [bare, ours, express, fastify] = servers;
    let xadd_us = pipelined_xadd(time).await?;
    for server in [&bare, &ours, &express, &fastify] {
        let name = server.name;
        figures.add(
            format!("{name}: webhooks"),
            "/s",
            Goal::None,
            server.per_second(),
        );
        figures.add(
            format!("{name}: CPU per webhook"),
            "µs",
            Goal::None,
            server.own_us(),
        );
    }
    let mut ratio = |name: &str, goal, value| figures.add(name, "x", goal, value);
    let rate = |theirs: &Saturated<'_>| ours.per_second() / theirs.per_second();
    let cpu = |theirs: &Saturated<'_>| theirs.own_us() / ours.own_us();
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
        Goal::None,
        ours.redis_us(),
    );
    figures.add(
        "CPU of Redis per pipelined XADD of the same fields",
        "µs",
        Goal::None,
        xadd_us,
    );
    figures.add(
        "CPU of Redis by ingress to that of a pipelined XADD",
        "x",
        Goal::AtMost(2.0),
        ours.redis_us() / xadd_us,
    );
    figures.add(
        "CPU of Redis per webhook, by express",
        "µs",
        Goal::None,
        express.redis_us(),
    );
    figures.add(
        "XADD of as many bytes by redis-benchmark -P 16",
        "/s",
        Goal::None,
        redis_benchmark().await?,
    );
    Ok(())
}

fn warm<'a>(
    name: &'static str,
    address: &'a str,
    process: u32,
    redis: Option<&'a Redis>,
) -> Saturated<'a> {
    let requests = Requests::new(address, "/webhook/meta", APP_SECRET, Shape::default());
    load::closed(address, &requests, 0, CONNECTIONS, WARM_UP);
    Saturated {
        name,
        address,
        process,
        redis,
        requests,
        answered: 0,
        seconds: 0.0,
        own_us: 0.0,
        redis_us: 0.0,
    }
}

fn take_turn(server: &mut Saturated<'_>, turn: u32, time: Duration) -> anyhow::Result<()> {
    let (name, process, redis) = (server.name, server.process, server.redis);
    let redis_cpu = || redis.map_or(Ok(0.0), |redis| cpu_us(redis.id()));
    let before = (cpu_us(process)?, redis_cpu()?);
    let first = u64::from(turn) * 1_000_000_000;
    let report = load::closed(server.address, &server.requests, first, CONNECTIONS, time);
    ensure!(
        report.of(200) == report.total(),
        "{name} answered {:?}",
        report.answers
    );
    server.answered += report.total();
    server.seconds += report.seconds;
    server.own_us += cpu_us(process)? - before.0;
    server.redis_us += redis_cpu()? - before.1;
    Ok(())
}

/// CPU of Redis in µs for an `XADD` of the fields of ingress' entries, of which many are always on their way.
async fn pipelined_xadd(time: Duration) -> anyhow::Result<f64> {
    super::tell("pipelined XADD");
    let redis = Redis::start(RedisOptions::without_rewrites()).await?;
    let client = redis::Client::open(redis.url())?;
    let requests = Requests::new("x", "/", APP_SECRET, Shape::default());
    let until = Instant::now() + WARM_UP + time;
    let added = Arc::new(AtomicU64::new(0));
    let mut adding = JoinSet::new();
    for link in 0..LINKS {
        let connection = client.get_multiplexed_async_connection().await?;
        for sender in 0..PIPELINED / LINKS {
            let (mut connection, added) = (connection.clone(), added.clone());
            let stream = format!("stream:{}", (sender + link) % 16);
            let (header, body) = (entry_header(), requests.body(sender as u64));
            adding.spawn(async move {
                let mut add = redis::cmd("XADD");
                add.arg(stream).arg("*").arg("h").arg(header);
                add.arg("b").arg(body);
                while Instant::now() < until {
                    add.exec_async(&mut connection).await?;
                    added.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, redis::RedisError>(())
            });
        }
    }
    tokio::time::sleep(WARM_UP).await;
    let before = (cpu_us(redis.id())?, added.load(Ordering::Relaxed));
    while let Some(ended) = adding.join_next().await {
        ended??;
    }
    let total = added.load(Ordering::Relaxed) - before.1;
    Ok((cpu_us(redis.id())? - before.0) / total as f64)
}

/// As ingress packs it.
fn entry_header() -> Vec<u8> {
    let header = EntryHeader {
        waba_id: "102290129340398".to_owned(),
        correlation_id: Uuid::new_v4().to_string(),
        received_at_ms: 1_700_000_000_000,
        signature: format!("sha256={}", "0f".repeat(32)),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        unreadable: None,
        items: 1,
    };
    header.pack()
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
