//! `worker inspect`: where everything is. Nothing is changed, and what is away is `unknown`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use futures::stream::{self, StreamExt, TryStreamExt};
use redis::RedisResult;
use serde::{Deserialize, Serialize};
use shared::keys::OWED;
use shared::script::Script;
use shared::telemetry::{EndsWith, innermost_first};
use url::Url;

use super::given_id::GivenId;
use super::output::{Output, ProgressLine, Style, row, short};
use super::{Deployment, Section, locate, within};
use crate::config::Config;
use crate::out::store::{Bucket, FAILED, Store};
use crate::out::topology;
use crate::read::stream::{backlog, backlog_script};

/// What each part of the report may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The same where many objects are listed.
const LISTING_LIMIT: Duration = Duration::from_secs(60);
/// Partitions looked at side by side.
const AT_ONCE: usize = 8;
/// Objects of the spool that are counted.
const MOST_SPOOLED: usize = 1000;
/// Objects of the failed store that are counted, and those whose reason is read.
const MOST_FAILED: usize = 10_000;
const MOST_REASONS: usize = 1000;
const REASONS_AT_ONCE: usize = 32;
/// Accounts whose cached answers are looked for, and accounts without a tenant that are named.
const MOST_ACCOUNTS: usize = 1000;
const MOST_UNKNOWN: usize = 20;

