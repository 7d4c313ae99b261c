//! A run that tries to prove the promises wrong.
//!
//! [`scene`] is real servers and programs with proxies in between; [`sender`] plays Meta;
//! [`schedule`] says by a seed which fault strikes when, and [`scene`] lets it happen. [`history`] and
//! [`received`] remember what went in and what came out. When all is healed and worked off, [`model`]
//! holds the two against each other and [`remains`] looks at what lies in Redis and the store;
//! [`report`] tells.

pub mod history;
pub mod model;
pub mod received;
pub mod remains;
pub mod report;
pub mod scene;
pub mod schedule;
pub mod sender;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::history::{Fault, History, Millis};
use self::model::{Findings, Seen, Violation};
use self::received::Consumers;
use self::report::{Memory, Report};
use self::scene::{Scene, Size};
use self::schedule::{Planned, Targets, schedule};
use self::sender::Load;
use crate::servers::redis::can_mount;

/// Nothing moves for so long, with all healed: it won't any more. The longest pause between two tries
/// of a file is a minute.
const PATIENCE: Duration = Duration::from_secs(150);
/// What is done may take so long to be seen everywhere.
const SETTLING: Duration = Duration::from_secs(30);
const PROGRESS: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// How long faults strike
    #[arg(long, default_value_t = 5.0)]
    pub minutes: f64,
    /// Repeats the faults of another run; default: a new one, which is printed
    #[arg(long)]
    pub seed: Option<u64>,
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..10))]
    pub ingress: u64,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..10))]
    pub workers: u64,
    /// 3: a cluster
    #[arg(long, default_value_t = 1, value_parser = nodes)]
    pub redis_nodes: usize,
    /// 3: a cluster
    #[arg(long, default_value_t = 1, value_parser = nodes)]
    pub rabbitmq_nodes: usize,
    /// Items per second
    #[arg(long, default_value_t = 80.0)]
    pub rate: f64,
    /// Business accounts
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(3..1000))]
    pub accounts: u64,
    /// No faults: whether it stays as quick and as small as it begins
    #[arg(long)]
    pub calm: bool,
    /// Where the history goes; default: a new folder below the temporary one
    #[arg(long)]
    pub folder: Option<PathBuf>,
}

impl Plan {
    /// What strikes when, on this machine.
    pub fn schedule(&self) -> Vec<String> {
        let targets = Targets {
            ingress: self.ingress as usize,
            workers: self.workers as usize,
            redis_nodes: self.redis_nodes,
            rabbitmq_nodes: self.rabbitmq_nodes,
            small_disk: can_mount(),
        };
        let planned = self.planned(self.seed.unwrap_or_default(), targets);
        let lines = planned.iter().map(|fault| {
            let (at, lasts) = (fault.at.as_secs_f64(), fault.lasts.as_secs_f64());
            format!("{at:>8.1} s  for {lasts:>4.1} s  {fault}")
        });
        lines.collect()
    }

    fn planned(&self, seed: u64, targets: Targets) -> Vec<Planned> {
        match self.calm {
            true => Vec::new(),
            false => schedule(seed, self.length(), targets),
        }
    }

    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    fn folder(&self, seed: u64) -> PathBuf {
        let own = || std::env::temp_dir().join(format!("chaos-{seed}-{}", history::now()));
        self.folder.clone().unwrap_or_else(own)
    }

    fn command(&self, seed: u64) -> String {
        let Self {
            minutes,
            ingress,
            workers,
            redis_nodes,
            rabbitmq_nodes,
            rate,
            accounts,
            ..
        } = self;
        let calm = if self.calm { " --calm" } else { "" };
        format!(
            "deploy/local/chaos.sh --minutes {minutes} --seed {seed} --ingress {ingress} \
             --workers {workers} --redis-nodes {redis_nodes} --rabbitmq-nodes {rabbitmq_nodes} \
             --rate {rate} --accounts {accounts}{calm}"
        )
    }
}

