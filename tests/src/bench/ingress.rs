//! What ingress does with much, with too much, and with senders that are slow on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

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
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]
pub async fn run(plan: Plan) -> anyhow::Result<()> {
    let redis = Redis::start(RedisOptions::default()).await?;
    let ingress = Ingress::builder(&redis.url())
        .env("RATE_LIMIT_PER_MINUTE", 1_000_000)
        .env("LOG_LEVEL", "warn")
        .try_start()
        .await?;
    let requests = Requests::new(
        ingress.address(),
        "/webhook/meta",
        APP_SECRET,
        Shape::default(),
    );
    let mut bench = Bench {
        redis,
        ingress,
        requests,
        next: 0,
        rows: Vec::new(),
        plan,
    };
    let most = bench.saturated()?;
    bench.steady("500/s")?;
    bench.slow_senders()?;
    bench.beyond(2.0 * most)?;
    bench.steady("500/s, 10 s later")?;
    if plan.json {
        println!("{}", serde_json::to_string_pretty(&bench.rows)?);
    } else {
        print!("{}", table(&bench.rows));
    }
    Ok(())
}

impl Bench {
    fn saturated(&mut self) -> anyhow::Result<f64> {
        let address = self.ingress.address().to_owned();
        super::tell("as fast as it answers");
        let time = Duration::from_secs(self.plan.seconds);
        let cpu = machine::cpu_us(self.id())?;
        let report = load::closed(&address, &self.requests, self.next, CONNECTIONS, time);
        let rate = report.of(200) as f64 / report.seconds;
        self.done("saturated, 128 connections", &report, cpu)?;
        Ok(rate)
    }

    fn steady(&mut self, what: &'static str) -> anyhow::Result<()> {
        self.open(what, 500.0, Duration::from_secs(self.plan.seconds))
    }

    fn beyond(&mut self, rate: f64) -> anyhow::Result<()> {
        self.open(
            "twice the maximum",
            rate,
            Duration::from_secs(self.plan.beyond),
        )?;
        std::thread::sleep(Duration::from_secs(10));
        Ok(())
    }

    fn open(&mut self, what: &'static str, rate: f64, time: Duration) -> anyhow::Result<()> {
        super::tell(&format!("{what}: {rate:.0} a second"));
        let address = self.ingress.address().to_owned();
        let cpu = machine::cpu_us(self.id())?;
        let rate = load::Rate {
            first: self.next,
            per_second: rate,
            time,
            most_connections: MOST_CONNECTIONS,
        };
        let report = load::open(&address, &self.requests, rate, tell_progress);
        self.done(what, &report, cpu)
    }

    /// The signed traffic beside two thousand connections that dribble.
    fn slow_senders(&mut self) -> anyhow::Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicUsize::new(0));
        let (address, stopped, opened) = (
            self.ingress.address().to_owned(),
            stop.clone(),
            open.clone(),
        );
        let dribbling = std::thread::spawn(move || dribble(&address, &stopped, &opened));
        while open.load(Ordering::Relaxed) < 2 * SLOW {
            std::thread::sleep(Duration::from_millis(20));
        }
        let steady = self.steady("500/s, 2,000 slow senders");
        stop.store(true, Ordering::Relaxed);
        dribbling
            .join()
            .map_err(|_| anyhow::anyhow!("the slow senders died"))?;
        steady
    }

    fn done(
        &mut self,
        what: &'static str,
        report: &Report,
        cpu_before_us: f64,
    ) -> anyhow::Result<()> {
        self.next += 1_000_000_000;
        let (memory_mb, cpu_us) = (machine::memory_mb(self.id())?, machine::cpu_us(self.id())?);
        self.rows.push(Row {
            what,
            rate: report.total() as f64 / report.seconds,
            p50_ms: report.quantile_ms(200, 0.5),
            p99_ms: report.quantile_ms(200, 0.99),
            p999_ms: report.quantile_ms(200, 0.999),
            sent_p99_ms: report.sent_quantile_ms(200, 0.99),
            refused_sent_p99_ms: report.sent_quantile_ms(503, 0.99),
            answers: report.answers.clone(),
            memory_mb,
            cpu_us: (cpu_us - cpu_before_us) / report.total().max(1) as f64,
        });
        self.forget_stored()
    }

    /// Nobody reads the streams here.
    fn forget_stored(&self) -> anyhow::Result<()> {
        let mut connection = redis::Client::open(self.redis.url())?.get_connection()?;
        for partition in 0..16 {
            let key = format!("whatsapp:{{{partition}}}:stream");
            redis::cmd("UNLINK").arg(key).exec(&mut connection)?;
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

/// Half of them send headers, half send a body; those that ingress closes come again.
fn dribble(address: &str, stop: &Arc<AtomicBool>, open: &Arc<AtomicUsize>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..2 * SLOW {
            let (address, stop, open) = (address.to_owned(), stop.clone(), open.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(stream) = TcpStream::connect(&address).await {
                        open.fetch_add(1, Ordering::Relaxed);
                        drip(stream, n % 2 == 0, &stop).await;
                        open.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    });
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

fn table(rows: &[Row]) -> String {
    let paint = Paint::stdout();
    let head = format!(
        "{} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7}  answers",
        column("ingress", 28),
        "per s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "p99 sent",
        "503 p99",
        "MB",
        "CPU µs"
    );
    let lines = rows.iter().map(|row| {
        let answers: Vec<_> = row
            .answers
            .iter()
            .map(|(status, count)| format!("{status}: {count}"))
            .collect();
        format!(
            "{} {:>9.0} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>7.1} {:>7.1}  {}\n",
            column(row.what, 28),
            row.rate,
            row.p50_ms,
            row.p99_ms,
            row.p999_ms,
            row.sent_p99_ms,
            row.refused_sent_p99_ms,
            row.memory_mb,
            row.cpu_us,
            answers.join(", ")
        )
    });
    format!("{}\n{}", paint.title(&head), lines.collect::<String>())
}
