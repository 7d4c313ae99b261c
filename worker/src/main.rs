//! `worker`: reads its settings, binds, runs until told to stop.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use tokio::runtime::{Builder, Runtime};
use worker::config::{Cli, Command};
use worker::{commands, presign, replay, run};

/// Each event is some hundred small allocations, many of them freed on another thread: a third more
/// texts a second than with the system's (docs/performance.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    shared::telemetry::exit_code("worker", &shared::config::parse().and_then(work))
}

fn work(Cli { command, config }: Cli) -> anyhow::Result<()> {
    // An error means that a provider is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let _spans = shared::telemetry::init(&config.log, "worker")?;
    let main = runtime("worker", config.threads)?;
    // Threads of its own: the kernel sees to it that large files don't keep messages waiting.
    let media = runtime("media", config.threads)?;
    let ended = main.block_on(async {
        match command.unwrap_or(Command::Run) {
            Command::Run => {}
            Command::Health => return shared::health::ask(config.admin_listen),
            Command::Presign(args) => return presign::run(&config, &args).await,
            Command::Replay(args) => return replay::run(&config, &args).await,
            Command::Inspect(args) => return commands::inspect::run(&config, &args).await,
            Command::Doctor(args) => return commands::doctor::run(&config, &args).await,
            Command::Erase(args) => return commands::erase::run(&config, &args).await,
            Command::Repartition(args) => {
                return commands::repartition::run(&config, &args).await;
            }
        }
        let listener = run::bind(&config).await?;
        let shutdown = shared::telemetry::shutdown_on_signal()?;
        run::run(config, listener, media.handle(), shutdown).await
    });
    // What is still waiting for a server is pending in the stream.
    media.shutdown_background();
    main.shutdown_background();
    ended
}

fn runtime(name: &str, threads: Option<usize>) -> std::io::Result<Runtime> {
    let mut runtime = Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads);
    }
    runtime.thread_name(name).enable_all().build()
}
