//! `worker`: reads its settings, binds, runs until told to stop.

use std::process::ExitCode;

use clap::CommandFactory;
use mimalloc::MiMalloc;
use shared::config::ParsedSettings;
use shared::telemetry::LogScope;
use tokio::runtime::{Builder, Runtime};
use worker::cli::{Cli, WorkerCommand};
use worker::config::Config;
use worker::operator::{self, could_not_look, settings};
use worker::run;

/// Each event is some hundred small allocations, many of them freed on another thread: a third more
/// texts a second than with the system's (docs/performance.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let parsed = shared::config::parse::<Cli>();
    let ended = match &parsed.config.command {
        Some(WorkerCommand::Config(args)) => settings::run(&parsed, args),
        Some(WorkerCommand::Completions(args)) => settings::completions(args, Cli::command()),
        Some(WorkerCommand::Man(args)) => settings::manual(args, Cli::command()),
        Some(_) | None => work(parsed),
    };
    shared::telemetry::exit_code("worker", &ended)
}

fn work(parsed: ParsedSettings<Cli>) -> anyhow::Result<()> {
    let Cli { command, config } = parsed.usable()?;
    // An error means that a provider is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    config.proxy.apply()?;
    let command = command.unwrap_or(WorkerCommand::Run);
    let scope = if matches!(command, WorkerCommand::Run) {
        LogScope::Program
    } else {
        LogScope::Command
    };
    let _spans = shared::telemetry::init(&config.log, "worker", scope)?;
    let main = runtime("worker", config.threads)?;
    let ended = match command {
        WorkerCommand::Run => serve(&main, config),
        WorkerCommand::Health => shared::health::ask(config.admin_listen),
        other => main.block_on(operate(&config, other)),
    };
    // What is still waiting for a server is pending in the stream.
    main.shutdown_background();
    ended
}

/// What is asked for or done by hand.
async fn operate(config: &Config, command: WorkerCommand) -> anyhow::Result<()> {
    match &command {
        WorkerCommand::Inspect(args) => could_not_look(operator::inspect::run(config, args).await),
        WorkerCommand::Doctor(args) => could_not_look(operator::doctor::run(config, args).await),
        WorkerCommand::Tenant(args) => could_not_look(operator::tenant::run(config, args).await),
        WorkerCommand::Failed(args) => operator::failed::run(config, args).await,
        WorkerCommand::Replay(args) => operator::replay::run(config, args).await,
        WorkerCommand::Find(args) => could_not_look(operator::find::run(config, args).await),
        WorkerCommand::Cat(args) => could_not_look(operator::cat::run(config, args).await),
        WorkerCommand::Tail(args) => could_not_look(operator::tail::run(config, args).await),
        WorkerCommand::Dlq(args) => operator::dead_letters::run(config, args).await,
        WorkerCommand::Presign(args) => could_not_look(operator::presign::run(config, args).await),
        WorkerCommand::Erase(args) => operator::erase::run(config, args).await,
        WorkerCommand::Repartition(args) => operator::repartition::run(config, args).await,
        WorkerCommand::Run
        | WorkerCommand::Health
        | WorkerCommand::Config(_)
        | WorkerCommand::Completions(_)
        | WorkerCommand::Man(_) => Ok(()),
    }
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
