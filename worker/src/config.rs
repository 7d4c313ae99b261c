//! Settings of the worker.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Parser, Subcommand, ValueEnum};
use shared::config::{LogArgs, RedisArgs, Secret, duration};
use url::Url;

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
}

#[derive(Args, Debug, Clone)]
pub struct Config {
    /// /metrics, /health and /ready
    #[arg(long, env = "WORKER_ADMIN_LISTEN", default_value = "0.0.0.0:9081")]
    pub admin_listen: SocketAddr,
    /// Conversations in work at once
    #[arg(long, env = "WORKER_CONCURRENCY", default_value_t = 256)]
    pub concurrency: usize,
    /// How long a partition stays with a worker that is not heard of
    #[arg(long, env = "LEASE_TTL", default_value = "5s", value_parser = duration)]
    pub lease_ttl: Duration,
    /// Bodies of a partition in memory
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
    pub tenants: TenantArgs,
    /// Time to finish what is in work when told to stop
    #[arg(long, env = "SHUTDOWN_GRACE", default_value = "10s", value_parser = duration)]
    pub shutdown_grace: Duration,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Where events go.
#[derive(Args, Debug, Clone)]
pub struct AmqpArgs {
    /// `amqps://` for TLS
    #[arg(
        long,
        env = "AMQP_URL",
        default_value = "amqp://guest:guest@127.0.0.1:5672/%2f"
    )]
    pub amqp_url: Secret,
    /// Durable topic exchange
    #[arg(long, env = "AMQP_EXCHANGE", default_value = "whatsapp.inbound")]
    pub amqp_exchange: String,
    /// Type of the queues; classic ones lose at-least-once dead lettering
    #[arg(long, env = "AMQP_QUEUE_TYPE", value_enum, default_value_t = QueueType::Quorum)]
    pub amqp_queue_type: QueueType,
    /// false: only check that the topology is there
    #[arg(long, env = "AMQP_DECLARE_TOPOLOGY", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub amqp_declare_topology: bool,
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

/// Where raw payloads go.
#[derive(Args, Debug, Clone)]
pub struct StoreArgs {
    /// Any S3
    #[arg(long, env = "MINIO_ENDPOINT", default_value = "http://127.0.0.1:9000")]
    pub minio_endpoint: Url,
    #[arg(long, env = "MINIO_ACCESS_KEY")]
    pub minio_access_key: Option<Secret>,
    #[arg(long, env = "MINIO_SECRET_KEY")]
    pub minio_secret_key: Option<Secret>,
    #[arg(long, env = "MINIO_REGION", default_value = "us-east-1")]
    pub minio_region: String,
    /// Raw payloads; created if missing
    #[arg(long, env = "MINIO_WEBHOOK_BUCKET", default_value = "webhooks-inbound")]
    pub minio_webhook_bucket: String,
    /// Media; created if missing
    #[arg(long, env = "MINIO_MEDIA_BUCKET", default_value = "media-inbound")]
    pub minio_media_bucket: String,
    /// false: no raw archive
    #[arg(long, env = "ARCHIVE", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub archive: bool,
}

/// Who owns a business account.
#[derive(Args, Debug, Clone)]
pub struct TenantArgs {
    #[arg(
        long,
        env = "TENANT_SERVICE_URL",
        default_value = "http://127.0.0.1:8090"
    )]
    pub tenant_service_url: Url,
    /// Sent as a bearer token
    #[arg(long, env = "TENANT_SERVICE_TOKEN")]
    pub tenant_service_token: Option<Secret>,
    /// How long a tenant is remembered
    #[arg(long, env = "TENANT_CACHE_TTL", default_value = "1h", value_parser = duration)]
    pub tenant_cache_ttl: Duration,
}

impl Config {
    /// Checks what clap can't: relations between settings.
    ///
    /// # Errors
    /// All problems at once, each naming its variable and flag.
    pub fn check(&self) -> anyhow::Result<()> {
        let mut problems = Vec::new();
        if self.store.minio_access_key.is_none() || self.store.minio_secret_key.is_none() {
            problems.push(
                "MINIO_ACCESS_KEY (--minio-access-key) and MINIO_SECRET_KEY (--minio-secret-key) \
                 must be set: failed webhooks and the archive need the object store",
            );
        }
        if self.lease_ttl < Duration::from_millis(500) {
            problems.push("LEASE_TTL (--lease-ttl) must be at least 500ms");
        }
        if self.concurrency == 0 {
            problems.push("WORKER_CONCURRENCY (--concurrency) must be at least 1");
        }
        if self.read_bytes < 65_536 {
            problems.push("READ_BYTES (--read-bytes) must be at least 65536");
        }
        if self.max_deliveries == 0 {
            problems.push("MAX_DELIVERIES (--max-deliveries) must be at least 1");
        }
        if !problems.is_empty() {
            bail!("{}", problems.join("\n"));
        }
        Ok(())
    }
}
