//! Whatever a neighbour, the store, the broker or Redis answers: nothing ends, nothing grows without end,
//! and once all is well again each message is an event, or visibly somewhere.
//!
//! `ODD_SECONDS` says for how long odd things are answered, `ODD_SEED` which; they are written to `ODD_LOG`,
//! the programs' logs to the folder `ODD_LOGS`. See docs/reliability.md.

use std::collections::HashSet;
use std::env;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tests::Stage;
use tests::events::Events;
use tests::meta::payload::{self, Number};
use tests::odd::{Head, OddProxy, Odds};
use tests::programs::{Builder, Ingress, Program, Until, Worker};
use tests::proxy::{Mode, Proxy};
use tests::waiting::{eventually, poll};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::SOON;
use crate::hostile::peak_memory_mb;

const SEED: u64 = 17;
const SECONDS: u64 = 60;
/// Of each of [`ROUTES`], at least.
const ODD_ANSWERS: u64 = 200;
const ROUTES: [&str; 11] = [
    "tenants",
    "state mapping",
    "state message",
    "graph media",
    "graph number",
    "graph subscribed_apps",
    "download",
    "worker PUT archive",
    "amqp",
    "redis of the worker",
    "redis of ingress",
];
/// Debug builds.
const MOST_MEMORY_MB: u64 = 512;
/// All is well again, and what was put off has been done.
const HEALED: Duration = Duration::from_secs(150);
/// Accounts that get right answers begin so.
const WELL: &str = "18888888888888";
const BETWEEN_POSTS: Duration = Duration::from_millis(45);

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn neighbour(head: &Head) -> Option<String> {
    if head.target.contains(WELL) {
        return None;
    }
    let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
    let route = match path.split('/').nth(1) {
        Some("tenants") => "tenants",
        Some("state") if head.method == "POST" => "state message",
        Some("state") => "state mapping",
        Some("_download") => "download",
        _ if path.ends_with("subscribed_apps") => "graph subscribed_apps",
        _ if query.contains("fields=") => "graph number",
        _ => "graph media",
    };
    Some(route.to_owned())
}

fn store(head: &Head) -> &'static str {
    let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
    let mut segments = path.split('/').skip(1);
    let is_media = segments.next().is_some_and(|it| it.starts_with("media-"));
    let folder = segments.next().unwrap_or_default();
    match (head.method.as_str(), folder) {
        _ if head.copies => "COPY",
        ("GET", _) if query.contains("list-type") => "LIST",
        ("GET", "spool") => "GET spool",
        ("GET", "failed") => "GET failed",
        ("GET", _) => "GET",
        ("PUT", "") => "PUT bucket",
        ("PUT", "spool") => "PUT spool",
        ("PUT", "failed") => "PUT failed",
        ("PUT", _) if is_media => "PUT media",
        ("PUT", _) => "PUT archive",
        ("HEAD", _) => "HEAD",
        ("DELETE", _) => "DELETE",
        _ => "other",
    }
}

fn store_of_worker(head: &Head) -> Option<String> {
    Some(format!("worker {}", store(head)))
}

fn store_of_ingress(head: &Head) -> Option<String> {
    Some(format!("ingress {}", store(head)))
}

fn host(url: &str) -> &str {
    url.trim_start_matches("http://").trim_end_matches('/')
}

/// `host:port`
fn broker(stage: &Stage) -> &str {
    let after = stage.amqp_url.split('@').nth(1).expect("with a user");
    after.split('/').next().unwrap_or(after)
}

/// A worker with one connection to the broker, through a proxy.
fn worker_through(stage: &Stage, proxy: &OddProxy) -> Builder<Worker> {
    let proxied = stage
        .amqp_url
        .replace(broker(stage), &proxy.address().to_string());
    let worker = stage.worker().env("AMQP_URL", proxied);
    worker.env("AMQP_CHANNELS", 1)
}

