//! Plays Meta and the neighbours, to try the service by hand.

#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::{Parser, Subcommand};
use tests::load::{self, Plan, Report};
use tests::meta::{self, Sender};
use tests::neighbours::{Fault, Neighbours, Service};
use tests::output::{Paint, column};
use tests::servers::alertmanager::notify;
use tokio::net::TcpListener;

/// Plays Meta and the services that a worker asks.
#[derive(Parser, Debug)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Be the Tenant Service, State Manager and Graph API until Ctrl-C
    Serve {
        #[arg(long, default_value = "127.0.0.1:8090")]
        listen: SocketAddr,
        /// Make a service misbehave from the start, such as tenants=status:500 or graph=slow:200ms
        #[arg(long, value_parser = service_fault)]
        fault: Vec<(Service, Fault)>,
    },
    /// Take Alertmanager's notifications and print each alert, until Ctrl-C
    Alerts {
        #[arg(long, default_value = "127.0.0.1:8099")]
        listen: SocketAddr,
    },
    /// Print what X-Hub-Signature-256 must be for a body
    Sign {
        /// File that has the body; `-`: standard input
        body: PathBuf,
        /// App secret to sign with
        #[arg(long, env = "META_APP_SECRETS", hide_env_values = true)]
        secret: String,
    },
    /// Post signed webhooks; each once, refused ones are not repeated
    Send {
        /// Where ingress takes webhooks
        #[arg(
            long,
            env = "WEBHOOK_URL",
            default_value = "http://127.0.0.1:8080/webhook/meta"
        )]
        url: String,
        /// Only this: a file with a whole body, or with a message or status to put into one; `-`: standard input
        #[arg(long)]
        body: Option<PathBuf>,
        /// Business account of --body
        #[arg(long, requires = "body", value_name = "WABA")]
        account: Option<String>,
        /// App secret to sign with
        #[arg(long, env = "META_APP_SECRETS", hide_env_values = true)]
        secret: String,
        #[command(flatten)]
        plan: Plan,
        /// Print nothing but the report, as JSON
        #[arg(long)]
        json: bool,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Serve { listen, fault } => serve(listen, fault).await,
        Command::Alerts { listen } => alerts(listen).await,
        Command::Sign { body, secret } => {
            println!("{}", meta::sign(first(&secret), &read(&body)?));
            Ok(ExitCode::SUCCESS)
        }
        Command::Send {
            url,
            secret,
            body: Some(body),
            account,
            ..
        } => {
            let sender = Sender::new(url, first(&secret));
            let read = read(&body)?;
            let name = body.display().to_string();
            send_body(
                &sender,
                meta::own::body(read, account.as_deref()).context(name)?,
            )
            .await
        }
        Command::Send {
            url,
            secret,
            plan,
            json,
            ..
        } => send(Sender::new(url, first(&secret)), plan, json).await,
    }
}

/// Of several secrets, as ingress has them, the one to sign with.
fn first(secrets: &str) -> &str {
    secrets.split(',').next().unwrap_or(secrets)
}

fn read(file: &Path) -> anyhow::Result<Bytes> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes)?;
    } else {
        bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    }
    Ok(bytes.into())
}

async fn send_body(sender: &Sender, body: Bytes) -> anyhow::Result<ExitCode> {
    let paint = Paint::stdout();
    let answer = sender.post_once(body).await?;
    let correlation_id = answer.header("x-correlation-id");
    let status = answer.status.to_string();
    if answer.status != 200 {
        println!("{}  {}", paint.bad(&status), answer.body);
        return Ok(ExitCode::FAILURE);
    }
    println!(
        "{}  where it is now: worker inspect {correlation_id}",
        paint.good(&status)
    );
    Ok(ExitCode::SUCCESS)
}

async fn alerts(listen: SocketAddr) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(listen).await?;
    let told = notify(listener, |it| {
        if it.receiver != "heartbeat" {
            let (name, instance) = (it.label("alertname"), it.label("instance"));
            println!(
                "{} {}: {name} {instance} {}",
                it.receiver, it.status, it.summary
            );
        }
    });
    tokio::select! {
        () = told => {}
        ended = tokio::signal::ctrl_c() => ended?,
    }
    Ok(ExitCode::SUCCESS)
}

fn service_fault(text: &str) -> Result<(Service, Fault), String> {
    let (name, fault) = text
        .split_once('=')
        .ok_or("write it like tenants=status:500")?;
    let service = Service::ALL.into_iter().find(|one| one.name() == name);
    let service = service.ok_or("the services are tenants, state, graph and download")?;
    Ok((service, fault.parse()?))
}

async fn serve(listen: SocketAddr, faults: Vec<(Service, Fault)>) -> anyhow::Result<ExitCode> {
    let neighbours = Neighbours::listen(listen).await?;
    for (service, fault) in faults {
        neighbours.set_fault(service, fault);
    }
    let url = neighbours.url();
    println!("Tenant Service, State Manager and Graph API at {url}");
    println!("what they were asked, and their faults:  curl {url}/_control");
    println!("make one misbehave:  curl -X POST '{url}/_control/tenants?fault=status:500'");
    tokio::signal::ctrl_c()
        .await
        .context("waiting for Ctrl-C")?;
    Ok(ExitCode::SUCCESS)
}

async fn send(sender: Sender, plan: Plan, json: bool) -> anyhow::Result<ExitCode> {
    let paint = Paint::stdout();
    let mut calls = 0_u32;
    let report = load::run(&sender, &plan, |report| {
        calls += 1;
        // A terminal's line is rewritten; a pipe gets a line about every second.
        if json || (!paint.is_terminal() && !calls.is_multiple_of(5)) {
            return;
        }
        let (start, end) = if paint.is_terminal() {
            ("\r", "")
        } else {
            ("", "\n")
        };
        print!("{start}{}{end}", progress(report, &plan));
        // Only lost if nobody reads.
        drop(std::io::stdout().flush());
    })
    .await;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        if paint.is_terminal() {
            print!("\r{:70}\r", "");
        }
        print!("{}", summary(&report, paint));
    }
    let all = report.accepted() == report.webhooks;
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn progress(report: &Report, plan: &Plan) -> String {
    format!(
        "{:>9} of {:<9} {:>8.0}/s   p99 {:>8.1} ms   not 200: {:<6}",
        report.webhooks,
        plan.count,
        report.per_second,
        report.p99_ms,
        report.webhooks - report.accepted(),
    )
}

fn summary(report: &Report, paint: Paint) -> String {
    let line = |name: &str, value: String| format!("{}  {value}\n", column(name, 10));
    let answers = report.answers.iter().map(|(answer, count)| {
        let text = format!("{answer} × {count}");
        match answer.as_str() {
            "200" => paint.good(&text),
            _ => paint.bad(&text),
        }
    });
    let answers: Vec<String> = answers.collect();
    let posted = format!(
        "{} with {} items, {} of them repeated",
        report.webhooks, report.items, report.duplicates
    );
    let time = format!("{:.2} s, {:.0}/s", report.seconds, report.per_second);
    let latency = format!(
        "median {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        report.p50_ms, report.p99_ms, report.max_ms
    );
    line("webhooks", posted)
        + &line("answers", answers.join("   "))
        + &line("time", time)
        + &line("latency", latency)
}
