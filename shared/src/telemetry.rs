//! Logs of both programs, to standard error, and the signals that end them.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{LogArgs, LogFormat, log_filter};
use crate::private::Hashed;
use crate::trace::Export;

/// The programs' own code. What libraries say below a warning is never written: it may hold a body, a
/// header or a URL.
const OWN: [&str; 3] = ["ingress", "worker", "shared"];
/// lapin says at each failed attempt that it gave up, while the worker goes on trying, and warns of
/// each message that comes back as unroutable, with its body. The worker says both itself.
const AMQP_CLIENT: &str = "lapin";
/// Target of the lines that say who looked at contents or changed something by hand; written whatever
/// `LOG_LEVEL` is.
const AUDIT: &str = "shared::telemetry::audit";

/// The filter that is in force; one per process, as is the subscriber.
static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Whose lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogScope {
    /// A program that runs: its own lines, and warnings of libraries.
    Program,
    /// A command: it says itself what failed, so libraries don't say it too.
    Command,
}

/// Installs the subscriber; the first call of a process wins. Spans are exported while what it returns
/// is kept.
///
/// # Errors
/// A filter that can't be parsed, or a collector's address that can't be used.
pub fn init(
    args: &LogArgs,
    program: &'static str,
    scope: LogScope,
) -> anyhow::Result<Option<Export>> {
    let filter = EnvFilter::try_new(&args.log_level)
        .with_context(|| format!("LOG_LEVEL (--log-level): `{}`", args.log_level))?;
    let (filter, handle) = reload::Layer::new(filter);
    let audit = filter_fn(|metadata| metadata.target() == AUDIT);
    let quiet = filter_fn(move |metadata| {
        let target = metadata.target();
        let warns = *metadata.level() <= Level::WARN && crate_of(target) != AMQP_CLIENT;
        is_own(target) || (warns && scope == LogScope::Program)
    });
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match args.log_format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
        LogFormat::Pretty => lines.compact().boxed(),
    };
    let endpoint = args.otel_exporter_otlp_endpoint.as_ref();
    let export = endpoint.map(|endpoint| Export::start(endpoint, program));
    let (export, tracer) = export.transpose()?.unzip();
    let spans = tracer.map(|tracer| {
        let own = filter_fn(|metadata| metadata.is_span() && is_own(metadata.target()));
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_filter(own.with_max_level_hint(LevelFilter::DEBUG))
    });
    let subscriber = tracing_subscriber::registry()
        .with(lines.with_filter(filter.or(audit).and(quiet)))
        .with(spans);
    if subscriber.try_init().is_ok() {
        drop(LEVEL.set(handle));
    }
    Ok(export)
}

fn is_own(target: &str) -> bool {
    OWN.contains(&crate_of(target))
}

fn crate_of(target: &str) -> &str {
    target.split("::").next().unwrap_or_default()
}

/// What is logged now, in the form of `LOG_LEVEL`.
pub fn level() -> Option<String> {
    LEVEL.get()?.with_current(ToString::to_string).ok()
}

/// Changes what is logged, until the program ends.
///
/// # Errors
/// Why it is no filter.
pub fn set_level(level: &str) -> anyhow::Result<()> {
    let level = log_filter(level).map_err(anyhow::Error::msg)?;
    let filter = EnvFilter::try_new(&level)?;
    let handle = LEVEL.get().context("logs are not set up")?;
    handle.reload(filter)?;
    tracing::info!(level, "the level of logs was changed");
    Ok(())
}

/// Lets one log line a second through, since some are written by whoever sends most.
pub struct SampledLog {
    started: Instant,
    /// Second of the last line, counted from 1.
    last: AtomicU64,
    skipped: AtomicU64,
}

impl Default for SampledLog {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }
}

impl SampledLog {
    /// How many lines were skipped since the last one, if this one is to be written.
    pub fn pass(&self) -> Option<u64> {
        let second = self.started.elapsed().as_secs() + 1;
        if self.last.swap(second, Ordering::Relaxed) == second {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.skipped.swap(0, Ordering::Relaxed))
    }
}

/// Somebody looks at contents or changes something by hand: `by` as they call themselves, `of` the id or
/// selection that it is about, `count` how many objects or events. Ids may hold phone numbers, so `of` is
/// written as its hash.
pub fn audit(action: &str, by: &str, of: &str, count: u64) {
    let of = Hashed(of);
    tracing::info!(target: AUDIT, action, by, %of, count, "audit");
}

/// A command that could not look, or was called wrongly: its exit status is 2. Any other error's is 1.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct CommandError(pub anyhow::Error);

/// How a command ends that has said all there is to say.
#[derive(Debug, thiserror::Error)]
#[error("exit status {0}")]
pub struct EndsWith(pub u8);

/// What a program ends with; why it failed goes to standard error, in one line and without a
/// backtrace: it is for whoever has to mend a setting.
pub fn exit_code(program: &str, ended: &anyhow::Result<()>) -> ExitCode {
    let Err(error) = ended else {
        return ExitCode::SUCCESS;
    };
    if let Some(EndsWith(status)) = error.downcast_ref() {
        return ExitCode::from(*status);
    }
    let (cause, status) = match error.downcast_ref() {
        Some(CommandError(cause)) => (cause, 2),
        None => (error, 1),
    };
    #[allow(
        clippy::print_stderr,
        reason = "logs may not be set up yet, or be filtered"
    )]
    {
        eprintln!("{program}: {}", innermost_first(cause));
    }
    ExitCode::from(status)
}

/// An error for people: its innermost cause, then in brackets what it was met at. What a cause repeats of
/// another one stands once.
pub fn innermost_first(error: &anyhow::Error) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in error.chain() {
        let mut text = cause.to_string();
        // Libraries say their cause's words in their own, behind a colon.
        if let Some(source) = cause.source().map(ToString::to_string)
            && let Some(own) = text.strip_suffix(&source)
        {
            text = own.trim_end_matches([' ', ':']).to_owned();
        }
        if !text.is_empty() && !told.iter().any(|known| known.contains(&text)) {
            told.push(text);
        }
    }
    let Some(innermost) = told.pop() else {
        return String::new();
    };
    if told.is_empty() {
        return innermost;
    }
    told.reverse();
    format!("{innermost} ({})", told.join("; "))
}

/// A token that SIGTERM or SIGINT cancels.
///
/// # Errors
/// The handlers can't be installed.
pub fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate()).context("SIGTERM handler")?,
        signal(SignalKind::interrupt()).context("SIGINT handler")?,
    );
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: a signal was received");
        stop.cancel();
    });
    Ok(shutdown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_its_innermost_cause_first_and_nothing_twice() {
        let refused = || std::io::Error::other("Connection refused");
        let error = anyhow::Error::from(refused())
            .context("Redis")
            .context("the replay");
        assert_eq!(
            innermost_first(&error),
            "Connection refused (Redis; the replay)"
        );

        #[derive(Debug, thiserror::Error)]
        #[error("IO error: {0}")]
        struct Library(#[source] std::io::Error);
        let error = anyhow::Error::from(Library(refused())).context("RabbitMQ");
        assert_eq!(
            innermost_first(&error),
            "Connection refused (IO error; RabbitMQ)"
        );
        assert_eq!(innermost_first(&anyhow::anyhow!("alone")), "alone");
    }
}
