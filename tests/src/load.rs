//! Many webhooks, as fast as wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::meta::payload::{self, Number};
use crate::meta::{Sender, webhook};

/// What a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Text,
    Image,
    Reaction,
    Unsupported,
    Unknown,
    Status,
    Preferences,
    Account,
}

/// How much of what, how fast.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// What each webhook holds
    #[arg(long, value_enum, default_value_t = Kind::Text)]
    pub kind: Kind,
    /// Webhooks to post
    #[arg(long, default_value_t = 1)]
    pub count: u64,
    /// Webhooks per second, such as 500/s; default: as fast as they are answered
    #[arg(long, value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Business accounts to spread them over
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub wabas: u64,
    /// Customers of each account to spread them over
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub conversations: u64,
    /// Items per webhook
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub batch: u64,
    /// Share of the webhooks that repeat an earlier one, percent
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub duplicates: u8,
    /// Connections that post at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..))]
    pub connections: u64,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse() {
        Ok(rate) if rate > 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err("write it like 500/s".to_owned()),
    }
}

/// How it went.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub webhooks: u64,
    pub items: u64,
    pub duplicates: u64,
    /// Count by HTTP status; `failed`: no answer
    pub answers: BTreeMap<String, u64>,
    pub seconds: f64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Report {
    /// Answered 200.
    pub fn accepted(&self) -> u64 {
        self.answers.get("200").copied().unwrap_or(0)
    }
}

/// One post.
struct Posted {
    answer: String,
    took: Duration,
    duplicate: bool,
}

/// Posts everything once, without repeating what is refused. `progress` is called about five times
/// a second with the report so far.
pub async fn run(sender: &Sender, plan: &Plan, mut progress: impl FnMut(&Report)) -> Report {
    let (results, mut posted) = mpsc::channel(1024);
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..plan.connections.min(plan.count) {
        let (sender, plan) = (sender.clone(), plan.clone());
        let (next, results) = (next.clone(), results.clone());
        connections.spawn(async move { post_in_turn(&sender, &plan, &next, start, results).await });
    }
    drop(results);
    let mut report = Report::default();
    let mut times_ms = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            one = posted.recv() => match one {
                Some(one) => report.add(&one, plan, &mut times_ms),
                None => break,
            },
            _ = ticks.tick() => {
                report.conclude(start, &mut times_ms);
                progress(&report);
            }
        }
    }
    report.conclude(start, &mut times_ms);
    report
}

impl Report {
    fn add(&mut self, one: &Posted, plan: &Plan, times_ms: &mut Vec<f64>) {
        self.webhooks += 1;
        self.duplicates += u64::from(one.duplicate);
        self.items += plan.batch;
        *self.answers.entry(one.answer.clone()).or_default() += 1;
        times_ms.push(one.took.as_secs_f64() * 1e3);
    }

    fn conclude(&mut self, start: Instant, times_ms: &mut [f64]) {
        times_ms.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (times_ms.len() as f64 * share) as usize;
            let index = index.min(times_ms.len().saturating_sub(1));
            times_ms.get(index).copied().unwrap_or(0.0)
        };
        (self.p50_ms, self.p99_ms, self.max_ms) = (at(0.5), at(0.99), at(1.0));
        self.seconds = start.elapsed().as_secs_f64();
        self.per_second = self.webhooks as f64 / self.seconds.max(1e-9);
    }
}

/// Takes the next number of the plan until there are no more. With a rate each number has its
/// moment.
async fn post_in_turn(
    sender: &Sender,
    plan: &Plan,
    next: &AtomicU64,
    start: Instant,
    results: mpsc::Sender<Posted>,
) {
    let mut last: Option<Bytes> = None;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.count {
            return;
        }
        if let Some(rate) = plan.rate {
            tokio::time::sleep_until(start + Duration::from_secs_f64(number as f64 / rate)).await;
        }
        let repeats = rand::random_range(0..100) < plan.duplicates;
        let earlier = last.clone().filter(|_| repeats);
        let duplicate = earlier.is_some();
        let body = earlier.unwrap_or_else(|| body(plan, number));
        last = Some(body.clone());
        let asked = Instant::now();
        let answer = match sender.post_once(body).await {
            Ok(answer) => answer.status.to_string(),
            Err(_) => "failed".to_owned(),
        };
        let took = asked.elapsed();
        let one = Posted {
            answer,
            took,
            duplicate,
        };
        if results.send(one).await.is_err() {
            return;
        }
    }
}

fn body(plan: &Plan, number: u64) -> Bytes {
    let account = number % plan.wabas;
    let customer = number / plan.wabas % plan.conversations;
    let account = Number::of(format!("10229012{account:07}"));
    let from = format!("1650555{customer:04}");
    let many = |one: &dyn Fn() -> Value| (0..plan.batch).map(|_| one()).collect::<Vec<_>>();
    let messages = |one: &dyn Fn() -> Value| vec![account.messages(many(one))];
    let media_id = || rand::random_range(1_000_000_000..9_999_999_999_u64).to_string();
    let changes = match plan.kind {
        Kind::Text => messages(&|| payload::text(&from, "Does it come in another color?")),
        Kind::Image => messages(&|| payload::image(&from, &media_id())),
        Kind::Reaction => {
            messages(&|| payload::reaction(&from, &payload::wamid(), Some("\u{1f62e}")))
        }
        Kind::Unsupported => messages(&|| payload::unsupported(&from, "poll_creation")),
        Kind::Unknown => messages(&|| payload::unknown(&from)),
        Kind::Status => {
            let statuses = many(&|| payload::status(&payload::wamid(), "delivered", &from));
            vec![account.statuses(statuses)]
        }
        Kind::Preferences => many(&|| payload::user_preferences(&account, &from)),
        Kind::Account => many(&payload::account_update),
    };
    webhook([payload::entry(&account.waba_id, changes)])
}
