//! Settings that both programs have, and the types settings are made of.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

/// A value that never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "" => Err("must not be empty"),
            text => Ok(Self(text.to_owned())),
        }
    }
}

/// Reads `250ms`, `5s`, `24h`, `8d`.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 250ms, 5s, 24h or 8d"))
}

/// Where the stream lives.
#[derive(Args, Debug, Clone)]
pub struct RedisArgs {
    /// `rediss://` for TLS
    #[arg(long, env = "REDIS_URL", default_value = "redis://127.0.0.1:6379")]
    pub redis_url: Secret,
    /// Prefix of every key
    #[arg(long, env = "REDIS_KEY_PREFIX", default_value = "whatsapp")]
    pub redis_key_prefix: String,
    /// Refuse to start unless Redis keeps what it acknowledged (AOF, fsync always, noeviction)
    #[arg(
        long,
        env = "REQUIRE_DURABLE_REDIS",
        default_value_t = false,
        num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set
    )]
    pub require_durable_redis: bool,
    /// Streams of this deployment; fixed once it exists
    #[arg(long, env = "STREAM_PARTITIONS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub stream_partitions: u16,
}

/// Logs.
#[derive(Args, Debug, Clone)]
pub struct LogArgs {
    /// error, warn, info, debug, trace, or a filter such as `info,worker=debug`
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// How lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Pretty,
}
