//! `worker erase`: deletes what the stores hold of a tenant, or of one customer. It counts first, and
//! deletes with `--yes` only.
//!
//! Of a customer, payloads are read, one by one: what is theirs alone is deleted; from a payload that
//! has other customers' items too, theirs are cut out, and the rest stays byte for byte. What is still
//! on its way is left alone, since its order and its promises hang on it: it is counted, and then the
//! command ends with an error, to be run again once that is through. An object that can't be read is
//! named and left, and what comes behind it is done.

pub(super) mod accounts;
mod customer;
pub(super) mod cut;
mod eraser;
mod erasure;
mod folders;
pub(super) mod ids;
mod in_transit;
mod report;
mod tenant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use shared::telemetry::{CommandError, audit};

use self::accounts::TenantAccounts;
use self::eraser::Eraser;
use self::erasure::Erasure;
use super::Deployment;
use super::arguments::CallerArgs;
use super::output::Output;
use crate::config::Config;
use crate::out::store::{self, UNRESOLVED};

#[derive(Args, Debug, Clone)]
pub struct EraseArgs {
    /// A tenant's id; with --customer: only what this tenant has of the customer
    #[arg(long)]
    pub tenant: Option<String>,
    /// A customer's phone number with its country code, or user id (BSUID)
    #[arg(long)]
    pub customer: Option<String>,
    /// With --tenant: a business account of it that nobody remembers; several times for several
    #[arg(long, requires = "tenant")]
    pub account: Vec<String>,
    /// Delete; without it, only what would be deleted is counted
    #[arg(long)]
    pub yes: bool,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(crate) caller: CallerArgs,
}

/// Counts, and deletes if told to.
///
/// # Errors
/// [`CommandError`]; or nothing was found, or something is left.
pub async fn run(config: &Config, args: &EraseArgs) -> anyhow::Result<()> {
    let found = erase(config, args).await.map_err(CommandError)?;
    if found.erased {
        let of = args.customer.as_ref().or(args.tenant.as_ref());
        let of = of.map_or("", String::as_str);
        audit("erase", &args.caller.name(), of, found.objects());
    }
    let mut output = Output::new();
    if args.json {
        output.json(&found)?;
    } else {
        report::write(&mut output, &found, args);
    }
    output.show()?;
    found.verdict()
}

async fn erase(config: &Config, args: &EraseArgs) -> anyhow::Result<Erasure> {
    // As a folder it would be all of the bucket.
    let mut folders = args.tenant.iter().chain(&args.account);
    ensure!(
        folders.all(|id| !id.trim().is_empty()),
        "an empty id is nobody's"
    );
    if let Some(tenant) = &args.tenant {
        let reserved = store::is_reserved(tenant) || tenant == UNRESOLVED;
        ensure!(
            !reserved,
            "`{tenant}` is a folder of all tenants, not one's id"
        );
    }
    let customer = args.customer.as_deref();
    let customer = customer.map(|typed| ids::read(typed).context(ids::ACCEPTED));
    let customer = customer.transpose().context("--customer")?;
    let deployment = Deployment::open(config).await?;
    let accounts = match &args.tenant {
        Some(tenant) => TenantAccounts::of(config, &deployment, args, tenant).await?,
        None => TenantAccounts::default(),
    };
    let unknown = accounts.unknown.into_iter();
    let found = Erasure {
        erased: args.yes,
        unowned: accounts.unowned,
        unseen: unknown
            .map(|(account, why)| (format!("account {account}"), why))
            .collect(),
        ..Erasure::default()
    };
    let eraser = Eraser {
        accounts: accounts.theirs,
        deployment,
        args,
    };
    match (customer, &args.tenant) {
        (Some(customer), _) => eraser.of_customer(found, &customer).await,
        (None, Some(tenant)) => eraser.of_tenant(found, tenant).await,
        (None, None) => bail!("say whose: --tenant ID or --customer ID"),
    }
}
