//! `worker`: reads its settings, binds, runs until told to stop.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use tokio::runtime::{Builder, Runtime};
use worker::cli::{Cli, Command};
use worker::config::Config;
use worker::operator::{self, presign, replay};
use worker::run;

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
    let ended = match command.unwrap_or(Command::Run) {
        Command::Run => serve(&main, config),
        Command::Health => shared::health::ask(config.admin_listen),
        Command::Presign(args) => main.block_on(presign::run(&config, &args)),
        Command::Replay(args) => main.block_on(replay::run(&config, &args)),
        Command::Inspect(args) => main.block_on(operator::inspect::run(&config, &args)),
        Command::Doctor(args) => main.block_on(operator::doctor::run(&config, &args)),
        Command::Erase(args) => main.block_on(operator::erase::run(&config, &args)),
        Command::Repartition(args) => main.block_on(operator::repartition::run(&config, &args)),
    };
    // What is still waiting for a server is pending in the stream.
    main.shutdown_background();
    ended
}

fn serve(main: &Runtime, config: Config) -> anyhow::Result<()> {
    // Threads of their own: large files don't keep messages waiting.
    let media = runtime("media", config.threads)?;
    let ended = main.block_on(async {
        let listener = run::bind(&config).await?;
        let shutdown = shared::telemetry::shutdown_on_signal()?;
        run::run(config, listener, media.handle(), shutdown).await
    });
    media.shutdown_background();
    ended
}

fn runtime(name: &str, threads: Option<usize>) -> std::io::Result<Runtime> {
    let mut runtime = Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads);
    }
    runtime.thread_name(name).enable_all().build()
}
