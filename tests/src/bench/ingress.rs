//! What ingress does with much, with too much, and with senders that are slow on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::load::{self, Report};
use super::machine;
use super::wire::{Requests, Shape};
use crate::output::{Paint, column};
use crate::programs::{APP_SECRET, Ingress};
use crate::servers::{Redis, RedisOptions};

const CONNECTIONS: u64 = 128;
/// Connections that send their headers, and as many that send their bodies, a byte a second.
const SLOW: usize = 1000;
/// Connections that say nothing, of a quiet day.
const OPEN: usize = 1000;
/// The same of an attack.
const IDLE: usize = 10_000;
/// Unsigned bodies a second.
const FLOOD: f64 = 1000.0;
/// Webhooks a second of the sender beside one that sends too many, and the number of its first.
const QUIET: f64 = 100.0;
const QUIET_FROM: u64 = 1 << 40;
/// More than ingress takes.
const MOST_CONNECTIONS: usize = 9_000;

/// How long each part takes.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Plan {
    /// Seconds at saturation, and with slow senders
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Seconds at twice the measured maximum
    #[arg(long, default_value_t = 60)]
    pub beyond: u64,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// A line of the result.
#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    /// Requests a second that were answered.
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    /// From when the request was really sent.
    sent_p99_ms: f64,
    /// The same of those that were refused, which cost ingress nothing to wait for: what of it is this tool's own.
    refused_sent_p99_ms: f64,
    answers: std::collections::BTreeMap<u16, u64>,
    /// Of ingress, in MB, at the end of the part.
    memory_mb: f64,
    /// Its CPU per request, in µs.
    cpu_us: f64,
    /// Median time that a webhook spends in it, without the time Redis took, in µs; spread evenly within a bucket.
    own_p50_us: f64,
    /// What Redis' memory grew by, for each webhook that was stored: it waits, and its item is remembered.
    redis_bytes: f64,
}

impl Row {
    /// Without what is of ingress and Redis.
    fn new(what: &'static str, report: &Report) -> Self {
        Self {
            what,
            rate: report.total() as f64 / report.seconds,
            p50_ms: report.quantile_ms(200, 0.5),
            p99_ms: report.quantile_ms(200, 0.99),
            p999_ms: report.quantile_ms(200, 0.999),
            sent_p99_ms: report.sent_quantile_ms(200, 0.99),
            refused_sent_p99_ms: report.sent_quantile_ms(503, 0.99),
            answers: report.answers.clone(),
            memory_mb: 0.0,
            cpu_us: 0.0,
            own_p50_us: 0.0,
            redis_bytes: 0.0,
        }
    }
}

/// What is read before a part and after it.
struct Reading {
    cpu_us: f64,
    redis_bytes: f64,
    /// Webhooks whose own time was at most so many seconds.
    own: Vec<(f64, f64)>,
}

struct Bench {
    redis: Redis,
    ingress: Ingress,
    requests: Requests,
    next: u64,
    rows: Vec<Row>,
    plan: Plan,
}

/// Runs all parts and prints them.
///
/// # Errors
/// A server or program can't be started.
pub async fn run(plan: Plan) -> anyhow::Result<()> {
    let mut bench = Bench::start(plan, 10_000).await?;
    let most = bench.saturated()?;
    bench.steady("500/s")?;
    bench.beside((0, OPEN), |bench| {
        bench.steady("500/s, 1,000 open connections")
    })?;
    bench.slow_senders()?;
    bench.beyond(2.0 * most)?;
    bench.steady("500/s, 10 s later")?;
    bench.print()
}

/// Signed traffic beside connections that say nothing, others that dribble, and bodies that nobody
/// has signed.
///
/// # Errors
/// A server or program can't be started.
pub async fn attack(plan: Plan) -> anyhow::Result<()> {
    let mut bench = Bench::start(plan, 2 * IDLE).await?;
    bench.steady("500/s")?;
    bench.attacked()?;
    bench.steady("500/s, after it")?;
    bench.print()
}

impl Bench {
    async fn start(plan: Plan, max_connections: usize) -> anyhow::Result<Self> {
        let redis = Redis::start(RedisOptions::without_rewrites()).await?;
        let ingress = Ingress::builder(&redis.url())
            .env("RATE_LIMIT_PER_MINUTE", 1_000_000)
            .env("MAX_CONNECTIONS", max_connections)
            .env("LOG_LEVEL", "warn")
            .try_start()
            .await?;
        let requests = Requests::new(
            ingress.address(),
            "/webhook/meta",
            APP_SECRET,
            Shape::default(),
        );
        Ok(Self {
            redis,
            ingress,
            requests,
            next: 0,
            rows: Vec::new(),
            plan,
        })
    }

    #[allow(clippy::print_stdout, reason = "a command line tool")]
    fn print(&self) -> anyhow::Result<()> {
        if self.plan.json {
            println!("{}", serde_json::to_string_pretty(&self.rows)?);
        } else {
            print!("{}", table(&self.rows));
        }
        Ok(())
    }

