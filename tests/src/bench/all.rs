//! Several runs of a part, and what they say together.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use super::figures::Figures;
use super::{compare, path, scale, worker};
use crate::output::Paint;

/// What can be measured in several runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Ingress beside Node and beside bare hyper
    Compare,
    /// From the post to the queue
    Path,
    /// A full stream, beside bare RabbitMQ and the bare store
    Worker,
    /// How costs grow
    Scale,
}

/// How often and how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Where to write the figures as JSON, and a plot beside them
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// A folder with another `ingress` and `worker`, measured beside this build's (`worker`, `path`)
    #[arg(long)]
    pub against: Option<PathBuf>,
    /// Only with the archive on (true) or off (false) (`worker`)
    #[arg(long)]
    pub archive: Option<bool>,
    /// Settings of the worker, as NAME=VALUE (`worker`)
    #[arg(long = "set", value_parser = setting)]
    pub settings: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs a part as often as planned and prints what came of it.
///
/// # Errors
/// A run failed, or the result can't be written.
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]
pub async fn run(part: Part, plan: &Plan) -> anyhow::Result<()> {
    let mut figures = Figures::default();
    let time = Duration::from_secs(plan.seconds);
    if part == Part::Scale {
        return scale::run(plan).await;
    }
    for run in 1..=plan.runs {
        eprintln!(
            "{}",
            Paint::stdout().title(&format!("run {run} of {}", plan.runs))
        );
        match part {
            Part::Compare => compare::run(&mut figures, time).await?,
            Part::Path => path::run(&mut figures, time * 4, plan.against.as_deref()).await?,
            Part::Worker => worker::run(&mut figures, plan, time).await?,
            Part::Scale => {}
        }
    }
    if let Some(file) = &plan.out {
        let text = serde_json::to_string_pretty(&figures.json())?;
        std::fs::write(file, text).with_context(|| format!("{}", file.display()))?;
    }
    if plan.json {
        println!("{}", serde_json::to_string_pretty(&figures.json())?);
    } else {
        println!("{}\n{}", super::machine::description(), figures.table());
    }
    Ok(())
}
