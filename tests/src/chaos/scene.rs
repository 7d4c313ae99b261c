//! The servers, the programs, and the proxies between them; and what a fault does to them.

use std::collections::HashSet;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use futures::future::{join_all, try_join_all};
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use url::Url;

use super::report::Memory;
use super::schedule::{Action, Link, Planned, Target, Targets};
use crate::bench::machine::memory_mb;
use crate::neighbours::{Fault as Misbehaviour, Neighbours};
use crate::programs::{Ingress, Program, Until, Worker};
use crate::proxy::{Mode, Proxy};
use crate::servers::redis::can_mount;
use crate::servers::{RabbitMq, Redis, RedisCluster, RedisOptions, S3, Vhost, cluster};
use crate::store::Store;
use crate::waiting::poll;

const START: Duration = Duration::from_secs(90);
/// What Kubernetes gives a pod between SIGTERM and SIGKILL.
const TERMINATION: Duration = Duration::from_secs(30);
const DISK_MB: u32 = 256;
/// Files beyond it are too large for the workers.
pub const MEDIA_MAX_BYTES: usize = 500_000;
/// A worker that was killed is missed after this.
const LEASE_TTL: &str = "3s";
const WEBHOOKS: &str = "webhooks-inbound";
const MEDIA: &str = "media-inbound";

/// How many of what.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub ingress: usize,
    pub workers: usize,
    pub redis_nodes: usize,
    pub rabbitmq_nodes: usize,
}

/// All of it, running. What a fault may replace is behind a lock, which is held as long as the fault.
pub struct Scene {
    pub ingress: Vec<Mutex<Ingress>>,
    pub workers: Vec<Mutex<Worker>>,
    redis: Vec<Mutex<Redis>>,
    /// What `REDIS_URL` is.
    redis_url: String,
    rabbitmq: Vec<Mutex<RabbitMq>>,
    pub store: Mutex<S3>,
    links: Vec<(Link, Proxy)>,
    pub neighbours: Neighbours,
    /// Past the proxy that faults happen to
    pub amqp_url: String,
    _balancer: Proxy,
    pub webhooks: Store,
    pub media: Store,
    pub targets: Targets,
    vhost: Vhost,
}

impl Scene {
    /// Starts everything (10 to 20 s).
    ///
    /// # Errors
    /// A part can't be started.
    pub async fn start(size: Size) -> anyhow::Result<Self> {
        let small_disk = can_mount();
        let disk_mb = small_disk.then_some(DISK_MB);
        let (redis, rabbitmq, store, neighbours) = tokio::try_join!(
            redis_nodes(size.redis_nodes, disk_mb),
            RabbitMq::start_cluster(size.rabbitmq_nodes),
            S3::start(),
            Neighbours::start()
        )?;
        let vhost = rabbitmq[0].vhost().await?;
        let brokers: Vec<_> = rabbitmq.iter().map(RabbitMq::address).collect();
        let balancer = Proxy::start_before(brokers.clone()).await?;
        let mut links = Vec::new();
        for link in Link::ALL {
            let upstreams = match link {
                Link::IngressToRedis | Link::WorkersToRedis => vec![redis[0].address()],
                Link::WorkersToRabbitMq => brokers.clone(),
                Link::ToStore => vec![store.address()],
                Link::WorkersToGraph => vec![neighbours.address().to_string()],
            };
            links.push((link, Proxy::start_before(upstreams).await?));
        }
        let urls: Vec<_> = redis.iter().map(Redis::url).collect();
        let mut scene = Self {
            ingress: Vec::new(),
            workers: Vec::new(),
            webhooks: Store::new(store.access(), WEBHOOKS),
            media: Store::new(store.access(), MEDIA),
            amqp_url: at(&vhost.url(), &balancer)?,
            _balancer: balancer,
            redis: redis.into_iter().map(Mutex::new).collect(),
            redis_url: urls.join(","),
            rabbitmq: rabbitmq.into_iter().map(Mutex::new).collect(),
            store: Mutex::new(store),
            links,
            neighbours,
            targets: Targets {
                ingress: size.ingress,
                workers: size.workers,
                redis_nodes: size.redis_nodes,
                rabbitmq_nodes: size.rabbitmq_nodes,
                small_disk,
            },
            vhost,
        };
        for _ in 0..size.ingress {
            let ingress = scene.start_ingress().await?;
            scene.ingress.push(Mutex::new(ingress));
        }
        for _ in 0..size.workers {
            let worker = scene.start_worker().await?;
            scene.workers.push(Mutex::new(worker));
        }
        scene.ready().await?;
        Ok(scene)
    }

