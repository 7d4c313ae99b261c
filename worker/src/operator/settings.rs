//! `worker config`: what a worker that is started like this is set to, and whether it could be; the shells'
//! completions; and the manual pages.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command, Subcommand};
use clap_complete::Shell;
use serde::Serialize;
use shared::config::{EffectiveSetting, ParsedSettings};
use shared::telemetry::EndsWith;

use super::output::{Output, Style, row};

#[derive(Args, Debug, Clone)]
pub struct SettingsArgs {
    #[command(subcommand)]
    command: SettingsCommand,
}

#[derive(Subcommand, Debug, Clone)]
enum SettingsCommand {
    /// Whether a worker could start with these settings; asks no server (`worker doctor` does)
    Check(SettingsOutputArgs),
    /// Each setting's value and where it comes from; secrets are not shown
    Print(SettingsOutputArgs),
}

#[derive(Args, Debug, Clone)]
struct SettingsOutputArgs {
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug, Clone)]
pub struct CompletionsArgs {
    /// For this shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Args, Debug, Clone)]
pub struct ManualArgs {
    /// Folder that the pages are written to
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// What is wrong, and what counts.
#[derive(Debug, Serialize)]
struct SettingsReport<'a> {
    problems: &'a [String],
    settings: &'a [EffectiveSetting],
}

/// # Errors
/// Exit status 1: a worker would not start.
pub fn run<C>(parsed: &ParsedSettings<C>, args: &SettingsArgs) -> anyhow::Result<()> {
    let (settings, json) = match &args.command {
        SettingsCommand::Check(args) => (&[][..], args.json),
        SettingsCommand::Print(args) => (&parsed.settings[..], args.json),
    };
    let problems = &parsed.problems;
    let mut output = Output::new();
    if json {
        output.json(&SettingsReport { problems, settings })?;
    } else {
        write(&mut output, settings, problems);
    }
    output.show()?;
    match problems.is_empty() {
        true => Ok(()),
        false => Err(EndsWith(1).into()),
    }
}

fn write(output: &mut Output, settings: &[EffectiveSetting], problems: &[String]) {
    let rows: Vec<_> = settings
        .iter()
        .map(|setting| {
            let style = match (setting.source, &setting.value) {
                (_, None) | ("default", Some(_)) => Style::Faint,
                (_, Some(_)) => Style::Plain,
            };
            let value = setting.value.as_deref().unwrap_or("(not set)");
            row(style, [&*setting.variable, setting.source, value])
        })
        .collect();
    output.table(&rows);
    if problems.is_empty() {
        output.line(Style::Good, "these settings can be used");
    }
    for problem in problems {
        output.line(Style::Bad, problem);
    }
}

/// Writes completions for a shell to standard output.
///
/// # Errors
/// Nobody reads them.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "worker", &mut text);
    Ok(std::io::stdout().lock().write_all(&text)?)
}

/// Writes a manual page for the program and for each of its commands.
///
/// # Errors
/// The folder can't be written to.
pub fn manual(args: &ManualArgs, command: Command) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(command, &args.folder))
        .with_context(|| args.folder.display().to_string())
}
