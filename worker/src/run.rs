//! The whole program: checks its servers, starts the publishers, and owns partitions until told to
//! stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use hyper::{Method, StatusCode};
use prometheus_client::registry::Registry;
use shared::admin::{self, Admin, Readiness, Routes, TokenRoutes};
use shared::keys::Keys;
use shared::redis::{Connection, StartCheck, class};
use shared::status::SetAsides;
use shared::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::ask::numbers::Numbers;
use crate::ask::tenants::tokens::Tokens;
use crate::ask::tenants::{Tenants, upkeep};
use crate::clients;
use crate::config::Config;
use crate::context::Work;
use crate::item::traffic::{self, Traffic};
use crate::metrics::Metrics;
use crate::operator::presign;
use crate::out::error::Reason;
use crate::out::media::refused_hosts::RefusedHosts;
use crate::out::media::{MediaFetcher, MediaParts};
use crate::out::publisher::Publisher;
use crate::out::store::Store;
use crate::owed::readmit::Readmit;
use crate::owed::spool::Spool;
use crate::owed::unknown;
use crate::partition;
use crate::read::lanes::LaneHasher;
use crate::read::leases::Leases;
use crate::read::stream::Stream;
use crate::read::suspects::Suspects;
use crate::retry::Backoff;
use strum::IntoEnumIterator;

const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const STORE_PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Answer to any command but a blocking read. A stopped Redis shows by this.
const REDIS_TIMEOUT: Duration = Duration::from_secs(3);

/// Binds the admin listener.
///
/// # Errors
/// An address that is taken or isn't this machine's.
pub async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    TcpListener::bind(config.admin_listen)
        .await
        .with_context(|| {
            format!(
                "WORKER_ADMIN_LISTEN (--admin-listen) {}",
                config.admin_listen
            )
        })
}

/// Runs until `shutdown`, then finishes what is in work and hands its partitions over. Files are
/// fetched on the threads of `media`.
///
/// # Errors
/// Settings that can't be used, a partition count that isn't the deployment's, a Redis that may lose
/// what it acknowledged (if that is forbidden), a topology that differs, or a background task that
/// failed. Servers that are away are waited for.
pub async fn run(
    config: Config,
    admin_listener: TcpListener,
    media: &Handle,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let background = Tasks::new(CancellationToken::new());
    tokio::select! {
        ended = work(config, admin_listener, media, shutdown, background.clone()) => ended,
        failed = background.failed() => Err(failed),
    }
}

async fn work(
    config: Config,
    admin_listener: TcpListener,
    media: &Handle,
    shutdown: CancellationToken,
    background: Tasks,
) -> anyhow::Result<()> {
    crate::item::event::phone::load();
    let secrets = config
        .secrets()
        .map_err(|problems| anyhow::anyhow!("{}", problems.join("\n")))?;
    let store_keys = secrets
        .store
        .clone()
        .context("MINIO_ACCESS_KEY is not set")?;
    let keys = Keys::new(
        &config.redis.redis_key_prefix,
        config.redis.stream_partitions,
    );
    let redis = secrets.redis.clone();
    let connection = redis.connection(REDIS_TIMEOUT);
    let store = Arc::new(Store::new(&config.store, &config.objects, store_keys)?);
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    metrics.create_reasons(Reason::iter().map(Reason::name));
    let readiness = Readiness::of(["redis", "rabbitmq", "minio"]);
    readiness.register(&mut registry);
    let tenants = Arc::new(Tenants::new(
        &config.tenants,
        &secrets.tenants,
        clients::tenant_service(&metrics)?,
        (connection.clone(), keys.clone()),
        metrics.caches.clone(),
    ));
    let state = clients::state_manager(&config, &secrets, &metrics)?;
    let readmit = Readmit::new(store.clone(), connection.clone(), keys.clone());
    let set_asides = SetAsides::default();
    let admin = Admin {
        program: "worker",
        set_asides: set_asides.clone(),
        readiness: readiness.clone(),
        registry: Arc::new(registry),
        token_routes: secrets.admin_token.clone().map(|token| TokenRoutes {
            token,
            routes: admin_routes(tenants.clone(), readmit.clone(), store.clone()),
        }),
    };
    let stop_background = background.stop().clone();
    let _stop_on_return = stop_background.clone().drop_guard();
    background.spawn(
        "admin server",
        admin.serve(admin_listener, stop_background.clone()),
    );
    background.spawn(
        "watch of secret files",
        shared::secrets::watch_files(secrets.followed(), stop_background.clone()),
    );

    let check = StartCheck {
        connection: connection.clone(),
        keys: keys.clone(),
        required: config.redis.require_durable_redis,
    };
    let probed = check.connection.clone();
    tokio::select! {
        checked = wait_for_redis(check, &readiness) => checked?,
        () = shutdown.cancelled() => return Ok(()),
    }
    background.spawn(
        "probe of Redis",
        probe_redis(probed, readiness.clone(), stop_background.clone()),
    );
    let spool = Spool::new(
        (connection.clone(), keys.clone()),
        store.clone(),
        metrics.clone(),
    );
    background.spawn(
        "look at the spool",
        spool.clone().look(stop_background.clone()),
    );
    background.spawn(
        "probe of the object store",
        probe_store(store.clone(), readiness.clone(), stop_background.clone()),
    );
    background.spawn(
        "subscription to changed tenants",
        upkeep::hear_changes(tenants.clone(), redis.clone(), stop_background.clone()),
    );
    background.spawn(
        "refresh of tenants",
        upkeep::keep_warm(tenants.clone(), stop_background.clone()),
    );
    background.spawn(
        "lookup of unknown tenants",
        unknown::look_up_unknown(tenants.clone(), readmit, stop_background.clone()),
    );
    let publisher = Publisher::start(
        &config.amqp,
        &secrets.amqp,
        &metrics,
        &readiness,
        &background,
        &shutdown,
    )
    .await?;

    let graph = Arc::new(clients::graph(
        &config,
        &metrics,
        (connection.clone(), keys.clone()),
    )?);
    let numbers = Numbers::new(
        graph.clone(),
        Tokens::new(tenants.clone()),
        metrics.caches.clone(),
        background.clone(),
    );
    let media = Arc::new(MediaFetcher::new(
        &config.media,
        MediaParts {
            graph: graph.clone(),
            store: store.clone(),
            tokens: Tokens::new(tenants.clone()),
            allowed: clients::allowed_hosts(&config),
            refused_hosts: RefusedHosts::new(connection.clone(), keys.clone()),
            runtime: media.clone(),
            tracker: background.tracker().clone(),
            stop: stop_background.clone(),
            metrics: metrics.clone(),
        },
    )?);
    let traffic = Arc::new(Traffic::default());
    background.spawn(
        "record of traffic",
        traffic::keep(
            traffic.clone(),
            connection.clone(),
            keys.clone(),
            metrics.clone(),
            stop_background.clone(),
        ),
    );
    let work = Arc::new(Work {
        media,
        numbers,
        stream: Stream::new(redis.clone(), connection, keys.clone()),
        tenants,
        state,
        publisher,
        store,
        metrics: metrics.clone(),
        traffic,
        set_asides,
        parked: Arc::default(),
        hasher: LaneHasher::default(),
        suspects: Suspects::default(),
        permits: Arc::new(Semaphore::new(config.concurrency)),
        state_permits: Semaphore::new(config.concurrency),
        read_bytes: config.read_bytes,
        max_deliveries: config.max_deliveries,
    });
    tracing::info!("worker is up");
    let leases = Leases::new(redis, keys, config.lease_ttl);
    let owning = leases.run(&metrics, shutdown.clone(), move |tenure| {
        partition::own(work.clone(), spool.clone(), tenure)
    });
    let out_of_time = async {
        shutdown.cancelled().await;
        tokio::time::sleep(config.shutdown_grace).await;
    };
    tokio::select! {
        () = owning => {}
        () = out_of_time => tracing::warn!("SHUTDOWN_GRACE is over: leases that are left expire"),
    }
    stop_background.cancel();
    Ok(())
}

