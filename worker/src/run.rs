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
use shared::redis::{Connection, RedisSafety, StartCheck, class, warn_will_retry};
use shared::status::SetAsides;
use shared::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::ask::graph::Graph;
use crate::ask::numbers::Numbers;
use crate::ask::tenants::tokens::Tokens;
use crate::ask::tenants::{Tenants, upkeep};
use crate::clients;
use crate::config::{Config, Secrets};
use crate::console::{self, Console};
use crate::context::WorkerContext;
use crate::item::health::HealthNotes;
use crate::item::traffic::{self, Traffic};
use crate::metrics::Metrics;
use crate::operator::{Deployment, presign};
use crate::out::archive::ArchiveWriter;
use crate::out::error::Reason;
use crate::out::media::outcome::MediaFailure;
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
use crate::read::suspects::BytesLock;
use crate::retry::Backoff;
use crate::watch::{self, WatchParts};
use strum::IntoEnumIterator;

const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Probes of Redis between two looks at its settings.
const SAFETY_EVERY: u32 = 15;
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
    let stop_background = background.stop().clone();
    let _stop_on_return = stop_background.clone().drop_guard();
    let mut registry = Registry::default();
    let parts = Parts::new(config, secrets, &mut registry, background)?;
    parts.serve_admin(admin_listener, registry);
    tokio::select! {
        checked = wait_for_redis(parts.start_check(), &parts.readiness) => checked?,
        () = shutdown.cancelled() => return Ok(()),
    }
    let spool = Spool::new(
        parts.redis_link(),
        parts.store.clone(),
        parts.metrics.clone(),
    );
    parts.spawn_probes(&spool);
    parts.spawn_upkeep_of_tenants();
    let starting = Publisher::start(
        &parts.config.amqp,
        &parts.secrets.amqp,
        &parts.metrics,
        &parts.readiness,
        &parts.background,
    );
    let publisher = tokio::select! {
        started = starting => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let context = Arc::new(parts.context(publisher, media)?);
    tracing::info!("worker is up");
    let owning = parts.own_partitions(context.clone(), spool, shutdown);
    owning.await;
    // Before the context is gone, with which the publishing tasks end: that is no failure now.
    stop_background.cancel();
    drop(context);
    Ok(())
}

/// What the program is put together from.
struct Parts {
    config: Config,
    secrets: Secrets,
    connection: Connection,
    keys: Keys,
    store: Arc<Store>,
    metrics: Metrics,
    readiness: Readiness,
    safety: RedisSafety,
    set_asides: SetAsides,
    tenants: Arc<Tenants>,
    readmit: Readmit,
    background: Tasks,
}

impl Parts {
    fn new(
        config: Config,
        secrets: Secrets,
        registry: &mut Registry,
        background: Tasks,
    ) -> anyhow::Result<Self> {
        let store_keys = secrets
            .store
            .clone()
            .context("MINIO_ACCESS_KEY is not set")?;
        let keys = Keys::new(
            &config.redis.redis_key_prefix,
            config.redis.stream_partitions,
        );
        let connection = secrets.redis.connection(REDIS_TIMEOUT);
        let store = Arc::new(Store::new(&config.store, &config.objects, store_keys)?);
        let metrics = Metrics::new(registry);
        metrics.create_reasons(Reason::iter().map(Reason::name));
        metrics.create_media_failures(MediaFailure::iter().map(MediaFailure::text));
        metrics.partition_count.set(keys.partitions().into());
        let readiness = Readiness::of(["redis", "rabbitmq", "minio"]);
        readiness.register(registry);
        shared::process::register(registry);
        let safety = RedisSafety::new(registry, readiness.clone());
        let tenants = Arc::new(Tenants::new(
            &config.tenants,
            &secrets.tenants,
            clients::tenant_service(&metrics)?,
            (connection.clone(), keys.clone()),
            metrics.caches.clone(),
        ));
        let readmit = Readmit::new(store.clone(), connection.clone(), keys.clone());
        Ok(Self {
            config,
            secrets,
            connection,
            keys,
            store,
            metrics,
            readiness,
            safety,
            set_asides: SetAsides::default(),
            tenants,
            readmit,
            background,
        })
    }

    fn redis_link(&self) -> (Connection, Keys) {
        (self.connection.clone(), self.keys.clone())
    }

    fn stop(&self) -> CancellationToken {
        self.background.stop().clone()
    }

    fn start_check(&self) -> StartCheck {
        StartCheck {
            connection: self.connection.clone(),
            keys: self.keys.clone(),
            required: self.config.redis.require_durable_redis,
        }
    }

    fn serve_admin(&self, listener: TcpListener, registry: Registry) {
        let (tenants, readmit, store) = (&self.tenants, &self.readmit, &self.store);
        let admin = Admin {
            program: "worker",
            set_asides: self.set_asides.clone(),
            readiness: self.readiness.clone(),
            registry: Arc::new(registry),
            mounted: Some(console::mounted(self.console())),
            token_routes: self.secrets.admin_token.clone().map(|token| TokenRoutes {
                token,
                routes: admin_routes(tenants.clone(), readmit.clone(), store.clone()),
            }),
        };
        let background = &self.background;
        background.spawn("admin server", admin.serve(listener, self.stop()));
        let watching = shared::secrets::watch_files(self.secrets.followed(), self.stop());
        background.spawn("watch of secret files", watching);
    }

    fn console(&self) -> Console {
        let deployment = Deployment {
            connection: self.connection.clone(),
            keys: self.keys.clone(),
            stored_partitions: Some(self.keys.partitions()),
            store: self.store.clone(),
            secrets: self.secrets.clone(),
        };
        Console::new(self.config.clone(), deployment, self.background.clone())
    }