    fn saturated(&mut self) -> anyhow::Result<f64> {
        let address = self.ingress.address().to_owned();
        super::tell("as fast as it answers");
        let time = Duration::from_secs(self.plan.seconds);
        let before = self.read()?;
        let report = load::closed(&address, &self.requests, self.next, CONNECTIONS, time);
        let rate = report.of(200) as f64 / report.seconds;
        self.done("saturated, 128 connections", &report, &before)?;
        Ok(rate)
    }

    fn steady(&mut self, what: &'static str) -> anyhow::Result<()> {
        self.open(what, 500.0, Duration::from_secs(self.plan.seconds))
    }

    /// Beside it a sender of its own, which has time: what the one that sends so much notices is in part
    /// that it doesn't get round to its answers.
    fn beyond(&mut self, rate: f64) -> anyhow::Result<()> {
        let time = Duration::from_secs(self.plan.beyond);
        let (address, requests) = (self.ingress.address().to_owned(), self.requests.clone());
        let quiet = load::Rate {
            first: QUIET_FROM,
            per_second: QUIET,
            time,
            most_connections: MOST_CONNECTIONS,
        };
        let quiet = std::thread::spawn(move || load::open(&address, &requests, quiet, |_, _| {}));
        self.open("twice the maximum", rate, time)?;
        let quiet = quiet.join();
        let quiet = quiet.map_err(|_| anyhow::anyhow!("the quiet sender died"))?;
        self.rows.push(Row::new("  100/s beside it", &quiet));
        std::thread::sleep(Duration::from_secs(10));
        Ok(())
    }

    fn open(&mut self, what: &'static str, rate: f64, time: Duration) -> anyhow::Result<()> {
        super::tell(&format!("{what}: {rate:.0} a second"));
        let address = self.ingress.address().to_owned();
        let before = self.read()?;
        let rate = load::Rate {
            first: self.next,
            per_second: rate,
            time,
            most_connections: MOST_CONNECTIONS,
        };
        let report = load::open(&address, &self.requests, rate, tell_progress);
        self.done(what, &report, &before)
    }

    /// The signed traffic beside two thousand connections that dribble.
    fn slow_senders(&mut self) -> anyhow::Result<()> {
        self.beside((2 * SLOW, 0), |bench| {
            bench.steady("500/s, 2,000 slow senders")
        })
    }

    /// Beside ten thousand that say nothing and two thousand that dribble; then a flood as well.
    fn attacked(&mut self) -> anyhow::Result<()> {
        self.beside((2 * SLOW, IDLE), |bench| {
            bench.steady("500/s, 12,000 connections")?;
            let address = bench.ingress.address().to_owned();
            let unsigned = Requests::new(&address, "/webhook/meta", "guess", Shape::default());
            let rate = load::Rate {
                first: 0,
                per_second: FLOOD,
                time: Duration::from_secs(bench.plan.seconds),
                most_connections: 256,
            };
            let flood =
                std::thread::spawn(move || load::open(&address, &unsigned, rate, |_, _| {}));
            let steady = bench.steady("500/s, and unsigned bodies");
            let flood = flood.join();
            let flood = flood.map_err(|_| anyhow::anyhow!("the flood died"))?;
            let refused = flood.of(401) as f64 / flood.seconds;
            super::tell(&format!(
                "{refused:.0} unsigned bodies a second were refused"
            ));
            steady
        })
    }

    /// Runs `part` beside so many connections that dribble and that say nothing.
    fn beside(
        &mut self,
        (slow, idle): (usize, usize),
        part: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicUsize::new(0));
        let (address, stopped, opened) = (
            self.ingress.address().to_owned(),
            stop.clone(),
            open.clone(),
        );
        let burden = std::thread::spawn(move || burden(&address, (slow, idle), &stopped, &opened));
        // Idle ones are closed and come again: never quite all are there.
        while open.load(Ordering::Relaxed) < slow + idle * 9 / 10 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let done = part(self);
        stop.store(true, Ordering::Relaxed);
        burden
            .join()
            .map_err(|_| anyhow::anyhow!("the slow senders died"))?;
        done
    }

    fn done(
        &mut self,
        what: &'static str,
        report: &Report,
        before: &Reading,
    ) -> anyhow::Result<()> {
        self.next += 1_000_000_000;
        let (memory_mb, after) = (machine::memory_mb(self.id())?, self.read()?);
        self.rows.push(Row {
            memory_mb,
            cpu_us: (after.cpu_us - before.cpu_us) / report.total().max(1) as f64,
            own_p50_us: 1e6 * median(&before.own, &after.own),
            redis_bytes: (after.redis_bytes - before.redis_bytes) / report.of(200).max(1) as f64,
            ..Row::new(what, report)
        });
        self.forget_stored()
    }

    fn read(&mut self) -> anyhow::Result<Reading> {
        let mut connection = redis::Client::open(self.redis.url())?.get_connection()?;
        let memory: redis::InfoDict = redis::cmd("INFO").arg("memory").query(&mut connection)?;
        let (ingress, runtime) = (&self.ingress, tokio::runtime::Handle::current());
        let metrics = tokio::task::block_in_place(|| runtime.block_on(ingress.get("/metrics")))?;
        Ok(Reading {
            cpu_us: machine::cpu_us(self.id())?,
            redis_bytes: memory.get("used_memory").context("used_memory")?,
            own: buckets(&metrics.1, "whatsapp_ingress_own_duration_seconds_bucket"),
        })
    }

    /// Nobody reads the streams here.
    fn forget_stored(&self) -> anyhow::Result<()> {
        let mut connection = redis::Client::open(self.redis.url())?.get_connection()?;
        for partition in 0..16 {
            let key = format!("whatsapp:{{{partition}}}:stream");
            redis::cmd("DEL").arg(key).exec(&mut connection)?;
        }
        Ok(())
    }

    fn id(&mut self) -> u32 {
        self.ingress.process().id()
    }
}

