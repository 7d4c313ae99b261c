//! The whole program: its servers and its tasks.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use prometheus_client::registry::Registry;
use shared::admin::{Admin, Readiness, TokenRoutes};
use shared::keys::Keys;
use shared::limited::LimitedAccounts;
use shared::redis::{Connection, RedisSafety, StartCheck};
use shared::status::SetAsides;
use shared::tasks::Tasks;
use shared::telemetry::SampledLog;
use shared::write_probe::WriteProbe;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::admission::rounds::AdmissionRounds;
use crate::config::{Config, Secrets};
use crate::connections;
use crate::context::{Ingress, ServingThread};
use crate::error::Log;
use crate::intake::Intake;
use crate::keep::partitions::Partitions;
use crate::keep::{Keep, SpoolWay};
use crate::metrics::Metrics;
use crate::redis_watch::watch_redis;
use crate::request_log::RequestLog;
use crate::spool::SpoolWriter;
use crate::spool_bucket::SpoolBucket;

/// How often each thread's connection to Redis is used at least.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// The two listeners, bound before anything is logged as started.
pub struct Listeners {
    pub public: TcpListener,
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds both.
    ///
    /// # Errors
    /// An address that is taken or isn't this machine's; the message names its setting.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let public = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("INGRESS_LISTEN (--listen) {}", config.listen))?;
        let admin = TcpListener::bind(config.admin_listen)
            .await
            .with_context(|| {
                format!(
                    "INGRESS_ADMIN_LISTEN (--admin-listen) {}",
                    config.admin_listen
                )
            })?;
        Ok(Self { public, admin })
    }
}

/// Answer to a write of what is only counted.
const RECORD_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs until `shutdown`, then answers what is in work.
///
/// # Errors
/// Secrets that can't be used, a partition count that isn't the deployment's, or (if required) a
/// Redis that may lose what it acknowledged. A Redis that is away is waited for.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let secrets = config
        .secrets()
        .map_err(|problems| anyhow::anyhow!("{}", problems.join("\n")))?;
    // Before whoever waits gives up, so that a connection that never answers is seen as such.
    let redis_timeout = match &secrets.store {
        Some(_) => config.redis_patience * 9 / 10,
        None => config.request_deadline * 4 / 5,
    };
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let bucket = secrets.store.clone();
    let bucket = bucket.map(|keys| SpoolBucket::open(&config, keys));
    let bucket = bucket.transpose()?;
    let check = StartCheck {
        keys: keys_of(&config),
        connection: secrets.redis.connection(redis_timeout),
        required: config.redis.require_durable_redis,
    };
    let keep = keep((&config, &secrets), &check, bucket.as_ref(), &metrics);
    let (admin, safety) = admin(&secrets, bucket.is_some(), registry);
    let ingress = Arc::new(Ingress {
        admission: Admission::new(config.admission()),
        keep,
        short_of_memory: Arc::default(),
        admin,
        metrics,
        refusals: Log::default(),
        requests: RequestLog::default(),
        over_limit_log: SampledLog::default(),
        proxied: SampledLog::default(),
        refused_log: SampledLog::default(),
        limited_accounts: LimitedAccounts::default(),
        secrets,
        config,
    });
    let (told, shutdown) = (shutdown, CancellationToken::new());
    let tasks = Tasks::new(shutdown.clone());
    spawn_helpers(&tasks, &ingress, listeners.admin, bucket, &shutdown);
    let mut watch = tasks.tracker().spawn(watch_redis(
        check,
        safety,
        ingress.clone(),
        shutdown.clone(),
    ));
    serve_all(&tasks, &ingress, listeners.public, redis_timeout)?;
    tasks.tracker().close();
    tracing::info!(listen = %ingress.config.listen, path = ingress.config.webhook_path, "ingress is up");

    let outcome = tokio::select! {
        () = leaving(&told, &ingress) => Ok(()),
        ended = &mut watch => ended.context("the probe of Redis died").and_then(|checked| checked),
        failed = tasks.failed() => Err(failed),
    };
    shutdown.cancel();
    if tokio::time::timeout(ingress.config.shutdown_grace, tasks.tracker().wait())
        .await
        .is_err()
    {
        tracing::warn!("requests were still running at the end of SHUTDOWN_GRACE");
    }
    outcome
}

/// The way into Redis, and into the spool where there is a bucket for it.
fn keep(
    (config, secrets): (&Config, &Secrets),
    check: &StartCheck,
    bucket: Option<&SpoolBucket>,
    metrics: &Metrics,
) -> Keep {
    let spool = bucket.map(|bucket| SpoolWay {
        writer: SpoolWriter::new(bucket.bucket.clone(), config.dedup_ttl),
        partitions: Partitions::new(
            (check.keys.clone(), secrets.redis.clone()),
            WriteProbe::new(check.connection.clone(), check.keys.clone()),
            metrics.away_partitions.clone(),
            metrics.redis_errors.clone(),
        ),
    });
    Keep::new(
        check.keys.clone(),
        spool,
        (config.redis_patience, config.request_deadline),
        metrics.redis_errors.clone(),
    )
}

