//! `ingress`: reads its settings, binds, runs until told to stop.

use std::process::ExitCode;

use ingress::config::{Config, IngressCommand};
use ingress::server::{self, Listeners};
use mimalloc::MiMalloc;
use shared::telemetry::LogScope;

/// A sixth less memory beside slow senders than with the system's (docs/performance.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    shared::telemetry::exit_code("ingress", &shared::config::parse().usable().and_then(run))
}

fn run(config: Config) -> anyhow::Result<()> {
    match config.command.unwrap_or(IngressCommand::Run) {
        IngressCommand::Run => {}
        IngressCommand::Health => return shared::health::ask(config.admin_listen),
    }
    // An error means that a provider is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    config.proxy.apply()?;
    let _spans = shared::telemetry::init(&config.log, "ingress", LogScope::Program)?;
    // Those who serve have threads of their own.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build()?.block_on(async {
        let listeners = Listeners::bind(&config).await?;
        let shutdown = shared::telemetry::shutdown_on_signal()?;
        server::run(config, listeners, shutdown).await
    })
}