#[derive(Args, Debug, Clone, Default, Deserialize)]
pub struct InspectArgs {
    /// Tell where this is now: a message's id or its hash, a correlation id, an event's or an entry's id, or
    /// an object's key
    #[arg(value_name = "ID")]
    pub id: Option<GivenId>,
    /// With an ID: look into this tenant's folders only
    #[arg(long, requires = "id")]
    pub tenant: Option<String>,
    /// With --tenant: look into the archive of this day only (yyyy-MM-dd, UTC)
    #[arg(long, requires = "tenant")]
    #[serde(skip)]
    pub day: Option<chrono::NaiveDate>,
    /// Admin address of a running worker, such as http://worker:9081, whose breakers and caches are
    /// shown; several times for several workers
    #[arg(long)]
    #[serde(skip)]
    pub worker_url: Vec<Url>,
    /// JSON instead of text
    #[arg(long)]
    #[serde(skip)]
    pub json: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Inspection {
    partition_count: Option<u16>,
    partitions: Section<Vec<PartitionReport>>,
    /// Ids of those that live.
    workers: Section<Vec<String>>,
    queues: Section<Vec<QueueReport>>,
    spool: Section<SpoolReport>,
    failed: Section<FailedReport>,
    accounts: Section<AccountsReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metrics: Vec<WorkerReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartitionReport {
    pub(super) partition: u16,
    /// Entries that aren't acknowledged.
    pub(crate) length: u64,
    pending: u64,
    /// Not read yet.
    lag: u64,
    pub(super) oldest_age_seconds: Option<u64>,
    pub(super) owner: Option<String>,
    /// Entries that workers have ever read.
    pub(crate) ever_read: u64,
    /// Pieces that acknowledged entries still owe, by kind.
    pub(crate) owed: BTreeMap<&'static str, u64>,
}

impl PartitionReport {
    /// A worker has it, and there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        let owes = self.owed.values().any(|count| *count > 0);
        self.length == 0 && !owes && self.owner.is_some()
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct QueueReport {
    name: String,
    #[serde(flatten)]
    counts: Section<topology::QueueCounts>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SpoolReport {
    pub(super) objects: usize,
    /// There are more.
    pub(super) at_least: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailedReport {
    pub(super) objects: usize,
    /// There are more.
    pub(super) at_least: bool,
    /// Objects whose reason was read.
    looked_at: usize,
    pub(super) by_reason: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountsReport {
    seen: usize,
    /// Of these the last ones were looked for in the caches.
    looked_for: usize,
    cached_tenants: usize,
    cached_tokens: usize,
    without_tenant: usize,
    /// Those of which most was set aside.
    most_without_tenant: Vec<WithoutTenant>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WithoutTenant {
    business_account_id: String,
    set_aside: u64,
}

#[derive(Debug, Serialize)]
struct WorkerReport {
    worker: String,
    #[serde(flatten)]
    metrics: Section<WorkerMetrics>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkerMetrics {
    breakers: BTreeMap<String, &'static str>,
    /// Hits and misses since it started.
    caches: BTreeMap<String, [u64; 2]>,
}

/// Looks, and writes it down.
///
/// # Errors
/// Settings that can't be used, or nobody reads the output.
pub async fn run(config: &Config, args: &InspectArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    if let Some(id) = &args.id {
        return locate::run(&deployment, id, args).await;
    }
    let report = inspect(&deployment, args).await;
    let mut output = Output::new();
    if args.json {
        output.json(&report)?;
    } else {
        write(&mut output, &report);
    }
    output.show()?;
    match report.is_known() {
        true => Ok(()),
        false => Err(EndsWith(2).into()),
    }
}

impl Inspection {
    /// Whether all of it could be looked at.
    fn is_known(&self) -> bool {
        self.partitions.known().is_some()
            && self.workers.known().is_some()
            && self.queues.known().is_some()
            && self.spool.known().is_some()
            && self.failed.known().is_some()
            && self.accounts.known().is_some()
            && self.metrics.iter().all(|one| one.metrics.known().is_some())
    }
}

pub(super) async fn inspect(deployment: &Deployment, args: &InspectArgs) -> Inspection {
    let all_failed = [FAILED.to_owned()];
    let (partitions, workers, queues, spool, failed, accounts) = tokio::join!(
        within(LIMIT, partitions(deployment)),
        within(LIMIT, workers(deployment)),
        within(LIMIT, queues(deployment)),
        within(LISTING_LIMIT, spool(&deployment.store)),
        within(LISTING_LIMIT, failed(&deployment.store, &all_failed)),
        within(LIMIT, accounts(deployment)),
    );
    let asked = args.worker_url.iter().map(async |url| WorkerReport {
        worker: url.to_string(),
        metrics: within(LIMIT, metrics(url)).await,
    });
    Inspection {
        partition_count: deployment.stored_partitions,
        partitions,
        workers,
        queues,
        spool,
        failed,
        accounts,
        metrics: futures::future::join_all(asked).await,
    }
}

pub(crate) async fn partitions(deployment: &Deployment) -> anyhow::Result<Vec<PartitionReport>> {
    let script = backlog_script();
    let all = stream::iter(0..deployment.keys.partitions());
    let reports = all.map(|n| partition(deployment, &script, n));
    let reports: RedisResult<Vec<_>> = reports.buffered(AT_ONCE).try_collect().await;
    reports.context("Redis")
}

async fn partition(
    deployment: &Deployment,
    script: &Script,
    partition: u16,
) -> RedisResult<PartitionReport> {
    let mut redis = deployment.connection.clone();
    let (backlog, owner) = backlog(script, &deployment.keys, partition, &mut redis).await?;
    Ok(PartitionReport {
        partition,
        length: backlog.stream,
        pending: backlog.pending,
        lag: backlog.stream.saturating_sub(backlog.pending),
        oldest_age_seconds: (backlog.stream > 0).then_some(backlog.age.as_secs()),
        // Behind its id stands what makes this tenure its own.
        owner: owner
            .split_once(':')
            .map(|(worker, _)| worker.to_owned())
            .or(Some(owner).filter(|owner| !owner.is_empty())),
        ever_read: backlog.ever_read,
        owed: OWED.into_iter().zip(backlog.owed).collect(),
    })
}

async fn workers(deployment: &Deployment) -> anyhow::Result<Vec<String>> {
    deployment.live_workers().await.context("Redis")
}

pub(crate) async fn queues(deployment: &Deployment) -> anyhow::Result<Vec<QueueReport>> {
    let connection = deployment.rabbitmq().await?;
    let counted = topology::counts(&connection).await;
    drop(connection.close(200, "done".into()).await);
    let queues = counted.into_iter().map(|(name, counts)| QueueReport {
        name,
        counts: match counts {
            Ok(counts) => Section::Known(counts),
            Err(error) => Section::Unknown {
                unknown: innermost_first(&error.into()),
            },
        },
    });
    Ok(queues.collect())
}

pub(crate) async fn spool(store: &Store) -> anyhow::Result<SpoolReport> {
    let listed = store.listed(Bucket::Webhooks, "spool");
    let keys: Vec<String> = listed.take(MOST_SPOOLED + 1).try_collect().await?;
    Ok(SpoolReport {
        objects: keys.len().min(MOST_SPOOLED),
        at_least: keys.len() > MOST_SPOOLED,
    })
}

/// What is set aside in some folders.
pub(crate) async fn failed(store: &Store, folders: &[String]) -> anyhow::Result<FailedReport> {
    let listed = stream::iter(folders);
    let listed = listed.flat_map(|folder| store.listed(Bucket::Webhooks, folder));
    let mut keys: Vec<String> = listed.take(MOST_FAILED + 1).try_collect().await?;
    let at_least = keys.len() > MOST_FAILED;
    keys.truncate(MOST_FAILED);
    let looked_at = keys.len().min(MOST_REASONS);
    let mut progress = ProgressLine::new("reasons of the failed store");
    let mut by_reason = BTreeMap::new();
    let reasons = stream::iter(&keys[..looked_at]).map(async |key| {
        let described = store.described(key).await.unwrap_or_default();
        described.get("reason").cloned()
    });
    let mut reasons = reasons.buffer_unordered(REASONS_AT_ONCE).enumerate();
    while let Some((n, reason)) = reasons.next().await {
        let reason = reason.unwrap_or_else(|| "unknown".to_owned());
        *by_reason.entry(reason).or_default() += 1;
        progress.at(n + 1, Some(looked_at));
    }
    Ok(FailedReport {
        objects: keys.len(),
        at_least,
        looked_at,
        by_reason,
    })
}

async fn accounts(deployment: &Deployment) -> anyhow::Result<AccountsReport> {
    let (keys, mut redis) = (&deployment.keys, deployment.connection.clone());
    let mut range = redis::cmd("ZREVRANGE");
    range.arg(keys.tenants_seen()).arg(0).arg(MOST_ACCOUNTS - 1);
    let last: Vec<String> = range.query_async(&mut redis).await.context("Redis")?;
    let count = async |key: String| {
        let mut card = redis::cmd("ZCARD");
        card.arg(key);
        let mut redis = deployment.connection.clone();
        card.query_async::<usize>(&mut redis).await
    };
    let (seen, without_tenant) = (
        count(keys.tenants_seen()).await?,
        count(keys.tenants_unknown()).await?,
    );
    let mut most = redis::cmd("ZREVRANGE");
    most.arg(keys.tenants_unknown());
    most.arg(0).arg(MOST_UNKNOWN - 1).arg("WITHSCORES");
    let most: Vec<(String, u64)> = most.query_async(&mut redis).await?;
    let cached = stream::iter(&last).map(async |account| {
        let there = async |key: String| {
            let mut exists = redis::cmd("EXISTS");
            exists.arg(key);
            let mut redis = deployment.connection.clone();
            exists.query_async::<bool>(&mut redis).await
        };
        tokio::try_join!(there(keys.tenant(account)), there(keys.token(account)))
    });
    let cached: Vec<(bool, bool)> = cached.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(AccountsReport {
        seen,
        looked_for: last.len(),
        cached_tenants: cached.iter().filter(|(tenant, _)| *tenant).count(),
        cached_tokens: cached.iter().filter(|(_, token)| *token).count(),
        without_tenant,
        most_without_tenant: most
            .into_iter()
            .map(|(business_account_id, set_aside)| WithoutTenant {
                business_account_id,
                set_aside,
            })
            .collect(),
    })
}

/// What a worker alone knows.
async fn metrics(url: &Url) -> anyhow::Result<WorkerMetrics> {
    let client = shared::outgoing::client().timeout(LIMIT).build()?;
    let answer = client.get(url.join("/metrics")?).send().await;
    let answer = answer.map_err(reqwest::Error::without_url)?;
    ensure!(answer.status().is_success(), "answered {}", answer.status());
    let text = answer.text().await;
    Ok(read_metrics(&text.map_err(reqwest::Error::without_url)?))
}

fn read_metrics(text: &str) -> WorkerMetrics {
    let mut metrics = WorkerMetrics::default();
    for line in text.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let Some((name, label)) = series.split_once('{') else {
            continue;
        };
        let Some(label) = label.split('"').nth(1).map(str::to_owned) else {
            continue;
        };
        let count = value.parse::<f64>().unwrap_or(0.0) as u64;
        match name {
            "whatsapp_breaker_state" => {
                let state = ["closed", "half open", "open"];
                let state = state.get(count as usize).copied().unwrap_or("unknown");
                metrics.breakers.insert(label, state);
            }
            "cache_hit_total" => metrics.caches.entry(label).or_default()[0] = count,
            "cache_miss_total" => metrics.caches.entry(label).or_default()[1] = count,
            _ => {}
        }
    }
    metrics
}

fn write(output: &mut Output, report: &Inspection) {
    write_partitions(output, report);
    write_queues(output, &report.queues);
    write_store(output, report);
    write_accounts(output, &report.accounts);
    write_metrics(output, &report.metrics);
}

/// The part, or why it isn't known.
fn known<'s, T>(output: &mut Output, section: &'s Section<T>) -> Option<&'s T> {
    match section {
        Section::Known(known) => Some(known),
        Section::Unknown { unknown } => {
            output.line(Style::Bad, format!("unknown: {unknown}"));
            None
        }
    }
}

fn write_partitions(output: &mut Output, report: &Inspection) {
    output.head("Streams");
    if let Some(partitions) = known(output, &report.partitions) {
        let names = [
            "partition",
            "length",
            "pending",
            "lag",
            "oldest",
            "owed",
            "owner",
        ];
        let mut rows = vec![row(Style::Faint, names)];
        rows.extend(partitions.iter().map(|one| {
            let oldest = one.oldest_age_seconds;
            let kinds = one.owed.iter().filter(|(_, n)| **n > 0);
            let kinds: Vec<_> = kinds.map(|(kind, n)| format!("{n} {kind}")).collect();
            let owed = match kinds.as_slice() {
                [] => "0".to_owned(),
                kinds => kinds.join(", "),
            };
            let cells = [
                one.partition.to_string(),
                one.length.to_string(),
                one.pending.to_string(),
                one.lag.to_string(),
                oldest.map_or("-".to_owned(), short),
                owed,
                one.owner.clone().unwrap_or_else(|| "nobody".to_owned()),
            ];
            let tone = match (&one.owner, oldest) {
                (None, Some(_)) => Style::Bad,
                (None, None) | (_, Some(60..)) => Style::Doubtful,
                (Some(_), _) => Style::Plain,
            };
            cells.map(|cell| (tone, cell)).into()
        }));
        output.table(&rows);
    }
    if let Some(workers) = known(output, &report.workers) {
        let tone = if workers.is_empty() {
            Style::Bad
        } else {
            Style::Plain
        };
        output.line(tone, format!("live workers: {}", workers.len()));
    }
}

fn write_queues(output: &mut Output, queues: &Section<Vec<QueueReport>>) {
    output.head("Queues (counts may be 5 s old)");
    let Some(queues) = known(output, queues) else {
        return;
    };
    let mut rows = vec![row(Style::Faint, ["queue", "messages", "consumers"])];
    rows.extend(queues.iter().map(|queue| match &queue.counts {
        Section::Known(counts) => {
            let dead = queue.name.ends_with(".DLQ");
            let tone = match (counts.messages, counts.consumers) {
                (1.., _) if dead => Style::Doubtful,
                (1.., 0) => Style::Doubtful,
                (0, _) | (1.., 1..) => Style::Plain,
            };
            let counts = [counts.messages, counts.consumers].map(|count| count.to_string());
            row(tone, [&queue.name, &counts[0], &counts[1]])
        }
        Section::Unknown { unknown } => row(Style::Bad, [&queue.name, unknown]),
    }));
    output.table(&rows);
}

fn write_store(output: &mut Output, report: &Inspection) {
    let more = |at_least: bool| if at_least { "+" } else { "" };
    output.head("Spool");
    if let Some(spool) = known(output, &report.spool) {
        let tone = if spool.objects > 0 {
            Style::Doubtful
        } else {
            Style::Plain
        };
        let count = format!("{}{} objects", spool.objects, more(spool.at_least));
        output.line(tone, count);
    }
    output.head("Failed store");
    if let Some(failed) = known(output, &report.failed) {
        let count = format!("{}{} objects", failed.objects, more(failed.at_least));
        output.line(Style::Plain, count);
        let reasons = failed.by_reason.iter();
        let rows: Vec<_> = reasons
            .map(|(reason, n)| row(Style::Doubtful, [&n.to_string(), reason]))
            .collect();
        output.table(&rows);
        if failed.looked_at < failed.objects {
            let looked_at = format!("reasons of the first {} only", failed.looked_at);
            output.line(Style::Faint, looked_at);
        }
    }
}

fn write_accounts(output: &mut Output, accounts: &Section<AccountsReport>) {
    output.head("Accounts and caches in Redis");
    let Some(found) = known(output, accounts) else {
        return;
    };
    let of = format!("of the last {} accounts", found.looked_for);
    let rows: Vec<_> = [
        ("accounts seen lately", found.seen, ""),
        ("cached tenants", found.cached_tenants, &*of),
        ("cached tokens", found.cached_tokens, &*of),
        ("accounts without a tenant", found.without_tenant, ""),
    ]
    .iter()
    .map(|(what, count, of)| row(Style::Plain, [*what, &count.to_string(), *of]))
    .collect();
    output.table(&rows);
    let unknown = found.most_without_tenant.iter();
    let rows: Vec<_> = unknown
        .map(|one| {
            let times = one.set_aside.to_string();
            row(
                Style::Doubtful,
                ["  set aside", &times, &one.business_account_id],
            )
        })
        .collect();
    output.table(&rows);
}

fn write_metrics(output: &mut Output, workers: &[WorkerReport]) {
    output.head("Breakers and caches of workers");
    if workers.is_empty() {
        let hint = "each worker has its own: --worker-url http://worker:9081 asks one";
        output.line(Style::Faint, hint);
    }
    for worker in workers {
        output.line(Style::Plain, &worker.worker);
        let Some(metrics) = known(output, &worker.metrics) else {
            continue;
        };
        let mut rows = Vec::new();
        for (neighbour, state) in &metrics.breakers {
            let tone = if *state == "closed" {
                Style::Good
            } else {
                Style::Bad
            };
            rows.push(row(tone, ["  breaker", neighbour, state]));
        }
        for (cache, [hits, misses]) in &metrics.caches {
            let share = 100 * hits / (hits + misses).max(1);
            let counts = format!("{hits} hits, {misses} misses ({share} %)");
            rows.push(row(Style::Plain, ["  cache", cache, &counts]));
        }
        output.table(&rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_tells_its_breakers_and_caches() {
        let metrics = read_metrics(
            "# TYPE whatsapp_breaker_state gauge\nwhatsapp_breaker_state{neighbour=\"Graph\"} 2\n\
             cache_hit_total{cache=\"Tenant\"} 3\ncache_miss_total{cache=\"Tenant\"} 1\nup 1\n",
        );
        assert_eq!(metrics.breakers["Graph"], "open");
        assert_eq!(metrics.caches["Tenant"], [3, 1]);
    }
}
