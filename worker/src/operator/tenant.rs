//! `worker tenant ID|WABA`: why its events stopped, on one screen. Each part is asked for by itself: what is away
//! is `unknown`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use futures::stream::TryStreamExt;
use prometheus_client::registry::Registry;
use serde::Serialize;
use shared::limited;
use shared::telemetry::EndsWith;

use super::doctor::accounts::AccountChecks;
use super::doctor::finding::Finding;
use super::erase::accounts::{remembered, seen};
use super::inspect::{FailedReport, failed};
use super::objects::{PayloadArea, Period, days};
use super::output::{Output, Style, row, short};
use super::{Deployment, Section, within};
use crate::clients;
use crate::config::Config;
use crate::item::tenant::Verdict;
use crate::item::traffic;
use crate::metrics::{Metrics, OwedKind};
use crate::out::store;
use crate::owed::readmit;
use crate::read::owed::Owed;

const LIMIT: Duration = Duration::from_secs(20);
/// Pieces of owed media that are looked at in each partition.
const MOST_PIECES: usize = 10_000;
const PIECES: usize = 1000;
const HOUR: u64 = 3600;

#[derive(Args, Debug, Clone)]
pub struct TenantViewArgs {
    /// A tenant's id, or a business account
    #[arg(value_name = "ID|WABA")]
    id: String,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

/// What is known of a tenant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TenantReport {
    /// `None`: the account has none.
    tenant_id: Option<String>,
    accounts: Vec<AccountReport>,
    /// When ingress took the last webhook that is in the archive: events of it are out, or may go out.
    last_archived: Section<Option<String>>,
    /// When it took the last one of which something was set aside.
    last_set_aside: Section<Option<String>>,
    set_aside: Section<FailedReport>,
    media_waiting: Section<usize>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountReport {
    business_account_id: String,
    partition: u16,
    /// `active`, `suspended`, `unknown` or `unusable`.
    verdict: Section<&'static str>,
    /// Token and subscription.
    checks: Section<Vec<Finding>>,
    rate: Section<AccountRate>,
    numbers: Section<Vec<NumberTraffic>>,
    /// When a worker last had something of it.
    last_seen: Section<Option<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountRate {
    /// Webhooks a minute; `None`: ingress' own limit.
    own_limit: Option<u64>,
    /// Webhooks that were taken in the last minute.
    last_minute: u64,
    /// When the last one of them was.
    last_taken: Option<String>,
    /// Webhooks answered 429 within the hour.
    refused_last_hour: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NumberTraffic {
    phone_number_id: String,
    last_traffic_hours_ago: u64,
    /// It usually has some at this time.
    silent: bool,
}

/// # Errors
/// It couldn't look; exit status 1 where nothing is known of it.
pub async fn run(config: &Config, args: &TenantViewArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let report = tenant(config, &deployment, &args.id).await?;
    let mut output = Output::new();
    if args.json {
        output.json(&report)?;
    } else {
        write(&mut output, &report, &args.id);
    }
    output.show()?;
    let nothing = report.accounts.is_empty() && report.is_nothing();
    match (report.has_unknown(), nothing) {
        (true, _) => Err(EndsWith(2).into()),
        (false, true) => Err(EndsWith(1).into()),
        (false, false) => Ok(()),
    }
}

/// # Errors
/// Redis is away: it says whose accounts are.
pub(crate) async fn tenant(
    config: &Config,
    deployment: &Deployment,
    id: &str,
) -> anyhow::Result<TenantReport> {
    let metrics = Metrics::new(&mut Registry::default());
    let tenants = deployment.tenants(config, &metrics)?;
    let mut accounts = BTreeSet::new();
    let mut tenant_id;
    if let Some(file) = &deployment.secrets.tenants.directory {
        let file = file.current();
        for (account, _) in file.limits() {
            if file.verdict(account).tenant_id() == Some(id) {
                accounts.insert(account.to_owned());
            }
        }
    }
    let known = seen(deployment).await?;
    for account in &known {
        if remembered(deployment, account).await?.as_deref() == Some(id) {
            accounts.insert(account.clone());
        }
    }
    if !accounts.is_empty() {
        tenant_id = Some(id.to_owned());
    } else {
        // What was seen is noted every few seconds; what the Tenant Service said, at once.
        tenant_id = remembered(deployment, id).await?;
        let is_known = tenant_id.is_some() || known.iter().any(|account| account == id);
        if is_known || is_unresolved(deployment, id).await? {
            accounts.insert(id.to_owned());
        } else if !id.bytes().all(|byte| byte.is_ascii_digit()) {
            tenant_id = Some(id.to_owned());
        }
    }
    let checks = AccountChecks {
        deployment,
        tenants,
        graph: clients::graph(
            config,
            &metrics,
            (deployment.connection.clone(), deployment.keys.clone()),
        )?,
        callback_url: config.callback_url.as_ref(),
    };
    let mut reports = Vec::new();
    for account in &accounts {
        reports.push(account_report(deployment, &checks, account).await);
    }
    let folders = folders(tenant_id.as_deref(), &accounts);
    Ok(TenantReport {
        last_archived: within(
            LIMIT,
            last(deployment, PayloadArea::Archive, tenant_id.as_deref()),
        )
        .await,
        last_set_aside: within(
            LIMIT,
            last(deployment, PayloadArea::Failed, tenant_id.as_deref()),
        )
        .await,
        set_aside: within(LIMIT, failed(&deployment.store, &folders)).await,
        media_waiting: within(LIMIT, media_waiting(deployment, tenant_id.as_deref())).await,
        tenant_id,
        accounts: reports,
    })
}

/// Whether something of an account lies in the folders of those without a tenant.
async fn is_unresolved(deployment: &Deployment, account: &str) -> anyhow::Result<bool> {
    let folder = format!("{}{}", store::FAILED, store::folder(None, account));
    let mut keys = deployment.store.keys_below(&folder, None);
    Ok(keys.try_next().await.context("the object store")?.is_some())
}

/// Where the failed store has what is theirs.
fn folders(tenant_id: Option<&str>, accounts: &BTreeSet<String>) -> Vec<String> {
    let unresolved = accounts.iter().map(|account| store::folder(None, account));
    let tenant = tenant_id.map(|id| store::folder(Some(id), ""));
    let folders = tenant.into_iter().chain(unresolved);
    folders
        .map(|folder| format!("{}{folder}", store::FAILED))
        .collect()
}

/// When the last payload of an area came.
async fn last(
    deployment: &Deployment,
    area: PayloadArea,
    tenant_id: Option<&str>,
) -> anyhow::Result<Option<String>> {
    let Some(tenant_id) = tenant_id else {
        return Ok(None);
    };
    let store = &deployment.store;
    let days = days(store, area, Some(tenant_id), Period::default()).await;
    let Some(day) = days.context("the object store")?.into_iter().next() else {
        return Ok(None);
    };
    let keys = store.keys_below(&day.folder, None);
    // Their times have the same number of digits.
    let last = keys.try_fold(None, async |last, key| {
        Ok(last.max(readmit::received_at_of(&key)))
    });
    Ok(last.await.context("the object store")?.map(time))
}

fn time(ms: i64) -> String {
    let at = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Files that acknowledged webhooks of a tenant still owe.
async fn media_waiting(deployment: &Deployment, tenant_id: Option<&str>) -> anyhow::Result<usize> {
    let Some(tenant_id) = tenant_id else {
        return Ok(0);
    };
    let mut count = 0;
    let mut redis = deployment.connection.clone();
    let kinds = [OwedKind::Media, OwedKind::OtherMedia];
    let partitions = 0..deployment.keys.partitions();
    for (partition, kind) in partitions.flat_map(|it| kinds.map(|kind| (it, kind))) {
        let list = deployment.keys.owed_list(partition, kind.into());
        for page in 0..MOST_PIECES / PIECES {
            let mut range = redis::cmd("ZRANGE");
            range
                .arg(&list)
                .arg(page * PIECES)
                .arg((page + 1) * PIECES - 1);
            let pieces: Vec<String> = range.query_async(&mut redis).await.context("Redis")?;
            let owed = pieces.iter().filter_map(|piece| Owed::read(kind, piece));
            count += owed.filter(|owed| owed.tenant() == tenant_id).count();
            if pieces.len() < PIECES {
                break;
            }
        }
    }
    Ok(count)
}

async fn account_report(
    deployment: &Deployment,
    checks: &AccountChecks<'_>,
    account: &str,
) -> AccountReport {
    let verdict = async {
        anyhow::Ok(match checks.tenants.ask(account).await? {
            Verdict::Active(_) => "active",
            Verdict::Suspended(_) => "suspended",
            Verdict::Unknown => "unknown",
            Verdict::Unusable => "unusable",
        })
    };
    let token = async { Ok(vec![checks.account(account).await]) };
    AccountReport {
        business_account_id: account.to_owned(),
        partition: deployment.keys.partition_of(account),
        verdict: within(LIMIT, verdict).await,
        checks: within(LIMIT, token).await,
        rate: within(LIMIT, rate(deployment, account)).await,
        numbers: within(LIMIT, numbers(deployment, account)).await,
        last_seen: within(LIMIT, last_seen(deployment, account)).await,
    }
}

async fn rate(deployment: &Deployment, account: &str) -> anyhow::Result<AccountRate> {
    let (keys, mut redis) = (&deployment.keys, deployment.connection.clone());
    let partition = keys.partition_of(account);
    let mut limit = redis::cmd("HGET");
    limit.arg(keys.seen(partition)).arg(format!("l{account}"));
    let own_limit = limit.query_async(&mut redis).await.context("Redis")?;
    let mut window = redis::cmd("LRANGE");
    window.arg(keys.rate(partition, account)).arg(0).arg(-1);
    let window: Vec<i64> = window.query_async(&mut redis).await.context("Redis")?;
    let minute_ago = Utc::now().timestamp_millis() - 60_000;
    let refused = limited::of_last_hour(&deployment.connection, keys).await;
    let refused = refused.context("Redis")?;
    Ok(AccountRate {
        own_limit,
        last_minute: window.iter().filter(|at| **at > minute_ago).count() as u64,
        last_taken: window.last().map(|at| time(*at)),
        refused_last_hour: refused.get(account).copied().unwrap_or(0),
    })
}

async fn numbers(deployment: &Deployment, account: &str) -> anyhow::Result<Vec<NumberTraffic>> {
    let now = traffic::this_hour();
    let all = traffic::read(&deployment.connection, &deployment.keys).await;
    let all = all.context("Redis")?.into_iter();
    let theirs = all.filter(|(of, ..)| of == account);
    let theirs = theirs.map(|(_, phone_number_id, hours)| NumberTraffic {
        phone_number_id,
        last_traffic_hours_ago: hours.quiet(now),
        silent: hours.silent(now).is_some(),
    });
    Ok(theirs.collect())
}

async fn last_seen(deployment: &Deployment, account: &str) -> anyhow::Result<Option<String>> {
    let mut score = redis::cmd("ZSCORE");
    score.arg(deployment.keys.tenants_seen()).arg(account);
    let ms: Option<f64> = score
        .query_async(&mut deployment.connection.clone())
        .await
        .context("Redis")?;
    Ok(ms.map(|ms| time(ms as i64)))
}

impl TenantReport {
    /// A server could not be asked.
    fn has_unknown(&self) -> bool {
        let Self {
            last_archived,
            last_set_aside,
            set_aside,
            media_waiting,
            ..
        } = self;
        let of_accounts = self.accounts.iter().any(|account| {
            account.verdict.is_unknown()
                || account.checks.is_unknown()
                || account.rate.is_unknown()
                || account.numbers.is_unknown()
                || account.last_seen.is_unknown()
        });
        of_accounts
            || last_archived.is_unknown()
            || last_set_aside.is_unknown()
            || set_aside.is_unknown()
            || media_waiting.is_unknown()
    }

    /// Nothing is kept of it either.
    fn is_nothing(&self) -> bool {
        let none = |section: &Section<Option<String>>| section.known().is_some_and(Option::is_none);
        none(&self.last_archived) && none(&self.last_set_aside)
    }
}

/// What a part says, or why it isn't known.
fn text<T>(section: &Section<T>, told: impl Fn(&T) -> (Style, String)) -> (Style, String) {
    match section {
        Section::Known(known) => told(known),
        Section::Unknown { unknown } => (Style::Bad, format!("unknown: {unknown}")),
    }
}

fn write(output: &mut Output, report: &TenantReport, id: &str) {
    if report.accounts.is_empty() && report.is_nothing() {
        return output.line(Style::Bad, "nothing is known of it");
    }
    match (&report.tenant_id, report.accounts.is_empty()) {
        (Some(tenant_id), _) => output.head(&format!("Tenant {tenant_id}")),
        (None, false) => output.head(&format!("Account {id}, which has no tenant")),
        (None, true) => output.head(id),
    }
    let at = |at: &Option<String>| (Style::Plain, at.clone().unwrap_or_else(|| "none".into()));
    let named = |name: &str, (style, told): (Style, String)| {
        vec![(Style::Faint, name.to_owned()), (style, told)]
    };
    let set_aside = text(&report.set_aside, |failed| {
        let by = failed.by_reason.iter();
        let by: Vec<_> = by.map(|(reason, n)| format!("{n} {reason}")).collect();
        match by.is_empty() {
            true => (Style::Good, "nothing".to_owned()),
            false => (Style::Bad, by.join(", ")),
        }
    });
    let media = text(&report.media_waiting, |count| {
        let style = if *count > 0 {
            Style::Doubtful
        } else {
            Style::Plain
        };
        (style, format!("{count} files"))
    });
    output.table(&[
        named(
            "last webhook in the archive",
            text(&report.last_archived, at),
        ),
        named("last webhook set aside", text(&report.last_set_aside, at)),
        named("set aside", set_aside),
        named("media waiting", media),
    ]);
    for account in &report.accounts {
        write_account(output, account);
    }
}

fn write_account(output: &mut Output, account: &AccountReport) {
    output.head(&format!(
        "Account {} (partition {})",
        account.business_account_id, account.partition
    ));
    let mut rows = Vec::new();
    let mut add = |name: &str, (style, told): (Style, String)| {
        rows.push(vec![(Style::Faint, name.to_owned()), (style, told)]);
    };
    add(
        "tenant",
        text(&account.verdict, |verdict| {
            let style = if *verdict == "active" {
                Style::Good
            } else {
                Style::Bad
            };
            (style, (*verdict).to_owned())
        }),
    );
    match &account.checks {
        Section::Known(found) => {
            for finding in found {
                let (status, style) = finding.status.text();
                add(
                    "token and subscription",
                    (style, format!("{status}: {}", finding.text)),
                );
            }
        }
        Section::Unknown { unknown } => {
            add(
                "token and subscription",
                (Style::Bad, format!("unknown: {unknown}")),
            );
        }
    }
    rows.extend(traffic_rows(account));
    output.table(&rows);
    output.table(&number_rows(account));
}

/// What came from the account lately, and what ingress refused of it.
fn traffic_rows(account: &AccountReport) -> Vec<Vec<(Style, String)>> {
    let mut rows = Vec::new();
    let mut add = |name: &str, (style, told): (Style, String)| {
        rows.push(vec![(Style::Faint, name.to_owned()), (style, told)]);
    };
    add(
        "last minute",
        text(&account.rate, |rate| {
            let limit = rate
                .own_limit
                .map_or_else(|| "ingress' limit".into(), |n| format!("its limit {n}"));
            let last = rate.last_taken.as_deref().unwrap_or("none lately");
            (
                Style::Plain,
                format!(
                    "{} webhooks, of {limit}; the last at {last}",
                    rate.last_minute
                ),
            )
        }),
    );
    add(
        "429 in the last hour",
        text(&account.rate, |rate| {
            let style = if rate.refused_last_hour > 0 {
                Style::Bad
            } else {
                Style::Good
            };
            (style, rate.refused_last_hour.to_string())
        }),
    );
    add(
        "last seen by a worker",
        text(&account.last_seen, |at| {
            (
                Style::Plain,
                at.clone().unwrap_or_else(|| "never".to_owned()),
            )
        }),
    );
    rows
}

fn number_rows(account: &AccountReport) -> Vec<Vec<(Style, String)>> {
    let numbers = account.numbers.known().into_iter().flatten();
    numbers
        .map(|number| {
            let (style, state) = match number.silent {
                true => (Style::Bad, "silent, unlike yesterday and a week ago"),
                false => (Style::Plain, ""),
            };
            let ago = short(number.last_traffic_hours_ago * HOUR);
            row(
                style,
                [
                    "  number",
                    &number.phone_number_id,
                    &format!("traffic {ago} ago"),
                    state,
                ],
            )
        })
        .collect()
}
