//! Settings of ingress.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use shared::config::{Check, LogArgs, MOST_AT_ONCE, MOST_THREADS, RedisArgs, duration};
use shared::outgoing::ProxyArgs;
use shared::redis::Redis;
use shared::secrets::{Rotating, Secret, WatchedFile};
use shared::store::{StoreArgs, StoreKeys};

use crate::admission::AdmissionLimits;
use crate::intake::Limit;
use crate::signature::SignatureVerifier;

/// One slow fsync is no reason to spool.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(100);

/// Redis takes no larger argument.
const LARGEST_BODY: usize = 512 * 1024 * 1024;

/// Takes Meta's webhooks and makes each durable in a Redis Stream before it answers 200.
#[derive(Parser, Debug, Clone)]
#[command(version = shared::config::version(), about)]
pub struct Config {
    #[command(subcommand)]
    pub command: Option<IngressCommand>,
    /// Webhook, /health and /ready
    #[arg(long, env = "INGRESS_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// /metrics, /health and /ready
    #[arg(long, env = "INGRESS_ADMIN_LISTEN", default_value = "0.0.0.0:9080")]
    pub admin_listen: SocketAddr,
    /// Guards the admin routes that change something; without it they are off
    #[arg(long, env = "INGRESS_ADMIN_TOKEN", hide_env_values = true)]
    pub admin_token: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "INGRESS_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Where Meta posts, and asks its challenge
    #[arg(long, env = "WEBHOOK_PATH", default_value = "/webhook/meta")]
    pub webhook_path: String,
    /// App secrets, comma-separated: several apps, or one in rotation; any may have signed
    #[arg(long, env = "META_APP_SECRETS", hide_env_values = true)]
    pub app_secrets: Option<Secret>,
    /// File that has them, read again when it changes
    #[arg(long, env = "META_APP_SECRETS_FILE")]
    pub app_secrets_file: Option<PathBuf>,
    /// Start without secrets, because a gateway in front checks signatures
    #[arg(long, env = "ALLOW_UNSIGNED", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub allow_unsigned: bool,
    /// What Meta's challenge must bring; without it there is no GET on the webhook's path
    #[arg(long, env = "META_VERIFY_TOKEN", hide_env_values = true)]
    pub verify_token: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "META_VERIFY_TOKEN_FILE")]
    pub verify_token_file: Option<PathBuf>,
    /// Largest body; Meta sends up to 3 MB
    #[arg(long, env = "MAX_BODY_BYTES", default_value_t = 4_194_304)]
    pub max_body_bytes: usize,
    /// Open connections; beyond: 503
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 10_000)]
    pub max_connections: usize,
    /// Webhooks being stored at once; beyond: 503
    #[arg(long, env = "MAX_IN_FLIGHT", default_value_t = 4096)]
    pub max_in_flight: usize,
    /// Memory for bodies, and for their copies on the way to Redis; beyond: 503
    #[arg(long, env = "MAX_IN_FLIGHT_BYTES", default_value_t = 67_108_864)]
    pub max_in_flight_bytes: usize,
    /// How long a connection stays open after a webhook that was taken: longer than a balancer in front
    /// keeps one (nginx 60s, AWS 60s, Google 600s), or it sends into one that closes. When connections get
    /// scarce, those without a request close earlier
    #[arg(long, env = "KEEP_ALIVE_TIMEOUT", default_value = "650s", value_parser = duration)]
    pub keep_alive_timeout: Duration,
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
    /// How long an item is remembered. Meta repeats for up to 7 days: 8d covers that, the default saves memory
    #[arg(long, env = "DEDUP_TTL", default_value = "24h", value_parser = duration)]
    pub dedup_ttl: Duration,
    /// Webhooks of one business account in any 60 seconds; 0: no limit
    #[arg(long, env = "RATE_LIMIT_PER_MINUTE", default_value_t = 1000)]
    pub rate_limit_per_minute: u32,
    /// What happens beyond it
    #[arg(long, env = "RATE_LIMIT_ACTION", value_enum, default_value_t = LimitAction::Reject)]
    pub rate_limit_action: LimitAction,
    #[command(flatten, next_help_heading = "Redis")]
    pub redis: RedisArgs,
    /// How long a failing Redis is tried again before a webhook goes to the spool, or is answered 503
    #[arg(long, env = "REDIS_PATIENCE", default_value = "1s", value_parser = duration)]
    pub redis_patience: Duration,
    /// The spool for when Redis takes nothing; without keys there is none
    #[command(flatten, next_help_heading = "Object store")]
    pub store: StoreArgs,
    /// From when it is told to stop, and says at /ready that it isn't, until it takes no more
    /// connections: for balancers to learn of it
    #[arg(long, env = "SHUTDOWN_DELAY", default_value = "0s", value_parser = duration)]
    pub shutdown_delay: Duration,
    /// Time for requests in work when told to stop
    #[arg(long, env = "SHUTDOWN_GRACE", default_value = "10s", value_parser = duration)]
    pub shutdown_grace: Duration,
    #[command(flatten)]
    pub proxy: ProxyArgs,
    #[command(flatten, next_help_heading = "Logs")]
    pub log: LogArgs,
}