    /// Queues are declared, and all are well.
    async fn ready(&self) -> anyhow::Result<()> {
        for worker in &self.workers {
            let worker = worker.lock().await;
            let ready = async || {
                let answer = worker.get("/ready").await;
                answer
                    .is_ok_and(|(status, _)| status.is_success())
                    .then_some(())
            };
            let ready = poll(START, ready).await;
            ready.context("a worker isn't ready with all servers there")?;
        }
        Ok(())
    }

    /// Clients of a cluster learn its nodes' own addresses, past a proxy.
    fn redis_url(&self, link: Link) -> String {
        match self.redis.len() {
            1 => format!("redis://{}", self.through(link)),
            _ => self.redis_url.clone(),
        }
    }

    async fn start_ingress(&self) -> anyhow::Result<Ingress> {
        let access = self.store.lock().await.access().clone();
        let redis_url = self.redis_url(Link::IngressToRedis);
        Ingress::builder(&redis_url)
            .env("MINIO_ENDPOINT", self.store_endpoint())
            .env("MINIO_ACCESS_KEY", &access.access_key)
            .env("MINIO_SECRET_KEY", &access.secret_key)
            .env("MINIO_WEBHOOK_BUCKET", WEBHOOKS)
            .env("LOG_LEVEL", "info,ingress::request=debug")
            .until(Until::Healthy)
            .try_start()
            .await
    }

    async fn start_worker(&self) -> anyhow::Result<Worker> {
        let access = self.store.lock().await.access().clone();
        let redis_url = self.redis_url(Link::WorkersToRedis);
        let amqp_url = at(&self.amqp_url, self.proxy(Link::WorkersToRabbitMq))?;
        let neighbours = self.neighbours.url();
        Worker::builder(&redis_url, &amqp_url, &access, &neighbours)
            .env("MINIO_ENDPOINT", self.store_endpoint())
            .env("MINIO_PUBLIC_ENDPOINT", &access.endpoint)
            .env("MINIO_WEBHOOK_BUCKET", WEBHOOKS)
            .env("MINIO_MEDIA_BUCKET", MEDIA)
            .env(
                "GRAPH_BASE_URL",
                format!("http://{}", self.through(Link::WorkersToGraph)),
            )
            .env("STATE_MANAGER_URL", &neighbours)
            .env("LEASE_TTL", LEASE_TTL)
            .env("MEDIA_MAX_BYTES", MEDIA_MAX_BYTES)
            .until(Until::Healthy)
            .try_start()
            .await
    }

    fn store_endpoint(&self) -> String {
        format!("http://{}", self.through(Link::ToStore))
    }

    fn through(&self, link: Link) -> String {
        self.proxy(link).address().to_string()
    }

    fn proxy(&self, link: Link) -> &Proxy {
        let found = self.links.iter().find(|(own, _)| *own == link);
        &found.expect("every link has a proxy").1
    }

    /// Carries a fault out: strikes, waits for `until`, heals. Waits for an earlier fault of the same
    /// target first; `begun` is called when it strikes.
    ///
    /// # Errors
    /// Something didn't come back.
    pub async fn suffer(
        &self,
        fault: &Planned,
        begun: impl FnOnce(),
        until: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        match fault.target {
            Target::Ingress(n) => {
                let mut ingress = self.ingress[n].lock().await;
                begun();
                program(&mut ingress, &fault.action, until).await
            }
            Target::Worker(n) => {
                let mut worker = self.workers[n].lock().await;
                begun();
                program(&mut worker, &fault.action, until).await
            }
            Target::Redis(n) => {
                let mut redis = self.redis[n].lock().await;
                begun();
                redis_suffers(&mut redis, &fault.action, until).await
            }
            Target::RabbitMq(n) => {
                let mut rabbitmq = self.rabbitmq[n].lock().await;
                begun();
                rabbitmq_suffers(&mut rabbitmq, &fault.action, until).await
            }
            Target::Store => {
                let mut store = self.store.lock().await;
                begun();
                if fault.action == Action::Freeze {
                    store.signal("STOP");
                    until.await;
                    store.signal("CONT");
                    return Ok(());
                }
                store.kill();
                until.await;
                store.restart().await.context("the store")
            }
            Target::Link(link) => {
                begun();
                let Action::Network(mode) = &fault.action else {
                    return Ok(());
                };
                self.proxy(link).set(mode.clone());
                until.await;
                self.proxy(link).set(Mode::Pass);
                Ok(())
            }
            Target::Neighbour(service) => {
                begun();
                let Action::Misbehave(misbehaviour) = &fault.action else {
                    return Ok(());
                };
                self.neighbours.set_fault(service, *misbehaviour);
                until.await;
                self.neighbours.set_fault(service, Misbehaviour::None);
                Ok(())
            }
            Target::Everything => self.die_together(begun, until).await,
        }
    }

