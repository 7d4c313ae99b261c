//! The whole program: its servers, its tasks, and what a request needs.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use prometheus_client::registry::Registry;
use shared::admin::{Admin, Readiness, TokenRoutes};
use shared::keys::Keys;
use shared::redis::{Connection, StartCheck};
use shared::status::SetAsides;
use shared::tasks::Tasks;
use shared::telemetry::SampledLog;
use shared::write_probe::WriteProbe;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::admission::AdmissionRounds;
use crate::budget::Budget;
use crate::config::{Config, Secrets};
use crate::connections::{self, ConnectionLimit};
use crate::error::Log;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::redis_watch::watch_redis;
use crate::request_log::RequestLog;
use crate::spool::{SpoolParts, SpoolWriter};
use crate::spool_bucket::SpoolBucket;

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

/// What a request needs.
pub(crate) struct Ingress {
    pub(crate) config: Config,
    pub(crate) secrets: Secrets,
    pub(crate) keys: Keys,
    pub(crate) intake: Intake,
    /// `None`: what Redis can't take is refused.
    pub(crate) spool: Option<SpoolWriter>,
    pub(crate) in_flight: Semaphore,
    pub(crate) budget: Budget,
    /// Partition count and settings of Redis have been checked: before that nothing is stored.
    pub(crate) checked: AtomicBool,
    pub(crate) admin: Admin,
    pub(crate) metrics: Metrics,
    pub(crate) refusals: Log,
    pub(crate) requests: RequestLog,
    pub(crate) over_limit: SampledLog,
}

/// What a thread that serves has: everything, and a way to Redis of its own, so that no answer of
/// Redis has to wake another thread.
pub(crate) struct ServingThread {
    pub(crate) ingress: Arc<Ingress>,
    pub(crate) redis: Connection,
    pub(crate) turns: AdmissionRounds,
}

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
    let connection = secrets.redis.connection(redis_timeout);
    let check = StartCheck {
        keys: Keys::new(
            &config.redis.redis_key_prefix,
            config.redis.stream_partitions,
        ),
        connection: connection.clone(),
        required: config.redis.require_durable_redis,
    };
    let spool = bucket.as_ref().map(|bucket| {
        SpoolWriter::new(SpoolParts {
            bucket: bucket.bucket.clone(),
            keys: check.keys.clone(),
            redis: secrets.redis.clone(),
            write_probe: WriteProbe::new(connection, check.keys.clone()),
            away: metrics.away_partitions.clone(),
            redis_errors: metrics.redis_errors.clone(),
            dedup_ttl: config.dedup_ttl,
            patience: config.redis_patience,
        })
    });
    let admin = admin(&secrets, spool.is_some(), registry);
    let ingress = Arc::new(Ingress::new(
        config,
        secrets,
        (check.keys.clone(), spool),
        admin,
        metrics,
    ));
    let tasks = Tasks::new(shutdown.clone());
    spawn_helpers(&tasks, &ingress, listeners.admin, bucket, &shutdown);
    let mut watch = tasks
        .tracker()
        .spawn(watch_redis(check, ingress.clone(), shutdown.clone()));
    serve_all(&tasks, &ingress, listeners.public, redis_timeout)?;
    tasks.tracker().close();
    tracing::info!(listen = %ingress.config.listen, path = ingress.config.webhook_path, "ingress is up");

    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
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

fn admin(secrets: &Secrets, has_spool: bool, mut registry: Registry) -> Admin {
    let readiness = if has_spool {
        Readiness::of_any(["redis", "spool"])
    } else {
        Readiness::of(["redis"])
    };
    readiness.register(&mut registry);
    Admin {
        program: "ingress",
        set_asides: SetAsides::default(),
        readiness,
        registry: Arc::new(registry),
        token_routes: secrets.admin_token.clone().map(|token| TokenRoutes {
            token,
            routes: Arc::new(|_, _| None),
        }),
    }
}

impl Ingress {
    fn new(
        config: Config,
        secrets: Secrets,
        (keys, spool): (Keys, Option<SpoolWriter>),
        admin: Admin,
        metrics: Metrics,
    ) -> Self {
        Self {
            intake: Intake::new(
                keys.clone(),
                config.dedup_ttl,
                config.limit(),
                config.redis_patience,
                metrics.redis_errors.clone(),
            ),
            keys,
            spool,
            in_flight: Semaphore::new(config.max_in_flight),
            budget: Budget::new(config.max_in_flight_bytes),
            checked: AtomicBool::new(false),
            admin,
            metrics,
            refusals: Log::default(),
            requests: RequestLog::default(),
            over_limit: SampledLog::default(),
            secrets,
            config,
        }
    }
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
    if let Some(spool) = &ingress.spool {
        spool.watch(&ingress.checked, shutdown).await;
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
    let limit = ConnectionLimit::new(ingress.config.max_connections);
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    for number in 0..ingress.config.threads.unwrap_or_else(cores) {
        let serving = ServingThread {
            redis: ingress.secrets.redis.connection(redis_timeout),
            ingress: ingress.clone(),
            turns: AdmissionRounds::default(),
        };
        serve(tasks, number, serving, listener.try_clone()?, limit.clone())?;
    }
    Ok(())
}

/// Serves on a thread of its own, whose connections stay on it.
fn serve(
    tasks: &Tasks,
    number: usize,
    serving: ServingThread,
    listener: std::net::TcpListener,
    limit: ConnectionLimit,
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
        // The way to Redis is made now: the first webhook would wait for it, and in a cluster with a
        // node that hangs, too long. A Redis that is away is found out by whoever needs it.
        let redis = serving.redis.clone();
        let serving = Arc::new(serving);
        let accepting = connections::accept(serving.clone(), listener, limit, stop);
        let until_stopped = async { tokio::join!(redis.ping(), accepting) };
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
