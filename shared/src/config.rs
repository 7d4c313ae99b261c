//! Settings that both programs have, and the types settings are made of.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Parser};
use serde::Serialize;
use url::Url;

use crate::process::COMMIT;
use crate::secrets::Secret;
use crate::telemetry::CommandError;

/// Settings whose relations can be checked.
pub trait Check: Parser {
    /// What is wrong, one sentence each, naming the variable and its flag.
    fn problems(&self) -> Vec<String>;
}

/// What a program was called with: its settings, as far as they can be used.
pub struct ParsedSettings<C> {
    /// Settings that can't be used have their defaults.
    pub config: C,
    /// Everything that is wrong, one sentence each.
    pub problems: Vec<String>,
    pub settings: Vec<EffectiveSetting>,
}

/// A setting that counts, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveSetting {
    pub variable: String,
    /// `None`: not set. A secret is never shown.
    pub value: Option<String>,
    /// `default`, `variable` or `flag`.
    pub source: &'static str,
}

impl<C> ParsedSettings<C> {
    /// # Errors
    /// [`CommandError`]: everything that is wrong, one line each.
    pub fn usable(self) -> anyhow::Result<C> {
        if self.problems.is_empty() {
            return Ok(self.config);
        }
        let problems = self.problems.join("\n  ");
        Err(CommandError(anyhow::anyhow!(
            "these settings can't be used:\n  {problems}"
        ))
        .into())
    }
}

/// Reads all settings of a program from its arguments and the environment. Ends it for `--help` and
/// for arguments that aren't any.
pub fn parse<C: Check>() -> ParsedSettings<C> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = without_empty(C::command());
    let mut problems = Vec::new();
    let (config, settings) = loop {
        let matched = command.clone().try_get_matches_from(&arguments);
        let read = matched.and_then(|matches| Ok((C::from_arg_matches(&matches)?, matches)));
        match read {
            Ok((config, matches)) => break (config, effective(&command, &matches)),
            Err(error) => match without(command.clone(), &mut arguments, &error) {
                Some((rest, problem)) => {
                    command = rest;
                    problems.push(problem);
                }
                None => error.exit(),
            },
        }
    };
    problems.extend(config.problems());
    ParsedSettings {
        config,
        problems,
        settings,
    }
}

/// The settings that have a variable, in the order of `--help`.
fn effective(command: &Command, matches: &ArgMatches) -> Vec<EffectiveSetting> {
    let settings = command.get_arguments().filter_map(|argument| {
        let variable = argument.get_env()?.to_string_lossy().into_owned();
        let id = argument.get_id().as_str();
        let values = matches.try_get_raw(id).ok().flatten();
        let values = values.map(|values| {
            let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
            values.join(",")
        });
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "variable",
            Some(_) | None => "default",
        };
        let is_secret = argument.is_hide_env_values_set();
        let value = values.map(|value| match is_secret {
            true => "***".to_owned(),
            false => without_password(value),
        });
        Some(EffectiveSetting {
            variable,
            value,
            source,
        })
    });
    settings.collect()
}

/// A URL may have a password although it shouldn't.
fn without_password(value: String) -> String {
    let Ok(mut url) = Url::parse(&value) else {
        return value;
    };
    match url.password().is_some() && url.set_password(Some("***")).is_ok() {
        true => url.into(),
        false => value,
    }
}

/// The program's version, and the commit that it was built of.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> =
        LazyLock::new(|| format!("{} (commit {COMMIT})", env!("CARGO_PKG_VERSION")));
    &VERSION
}

/// The command without settings whose variable is set and empty, as compose makes them: they count as
/// not set. An empty secret is refused, since it more likely got lost.
fn without_empty(command: Command) -> Command {
    let is_empty = |name| {
        let value = std::env::var_os(name);
        value.is_some_and(|value| value.to_string_lossy().trim().is_empty())
    };
    let empty = command.get_arguments().filter(|argument| {
        !argument.is_hide_env_values_set() && argument.get_env().is_some_and(is_empty)
    });
    let empty: Vec<_> = empty.map(|argument| argument.get_id().clone()).collect();
    empty.into_iter().fold(command, |command, id| {
        command.mut_arg(id, |argument| argument.env(Resettable::Reset))
    })
}

/// The command without the setting that `error` is about, which then has its default, and what is
/// wrong with it; `None` if it isn't about a setting's value.
fn without(
    command: Command,
    arguments: &mut Vec<OsString>,
    error: &clap::Error,
) -> Option<(Command, String)> {
    let (ErrorKind::ValueValidation | ErrorKind::InvalidValue) = error.kind() else {
        return None;
    };
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = named.split([' ', '=', '[']).next()?.to_owned();
    let argument = command.get_arguments().find(|argument| {
        argument
            .get_long()
            .is_some_and(|long| flag == format!("--{long}"))
    })?;
    let variable = argument
        .get_env()
        .map(|name| name.to_string_lossy().into_owned());
    let why = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(valid)) => format!("must be one of {}", valid.join(", ")),
            _ => "is not valid".to_owned(),
        },
    };
    let name = match variable {
        Some(variable) => format!("{variable} ({flag})"),
        None => flag.clone(),
    };
    let id = argument.get_id().clone();
    // A flag wins over its variable: it goes first, and the variable is looked at then.
    let given = arguments
        .iter()
        .position(|argument| argument.to_string_lossy().split('=').next() == Some(&*flag));
    let rest = match given {
        Some(at) => {
            let alone = !arguments[at].to_string_lossy().contains('=');
            arguments.drain(at..(at + 1 + usize::from(alone)).min(arguments.len()));
            command
        }
        None => command.mut_arg(id, |argument| argument.env(Resettable::Reset)),
    };
    Some((rest, format!("{name}: {why}")))
}