fn nodes(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1 or 3".to_owned()),
    }
}

/// Runs; `tell` gets a line now and then.
///
/// # Errors
/// A server can't be started, or doesn't come back.
pub async fn run(plan: &Plan, tell: impl Fn(&str)) -> anyhow::Result<Report> {
    let seed = plan
        .seed
        .unwrap_or_else(|| rand::random_range(0..1_000_000));
    let history = Arc::new(History::start(&plan.folder(seed))?);
    tell(&format!(
        "seed {seed}, history in {}",
        history.folder().display()
    ));
    let size = Size {
        ingress: plan.ingress as usize,
        workers: plan.workers as usize,
        redis_nodes: plan.redis_nodes,
        rabbitmq_nodes: plan.rabbitmq_nodes,
    };
    let scene = Arc::new(Scene::start(size).await?);
    let planned = plan.planned(seed, scene.targets);
    tell(&format!("{} faults in {:?}", planned.len(), plan.length()));
    let consumers = Consumers::start(&scene.amqp_url, &history);
    let stop = CancellationToken::new();
    let sending = {
        let load = Load {
            accounts: plan.accounts as usize,
            rate: plan.rate,
        };
        let (scene, history, stop) = (scene.clone(), history.clone(), stop.clone());
        tokio::spawn(async move { sender::send(&scene, &history, load, seed, &stop).await })
    };
    let started = Instant::now();
    let striking = strike(&scene, &history, &planned, started);
    let memory = Mutex::default();
    let watching = watch(&scene, &history, &consumers, started, &tell, &memory);
    let struck = async {
        striking.await?;
        tokio::time::sleep_until(started + plan.length()).await;
        anyhow::Ok(())
    };
    tokio::select! {
        struck = struck => struck?,
        () = watching => {}
    }
    stop.cancel();
    let healed = Instant::now();
    tell("all is healed; waiting until nothing is left to do");
    let mut violations = drain(&scene, &history, &consumers, &tell, &sending).await;
    sending.abort();
    let drained = healed.elapsed();
    let judged = judge(&scene, &history, &consumers).await;
    scene.keep_logs(history.folder()).await?;
    let (mut findings, raw_objects, files) = judged?;
    violations.extend(logs(&scene).await);
    let odd = history.oddities().into_iter();
    violations.extend(odd.map(|what| Violation { kind: "odd", what }));
    violations.append(&mut findings.violations);
    findings.violations = violations;
    let report = report(
        plan,
        seed,
        &scene,
        &history,
        findings,
        (raw_objects, files),
        drained,
    );
    let report = Report {
        memory: memory.into_inner().unwrap_or_else(PoisonError::into_inner),
        ..report
    };
    let file = history.folder().join("report.json");
    std::fs::write(file, serde_json::to_string_pretty(&report)?)?;
    Ok(report)
}

/// Lets each fault happen at its time.
async fn strike(
    scene: &Scene,
    history: &History,
    planned: &[Planned],
    started: Instant,
) -> anyhow::Result<()> {
    let faults = planned.iter().map(async |fault| {
        tokio::time::sleep_until(started + fault.at).await;
        let mut number = None;
        let begun = || {
            number = Some(history.fault_begins(fault.to_string(), fault.may_repeat()));
        };
        let healed = scene
            .suffer(fault, begun, tokio::time::sleep(fault.lasts))
            .await;
        if let Some(number) = number {
            history.fault_ends(number);
        }
        healed
    });
    futures::future::try_join_all(faults).await.map(drop)
}

