//! How costs grow with what a webhook holds and with what is around it.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::all::Plan;
use super::machine::{cpu_us, memory_mb};
use super::wire::{Requests, Shape};
use super::{load, plot, worker};
use crate::Stage;
use crate::output::{Paint, column};
use crate::programs::{APP_SECRET, Ingress};
use crate::servers::{Redis, RedisOptions};

const BATCHES: [usize; 4] = [1, 10, 100, 1000];
const CONNECTIONS: [u64; 5] = [1, 10, 100, 1000, 9000];
const ACCOUNTS: [usize; 4] = [1, 100, 10_000, 100_000];
const TEXT_BYTES: [usize; 5] = [200, 2_000, 20_000, 200_000, 3_000_000];
const PARTITIONS: [u16; 4] = [1, 4, 16, 64];
/// For bodies that take Redis long: with more of them at the same time, some would be refused.
const FEW: u64 = 16;
/// Seconds of ingress at saturation that the stream is filled for before the measurement.
const BACKLOGS: [u64; 3] = [0, 4, 36];
const WORKERS: [usize; 4] = [1, 2, 3, 4];

/// A curve: `unit` of each `y` against `by`.
#[derive(Debug, Serialize)]
pub struct Curve {
    pub what: &'static str,
    pub by: &'static str,
    pub points: Vec<Point>,
}

/// What was measured at one place.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    pub x: f64,
    pub per_second: f64,
    /// Share of the answers that weren't 200, in percent
    pub refused: f64,
    /// CPU of the program per webhook, in µs.
    pub cpu_us: f64,
    /// CPU of Redis per webhook, in µs; 0 where it isn't measured.
    pub redis_us: f64,
    /// Memory of the program, in MB.
    pub memory_mb: f64,
}

/// Where ingress is measured.
#[derive(Debug, Clone, Copy)]
struct Place {
    shape: Shape,
    connections: u64,
    partitions: u16,
    backlog: Duration,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            shape: Shape::default(),
            connections: 128,
            partitions: 16,
            backlog: Duration::ZERO,
        }
    }
}

/// Measures each curve once.
///
/// # Errors
/// Something can't be started or written.
#[allow(clippy::print_stdout, reason = "a command line tool")]
pub async fn run(plan: &Plan) -> anyhow::Result<()> {
    let time = Duration::from_secs(plan.seconds);
    let mut curves = Vec::new();
    let shape = Shape::default();
    let place = Place::default();
    let batches = BATCHES.map(|items| {
        (
            items as f64,
            Place {
                shape: Shape { items, ..shape },
                connections: FEW,
                ..place
            },
        )
    });
    curves.push(ingress("by items of a webhook", "items", &batches, time).await?);
    let connections = CONNECTIONS.map(|n| {
        (
            n as f64,
            Place {
                connections: n,
                ..place
            },
        )
    });
    curves.push(ingress("by connections", "connections", &connections, time).await?);
    let accounts = ACCOUNTS.map(|n| {
        (
            n as f64,
            Place {
                shape: Shape {
                    accounts: n,
                    ..shape
                },
                ..place
            },
        )
    });
    curves.push(ingress("by business accounts", "accounts", &accounts, time).await?);
    let sizes = TEXT_BYTES.map(|n| {
        (
            n as f64,
            Place {
                shape: Shape {
                    text_bytes: n,
                    accounts: 8,
                    ..shape
                },
                connections: FEW,
                ..place
            },
        )
    });
    curves.push(ingress("by bytes of a text", "bytes", &sizes, time).await?);
    let partitions = PARTITIONS.map(|n| {
        (
            f64::from(n),
            Place {
                partitions: n,
                ..place
            },
        )
    });
    curves.push(ingress("by partitions", "partitions", &partitions, time).await?);
    let backlogs = BACKLOGS.map(|n| {
        (
            0.0,
            Place {
                backlog: Duration::from_secs(n),
                ..place
            },
        )
    });
    curves.push(ingress("by entries that wait", "entries", &backlogs, time).await?);
    curves.push(workers().await?);
    if let Some(file) = &plan.out {
        let text = serde_json::to_string_pretty(&curves)?;
        std::fs::write(file, text).with_context(|| format!("{}", file.display()))?;
        std::fs::write(file.with_extension("svg"), plot::svg(&curves))?;
    }
    if plan.json {
        println!("{}", serde_json::to_string_pretty(&curves)?);
    } else {
        curves.iter().for_each(|curve| println!("{}", table(curve)));
    }
    Ok(())
}

async fn ingress(
    what: &'static str,
    by: &'static str,
    places: &[(f64, Place)],
    time: Duration,
) -> anyhow::Result<Curve> {
    let mut points = Vec::new();
    for (x, place) in places {
        super::tell(&format!("ingress {what}: {x}"));
        points.push(at(*x, *place, time).await?);
    }
    Ok(Curve { what, by, points })
}

async fn at(x: f64, place: Place, time: Duration) -> anyhow::Result<Point> {
    let redis = Redis::start(RedisOptions::without_rewrites()).await?;
    let mut ingress = Ingress::builder(&redis.url())
        .env("RATE_LIMIT_PER_MINUTE", 100_000_000)
        .env("STREAM_PARTITIONS", place.partitions)
        .env("LOG_LEVEL", "warn")
        .try_start()
        .await?;
    let (address, id) = (ingress.address().to_owned(), ingress.process().id());
    let requests = Requests::new(&address, "/webhook/meta", APP_SECRET, place.shape);
    let load = |first, time| load::closed(&address, &requests, first, place.connections, time);
    let backlog = load(0, place.backlog.max(Duration::from_millis(300)));
    let before = (cpu_us(id)?, cpu_us(redis.id())?);
    let report = load(1_000_000_000, time);
    let total = report.total() as f64;
    Ok(Point {
        x: if place.backlog.is_zero() {
            x
        } else {
            backlog.of(200) as f64
        },
        per_second: report.of(200) as f64 / report.seconds,
        refused: 100.0 * (total - report.of(200) as f64) / total,
        cpu_us: (cpu_us(id)? - before.0) / total,
        redis_us: (cpu_us(redis.id())? - before.1) / total,
        memory_mb: memory_mb(id)?,
    })
}

async fn workers() -> anyhow::Result<Curve> {
    let mut points = Vec::new();
    for workers in WORKERS {
        let stage = Stage::new().await;
        let emptying = worker::Emptying {
            workers,
            ..worker::Emptying::for_time(Duration::from_secs(2))
        };
        let drained = emptying.drain(&stage).await?;
        points.push(Point {
            x: workers as f64,
            per_second: drained.per_second,
            refused: 0.0,
            cpu_us: drained.worker_us,
            redis_us: drained.redis_us,
            memory_mb: 0.0,
        });
    }
    Ok(Curve {
        what: "of a full stream by workers, archive off",
        by: "workers",
        points,
    })
}

fn table(curve: &Curve) -> String {
    let head = format!(
        "{} {:>10} {:>10} {:>10} {:>10} {:>8}",
        column(curve.what, 42),
        "per s",
        "refused %",
        "CPU µs",
        "Redis µs",
        "MB"
    );
    let lines = curve.points.iter().map(|point| {
        format!(
            "{} {:>10.0} {:>10.1} {:>10.1} {:>10.1} {:>8.0}\n",
            column(&format!("{} {}", point.x, curve.by), 42),
            point.per_second,
            point.refused,
            point.cpu_us,
            point.redis_us,
            point.memory_mb
        )
    });
    format!(
        "{}\n{}",
        Paint::stdout().title(&head),
        lines.collect::<String>()
    )
}