#[derive(Subcommand, Debug, Clone, Copy)]
pub enum IngressCommand {
    /// Work until told to stop (the default)
    Run,
    /// Ask the ingress that runs with these settings whether it lives; exit status 0 or 1
    Health,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitAction {
    /// 429
    Reject,
    /// Count, log, tell in the headers, and store
    Observe,
}

/// The secrets of the settings, which follow their files.
pub struct Secrets {
    /// `None` in unsigned mode.
    pub verifier: Option<Arc<Rotating<SignatureVerifier>>>,
    pub verify_token: Option<Arc<Rotating<Secret>>>,
    pub admin_token: Option<Arc<Rotating<Secret>>>,
    pub redis: Redis,
    /// `None`: there is no spool.
    pub store: Option<StoreKeys>,
}

impl Secrets {
    /// All that may change while the program runs.
    pub fn followed(&self) -> Vec<Arc<dyn WatchedFile>> {
        let mut all = vec![self.redis.follow()];
        all.extend(self.verifier.clone().map(|it| it as Arc<dyn WatchedFile>));
        all.extend(
            self.verify_token
                .clone()
                .map(|it| it as Arc<dyn WatchedFile>),
        );
        all.extend(
            self.admin_token
                .clone()
                .map(|it| it as Arc<dyn WatchedFile>),
        );
        all.extend(self.store.iter().flat_map(StoreKeys::followed));
        all
    }
}

impl Config {
    pub(crate) fn admission(&self) -> AdmissionLimits {
        AdmissionLimits {
            connections: self.max_connections,
            memory_bytes: self.max_in_flight_bytes,
            in_flight: self.max_in_flight,
            partitions: self.redis.stream_partitions,
        }
    }

    pub fn limit(&self) -> Limit {
        Limit {
            per_minute: self.rate_limit_per_minute,
            refuse: match self.rate_limit_action {
                LimitAction::Reject => true,
                LimitAction::Observe => false,
            },
        }
    }

    /// Reads the secrets.
    ///
    /// # Errors
    /// What is wrong with any of them.
    pub fn secrets(&self) -> Result<Secrets, Vec<String>> {
        let verifier = Rotating::open(
            "META_APP_SECRETS",
            self.app_secrets.as_ref(),
            self.app_secrets_file.as_deref(),
            SignatureVerifier::parse,
        );
        let verify_token = Rotating::plain(
            "META_VERIFY_TOKEN",
            self.verify_token.as_ref(),
            self.verify_token_file.as_deref(),
        );
        let admin_token = Rotating::plain(
            "INGRESS_ADMIN_TOKEN",
            self.admin_token.as_ref(),
            self.admin_token_file.as_deref(),
        );
        let (redis, store) = (Redis::new(&self.redis), self.store.keys());
        match (verifier, verify_token, admin_token, redis, store) {
            (Ok(verifier), Ok(verify_token), Ok(admin_token), Ok(redis), Ok(store)) => {
                Ok(Secrets {
                    verifier,
                    verify_token,
                    admin_token,
                    redis,
                    store,
                })
            }
            (verifier, verify_token, admin_token, redis, store) => {
                let problems = [
                    verifier.err(),
                    verify_token.err(),
                    admin_token.err(),
                    redis.err(),
                ];
                let problems = problems.into_iter().flatten();
                Err(problems.chain(store.err().into_iter().flatten()).collect())
            }
        }
    }
}

impl Check for Config {
    fn problems(&self) -> Vec<String> {
        let mut problems = self.secrets().err().unwrap_or_default();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                problems.push(what.to_owned());
            }
        };
        self.can_serve(&mut must);
        self.bounds_are_possible(&mut must);
        self.times_are_possible(&mut must);
        self.spool_is_possible(&mut must);
        problems
    }
}