/// The programs, with an odd proxy in front of everything that they ask.
struct Scene {
    stage: Stage,
    odds: Arc<Odds>,
    ingress: Ingress,
    worker: Worker,
    events: Events,
    _proxies: Vec<OddProxy>,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn start(seed: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let odds = Odds::new(seed, &log_path(&folder))?;
        let stage = Stage::new().await;
        let s3 = host(&stage.s3.endpoint);
        let amqp = broker(&stage);
        let of_ingress =
            OddProxy::redis(stage.redis.address(), &odds, "redis of ingress", 15).await?;
        let of_worker =
            OddProxy::redis(stage.redis.address(), &odds, "redis of the worker", 2).await?;
        let (spool, objects) = (
            OddProxy::http(s3, &odds, store_of_ingress).await?,
            OddProxy::http(s3, &odds, store_of_worker).await?,
        );
        let neighbours = stage.neighbours.address().to_string();
        let neighbours = OddProxy::http(neighbours, &odds, neighbour).await?;
        let broker = OddProxy::amqp(amqp, &odds).await?;
        let worker = stage
            .worker()
            .env("REDIS_URL", format!("redis://{}", of_worker.address()))
            .env(
                "AMQP_URL",
                stage.amqp_url.replace(amqp, &broker.address().to_string()),
            )
            .env("AMQP_CHANNELS", 16)
            .env("CONFIRM_TIMEOUT", "1s")
            .env("MINIO_ENDPOINT", objects.url())
            .env("TENANT_SERVICE_URL", neighbours.url())
            .env("TENANT_CACHE_TTL", "1s")
            .env("STATE_MANAGER_URL", neighbours.url())
            .env("GRAPH_BASE_URL", neighbours.url())
            .env("MEDIA_ALLOWED_HOSTS", neighbours.url())
            .env("MEDIA_DEADLINE", "1s");
        let ingress = stage
            .spooling_ingress()
            .env("REDIS_URL", format!("redis://{}", of_ingress.address()))
            .env("MINIO_ENDPOINT", spool.url());
        let (worker, ingress) = (worker.start().await, ingress.start().await);
        Ok(Self {
            events: stage.events(),
            stage,
            odds,
            ingress,
            worker,
            _proxies: vec![of_ingress, of_worker, spool, objects, neighbours, broker],
            _folder: folder,
        })
    }

    /// Posts, and lets commands look, for so long, and until each route has answered enough; the ids of
    /// the messages that were taken.
    async fn odd_phase(&self, lasts: Duration) -> Posted {
        let (posted, until) = (Posted::default(), Instant::now() + lasts);
        self.odds.begin();
        let posting = self.post(&posted);
        let watching = async {
            let looking = async {
                loop {
                    self.command("doctor").await;
                    self.command("inspect").await;
                }
            };
            let living = async {
                loop {
                    lives(&self.ingress).await;
                    lives(&self.worker).await;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            };
            let enough = async {
                tokio::time::sleep_until(until).await;
                poll(HEALED, async || self.rare_routes().is_empty().then_some(())).await
            };
            tokio::select! {
                never = async { tokio::join!(looking, living).0 } => never,
                enough = enough => enough,
            }
        };
        tokio::select! {
            () = posting => {}
            enough = watching => {
                assert!(enough.is_some(), "seldom asked: {:?}", self.rare_routes());
            }
        }
        self.odds.end();
        posted
    }

    fn rare_routes(&self) -> Vec<&'static str> {
        let rare = ROUTES.into_iter();
        rare.filter(|route| self.odds.odd(route) < ODD_ANSWERS)
            .collect()
    }

    /// Posts texts and pictures of well accounts and others, without end.
    async fn post(&self, posted: &Posted) {
        let sender = self.stage.sender(&self.ingress);
        let mut posts = JoinSet::new();
        for n in 0_usize.. {
            let number = match n % 8 {
                0 => Number::of(format!("{WELL}{:04}", n % 5)),
                1..4 => Number::of(format!("1{:017}", n % 40)),
                _ => Number::fresh(),
            };
            let from = format!("49151{:08}", n % 30);
            let message = match n % 8 {
                2 | 5 | 6 => payload::image(&from, &format!("{}", 1_000_000_000 + n)),
                _ => payload::text(&from, &format!("text {n}")),
            };
            let (sender, posted, taken) = (sender.clone(), posted.clone(), message.clone());
            posts.spawn(async move {
                sender.send_like_meta(number.message(message)).await;
                posted.take(&taken, number.waba_id.starts_with(WELL));
            });
            while let Some(sent) = posts.try_join_next() {
                sent.expect("it is taken");
            }
            tokio::time::sleep(BETWEEN_POSTS).await;
        }
    }

