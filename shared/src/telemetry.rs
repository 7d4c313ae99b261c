//! Logs of both programs, to standard error, and the signals that end them.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{LogArgs, LogFormat};

/// Installs the subscriber; the first call of a process wins.
///
/// # Errors
/// A filter that can't be parsed.
pub fn init(args: &LogArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log_level)
        .with_context(|| format!("LOG_LEVEL (--log-level): `{}`", args.log_level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match args.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Pretty => builder.compact().try_init(),
    };
    drop(installed);
    Ok(())
}

/// Lets one log line a second through, since some are written by whoever sends most.
pub struct Sampled {
    started: Instant,
    /// Second of the last line, counted from 1.
    last: AtomicU64,
    skipped: AtomicU64,
}

impl Default for Sampled {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }
}

impl Sampled {
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
    let told = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop");
        told.cancel();
    });
    Ok(shutdown)
}