impl Config {
    fn can_serve(&self, must: &mut impl FnMut(bool, &str)) {
        must(
            self.app_secrets.is_some() || self.app_secrets_file.is_some() || self.allow_unsigned,
            "META_APP_SECRETS (--app-secrets) is not set: nothing could be verified. Set it, or \
             META_APP_SECRETS_FILE, or ALLOW_UNSIGNED=true (--allow-unsigned) if a gateway in front \
             checks signatures",
        );
        must(
            self.webhook_path.starts_with('/') && !self.webhook_path.contains(['?', '#']),
            "WEBHOOK_PATH (--webhook-path) must start with / and have no query",
        );
        must(
            !matches!(self.webhook_path.as_str(), "/health" | "/ready"),
            "WEBHOOK_PATH (--webhook-path) must not be /health or /ready, which answer probes",
        );
        must(
            self.listen != self.admin_listen || self.listen.port() == 0,
            "INGRESS_ADMIN_LISTEN (--admin-listen) must differ from INGRESS_LISTEN (--listen)",
        );
    }

    fn bounds_are_possible(&self, must: &mut impl FnMut(bool, &str)) {
        for (value, most, name) in [
            (
                self.max_body_bytes,
                LARGEST_BODY,
                "MAX_BODY_BYTES (--max-body-bytes)",
            ),
            (
                self.max_connections,
                MOST_AT_ONCE,
                "MAX_CONNECTIONS (--max-connections)",
            ),
            (
                self.max_in_flight,
                MOST_AT_ONCE,
                "MAX_IN_FLIGHT (--max-in-flight)",
            ),
            (
                self.threads.unwrap_or(1),
                MOST_THREADS,
                "THREADS (--threads)",
            ),
        ] {
            must(
                (1..=most).contains(&value),
                &format!("{name} must be from 1 to {most}"),
            );
        }
        must(
            self.max_in_flight_bytes / crate::admission::COPIES >= self.max_body_bytes,
            "MAX_IN_FLIGHT_BYTES (--max-in-flight-bytes) must be at least four times \
             MAX_BODY_BYTES (--max-body-bytes): storing a body takes three copies of it",
        );
        must(
            u32::try_from(self.max_in_flight_bytes).is_ok(),
            "MAX_IN_FLIGHT_BYTES (--max-in-flight-bytes) must be less than 4 GiB",
        );
    }

    fn times_are_possible(&self, must: &mut impl FnMut(bool, &str)) {
        must(
            self.dedup_ttl >= Duration::from_secs(1),
            "DEDUP_TTL (--dedup-ttl) must be at least 1s",
        );
        for (value, name) in [
            (self.header_timeout, "HEADER_TIMEOUT (--header-timeout)"),
            (self.body_timeout, "BODY_TIMEOUT (--body-timeout)"),
            (
                self.request_deadline,
                "REQUEST_DEADLINE (--request-deadline)",
            ),
        ] {
            must(!value.is_zero(), &format!("{name} must be longer than 0s"));
        }
        must(
            self.redis_patience < self.request_deadline,
            "REDIS_PATIENCE (--redis-patience) must be shorter than REQUEST_DEADLINE \
             (--request-deadline), or the deadline comes first",
        );
    }

    fn spool_is_possible(&self, must: &mut impl FnMut(bool, &str)) {
        let (access, secret) = self.store.named_keys();
        must(
            access == secret,
            "MINIO_ACCESS_KEY (--minio-access-key) and MINIO_SECRET_KEY (--minio-secret-key) must be \
             set both, or their _FILEs, or neither: then there is no spool",
        );
        let endpoint = &self.store.minio_endpoint;
        must(
            matches!(endpoint.scheme(), "http" | "https") && endpoint.has_host(),
            "MINIO_ENDPOINT (--minio-endpoint) must be an http:// or https:// URL",
        );
        must(
            !access || self.redis_patience >= SHORTEST_PATIENCE,
            "REDIS_PATIENCE (--redis-patience) must be at least 100ms where there is a spool, or \
             webhooks would go there whenever Redis takes its time",
        );
    }
}
