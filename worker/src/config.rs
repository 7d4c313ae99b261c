//! Settings of the worker.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use shared::config::{Check, LogArgs, MOST_AT_ONCE, MOST_THREADS, RedisArgs, duration};
use shared::redis::Redis;
use shared::secrets::{Follow, Rotating, Secret};
use shared::store::{StoreArgs, StoreKeys};
use url::Url;

use crate::commands::doctor::DoctorArgs;
use crate::commands::erase::EraseArgs;
use crate::commands::inspect::InspectArgs;
use crate::commands::repartition::RepartitionArgs;
use crate::media::safety::AllowedHost;
use crate::publisher;
use crate::replay::ReplayArgs;
use crate::tenants::{Directory, Keyring};
use crate::topology;

/// Shorter ones can't be renewed in time.
const SHORTEST_LEASE: Duration = Duration::from_millis(500);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// Signature version 4 allows no more.
const LONGEST_PRESIGNED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Turns stored webhooks into events.
#[derive(Parser, Debug, Clone)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub config: Config,
}

#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    /// Work until told to stop (the default)
    Run,
    /// Ask the worker that runs with these settings whether it lives; exit status 0 or 1
    Health,
    /// Fresh URLs of the media of a message
    Presign(PresignArgs),
    /// Put payloads back into the stream: of what was set aside, or of the archive
    Replay(ReplayArgs),
    /// Where everything is, or one message
    Inspect(InspectArgs),
    /// Check every server, neighbour, account and setting; exit status 1 if something fails
    Doctor(DoctorArgs),
    /// Delete what the stores hold of a tenant or a customer
    Erase(EraseArgs),
    /// Change the partition count of a deployment that holds nothing
    Repartition(RepartitionArgs),
}

#[derive(Args, Debug, Clone)]
pub struct PresignArgs {
    /// Meta's id of the message
    #[arg(long)]
    pub message_id: String,
    /// Whose it is; without it, all tenants' folders are looked into
    #[arg(long)]
    pub tenant: Option<String>,
}

#[derive(Args, Debug, Clone)]
pub struct Config {
    /// /metrics, /health and /ready
    #[arg(long, env = "WORKER_ADMIN_LISTEN", default_value = "0.0.0.0:9081")]
    pub admin_listen: SocketAddr,
    /// Guards the admin routes that change something; without it they are off
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
    /// How often an entry may take the worker down with it before it is set aside
    #[arg(long, env = "MAX_DELIVERIES", default_value_t = 5)]
    pub max_deliveries: usize,
    /// Threads; default: cores
    #[arg(long, env = "THREADS")]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub redis: RedisArgs,
    #[command(flatten)]
    pub amqp: AmqpArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub objects: ObjectArgs,
    #[command(flatten)]
    pub tenants: TenantArgs,
    #[command(flatten)]
    pub graph: GraphArgs,
    #[command(flatten)]
    pub media: MediaArgs,
    #[command(flatten)]
    pub state: StateArgs,
    /// Time to finish what is in work when told to stop
    #[arg(long, env = "SHUTDOWN_GRACE", default_value = "10s", value_parser = duration)]
    pub shutdown_grace: Duration,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Where events go.
#[derive(Args, Debug, Clone)]
pub struct AmqpArgs {
    /// `amqps://` for TLS [default: amqp://guest:guest@127.0.0.1:5672/%2f]
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "AMQP_URL_FILE")]
    pub amqp_url_file: Option<PathBuf>,
    /// Durable topic exchange
    #[arg(long, env = "AMQP_EXCHANGE", default_value = "whatsapp.inbound")]
    pub amqp_exchange: String,
    /// Type of the queues; classic ones lose at-least-once dead lettering
    #[arg(long, env = "AMQP_QUEUE_TYPE", value_enum, default_value_t = QueueType::Quorum)]
    pub amqp_queue_type: QueueType,
    /// false: only check that the topology is there
    #[arg(long, env = "AMQP_DECLARE_TOPOLOGY", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub amqp_declare_topology: bool,
    /// How often a message returns to a quorum queue before it goes to the dead letters: rejected with
    /// requeue, or unacknowledged when its consumer's channel or connection closed. For queues that are
    /// declared anew; one that exists keeps its own, and another value here is refused at the start
    #[arg(long, env = "AMQP_DELIVERY_LIMIT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(topology::NO_LIMIT)))]
    pub amqp_delivery_limit: u32,
    /// Publisher tasks, each with a connection and a channel of its own
    #[arg(long, env = "AMQP_CHANNELS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub amqp_channels: u16,
    /// Events published before their confirms are awaited
    #[arg(long, env = "PUBLISH_BATCH", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub publish_batch: u16,
    /// Then the outcome is unknown, and the events are published again
    #[arg(long, env = "CONFIRM_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub confirm_timeout: Duration,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueType {
    Quorum,
    Classic,
}