    /// Runs a command of the worker that looks at all servers: it may find anything, not end oddly.
    async fn command(&self, name: &str) -> String {
        let mut command = tokio::process::Command::from(self.worker.command());
        let output = command.arg(name).kill_on_drop(true).output().await;
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(0..=2)) && !said.contains("panicked"),
            "{name} ended with {}: {said}",
            output.status
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until all that was taken is where it may be.
    async fn accounted_for(&self, posted: &Posted) {
        let missing = async || {
            let events = self.events.all();
            let published: HashSet<&str> = events.iter().map(|event| event.wamid()).collect();
            let failed = self.stage.webhooks().list("failed").await.ok()?;
            let missing = posted.all().into_iter().filter(|(id, well)| {
                let set_aside = || failed.iter().any(|key| key.contains(id.as_str()));
                !published.contains(id.as_str()) && (*well || !set_aside())
            });
            Some(missing.map(|(id, _)| id).collect::<Vec<_>>())
        };
        let none = async || {
            // A look at all that was published takes a while.
            tokio::time::sleep(Duration::from_millis(300)).await;
            missing().await?.is_empty().then_some(())
        };
        if poll(HEALED, none).await.is_none() {
            let (missing, inspected) = (missing().await, self.command("inspect").await);
            panic!("neither published nor set aside: {missing:#?}\n{inspected}");
        }
    }
}

impl Drop for Scene {
    #[allow(
        clippy::print_stdout,
        reason = "the test framework shows it with the failed test"
    )]
    fn drop(&mut self) {
        println!("{}", self.odds.table());
        if let Some(folder) = env::var_os("ODD_LOGS") {
            for (name, log) in [
                ("ingress", self.ingress.log()),
                ("worker", self.worker.log()),
            ] {
                drop(std::fs::write(
                    std::path::Path::new(&folder).join(name),
                    log,
                ));
            }
        }
    }
}

/// Where the odd answers are written down.
fn log_path(folder: &tempfile::TempDir) -> std::path::PathBuf {
    match env::var_os("ODD_LOG") {
        Some(path) => path.into(),
        None => folder.path().join("odd.log"),
    }
}

/// It answers, and nothing in it has panicked.
async fn lives(program: &Program) {
    let log = program.log();
    if let Some((_, told)) = log.split_once("panicked") {
        panic!("{}", told.chars().take(3000).collect::<String>());
    }
    let answered = eventually(SOON, "/health answers", async || {
        program.get("/health").await.ok()
    });
    assert!(answered.await.0.is_success());
}

/// The messages that were answered 200, and whether their account is well.
#[derive(Debug, Clone, Default)]
struct Posted(Arc<Mutex<Vec<(String, bool)>>>);

impl Posted {
    fn take(&self, message: &Value, is_well: bool) {
        let id = message["id"].as_str().expect("an id").to_owned();
        self.0.lock().expect("a list").push((id, is_well));
    }

    fn all(&self) -> Vec<(String, bool)> {
        self.0.lock().expect("a list").clone()
    }
}

#[allow(
    clippy::print_stdout,
    reason = "the seed, for people who run with --nocapture or see it fail"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_answered_nothing_ends_and_nothing_is_lost() {
    let (seed, seconds) = (setting("ODD_SEED", SEED), setting("ODD_SECONDS", SECONDS));
    println!("ODD_SEED={seed} ODD_SECONDS={seconds}");
    let mut scene = Scene::start(seed).await.expect("a scene");
    let (ingress, worker) = (scene.ingress.process().id(), scene.worker.process().id());
    let posted = scene.odd_phase(Duration::from_secs(seconds)).await;
    println!("{} messages", posted.all().len());
    scene.accounted_for(&posted).await;
    for (program, id) in [(&mut *scene.ingress, ingress), (&mut *scene.worker, worker)] {
        assert!(program.is_running() && program.process().id() == id);
        lives(program).await;
        let peak_mb = peak_memory_mb(program);
        println!("{peak_mb} MB");
        assert!(peak_mb < MOST_MEMORY_MB, "{peak_mb} MB");
    }
    assert!(posted.all().len() > 100, "it was a run at all");
}

