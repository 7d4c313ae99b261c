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

use crate::config::{LogArgs, LogFormat};
use crate::trace::Export;

/// The programs' own code. What libraries say below a warning is never written: it may hold a body, a
/// header or a URL.
const OWN: [&str; 3] = ["ingress", "worker", "shared"];
/// lapin warns of each message that comes back as unroutable, with its body.
const RETURNED: &str = "lapin::returned_messages";

/// The filter that is in force; one per process, as is the subscriber.
static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Installs the subscriber; the first call of a process wins. Spans are exported while what it returns
/// is kept.
///
/// # Errors
/// A filter that can't be parsed, or a collector's address that can't be used.
pub fn init(args: &LogArgs, program: &'static str) -> anyhow::Result<Option<Export>> {
    let filter = EnvFilter::try_new(&args.log_level)
        .with_context(|| format!("LOG_LEVEL (--log-level): `{}`", args.log_level))?;
    let (filter, handle) = reload::Layer::new(filter);
    let quiet = filter_fn(|metadata| {
        let target = metadata.target();
        is_own(target) || (*metadata.level() <= Level::WARN && !target.starts_with(RETURNED))
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
        .with(lines.with_filter(filter.and(quiet)))
        .with(spans);
    if subscriber.try_init().is_ok() {
        drop(LEVEL.set(handle));
    }
    Ok(export)
}

fn is_own(target: &str) -> bool {
    let name = target.split("::").next().unwrap_or_default();
    OWN.contains(&name)
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
    let filter = EnvFilter::try_new(level)?;
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

/// A command that could not look, or was called wrongly: its exit status is 2. Any other error's is 1.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct CommandError(pub anyhow::Error);

/// What a program ends with; why it failed goes to standard error, in one line and without a
/// backtrace: it is for whoever has to mend a setting.
pub fn exit_code(program: &str, ended: &anyhow::Result<()>) -> ExitCode {
    let Err(error) = ended else {
        return ExitCode::SUCCESS;
    };
    #[allow(
        clippy::print_stderr,
        reason = "logs may not be set up yet, or be filtered"
    )]
    {
        eprintln!("{program}: {error:#}");
    }
    if error.is::<CommandError>() {
        return ExitCode::from(2);
    }
    ExitCode::FAILURE
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
