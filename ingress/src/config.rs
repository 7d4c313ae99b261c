//! Settings of ingress.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use clap::Parser;
use shared::config::{LogArgs, RedisArgs, Secret, duration};

/// Takes Meta's webhooks and makes each durable in a Redis Stream before it answers 200.
#[derive(Parser, Debug, Clone)]
#[command(version, about)]
pub struct Config {
    /// Webhook, /health and /ready
    #[arg(long, env = "INGRESS_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// /metrics, /health and /ready
    #[arg(long, env = "INGRESS_ADMIN_LISTEN", default_value = "0.0.0.0:9080")]
    pub admin_listen: SocketAddr,
    /// Where Meta posts
    #[arg(long, env = "WEBHOOK_PATH", default_value = "/webhook/meta")]
    pub webhook_path: String,
    /// App secrets, comma-separated: several apps, or one in rotation; any may have signed
    #[arg(long, env = "META_APP_SECRETS", value_delimiter = ',')]
    pub app_secrets: Vec<Secret>,
    /// Start without secrets, because a gateway in front checks signatures
    #[arg(long, env = "ALLOW_UNSIGNED", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub allow_unsigned: bool,
    /// Largest body; Meta sends up to 3 MB
    #[arg(long, env = "MAX_BODY_BYTES", default_value_t = 4_194_304)]
    pub max_body_bytes: usize,
    /// Open connections; beyond, new ones are closed at once
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 10_000)]
    pub max_connections: usize,
    /// Webhooks in work at once; beyond: 503
    #[arg(long, env = "MAX_IN_FLIGHT", default_value_t = 4096)]
    pub max_in_flight: usize,
    /// Time for the headers of a request
    #[arg(long, env = "HEADER_TIMEOUT", default_value = "5s", value_parser = duration)]
    pub header_timeout: Duration,
    /// Time for the body of a request
    #[arg(long, env = "BODY_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub body_timeout: Duration,
    /// From the last byte of the body to the answer
    #[arg(long, env = "REQUEST_DEADLINE", default_value = "2500ms", value_parser = duration)]
    pub request_deadline: Duration,
    /// Threads; default: cores
    #[arg(long, env = "THREADS")]
    pub threads: Option<usize>,
    /// How long an item is remembered; Meta retries for up to 7 days
    #[arg(long, env = "DEDUP_TTL", default_value = "24h", value_parser = duration)]
    pub dedup_ttl: Duration,
    #[command(flatten)]
    pub redis: RedisArgs,
    /// How long a failing Redis is tried again before the answer is 503
    #[arg(long, env = "REDIS_PATIENCE", default_value = "1s", value_parser = duration)]
    pub redis_patience: Duration,
    /// Time for requests in work when told to stop
    #[arg(long, env = "SHUTDOWN_GRACE", default_value = "10s", value_parser = duration)]
    pub shutdown_grace: Duration,
    #[command(flatten)]
    pub log: LogArgs,
}

impl Config {
    /// Checks what clap can't: relations between settings.
    ///
    /// # Errors
    /// All problems at once, each naming its variable and flag.
    pub fn check(&self) -> anyhow::Result<()> {
        let mut problems = Vec::new();
        if self.app_secrets.is_empty() && !self.allow_unsigned {
            problems.push(
                "META_APP_SECRETS (--app-secrets) is not set: nothing could be verified. Set it, or \
                 ALLOW_UNSIGNED=true (--allow-unsigned) if a gateway in front checks signatures",
            );
        }
        if !self.webhook_path.starts_with('/') {
            problems.push("WEBHOOK_PATH (--webhook-path) must start with /");
        }
        if self.dedup_ttl < Duration::from_secs(1) {
            problems.push("DEDUP_TTL (--dedup-ttl) must be at least 1s");
        }
        if !problems.is_empty() {
            bail!("{}", problems.join("\n"));
        }
        Ok(())
    }
}
