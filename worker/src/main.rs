//! `worker`: reads its settings, binds, runs until told to stop.

use std::process::ExitCode;

use clap::Parser;
use worker::config::{Cli, Command, Config};
use worker::run;

fn main() -> ExitCode {
    let Cli { command, config } = Cli::parse();
    let Command::Run = command.unwrap_or(Command::Run);
    shared::telemetry::exit_code("worker", &work(config))
}

fn work(config: Config) -> anyhow::Result<()> {
    // An error means that a provider is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    shared::telemetry::init(&config.log)?;
    config.check()?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build()?;
    let ended = runtime.block_on(async {
        let listener = run::bind(&config).await?;
        let shutdown = shared::telemetry::shutdown_on_signal()?;
        run::run(config, listener, shutdown).await
    });
    // What is still waiting for a server is pending in the stream.
    runtime.shutdown_background();
    ended
}
