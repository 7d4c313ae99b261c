//! The whole program: its servers, its tasks, and what a request needs.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use object_store::aws::AmazonS3;
use prometheus_client::registry::Registry;
use shared::admin::{Admin, Readiness, TokenRoutes};
use shared::keys::Keys;
use shared::redis::{Connection, StartCheck};
use shared::status::SetAsides;
use shared::store::{StoreArgs, StoreKeys, StorePatience};
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
use crate::request_log::RequestLog;
use crate::spool::{SpoolParts, SpoolWriter};

const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Share of Redis' memory from which on items are remembered for an hour only, so that what is left
/// goes to webhooks; and the share below which they are remembered for their time again.
const SHORT_OF_MEMORY: (f64, f64) = (0.80, 0.75);
/// The same for a warning. From 90 % on nothing more is sent to it where there is a spool.
const SOON_SHORT_OF_MEMORY: (f64, f64) = (0.70, 0.65);
const STORE_PROBE_INTERVAL: Duration = Duration::from_secs(5);
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

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
    let connection = secrets.redis.connection(redis_timeout);
    let keys = Keys::new(
        &config.redis.redis_key_prefix,
        config.redis.stream_partitions,
    );
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let store = secrets.store.clone().map(|keys| store(&config, keys));
    let store = store.transpose()?;
    let spool = store.as_ref().map(|store| {
        SpoolWriter::new(SpoolParts {
            bucket: store.bucket.clone(),
            keys: keys.clone(),
            redis: secrets.redis.clone(),
            write_probe: WriteProbe::new(connection.clone(), keys.clone()),
            away: metrics.away_partitions.clone(),
            redis_errors: metrics.redis_errors.clone(),
            dedup_ttl: config.dedup_ttl,
            patience: config.redis_patience,
        })
    });
    let readiness = match &store {
        Some(_) => Readiness::of_any(["redis", "spool"]),
        None => Readiness::of(["redis"]),
    };
    readiness.register(&mut registry);
    let admin = Admin {
        program: "ingress",
        set_asides: SetAsides::default(),
        readiness,
        registry: Arc::new(registry),
        token_routes: secrets.admin_token.clone().map(|token| TokenRoutes {
            token,
            routes: Arc::new(|_, _| None),
        }),
    };
    let check = StartCheck {
        connection: connection.clone(),
        keys: keys.clone(),
        required: config.redis.require_durable_redis,
    };
    let tasks = Tasks::new(shutdown.clone());
    tasks.spawn(
        "watch of secret files",
        shared::secrets::follow(secrets.followed(), shutdown.clone()),
    );
    tasks.spawn(
        "admin server",
        admin.clone().serve(listeners.admin, shutdown.clone()),
    );
    let ingress = Arc::new(Ingress {
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
    });
    let mut watch = tasks
        .tracker()
        .spawn(watch_redis(check, ingress.clone(), shutdown.clone()));
    if let Some(store) = store {
        tasks.spawn(
            "probe of the object store",
            watch_store(store, ingress.clone(), shutdown.clone()),
        );
        tasks.spawn(
            "watch of the partitions",
            watch_partitions(ingress.clone(), shutdown.clone()),
        );
    }
    let listener = listeners.public.into_std()?;
    let limit = ConnectionLimit::new(ingress.config.max_connections);
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    for number in 0..ingress.config.threads.unwrap_or_else(cores) {
        let serving = ServingThread {
            redis: ingress.secrets.redis.connection(redis_timeout),
            ingress: ingress.clone(),
            turns: AdmissionRounds::default(),
        };
        let listener = listener.try_clone()?;
        serve(&tasks, number, serving, listener, limit.clone())?;
    }
    drop(listener);
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

/// Checks Redis once it is there, then keeps `/ready` true and looks at its memory. Ends early only
/// with the reason why this deployment must not run.
async fn watch_redis(
    mut check: StartCheck,
    ingress: Arc<Ingress>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let readiness = &ingress.admin.readiness;
    let mut short = MemoryPressure::Normal;
    while !shutdown.is_cancelled() {
        let seen = if ingress.checked.load(Ordering::Relaxed) {
            check.connection.ping().await
        } else {
            match check.run().await? {
                Ok(warnings) => {
                    ingress.checked.store(true, Ordering::Relaxed);
                    if let Some(spool) = &ingress.spool {
                        spool.begin();
                    }
                    readiness.note("redis", warnings);
                    Ok(())
                }
                Err(away) => Err(away),
            }
        };
        if seen.is_ok() {
            look_at_memory(&check.connection, &ingress, &mut short).await;
        }
        if let Err(error) = &seen {
            ingress.metrics.redis_errors.count(error);
        }
        readiness.set("redis", seen.err().map(|error| error.to_string()));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(PROBE_INTERVAL) => {}
        }
    }
    Ok(())
}

