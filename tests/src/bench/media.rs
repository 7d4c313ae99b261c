//! How long files take from the webhook to the event, against a local Graph API and store, and what a
//! load of large ones costs everybody else.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::signer::Signer;
use serde::Serialize;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Stage;
use crate::events::{Event, Events};
use crate::meta::Sender;
use crate::meta::payload::{self, Number};
use crate::neighbours::{Content, Neighbours};
use crate::output::{Paint, column};

const MB: usize = 1 << 20;
/// Bytes of a file, and how many of them.
const SIZES: [(usize, u8); 5] = [
    (10 * 1024, 100),
    (MB, 100),
    (5 * MB, 100),
    (16 * MB, 20),
    (100 * MB, 5),
];
const LARGEST: usize = 100 * MB;
const LARGE_AT_ONCE: u8 = 16;
/// Each one's files are deleted before the next: the store keeps them in memory, and hangs when it is full.
const ROUNDS: usize = 10;
const TEXTS_PER_SECOND: u32 = 50;
/// Customers who write them in turn: messages of one follow each other, so one alone would wait for himself.
const CUSTOMERS: usize = 50;
const SOON: Duration = Duration::from_secs(60);
/// Files of a history, and how many messages a webhook of it has.
const HISTORY: usize = 20_000;
const OF_WEBHOOK: usize = 100;

#[derive(Debug, Serialize)]
struct Row {
    what: String,
    p50_ms: f64,
    p99_ms: f64,
}

struct Bench {
    stage: Stage,
    events: Events,
    sender: Sender,
    rows: Vec<Row>,
}

