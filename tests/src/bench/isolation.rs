//! What one account notices of another one's flood: the way of its messages from the post to the queue,
//! with and without the other sending a hundred times what it may.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use shared::keys::Keys;

use super::load::{self, Rate};
use super::wire::{Requests, Shape};
use crate::Stage;
use crate::events::Events;
use crate::meta::Sender;
use crate::meta::payload::{self, Number};
use crate::output::{Paint, column};
use crate::programs::{APP_SECRET, Ingress};

/// Webhooks a minute that an account may send.
const LIMIT: u32 = 1000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(10);
/// Of the account that is watched; within its limit.
const WATCHED_PER_SECOND: u32 = 10;

/// The watched account's messages of one condition.
#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    /// Medians over the rounds.
    p50_ms: f64,
    p99_ms: f64,
}

/// Runs five rounds of each, in turn, and prints them.
///
/// # Errors
/// A server or program can't be started, or a message doesn't come out.
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]
pub async fn run(json: bool) -> anyhow::Result<()> {
    let stage = Stage::new().await;
    let ingress = stage
        .ingress()
        .env("LOG_LEVEL", "error")
        .try_start()
        .await?;
    let _worker = stage.worker().env("LOG_LEVEL", "error").try_start().await?;
    let events = stage.events();
    let one = Shape {
        accounts: 1,
        ..Shape::default()
    };
    let flooding = Requests::new(ingress.address(), "/webhook/meta", APP_SECRET, one);
    let watched = neighbour_of(&flooding.numbers[0]);
    let sender = stage.sender(&ingress);
    let mut rounds: [Vec<(f64, f64)>; 2] = Default::default();
    // Connections and caches are there.
    one_round(&sender, &events, &watched).await?;
    for n in 0..ROUNDS {
        eprintln!(
            "{}",
            Paint::stdout().quiet(&format!("round {} of {ROUNDS} …", n + 1))
        );
        rounds[0].push(one_round(&sender, &events, &watched).await?);
        let flood = flood(&ingress, &flooding, n as u64);
        rounds[1].push(one_round(&sender, &events, &watched).await?);
        let report = flood.await.context("the flood")?;
        eprintln!("  the flood was answered {:?}", report.answers);
    }
    let [alone, beside] = rounds.map(|rounds| {
        let middle = |of: fn(&(f64, f64)) -> f64| median(rounds.iter().map(of).collect());
        (middle(|round| round.0), middle(|round| round.1))
    });
    let rows = [("alone", alone), ("beside a flood", beside)].map(|(what, (p50_ms, p99_ms))| Row {
        what,
        p50_ms,
        p99_ms,
    });
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let head = format!(
        "{} {:>9} {:>9}",
        column("an account's messages", 28),
        "p50 ms",
        "p99 ms"
    );
    println!("{}", Paint::stdout().title(&head));
    for row in &rows {
        println!(
            "{} {:>9.2} {:>9.2}",
            column(row.what, 28),
            row.p50_ms,
            row.p99_ms
        );
    }
    println!(
        "{} {:>8.2}x {:>8.2}x",
        column("ratio", 28),
        beside.0 / alone.0,
        beside.1 / alone.1
    );
    Ok(())
}

/// A number whose account lies in the same partition.
fn neighbour_of(number: &Number) -> Number {
    let keys = Keys::new("whatsapp", 16);
    let partition = keys.partition_of(&number.waba_id);
    std::iter::repeat_with(Number::fresh)
        .find(|other| keys.partition_of(&other.waba_id) == partition)
        .expect("one of sixteen")
}

/// A hundred times the limit, for as long as a round.
fn flood(ingress: &Ingress, requests: &Requests, n: u64) -> tokio::task::JoinHandle<load::Report> {
    let (address, requests) = (ingress.address().to_owned(), requests.clone());
    let rate = Rate {
        first: n * 1_000_000,
        per_second: f64::from(LIMIT) * 100.0 / 60.0,
        time: ROUND,
        most_connections: 1000,
    };
    tokio::task::spawn_blocking(move || load::open(&address, &requests, rate, |_, _| {}))
}

/// Median and 99th percentile, in ms, from the moment of a post to its event.
async fn one_round(
    sender: &Sender,
    events: &Events,
    watched: &Number,
) -> anyhow::Result<(f64, f64)> {
    let mut sent = HashMap::new();
    let mut moments = tokio::time::interval(Duration::from_secs(1) / WATCHED_PER_SECOND);
    let mut posts = tokio::task::JoinSet::new();
    for _ in 0..WATCHED_PER_SECOND * ROUND.as_secs() as u32 {
        let message = payload::text("16505551234", "Does it come in green?");
        let id = message["id"].as_str().unwrap_or_default().to_owned();
        let (sender, body) = (sender.clone(), watched.message(message));
        let moment = moments.tick().await;
        posts.spawn(async move { sender.post_once(body).await });
        sent.insert(id, moment);
    }
    while let Some(post) = posts.join_next().await {
        let status = post.context("a post")??.status;
        anyhow::ensure!(status == 200, "the watched account was answered {status}");
    }
    let here = |seen: &[crate::events::Event]| {
        seen.iter()
            .filter(|event| sent.contains_key(event.wamid()))
            .count()
            >= sent.len()
    };
    let seen = events.wait_until(Duration::from_secs(30), here).await;
    let took = seen.iter().filter_map(|event| {
        let moment = sent.get(event.wamid())?;
        Some(event.at.duration_since(*moment).as_secs_f64() * 1e3)
    });
    let mut took: Vec<f64> = took.collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    Ok((at(0.5), at(0.99)))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
