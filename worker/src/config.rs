//! Settings of the worker.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use shared::config::{LogArgs, MOST_AT_ONCE, MOST_THREADS, RedisArgs, duration};
use shared::outgoing::ProxyArgs;
use shared::redis::Redis;
use shared::secrets::{Rotating, Secret, WatchedFile};
use shared::store::{StoreArgs, StoreKeys};
use url::Url;

use crate::ask::graph::GraphArgs;
use crate::ask::state::StateArgs;
use crate::ask::tenants::{Directory, Keyring, TenantArgs, TenantSecrets};
use crate::out::media::MediaArgs;
use crate::out::publisher;
use crate::out::store::ObjectArgs;
use crate::out::topology::AmqpArgs;

/// Shorter ones can't be renewed in time.
const SHORTEST_LEASE: Duration = Duration::from_millis(500);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// Signature version 4 allows no more.
const LONGEST_PRESIGNED: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Args, Debug, Clone)]
pub struct Config {
    /// /metrics, /health, /ready, the console and its routes
    #[arg(long, env = "WORKER_ADMIN_LISTEN", default_value = "0.0.0.0:9081")]
    pub admin_listen: SocketAddr,
    /// Guards the admin routes that change something or show contents; without it they are off
    #[arg(long, env = "WORKER_ADMIN_TOKEN", hide_env_values = true)]
    pub admin_token: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "WORKER_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Conversations in work at once
    #[arg(long, env = "WORKER_CONCURRENCY", default_value_t = 256)]
    pub concurrency: usize,
    /// How long a partition stays with a worker that is not heard of
    #[arg(long, env = "LEASE_TTL", default_value = "5s", value_parser = duration)]
    pub lease_ttl: Duration,
    /// Bodies of a partition in memory; at least twice the largest body that ingress takes (its
    /// MAX_BODY_BYTES), or a partition can stop at one
    #[arg(long, env = "READ_BYTES", default_value_t = 8_388_608)]
    pub read_bytes: usize,
    /// An entry that was pending at three crashes is read alone; after so many more crashes during that it
    /// is set aside
    #[arg(long, env = "MAX_DELIVERIES", default_value_t = 5)]
    pub max_deliveries: usize,
    /// Threads; default: cores
    #[arg(long, env = "THREADS")]
    pub threads: Option<usize>,
    #[command(flatten, next_help_heading = "Redis")]
    pub redis: RedisArgs,
    #[command(flatten, next_help_heading = "RabbitMQ")]
    pub amqp: AmqpArgs,
    #[command(flatten, next_help_heading = "Object store")]
    pub store: StoreArgs,
    #[command(flatten, next_help_heading = "Object store")]
    pub objects: ObjectArgs,
    #[command(flatten, next_help_heading = "Tenants")]
    pub tenants: TenantArgs,
    #[command(flatten, next_help_heading = "Graph API")]
    pub graph: GraphArgs,
    #[command(flatten, next_help_heading = "Media")]
    pub media: MediaArgs,
    #[command(flatten, next_help_heading = "State Manager")]
    pub state: StateArgs,
    /// How often one worker looks at each account's token and subscription and for silent numbers, and
    /// publishes what has changed; 0s: never
    #[arg(long, env = "HEALTH_INTERVAL", default_value = "10m", value_parser = duration)]
    pub health_interval: Duration,
    /// This deployment's webhook as Meta calls it: an account whose webhooks an override sends elsewhere is
    /// noticed
    #[arg(long, env = "CALLBACK_URL")]
    pub callback_url: Option<Url>,
    /// Time to finish what is in work when told to stop
    #[arg(long, env = "SHUTDOWN_GRACE", default_value = "10s", value_parser = duration)]
    pub shutdown_grace: Duration,
    #[command(flatten)]
    pub proxy: ProxyArgs,
    #[command(flatten, next_help_heading = "Logs")]
    pub log: LogArgs,
}

/// The secrets of the settings, which follow their files.
#[derive(Clone)]
pub struct Secrets {
    pub redis: Redis,
    pub amqp: Arc<Rotating<Secret>>,
    /// `None` where one is not set.
    pub store: Option<StoreKeys>,
    pub tenants: TenantSecrets,
    pub state_manager_token: Option<Arc<Rotating<Secret>>>,
    pub admin_token: Option<Arc<Rotating<Secret>>>,
}