/// Plays the supervisor, and tells how it goes, for ever.
async fn watch(
    scene: &Scene,
    history: &History,
    consumers: &Consumers,
    started: Instant,
    tell: &impl Fn(&str),
    memory: &Mutex<Vec<Memory>>,
) {
    let mut told = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for ended in scene.supervise().await {
            history.odd(ended);
        }
        let seen = memory.lock().map_or(0, |memory| memory.len());
        if started.elapsed() >= MINUTE * (seen as u32 + 1) {
            let now = scene.memory().await;
            memory.lock().expect("not poisoned").push(now);
        }
        if told.elapsed() < PROGRESS {
            continue;
        }
        told = Instant::now();
        let (accepted, posts) = history.progress();
        let faults = history.faults_now().join(", ");
        tell(&format!(
            "{:>5} s  {posts} posts, {accepted} accepted, {} events   {faults}",
            started.elapsed().as_secs(),
            consumers.count(),
        ));
    }
}

/// Waits until all is accepted and nothing is left to do, or nothing moves any more.
async fn drain(
    scene: &Scene,
    history: &History,
    consumers: &Consumers,
    tell: &impl Fn(&str),
    sending: &tokio::task::JoinHandle<()>,
) -> Vec<Violation> {
    let mut last = (String::new(), 0, 0);
    let (mut moved, mut told) = (Instant::now(), Instant::now());
    loop {
        for ended in scene.supervise().await {
            history.odd(ended);
        }
        let backlog = match remains::backlog(scene).await {
            Ok(backlog) if backlog.is_empty() && sending.is_finished() => return Vec::new(),
            Ok(backlog) => backlog.to_string(),
            Err(error) => format!("{error:#}"),
        };
        let now = (backlog, consumers.count(), history.progress().0);
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        if moved.elapsed() > PATIENCE {
            let unsent = if sending.is_finished() {
                ""
            } else {
                ", not all accepted"
            };
            let what = format!("nothing moves any more: {}{unsent}", last.0);
            return vec![Violation {
                kind: "stuck",
                what,
            }];
        }
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            tell(&format!("left: {}", last.0));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// What the checkers find, and how many raw objects and files there are.
async fn judge(
    scene: &Scene,
    history: &History,
    consumers: &Consumers,
) -> anyhow::Result<(Findings, usize, usize)> {
    let mut faults = history.all_faults();
    faults.extend(told_causes(scene).await);
    let mut seen = Seen {
        items: history.all_items(),
        posts: history.all_posts(),
        faults,
        received: consumers.all(),
        set_aside: remains::set_aside(&scene.webhooks).await?,
        spooled: scene.spooled().await,
        queued: remains::queued(scene).await?,
        told: remains::told(scene),
    };
    let end = Instant::now() + SETTLING;
    let mut findings = loop {
        let findings = model::check(&seen);
        let missing = |one: &Violation| ["lost", "follow-up"].contains(&one.kind);
        // What was acknowledged may be on its way to us.
        if Instant::now() > end || !findings.violations.iter().any(missing) {
            break findings;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        seen.received = consumers.all();
    };
    let (raw_objects, wrong) =
        remains::archive(&scene.webhooks, &seen.items, &seen.posts, &seen.received).await?;
    findings.violations.extend(wrong);
    let (files, wrong) = remains::files(&scene.media, &seen.items, &seen.received).await?;
    findings.violations.extend(wrong);
    findings.violations.extend(left_over(scene).await?);
    Ok((findings, raw_objects, files))
}

/// What workers tell themselves of why they may have to publish again, besides the faults of the plan: on a
/// machine that is slow enough a lease ends, or a confirm is missing, without one.
const TOLD_CAUSES: [(&str, &str); 3] = [
    ("lost a partition", "lost a lease"),
    ("a lease could not be renewed in time", "lost a lease"),
    ("confirms are missing", "had no confirm in time"),
];
/// Two leases: a worker without a processor tells of its loss after its heir has published.
const TOLD_AFTER: Millis = 6000;

async fn told_causes(scene: &Scene) -> Vec<Fault> {
    let mut told = Vec::new();
    for (n, worker) in scene.workers.iter().enumerate() {
        let log = worker.lock().await.log();
        let causes = log.lines().filter_map(told_cause);
        told.extend(causes.map(|(ended, cause)| Fault {
            name: format!("worker {} {cause}", n + 1),
            may_repeat: true,
            began: ended - TOLD_AFTER,
            ended,
        }));
    }
    told
}

fn told_cause(line: &str) -> Option<(Millis, &'static str)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let message = line["message"].as_str()?;
    let (_, cause) = TOLD_CAUSES.iter().find(|(told, _)| *told == message)?;
    let at = humantime::parse_rfc3339(line["timestamp"].as_str()?).ok()?;
    let since = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some((since.as_millis() as Millis, cause))
}

/// Partitions that are being handed over have a moment, and so has RabbitMQ to count its queues.
async fn left_over(scene: &Scene) -> anyhow::Result<Vec<Violation>> {
    let end = Instant::now() + SETTLING;
    loop {
        let mut left = remains::left_over(scene).await?;
        left.extend(remains::in_queues(scene).await?);
        if left.is_empty() || Instant::now() > end {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What the logs shouldn't have.
async fn logs(scene: &Scene) -> Vec<Violation> {
    let (mut logs, mut leaks) = (Vec::new(), Vec::new());
    for ingress in &scene.ingress {
        let mut ingress = ingress.lock().await;
        logs.push(ingress.log());
        leaks.extend(ingress.leaks());
    }
    for worker in &scene.workers {
        let mut worker = worker.lock().await;
        logs.push(worker.log());
        leaks.extend(worker.leaks());
    }
    let lines = logs.iter().flat_map(|log| log.lines());
    let panics = lines.filter(|line| line.contains("panicked"));
    let panics = panics.map(|line| Violation {
        kind: "panic",
        what: line.to_owned(),
    });
    let leaks = leaks
        .into_iter()
        .map(|what| Violation { kind: "log", what });
    panics.chain(leaks).collect()
}

fn report(
    plan: &Plan,
    seed: u64,
    scene: &Scene,
    history: &History,
    findings: Findings,
    (raw_objects, files): (usize, usize),
    drained: Duration,
) -> Report {
    let posts = history.all_posts();
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for post in &posts {
        let answer = post.answer.as_ref().map(|answer| answer.status.to_string());
        *answers
            .entry(answer.unwrap_or_else(|| "none".to_owned()))
            .or_default() += 1;
    }
    let mut faults: BTreeMap<String, usize> = BTreeMap::new();
    for fault in history.all_faults() {
        let name: String = fault.name.chars().filter(|c| !c.is_ascii_digit()).collect();
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        *faults.entry(name).or_default() += 1;
    }
    let mut left_out = Vec::new();
    if !scene.targets.small_disk {
        left_out.push("a full disk: a tmpfs can't be mounted here, which takes root".to_owned());
    }
    Report {
        command: plan.command(seed),
        seed,
        build: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        servers: format!(
            "{} ingress, {} workers, {} Redis, {} RabbitMQ, 1 store",
            plan.ingress, plan.workers, scene.targets.redis_nodes, scene.targets.rabbitmq_nodes
        ),
        seconds: plan.length().as_secs(),
        drain_seconds: drained.as_secs(),
        posts: posts.len(),
        answers,
        items: history.all_items().len(),
        faults,
        raw_objects,
        files,
        findings,
        memory: Vec::new(),
        left_out,
        folder: history.folder().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_read_from_a_worker_s_log() {
        let line = |message: &str| {
            let at = "1970-01-01T00:00:02.500000Z";
            serde_json::json!({"timestamp": at, "level": "WARN", "message": message}).to_string()
        };
        let lost = told_cause(&line("lost a partition"));
        assert_eq!(lost, Some((2500, "lost a lease")));
        assert_eq!(told_cause(&line("left a partition")), None);
        assert_eq!(told_cause("Error: no JSON"), None);
    }
}