#[allow(clippy::print_stderr, reason = "a command line tool")]
fn tell_progress(report: &Report, elapsed: Duration) {
    if elapsed.as_secs().is_multiple_of(5) {
        eprintln!(
            "  {:>3} s  answered {}  {:?}",
            elapsed.as_secs(),
            report.total(),
            report.answers
        );
    }
}

/// Connections that dribble, half of them headers and half a body, and others that say nothing; those
/// that ingress closes come again.
fn burden(
    address: &str,
    (slow, idle): (usize, usize),
    stop: &Arc<AtomicBool>,
    open: &Arc<AtomicUsize>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..slow + idle {
            let (address, stop, open) = (address.to_owned(), stop.clone(), open.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(stream) = TcpStream::connect(&address).await {
                        open.fetch_add(1, Ordering::Relaxed);
                        if n < slow {
                            drip(stream, n % 2 == 0, &stop).await;
                        } else {
                            say_nothing(stream).await;
                        }
                        open.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            });
        }
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tasks.shutdown().await;
    });
}

/// Until the other side closes.
async fn say_nothing(mut stream: TcpStream) {
    let mut answer = [0; 64];
    while stream.read(&mut answer).await.is_ok_and(|read| read > 0) {}
}

/// A byte a second until the other side has enough.
async fn drip(mut stream: TcpStream, headers: bool, stop: &AtomicBool) {
    let head: &[u8] = if headers {
        b"POST /webhook/meta HTTP/1.1\r\nX-Slow: "
    } else {
        b"POST /webhook/meta HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    };
    if stream.write_all(head).await.is_err() {
        return;
    }
    let mut answer = [0; 512];
    let mut second = tokio::time::interval(Duration::from_secs(1));
    while !stop.load(Ordering::Relaxed) {
        tokio::select! {
            _ = second.tick() => if stream.write_all(b"x").await.is_err() { return },
            read = stream.read(&mut answer) => if matches!(read, Ok(0) | Err(_)) { return },
        }
    }
}

/// The buckets of a histogram without labels: their ends, and how many are within.
fn buckets(metrics: &str, name: &str) -> Vec<(f64, f64)> {
    let of_line = |line: &str| {
        let (end, count) = line
            .strip_prefix(name)?
            .strip_prefix("{le=\"")?
            .split_once("\"} ")?;
        Some((end.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
    };
    metrics.lines().filter_map(of_line).collect()
}

/// The median of what was added, as if what a bucket has were spread evenly in it.
fn median(before: &[(f64, f64)], after: &[(f64, f64)]) -> f64 {
    let added = before
        .iter()
        .zip(after)
        .map(|(before, after)| (after.0, after.1 - before.1));
    let added: Vec<_> = added.collect();
    let half = added.last().map_or(0.0, |(_, all)| all / 2.0);
    let (mut start, mut below) = (0.0, 0.0);
    for (end, within) in added {
        if within >= half && within > below {
            return start + (end - start) * (half - below) / (within - below);
        }
        (start, below) = (end, within);
    }
    0.0
}

fn table(rows: &[Row]) -> String {
    let paint = Paint::stdout();
    let head = format!(
        "{} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7} {:>7} {:>7}  answers",
        column("ingress", 29),
        "per s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "p99 sent",
        "503 p99",
        "MB",
        "CPU µs",
        "own µs",
        "Redis B"
    );
    let lines = rows.iter().map(|row| {
        let answers: Vec<_> = row
            .answers
            .iter()
            .map(|(status, count)| format!("{status}: {count}"))
            .collect();
        format!(
            "{} {:>9.0} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>7.1} {:>7.1} {:>7.0} {:>7.0}  {}\n",
            column(row.what, 29),
            row.rate,
            row.p50_ms,
            row.p99_ms,
            row.p999_ms,
            row.sent_p99_ms,
            row.refused_sent_p99_ms,
            row.memory_mb,
            row.cpu_us,
            row.own_p50_us,
            row.redis_bytes,
            answers.join(", ")
        )
    });
    format!("{}\n{}", paint.title(&head), lines.collect::<String>())
}