async fn watch_partitions(ingress: Arc<Ingress>, shutdown: CancellationToken) {
    if let Some(spool) = &ingress.spool {
        spool.watch(&ingress.checked, shutdown).await;
    }
}

/// The bucket of the spool, and what it takes to create it.
struct SpoolBucket {
    args: StoreArgs,
    keys: StoreKeys,
    bucket: AmazonS3,
    client: reqwest::Client,
}

fn store(config: &Config, keys: StoreKeys) -> anyhow::Result<SpoolBucket> {
    let args = config.store.clone();
    // A second attempt must fit before the deadline.
    let patience = StorePatience {
        connect: config.request_deadline / 4,
        request: config.request_deadline / 2,
        retry: config.request_deadline,
    };
    let (endpoint, name) = (&args.minio_endpoint, &args.minio_webhook_bucket);
    let bucket = args
        .bucket(endpoint, name, Arc::new(keys.clone()), patience)
        .context("MINIO_ENDPOINT (--minio-endpoint)")?;
    let client = reqwest::Client::builder().timeout(STORE_TIMEOUT).build()?;
    Ok(SpoolBucket {
        args,
        keys,
        bucket,
        client,
    })
}

/// Creates the bucket if it is missing, then keeps `/ready` true.
async fn watch_store(store: SpoolBucket, ingress: Arc<Ingress>, shutdown: CancellationToken) {
    let readiness = &ingress.admin.readiness;
    let mut created = false;
    while !shutdown.is_cancelled() {
        let name = &store.args.minio_webhook_bucket;
        let seen = if created {
            let seen = shared::store::probe(&store.bucket).await;
            seen.map_err(|error| error.to_string())
        } else {
            let creating = store.args.create_bucket(&store.client, &store.keys, name);
            creating.await.map_err(|error| format!("{error:#}"))
        };
        created |= seen.is_ok();
        readiness.set("spool", seen.err());
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(STORE_PROBE_INTERVAL) => {}
        }
    }
}

/// How short Redis is of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MemoryPressure {
    Normal,
    High,
    Critical,
}

impl MemoryPressure {
    /// `self` is how short it was: a level is left only a little below where it began.
    fn at(self, used: f64) -> Self {
        let reached =
            |(from, until): (f64, f64), level| used >= from || (self >= level && used >= until);
        if reached(SHORT_OF_MEMORY, Self::Critical) {
            Self::Critical
        } else if reached(SOON_SHORT_OF_MEMORY, Self::High) {
            Self::High
        } else {
            Self::Normal
        }
    }
}

async fn look_at_memory(connection: &Connection, ingress: &Ingress, short: &mut MemoryPressure) {
    let Ok(used) = shared::redis::memory_used(connection).await else {
        return;
    };
    ingress.metrics.redis_memory.set(used);
    let now = short.at(used);
    if now != *short {
        match now {
            MemoryPressure::Normal => tracing::info!(used, "memory use of Redis is normal again"),
            MemoryPressure::High if *short == MemoryPressure::Critical => {
                tracing::warn!(
                    used,
                    "memory use of Redis is below 75 % of maxmemory: dedup marks live DEDUP_TTL again"
                );
            }
            MemoryPressure::High => tracing::warn!(
                used,
                "memory use of Redis is above 70 % of maxmemory: workers don't keep up, or it needs more"
            ),
            MemoryPressure::Critical => tracing::error!(
                used,
                "memory use of Redis is above 80 % of maxmemory: dedup marks live 1 h instead of DEDUP_TTL"
            ),
        }
    }
    *short = now;
    ingress
        .intake
        .set_short_of_memory(now == MemoryPressure::Critical);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_of_memory_is_left_a_little_below_where_it_began() {
        let levels = [0.69, 0.71, 0.66, 0.64, 0.81, 0.76, 0.74, 0.81, 0.60];
        let mut short = MemoryPressure::Normal;
        let seen = levels.map(|used| {
            short = short.at(used);
            short
        });
        use MemoryPressure::{Critical, High, Normal};
        assert_eq!(
            seen,
            [
                Normal, High, High, Normal, Critical, Critical, High, Critical, Normal
            ]
        );
    }
}
