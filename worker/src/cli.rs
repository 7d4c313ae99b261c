//! The command line of the worker.

use clap::{Parser, Subcommand};
use shared::config::Check;

use crate::config::Config;
use crate::operator::cat::CatArgs;
use crate::operator::dead_letters::DeadLettersArgs;
use crate::operator::doctor::DoctorArgs;
use crate::operator::erase::EraseArgs;
use crate::operator::failed::FailedArgs;
use crate::operator::find::FindArgs;
use crate::operator::inspect::InspectArgs;
use crate::operator::presign::PresignArgs;
use crate::operator::repartition::RepartitionArgs;
use crate::operator::replay::ReplayArgs;
use crate::operator::settings::{CompletionsArgs, ManualArgs, SettingsArgs};
use crate::operator::tail::TailArgs;
use crate::operator::tenant::TenantViewArgs;

/// Turns stored webhooks into events.
///
/// Commands end with 0 (done, or found), 1 (not found, or something is wrong) or 2 (could not look, or a wrong
/// call).
#[derive(Parser, Debug, Clone)]
#[command(version = shared::config::version(), about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<WorkerCommand>,
    #[command(flatten)]
    pub config: Config,
}

#[derive(Subcommand, Debug, Clone)]
pub enum WorkerCommand {
    /// Work until told to stop (the default)
    Run,
    /// Ask the worker that runs with these settings whether it lives; exit status 0 or 1
    Health,
    /// Where everything is, or one message, webhook, event, entry or object
    Inspect(InspectArgs),
    /// Check every server, neighbour, account and setting, and the work; exit status 1 if something fails
    Doctor(DoctorArgs),
    /// Why a tenant's events stopped: webhooks, events, limits, token, subscription, silence
    Tenant(TenantViewArgs),
    /// What was set aside: list, show, replay, discard
    Failed(FailedArgs),
    /// Put payloads back into the stream: of what was set aside, or of the archive
    Replay(ReplayArgs),
    /// Which payloads have something of a customer
    Find(FindArgs),
    /// Show a raw payload, or an event as it would go out
    Cat(CatArgs),
    /// Show the events that go out now
    Tail(TailArgs),
    /// What consumers rejected: list, requeue, discard
    Dlq(DeadLettersArgs),
    /// Fresh URLs of the media of a message
    Presign(PresignArgs),
    /// Delete what the stores hold of a tenant or a customer
    Erase(EraseArgs),
    /// Change the partition count of a deployment that holds nothing
    Repartition(RepartitionArgs),
    /// What a worker is set to, and whether it could start
    Config(SettingsArgs),
    /// Completions for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    #[command(hide = true)]
    Man(ManualArgs),
}

impl Check for Cli {
    fn problems(&self) -> Vec<String> {
        self.config.problems()
    }
}