/// Runs all parts and prints them.
///
/// # Errors
/// A server or program can't be started, or something doesn't come out.
#[allow(clippy::print_stdout, reason = "a command line tool")]
pub async fn run(json: bool) -> anyhow::Result<()> {
    let mut stage = Stage::new().await;
    // Else the downloads would keep the clock of this tool waiting.
    stage.neighbours = Neighbours::on_a_thread()?;
    let ingress = stage
        .ingress()
        .env("LOG_LEVEL", "error")
        .env("RATE_LIMIT_PER_MINUTE", 1_000_000)
        .try_start()
        .await?;
    let worker = stage
        .worker()
        .env("LOG_LEVEL", "error")
        .env("MEDIA_PLACES", "message,history")
        .env("MEDIA_DEADLINE", "60s");
    let mut worker = worker.try_start().await?;
    let mut bench = Bench {
        events: stage.events(),
        sender: ingress.sender(),
        stage,
        rows: Vec::new(),
    };
    for (bytes, count) in SIZES {
        bench.files(bytes, count).await?;
    }
    bench.curl().await?;
    bench.texts_beside_large_files().await?;
    bench.files_beside_a_history().await?;
    let peak_mb = worker
        .process()
        .peak_memory_mb()
        .context("the worker's memory")?;
    if json {
        let report = serde_json::json!({"rows": bench.rows, "workerPeakMb": peak_mb});
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let head = format!("{} {:>9} {:>9}", column("media", 36), "p50 ms", "p99 ms");
    println!("{}", Paint::stdout().title(&head));
    for row in &bench.rows {
        println!(
            "{} {:>9.1} {:>9.1}",
            column(&row.what, 36),
            row.p50_ms,
            row.p99_ms
        );
    }
    println!(
        "{} {peak_mb:>9} MB",
        column("memory of the worker at most", 36)
    );
    Ok(())
}

impl Bench {
    /// Files of one size, one after the other.
    async fn files(&mut self, bytes: usize, count: u8) -> anyhow::Result<()> {
        let times = self.one_by_one(&Number::fresh(), bytes, count, "").await?;
        let what = match bytes / MB {
            0 => format!("{} KB", bytes / 1024),
            mb => format!("{mb} MB"),
        };
        self.row(&what, times);
        Ok(())
    }

    async fn one_by_one(
        &self,
        number: &Number,
        bytes: usize,
        count: u8,
        round: &str,
    ) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        for n in 0..count {
            let id = format!("{round}{bytes}{n:03}");
            let content = Content::Sized(bytes, n);
            self.stage.neighbours.set_content(&id, "video/mp4", content);
            let message = payload::media("16505551234", "video", &id, "video/mp4");
            let began = Instant::now();
            let event = self.out(number, message).await;
            let status = event.text("/message/media/status");
            ensure!(status == "stored", "a file is {status}");
            times.push(event.at.duration_since(began));
        }
        Ok(times)
    }

    /// Files of received messages before a history of the same number, and while the history's are fetched.
    async fn files_beside_a_history(&mut self) -> anyhow::Result<()> {
        let number = Number::fresh();
        let before = self.one_by_one(&number, MB, 100, "8").await?;
        self.row("1 MB, before a history", before);
        for webhook in 0..HISTORY / OF_WEBHOOK {
            let files = (0..OF_WEBHOOK).map(|n| {
                let n = webhook * OF_WEBHOOK + n;
                payload::image(&format!("16505{n:06}"), &format!("77{n:08}"))
            });
            let messages: Vec<_> = files.collect();
            let change = number.change("history", serde_json::json!({"messages": messages}));
            self.sender.send(number.webhook([change])).await;
        }
        let beside = self.one_by_one(&number, MB, 100, "9").await?;
        self.row("the same beside 20,000 of a history", beside);
        Ok(())
    }

    /// The event of a message that is posted now.
    async fn out(&self, number: &Number, message: serde_json::Value) -> Event {
        let id = message["id"].as_str().unwrap_or_default().to_owned();
        self.sender.send(number.message(message)).await;
        let here = |event: &&Event| event.wamid() == id;
        let seen = self
            .events
            .wait_until(SOON, |seen| seen.iter().rev().any(|event| here(&event)));
        let seen = seen.await;
        seen.iter().rev().find(here).expect("it was seen").clone()
    }

    /// The largest file by `curl | curl`, through the same servers.
    async fn curl(&mut self) -> anyhow::Result<()> {
        let mut times = Vec::new();
        for n in 0..5 {
            let began = Instant::now();
            let pipe = self.pipe(format!("{LARGEST}{n:03}"), format!("curl-{n}"));
            piped(pipe.await?).await?;
            times.push(began.elapsed());
        }
        self.row("100 MB, curl | curl", times);
        Ok(())
    }

    /// The command that takes a file from the Graph API to the store.
    async fn pipe(&self, media_id: String, key: String) -> anyhow::Result<String> {
        let from = self.stage.neighbours.download_url(&media_id);
        let to = self.stage.media();
        let to = to
            .client()
            .signed_url(reqwest::Method::PUT, &Path::from(key), SOON)
            .await?;
        // The store takes no upload without a length.
        Ok(format!(
            "curl -sf -H 'Authorization: Bearer x' '{from}' | \
             curl -sf -T - -H 'Transfer-Encoding:' -H 'Content-Length: {LARGEST}' '{to}'"
        ))
    }

    /// Texts of others, at a fixed rate, while many of the largest files are on their way: by the
    /// worker, and, in turn, by `curl | curl`, which says what the machine and the servers cost.
    async fn texts_beside_large_files(&mut self) -> anyhow::Result<()> {
        let (mut ours, mut curl) = (Beside::default(), Beside::default());
        // Its tenant is known then: the Tenant Service played here is as busy as the Graph API.
        let others = Number::fresh();
        self.out(&others, payload::text("16505550000", "Good morning"))
            .await;
        for round in 0..ROUNDS {
            // Looking at all events at every tick would hold up the texts.
            let before = self.events.count();
            self.large_files(round).await;
            let out = |bench: &Self| bench.large_files_out(before) == usize::from(LARGE_AT_ONCE);
            self.beside(&others, &mut ours, out).await?;
            let mut pipes = JoinSet::new();
            for n in 0..LARGE_AT_ONCE {
                let pipe = self.pipe(media_id(round, n), format!("curl-{round}-{n}"));
                pipes.spawn(piped(pipe.await?));
            }
            let pipes = tokio::spawn(pipes.join_all());
            self.beside(&others, &mut curl, |_| pipes.is_finished())
                .await?;
            for pipe in pipes.await? {
                pipe?;
            }
        }
        for (beside, who) in [(ours, ""), (curl, ", curl | curl")] {
            self.row(&format!("16 x 100 MB at once{who}"), beside.rounds);
            let what = format!("{} texts meanwhile", beside.texts.len());
            self.row(&what, beside.texts);
            self.row("their answers", beside.answers);
        }
        Ok(())
    }

    /// One round: texts go on until `done`.
    async fn beside(
        &self,
        others: &Number,
        beside: &mut Beside,
        done: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut sent = HashMap::new();
        let mut moments = tokio::time::interval(Duration::from_secs(1) / TEXTS_PER_SECOND);
        let mut posts = JoinSet::new();
        while !done(self) {
            ensure!(began.elapsed() < SOON * 2, "the large files don't come out");
            let moment = moments.tick().await;
            let customer = format!("1650555{:04}", sent.len() % CUSTOMERS);
            let text = payload::text(&customer, "Does it come in green?");
            sent.insert(text["id"].as_str().unwrap_or_default().to_owned(), moment);
            let (sender, body) = (self.sender.clone(), others.message(text));
            posts.spawn(async move {
                sender.send(body).await;
                moment.elapsed()
            });
        }
        beside.rounds.push(began.elapsed());
        beside.answers.extend(posts.join_all().await);
        beside.texts.extend(self.taken(&sent).await);
        self.delete_files().await
    }

    /// Posts them.
    async fn large_files(&self, round: usize) {
        let numbers: Vec<_> = (0..4).map(|_| Number::fresh()).collect();
        for n in 0..LARGE_AT_ONCE {
            let id = media_id(round, n);
            let content = Content::Sized(LARGEST, n + 100);
            self.stage
                .neighbours
                .set_content(&id, "application/pdf", content);
            let message = payload::media(
                &format!("4915100{n:05}"),
                "document",
                &id,
                "application/pdf",
            );
            self.sender
                .send(numbers[usize::from(n % 4)].message(message))
                .await;
        }
    }

    /// How many have come out after the first `before` events.
    fn large_files_out(&self, before: usize) -> usize {
        self.events.count_since(before, |event| {
            event.text("/message/type") == "document"
                && event.text("/message/media/status") == "stored"
        })
    }

    async fn delete_files(&self) -> anyhow::Result<()> {
        let media = self.stage.media();
        let listed = media.client().list(None).map_ok(|object| object.location);
        let deleted = media.client().delete_stream(listed.boxed());
        Ok(deleted.try_for_each(|_| async { Ok(()) }).await?)
    }

    /// How long after its moment each of these messages came out.
    async fn taken(&self, sent: &HashMap<String, Instant>) -> Vec<Duration> {
        let times = |seen: &[Event]| -> Vec<Duration> {
            let moment = |event: &Event| Some(event.at - *sent.get(event.wamid())?);
            seen.iter().filter_map(moment).collect()
        };
        let seen = self
            .events
            .wait_until(SOON, |seen| times(seen).len() >= sent.len());
        times(&seen.await)
    }

    fn row(&mut self, what: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |share: f64| {
            let index = ((times.len() - 1) as f64 * share).round() as usize;
            times[index].as_secs_f64() * 1e3
        };
        self.rows.push(Row {
            what: what.to_owned(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
        });
    }
}

/// Of texts beside large files, round by round.
#[derive(Default)]
struct Beside {
    rounds: Vec<Duration>,
    answers: Vec<Duration>,
    texts: Vec<Duration>,
}

fn media_id(round: usize, n: u8) -> String {
    format!("990{round:02}{n:02}")
}

async fn piped(pipe: String) -> anyhow::Result<()> {
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", &pipe]).stdin(Stdio::null());
    let done = shell.status().await.context("sh")?;
    ensure!(done.success(), "curl failed");
    Ok(())
}