    /// As when the host is started again.
    async fn die_together(
        &self,
        begun: impl FnOnce(),
        until: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let mut ingress = all(&self.ingress).await;
        let mut workers = all(&self.workers).await;
        let (mut redis, mut rabbitmq) = (all(&self.redis).await, all(&self.rabbitmq).await);
        let mut store = self.store.lock().await;
        begun();
        ingress.iter_mut().for_each(|ingress| ingress.kill());
        workers.iter_mut().for_each(|worker| worker.kill());
        redis.iter_mut().for_each(|redis| redis.kill());
        rabbitmq.iter_mut().for_each(|rabbitmq| rabbitmq.kill());
        store.kill();
        until.await;
        // All at once: whoever is up first waits for what it needs.
        let servers = async {
            let redis = try_join_all(redis.iter_mut().map(|redis| redis.restart()));
            let rabbitmq = try_join_all(rabbitmq.iter_mut().map(|node| node.restart()));
            tokio::try_join!(redis, rabbitmq, store.restart()).map(drop)
        };
        let ingress = join_all(ingress.iter_mut().map(|one| one.restart()));
        let workers = join_all(workers.iter_mut().map(|one| one.restart()));
        tokio::join!(servers, ingress, workers).0
    }

    /// A connection to where a key lies.
    ///
    /// # Errors
    /// It is away.
    pub async fn redis_for(&self, key: &str) -> anyhow::Result<MultiplexedConnection> {
        let mut connection = self.redis[0].lock().await.try_connection().await?;
        if self.redis.len() == 1 {
            return Ok(connection);
        }
        let slot = redis::cmd("CLUSTER").arg(&["KEYSLOT", key]).to_owned();
        let slot: u16 = slot.query_async(&mut connection).await?;
        let node = usize::from(slot / (cluster::SLOTS / self.redis.len() as u16));
        let node = node.min(self.redis.len() - 1);
        Ok(self.redis[node].lock().await.try_connection().await?)
    }

    /// Correlation ids of the webhooks that went to the spool, all or in part.
    pub async fn spooled(&self) -> HashSet<String> {
        let mut spooled = HashSet::new();
        for ingress in &self.ingress {
            let lines = ingress.lock().await.log_lines();
            let lines = lines
                .iter()
                .filter(|line| line["message"] == "webhook spooled");
            let ids = lines.filter_map(|line| line["correlation_id"].as_str());
            spooled.extend(ids.map(str::to_owned));
        }
        spooled
    }

    /// What RabbitMQ says of the queues.
    ///
    /// # Errors
    /// It is away.
    pub async fn queues(&self) -> anyhow::Result<Value> {
        let broker = self.rabbitmq[0].lock().await.broker();
        broker
            .get(&format!("/api/queues/{}", self.vhost.name))
            .await
    }

    /// What the programs have now; nothing of one that doesn't run.
    pub async fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for ingress in &self.ingress {
            let now = memory_mb(ingress.lock().await.process().id()).unwrap_or(0.0);
            memory.ingress_mb = memory.ingress_mb.max(now);
        }
        for worker in &self.workers {
            let now = memory_mb(worker.lock().await.process().id()).unwrap_or(0.0);
            memory.worker_mb = memory.worker_mb.max(now);
        }
        memory
    }

    /// Starts a program again that ended by itself, as a supervisor does. What it logged at last, of
    /// each that had.
    pub async fn supervise(&self) -> Vec<String> {
        let mut ended = Vec::new();
        for (n, ingress) in self.ingress.iter().enumerate() {
            if let Ok(mut ingress) = ingress.try_lock() {
                ended.extend(raise(&mut ingress, &format!("ingress {}", n + 1)).await);
            }
        }
        for (n, worker) in self.workers.iter().enumerate() {
            if let Ok(mut worker) = worker.try_lock() {
                ended.extend(raise(&mut worker, &format!("worker {}", n + 1)).await);
            }
        }
        ended
    }

    /// Copies the logs of programs and servers.
    ///
    /// # Errors
    /// A file can't be written.
    pub async fn keep_logs(&self, folder: &Path) -> anyhow::Result<()> {
        for (n, ingress) in self.ingress.iter().enumerate() {
            let log = ingress.lock().await.log();
            std::fs::write(folder.join(format!("ingress-{}.log", n + 1)), log)?;
        }
        for (n, worker) in self.workers.iter().enumerate() {
            let log = worker.lock().await.log();
            std::fs::write(folder.join(format!("worker-{}.log", n + 1)), log)?;
        }
        for (n, redis) in self.redis.iter().enumerate() {
            let log = redis.lock().await.log();
            std::fs::write(folder.join(format!("redis-{}.log", n + 1)), log)?;
        }
        for (n, rabbitmq) in self.rabbitmq.iter().enumerate() {
            let log = rabbitmq.lock().await.log();
            std::fs::write(folder.join(format!("rabbitmq-{}.log", n + 1)), log)?;
        }
        Ok(())
    }
}