    fn spawn_probes(&self, spool: &Arc<Spool>) {
        let (background, readiness) = (&self.background, &self.readiness);
        let probing = probe_redis(
            self.connection.clone(),
            self.safety.clone(),
            readiness.clone(),
            self.stop(),
        );
        background.spawn("probe of Redis", probing);
        background.spawn("look at the spool", spool.clone().look(self.stop()));
        let probing = probe_store(self.store.clone(), readiness.clone(), self.stop());
        background.spawn("probe of the object store", probing);
    }

    fn spawn_upkeep_of_tenants(&self) {
        let (background, tenants) = (&self.background, &self.tenants);
        let redis = self.secrets.redis.clone();
        let hearing = upkeep::hear_changes(tenants.clone(), redis, self.stop());
        background.spawn("subscription to changed tenants", hearing);
        let warming = upkeep::keep_warm(tenants.clone(), self.stop());
        background.spawn("refresh of tenants", warming);
        let readmit = self.readmit.clone();
        let looking = unknown::look_up_unknown(tenants.clone(), readmit, self.stop());
        background.spawn("lookup of unknown tenants", looking);
    }

    fn media(&self, graph: Arc<Graph>, runtime: &Handle) -> anyhow::Result<MediaFetcher> {
        let parts = MediaParts {
            graph,
            store: self.store.clone(),
            tokens: Tokens::new(self.tenants.clone()),
            allowed: clients::allowed_hosts(&self.config),
            refused_hosts: RefusedHosts::new(self.connection.clone(), self.keys.clone()),
            runtime: runtime.clone(),
            tracker: self.background.tracker().clone(),
            stop: self.stop(),
            metrics: self.metrics.clone(),
        };
        MediaFetcher::new(&self.config.media, parts)
    }

    fn traffic(&self) -> Arc<Traffic> {
        let traffic = Arc::new(Traffic::default());
        let (connection, keys) = self.redis_link();
        let metrics = self.metrics.clone();
        let keeping = traffic::keep(traffic.clone(), connection, keys, metrics, self.stop());
        self.background.spawn("record of traffic", keeping);
        traffic
    }

    fn watch(&self, graph: &Arc<Graph>) -> Arc<HealthNotes> {
        let notes = Arc::new(HealthNotes::default());
        let parts = WatchParts {
            redis: self.redis_link(),
            tenants: self.tenants.clone(),
            graph: graph.clone(),
            notes: notes.clone(),
            metrics: self.metrics.clone(),
        };
        let (config, secrets) = (self.config.clone(), self.secrets.clone());
        let watching = watch::keep_watch(parts, config, secrets, self.stop());
        self.background.spawn("watch of the deployment", watching);
        notes
    }

    fn context(&self, publisher: Publisher, media: &Handle) -> anyhow::Result<WorkerContext> {
        let (config, metrics) = (&self.config, &self.metrics);
        let graph = Arc::new(clients::graph(config, metrics, self.redis_link())?);
        let numbers = Numbers::new(
            graph.clone(),
            Tokens::new(self.tenants.clone()),
            metrics.caches.clone(),
            self.background.clone(),
        );
        let (connection, keys) = self.redis_link();
        let health = self.watch(&graph);
        Ok(WorkerContext {
            media: Arc::new(self.media(graph, media)?),
            numbers,
            stream: Stream::new(self.secrets.redis.clone(), connection, keys),
            tenants: self.tenants.clone(),
            state: clients::state_manager(config, &self.secrets, metrics)?,
            publisher,
            store: self.store.clone(),
            archive: ArchiveWriter::default(),
            metrics: metrics.clone(),
            traffic: self.traffic(),
            health,
            set_asides: self.set_asides.clone(),
            parked: Arc::default(),
            hasher: LaneHasher::default(),
            bytes_lock: BytesLock::new(self.background.clone()),
            permits: Arc::new(Semaphore::new(config.concurrency)),
            concurrency: config.concurrency,
            state_permits: Semaphore::new(config.concurrency),
            read_bytes: config.read_bytes,
            max_deliveries: config.max_deliveries,
        })
    }

    /// Until `shutdown`, and then until all are handed over or the time for that is over.
    async fn own_partitions(
        &self,
        context: Arc<WorkerContext>,
        spool: Arc<Spool>,
        shutdown: CancellationToken,
    ) {
        let (redis, ttl) = (self.secrets.redis.clone(), self.config.lease_ttl);
        let leases = Leases::new(redis, self.keys.clone(), ttl);
        let stopping = shutdown.clone();
        let owning = leases.run(&self.metrics, shutdown.clone(), move |tenure| {
            partition::own(context.clone(), spool.clone(), tenure, stopping.clone())
        });
        let out_of_time = async {
            shutdown.cancelled().await;
            tokio::time::sleep(self.config.shutdown_grace).await;
        };
        tokio::select! {
            () = owning => {}
            () = out_of_time => tracing::warn!("SHUTDOWN_GRACE is over: leases that are left expire"),
        }
    }
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
                warn_will_retry(&error);
                readiness.set("redis", Some(error.to_string()));
                backoff.wait().await;
            }
        }
    }
}

async fn probe_redis(
    connection: Connection,
    safety: RedisSafety,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let mut probes = 0_u32;
    while !stop.is_cancelled() {
        let failed = connection.ping().await.err();
        if let Some(error) = &failed {
            warn_will_retry(error);
        }
        if failed.is_none() && probes.is_multiple_of(SAFETY_EVERY) {
            drop(safety.look(&connection).await);
        }
        probes = probes.wrapping_add(1);
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