/// Until it takes no more connections, once it is told to stop.
async fn leaving(told: &CancellationToken, ingress: &Ingress) {
    told.cancelled().await;
    ingress.admin.readiness.leave();
    tokio::time::sleep(ingress.config.shutdown_delay).await;
}

fn admin(secrets: &Secrets, has_spool: bool, mut registry: Registry) -> (Admin, RedisSafety) {
    let readiness = if has_spool {
        Readiness::of_any(["redis", "spool"])
    } else {
        Readiness::of(["redis"])
    };
    readiness.register(&mut registry);
    shared::process::register(&mut registry);
    let safety = RedisSafety::new(&mut registry, readiness.clone());
    let admin = Admin {
        program: "ingress",
        set_asides: SetAsides::default(),
        readiness,
        registry: Arc::new(registry),
        mounted: None,
        token_routes: secrets.admin_token.clone().map(|token| TokenRoutes {
            token,
            routes: Arc::new(|_, _| None),
        }),
    };
    (admin, safety)
}

fn keys_of(config: &Config) -> Keys {
    let redis = &config.redis;
    Keys::new(&redis.redis_key_prefix, redis.stream_partitions)
}

/// The tasks beside the serving threads and the watch of Redis.
fn spawn_helpers(
    tasks: &Tasks,
    ingress: &Arc<Ingress>,
    admin_listener: TcpListener,
    bucket: Option<SpoolBucket>,
    shutdown: &CancellationToken,
) {
    tasks.spawn(
        "watch of secret files",
        shared::secrets::watch_files(ingress.secrets.followed(), shutdown.clone()),
    );
    tasks.spawn(
        "admin server",
        ingress
            .admin
            .clone()
            .serve(admin_listener, shutdown.clone()),
    );
    let (of_ingress, stop) = (ingress.clone(), shutdown.clone());
    tasks.spawn("record of accounts beyond their limit", async move {
        let redis = of_ingress.secrets.redis.connection(RECORD_TIMEOUT);
        let keys = keys_of(&of_ingress.config);
        of_ingress.limited_accounts.keep(redis, keys, stop).await;
    });
    if let Some(bucket) = bucket {
        tasks.spawn(
            "probe of the object store",
            bucket.watch(ingress.clone(), shutdown.clone()),
        );
        tasks.spawn(
            "watch of the partitions",
            watch_partitions(ingress.clone(), shutdown.clone()),
        );
    }
}

async fn watch_partitions(ingress: Arc<Ingress>, shutdown: CancellationToken) {
    if let Some(partitions) = ingress.keep.partitions() {
        partitions
            .watch(|| ingress.keep.has_begun(), shutdown)
            .await;
    }
}

/// Starts the serving threads: `--threads`, or one for each core.
fn serve_all(
    tasks: &Tasks,
    ingress: &Arc<Ingress>,
    listener: TcpListener,
    redis_timeout: Duration,
) -> anyhow::Result<()> {
    let listener = listener.into_std()?;
    let config = &ingress.config;
    let keys = keys_of(config);
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    for number in 0..config.threads.unwrap_or_else(cores) {
        let redis = ingress.secrets.redis.connection(redis_timeout);
        let intake = Intake::new(
            keys.clone(),
            redis.clone(),
            (config.dedup_ttl, config.limit()),
            ingress.short_of_memory.clone(),
        );
        let serving = ServingThread {
            intake: Arc::new(intake),
            redis,
            ingress: ingress.clone(),
            turns: AdmissionRounds::default(),
        };
        serve(tasks, number, serving, listener.try_clone()?)?;
    }
    Ok(())
}

/// Serves on a thread of its own, whose connections stay on it.
fn serve(
    tasks: &Tasks,
    number: usize,
    serving: ServingThread,
    listener: std::net::TcpListener,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (running, ended) = oneshot::channel::<()>();
    let stop = tasks.stop().clone();
    let running_thread = async move {
        let _running = running;
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the listener can't be used"),
        };
        let stopping = stop.clone();
        let redis = serving.redis.clone();
        let serving = Arc::new(serving);
        let accepting = connections::accept(serving.clone(), listener, stop);
        let until_stopped = async { tokio::join!(keep_alive(&redis, stopping), accepting) };
        tokio::select! {
            _ = until_stopped => {}
            () = serving.turns.rounds() => {}
        }
    };
    thread::Builder::new()
        .name(format!("serve {number}"))
        .spawn(move || runtime.block_on(running_thread))?;
    tasks.spawn("serving thread", ended.map(drop));
    Ok(())
}

/// Makes a thread's way to Redis now, since the first webhook would wait for it, and in a cluster with a
/// node that hangs, too long; and sees to it that a connection which the network has forgotten costs a
/// `PING`, not a webhook. A Redis that is away is found out by whoever needs it.
async fn keep_alive(redis: &Connection, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let ping = async {
            drop(redis.ping().await);
            tokio::time::sleep(KEEP_ALIVE_INTERVAL).await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = ping => {}
        }
    }
}