async fn raise(program: &mut Program, name: &str) -> Option<String> {
    if program.is_running() {
        return None;
    }
    let tail = program.process().log_tail(3);
    program.restart().await;
    Some(format!("{name} ended by itself: {tail}"))
}

async fn program(
    program: &mut Program,
    action: &Action,
    until: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    match action {
        Action::Freeze => {
            program.signal("STOP");
            until.await;
            program.signal("CONT");
        }
        Action::Terminate => {
            let ended = program.stop(TERMINATION).await;
            anyhow::ensure!(
                ended,
                "it didn't end within {TERMINATION:?} of SIGTERM, or not in order: {}",
                program.process().log_tail(3)
            );
            program.restart().await;
        }
        _ => {
            program.kill();
            until.await;
            program.restart().await;
        }
    }
    Ok(())
}

/// A single Redis, or a cluster that shares the slots out evenly.
async fn redis_nodes(nodes: usize, disk_mb: Option<u32>) -> anyhow::Result<Vec<Redis>> {
    let options = RedisOptions {
        disk_mb,
        ..RedisOptions::default()
    };
    if nodes == 1 {
        return Ok(vec![Redis::start(options).await?]);
    }
    Ok(RedisCluster::of(nodes, options).await?.into_nodes())
}

/// A URL with the address of a proxy.
fn at(url: &str, proxy: &Proxy) -> anyhow::Result<String> {
    let mut url = Url::parse(url)?;
    let port = Some(proxy.address().port());
    let set = url.set_port(port);
    set.map_err(|()| anyhow::anyhow!("a URL without a port"))?;
    Ok(url.into())
}

async fn all<T>(locked: &[Mutex<T>]) -> Vec<MutexGuard<'_, T>> {
    join_all(locked.iter().map(Mutex::lock)).await
}

async fn redis_suffers(
    redis: &mut Redis,
    action: &Action,
    until: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    match action {
        Action::Freeze => {
            redis.signal("STOP");
            until.await;
            redis.signal("CONT");
            Ok(())
        }
        Action::NoMemory => {
            let mut connection = redis.try_connection().await?;
            let mut maxmemory = async |value: &str| {
                let mut set = redis::cmd("CONFIG");
                set.arg(&["SET", "maxmemory", value]);
                set.exec_async(&mut connection).await
            };
            maxmemory("1mb").await?;
            until.await;
            Ok(maxmemory("4gb").await?)
        }
        Action::DiskFull => {
            redis.fill_disk()?;
            until.await;
            // It may not have written anything meanwhile, and so still be there.
            redis.kill();
            redis.empty_disk()?;
            redis.restart().await.context("Redis")
        }
        _ => {
            redis.kill();
            until.await;
            redis.restart().await.context("Redis")
        }
    }
}

async fn rabbitmq_suffers(
    rabbitmq: &mut RabbitMq,
    action: &Action,
    until: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    match action {
        Action::Freeze => {
            rabbitmq.signal("STOP");
            until.await;
            rabbitmq.signal("CONT");
            Ok(())
        }
        Action::MemoryAlarm => {
            let watermark = "set_vm_memory_high_watermark";
            rabbitmq.control(&[watermark, "0"]).await?;
            until.await;
            rabbitmq.control(&[watermark, "0.4"]).await
        }
        _ => {
            rabbitmq.kill();
            until.await;
            rabbitmq.restart().await.context("RabbitMQ")
        }
    }
}