/// What else the worker keeps in the object store.
#[derive(Args, Debug, Clone)]
pub struct ObjectArgs {
    /// The store as those see it who get presigned URLs; default: the endpoint
    #[arg(long, env = "MINIO_PUBLIC_ENDPOINT")]
    pub minio_public_endpoint: Option<Url>,
    /// Media; created if missing
    #[arg(long, env = "MINIO_MEDIA_BUCKET", default_value = "media-inbound")]
    pub minio_media_bucket: String,
    /// How long a presigned URL works; 7 days at most
    #[arg(long, env = "PRESIGN_EXPIRY", default_value = "1h", value_parser = duration)]
    pub presign_expiry: Duration,
    /// false: no raw archive
    #[arg(long, env = "ARCHIVE", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub archive: bool,
}

/// Where Meta is asked.
#[derive(Args, Debug, Clone)]
pub struct GraphArgs {
    /// Where the Graph API is
    #[arg(
        long,
        env = "GRAPH_BASE_URL",
        default_value = "https://graph.facebook.com"
    )]
    pub graph_base_url: Url,
    /// A version that Meta has retired is served as another one, which is logged
    #[arg(long, env = "GRAPH_API_VERSION", default_value = "v26.0", value_parser = graph_version)]
    pub graph_api_version: String,
    /// Requests per second and business phone number, over all workers
    #[arg(long, env = "GRAPH_REQUESTS_PER_SECOND", default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub graph_requests_per_second: u32,
}

fn graph_version(text: &str) -> Result<String, &'static str> {
    let numbers = text.strip_prefix('v').and_then(|text| text.split_once('.'));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match numbers {
        Some((major, minor)) if number(major) && number(minor) => Ok(text.to_owned()),
        _ => Err("write it like v26.0"),
    }
}

/// Files of messages.
#[derive(Args, Debug, Clone)]
pub struct MediaArgs {
    /// A message waits no longer for its media, from when its entry was read
    #[arg(long, env = "MEDIA_DEADLINE", default_value = "3s", value_parser = duration)]
    pub media_deadline: Duration,
    /// Transfers at once
    #[arg(long, env = "MEDIA_CONCURRENCY", default_value_t = 16)]
    pub media_concurrency: usize,
    /// Larger media is not stored; Meta takes 100 MB of any kind from people
    #[arg(long, env = "MEDIA_MAX_BYTES", default_value_t = 104_857_600)]
    pub media_max_bytes: u64,
    /// Hosts beside the Graph API's that get a token, exactly and by https; an entry that begins with a
    /// dot (.fbcdn.net) allows every host below that name; one written as an origin
    /// (http://127.0.0.1:9090) allows just that one, for tests
    #[arg(
        long,
        env = "MEDIA_ALLOWED_HOSTS",
        default_value = "lookaside.fbsbx.com",
        value_delimiter = ','
    )]
    pub media_allowed_hosts: Vec<AllowedHost>,
}