impl Secrets {
    /// All that may change while the program runs.
    pub fn followed(&self) -> Vec<Arc<dyn WatchedFile>> {
        let mut all = vec![self.redis.follow(), self.amqp.clone()];
        all.extend(self.store.iter().flat_map(StoreKeys::followed));
        for token in [
            &self.tenants.service_token,
            &self.state_manager_token,
            &self.admin_token,
        ] {
            all.extend(token.clone().map(|it| it as Arc<dyn WatchedFile>));
        }
        all.extend(
            self.tenants
                .directory
                .clone()
                .map(|it| it as Arc<dyn WatchedFile>),
        );
        all.extend(
            self.tenants
                .token_keys
                .clone()
                .map(|it| it as Arc<dyn WatchedFile>),
        );
        all
    }
}

impl Config {
    /// Reads the secrets.
    ///
    /// # Errors
    /// What is wrong with any of them.
    pub fn secrets(&self) -> Result<Secrets, Vec<String>> {
        let (amqp, tenants) = (&self.amqp, &self.tenants);
        let default = "amqp://guest:guest@127.0.0.1:5672/%2f".parse().ok();
        let default = default.filter(|_| amqp.amqp_url_file.is_none());
        let mut problems = Vec::new();
        let redis = keep(Redis::new(&self.redis).map(Some), &mut problems);
        let (url, file) = (amqp.amqp_url.as_ref(), amqp.amqp_url_file.as_deref());
        let url = url.or(default.as_ref());
        let amqp = Rotating::open("AMQP_URL", url, file, publisher::broker_url::parse);
        let amqp = keep(amqp, &mut problems);
        let mut plain = |variable, value: &Option<Secret>, file: &Option<PathBuf>| {
            let opened = Rotating::plain(variable, value.as_ref(), file.as_deref());
            keep(opened, &mut problems)
        };
        let service_token = plain(
            "TENANT_SERVICE_TOKEN",
            &tenants.tenant_service_token,
            &tenants.tenant_service_token_file,
        );
        let state_manager_token = plain(
            "STATE_MANAGER_TOKEN",
            &self.state.state_manager_token,
            &self.state.state_manager_token_file,
        );
        let admin_token = plain(
            "WORKER_ADMIN_TOKEN",
            &self.admin_token,
            &self.admin_token_file,
        );
        let token_keys = Rotating::open(
            "TOKEN_ENCRYPTION_KEY",
            tenants.token_encryption_key.as_ref(),
            tenants.token_encryption_key_file.as_deref(),
            Keyring::parse,
        );
        let token_keys = keep(token_keys, &mut problems);
        let file = tenants.tenants_file.as_deref();
        let file = file.map(|file| Rotating::list("TENANTS", file, Directory::parse));
        let directory = keep(file.transpose(), &mut problems);
        let store = self.store.keys().unwrap_or_else(|wrong| {
            problems.extend(wrong);
            None
        });
        match (redis, amqp) {
            (Some(redis), Some(amqp)) if problems.is_empty() => Ok(Secrets {
                redis,
                amqp,
                store,
                tenants: TenantSecrets {
                    service_token,
                    directory,
                    token_keys,
                },
                state_manager_token,
                admin_token,
            }),
            _ => Err(problems),
        }
    }
}

fn keep<T>(opened: Result<Option<T>, String>, problems: &mut Vec<String>) -> Option<T> {
    opened.unwrap_or_else(|problem| {
        problems.push(problem);
        None
    })
}

/// What of the settings can't be.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn unless(&mut self, holds: bool, what: &str) {
        if !holds {
            self.0.push(what.to_owned());
        }
    }
}