/// `POST /tenants/{wabaId}/invalidate`: nothing remembered of an account counts any more.
fn admin_routes(tenants: Arc<Tenants>, readmit: Readmit, store: Arc<Store>) -> Routes {
    Arc::new(move |method, path| {
        if let Some((tenant_id, message_id)) = presign::route(path) {
            let store = store.clone();
            return (method == Method::GET).then(|| {
                async move { presign::answer(&store, &tenant_id, &message_id).await }.boxed()
            });
        }
        let waba_id = path
            .strip_prefix("/tenants/")?
            .strip_suffix("/invalidate")?;
        if method != Method::POST || waba_id.is_empty() || waba_id.contains('/') {
            return None;
        }
        let (tenants, readmit, waba_id) = (tenants.clone(), readmit.clone(), waba_id.to_owned());
        Some(Box::pin(async move {
            match unknown::changed(&tenants, &readmit, &waba_id).await {
                Ok(()) => admin::json(StatusCode::OK, &serde_json::json!({"invalidated": waba_id})),
                Err(error) => {
                    let class = class(&error);
                    tracing::warn!(class, %error, waba_id, "redis command failed: the account is not invalidated");
                    let problem =
                        serde_json::json!({"error": "redis command failed", "class": class});
                    admin::json(StatusCode::SERVICE_UNAVAILABLE, &problem)
                }
            }
        }))
    })
}

async fn wait_for_redis(mut check: StartCheck, readiness: &Readiness) -> anyhow::Result<()> {
    let mut backoff = Backoff::for_server();
    loop {
        match check.run().await? {
            Ok(warnings) => {
                readiness.set("redis", None);
                readiness.note("redis", warnings);
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(class = class(&error), %error, "redis command failed, will retry");
                readiness.set("redis", Some(error.to_string()));
                backoff.wait().await;
            }
        }
    }
}

async fn probe_redis(connection: Connection, readiness: Readiness, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let failed = connection.ping().await.err();
        if let Some(error) = &failed {
            tracing::warn!(class = class(error), %error, "redis command failed, will retry");
        }
        readiness.set("redis", failed.map(|error| error.to_string()));
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PROBE_INTERVAL) => {}
        }
    }
}

/// Creates the buckets once the store is there, then keeps `/ready` true. Events don't wait for it.
async fn probe_store(store: Arc<Store>, readiness: Readiness, stop: CancellationToken) {
    let mut created = false;
    while !stop.is_cancelled() {
        let problem = if created {
            store.probe().await.err().map(|error| error.to_string())
        } else {
            let result = store.create_buckets().await;
            created = result.is_ok();
            result.err().map(|error| format!("{error:#}"))
        };
        if let Some(problem) = &problem {
            tracing::warn!(problem, "the object store's probe failed, will retry");
        }
        let well = problem.is_none();
        readiness.set("minio", problem);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(if well { STORE_PROBE_INTERVAL } else { PROBE_INTERVAL }) => {}
        }
    }
}