/// Who owns a business account.
#[derive(Args, Debug, Clone)]
pub struct TenantArgs {
    /// Who knows which tenant has a business account
    #[arg(
        long,
        env = "TENANT_SERVICE_URL",
        default_value = "http://127.0.0.1:8090"
    )]
    pub tenant_service_url: Url,
    /// Sent as a bearer token
    #[arg(long, env = "TENANT_SERVICE_TOKEN", hide_env_values = true)]
    pub tenant_service_token: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "TENANT_SERVICE_TOKEN_FILE")]
    pub tenant_service_token_file: Option<PathBuf>,
    /// How long a tenant is remembered
    #[arg(long, env = "TENANT_CACHE_TTL", default_value = "1h", value_parser = duration)]
    pub tenant_cache_ttl: Duration,
    /// How long a tenant is still served after it was last asked for while the Tenant Service is down
    #[arg(long, env = "TENANT_STALE_TTL", default_value = "24h", value_parser = duration)]
    pub tenant_stale_ttl: Duration,
    /// Instead of the Tenant Service: a JSON array of the same objects, read again when it changes
    #[arg(long, env = "TENANTS_FILE")]
    pub tenants_file: Option<PathBuf>,
    /// How long an access token is remembered
    #[arg(long, env = "TOKEN_CACHE_TTL", default_value = "24h", value_parser = duration)]
    pub token_cache_ttl: Duration,
    /// 32 bytes in base64, several comma-separated: the first encrypts access tokens in Redis, all
    /// decrypt; without it they are not written to Redis
    #[arg(long, env = "TOKEN_ENCRYPTION_KEY", hide_env_values = true)]
    pub token_encryption_key: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "TOKEN_ENCRYPTION_KEY_FILE")]
    pub token_encryption_key_file: Option<PathBuf>,
}

/// Who knows a conversation's state.
#[derive(Args, Debug, Clone)]
pub struct StateArgs {
    /// Without it, events have no conversation
    #[arg(long, env = "STATE_MANAGER_URL")]
    pub state_manager_url: Option<Url>,
    /// Sent as a bearer token
    #[arg(long, env = "STATE_MANAGER_TOKEN", hide_env_values = true)]
    pub state_manager_token: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "STATE_MANAGER_TOKEN_FILE")]
    pub state_manager_token_file: Option<PathBuf>,
    /// A message waits no longer for its conversation
    #[arg(long, env = "STATE_DEADLINE", default_value = "300ms", value_parser = duration)]
    pub state_deadline: Duration,
}

/// The secrets of the settings, which follow their files.
#[derive(Clone)]
pub struct Secrets {
    pub redis: Redis,
    pub amqp: Arc<Rotating<Secret>>,
    /// `None` where one is not set.
    pub store: Option<StoreKeys>,
    pub tenant_service_token: Option<Arc<Rotating<Secret>>>,
    pub tenants: Option<Arc<Rotating<Directory>>>,
    pub token_keys: Option<Arc<Rotating<Keyring>>>,
    pub state_manager_token: Option<Arc<Rotating<Secret>>>,
    pub admin_token: Option<Arc<Rotating<Secret>>>,
}

