//! `worker failed`: what was set aside, page by page; one of it; putting it back; and discarding it.

mod discard;
mod list;
mod show;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

pub(crate) use self::discard::{DiscardArgs, DiscardReport, discard};
pub(crate) use self::list::{FailedListArgs, FailedPage, page};
pub(crate) use self::show::{FailedDetail, FailedShowArgs, show};
use super::arguments::PayloadFilter;
use super::given_id::GivenId;
use super::objects::owner_of;
use super::replay::{self, ReplayArgs, ReplayRunArgs, ReplaySource};
use super::{Deployment, could_not_look};
use crate::config::Config;
use crate::out::store::ReadError;
use crate::owed::readmit;

#[derive(Args, Debug, Clone)]
pub struct FailedArgs {
    #[command(subcommand)]
    command: FailedCommand,
}

#[derive(Subcommand, Debug, Clone)]
enum FailedCommand {
    /// What is set aside, page by page
    List(FailedListArgs),
    /// One of it: why, since when, and which items; nothing of what they say
    Show(FailedShowArgs),
    /// Put it back into the stream, as `worker replay` does
    Replay(FailedReplayArgs),
    /// Move it to discarded/, with who and when; counts, and does so with --yes only
    Discard(DiscardArgs),
}

#[derive(Args, Debug, Clone, Deserialize)]
pub(crate) struct FailedReplayArgs {
    /// These only: messages, their hashes, correlation ids, events, entries or keys
    #[arg(value_name = "ID", num_args = 0..=100)]
    #[serde(default)]
    ids: Vec<GivenId>,
    #[command(flatten)]
    #[serde(flatten)]
    filter: PayloadFilter,
    #[command(flatten)]
    #[serde(skip)]
    running: ReplayRunArgs,
}

/// # Errors
/// It couldn't look, or nothing was found; see each.
pub async fn run(config: &Config, args: &FailedArgs) -> anyhow::Result<()> {
    match &args.command {
        FailedCommand::List(args) => could_not_look(list::run(config, args).await),
        FailedCommand::Show(args) => could_not_look(show::run(config, args).await),
        FailedCommand::Discard(args) => could_not_look(discard::run(config, args).await),
        FailedCommand::Replay(args) => replay::run(config, &args.clone().into()).await,
    }
}

impl From<FailedReplayArgs> for ReplayArgs {
    fn from(args: FailedReplayArgs) -> Self {
        Self {
            ids: args.ids,
            source: ReplaySource::Failed,
            message_id: None,
            filter: args.filter,
            running: args.running,
        }
    }
}

/// What an object of the failed store says of itself.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailedObject {
    pub(crate) key: String,
    /// `None`: it can't be read.
    pub(crate) reason: Option<String>,
    /// The tenant's folder, or `_unresolved/` and the account.
    pub(crate) tenant: String,
    pub(crate) business_account_id: Option<String>,
    /// When ingress took it, in ms since 1970.
    pub(crate) received_at_ms: Option<i64>,
    pub(crate) correlation_id: Option<String>,
    /// The entry of the stream that it was.
    pub(crate) entry: Option<String>,
    /// Numbers of the items that were set aside; `None`: the whole body.
    pub(crate) items: Option<String>,
    pub(crate) attempts: Option<String>,
    pub(crate) error: Option<String>,
}

impl FailedObject {
    /// `None`: it is gone.
    ///
    /// # Errors
    /// The store is away.
    async fn of(deployment: &Deployment, key: String) -> anyhow::Result<Option<Self>> {
        let (mut described, unreadable) = match deployment.store.described(&key).await {
            Ok(described) => (described, None),
            Err(ReadError::Gone) => return Ok(None),
            Err(error @ ReadError::Store(_)) => return Err(error.into()),
            Err(error) => (Default::default(), Some(error.to_string())),
        };
        let mut take = |name: &str| described.remove(name).filter(|value| !value.is_empty());
        Ok(Some(Self {
            reason: take("reason"),
            tenant: owner_of(&key),
            business_account_id: take("waba-id"),
            received_at_ms: readmit::received_at_of(&key),
            correlation_id: take("correlation-id"),
            entry: take("entry"),
            items: take("items"),
            attempts: take("attempts"),
            error: unreadable.or_else(|| take("error")),
            key,
        }))
    }
}