/// The longest duration that a setting may have. Any of them can be added to any time.
const LONGEST_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads `250ms`, `5s`, `24h`, `8d`.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = any_duration(text)?;
    if duration > LONGEST_DURATION {
        return Err("must not be longer than 366d".to_owned());
    }
    Ok(duration)
}

/// Reads a duration that is no setting, however long.
///
/// # Errors
/// What is wrong with the text.
pub fn any_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 250ms, 5s, 24h or 8d"))
}

/// The most of anything that a setting may allow: connections, work at once. The semaphores that
/// count it take no more than 2^61.
pub const MOST_AT_ONCE: usize = 1_000_000;
/// The most threads of a program.
pub const MOST_THREADS: usize = 1024;

/// Braces would move the keys of a partition to different slots of a Redis Cluster.
fn key_prefix(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.contains(|c: char| c == '{' || c == '}' || c.is_whitespace()) {
        return Err("must not be empty, nor have braces or spaces");
    }
    Ok(text.to_owned())
}

/// What a level may be called; whatever else a filter of `tracing` takes is more likely a slip of the pen,
/// and `debgu` as the name of a module would silence everything.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Reads `info`, or `info,worker=debug,worker::out=trace`.
///
/// # Errors
/// What is wrong with the text.
pub fn log_filter(text: &str) -> Result<String, String> {
    let is_level = |word: &str| LEVELS.contains(&word);
    let is_module = |path: &str| {
        let is_name = |name: &str| {
            let mut letters = name.bytes();
            !name.is_empty() && letters.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        path.split("::").all(is_name)
    };
    let lower = text.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split(',').map(str::trim).collect();
    for part in &parts {
        let (module, level) = part.split_once('=').unwrap_or(("", part));
        let named = part.contains('=');
        if !is_level(level) || (named && !is_module(module)) {
            return Err(format!(
                "`{part}` is no level: write one of {}, and of a module of its own `worker=debug`, \
                 comma-separated",
                LEVELS.join(", ")
            ));
        }
    }
    Ok(parts.join(","))
}

/// Where the stream lives.
#[derive(Args, Debug, Clone)]
pub struct RedisArgs {
    /// `rediss://` for TLS; several, comma-separated: nodes of a Redis Cluster [default:
    /// redis://127.0.0.1:6379]
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "REDIS_URL_FILE")]
    pub redis_url_file: Option<PathBuf>,
    /// The address is of a Redis Cluster, whose nodes it tells; several are one anyway
    #[arg(long, env = "REDIS_CLUSTER", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub redis_cluster: bool,
    /// Prefix of every key
    #[arg(long, env = "REDIS_KEY_PREFIX", default_value = "whatsapp", value_parser = key_prefix)]
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
    /// off, error, warn, info, debug or trace, and of modules of their own: `info,worker=debug`
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = log_filter)]
    pub log_level: String,
    /// How lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// OTLP collector (http://host:4318) that gets spans; none: none are made. OTEL_SERVICE_NAME,
    /// OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and OTEL_BSP_… count as OpenTelemetry says
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otel_exporter_otlp_endpoint: Option<Url>,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Pretty,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_one_of_six_and_a_slip_of_the_pen_is_none() {
        for (text, read) in [
            ("info", "info"),
            ("WARN", "warn"),
            ("off", "off"),
            ("info, worker=debug", "info,worker=debug"),
            ("info,ingress::request=trace", "info,ingress::request=trace"),
        ] {
            assert_eq!(log_filter(text).as_deref(), Ok(read), "{text}");
        }
        for slip in [
            "",
            "debgu",
            "info,",
            "info,debgu",
            "worker=debgu",
            "worker=",
            "=debug",
            "worker:debug",
            "worker=debug=info",
            "3",
            "info;worker=debug",
            "[span]=info",
        ] {
            let refused = log_filter(slip).expect_err(slip);
            assert!(refused.contains("write one of off, error"), "{refused}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        let shown = |text: &str| without_password(text.to_owned());
        assert_eq!(shown("http://u:secret@h:1/p"), "http://u:***@h:1/p");
        assert_eq!(shown("http://127.0.0.1:9000"), "http://127.0.0.1:9000");
        assert_eq!(shown("a:b"), "a:b");
    }
}
