//! `worker doctor`: asks every server and neighbour, with the settings and credentials that the worker
//! would use. A line for each finding; the exit status is 1 if any of them is FAIL.

pub(super) mod accounts;
pub(super) mod finding;
mod media_hosts;
mod object_store;
mod rabbitmq;
mod redis;
mod silence;
mod state_manager;
mod tenant_service;
mod work;

use std::time::Duration;

use clap::Args;
use futures::future::{FutureExt, LocalBoxFuture, join_all};
use prometheus_client::registry::Registry;
use shared::telemetry::EndsWith;
use url::Url;

use self::accounts::AccountChecks;
use self::finding::{CheckStatus, Finding, Findings, fail};
use super::output::{Output, Style};
use super::{Deployment, Section, within};
use crate::clients;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::out::store::Bucket;

/// Each check.
const LIMIT: Duration = Duration::from_secs(15);
/// All accounts.
const ACCOUNTS_LIMIT: Duration = Duration::from_secs(120);

#[derive(Args, Debug, Clone)]
pub struct DoctorArgs {
    /// Public URL of the webhook: an account whose webhooks are sent there by an override is well
    #[arg(long)]
    pub callback_url: Option<Url>,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Examines everything.
///
/// # Errors
/// Something fails, or settings can't be used.
pub async fn run(config: &Config, args: &DoctorArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let callback_url = args.callback_url.as_ref();
    let callback_url = callback_url.or(config.callback_url.as_ref());
    let findings = examine(config, &deployment, callback_url).await?;
    let mut output = Output::new();
    if args.json {
        output.json(&findings)?;
    } else {
        write(&mut output, &findings);
    }
    output.show()?;
    // The lines say all.
    match findings.iter().any(|it| it.status == CheckStatus::Fail) {
        true => Err(EndsWith(1).into()),
        false => Ok(()),
    }
}

async fn examine(
    config: &Config,
    deployment: &Deployment,
    callback_url: Option<&Url>,
) -> anyhow::Result<Vec<Finding>> {
    let metrics = Metrics::new(&mut Registry::default());
    let (connection, keys) = (deployment.connection.clone(), deployment.keys.clone());
    let tenants = deployment.tenants(config, &metrics)?;
    let accounts = AccountChecks {
        deployment,
        tenants: tenants.clone(),
        graph: clients::graph(config, &metrics, (connection, keys))?,
        callback_url,
    };
    let webhooks = object_store::check(deployment, Bucket::Webhooks).boxed_local();
    let media = object_store::check(deployment, Bucket::Media).boxed_local();
    let state_manager = state_manager::check(deployment, config, &metrics).boxed_local();
    let media_hosts = media_hosts::check(deployment, config).boxed_local();
    let checks = [
        ("redis", redis::check(deployment, config).boxed_local()),
        (
            "rabbitmq",
            rabbitmq::check(deployment, config).boxed_local(),
        ),
        ("object store", webhooks),
        ("object store", media),
        (
            "tenant service",
            tenant_service::check(deployment, &tenants).boxed_local(),
        ),
        ("state manager", state_manager),
        ("accounts", accounts.check().boxed_local()),
        ("media", media_hosts),
        ("silence", silence::check(deployment).boxed_local()),
        ("work", work::check(deployment).boxed_local()),
    ];
    let findings = join_all(checks.map(|(name, check)| in_time(name, check))).await;
    Ok(findings.into_iter().flatten().collect())
}

/// A check that ends in time. One that couldn't be made is a failure.
async fn in_time(name: &'static str, check: LocalBoxFuture<'_, Findings>) -> Vec<Finding> {
    let limit = match name {
        "accounts" => ACCOUNTS_LIMIT,
        // Each of its parts has a limit of its own.
        "work" => 2 * LIMIT,
        _ => LIMIT,
    };
    match within(limit, check).await {
        Section::Known(findings) => findings,
        Section::Unknown { unknown } => vec![fail(
            name,
            unknown,
            "see that it runs, is reached from here, and that address and credentials are right",
        )],
    }
}

fn write(output: &mut Output, findings: &[Finding]) {
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            let (status, tone) = finding.status.text();
            let advice = match &*finding.advice {
                "" => String::new(),
                advice => format!("; {advice}"),
            };
            vec![
                (tone, status.to_owned()),
                (Style::Head, finding.check.to_owned()),
                (Style::Plain, format!("{}{advice}", finding.text)),
            ]
        })
        .collect();
    output.table(&rows);
}