impl Secrets {
    /// All that may change while the program runs.
    pub fn followed(&self) -> Vec<Arc<dyn Follow>> {
        let mut all = vec![self.redis.follow(), self.amqp.clone()];
        all.extend(self.store.iter().flat_map(StoreKeys::followed));
        for token in [
            &self.tenant_service_token,
            &self.state_manager_token,
            &self.admin_token,
        ] {
            all.extend(token.clone().map(|it| it as Arc<dyn Follow>));
        }
        all.extend(self.tenants.clone().map(|it| it as Arc<dyn Follow>));
        all.extend(self.token_keys.clone().map(|it| it as Arc<dyn Follow>));
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
        let amqp = Rotating::open(
            "AMQP_URL",
            amqp.amqp_url.as_ref().or(default.as_ref()),
            amqp.amqp_url_file.as_deref(),
            publisher::url,
        );
        let amqp = keep(amqp, &mut problems);
        let mut plain = |variable, value: &Option<Secret>, file: &Option<PathBuf>| {
            let opened = Rotating::plain(variable, value.as_ref(), file.as_deref());
            keep(opened, &mut problems)
        };
        let tenant_service_token = plain(
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
        let tenants = keep(file.transpose(), &mut problems);
        let store = self.store.keys().unwrap_or_else(|wrong| {
            problems.extend(wrong);
            None
        });
        match (redis, amqp) {
            (Some(redis), Some(amqp)) if problems.is_empty() => Ok(Secrets {
                redis,
                amqp,
                store,
                tenant_service_token,
                tenants,
                token_keys,
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

impl Check for Cli {
    fn problems(&self) -> Vec<String> {
        let config = &self.config;
        let mut problems = config.secrets().err().unwrap_or_default();
        let (access, secret) = config.store.named_keys();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                problems.push(what.to_owned());
            }
        };
        must(
            access && secret,
            "MINIO_ACCESS_KEY (--minio-access-key) and MINIO_SECRET_KEY (--minio-secret-key) must be \
             set, or their _FILEs: failed webhooks and the archive need the object store",
        );
        must(
            (SHORTEST_LEASE..=LONGEST_LEASE).contains(&config.lease_ttl),
            "LEASE_TTL (--lease-ttl) must be from 500ms to 1h: a killed worker's partitions stand still for \
             that long",
        );
        must(
            (1..=MOST_THREADS).contains(&config.threads.unwrap_or(1)),
            &format!("THREADS (--threads) must be from 1 to {MOST_THREADS}"),
        );
        must(
            config.read_bytes >= 8_388_608,
            "READ_BYTES (--read-bytes) must be at least 8388608, twice the 4194304 bytes that a body may have: \
             with less a partition can stop at a large one",
        );
        for (value, name) in [
            (config.concurrency, "WORKER_CONCURRENCY (--concurrency)"),
            (config.max_deliveries, "MAX_DELIVERIES (--max-deliveries)"),
            (
                config.media.media_concurrency,
                "MEDIA_CONCURRENCY (--media-concurrency)",
            ),
        ] {
            must(
                (1..=MOST_AT_ONCE).contains(&value),
                &format!("{name} must be from 1 to {MOST_AT_ONCE}"),
            );
        }
        must(
            config.tenants.tenant_stale_ttl >= config.tenants.tenant_cache_ttl,
            "TENANT_STALE_TTL (--tenant-stale-ttl) must be at least TENANT_CACHE_TTL \
             (--tenant-cache-ttl)",
        );
        for (value, name) in [
            (
                config.tenants.tenant_cache_ttl,
                "TENANT_CACHE_TTL (--tenant-cache-ttl)",
            ),
            (
                config.tenants.token_cache_ttl,
                "TOKEN_CACHE_TTL (--token-cache-ttl)",
            ),
        ] {
            must(
                value >= Duration::from_secs(1),
                &format!("{name} must be at least 1s"),
            );
        }
        must(
            config.state.state_deadline >= Duration::from_millis(1),
            "STATE_DEADLINE (--state-deadline) must be at least 1ms",
        );
        let state_manager = config.state.state_manager_url.as_ref();
        let state_manager =
            state_manager.map(|url| (url, "STATE_MANAGER_URL (--state-manager-url)"));
        for (url, name) in [
            (
                &config.store.minio_endpoint,
                "MINIO_ENDPOINT (--minio-endpoint)",
            ),
            (
                config
                    .objects
                    .minio_public_endpoint
                    .as_ref()
                    .unwrap_or(&config.store.minio_endpoint),
                "MINIO_PUBLIC_ENDPOINT (--minio-public-endpoint)",
            ),
            (
                &config.graph.graph_base_url,
                "GRAPH_BASE_URL (--graph-base-url)",
            ),
            (
                &config.tenants.tenant_service_url,
                "TENANT_SERVICE_URL (--tenant-service-url)",
            ),
        ]
        .into_iter()
        .chain(state_manager)
        {
            must(
                matches!(url.scheme(), "http" | "https") && url.has_host(),
                &format!("{name} must be an http:// or https:// URL"),
            );
        }
        must(
            (Duration::from_secs(1)..=LONGEST_PRESIGNED).contains(&config.objects.presign_expiry),
            "PRESIGN_EXPIRY (--presign-expiry) must be from 1s to 7d",
        );
        must(
            config.media.media_max_bytes > 0,
            "MEDIA_MAX_BYTES (--media-max-bytes) must be at least 1",
        );
        must(
            !config.amqp.confirm_timeout.is_zero(),
            "CONFIRM_TIMEOUT (--confirm-timeout) must be longer than 0s",
        );
        problems
    }
}