impl Config {
    /// What of the settings can't be: each names its variable and flag.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Problems(self.secrets().err().unwrap_or_default());
        let (access, secret) = self.store.named_keys();
        problems.unless(
            access && secret,
            "MINIO_ACCESS_KEY (--minio-access-key) and MINIO_SECRET_KEY (--minio-secret-key) must be \
             set, or their _FILEs: failed webhooks and the archive need the object store",
        );
        self.check_amounts(&mut problems);
        self.check_times(&mut problems);
        self.check_urls(&mut problems);
        problems.0
    }

    fn check_amounts(&self, problems: &mut Problems) {
        problems.unless(
            (1..=MOST_THREADS).contains(&self.threads.unwrap_or(1)),
            &format!("THREADS (--threads) must be from 1 to {MOST_THREADS}"),
        );
        problems.unless(
            self.read_bytes >= 8_388_608,
            "READ_BYTES (--read-bytes) must be at least 8388608, twice the 4194304 bytes that a body may have: \
             with less a partition can stop at a large one",
        );
        let media = self.media.media_concurrency;
        for (value, name) in [
            (self.concurrency, "WORKER_CONCURRENCY (--concurrency)"),
            (self.max_deliveries, "MAX_DELIVERIES (--max-deliveries)"),
            (media, "MEDIA_CONCURRENCY (--media-concurrency)"),
        ] {
            problems.unless(
                (1..=MOST_AT_ONCE).contains(&value),
                &format!("{name} must be from 1 to {MOST_AT_ONCE}"),
            );
        }
        problems.unless(
            self.media.media_max_bytes > 0,
            "MEDIA_MAX_BYTES (--media-max-bytes) must be at least 1",
        );
    }

    fn check_times(&self, problems: &mut Problems) {
        problems.unless(
            (SHORTEST_LEASE..=LONGEST_LEASE).contains(&self.lease_ttl),
            "LEASE_TTL (--lease-ttl) must be from 500ms to 1h: a killed worker's partitions stand still for \
             that long",
        );
        let tenants = &self.tenants;
        problems.unless(
            tenants.tenant_stale_ttl >= tenants.tenant_cache_ttl,
            "TENANT_STALE_TTL (--tenant-stale-ttl) must be at least TENANT_CACHE_TTL \
             (--tenant-cache-ttl)",
        );
        let tenant_name = "TENANT_CACHE_TTL (--tenant-cache-ttl)";
        let token_name = "TOKEN_CACHE_TTL (--token-cache-ttl)";
        for (value, name) in [
            (tenants.tenant_cache_ttl, tenant_name),
            (tenants.token_cache_ttl, token_name),
        ] {
            problems.unless(
                value >= Duration::from_secs(1),
                &format!("{name} must be at least 1s"),
            );
        }
        problems.unless(
            self.state.state_deadline >= Duration::from_millis(1),
            "STATE_DEADLINE (--state-deadline) must be at least 1ms",
        );
        problems.unless(
            (Duration::from_secs(1)..=LONGEST_PRESIGNED).contains(&self.objects.presign_expiry),
            "PRESIGN_EXPIRY (--presign-expiry) must be from 1s to 7d",
        );
        problems.unless(
            !self.amqp.confirm_timeout.is_zero(),
            "CONFIRM_TIMEOUT (--confirm-timeout) must be longer than 0s",
        );
    }

    fn check_urls(&self, problems: &mut Problems) {
        let store = &self.store.minio_endpoint;
        let public = self.objects.minio_public_endpoint.as_ref();
        let (graph, tenants) = (&self.graph, &self.tenants);
        let all = [
            (store, "MINIO_ENDPOINT (--minio-endpoint)"),
            (
                public.unwrap_or(store),
                "MINIO_PUBLIC_ENDPOINT (--minio-public-endpoint)",
            ),
            (&graph.graph_base_url, "GRAPH_BASE_URL (--graph-base-url)"),
            (
                &tenants.tenant_service_url,
                "TENANT_SERVICE_URL (--tenant-service-url)",
            ),
        ];
        let state_manager = self.state.state_manager_url.as_ref();
        let state_manager =
            state_manager.map(|url| (url, "STATE_MANAGER_URL (--state-manager-url)"));
        for (url, name) in all.into_iter().chain(state_manager) {
            problems.unless(
                matches!(url.scheme(), "http" | "https") && url.has_host(),
                &format!("{name} must be an http:// or https:// URL"),
            );
        }
    }
}