/// RabbitMQ's heartbeats notice it after minutes, if there are any.
#[tokio::test]
async fn a_connection_that_answers_no_more_is_not_used_again() {
    let stage = Stage::new().await;
    let proxy = OddProxy::frames(broker(&stage), |connection, n, frame| {
        (connection > 0 || n < 6).then_some(frame)
    });
    let proxy = proxy.await.expect("a proxy");
    let worker = worker_through(&stage, &proxy).env("CONFIRM_TIMEOUT", "1s");
    let (_worker, ingress) = (worker.start().await, stage.ingress().start().await);
    let body = Number::fresh().message(payload::text("1", "x"));
    stage.sender(&ingress).send(body).await;
    stage.events().wait_for(1, SOON).await;
}

/// How many connections a server that takes them and says nothing has had, and how many are open.
async fn silent_server() -> (SocketAddr, watch::Receiver<(usize, usize)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    let (counts, seen) = watch::channel((0, 0));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            counts.send_modify(|(all, open)| (*all, *open) = (*all + 1, *open + 1));
            let counts = counts.clone();
            tokio::spawn(async move {
                drop(tokio::io::copy(&mut client, &mut tokio::io::sink()).await);
                counts.send_modify(|(_, open)| *open -= 1);
            });
        }
    });
    (address, seen)
}

#[tokio::test]
async fn a_broker_that_says_nothing_costs_no_socket_for_each_try() {
    let stage = Stage::new().await;
    let (address, mut seen) = silent_server().await;
    let worker = stage.worker().env("AMQP_URL", format!("amqp://{address}"));
    let worker = worker.env("CONFIRM_TIMEOUT", "50ms").until(Until::Healthy);
    let _worker = worker.start().await;
    let tried = seen.wait_for(|(all, _)| *all > 5);
    drop(timeout(SOON, tried).await.expect("soon").expect("counts"));
    let left = seen.wait_for(|(_, open)| *open < 3);
    drop(timeout(SOON, left).await.expect("soon").expect("counts"));
}

/// lapin sets aside 64 frames of the size that is agreed on: 1 GB for what is named here. RabbitMQ itself
/// takes no more than its own limit, so there is a connection only if the worker has one of its own.
#[tokio::test]
async fn frames_have_a_limit_whatever_the_broker_names() {
    let stage = Stage::new().await;
    let proxy = OddProxy::frames(broker(&stage), |_, _, mut frame| {
        if frame[7..11] == [0, 10, 0, 30] {
            frame[13..17].copy_from_slice(&(16_u32 << 20).to_be_bytes());
        }
        Some(frame)
    });
    let proxy = proxy.await.expect("a proxy");
    let mut worker = worker_through(&stage, &proxy).start().await;
    let peak_mb = peak_memory_mb(&mut worker);
    assert!(peak_mb < MOST_MEMORY_MB, "{peak_mb} MB");
}

#[tokio::test]
async fn what_the_store_once_says_a_spooled_webhook_is_replaces_none() {
    let stage = Stage::new().await;
    let away = Proxy::start(stage.redis.address()).await.expect("a proxy");
    away.set(Mode::Refuse);
    let ingress = stage.spooling_ingress();
    let ingress = ingress.env("REDIS_URL", format!("redis://{}", away.address()));
    let ingress = ingress.until(Until::Healthy).start().await;
    let read = Arc::new(AtomicUsize::new(0));
    let count = read.clone();
    let odd = OddProxy::bodies(host(&stage.s3.endpoint), move |head, mut body| {
        if store(head) == "GET spool" {
            match count.fetch_add(1, Ordering::Relaxed) {
                0 => body.fill(b'#'),
                2 => *body.last_mut().expect("a byte") = b'#',
                3 => body.truncate(body.len() / 2),
                _ => {}
            }
        }
        body
    });
    let odd = odd.await.expect("a proxy");
    let worker = stage.worker().env("MINIO_ENDPOINT", odd.url());
    let _worker = worker.start().await;
    let body = Number::fresh().message(payload::text("1", "x"));
    stage.sender(&ingress).send_like_meta(body).await;
    stage.events().wait_for(1, SOON * 2).await;
    assert!(read.load(Ordering::Relaxed) > 4);
    let failed = stage.webhooks().list("failed").await;
    assert_eq!(failed.expect("the store"), Vec::<String>::new());
}
