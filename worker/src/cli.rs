//! The command line of the worker.

use clap::{Parser, Subcommand};
use shared::config::Check;

use crate::config::Config;
use crate::operator::doctor::DoctorArgs;
use crate::operator::erase::EraseArgs;
use crate::operator::inspect::InspectArgs;
use crate::operator::presign::PresignArgs;
use crate::operator::repartition::RepartitionArgs;
use crate::operator::replay::ReplayArgs;

/// Turns stored webhooks into events.
#[derive(Parser, Debug, Clone)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub config: Config,
}

#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    /// Work until told to stop (the default)
    Run,
    /// Ask the worker that runs with these settings whether it lives; exit status 0 or 1
    Health,
    /// Fresh URLs of the media of a message
    Presign(PresignArgs),
    /// Put payloads back into the stream: of what was set aside, or of the archive
    Replay(ReplayArgs),
    /// Where everything is, or one message
    Inspect(InspectArgs),
    /// Check every server, neighbour, account and setting; exit status 1 if something fails
    Doctor(DoctorArgs),
    /// Delete what the stores hold of a tenant or a customer
    Erase(EraseArgs),
    /// Change the partition count of a deployment that holds nothing
    Repartition(RepartitionArgs),
}

impl Check for Cli {
    fn problems(&self) -> Vec<String> {
        self.config.problems()
    }
}
