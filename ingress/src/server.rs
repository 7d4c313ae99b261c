//! The whole program: its servers, its tasks, and what a request needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use shared::admin::{Admin, Guarded, Readiness};
use shared::keys::Keys;
use shared::redis::{Connection, StartCheck};
use shared::telemetry::Sampled;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::Budget;
use crate::config::{Config, Secrets};
use crate::connections;
use crate::error::Log;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::request_log::RequestLog;

const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Share of Redis' memory from which on items are remembered for an hour only, so that what is left
/// goes to webhooks; and the share below which they are remembered for their time again.
const SHORT_OF_MEMORY: (f64, f64) = (0.80, 0.75);

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
    pub(crate) intake: Intake,
    pub(crate) in_flight: Semaphore,
    pub(crate) budget: Budget,
    /// Partition count and settings of Redis have been checked: before that nothing is stored.
    pub(crate) checked: AtomicBool,
    pub(crate) admin: Admin,
    pub(crate) metrics: Metrics,
    pub(crate) refusals: Log,
    pub(crate) requests: RequestLog,
    pub(crate) over_limit: Sampled,
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
    // Before the deadline, so that a connection that never answers is seen as such.
    let connection = secrets.redis.connection(config.request_deadline * 4 / 5);
    let keys = Keys::new(
        &config.redis.redis_key_prefix,
        config.redis.stream_partitions,
    );
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let readiness = Readiness::of(["redis"]);
    readiness.register(&mut registry);
    let admin = Admin {
        readiness,
        registry: Arc::new(registry),
        guarded: secrets.admin_token.clone().map(|token| Guarded {
            token,
            routes: Arc::new(|_, _| None),
        }),
    };
    let check = StartCheck {
        connection: connection.clone(),
        keys: keys.clone(),
        required: config.redis.require_durable_redis,
    };
    let tasks = TaskTracker::new();
    tasks.spawn(shared::secrets::follow(
        secrets.followed(),
        shutdown.clone(),
    ));
    tasks.spawn(admin.clone().serve(listeners.admin, shutdown.clone()));
    let ingress = Arc::new(Ingress {
        intake: Intake::new(
            connection.clone(),
            keys,
            config.dedup_ttl,
            config.limit(),
            config.redis_patience,
        ),
        in_flight: Semaphore::new(config.max_in_flight),
        budget: Budget::new(config.max_in_flight_bytes),
        checked: AtomicBool::new(false),
        admin,
        metrics,
        refusals: Log::default(),
        requests: RequestLog::default(),
        over_limit: Sampled::default(),
        secrets,
        config,
    });
    let mut watch = tasks.spawn(watch_redis(check, ingress.clone(), shutdown.clone()));
    let accepting = connections::accept(ingress.clone(), listeners.public, shutdown.clone());
    tasks.spawn(accepting);
    tasks.close();
    tracing::info!(listen = %ingress.config.listen, path = ingress.config.webhook_path, "ingress is up");

    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = &mut watch => ended.context("the probe of Redis died").and_then(|checked| checked),
    };
    shutdown.cancel();
    if tokio::time::timeout(ingress.config.shutdown_grace, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("some requests were still in work when the grace was over");
    }
    outcome
}

/// Checks Redis once it is there, then keeps `/ready` true and looks at its memory. Ends early only
/// with the reason why this deployment must not run.
async fn watch_redis(
    mut check: StartCheck,
    ingress: Arc<Ingress>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let readiness = &ingress.admin.readiness;
    let mut short = false;
    while !shutdown.is_cancelled() {
        let seen = if ingress.checked.load(Ordering::Relaxed) {
            check.connection.ping().await
        } else {
            match check.run().await? {
                Ok(warnings) => {
                    ingress.checked.store(true, Ordering::Relaxed);
                    readiness.note("redis", warnings);
                    Ok(())
                }
                Err(away) => Err(away),
            }
        };
        if seen.is_ok() {
            look_at_memory(&check.connection, &ingress, &mut short).await;
        }
        readiness.set("redis", seen.err().map(|error| error.to_string()));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(PROBE_INTERVAL) => {}
        }
    }
    Ok(())
}

async fn look_at_memory(connection: &Connection, ingress: &Ingress, short: &mut bool) {
    let Ok(used) = shared::redis::memory_used(connection).await else {
        return;
    };
    ingress.metrics.redis_memory.set(used);
    let (from, until) = SHORT_OF_MEMORY;
    if !*short && used >= from {
        *short = true;
        tracing::error!(
            used,
            "Redis is short of memory: items are remembered for an hour only"
        );
    } else if *short && used < until {
        *short = false;
        tracing::info!(used, "Redis has memory again");
    }
    ingress.intake.set_short_of_memory(*short);
}
