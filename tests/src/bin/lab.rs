//! Private servers for a test run, and a demonstration of the whole service.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use tests::demo::{Demo, Narration};
use tests::output::Paint;
use tests::process::{self, send_signal};
use tests::servers::{RabbitMq, S3, Shared};
use tests::{bench, chaos};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

/// Private servers that need no configuration and leave nothing behind.
#[derive(Parser, Debug)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a command with a RabbitMQ and an S3, named in LAB_… variables; its exit code is ours
    Run {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Show the real programs at work, on good days and bad ones, and stay up to be tried
    Demo {
        /// Exit after the tour: 0 if all was as it should be, 1 if not
        #[arg(long)]
        once: bool,
    },
    /// Faults at random moments, and whether anything was lost, doubled or out of order
    Chaos {
        #[command(flatten)]
        plan: chaos::Plan,
        /// JSON instead of text; progress goes to standard error
        #[arg(long)]
        json: bool,
        /// Only print what would strike when
        #[arg(long)]
        dry_run: bool,
    },
    /// Measure
    #[command(subcommand)]
    Bench(Bench),
    /// Read each body and answer 200: what ingress is measured against
    #[command(hide = true)]
    Bare { port: u16 },
}

#[derive(Subcommand, Debug)]
enum Bench {
    /// What ingress does with much, with too much, and beside slow senders
    Ingress {
        #[command(flatten)]
        plan: bench::ingress::Plan,
    },
    /// The traffic beside idle and slow connections and a flood of unsigned bodies
    Attack {
        #[command(flatten)]
        plan: bench::ingress::Plan,
    },
    /// Several runs of a part, beside what it is compared with; run it through `lab run`
    Runs {
        #[arg(value_enum)]
        part: bench::all::Part,
        #[command(flatten)]
        plan: bench::all::Plan,
    },
    /// What an account notices of another one's flood; run it through `lab run`
    Isolation {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Whether a text costs more instructions than it did; run it through `lab run`
    Gate {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// How long files take, and what others notice of large ones; run it through `lab run`
    Media {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

fn done(ran: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    ran.map(|()| ExitCode::SUCCESS)
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run { command } => run(command).await,
        Command::Demo { once } => demo(once).await,
        Command::Chaos {
            plan,
            dry_run: true,
            ..
        } => {
            plan.schedule().iter().for_each(|fault| println!("{fault}"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Chaos { plan, json, .. } => chaos(plan, json).await,
        Command::Bench(Bench::Ingress { plan }) => done(bench::ingress::run(plan).await),
        Command::Bench(Bench::Attack { plan }) => done(bench::ingress::attack(plan).await),
        Command::Bench(Bench::Runs { part, plan }) => done(bench::all::run(part, &plan).await),
        Command::Bare { port } => done(bench::baselines::serve_bare(port).await),
        Command::Bench(Bench::Isolation { json }) => done(bench::isolation::run(json).await),
        Command::Bench(Bench::Gate { json }) => done(bench::gate::run(json).await),
        Command::Bench(Bench::Media { json }) => done(bench::media::run(json).await),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}

/// Waits for Ctrl-C or TERM; tells which.
async fn told_to_stop() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("TERM")?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.map(|()| "INT").context("Ctrl-C"),
        _ = terminate.recv() => Ok("TERM"),
    }
}

async fn run(command: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let starting = async { tokio::try_join!(RabbitMq::start(), S3::start()) };
    // Dropping what has started so far stops it.
    let (rabbitmq, s3) = tokio::select! {
        servers = starting => servers?,
        stop = told_to_stop() => bail!("stopped by {} while starting", stop?),
    };
    let shared = Shared {
        broker: rabbitmq.broker(),
        s3: s3.access().clone(),
    };
    run_with(command, &shared).await
}

async fn run_with(command: Vec<OsString>, shared: &Shared) -> anyhow::Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command")?;
    let mut command = tokio::process::Command::from(process::command(program));
    command.args(arguments).envs(shared.to_env());
    // With a terminal the command must stay in the group that may read from it, and Ctrl-C reaches
    // it by itself. Without, a group of its own lets us stop its children too.
    let grouped = !std::io::stdin().is_terminal();
    if grouped {
        command.process_group(0);
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("can't run {}", program.display()))?;
    let id = child.id().context("the command has no process id")?;
    let target = if grouped {
        format!("-{id}")
    } else {
        id.to_string()
    };
    let status = tokio::select! {
        status = child.wait() => status?,
        stop = told_to_stop() => {
            send_signal(stop?, &target);
            end(&mut child, &target).await?
        }
    };
    if grouped {
        send_signal("KILL", &target);
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Gives the command five seconds to end.
async fn end(child: &mut Child, target: &str) -> anyhow::Result<std::process::ExitStatus> {
    match tokio::time::timeout(Duration::from_secs(5), child.wait()).await {
        Ok(status) => Ok(status?),
        Err(_) => {
            send_signal("KILL", target);
            Ok(child.wait().await?)
        }
    }
}

async fn chaos(plan: chaos::Plan, json: bool) -> anyhow::Result<ExitCode> {
    let tell = |line: &str| eprintln!("{line}");
    let report = tokio::select! {
        report = chaos::run(&plan, tell) => report?,
        stop = told_to_stop() => bail!("stopped by {}", stop?),
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text(Paint::stdout()));
    }
    Ok(if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn demo(once: bool) -> anyhow::Result<ExitCode> {
    tokio::select! {
        outcome = show(once) => outcome,
        stop = told_to_stop() => stop.map(|_| ExitCode::SUCCESS),
    }
}

async fn show(once: bool) -> anyhow::Result<ExitCode> {
    let paint = Paint::stdout();
    let mut told = Narration::new(paint, |line| println!("{line}"));
    let mut demo = Demo::start(&told).await?;
    demo.tour(&mut told).await;
    let missing = told.missing();
    let code = if missing.is_empty() {
        println!("\n{}", paint.good("All of it was as it should be."));
        ExitCode::SUCCESS
    } else {
        let missing = missing.join("\n");
        println!(
            "\n{}\n{missing}\n{}",
            paint.bad("This was not so:"),
            demo.logs()
        );
        ExitCode::FAILURE
    };
    if once {
        demo.stop().await;
    } else {
        println!("\n{}", demo.addresses());
        println!("{}", paint.quiet("Further events, until Ctrl-C:"));
        demo.follow(&told).await?;
    }
    Ok(code)
}
